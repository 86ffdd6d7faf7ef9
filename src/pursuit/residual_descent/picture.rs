//! One signal that is being coded: its code and residual tile by tile, what remains to be done in each, and the certificate of the
//! whole.
//!
//! # Certificate
//!
//! Scaling the residual until it is dual feasible, as [`crate::pursuit::duality`] does, lets the worst of millions of correlations
//! decide. Any θ with |Dᵀθ| ≤ λw will do, for which
//!
//! ```text
//! gap = ½‖r − θ‖² + Σ_j (λw_j|γ_j| − γ_j (Dᵀθ)_j).
//! ```
//!
//! Here θ = S·r with a factor S for every sample, which is smaller only near correlations that are too large: bilinear between
//! corners of tiles. Where S varies θ may exceed λ a little; it is lowered there and, what is left of it, everywhere. The gap is a
//! sum over places, of which every tile has its part: these parts say where work remains to be done.

use super::dictionary::{Block, Dictionary, LookScratch, Member, Place, Seen};
use super::member::{Penalty, WorkingSet};
use crate::kernels::simd::vectorised;
use crate::kernels::sparse::energy;
use crate::pursuit::duality::{self, Certificate};
use rayon::prelude::*;

/// Attempts at lowering θ where it is infeasible.
const ATTEMPTS: usize = 4;

/// Samples that a thread works on at a time.
const CHUNK: usize = 1 << 13;

/// The code of a tile, and what is known about it.
#[derive(Clone)]
pub(super) struct Tile {
    members: Vec<Member>,
    /// Places that should join.
    violators: Vec<usize>,
    /// Rounds in a row in which few did.
    settled: u32,
    /// Whether what follows was computed from another residual.
    stale: bool,
    /// Largest correlation in units of the weights.
    largest: f32,
    nonzeros: usize,
    /// Σ w_j|γ_j|.
    one_norm: f64,
    /// Σ (λw_j|γ_j| − γ_j c_j).
    slack: f64,
    /// Energy of the residual at the tile's own samples.
    energy: f64,
    /// Its part of the gap, and of the gap that may remain, as far as what is known is right.
    part: f64,
    share: f64,
}

/// What a look at a tile found.
struct Found {
    seen: Seen,
    nonzeros: usize,
    one_norm: f64,
    slack: f64,
    energy: f64,
}

/// What the work on a block came to.
pub(super) struct Worked {
    place: Place,
    /// Of every tile of the block.
    members: Vec<Vec<Member>>,
    residual: Vec<f32>,
    progress: Progress,
}

/// Gap and objective as far as the tiles know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Estimate {
    pub gap: f64,
    pub objective: f64,
}

/// A signal on its way to a code.
pub(super) struct Picture<'a> {
    dictionary: &'a Dictionary,
    penalty: Penalty,
    signal: Vec<f32>,
    mask: Option<Vec<f32>>,
    residual: Vec<f32>,
    tiles: Vec<Tile>,
}

impl<'a> Picture<'a> {
    pub fn new(
        dictionary: &'a Dictionary,
        signal: &[f32],
        mask: Option<&[f32]>,
        lambda: f32,
        nonnegative: bool,
    ) -> Self {
        let tile = Tile {
            members: Vec::new(),
            violators: Vec::new(),
            settled: 0,
            stale: true,
            largest: 0.0,
            nonzeros: 0,
            one_norm: 0.0,
            slack: 0.0,
            energy: 0.0,
            part: 0.0,
            share: 0.0,
        };
        let image = dictionary.image(signal);
        // Padding is cropped as if it were unknown.
        let mask = match mask {
            Some(mask) => Some(dictionary.image(mask)),
            None if dictionary.padding != [0, 0] => Some(dictionary.image(&vec![1.0; signal.len()])),
            None => None,
        };
        let power = energy_of(&image) / image.len() as f64;
        Self {
            dictionary,
            penalty: Penalty { lambda, nonnegative, power },
            residual: image.clone(),
            signal: image,
            mask,
            tiles: vec![tile; dictionary.tiles.iter().product()],
        }
    }

    /// Takes in (place, value).
    pub fn admit(&mut self, places: impl Iterator<Item = (usize, f32)>) {
        for (place, value) in places {
            let [_, row, column] = self.dictionary.geometry.place(place);
            let member = Member::new(self.dictionary, place, value, self.mask.is_some());
            self.tiles[self.dictionary.tile_of(row, column)].members.push(member);
        }
    }

    /// Writes the code.
    pub fn write(&self, code: &mut [f32]) {
        code.fill(0.0);
        let members = self.tiles.iter().flat_map(|tile| &tile.members);
        members.for_each(|member| code[member.place as usize] = member.value);
    }

