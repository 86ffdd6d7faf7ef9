//! Greedy picks, several at a time, where the Gram matrix is at hand.
//!
//! Every pick needs the correlations of all atoms with the residual, k rows of the Gram matrix for k non-zeros, which is all the
//! time that orthogonal matching pursuit takes. Few atoms come into question soon, though: those that correlate well with the
//! residual now. Some steps are taken among these alone, and then the correlations of all atoms after each of these steps are
//! computed in one pass over the rows. Where another atom would have been picked the steps from there on are taken back. What comes
//! out is orthogonal matching pursuit, up to picks between atoms whose scores differ by no more than rounding.

use super::StopReason;
use super::greedy::{Approximation, Given, score_of};
use crate::kernels::simd::{STEPS, subtract_rows, subtract_rows_in_steps};

/// Non-zeros up to which steps are taken one by one: they cost little, and what comes next is least certain.
const FIRST_STEPS: usize = 8;

/// Atoms from which on looking at few of them pays.
const LEAST_ATOMS: usize = 1024;

/// One in so many atoms is looked at.
const ONE_IN: usize = 16;

/// Atoms that say how large the scores of one in [`ONE_IN`] are.
const SAMPLE: usize = 256;

/// Blocks of steps that may be taken back in a row before they are given up for this signal.
const PATIENCE: i32 = 3;

/// Memory that is kept from signal to signal.
#[derive(Default)]
pub(super) struct Foresight {
    /// Correlations with the residual.
    correlations: Vec<f32>,
    /// Whether they are those of the present support.
    known: bool,
    /// Falls where steps are taken back, rises where they are not.
    trust: i32,
    after: Vec<f32>,
    candidates: Candidates,
    /// Atoms that were in the support at some step, with their coefficients at every step.
    rows: Vec<usize>,
    values: Vec<[f32; STEPS]>,
    states: Vec<Approximation>,
    scores: Vec<f32>,
}

/// Some of the atoms, in ascending order.
#[derive(Default)]
struct Candidates {
    places: Vec<usize>,
    scales: Vec<f32>,
    /// Their correlations with the signal, and with the residual.
    of_signal: Vec<f32>,
    of_residual: Vec<f32>,
    /// Rows of the Gram matrix, as far as they are theirs, one after the other.
    gram: Vec<f32>,
    /// The atoms whose rows these are.
    atoms: Vec<usize>,
    sample: Vec<f32>,
    /// Places in `atoms`.
    rows: Vec<usize>,
}

impl Foresight {
    /// Begins with a signal.
    #[inline(always)]
    pub(super) fn start(&mut self, given: &Given) {
        self.known = false;
        self.trust = PATIENCE;
        self.correlations.resize(given.correlations.len(), 0.0);
        self.after.resize(given.correlations.len(), 0.0);
    }

    /// Takes one or several atoms into the support, none more once `finished` has a reason to stop. Returns whether there was one.
    #[inline(always)]
    pub(super) fn grow(
        &mut self,
        state: &mut Approximation,
        given: &Given,
        finished: impl Fn(&Approximation) -> Option<StopReason>,
    ) -> bool {
        if !self.known {
            state.correlate(given.columns, given.correlations, given.signal, &mut self.correlations);
        }
        self.known = false;
        let Some((place, _)) = state.pick(&mut self.correlations, given.norms) else { return false };
        let gram = given.columns.gram().filter(|_| {
            self.trust > 0 && state.support.len() >= FIRST_STEPS && given.norms.len() >= LEAST_ATOMS && !state.is_tiny()
        });
        let Some(gram) = gram else {
            state.take(place, given.columns, given.correlations, given.signal);
            return true;
        };
        self.candidates.choose(&self.correlations, given, state.nonnegative);
        if state.take(place, given.columns, given.correlations, given.signal) {
            self.look_ahead(state, given, gram, &finished);
            self.check(state, given, gram, finished(state).is_some());
        }
        true
    }

    /// Takes further steps among the candidates, and remembers the states after every step and the scores that led to them.
    #[inline(always)]
    fn look_ahead(
        &mut self,
        state: &mut Approximation,
        given: &Given,
        gram: &[f32],
        finished: &impl Fn(&Approximation) -> Option<StopReason>,
    ) {
        let Self { states, scores, candidates, .. } = self;
        states.clear();
        scores.clear();
        loop {
            states.push(state.clone());
            if states.len() == STEPS || state.is_tiny() || finished(state).is_some() {
                return;
            }
            let Some((place, score)) = candidates.pick(state, gram, given.correlations.len()) else { return };
            if !state.take(place, given.columns, given.correlations, given.signal) {
                return;
            }
            scores.push(score);
        }
    }

