//! Certificates for representations that a pursuit has found.

use super::bounds::{Bound, Noise, Promise, Theorem, Unmet, model_projection};
use super::levels::Levels;
use super::profile::ModelProfile;
use crate::error::Error;
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
/// within the bound of those found, whichever pursuit found them. Where the residual exceeds E there may be no such signal.
/// *Promises* are about what a pursuit would find of x̂ with fresh noise, not about the noise that is in y.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The representations in numbers.
    pub levels: Levels,
    /// Layer by layer, whether the representation of x̂ is the only one as sparse, and why.
    pub uniqueness: Vec<Uniqueness>,
    /// At least ‖y − x̂‖₂.
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
    /// For representations of these levels that leave a residual of at most that length ≥ 0 (see [`ModelProfile::distance`]), and noise of
    /// length `noise` ≥ 0.
    ///
    /// # Errors
    /// A length that is negative or not finite.
    pub fn new(
        profile: &ModelProfile,
        levels: Levels,
        residual: f64,
        noise: f64,
        theorems: &[Theorem],
    ) -> crate::error::Result<Self> {
        for (name, length) in [("residual", residual), ("noise", noise)] {
            if !(length.is_finite() && length >= 0.0) {
                return Err(Error::parameter(name, length, "a finite length ≥ 0"));
            }
        }
        let uniqueness = uniqueness(profile, &levels);
        // x and x̂ are both in the model and at most E + ‖y − x̂‖ apart.
        let stability = model_projection(profile, &levels, noise + residual);
        let stability = stability.into_iter().map(|bound| bound.map(Bound::rounded_up)).collect();
        let theorems = theorems
            .iter()
            .map(|theorem| TheoremReport {
                name: theorem.name(),
                radius: theorem.radius(profile, &levels),
                promise: theorem.promise(profile, &levels, &Noise::of_length(noise)),
            })
            .collect();
        Ok(Self { levels, uniqueness, residual, noise, stability, theorems })
    }

    /// Whether every representation is proven to be the only one as sparse.
    pub fn is_unique(&self) -> bool {
        !self.uniqueness.contains(&Uniqueness::Unproven)
    }

    /// Whether the residual is longer than the noise may be, so that x̂ is not one of the signals within E of y, and there may be
    /// none. What rounding to `f32` adds to a residual of just E does not count.
    pub fn residual_exceeds_noise(&self) -> bool {
        self.residual > self.noise * (1.0 + 1e-6)
    }

    /// All of it as JSON; a radius that is not bounded is `"unbounded"`.
    pub fn json(&self) -> Value {
        let theorem = |report: &TheoremReport| {
            let radius = match report.radius {
                Some(radius) if radius.is_infinite() => json!("unbounded"),
                radius => json!(radius),
            };
            let mut document = self.promise_json(&report.promise);
            document["theorem"] = json!(report.name);
            document["radius"] = radius;
            document
        };
        json!({
            "layers": self.levels.layers,
            "non_vanishing_support": self.levels.supports_survive(),
            "uniqueness": self.uniqueness,
            "residual": self.residual,
            "noise": self.noise,
            "residual_exceeds_noise": self.residual_exceeds_noise(),
            "stability": self.bounds_json(&self.stability),
            "theorems": self.theorems.iter().map(theorem).collect::<Value>(),
        })
    }
}

impl Certificate {
    fn bounds_json(&self, bounds: &[Result<Bound, Unmet>]) -> Value {
        bounds.iter().zip(&self.levels.layers).map(|(bound, level)| bound_json(bound, level.norm)).collect()
    }

    /// A promise about these representations as JSON.
    pub fn promise_json(&self, promise: &Promise) -> Value {
        json!({
            "holds": promise.holds(),
            "support": promise.holds().then_some(promise.support),
            "layers": self.bounds_json(&promise.layers),
        })
    }
}

/// A bound with the word that it deserves, or the condition that failed, as JSON.
fn bound_json(bound: &Result<Bound, Unmet>, norm: f64) -> Value {
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
