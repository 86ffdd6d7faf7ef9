//! Certificates for representations that a pursuit has found.

use super::bounds::{Bound, Noise, Promise, Theorem, Unmet, model_projection};
use super::levels::Levels;
use super::profile::ModelProfile;
use serde::Serialize;
use serde_json::{Value, json};

/// Why a representation is the only one as sparse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Uniqueness {
    /// ‖γ_i‖ˢ_{0,∞} < ½(1 + 1/μ(D^(i))): any other γ_i that makes the same signal has more non-zeros in some stripe.
    Effective,
    /// γ_{i−1} is the only one, and ‖γ_i‖ˢ_{0,∞} < ½(1 + 1/μ(D_i)).
    Own,
    /// A deeper representation is the only one, and determines this one.
    Inherited,
    /// Nothing is proven.
    Unproven,
}

/// What is certain about the representations γ̂_1 … γ̂_L of one signal y, γ̂_{i−1} = D_i γ̂_i.
///
/// *Uniqueness* is about x̂ = D^(L) γ̂_L, exactly: no other representations of x̂ in the model are as sparse in every stripe that counts.
/// *Stability* is about y: a signal x within E of y, whose representations are no less sparse than those found, has representations
/// within the bound of those found, whichever pursuit found them. *Promises* are about what a pursuit would find of x̂ with noise.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The representations in numbers.
    pub levels: Levels,
    /// Layer by layer, whether the representation of x̂ is the only one as sparse, and why.
    pub uniqueness: Vec<Uniqueness>,
    /// ‖y − x̂‖₂.
    pub residual: f64,
    /// E, how far the signal may be from y.
    pub noise: f64,
    /// Of ‖γ̂_i − γ_i‖₂ for every signal within E of y that is as sparse.
    pub stability: Vec<Result<Bound, Unmet>>,
    /// Every theorem with the noise radius within which it holds, and its promise for noise of length E.
    pub theorems: Vec<TheoremReport>,
}

/// A theorem on one signal.
#[derive(Debug, Clone)]
pub struct TheoremReport {
    /// Its name.
    pub name: &'static str,
    /// See [`Theorem::radius`].
    pub radius: Option<f64>,
    /// For noise of length E.
    pub promise: Promise,
}

impl Certificate {
    /// For representations of these levels that leave a residual of that length, and noise of length `noise`.
    pub fn new(profile: &ModelProfile, levels: Levels, residual: f64, noise: f64, theorems: &[Theorem]) -> Self {
        let uniqueness = uniqueness(profile, &levels);
        // x and x̂ are both in the model and at most E + ‖y − x̂‖ apart.
        let stability = model_projection(profile, &levels, noise + residual);
        let theorems = theorems
            .iter()
            .map(|theorem| TheoremReport {
                name: theorem.name(),
                radius: theorem.radius(profile, &levels),
                promise: theorem.promise(profile, &levels, &Noise::of_length(noise)),
            })
            .collect();
        Self { levels, uniqueness, residual, noise, stability, theorems }
    }

    /// Whether every representation is proven to be the only one as sparse.
    pub fn is_unique(&self) -> bool {
        !self.uniqueness.contains(&Uniqueness::Unproven)
    }

    /// All of it as JSON; a radius that is not bounded is `"unbounded"`.
    pub fn json(&self) -> Value {
        let bounds = |bounds: &[Result<Bound, Unmet>]| -> Value {
            bounds.iter().zip(&self.levels.layers).map(|(bound, level)| bound_json(bound, level.norm)).collect()
        };
        let theorem = |report: &TheoremReport| {
            let radius = match report.radius {
                Some(radius) if radius.is_infinite() => json!("unbounded"),
                radius => json!(radius),
            };
            json!({
                "theorem": report.name,
                "radius": radius,
                "support": report.promise.holds().then_some(report.promise.support),
                "layers": bounds(&report.promise.layers),
            })
        };
        json!({
            "layers": self.levels.layers,
            "non_vanishing_support": self.levels.supports_survive(),
            "uniqueness": self.uniqueness,
            "residual": self.residual,
            "noise": self.noise,
            "stability": bounds(&self.stability),
            "theorems": self.theorems.iter().map(theorem).collect::<Value>(),
        })
    }
}

/// A bound with the word that it deserves, or the condition that failed, as JSON.
pub fn bound_json(bound: &Result<Bound, Unmet>, norm: f64) -> Value {
    match bound {
        Ok(bound) => json!({ "bound": bound, "vacuous": bound.is_vacuous(norm) }),
        Err(unmet) => json!({ "no_guarantee": unmet, "reason": unmet.to_string() }),
    }
}

/// The median; of an even number of values the mean of the two in the middle. `None` of none.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        len if len % 2 == 1 => Some(sorted[middle]),
        _ => Some(0.5 * (sorted[middle - 1] + sorted[middle])),
    }
}

fn uniqueness(profile: &ModelProfile, levels: &Levels) -> Vec<Uniqueness> {
    let mut found = vec![Uniqueness::Unproven; profile.depth()];
    for (index, level) in levels.layers.iter().enumerate() {
        let below = |stripe: usize, limit: f64| (stripe as f64) < limit;
        let known_below = index > 0 && found[index - 1] != Uniqueness::Unproven;
        if below(level.effective_stripe, profile.effective[index].uniqueness_limit()) {
            found[index] = Uniqueness::Effective;
        } else if known_below && below(level.own_stripe, profile.own[index].uniqueness_limit()) {
            found[index] = Uniqueness::Own;
        }
    }
    // What determines another can be known only if that one is.
    let deepest_known = found.iter().rposition(|reason| *reason != Uniqueness::Unproven).unwrap_or(0);
    for reason in &mut found[..deepest_known] {
        if *reason == Uniqueness::Unproven {
            *reason = Uniqueness::Inherited;
        }
    }
    found
}
