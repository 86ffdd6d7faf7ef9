//! The exact lasso of one signal by an active set, in `f64`: what coordinate descent hands a signal to where it stalls.
//!
//! Where atoms are coherent, or more of them are wanted than the signal has values, the sweeps of coordinate descent creep, and
//! the linear system on the support is singular. Here the atoms of the support always stay linearly independent. The non-zeros move
//! to the minimiser for their present signs, at most to where the first of them becomes zero and leaves the support (M. Osborne,
//! B. Presnell, B. Turlach, "A new approach to variable selection in least squares problems", IMA J. Numer. Anal. 20(3), 2000);
//! then atoms that violate optimality enter. One that depends on the support enters along the direction that leaves the
//! reconstruction as it is, in exchange for an atom that this direction makes zero. Every move lowers the objective, so that no
//! support occurs twice and the minimum is reached after finitely many moves.
//!
//! The Gram matrix of the support is that of the `f32` atoms, summed in `f64`, and its Cholesky factor is updated, not computed
//! anew. The duality gap is computed from the residual in `f64`; what is told is that of the code as it is written, in `f32`, whose rounding is all
//! that is left of an objective where λ is next to nothing ([`ROUNDED`]).

use super::duality::{Certificate, Sums};
use super::{BasisPursuitConfig, SignalReport, StopReason};
use crate::kernels::simd::vectorised;
use crate::pursuit::columns::{Columns, sum_of_lanes};
use std::cmp::Ordering;

/// Non-zeros up to which a support is worth its Cholesky factor.
const MAX_SUPPORT: usize = 2048;

/// An atom whose part outside the span of the support has less than this part of its energy depends on the support. At first atoms
/// that differ by less than 1e-5 do: to tell them apart takes many moves, which gain next to nothing. Where the gap asked for is
/// that small, atoms of `f32` that differ by rounding do, those that differ by 1e-6 don't.
const DEPENDENT: [f64; 2] = [1e-10, 1e-14];

/// By how much that part grows each time that an ill-conditioned support has to be built anew, and how often it may be.
const MORE_DEPENDENT: f64 = 100.0;
const REBUILDS: usize = 3;

/// As a difference of energies, the part outside the span is rounding below this part of an atom's energy. It is then computed from
/// the atoms.
const CANCELLED: f64 = 1e-6;

/// Part of λ up to which correlations on the support are to agree with it.
const SETTLED: f64 = 1e-10;

/// Solutions of one linear system that correct each other's rounding, at most.
const CORRECTIONS: usize = 5;

/// Part of λ by which a correlation may exceed it without violating optimality, as a part of the gap asked for: once the support has
/// settled, the relative gap is no larger than the largest of these parts.
const VIOLATION: f64 = 0.3;

/// 1 − cos² of the angle between two atoms below which they are near copies of each other, which `f32` tells for certain.
const ALIKE: f32 = 1e-5;

/// Part of its size by which a support may grow at once.
const GROWTH: usize = 4;

/// Atoms by which a support may grow at once where it is small.
const LEAST_GROWTH: usize = 4;

/// Rows of a factor that a system is solved for at a time.
const ROWS: usize = 4;

/// One signal and the atoms that describe it.
struct ActiveSet<'a> {
    columns: &'a Columns<'a>,
    lambda: f64,
    nonnegative: bool,
    /// The first of [`DEPENDENT`], then the second, or more once rounding got in the way.
    dependent: f64,
    support: Vec<usize>,
    values: Vec<f64>,
    /// 1 or −1: the sign that a coefficient has, or that it is to get.
    signs: Vec<f64>,
    /// Rows of the Cholesky factor of the support's Gram matrix, row i with i + 1 entries.
    factor: Vec<Vec<f64>>,
    /// y − Dγ.
    residual: Vec<f64>,
    /// Scratch: an atom, or Dδ.
    samples: Vec<f64>,
}

/// How an atom stands to the support.
enum Entry {
    /// Linearly independent: its row of the factor.
    Independent(Vec<f64>),
    /// Linearly dependent: the coefficients that make it from the atoms of the support.
    Dependent(Vec<f64>),
}

/// Part of ½‖y‖² that an objective counts as at least, when a gap is told in parts of it: codes in single precision leave as much.
const ROUNDED: f64 = 1e-9;

