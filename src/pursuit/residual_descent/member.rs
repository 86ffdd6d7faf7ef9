//! Coefficients that may be non-zero, and the work on those of one block.

use super::dictionary::{Dictionary, Member, Place};
use crate::kernels::simd::vectorised;
use crate::kernels::sparse::energy;
use crate::kernels::threshold::soft_threshold_value;
use pulp::{Simd, WithSimd};

/// Sweeps that a coefficient stays in the working set while it is zero.
const IDLE: u32 = 4;

/// What a derivative may be in units of λ, and of the root mean square of the signal, so that conjugate gradients see but rounding.
const NEGLIGIBLE: [f64; 2] = [1e-6, 3e-7];

/// Attempts at a step over the non-zeros, each half as long as the one before.
const HALVINGS: usize = 4;

/// Rounding of an objective that is summed in `f64` from `f32`, as a part of it.
const ROUNDING: f64 = 1e-8;

/// What all the work is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Penalty {
    pub lambda: f32,
    pub nonnegative: bool,
    /// Mean square of the signal's samples.
    pub power: f64,
}

/// The members of a block, and the residual in its window.
pub(super) struct WorkingSet<'a> {
    pub dictionary: &'a Dictionary,
    pub penalty: Penalty,
    pub members: Vec<Member>,
    /// How many of the first are not zero, once the others have been moved behind them.
    support: usize,
    pub residual: Vec<f32>,
    mask: Option<Vec<f32>>,
    /// Length of a window's line.
    pitch: usize,
    /// Room for other windows.
    scratch: Vec<f32>,
    kept: Vec<f32>,
}

/// What is done with every member.
#[derive(Clone, Copy)]
enum Task {
    /// The objective is minimised over each, forth and back.
    Sweep { only_nonzeros: bool, turns: usize },
    /// Atoms are subtracted from the window: as the code says, along the direction of conjugate gradients, as the step says.
    Subtract(Part),
    /// Slopes of the non-zeros from the residual; the sum of their squares.
    Slopes,
    /// Energies of new members.
    Energies,
}

/// Which multiple of a member's atom.
#[derive(Clone, Copy)]
enum Part {
    Value,
    Direction,
    Step,
}

impl<'a> WorkingSet<'a> {
    /// The members and the windows belong to the same block.
    pub fn new(
        dictionary: &'a Dictionary,
        penalty: Penalty,
        place: &Place,
        members: Vec<Member>,
        residual: Vec<f32>,
        mask: Option<Vec<f32>>,
    ) -> Self {
        let mut this = Self {
            dictionary,
            penalty,
            members,
            support: 0,
            residual,
            mask,
            pitch: place.pitch,
            scratch: Vec::new(),
            kept: Vec::new(),
        };
        if this.mask.is_some() {
            this.visit(false, Task::Energies);
        }
        this
    }

    /// What the members explain, with the opposite sign, in an empty window.
    pub fn explained(mut self) -> Vec<f32> {
        self.gather_support();
        self.visit(false, Task::Subtract(Part::Value));
        self.residual
    }

    /// Slopes of the non-zeros.
    pub fn derive(&mut self) -> &[Member] {
        self.gather_support();
        self.visit(false, Task::Slopes);
        &self.members[..self.support]
    }

    /// Drops members that have long been zero.
    pub fn forget(&mut self) {
        self.members.retain(|member| member.value != 0.0 || member.idle < IDLE);
    }

    /// Moves zeros behind the others.
    fn gather_support(&mut self) {
        self.members.sort_by_key(|member| member.value == 0.0);
        self.support = self.members.partition_point(|member| member.value != 0.0);
    }

    /// Sweeps over all members, or those that are not zero: forth, and back if there are two turns.
    pub fn pass(&mut self, only_nonzeros: bool, turns: usize) {
        self.visit(false, Task::Sweep { only_nonzeros, turns });
    }

    /// Σ_j w_j|γ_j| over the non-zeros with their steps.
    fn one_norm(&self) -> f64 {
        let weights = &self.dictionary.weights;
        let values = self.members[..self.support].iter();
        values.map(|member| f64::from(weights[member.atom as usize] * (member.value + member.step).abs())).sum()
    }

