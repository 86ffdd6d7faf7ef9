//! The stability theorems, each as a function of a model, a signal's representations and the noise.
//!
//! y = x + v with x = D_1 γ_1, γ_{i−1} = D_i γ_i. A theorem either bounds the error of every layer or says which condition failed
//! ([`Unmet`]); there is no number without its condition. Sources: J. Sulam, V. Papyan, Y. Romano, M. Elad, "Multi-Layer
//! Convolutional Sparse Modeling: Pursuit and Dictionary Learning", IEEE Trans. Signal Processing 66(15), 2018; V. Papyan,
//! Y. Romano, M. Elad, "Convolutional Neural Networks Analyzed via Convolutional Sparse Coding", J. Machine Learning Research
//! 18, 2017; V. Papyan, J. Sulam, M. Elad, "Working Locally Thinking Globally", IEEE Trans. Signal Processing 65(21), 2017;
//! J. Tropp, "Just relax", IEEE Trans. Information Theory 52(3), 2006.
//!
//! # What is assumed of columns
//!
//! Nothing but their norms. With w_a = ‖d_a‖ and c_a = w_a γ_a, D γ = D̄ c for the normalised dictionary D̄, so every statement is
//! proved for c and brought back by γ_a = c_a/w_a; w̲ and w̄ are the least and the largest norm. For unit columns these are the
//! papers' statements. k is a number of non-zeros in a stripe of the dictionary that the statement names: Gershgorin's
//! theorem on a row of D̄ᵀD̄ restricted to a support of at most k per stripe puts all eigenvalues into 1 ± (k − 1)μ.
//!
//! # Where these statements differ from the papers'
//!
//! - Bounds that name μ(D^(i)) count non-zeros in the stripe of the *effective* atoms, in which columns of D^(i) overlap; the stripe
//!   of the layer's own atoms is narrower and would not do.
//! - ‖D_j Δ‖² ≤ w̄²(1 + (k_j − 1)μ(D_j))‖Δ‖² holds without any condition, so that projections have a bound in every layer as soon as
//!   the deepest has one. Only the papers' rounder factor 3/2 needs ‖γ_j‖ˢ < ½(1 + 1/μ(D_j)), for the layers j > i, also after
//!   basis pursuit; layer 1's condition is never needed.
//! - k_j counts the entries of γ_j that the support of γ_L reaches through the atoms, cancelled or not. With non-vanishing supports
//!   (N.V.S.) that is ‖γ_j‖ˢ; without, the bounds hold all the same, and only statements about supports of shallower layers are lost.
//! - c_j is derived for two dimensions and strides: a patch of γ_{j−1} sees at most ⌊(e + k_j − 2)/s_j⌋ + 1 positions of γ_j per axis,
//!   which patches of γ_j cover.

use super::levels::Levels;
use super::profile::{DictionaryProfile, ModelProfile};
use super::rounding::{MANY, down, surely_below, up};
use crate::geometry::Geometry;
use crate::model::stripe::{patch_extent, patch_norm};
use serde::Serialize;
use std::fmt;

/// What is known of the noise v.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Noise {
    /// E_0 ≥ ‖v‖₂.
    pub global: f64,
    /// At least ‖v‖ᵖ_{2,∞} on patches as large as the atoms of D_1, for pursuits layer by layer.
    pub first_patch: f64,
    /// At least ‖v‖ᵖ_{2,∞} on patches as large as the atoms of D^(L), for projections.
    pub effective_patch: f64,
}

impl Noise {
    /// Nothing but ‖v‖₂ ≤ E_0 is known: no patch holds more.
    pub fn of_length(length: f64) -> Self {
        Self { global: length, first_patch: length, effective_patch: length }
    }

    /// Noise that is known sample by sample, each rounded to `f32`, for which the norms are raised.
    ///
    /// # Panics
    /// If the number of samples is not that of the geometry's signals.
    pub fn measured(geometry: &Geometry, noise: &[f32]) -> Self {
        let rounded = 1.0 + f64::from(f32::EPSILON);
        let patch = |extent| up(rounded * patch_norm(noise, geometry.signal(), extent), noise.len());
        let signal = geometry.signal();
        Self {
            global: patch([signal.height, signal.width]),
            first_patch: patch(patch_extent(geometry, 0)),
            effective_patch: patch(geometry.effective(geometry.depth()).kernel),
        }
    }
}