/// Minimises ½‖y − Dγ‖² + λ‖γ‖₁ from the code that is there, which is replaced. `None`, and the code as it was, where the support
/// outgrows [`MAX_SUPPORT`].
///
/// `iterations`, those that the signal has had, count towards the permitted ones; here a move is one. It ends early, at what it has,
/// when `cancelled` says so.
pub(super) fn finish(
    columns: &Columns,
    signal: &[f32],
    lambda: f32,
    config: &BasisPursuitConfig,
    iterations: usize,
    code: &mut [f32],
    cancelled: impl Fn() -> bool,
) -> Option<SignalReport> {
    let nonzeros = code.iter().filter(|value| **value != 0.0).count();
    if nonzeros.min(signal.len()) > MAX_SUPPORT {
        return None;
    }
    let mut set = ActiveSet {
        columns,
        lambda: f64::from(lambda),
        nonnegative: config.nonnegative,
        dependent: DEPENDENT[0],
        support: Vec::new(),
        values: Vec::new(),
        signs: Vec::new(),
        factor: Vec::new(),
        residual: Vec::new(),
        samples: vec![0.0; signal.len()],
    };
    let nonzeros = code.iter().enumerate().filter(|(_, value)| **value != 0.0);
    let start = set.merged(nonzeros.map(|(place, &value)| (place, f64::from(value))).collect());
    set.start_from(signal, start, &cancelled)?;
    let (mut fine, mut rebuilds) = (false, 0);
    let mut correlations = vec![0.0; code.len()];
    let mut iterations = iterations;
    let mut before = f64::INFINITY;
    let mut single = false;
    let gap = f64::from(config.gap);
    let mut corrections = 0;
    loop {
        let moved = set.settle(&mut iterations, config.max_iterations, &cancelled);
        columns.correlate_wide(&set.residual, &mut correlations);
        let certificate = set.certify(&correlations);
        let converged = certificate.relative_gap() <= gap;
        if moved && !converged && corrections < CORRECTIONS && !set.is_settled(&correlations) {
            corrections += 1;
            continue;
        }
        corrections = 0;
        let progress = certificate.objective < before * (1.0 - 1e-14);
        // Several atoms that enter together may get in each other's way; the one that violates most never fails to help.
        let stop = match () {
            () if converged => Some(StopReason::DualityGap),
            () if iterations >= config.max_iterations || cancelled() => Some(StopReason::MaxIterations),
            () if single && !progress => Some(StopReason::FixedPoint),
            () => None,
        };
        single = !progress;
        before = before.min(certificate.objective);
        let entered = stop.is_none() && set.admit(&correlations, gap, single)?;
        if stop.is_some() || !entered {
            let stop = stop.unwrap_or(StopReason::FixedPoint);
            if stop == StopReason::FixedPoint && !fine {
                (fine, set.dependent) = (true, DEPENDENT[1]);
                (single, before) = (false, f64::INFINITY);
                continue;
            }
            if stop == StopReason::FixedPoint && rebuilds < REBUILDS {
                rebuilds += 1;
                set.dependent *= MORE_DEPENDENT;
                let present = set.support.iter().copied().zip(set.values.iter().copied());
                set.start_from(signal, present.filter(|(_, value)| *value != 0.0).collect(), &cancelled)?;
                (single, before) = (false, f64::INFINITY);
                continue;
            }
            return Some(set.report(signal, &certificate, iterations, stop, gap, code));
        }
    }
}