    /// Conjugate gradients over the non-zeros with their signs held, then a step there, along which coefficients that would change
    /// sign become zero, as long as it makes the objective smaller. Returns whether a step was taken, and the number of iterations.
    pub fn minimize_on_support(&mut self, iterations: usize, tolerance: f64) -> (bool, usize) {
        let mut steps = 0;
        self.gather_support();
        self.on_support(|member| member.step = 0.0);
        let lambda = f64::from(self.penalty.lambda);
        let before = 0.5 * energy_of(&self.residual) + lambda * self.one_norm();
        self.kept.clear();
        self.kept.extend_from_slice(&self.residual);
        self.scratch.resize(self.residual.len(), 0.0);
        let first = self.visit(false, Task::Slopes);
        let negligible = (NEGLIGIBLE[0] * lambda).powi(2) + NEGLIGIBLE[1].powi(2) * self.penalty.power;
        let enough = (tolerance * first).max(negligible * self.support as f64);
        let mut slopes = first;
        self.on_support(|member| member.direction = member.slope);
        while steps < iterations {
            steps += 1;
            self.scratch.fill(0.0);
            self.visit(true, Task::Subtract(Part::Direction));
            let curvature = energy_of(&self.scratch);
            if curvature <= 0.0 {
                break;
            }
            let length = (slopes / curvature) as f32;
            // What was subtracted from nothing is minus the direction's signal.
            self.residual.iter_mut().zip(&self.scratch).for_each(|(residual, moved)| *residual += length * moved);
            self.on_support(|member| member.step += length * member.direction);
            let next = self.visit(false, Task::Slopes);
            let ratio = (next / slopes) as f32;
            self.on_support(|member| member.direction = member.slope + ratio * member.direction);
            slopes = next;
            if slopes <= enough {
                break;
            }
        }
        // Steps are kept as directions while their lengths are tried.
        self.on_support(|member| member.direction = member.step);
        let mut length = 1.0;
        for _ in 0..HALVINGS {
            self.on_support(|member| {
                let after = member.value + length * member.direction;
                member.step = if after * member.value > 0.0 { after - member.value } else { -member.value };
            });
            self.residual.copy_from_slice(&self.kept);
            self.visit(false, Task::Subtract(Part::Step));
            let after = 0.5 * energy_of(&self.residual) + lambda * self.one_norm();
            if after <= before * (1.0 + ROUNDING) {
                self.on_support(|member| member.value += member.step);
                return (true, steps);
            }
            length *= 0.5;
        }
        (self.search_line(before), steps)
    }

    /// A step along the members' directions, signs or not: the objective is convex on that line, with kinks where a coefficient is
    /// zero, and has its minimum at one of them or between two. Returns whether it is below `before`, that of the residual kept,
    /// which else comes back.
    fn search_line(&mut self, before: f64) -> bool {
        let Penalty { lambda, nonnegative, .. } = self.penalty;
        self.residual.copy_from_slice(&self.kept);
        self.scratch.fill(0.0);
        self.visit(true, Task::Subtract(Part::Direction));
        let curvature = energy_of(&self.scratch);
        let mut slope: f64 =
            self.residual.iter().zip(&self.scratch).map(|(&left, &right)| f64::from(left) * f64::from(right)).sum();
        let mut kinks: Vec<(f32, f64)> = Vec::new();
        for member in &self.members[..self.support] {
            let weight = f64::from(lambda * self.dictionary.weights[member.atom as usize]);
            slope += weight * f64::from(member.direction) * f64::from(member.value.signum());
            if let Some(kink) = member.kink() {
                kinks.push((kink, 2.0 * weight * f64::from(member.direction.abs())));
            }
        }
        if !(slope < 0.0 && curvature > 0.0) {
            return false;
        }
        kinks.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut length, mut stop) = ((-slope / curvature) as f32, None);
        for (kink, jump) in kinks {
            if slope + curvature * f64::from(kink) >= 0.0 {
                break;
            }
            slope += jump;
            if nonnegative || slope + curvature * f64::from(kink) >= 0.0 {
                (length, stop) = (kink, Some(kink));
                break;
            }
            length = (-slope / curvature) as f32;
        }
        self.on_support(|member| {
            let after = member.value + length * member.direction;
            let vanishes = (stop.is_some() && member.kink() == stop) || (nonnegative && after <= 0.0);
            member.step = if vanishes { -member.value } else { after - member.value };
        });
        self.visit(false, Task::Subtract(Part::Step));
        let after = 0.5 * energy_of(&self.residual) + f64::from(lambda) * self.one_norm();
        if after < before {
            self.on_support(|member| member.value += member.step);
            return true;
        }
        self.residual.copy_from_slice(&self.kept);
        false
    }

    fn on_support(&mut self, work: impl Fn(&mut Member)) {
        self.members[..self.support].iter_mut().for_each(work);
    }

    /// Does a task with all members on the residual or on the scratch window. Returns the sum of what it summed up.
    fn visit(&mut self, scratch: bool, task: Task) -> f64 {
        let Self { dictionary, penalty, members, support, residual, scratch: other, mask, pitch, .. } = self;
        let samples = if scratch { other } else { residual };
        pulp::Arch::new().dispatch(Visit {
            dictionary,
            members,
            support: *support,
            samples,
            mask: mask.as_deref(),
            pitch: *pitch,
            penalty: *penalty,
            task,
        })
    }
}