/// A condition that does not hold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Unmet {
    /// The layer whose condition it is.
    pub layer: usize,
    /// What should have been: `found` below `limit`, in words.
    pub condition: String,
    /// The left side.
    pub found: f64,
    /// The right side.
    pub limit: f64,
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of four digits behind the point nothing is left of what is small.
        let shown = |value: f64| {
            if value != 0.0 && value.abs() < 1e-3 { format!("{value:.2e}") } else { format!("{value:.4}") }
        };
        let [found, limit] = [self.found, self.limit].map(shown);
        write!(f, "layer {}: {} fails: {found} against {limit}", self.layer, self.condition)
    }
}

/// How far an estimate of γ_i is from it at most.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bound {
    /// Of ‖γ̂_i − γ_i‖₂.
    pub global: f64,
    /// Of ‖γ̂_i − γ_i‖ᵖ_{2,∞}, on the patches of [`crate::model::stripe::patch_extent`].
    pub local: f64,
    /// Of ‖γ̂_i − γ_i‖_∞.
    pub largest: f64,
    /// The constant of the paper, in the norm of the paper (global for [`Theorem::GreedyProjection`], local for
    /// [`Theorem::ConvexProjection`] and [`Theorem::LayeredBasisPursuit`]), where its conditions hold and it differs from the above.
    pub paper: Option<f64>,
}

impl Bound {
    fn of_length(global: f64) -> Self {
        Self { global, local: global, largest: global, paper: None }
    }

    /// Raised by what computing it may have cost.
    pub(super) fn rounded_up(self) -> Self {
        let up = |value| up(value, MANY);
        Self { global: up(self.global), local: up(self.local), largest: up(self.largest), paper: self.paper.map(up) }
    }

    /// Whether it says no more than that the zero code would do as well: it is no smaller than ‖γ_i‖₂ = `norm`.
    pub fn is_vacuous(&self, norm: f64) -> bool {
        self.global >= norm
    }
}

/// What is promised of the support of γ_L, and, with non-vanishing supports, of the shallower ones; for pursuits layer by layer of
/// all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Support {
    /// Nothing.
    Unknown,
    /// No entry outside the true support.
    Contained,
    /// The true support.
    Equal,
}

/// What a theorem promises.
#[derive(Debug, Clone, PartialEq)]
pub struct Promise {
    /// Of supports; it holds where the deepest layer has a bound.
    pub support: Support,
    /// A bound for each layer, or why there is none.
    pub layers: Vec<Result<Bound, Unmet>>,
}

impl Promise {
    /// Whether every layer has a bound.
    pub fn holds(&self) -> bool {
        self.layers.iter().all(Result::is_ok)
    }

    /// The first condition that failed.
    pub fn unmet(&self) -> Option<&Unmet> {
        self.layers.iter().find_map(|layer| layer.as_ref().err())
    }
}

/// The ℓ1 penalty per unit of a normalised coefficient c_a, least and largest over the columns.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Penalty {
    /// Least λ u_a/‖d_a‖, u_a being the weight of |γ_a|.
    pub least: f64,
    /// Largest λ u_a/‖d_a‖.
    pub largest: f64,
}

impl Penalty {
    /// λ on every |γ_a|‖d_a‖: every coefficient is weighted by its column's norm.
    pub fn normalized(lambda: f64) -> Self {
        Self { least: lambda, largest: lambda }
    }

    /// λ on every |γ_a|, as ½‖y − Dγ‖² + λ‖γ‖₁ has it.
    pub fn plain(lambda: f64, dictionary: &DictionaryProfile) -> Self {
        Self { least: down(lambda / dictionary.max_norm(), 1), largest: up(lambda / dictionary.min_norm(), 1) }
    }
}

