//! Limited-memory BFGS for smooth functions of many variables.
//!
//! D. C. Liu, J. Nocedal, "On the limited memory BFGS method for large scale optimization", Mathematical Programming 45, 1989.
//! Steps satisfy both Wolfe conditions, found by bracketing and bisection, so that every pair of differences that is remembered
//! has positive curvature.

use std::collections::VecDeque;

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stop {
    /// Norm of the gradient, as a part of what it was at the start.
    pub gradient: f64,
    /// Decrease of the value over [`PATIENCE`] iterations, as a part of the value.
    pub decrease: f64,
    /// Most iterations.
    pub iterations: usize,
}

/// What was found.
#[derive(Debug, Clone)]
pub(super) struct Minimum {
    pub point: Vec<f64>,
    pub value: f64,
    pub iterations: usize,
    /// Whether it ended because nothing was left to gain rather than by the number of iterations.
    pub converged: bool,
}

/// Iterations over which the decrease is measured.
const PATIENCE: usize = 5;

/// Pairs of differences that are remembered.
const MEMORY: usize = 12;

/// Evaluations of one line search at most.
const TRIALS: usize = 20;

/// Part of the slope by which a step has to decrease the value.
const DECREASE: f64 = 1e-4;

/// Part of the slope that may be left after a step.
const CURVATURE: f64 = 0.9;

/// Minimises from `point` on; `evaluate` returns the value and writes the gradient.
///
/// An error of `evaluate` ends it.
pub(super) fn minimize<E>(
    point: Vec<f64>,
    stop: Stop,
    mut evaluate: impl FnMut(&[f64], &mut [f64]) -> Result<f64, E>,
) -> Result<Minimum, E> {
    let len = point.len();
    let mut found = Minimum { point, value: 0.0, iterations: 0, converged: false };
    let mut gradient = vec![0.0; len];
    found.value = evaluate(&found.point, &mut gradient)?;
    let enough = stop.gradient * dot(&gradient, &gradient).sqrt();
    let mut pairs: VecDeque<(Vec<f64>, Vec<f64>, f64)> = VecDeque::new();
    let mut values = VecDeque::from([found.value]);
    let (mut trial, mut gradient_there) = (vec![0.0; len], vec![0.0; len]);
    while found.iterations < stop.iterations {
        let steepness = dot(&gradient, &gradient).sqrt();
        if steepness <= enough || steepness == 0.0 {
            found.converged = true;
            break;
        }
        let mut direction = descent(&gradient, &pairs);
        let mut slope = dot(&direction, &gradient);
        if slope >= 0.0 {
            // Rounding has spoilt the memory.
            pairs.clear();
            direction = gradient.iter().map(|value| -value).collect();
            slope = -steepness * steepness;
        }
        // Without memory nothing is known about the scale.
        let mut step = if pairs.is_empty() { (1.0 / steepness).min(1.0) } else { 1.0 };
        let (mut low, mut high) = (0.0, f64::INFINITY);
        let mut accepted = None;
        for _ in 0..TRIALS {
            for ((trial, value), along) in trial.iter_mut().zip(&found.point).zip(&direction) {
                *trial = value + step * along;
            }
            let value = evaluate(&trial, &mut gradient_there)?;
            let decreased = value <= found.value + DECREASE * step * slope;
            if !decreased {
                high = step;
            } else if dot(&direction, &gradient_there) < CURVATURE * slope {
                low = step;
            } else {
                accepted = Some(value);
                break;
            }
            step = if high.is_finite() { 0.5 * (low + high) } else { 2.0 * step };
        }
        // No step leads down any more that `f64` could tell apart.
        let Some(value) = accepted else {
            found.converged = true;
            break;
        };
        let moved: Vec<f64> = trial.iter().zip(&found.point).map(|(new, old)| new - old).collect();
        let turned: Vec<f64> = gradient_there.iter().zip(&gradient).map(|(new, old)| new - old).collect();
        let curvature = dot(&moved, &turned);
        if curvature > 1e-12 * dot(&turned, &turned) {
            if pairs.len() == MEMORY {
                pairs.pop_front();
            }
            pairs.push_back((moved, turned, curvature));
        }
        std::mem::swap(&mut found.point, &mut trial);
        std::mem::swap(&mut gradient, &mut gradient_there);
        found.value = value;
        found.iterations += 1;
        values.push_back(value);
        if values.len() > PATIENCE {
            let before = values.pop_front().unwrap_or(value);
            if before - value <= stop.decrease * value.abs() {
                found.converged = true;
                break;
            }
        }
    }
    Ok(found)
}