    /// Compares the picks with what all atoms would have said, and goes back to before the first that was wrong.
    #[inline(always)]
    fn check(&mut self, state: &mut Approximation, given: &Given, gram: &[f32], finished: bool) {
        let Self { states, scores, rows, values, .. } = self;
        if finished && scores.is_empty() {
            return;
        }
        rows.clear();
        values.clear();
        for (step, state) in states.iter().enumerate() {
            for (index, (&place, value)) in state.support.iter().zip(state.rounded()).enumerate() {
                let row = match rows.get(index) == Some(&place) {
                    true => index,
                    false => rows.iter().position(|&other| other == place).unwrap_or(rows.len()),
                };
                if row == rows.len() {
                    rows.push(place);
                    values.push([0.0; STEPS]);
                }
                // The last one also stands for those steps that were not taken.
                let steps = if step + 1 == states.len() { step..STEPS } else { step..step + 1 };
                values[row][steps].fill(value);
            }
        }
        let sides = (given.correlations, given.norms);
        let largest = subtract_rows_in_steps(gram, (rows, values), sides, state.nonnegative, &mut self.after);
        // Scores that differ by less are equal but for rounding.
        let rounding = |state: &Approximation| 1e-6 * state.first_score;
        let wrong = scores.iter().zip(largest).position(|(&score, largest)| largest > score + rounding(state));
        match wrong {
            Some(step) => {
                state.clone_from(&states[step]);
                self.trust -= 1;
            }
            None => {
                std::mem::swap(&mut self.correlations, &mut self.after);
                self.known = !state.is_tiny();
                self.trust = PATIENCE;
            }
        }
    }
}

impl Candidates {
    /// About one in [`ONE_IN`] of the atoms, those of largest scores.
    #[inline(always)]
    fn choose(&mut self, correlations: &[f32], given: &Given, nonnegative: bool) {
        let score = |place: usize| score_of(correlations[place], given.norms[place], nonnegative);
        let every = (correlations.len() / SAMPLE).max(1);
        self.sample.clear();
        self.sample.extend((0..correlations.len()).step_by(every).map(score));
        let rank = self.sample.len() / ONE_IN;
        let least = *self.sample.select_nth_unstable_by(rank, |a, b| b.total_cmp(a)).1;
        self.places.resize(correlations.len(), 0);
        let mut count = 0;
        for place in 0..correlations.len() {
            self.places[count] = place;
            count += usize::from(score(place) > least.max(0.0));
        }
        self.places.truncate(count);
        self.scales.clear();
        self.scales.extend(self.places.iter().map(|&place| given.norms[place]));
        self.of_signal.clear();
        self.of_signal.extend(self.places.iter().map(|&place| given.correlations[place]));
        self.of_residual.resize(count, 0.0);
        self.gram.clear();
        self.atoms.clear();
    }

    /// The candidate of largest score outside the support, and that score.
    #[inline(always)]
    fn pick(&mut self, state: &Approximation, gram: &[f32], len: usize) -> Option<(usize, f32)> {
        self.rows.clear();
        for (index, &place) in state.support.iter().enumerate() {
            let row = match self.atoms.get(index) == Some(&place) {
                true => index,
                false => self.atoms.iter().position(|&other| other == place).unwrap_or(self.atoms.len()),
            };
            if row == self.atoms.len() {
                self.atoms.push(place);
                let inner = &gram[place * len..][..len];
                self.gram.extend(self.places.iter().map(|&other| inner[other]));
                // Never twice.
                if let Ok(own) = self.places.binary_search(&place) {
                    self.scales[own] = 0.0;
                }
            }
            self.rows.push(row);
        }
        subtract_rows(&self.gram, &self.rows, &state.rounded(), &self.of_signal, &mut self.of_residual);
        let (mut best, mut score) = (None, 0.0f32);
        for ((&place, &correlation), &scale) in self.places.iter().zip(&self.of_residual).zip(&self.scales) {
            let candidate = score_of(correlation, scale, state.nonnegative);
            if candidate > score {
                (best, score) = (Some(place), candidate);
            }
        }
        best.filter(|_| !state.is_negligible(score)).map(|place| (place, score))
    }
}