/// A pursuit for which a theorem bounds the error.
#[derive(Debug, Clone, PartialEq)]
pub enum Theorem {
    /// Any x̂ in the model with ‖y − x̂‖ ≤ E_0 whose representations are as sparse as the true ones, such as the closest to y.
    ///
    /// ‖x − x̂‖ ≤ 2E_0 and the difference of two representations has at most 2k_i non-zeros in a stripe of D^(i), hence, if
    /// k_i < ½(1 + 1/μ(D^(i))), ‖γ_i − γ̂_i‖ ≤ 2E_0 / (w̲ √(1 − (2k_i − 1) μ(D^(i)))). It does not grow with depth.
    ModelProjection,
    /// Any γ̂_i layer by layer with ‖γ̂_{i−1} − D_i γ̂_i‖ ≤ E_{i−1}, as sparse as the true ones.
    ///
    /// The same for every D_i, whose signal γ_{i−1} is only known to E_{i−1}: if k_i < ½(1 + 1/μ(D_i)) in the own stripe,
    /// E_i = 2E_{i−1} / (w̲ √(1 − (2k_i − 1) μ(D_i))), a product over the layers.
    LayeredCoding,
    /// Orthogonal matching pursuit on D^(L), run for ‖γ_L‖₀ steps, and γ_{i−1} = D_i γ_i.
    ///
    /// While the largest error of a coefficient still is at least |c|_min, an atom of the support correlates with the residual
    /// by at least |c|_min − (k − 1)μ|c|_min − ε_0 and one outside by at most kμ|c|_min + ε_0: the support is found if
    /// k < ½(1 + 1/μ) − ε_0/(μ|c|_min), with ε_0 on the patches of D^(L). Least squares on it is then within
    /// E_0 / (w̲ √(1 − (k − 1)μ)), and in no entry further off than ε_0 / (w̲(1 − (k − 1)μ)).
    GreedyProjection,
    /// argmin ½‖y − D^(L)γ‖² + Σ λ_a|γ_a|, and γ_{i−1} = D_i γ_i.
    ///
    /// With ρ = kμ/(1 − (k − 1)μ), the minimiser restricted to the support is optimal if every penalty outside exceeds what noise and
    /// support can pull: ε_0(1 + ρ) + ρ·(largest penalty) < least penalty. It is then the only minimiser, its support is contained
    /// in the true one, and no |ĉ_a − c_a| exceeds (ε_0 + largest penalty)/(1 − (k − 1)μ). For k ≤ ⅓(1 + 1/μ), ρ ≤ ½ and
    /// 1 − (k − 1)μ ≥ ⅔(1 + μ), so that the papers' 4ε_0 will do and gives 7.5ε_0. With 4ε_0 the condition is 1 + 5ρ < 4 whatever
    /// the noise, none included: as the penalty goes to zero with it, what is found goes to the sparsest code.
    ConvexProjection {
        /// The penalty; `None`: 4ε_0 on normalised coefficients.
        penalty: Option<Penalty>,
    },
    /// argmin ½‖γ̂_{i−1} − D_i γ‖² + Σ λ_a|γ_a| layer by layer.
    ///
    /// The statement of [`Self::ConvexProjection`] in every layer, with its own dictionary and stripe and with the patch error of the
    /// layer before, ε_{i−1}, for noise; ε_i = √‖γ_i‖ᵖ_{0,∞} times the largest error of an entry: with the defaults
    /// 7.5^i ε_0 Π √‖γ_j‖ᵖ_{0,∞}.
    LayeredBasisPursuit {
        /// The penalty of every layer; `None`: 4ε_{i−1} on normalised coefficients.
        penalties: Option<Vec<Penalty>>,
    },
    /// γ̂_i = S_{β_i}(D_iᵀ γ̂_{i−1}).
    ///
    /// An entry of the support correlates by at least w̲(|c|_min − (k − 1)μ|c|_max − ε_{i−1}), one outside by at most
    /// w̄(kμ|c|_max + ε_{i−1}); a threshold between the two finds the support. No entry is then further off than
    /// w̄((k − 1)μ|c|_max + ε_{i−1}), and β_i more if the threshold is soft, and |w² − 1||γ|_max more for columns that are not of unit
    /// norm, whose correlation is not their coefficient.
    LayeredThresholding {
        /// Whether what exceeds the threshold is made smaller by it.
        soft: bool,
        /// β_i of every layer; `None`: a hundredth above the least that will do.
        thresholds: Option<Vec<f64>>,
    },
}

impl Theorem {
    /// Every theorem with its default parameters.
    pub fn all() -> [Self; 7] {
        [
            Self::ModelProjection,
            Self::GreedyProjection,
            Self::ConvexProjection { penalty: None },
            Self::LayeredCoding,
            Self::LayeredBasisPursuit { penalties: None },
            Self::LayeredThresholding { soft: true, thresholds: None },
            Self::LayeredThresholding { soft: false, thresholds: None },
        ]
    }