/// Minus the gradient, times the inverse of what the pairs say of the curvature.
fn descent(gradient: &[f64], pairs: &VecDeque<(Vec<f64>, Vec<f64>, f64)>) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|value| -value).collect();
    let mut weights = Vec::with_capacity(pairs.len());
    for (moved, turned, curvature) in pairs.iter().rev() {
        let weight = dot(moved, &direction) / curvature;
        add(&mut direction, turned, -weight);
        weights.push(weight);
    }
    if let Some((_, turned, curvature)) = pairs.back() {
        let scale = curvature / dot(turned, turned);
        direction.iter_mut().for_each(|value| *value *= scale);
    }
    for ((moved, turned, curvature), weight) in pairs.iter().zip(weights.iter().rev()) {
        let correction = weight - dot(turned, &direction) / curvature;
        add(&mut direction, moved, correction);
    }
    direction
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

fn add(into: &mut [f64], other: &[f64], weight: f64) {
    into.iter_mut().zip(other).for_each(|(into, other)| *into += weight * other);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    const STOP: Stop = Stop { gradient: 1e-9, decrease: 0.0, iterations: 500 };

    /// Rosenbrock's valley in ten dimensions ends at 1, …, 1.
    #[test]
    fn finds_the_end_of_a_curved_valley() {
        let valley = |point: &[f64], gradient: &mut [f64]| -> Result<f64, Infallible> {
            gradient.fill(0.0);
            let mut value = 0.0;
            for index in 0..point.len() - 1 {
                let (x, y) = (point[index], point[index + 1]);
                value += 100.0 * (y - x * x).powi(2) + (1.0 - x).powi(2);
                gradient[index] += -400.0 * x * (y - x * x) - 2.0 * (1.0 - x);
                gradient[index + 1] += 200.0 * (y - x * x);
            }
            Ok(value)
        };
        let start: Vec<f64> = (0..10).map(|index| if index % 2 == 0 { -1.2 } else { 1.0 }).collect();
        let found = minimize(start, STOP, valley).unwrap();
        assert!(found.converged && found.iterations < 200, "{} iterations", found.iterations);
        assert!(found.value < 1e-12, "{}", found.value);
        assert!(found.point.iter().all(|value| (value - 1.0).abs() < 1e-6), "{:?}", found.point);
    }

    /// A badly scaled quadratic function has its minimum where the gradient says.
    #[test]
    fn solves_a_badly_scaled_system() {
        let scales: Vec<f64> = (0..50).map(|index| 10f64.powf(index as f64 / 24.0)).collect();
        let quadratic = |point: &[f64], gradient: &mut [f64]| -> Result<f64, Infallible> {
            let mut value = 0.0;
            for ((gradient, point), scale) in gradient.iter_mut().zip(point).zip(&scales) {
                *gradient = scale * (point - 1.0);
                value += 0.5 * scale * (point - 1.0).powi(2);
            }
            Ok(value)
        };
        let found = minimize(vec![0.0; 50], STOP, quadratic).unwrap();
        assert!(found.converged);
        assert!(found.point.iter().all(|value| (value - 1.0).abs() < 1e-5), "{:?}", found.point);
    }

    #[test]
    fn an_error_ends_it() {
        let found = minimize(vec![1.0], STOP, |_, _| Err("broken"));
        assert_eq!(found.unwrap_err(), "broken");
    }
}