    pub fn nonzeros(&self) -> usize {
        self.tiles.iter().map(|tile| tile.nonzeros).sum()
    }

    fn per_row(&self) -> usize {
        self.dictionary.tiles[1]
    }

    /// Members of a block, tile by tile, as they lie in its window.
    fn members_of(&self, block: &Block, place: &Place) -> Vec<Member> {
        let tiles = block.tiles(self.per_row()).map(|tile| &self.tiles[tile].members);
        let mut members: Vec<Member> = tiles.flatten().copied().collect();
        members.iter_mut().for_each(|member| member.locate(self.dictionary, place));
        members
    }

    fn window(&self, image: &[f32], place: &Place) -> Vec<f32> {
        let mut window = Vec::new();
        self.dictionary.cut(image, place, &mut window);
        window
    }

    /// The residual from scratch: moves accumulate rounding. Nothing that tiles know counts any more.
    pub fn refresh(&mut self) {
        self.residual.copy_from_slice(&self.signal);
        for blocks in self.dictionary.looks().chunks(AT_ONCE) {
            let explained: Vec<(Place, Vec<f32>)> = blocks
                .par_iter()
                .with_max_len(1)
                .map(|block| {
                    let place = self.dictionary.place(block);
                    let members = self.members_of(block, &place);
                    let empty = vec![0.0; self.dictionary.window_len(&place)];
                    (place, WorkingSet::new(self.dictionary, self.penalty, &place, members, empty, None).explained())
                })
                .collect();
            for (place, mut window) in explained {
                window.iter_mut().for_each(|value| *value = -*value);
                self.dictionary.subtract(&window, &place, &mut self.residual);
            }
        }
        if let Some(mask) = &self.mask {
            self.residual.iter_mut().zip(mask).for_each(|(residual, mask)| *residual *= mask);
        }
        self.tiles.iter_mut().for_each(|tile| tile.stale = true);
    }

    /// Looks at all blocks with a tile about which nothing is known. Returns whether all were looked at: not where `cancelled` says
    /// so.
    pub fn look(&mut self, cancelled: &(impl Fn() -> bool + Sync)) -> bool {
        let per_row = self.per_row();
        let looks = self.dictionary.looks().iter();
        let stale: Vec<&Block> =
            looks.filter(|block| block.tiles(per_row).any(|tile| self.tiles[tile].stale)).collect();
        let found: Vec<Option<Vec<Found>>> = stale
            .par_iter()
            .with_max_len(1)
            .map_init(
                || self.dictionary.look_scratch(),
                |scratch, block| (!cancelled()).then(|| self.look_at(block, scratch)),
            )
            .collect();
        let complete = found.iter().all(Option::is_some);
        for (block, found) in stale.into_iter().zip(found) {
            for (tile, found) in block.tiles(per_row).zip(found.into_iter().flatten()) {
                let Found { seen, nonzeros, one_norm, slack, energy } = found;
                let Seen { largest, violators } = seen;
                let tile = &mut self.tiles[tile];
                *tile = Tile {
                    members: std::mem::take(&mut tile.members),
                    violators,
                    stale: false,
                    largest,
                    nonzeros,
                    one_norm,
                    slack,
                    energy,
                    ..*tile
                };
            }
        }
        complete
    }

    fn look_at(&self, block: &Block, scratch: &mut LookScratch) -> Vec<Found> {
        let (dictionary, penalty) = (self.dictionary, self.penalty);
        let place = dictionary.place(block);
        let window = self.window(&self.residual, &place);
        let members = self.members_of(block, &place);
        let seen = dictionary.look(&window, block, self.of_look(), Some(&mut members.iter()), scratch);
        let mut found: Vec<Found> = seen
            .into_iter()
            .zip(block.tiles(self.per_row()))
            .map(|(seen, tile)| {
                let energy = self.energy_at(tile);
                Found { seen, nonzeros: 0, one_norm: 0.0, slack: 0.0, energy }
            })
            .collect();
        let mut set = WorkingSet::new(dictionary, penalty, &place, members, window, None);
        for member in set.derive() {
            let [_, row, column] = dictionary.geometry.place(member.place as usize);
            let tile = [row / dictionary.tile[0] - block.first[0], column / dictionary.tile[1] - block.first[1]];
            let found = &mut found[tile[0] * block.extents()[1] + tile[1]];
            found.nonzeros += 1;
            found.one_norm += f64::from(dictionary.weights[member.atom as usize] * member.value.abs());
            // The slope is c − λw·sign(γ).
            found.slack -= f64::from(member.slope) * f64::from(member.value);
        }
        found
    }