    /// A name for tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ModelProjection => "model-projection",
            Self::LayeredCoding => "layered-coding",
            Self::GreedyProjection => "omp-projection",
            Self::ConvexProjection { .. } => "bp-projection",
            Self::LayeredBasisPursuit { .. } => "layered-bp",
            Self::LayeredThresholding { soft: true, .. } => "layered-soft-thresholding",
            Self::LayeredThresholding { soft: false, .. } => "layered-hard-thresholding",
        }
    }

    /// What it promises of a signal with representations of these levels and of noise within these limits.
    ///
    /// # Panics
    /// If levels, penalties or thresholds are not as many as the model has layers.
    pub fn promise(&self, profile: &ModelProfile, levels: &Levels, noise: &Noise) -> Promise {
        assert_eq!(levels.layers.len(), profile.depth(), "levels of every layer");
        let (support, layers) = match self {
            Self::ModelProjection => (Support::Unknown, model_projection(profile, levels, 2.0 * noise.global)),
            Self::LayeredCoding => (Support::Unknown, layered_coding(profile, levels, noise.global)),
            Self::GreedyProjection => {
                (Support::Equal, from_deepest(profile, levels, greedy(profile, levels, noise), Some(Paper::Global)))
            }
            Self::ConvexProjection { penalty } => {
                let paper = penalty.is_none().then_some(Paper::Local);
                (Support::Contained, from_deepest(profile, levels, convex(profile, levels, noise, *penalty), paper))
            }
            Self::LayeredBasisPursuit { penalties } => {
                (Support::Contained, layered_basis_pursuit(profile, levels, noise.first_patch, penalties.as_deref()))
            }
            Self::LayeredThresholding { soft, thresholds } => (
                Support::Equal,
                layered_thresholding(profile, levels, noise.first_patch, *soft, thresholds.as_deref()).0,
            ),
        };
        Promise { support, layers: layers.into_iter().map(|bound| bound.map(Bound::rounded_up)).collect() }
    }

    /// The largest E such that every layer has a bound whatever the noise with ‖v‖₂ ≤ E: infinite where the conditions do not depend
    /// on the noise, 0 where there is a bound without noise alone, `None` where the conditions fail without any.
    pub fn radius(&self, profile: &ModelProfile, levels: &Levels) -> Option<f64> {
        let holds = |length: f64| self.promise(profile, levels, &Noise::of_length(length)).holds();
        if !holds(0.0) {
            return None;
        }
        // Conditions only get harder with more noise. Those that bear as much as this do not depend on it.
        let (mut within, mut beyond) = (NEAR, FAR);
        if holds(beyond) {
            return Some(f64::INFINITY);
        }
        if !holds(within) {
            return Some(0.0);
        }
        for _ in 0..100 {
            let middle = within.sqrt() * beyond.sqrt();
            if holds(middle) { within = middle } else { beyond = middle }
        }
        Some(within)
    }
}

/// The thresholds β_1 … β_L with which [`Theorem::LayeredThresholding`] makes its promise, as many as there are layers before the
/// first whose condition fails.
pub fn thresholds(profile: &ModelProfile, levels: &Levels, noise: &Noise, soft: bool) -> Vec<f64> {
    layered_thresholding(profile, levels, noise.first_patch, soft, None).1
}

/// Lengths of noise between which radii are sought: what bears no more than the least counts as bearing none.
const NEAR: f64 = 1e-60;
const FAR: f64 = 1e200;

/// In which norm the paper states its rounder bound.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Paper {
    Global,
    Local,
}

/// ‖γ_i‖ˢ_{0,∞} < ½(1 + 1/μ), with no column that is zero.
fn unique(layer: usize, name: &str, stripe: usize, dictionary: &DictionaryProfile) -> Result<(), Unmet> {
    let limit = dictionary.uniqueness_limit();
    // Not by the limit alone: the bounds divide by what is left.
    if (stripe as f64) < limit && gershgorin(2 * stripe, dictionary.mutual()) > 0.0 {
        return Ok(());
    }
    let condition = if dictionary.min_norm() > 0.0 {
        format!("‖γ_{layer}‖ˢ < ½(1 + 1/μ({name}))")
    } else {
        format!("no column of {name} is zero, and ‖γ_{layer}‖ˢ < ½(1 + 1/μ({name}))")
    };
    Err(Unmet { layer, condition, found: stripe as f64, limit })
}

