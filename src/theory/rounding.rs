//! Outward rounding: computed numbers are kept on the safe side of the exact ones, so that what is certified is true.

/// Largest relative error of one operation in `f64`.
const UNIT: f64 = f64::EPSILON / 2.0;

/// γ_n = nu/(1 − nu): the largest relative error of a sum of products of which every term goes through at most n roundings, relative
/// to the sum of the terms' magnitudes and in whatever order they are added (N. Higham, "Accuracy and Stability of Numerical
/// Algorithms", SIAM 2002, chapter 3). Rounded up.
pub(super) fn accumulated(roundings: usize) -> f64 {
    let error = roundings as f64 * UNIT;
    up(error / (1.0 - error), 4)
}

/// At least the exact value of an expression that was computed as `value` ≥ 0 with so many operations on non-negative numbers, none
/// of them a subtraction.
pub(super) fn up(value: f64, operations: usize) -> f64 {
    value * (1.0 + (operations + 2) as f64 * f64::EPSILON)
}

/// At most the exact value; as [`up`].
pub(super) fn down(value: f64, operations: usize) -> f64 {
    (value * (1.0 - (operations + 2) as f64 * f64::EPSILON)).max(0.0)
}

/// Operations of which [`surely_below`] and bounds that go through all layers allow for: far more than any of them needs.
pub(super) const MANY: usize = 1 << 10;

/// Whether `found` < `limit` for certain, both having been computed from non-negative numbers without a subtraction.
pub(super) fn surely_below(found: f64, limit: f64) -> bool {
    up(found, MANY) < down(limit, MANY)
}

/// The exact sum of numbers, as parts that do not overlap (J. Shewchuk, "Adaptive precision floating-point arithmetic and fast
/// robust geometric predicates", Discrete & Computational Geometry 18(3), 1997). Without overflow and underflow it is zero if and
/// only if no part is left.
#[derive(Debug, Clone, Default)]
pub(super) struct ExactSum(Vec<f64>);

impl ExactSum {
    /// Of one number.
    pub(super) fn of(value: f64) -> Self {
        let mut this = Self::default();
        this.add(value);
        this
    }

    pub(super) fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, mut value: f64) {
        let mut kept = 0;
        for index in 0..self.0.len() {
            let part = self.0[index];
            let sum = value + part;
            let from_part = sum - value;
            let error = (value - (sum - from_part)) + (part - from_part);
            if error != 0.0 {
                self.0[kept] = error;
                kept += 1;
            }
            value = sum;
        }
        self.0.truncate(kept);
        if value != 0.0 {
            self.0.push(value);
        }
    }

    /// Adds a multiple of another sum.
    pub(super) fn add_product(&mut self, other: &Self, factor: f64) {
        for &part in &other.0 {
            let product = part * factor;
            self.add(part.mul_add(factor, -product));
            self.add(product);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_sums_know_what_is_zero() {
        // 1 + 2⁻⁶⁰ squared, minus its parts: a sum that `f64` cannot tell from zero, and one that is.
        let tiny = 2.0f64.powi(-60);
        let mut value = ExactSum::of(1.0);
        value.add(tiny);
        let mut square = ExactSum::default();
        square.add_product(&value, 1.0);
        square.add_product(&value, tiny);
        for part in [-1.0, -2.0 * tiny] {
            square.add(part);
        }
        assert!(!square.is_zero());
        square.add(-tiny * tiny);
        assert!(square.is_zero());
        // (0.1 + 0.2)·0.3 in their `f32` values, against itself in another order.
        let parts = [0.1f32, 0.2, 0.3].map(f64::from);
        let mut sum = ExactSum::of(parts[0]);
        sum.add(parts[1]);
        let mut difference = ExactSum::default();
        difference.add_product(&sum, parts[2]);
        difference.add_product(&ExactSum::of(parts[2]), -parts[1]);
        assert!(!difference.is_zero());
        difference.add_product(&ExactSum::of(parts[2]), -parts[0]);
        assert!(difference.is_zero());
    }

    #[test]
    fn rounding_goes_outwards() {
        // 1/3 is rounded down in `f64`: 3·fl(1/3) < 1 exactly.
        let third = 1.0f64 / 3.0;
        let mut error = ExactSum::of(-1.0);
        error.add_product(&ExactSum::of(up(third, 1)), 3.0);
        assert!(error.0.iter().sum::<f64>() > 0.0);
        assert!(down(third, 1) < third && up(third, 1) - third < 1e-15);
        assert!(
            !surely_below(1.0, 1.0)
                && surely_below(1.0, 1.0 + 1e-11)
                && !surely_below(f64::NAN, 1.0)
                && !surely_below(0.0, 0.0)
        );
        assert!(accumulated(0) == 0.0 && accumulated(3) >= 3.0 * UNIT && accumulated(3) < 4.0 * UNIT);
    }
}