impl ActiveSet<'_> {
    /// Takes the non-zeros of a code, largest first, and exchanges those that depend on the others; no more of them when `cancelled`
    /// says so.
    fn start_from(
        &mut self,
        signal: &[f32],
        mut start: Vec<(usize, f64)>,
        cancelled: &impl Fn() -> bool,
    ) -> Option<()> {
        start.sort_by(by_size);
        self.support.clear();
        self.values.clear();
        self.signs.clear();
        self.factor.clear();
        self.residual.clear();
        self.residual.extend(signal.iter().map(|&sample| f64::from(sample)));
        for &(place, value) in &start {
            self.take_out(place, -value);
        }
        for &(place, value) in &start {
            if cancelled() {
                self.take_out(place, value);
                continue;
            }
            match self.entry(place) {
                Some(Entry::Independent(row)) => self.push(place, value, value.signum(), row)?,
                Some(Entry::Dependent(combination)) => {
                    // Along (−combination, 1) the reconstruction stays; towards the smaller norm, or where that stays
                    // too, towards zero.
                    let slope = value.signum() - self.signed(&combination);
                    let direction = if slope == 0.0 { -value.signum() } else { -slope.signum() };
                    self.exchange(place, value, value.signum(), direction, &combination)?;
                }
                // A zero atom only costs.
                None => {}
            }
        }
        Some(())
    }

    /// Non-zeros with the parts of near copies on the first of them, all but as they explain the signal together.
    fn merged(&self, mut start: Vec<(usize, f64)>) -> Vec<(usize, f64)> {
        start.sort_by(by_size);
        let mut merged: Vec<(usize, f64)> = Vec::with_capacity(start.len());
        for (place, value) in start {
            // The other sign of an atom is no copy where codes have one sign.
            let copy = merged.iter_mut().find(|(other, _)| {
                self.are_alike(place, *other) && (!self.nonnegative || self.columns.inner(place, *other) > 0.0)
            });
            match copy {
                Some((other, sum)) => {
                    let (inner, energy) = (self.columns.inner(place, *other), self.columns.inner(*other, *other));
                    *sum += value * f64::from(inner / energy);
                }
                None => merged.push((place, value)),
            }
        }
        merged.retain(|(_, value)| *value != 0.0);
        merged
    }

    /// Whether two atoms are near copies of each other, up to length and sign.
    #[inline(always)]
    fn are_alike(&self, one: usize, other: usize) -> bool {
        let energies = self.columns.inner(one, one) * self.columns.inner(other, other);
        energies > 0.0 && self.columns.inner(one, other).powi(2) >= (1.0 - ALIKE) * energies
    }

    /// Σ s_i v_i: how fast the norm grows along a direction.
    fn signed(&self, direction: &[f64]) -> f64 {
        self.signs.iter().zip(direction).map(|(sign, value)| sign * value).sum()
    }

    /// How an atom stands to the support; `None` for a zero atom.
    fn entry(&mut self, place: usize) -> Option<Entry> {
        let (columns, samples) = (self.columns, &mut self.samples);
        samples.fill(0.0);
        columns.add_wide([(place, 1.0)].into_iter(), samples);
        let energy = square(samples);
        if energy <= 0.0 {
            return None;
        }
        let mut row = vec![0.0; self.support.len() + 1];
        columns.inner_wide_each(&self.support, samples, &mut row);
        self.solve_lower(&mut row[..self.support.len()]);
        let mut pivot = energy - square(&row[..self.support.len()]);
        let mut combination = None;
        if pivot <= CANCELLED * energy || self.support.len() >= self.residual.len() {
            let mut values = row[..self.support.len()].to_vec();
            self.solve_upper(&mut values);
            pivot = self.outside(place, energy, &mut values);
            combination = Some(values);
        }
        match combination {
            Some(combination) if pivot <= self.dependent * energy || self.support.len() >= self.residual.len() => {
                Some(Entry::Dependent(combination))
            }
            _ => {
                row[self.support.len()] = pivot.sqrt();
                Some(Entry::Independent(row))
            }
        }
    }

    /// The energy of the part of an atom of energy `whole` outside the span of the support, given the coefficients of its part inside,
    /// which are corrected for as long as that makes the rest smaller.
    fn outside(&mut self, place: usize, whole: f64, combination: &mut [f64]) -> f64 {
        let mut least = f64::INFINITY;
        for _ in 0..CORRECTIONS {
            let negative: Vec<f64> = combination.iter().map(|value| -value).collect();
            self.synthesize(&negative, Some((place, 1.0)));
            let energy = square(&self.samples);
            if energy >= 0.25 * least || energy <= self.dependent * whole {
                return energy.min(least);
            }
            least = energy;
            let mut correction = vec![0.0; combination.len()];
            self.columns.inner_wide_each(&self.support, &self.samples, &mut correction);
            self.solve(&mut correction);
            combination.iter_mut().zip(&correction).for_each(|(value, correction)| *value += correction);
        }
        least
    }

    /// Solves Lx = b in place.
    fn solve_lower(&self, values: &mut [f64]) {
        vectorised(
            #[inline(always)]
            || {
                // Some rows at a time: a single one's inner product would be waited for.
                for (block, rows) in self.factor.chunks(ROWS).enumerate() {
                    let first = block * ROWS;
                    let (known, open) = values.split_at_mut(first);
                    let mut explained = [0.0; ROWS];
                    match <&[Vec<f64>; ROWS]>::try_from(rows) {
                        Ok(rows) => explained = dots(std::array::from_fn(|row| &rows[row][..first]), known),
                        Err(_) => {
                            for (explained, row) in explained.iter_mut().zip(rows) {
                                *explained = dot(&row[..first], known);
                            }
                        }
                    }
                    for (index, row) in rows.iter().enumerate() {
                        let own = &row[first..];
                        let mut value = open[index] - explained[index];
                        for (factor, known) in own[..index].iter().zip(&open[..index]) {
                            value -= factor * known;
                        }
                        open[index] = value / own[index];
                    }
                }
            },
        );
    }

    /// Solves Lᵀx = b in place.
    fn solve_upper(&self, values: &mut [f64]) {
        vectorised(
            #[inline(always)]
            || {
                for index in (0..values.len()).rev() {
                    let own = &self.factor[index];
                    let value = values[index] / own[index];
                    values[index] = value;
                    for (other, factor) in values[..index].iter_mut().zip(own) {
                        *other -= value * factor;
                    }
                }
            },
        );
    }

    /// Solves LLᵀx = b in place.
    fn solve(&self, values: &mut [f64]) {
        self.solve_lower(values);
        self.solve_upper(values);
    }

    fn push(&mut self, place: usize, value: f64, sign: f64, row: Vec<f64>) -> Option<()> {
        if self.support.len() >= MAX_SUPPORT {
            return None;
        }
        self.support.push(place);
        self.values.push(value);
        self.signs.push(sign);
        self.factor.push(row);
        Some(())
    }

    fn remove(&mut self, index: usize) {
        self.support.remove(index);
        self.values.remove(index);
        self.signs.remove(index);
        self.factor.remove(index);
        // Every later row has one entry too many: rotations turn it into the one before.
        for column in index..self.factor.len() {
            let (a, b) = (self.factor[column][column], self.factor[column][column + 1]);
            let length = (a * a + b * b).sqrt();
            let (cosine, sine) = (a / length, b / length);
            for row in &mut self.factor[column..] {
                let (x, y) = (row[column], row[column + 1]);
                row[column] = cosine * x + sine * y;
                row[column + 1] = cosine * y - sine * x;
            }
            self.factor[column].truncate(column + 1);
        }
    }

    /// Moves a dependent atom by `direction` (1 or −1) and those of the support against it, so that the reconstruction stays, until
    /// one of them is zero. Does nothing where none would be.
    fn exchange(&mut self, place: usize, value: f64, sign: f64, direction: f64, combination: &[f64]) -> Option<()> {
        let own = if value * direction < 0.0 { value.abs() } else { f64::INFINITY };
        let mut moved: Vec<f64> = combination.iter().map(|part| -direction * part).collect();
        let (length, leaving) = self.first_zero(&moved, own);
        if !length.is_finite() {
            self.take_out(place, value);
            return Some(());
        }
        let change = direction * length;
        moved.iter_mut().for_each(|moved| *moved *= length);
        self.values.iter_mut().zip(&moved).for_each(|(value, change)| *value += change);
        // What rounding leaves of Dδ is taken into the residual.
        self.synthesize(&moved, Some((place, change)));
        self.residual.iter_mut().zip(&self.samples).for_each(|(residual, sample)| *residual -= sample);
        match leaving {
            Some(index) => {
                self.drop_value(index);
                self.remove(index);
                match self.entry(place) {
                    Some(Entry::Independent(row)) => self.push(place, value + change, sign, row),
                    // Not to be told from the others even now: its part goes to the residual.
                    _ => {
                        self.take_out(place, value + change);
                        Some(())
                    }
                }
            }
            None => Some(()),
        }
    }

    /// How far along a direction the first coefficient becomes zero, and which one; `longest`, where that is shorter.
    fn first_zero(&self, direction: &[f64], longest: f64) -> (f64, Option<usize>) {
        let (mut length, mut leaving) = (longest, None);
        for (index, (&value, &change)) in self.values.iter().zip(direction).enumerate() {
            // Of its sign, or zero already.
            if self.signs[index] * change < 0.0 && value.abs() < length * change.abs() {
                (length, leaving) = (value.abs() / change.abs(), Some(index));
            }
        }
        (length, leaving)
    }

    /// Takes what rounding has left of a coefficient that is to be zero out of the reconstruction.
    fn drop_value(&mut self, index: usize) {
        let rest = self.values[index];
        self.take_out(self.support[index], rest);
        self.values[index] = 0.0;
    }

    /// Takes an atom's part out of the reconstruction.
    fn take_out(&mut self, place: usize, value: f64) {
        if value != 0.0 {
            self.columns.add_wide([(place, value)].into_iter(), &mut self.residual);
        }
    }

    /// Dδ into the scratch samples.
    fn synthesize(&mut self, change: &[f64], one_more: Option<(usize, f64)>) {
        self.samples.fill(0.0);
        let all = self.support.iter().copied().zip(change.iter().copied()).chain(one_more);
        self.columns.add_wide(all, &mut self.samples);
    }

    /// Whether nothing but rounding keeps the support from its minimiser, by the correlations of all atoms.
    fn is_settled(&self, correlations: &[f64]) -> bool {
        let off = |(&place, sign): (&usize, &f64)| (correlations[place] - self.lambda * sign).abs();
        self.support.iter().zip(&self.signs).map(off).fold(0.0, f64::max) <= SETTLED * self.lambda
    }

    /// Moves to the minimiser on the support, coefficients that change their sign leaving it on the way, up to a step that none cuts
    /// short. Returns whether there was one: rounding may leave something to correct.
    fn settle(&mut self, iterations: &mut usize, max_iterations: usize, cancelled: &impl Fn() -> bool) -> bool {
        while !self.support.is_empty() && *iterations < max_iterations && !cancelled() {
            let mut change = vec![0.0; self.support.len()];
            self.columns.inner_wide_each(&self.support, &self.residual, &mut change);
            change.iter_mut().zip(&self.signs).for_each(|(change, sign)| *change -= self.lambda * sign);
            let steepest = change.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
            let gradient = change.clone();
            self.solve(&mut change);
            let slope = -dot(&gradient, &change);
            // Rounding is all that is left.
            if slope.is_nan() || slope >= 0.0 || steepest <= SETTLED * self.lambda {
                return false;
            }
            // Atoms that have just entered and would take the wrong sign leave at once.
            let wrong = |set: &Self, index: usize| set.values[index] == 0.0 && set.signs[index] * change[index] <= 0.0;
            let leaving: Vec<usize> = (0..change.len()).rev().filter(|&index| wrong(self, index)).collect();
            if !leaving.is_empty() {
                leaving.into_iter().for_each(|index| self.remove(index));
                continue;
            }
            *iterations += 1;
            self.synthesize(&change, None);
            let curvature = square(&self.samples);
            let best = if curvature > 0.0 { -slope / curvature } else { 1.0 };
            let (length, leaving) = self.first_zero(&change, best);
            self.values.iter_mut().zip(&change).for_each(|(value, change)| *value += length * change);
            self.residual.iter_mut().zip(&self.samples).for_each(|(residual, sample)| *residual -= length * sample);
            let Some(index) = leaving else { return true };
            self.drop_value(index);
            self.remove(index);
        }
        false
    }

    fn certify(&self, correlations: &[f64]) -> Certificate {
        let largest = correlations.iter().fold(0.0, |largest: f64, &value| largest.max(self.size(value)));
        let code_correlation = self.support.iter().zip(&self.values).map(|(&place, value)| value * correlations[place]);
        Certificate::from(Sums {
            lambda: self.lambda,
            residual_energy: square(&self.residual),
            one_norm: self.values.iter().map(|value| value.abs()).sum(),
            code_correlation: code_correlation.sum(),
            largest_correlation: largest,
            ..Sums::default()
        })
    }

    fn size(&self, correlation: f64) -> f64 {
        if self.nonnegative { correlation } else { correlation.abs() }
    }

    /// Takes in atoms that violate optimality, at most one where `single`. Returns whether there was one.
    fn admit(&mut self, correlations: &[f64], gap: f64, single: bool) -> Option<bool> {
        let limit = self.lambda * (1.0 + VIOLATION * gap);
        let mut active = self.support.clone();
        active.sort_unstable();
        let mut violators: Vec<(f64, usize)> = correlations
            .iter()
            .enumerate()
            .map(|(place, &correlation)| (self.size(correlation), place))
            .filter(|(size, place)| *size > limit && active.binary_search(place).is_err())
            .collect();
        let first = |a: &(f64, usize), b: &(f64, usize)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        let room = (self.support.len() / GROWTH).max(LEAST_GROWTH);
        if !single && violators.len() > room {
            violators.select_nth_unstable_by(room, first);
            violators.truncate(room);
        }
        violators.sort_unstable_by(first);
        let mut last = None;
        for &(_, place) in &violators {
            // Near copies correlate about equally, and the first of them does for now.
            if !single && last.is_some_and(|last| self.are_alike(place, last)) {
                continue;
            }
            last = Some(place);
            let sign = correlations[place].signum();
            match self.entry(place) {
                Some(Entry::Independent(row)) => self.push(place, 0.0, sign, row)?,
                // The norm has to shrink on the way.
                Some(Entry::Dependent(combination)) if 1.0 - sign * self.signed(&combination) < 0.0 => {
                    self.exchange(place, 0.0, sign, sign, &combination)?;
                }
                _ => continue,
            }
            if single {
                break;
            }
        }
        Some(!violators.is_empty())
    }

    /// Writes the code in `f32`, and reports on it as it is written.
    fn report(
        &self,
        signal: &[f32],
        certificate: &Certificate,
        iterations: usize,
        stop: StopReason,
        gap: f64,
        code: &mut [f32],
    ) -> SignalReport {
        code.fill(0.0);
        let mut residual: Vec<f64> = signal.iter().map(|&sample| f64::from(sample)).collect();
        let mut one_norm = 0.0;
        for (&place, &value) in self.support.iter().zip(&self.values) {
            code[place] = value as f32;
            let value = f64::from(code[place]);
            one_norm += value.abs();
            self.columns.add_wide([(place, -value)].into_iter(), &mut residual);
        }
        let data_term = 0.5 * square(&residual);
        let objective = data_term + self.lambda * one_norm;
        // The bound from below is that of the code before rounding. Without a penalty a signal may be met exactly, and rounding is all that
        // is left of the objective.
        let distance = (objective - (certificate.objective - certificate.gap)).max(0.0);
        let energy = 0.5 * signal.iter().map(|&sample| f64::from(sample).powi(2)).sum::<f64>();
        let relative =
            if distance == 0.0 { 0.0 } else { distance / objective.max(ROUNDED * energy).max(f64::MIN_POSITIVE) };
        SignalReport {
            lambda: self.lambda as f32,
            iterations,
            objective: objective as f32,
            relative_gap: relative as f32,
            data_term: data_term as f32,
            nonzeros: code.iter().filter(|value| **value != 0.0).count(),
            stop: if relative <= gap { StopReason::DualityGap } else { stop },
            finished_by: None,
        }
    }
}