    /// λ, and by what a correlation is multiplied to see whether it counts with the other sign.
    fn of_look(&self) -> [f32; 2] {
        [self.penalty.lambda, if self.penalty.nonnegative { 0.0 } else { -1.0 }]
    }

    fn energy_at(&self, tile: usize) -> f64 {
        let dictionary = self.dictionary;
        let (channels, width) = (dictionary.geometry.signal.channels, dictionary.geometry.signal.width);
        let rows = dictionary.own_samples(tile / self.per_row(), 0);
        let columns = dictionary.own_samples(tile % self.per_row(), 1);
        let lines = rows.start * channels..rows.end * channels;
        lines.map(|line| energy_of_line(&self.residual[line * width..][columns.clone()])).sum()
    }

    /// Factors at the corners of tiles such that no atom of a tile whose largest correlation is given sees more than λ, if they
    /// hardly differ.
    fn factors(&self, largest: impl Fn(usize) -> f32) -> Vec<f32> {
        let [rows, columns] = self.dictionary.tiles;
        let of_tile = |tile: usize| scale(self.penalty.lambda, largest(tile));
        let mut factors = vec![1.0f32; (rows + 1) * (columns + 1)];
        for row in 0..rows {
            for column in 0..columns {
                let factor = of_tile(row * columns + column);
                if factor < 1.0 {
                    // Atoms of a tile reach into the next.
                    for corner_row in row..=(row + 2).min(rows) {
                        for corner in &mut factors[corner_row * (columns + 1)..][column..=(column + 2).min(columns)] {
                            *corner = corner.min(factor);
                        }
                    }
                }
            }
        }
        factors
    }

    /// Gap and objective from what the tiles know, and each one's part of them.
    pub fn estimate(&mut self) -> Estimate {
        let [rows, columns] = self.dictionary.tiles;
        let factors = self.factors(|tile| self.tiles[tile].largest);
        let lambda = f64::from(self.penalty.lambda);
        let objective_of = |tile: &Tile| 0.5 * tile.energy + lambda * tile.one_norm;
        let objective: f64 = self.tiles.iter().map(objective_of).sum();
        let samples = self.dictionary.geometry.signal.len() as f64;
        let mut gap = 0.0;
        for row in 0..rows {
            for column in 0..columns {
                let own = self.dictionary.own_samples(row, 0).len() * self.dictionary.own_samples(column, 1).len();
                let area = (own * self.dictionary.geometry.signal.channels) as f64 / samples;
                let corners =
                    [0, 1].map(|down| [0, 1].map(|right| factors[(row + down) * (columns + 1) + column + right]));
                let factor = f64::from(corners.as_flattened().iter().sum::<f32>() / 4.0);
                let tile = &mut self.tiles[row * columns + column];
                tile.part = 0.5 * (1.0 - factor).powi(2) * tile.energy
                    + (1.0 - factor) * lambda * tile.one_norm
                    + factor * tile.slack.max(0.0);
                // Half by what is there, half by area, so that empty places need not be perfect.
                tile.share = 0.5 * (objective_of(tile) + objective * area);
                gap += tile.part;
            }
        }
        Estimate { gap, objective }
    }

    /// Whether a block has more than its share of a relative gap of the whole.
    pub fn is_open(&self, block: &Block, gap: f64) -> bool {
        let tiles = block.tiles(self.per_row()).map(|tile| &self.tiles[tile]);
        let (part, share) = tiles.fold((0.0, 0.0), |sums, tile| (sums.0 + tile.part, sums.1 + tile.share));
        part > gap * share
    }

    /// Works on a block: what violates optimality joins the working set, then `work`.
    pub fn work(&self, block: &Block, work: impl Fn(&mut WorkingSet, Newcomers) -> Progress) -> Worked {
        let dictionary = self.dictionary;
        let place = dictionary.place(block);
        let mut members = self.members_of(block, &place);
        let tiles = || block.tiles(self.per_row()).map(|tile| &self.tiles[tile]);
        let old = members.len();
        for &violator in tiles().flat_map(|tile| &tile.violators) {
            let mut member = Member::new(dictionary, violator, 0.0, self.mask.is_some());
            member.locate(dictionary, &place);
            members.push(member);
        }
        let newcomers = Newcomers {
            count: members.len() - old,
            settled: tiles().map(|tile| tile.settled).min().unwrap_or_default(),
            looked_at: place.positions.iter().product::<usize>() * dictionary.geometry.code.channels,
        };
        let residual = self.window(&self.residual, &place);
        let mask = self.mask.as_ref().map(|mask| self.window(mask, &place));
        let mut set = WorkingSet::new(dictionary, self.penalty, &place, members, residual, mask);
        let progress = work(&mut set, newcomers);
        let mut members = vec![Vec::new(); block.extents().iter().product()];
        for member in set.members {
            let [_, row, column] = dictionary.geometry.place(member.place as usize);
            let tile = [row / dictionary.tile[0] - block.first[0], column / dictionary.tile[1] - block.first[1]];
            members[tile[0] * block.extents()[1] + tile[1]].push(member);
        }
        Worked { place, members, residual: set.residual, progress }
    }