/// 1 − (k − 1)μ, rounded down.
fn gershgorin(stripe: usize, coherence: f64) -> f64 {
    (1.0 - up(stripe.saturating_sub(1) as f64 * coherence, 1)).next_down()
}

/// Bounds for every layer of two signals in the model that are at most `distance` apart, both as sparse as the levels say.
pub(super) fn model_projection(profile: &ModelProfile, levels: &Levels, distance: f64) -> Vec<Result<Bound, Unmet>> {
    let layers = levels.layers.iter().zip(&profile.effective).enumerate();
    layers
        .map(|(index, (level, dictionary))| {
            unique(index + 1, &format!("D^({})", index + 1), level.effective_stripe, dictionary)?;
            let least = gershgorin(2 * level.effective_stripe, dictionary.mutual());
            Ok(Bound::of_length(distance / (dictionary.min_norm() * least.sqrt())))
        })
        .collect()
}

fn layered_coding(profile: &ModelProfile, levels: &Levels, noise: f64) -> Vec<Result<Bound, Unmet>> {
    let mut error = Ok(noise);
    let layers = levels.layers.iter().zip(&profile.own).enumerate();
    layers
        .map(|(index, (level, dictionary))| {
            error = error.clone().and_then(|below| {
                unique(index + 1, &format!("D_{}", index + 1), level.own_stripe, dictionary)?;
                let least = gershgorin(2 * level.own_stripe, dictionary.mutual());
                Ok(2.0 * below / (dictionary.min_norm() * least.sqrt()))
            });
            error.clone().map(Bound::of_length)
        })
        .collect()
}

/// The deepest layer after orthogonal matching pursuit.
fn greedy(profile: &ModelProfile, levels: &Levels, noise: &Noise) -> Result<Bound, Unmet> {
    let layer = profile.depth();
    let (level, dictionary) = (&levels.layers[layer - 1], &profile.effective[layer - 1]);
    let (stripe, coherence) = (level.effective_stripe, dictionary.mutual());
    if stripe == 0 {
        // No step is taken.
        return Ok(Bound::of_length(0.0));
    }
    unique(layer, &format!("D^({layer})"), stripe, dictionary)?;
    let (pull, limit) = (noise.effective_patch / level.effective_least, 0.5 * (1.0 + coherence));
    if !surely_below(stripe as f64 * coherence + pull, limit) {
        return Err(Unmet {
            layer,
            condition: format!("‖γ_{layer}‖ˢ·μ(D^({layer})) < ½(1 + μ(D^({layer}))) − ε_0/|γ_{layer}|_min"),
            found: stripe as f64 * coherence,
            limit: limit - pull,
        });
    }
    let least = gershgorin(stripe, coherence);
    let global = noise.global / (dictionary.min_norm() * least.sqrt());
    let largest = (noise.effective_patch / (dictionary.min_norm() * least)).min(global);
    Ok(Bound { global, local: global.min(largest * (level.patch as f64).sqrt()), largest, paper: Some(global) })
}

/// The largest error of an entry after basis pursuit with noise of at most `noise` on every atom and that penalty, by default the
/// papers'.
fn relaxed(
    (layer, name): (usize, &str),
    stripe: usize,
    dictionary: &DictionaryProfile,
    noise: f64,
    penalty: Option<Penalty>,
) -> Result<f64, Unmet> {
    unique(layer, name, stripe, dictionary)?;
    let coherence = dictionary.mutual();
    let least = gershgorin(stripe, coherence);
    let pull = stripe as f64 * coherence / least;
    let (needed, given, condition) = match penalty {
        // The noise cancels out.
        None => (1.0 + (1.0 + PENALTY) * pull, PENALTY, format!("1 + {}ρ < {PENALTY}", 1.0 + PENALTY)),
        Some(penalty) => (
            noise * (1.0 + pull) + pull * penalty.largest,
            penalty.least,
            format!(
                "(1 + ρ)ε_{} + ρ·(largest penalty) < least penalty",
                if name.contains('^') { 0 } else { layer - 1 }
            ),
        ),
    };
    if !surely_below(needed, given) {
        let condition = format!("{condition}, ρ = kμ/(1 − (k − 1)μ) for {name}");
        return Err(Unmet { layer, condition, found: needed, limit: given });
    }
    let largest = penalty.map_or(PENALTY * noise, |penalty| penalty.largest);
    Ok((noise + largest) / (dictionary.min_norm() * least))
}