/// ‖window‖².
fn energy_of(window: &[f32]) -> f64 {
    vectorised(
        #[inline(always)]
        || energy(window),
    )
}

/// A task on the members of one block, for whichever instruction set there is.
struct Visit<'a> {
    dictionary: &'a Dictionary,
    members: &'a mut [Member],
    support: usize,
    samples: &'a mut [f32],
    mask: Option<&'a [f32]>,
    pitch: usize,
    penalty: Penalty,
    task: Task,
}

impl WithSimd for Visit<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        match self.dictionary.line / S::F32_LANES {
            1 => self.run::<S, 1>(simd),
            2 => self.run::<S, 2>(simd),
            3 => self.run::<S, 3>(simd),
            4 => self.run::<S, 4>(simd),
            _ => self.run::<S, 0>(simd),
        }
    }
}

impl Visit<'_> {
    /// The task for atoms whose lines are `V` vectors long, or of any length where that is 0.
    #[inline(always)]
    fn run<S: Simd, const V: usize>(self, simd: S) -> f64 {
        let Self { dictionary, members, support, samples, mask, pitch, penalty, task } = self;
        let mut sum = 0.0;
        match task {
            Task::Sweep { only_nonzeros, turns } => {
                let count = members.len();
                for turn in 0..turns * count {
                    let member = &mut members[if turn < count { turn } else { 2 * count - 1 - turn }];
                    if only_nonzeros && member.value == 0.0 {
                        continue;
                    }
                    if member.energy <= 0.0 {
                        // Nothing that the data know of: all that a value does is to be penalised.
                        (member.value, member.idle) = (0.0, member.idle + 1);
                        continue;
                    }
                    let correlation =
                        dictionary.correlate::<S, V>(simd, member, samples, pitch) + member.energy * member.value;
                    let threshold = penalty.lambda * dictionary.weights[member.atom as usize];
                    let after = soft_threshold_value(correlation, threshold, penalty.nonnegative) / member.energy;
                    let change = after - member.value;
                    member.idle = if after == 0.0 { member.idle + 1 } else { 0 };
                    if change != 0.0 {
                        member.value = after;
                        dictionary.add::<S, V>(simd, member, -change, samples, mask, pitch);
                    }
                }
            }
            Task::Subtract(part) => {
                for member in &members[..support] {
                    let scale = match part {
                        Part::Value => member.value,
                        Part::Direction => member.direction,
                        Part::Step => member.step,
                    };
                    dictionary.add::<S, V>(simd, member, -scale, samples, mask, pitch);
                }
            }
            Task::Slopes => {
                for member in &mut members[..support] {
                    let threshold = penalty.lambda * dictionary.weights[member.atom as usize];
                    member.slope =
                        dictionary.correlate::<S, V>(simd, member, samples, pitch) - threshold.copysign(member.value);
                    sum += f64::from(member.slope) * f64::from(member.slope);
                }
            }
            Task::Energies => {
                let Some(mask) = mask else { return 0.0 };
                for member in members.iter_mut().filter(|member| member.energy.is_nan()) {
                    member.energy = dictionary.energy::<S, V>(simd, member, mask, pitch);
                }
            }
        }
        sum
    }
}