/// Larger coefficients come first.
fn by_size(one: &(usize, f64), other: &(usize, f64)) -> Ordering {
    other.1.abs().total_cmp(&one.1.abs()).then(one.0.cmp(&other.0))
}

/// Inner products of some rows with as many values.
#[inline(always)]
fn dots(rows: [&[f64]; ROWS], values: &[f64]) -> [f64; ROWS] {
    let (values, rest) = values.as_chunks::<4>();
    let chunks = rows.map(|row| row.as_chunks::<4>());
    let mut sums = [[0.0f64; 4]; ROWS];
    for (place, values) in values.iter().enumerate() {
        for row in 0..ROWS {
            for lane in 0..4 {
                sums[row][lane] += chunks[row].0[place][lane] * values[lane];
            }
        }
    }
    std::array::from_fn(|row| {
        let rest: f64 = chunks[row].1.iter().zip(rest).map(|(left, right)| left * right).sum();
        (sums[row][0] + sums[row][2]) + (sums[row][1] + sums[row][3]) + rest
    })
}

/// ‖values‖².
fn square(values: &[f64]) -> f64 {
    vectorised(
        #[inline(always)]
        || dot(values, values),
    )
}

/// Inner product with partial sums, so that it vectorises.
#[inline(always)]
fn dot(left: &[f64], right: &[f64]) -> f64 {
    let ((left, left_rest), (right, right_rest)) = (left.as_chunks::<8>(), right.as_chunks::<8>());
    let mut sums = [0.0f64; 8];
    for (left, right) in left.iter().zip(right) {
        for lane in 0..8 {
            sums[lane] += left[lane] * right[lane];
        }
    }
    sum_of_lanes(sums) + left_rest.iter().zip(right_rest).map(|(left, right)| left * right).sum::<f64>()
}