/// Papers' default: four times the noise on an atom.
const PENALTY: f64 = 4.0;
/// What it costs: 7.5 = (1 + 4)/(2/3).
const PRICE: f64 = 7.5;

/// Whether the papers' condition k ≤ ⅓(1 + 1/μ) on unit columns holds.
fn third(stripe: usize, dictionary: &DictionaryProfile) -> bool {
    stripe as f64 * dictionary.mutual() <= (1.0 + dictionary.mutual()) / 3.0 && has_unit_columns(dictionary)
}

/// Whether all norms are 1, to the rounding of filters; the papers' constants are brought to the norms that there are.
fn has_unit_columns(dictionary: &DictionaryProfile) -> bool {
    dictionary.min_norm() > 1.0 - 1e-4 && dictionary.max_norm() < 1.0 + 1e-4
}

/// The deepest layer after basis pursuit.
fn convex(profile: &ModelProfile, levels: &Levels, noise: &Noise, penalty: Option<Penalty>) -> Result<Bound, Unmet> {
    let layer = profile.depth();
    let (level, dictionary) = (&levels.layers[layer - 1], &profile.effective[layer - 1]);
    let (stripe, coherence) = (level.effective_stripe, dictionary.mutual());
    let name = format!("D^({layer})");
    let largest = relaxed((layer, &name), stripe, dictionary, noise.effective_patch, penalty)?;
    let least = gershgorin(stripe, coherence);
    let count = (level.nonzeros as f64).sqrt();
    let most = (1.0 + stripe.saturating_sub(1) as f64 * coherence).sqrt();
    let penalty = penalty.map_or(PENALTY * noise.effective_patch, |penalty| penalty.largest);
    let by_energy = (most * noise.global + count * penalty) / (dictionary.min_norm() * least);
    let global = by_energy.min(count * largest);
    let patch = (level.patch as f64).sqrt();
    let paper = third(stripe, dictionary).then_some(PRICE * noise.effective_patch * patch / dictionary.min_norm());
    Ok(Bound { global, local: global.min(largest * patch), largest: largest.min(global), paper })
}

/// c_j of layer j = `depth`: patches of γ_j that cover what one patch of γ_{j−1} sees of it.
///
/// # Panics
/// If `depth` is 0 or larger than the number of layers.
pub fn covering_patches(geometry: &Geometry, depth: usize) -> usize {
    let seen = geometry.layers()[depth - 1].touching(patch_extent(geometry, depth - 1));
    let patch = patch_extent(geometry, depth);
    (0..2).map(|axis| seen[axis].div_ceil(patch[axis])).product()
}

/// Carries a bound of the deepest layer down to γ_1: ‖D_j Δ‖ ≤ w̄ √(1 + (k_j − 1)μ(D_j)) ‖Δ‖.
fn from_deepest(
    profile: &ModelProfile,
    levels: &Levels,
    deepest: Result<Bound, Unmet>,
    paper: Option<Paper>,
) -> Vec<Result<Bound, Unmet>> {
    let mut bounds = vec![deepest.clone()];
    let mut current = deepest;
    for depth in (2..=profile.depth()).rev() {
        let (level, dictionary) = (&levels.layers[depth - 1], &profile.own[depth - 1]);
        let coherence = dictionary.mutual();
        let growth = dictionary.max_norm() * (1.0 + level.reached_stripe.saturating_sub(1) as f64 * coherence).sqrt();
        let cover = (covering_patches(profile.geometry(), depth) as f64).sqrt();
        let half = level.reached_stripe as f64 * coherence < 0.5 * (1.0 + coherence) && has_unit_columns(dictionary);
        current = current.map(|bound| {
            let global = growth * bound.global;
            let local = global.min(growth * cover * bound.local);
            let factor = dictionary.max_norm() * 1.5f64.sqrt() * if paper == Some(Paper::Local) { cover } else { 1.0 };
            let paper = bound.paper.filter(|_| half && paper.is_some()).map(|value| factor * value);
            Bound { global, local, largest: local, paper }
        });
        bounds.push(current.clone());
    }
    bounds.reverse();
    if paper.is_none() {
        bounds.iter_mut().flatten().for_each(|bound| bound.paper = None);
    }
    bounds
}