    /// Takes over what the work on a block came to. Returns the passes that were made.
    pub fn accept(&mut self, block: &Block, worked: Worked) -> usize {
        let per_row = self.per_row();
        self.dictionary.paste(&worked.residual, &worked.place, &mut self.residual);
        for (tile, members) in block.tiles(per_row).zip(worked.members) {
            let tile = &mut self.tiles[tile];
            (tile.members, tile.settled) = (members, worked.progress.settled);
            tile.violators.clear();
        }
        // All atoms that share samples with the block's.
        let [rows, columns] = self.dictionary.tiles;
        let range = |axis: usize, tiles: usize| block.first[axis].saturating_sub(1)..(block.end[axis] + 1).min(tiles);
        for row in range(0, rows) {
            for column in range(1, columns) {
                self.tiles[row * columns + column].stale = true;
            }
        }
        worked.progress.sweeps
    }

    /// Objective and gap of the code as it is: the residual has to be fresh, and all tiles looked at. Nothing is tried any more when
    /// the relative gap is as small as asked for, and nothing but the simplest unless the search is to be `thorough`.
    pub fn certify(&self, gap: f64, thorough: bool) -> Certificate {
        let lambda = f64::from(self.penalty.lambda);
        let (largest, one_norm) = self
            .tiles
            .iter()
            .fold((0.0f32, 0.0), |(largest, norm), tile| (tile.largest.max(largest), norm + tile.one_norm));
        // 〈γ, Dᵀr〉 = 〈Dγ, r〉, and Dγ = y − r where the mask is one.
        let plain = self.sums(|_, _| 1.0);
        let mut best = Certificate::from(duality::Sums {
            lambda,
            residual_energy: plain.energy,
            one_norm,
            code_correlation: plain.correlation,
            largest_correlation: f64::from(largest),
            ..duality::Sums::default()
        });
        if best.relative_gap() <= gap || self.tiles.len() == 1 || !thorough {
            return best;
        }
        let mut factors = self.factors(|tile| self.tiles[tile].largest);
        for _ in 0..ATTEMPTS {
            let field = Field::new(self.dictionary, &factors);
            let sums = self.sums(|row, column| field.at(row, column));
            let theta = self.scaled(&field);
            let largest = self.largest(&theta);
            let most = largest.iter().fold(0.0f32, |most, &largest| most.max(largest));
            let scale = f64::from(scale(self.penalty.lambda, most));
            let distance = sums.energy - 2.0 * scale * sums.scaled + scale * scale * sums.twice_scaled;
            let slack = lambda * one_norm - scale * sums.correlation;
            let found = Certificate { gap: 0.5 * distance.max(0.0) + slack.max(0.0), ..best };
            if found.gap < best.gap {
                best = found;
            }
            if best.relative_gap() <= gap || scale >= 1.0 {
                break;
            }
            let lower = self.factors(|tile| largest[tile]);
            factors.iter_mut().zip(lower).for_each(|(factor, lower)| *factor *= lower);
        }
        best
    }

    /// Sums over all samples, S being the factor of a sample.
    fn sums(&self, factor: impl Fn(usize, usize) -> f32 + Sync) -> Sums {
        let width = self.dictionary.geometry.signal.width;
        let channels = self.dictionary.geometry.signal.channels;
        let lines: Vec<Sums> = self
            .residual
            .par_chunks(width)
            .zip(self.signal.par_chunks(width))
            .enumerate()
            .with_min_len(CHUNK.div_ceil(width))
            .map(|(line, (residuals, signals))| {
                let mut sums = Sums::default();
                for (column, (&residual, &signal)) in residuals.iter().zip(signals).enumerate() {
                    let (residual, signal) = (f64::from(residual), f64::from(signal));
                    let factor = f64::from(factor(line / channels, column));
                    sums.energy += residual * residual;
                    sums.scaled += factor * residual * residual;
                    sums.twice_scaled += factor * factor * residual * residual;
                    sums.correlation += factor * residual * (signal - residual);
                }
                sums
            })
            .collect();
        lines.into_iter().fold(Sums::default(), |sums, line| Sums {
            energy: sums.energy + line.energy,
            scaled: sums.scaled + line.scaled,
            twice_scaled: sums.twice_scaled + line.twice_scaled,
            correlation: sums.correlation + line.correlation,
        })
    }