fn layered_basis_pursuit(
    profile: &ModelProfile,
    levels: &Levels,
    noise: f64,
    penalties: Option<&[Penalty]>,
) -> Vec<Result<Bound, Unmet>> {
    // The patch error of the layer before, and what the paper's constants make of it.
    let mut below = Ok((noise, penalties.is_none().then_some(noise)));
    let layers = levels.layers.iter().zip(&profile.own).enumerate();
    layers
        .map(|(index, (level, dictionary))| {
            let bound = below.clone().and_then(|(noise, paper)| {
                let penalty = penalties.map(|penalties| penalties[index]);
                let name = format!("D_{}", index + 1);
                let largest = relaxed((index + 1, &name), level.own_stripe, dictionary, noise, penalty)?;
                let patch = (level.patch as f64).sqrt();
                let paper = paper
                    .filter(|_| third(level.own_stripe, dictionary))
                    .map(|noise| PRICE * noise * patch / dictionary.min_norm());
                let global = largest * (level.nonzeros as f64).sqrt();
                Ok(Bound { global, local: largest * patch, largest, paper })
            });
            below = bound.clone().map(|bound| (bound.local, bound.paper));
            bound
        })
        .collect()
}

/// Where in the interval of thresholds that will do the default lies, from its lower end.
const ABOVE: f64 = 0.01;

/// The bounds, and the thresholds of the layers that have one.
fn layered_thresholding(
    profile: &ModelProfile,
    levels: &Levels,
    noise: f64,
    soft: bool,
    thresholds: Option<&[f64]>,
) -> (Vec<Result<Bound, Unmet>>, Vec<f64>) {
    let mut below = Ok(noise);
    let mut used = Vec::new();
    let mut bounds = Vec::new();
    for (index, (level, dictionary)) in levels.layers.iter().zip(&profile.own).enumerate() {
        let layer = index + 1;
        let bound = below.clone().and_then(|noise| {
            let (least, most, coherence) = (dictionary.min_norm(), dictionary.max_norm(), dictionary.mutual());
            let stripe = level.own_stripe as f64;
            let others = (stripe - 1.0).max(0.0) * coherence * level.own_largest;
            let outside = most * (stripe * coherence * level.own_largest + noise);
            let inside = least * (level.own_least - others - noise);
            let unmet = |condition: &str, found, limit| {
                Err(Unmet { layer, condition: format!("{condition} for D_{layer}"), found, limit })
            };
            // Nothing to be found: any threshold that keeps the noise out will do.
            let inside = if level.own_stripe == 0 { f64::INFINITY } else { inside };
            // What noise and the others of the support take from its least.
            let taken = least * (others + noise);
            let hides =
                |threshold: f64| inside.is_finite() && !surely_below(threshold + taken, least * level.own_least);
            if hides(outside) {
                return unmet("w̄(kμ|γ|_max + ε) < w̲(|γ|_min − (k − 1)μ|γ|_max − ε)", outside, inside);
            }
            let threshold = match thresholds {
                Some(thresholds) => thresholds[index],
                None if inside.is_finite() => outside + ABOVE * (inside - outside),
                None => outside * (1.0 + ABOVE),
            };
            if threshold < up(outside, MANY) {
                return unmet("w̄(kμ|γ|_max + ε) ≤ β", outside, threshold);
            }
            if hides(threshold) {
                return unmet("β < w̲(|γ|_min − (k − 1)μ|γ|_max − ε)", threshold, inside);
            }
            used.push(threshold);
            if level.own_stripe == 0 {
                return Ok(Bound::of_length(0.0));
            }
            let scale = (most * most - 1.0).abs().max((1.0 - least * least).abs());
            let scale = scale + 4.0 * f64::EPSILON * most.max(1.0).powi(2);
            let largest = most * (others + noise) + if soft { threshold } else { 0.0 } + scale * level.largest;
            let of = |count: usize| largest * (count as f64).sqrt();
            Ok(Bound { global: of(level.nonzeros), local: of(level.patch), largest, paper: None })
        });
        below = bound.clone().map(|bound| bound.local);
        bounds.push(bound);
    }
    (bounds, used)
}