    /// S·r.
    fn scaled(&self, field: &Field) -> Vec<f32> {
        let width = self.dictionary.geometry.signal.width;
        let channels = self.dictionary.geometry.signal.channels;
        let mut theta = self.residual.clone();
        theta.par_chunks_mut(width).enumerate().with_min_len(CHUNK.div_ceil(width)).for_each(|(line, values)| {
            values.iter_mut().enumerate().for_each(|(column, value)| *value *= field.at(line / channels, column));
        });
        theta
    }

    /// Largest correlations of every tile with an image.
    fn largest(&self, image: &[f32]) -> Vec<f32> {
        let mut largest = vec![0.0; self.tiles.len()];
        let seen = look_everywhere(self.dictionary, image, self.of_look());
        for (block, seen) in self.dictionary.looks().iter().zip(seen) {
            block.tiles(self.per_row()).zip(seen).for_each(|(tile, seen)| largest[tile] = seen.largest);
        }
        largest
    }
}

/// Blocks whose windows are held at a time.
const AT_ONCE: usize = 64;

/// What joins a block's working set, and for how many rounds hardly anything has.
pub(super) struct Newcomers {
    pub count: usize,
    pub settled: u32,
    /// Coefficients that a look at the block has to compute.
    pub looked_at: usize,
}

/// For how many rounds hardly anything has joined a working set that goes on moving, and the passes of this round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    pub settled: u32,
    pub sweeps: usize,
}

#[derive(Clone, Copy, Default)]
struct Sums {
    /// ‖r‖².
    energy: f64,
    /// Σ S r².
    scaled: f64,
    /// Σ S² r².
    twice_scaled: f64,
    /// 〈S r, Dγ〉.
    correlation: f64,
}

/// By what a largest correlation has to be multiplied to be feasible.
fn scale(lambda: f32, largest: f32) -> f32 {
    if largest <= lambda { 1.0 } else { lambda / largest }
}

/// Largest correlations with an image, in units of the weights, of every tile of every block that is
/// looked at.
pub(super) fn look_everywhere(dictionary: &Dictionary, image: &[f32], of_look: [f32; 2]) -> Vec<Vec<Seen>> {
    let looks = dictionary.looks().par_iter().with_max_len(1).map_init(
        || (dictionary.look_scratch(), Vec::new()),
        |(scratch, window), block| {
            dictionary.cut(image, &dictionary.place(block), window);
            dictionary.look(window, block, of_look, None, scratch)
        },
    );
    looks.collect()
}

/// Factors of samples, bilinear between the corners of tiles.
struct Field<'a> {
    factors: &'a [f32],
    per_row: usize,
    /// Of every row and column: the corner before it, and how far it is on the way to the next.
    rows: Vec<(usize, f32)>,
    columns: Vec<(usize, f32)>,
}

impl<'a> Field<'a> {
    fn new(dictionary: &Dictionary, factors: &'a [f32]) -> Self {
        let along = |axis: usize| {
            let tiles = 0..dictionary.tiles[axis];
            let samples = tiles.flat_map(|tile| {
                let own = dictionary.own_samples(tile, axis);
                let len = own.len() as f32;
                (0..own.len()).map(move |at| (tile, (at as f32 + 0.5) / len))
            });
            samples.collect()
        };
        Self { factors, per_row: dictionary.tiles[1] + 1, rows: along(0), columns: along(1) }
    }

    #[inline(always)]
    fn at(&self, row: usize, column: usize) -> f32 {
        let ((row, down), (column, right)) = (self.rows[row], self.columns[column]);
        let corner = |row: usize, column: usize| self.factors[row * self.per_row + column];
        let between = |row: usize| corner(row, column) + right * (corner(row, column + 1) - corner(row, column));
        let (above, below) = (between(row), between(row + 1));
        above + down * (below - above)
    }
}

/// ‖image‖², by all cores.
fn energy_of(image: &[f32]) -> f64 {
    image.par_chunks(CHUNK).map(energy_of_line).collect::<Vec<f64>>().iter().sum()
}

fn energy_of_line(line: &[f32]) -> f64 {
    vectorised(
        #[inline(always)]
        || energy(line),
    )
}
