//! All overlapping patches of a picture, coded alone or in groups, and put together again.

use super::{PatchDictionary, Picture, RestoreConfig};
use crate::pursuit::joint::JointScratch;
use rayon::prelude::*;

/// Rows of patches between two looks at the progress, whose outcomes are in memory at once.
const BAND: usize = 16;

/// How patches are coded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stage {
    /// Standard deviations by which the energy of pure noise may lie above its mean in a residual.
    margin: f64,
    /// Whether patches with fewer atoms count more in the mean.
    weighted: bool,
}

impl Stage {
    /// Patch by patch.
    pub(super) const ALONE: Self = Self { margin: 1.8, weighted: false };
    /// In groups of similar patches.
    pub(super) const JOINT: Self = Self { margin: 2.0, weighted: true };
}

/// Steps between patches that are coded alone: the first pass only has to say which are alike.
const STEP_ALONE: usize = 2;

/// Codes the patches of pictures.
pub(super) struct Patches<'a> {
    dictionary: &'a PatchDictionary,
    config: &'a RestoreConfig,
}

/// What some rows of patches say about the rows of pixels from `top` on: sums and weights, `[channels, rows, width]`.
struct Said {
    top: usize,
    sums: Vec<f32>,
    weights: Vec<f32>,
}

/// Memory of a thread.
#[derive(Default)]
struct Scratch {
    coding: JointScratch,
    candidates: Vec<(f32, u32, u32)>,
    distances: Vec<f32>,
    group: Vec<f32>,
    means: Vec<f32>,
}

impl<'a> Patches<'a> {
    pub(super) fn new(dictionary: &'a PatchDictionary, config: &'a RestoreConfig) -> Self {
        Self { dictionary, config }
    }

    /// Takes noise of standard deviation `sigma` off. With a guide patches that are alike in it are coded together. `None` where `progress`
    /// says so.
    pub(super) fn pass(
        &self,
        picture: &Picture,
        guide: Option<&Picture>,
        sigma: f32,
        stage: Stage,
        progress: &mut dyn FnMut(f32) -> bool,
    ) -> Option<Picture> {
        let [height, width] = self.dictionary.size();
        let step = if guide.is_some() { self.config.step } else { STEP_ALONE };
        let (tops, lefts) = (places(picture.height, height, step), places(picture.width, width, step));
        let mut sums = vec![0.0f32; picture.values.len()];
        let mut weights = vec![0.0f32; picture.values.len()];
        let bands = tops.len().div_ceil(BAND);
        for (band, tops) in tops.chunks(BAND).enumerate() {
            let said: Vec<Said> = tops
                .par_iter()
                .map_init(Scratch::default, |scratch, &top| {
                    self.row(picture, guide, (top, &lefts), sigma, stage, scratch)
                })
                .collect();
            // In the order of the rows, whatever thread was first: sums round the same way on every run.
            for Said { top, sums: own_sums, weights: own_weights } in said {
                let rows = own_sums.len() / picture.channels;
                for channel in 0..picture.channels {
                    let at = channel * picture.pixels() + top * picture.width;
                    let add = |to: &mut [f32], from: &[f32]| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
                    add(&mut sums[at..at + rows], &own_sums[channel * rows..][..rows]);
                    add(&mut weights[at..at + rows], &own_weights[channel * rows..][..rows]);
                }
            }
            if !progress((band + 1) as f32 / bands as f32) {
                return None;
            }
        }
        let values = sums.iter().zip(&weights).zip(&picture.values);
        let values = values.map(|((sum, weight), own)| if *weight > 0.0 { sum / weight } else { *own }).collect();
        Some(Picture { values, ..*picture })
    }

    /// The patches, or groups, that begin in one row.
    fn row(
        &self,
        picture: &Picture,
        guide: Option<&Picture>,
        (top, lefts): (usize, &[usize]),
        sigma: f32,
        stage: Stage,
        scratch: &mut Scratch,
    ) -> Said {
        let [height, _] = self.dictionary.size();
        let radius = if guide.is_some() { self.config.radius } else { 0 };
        let (first, last) = (top.saturating_sub(radius), (top + radius).min(picture.height - height));
        let rows = last - first + height;
        let len = picture.channels * rows * picture.width;
        let mut said = Said { top: first, sums: vec![0.0; len], weights: vec![0.0; len] };
        for &left in lefts {
            scratch.candidates.clear();
            match guide {
                None => scratch.candidates.push((0.0, top as u32, left as u32)),
                Some(guide) => self.find_alike(guide, (top, left), (first, last), scratch),
            }
            // As many channels as an atom has are coded together.
            for start in (0..picture.channels).step_by(self.dictionary.channels()) {
                self.code(picture, start, sigma, stage, scratch, &mut said);
            }
        }
        said
    }

    /// The patches most alike to one in the first channels of the guide, itself among them.
    fn find_alike(
        &self,
        guide: &Picture,
        (top, left): (usize, usize),
        (first, last): (usize, usize),
        scratch: &mut Scratch,
    ) {
        let [height, width] = self.dictionary.size();
        let from = left.saturating_sub(self.config.radius);
        let to = (left + self.config.radius).min(guide.width - width);
        let count = to - from + 1;
        for other in first..=last {
            scratch.distances.clear();
            scratch.distances.resize(count, 0.0);
            for channel in 0..self.dictionary.channels() {
                for row in 0..height {
                    let plane = channel * guide.pixels();
                    let own = &guide.values[plane + (top + row) * guide.width + left..][..width];
                    let line = &guide.values[plane + (other + row) * guide.width + from..][..count + width - 1];
                    for (column, &own) in own.iter().enumerate() {
                        let differences = scratch.distances.iter_mut().zip(&line[column..]);
                        differences.for_each(|(distance, value)| *distance += (value - own) * (value - own));
                    }
                }
            }
            let found = scratch.distances.iter().enumerate();
            let found = found.map(|(place, &distance)| (distance, other as u32, (from + place) as u32));
            scratch.candidates.extend(found);
        }
        let similar = self.config.similar.min(scratch.candidates.len());
        if similar < scratch.candidates.len() {
            // By place where distances are equal, so that the choice is one.
            scratch
                .candidates
                .select_nth_unstable_by(similar, |a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
            scratch.candidates.truncate(similar);
        }
        scratch.candidates.sort_unstable_by_key(|&(_, row, column)| (row, column));
    }

    /// Codes the group of the candidates, and adds what it says.
    fn code(&self, picture: &Picture, start: usize, sigma: f32, stage: Stage, scratch: &mut Scratch, said: &mut Said) {
        let [height, width] = self.dictionary.size();
        let (channels, pixels) = (self.dictionary.channels(), height * width);
        let Scratch { coding, candidates, group, means, .. } = scratch;
        group.clear();
        means.clear();
        for &(_, top, left) in candidates.iter() {
            for channel in start..start + channels {
                let begin = group.len();
                for row in 0..height {
                    let at = channel * picture.pixels() + (top as usize + row) * picture.width + left as usize;
                    group.extend_from_slice(&picture.values[at..at + width]);
                }
                let mean = group[begin..].iter().sum::<f32>() / pixels as f32;
                group[begin..].iter_mut().for_each(|value| *value -= mean);
                means.push(mean);
            }
        }
        // The means take one dimension of every channel's noise with them.
        let dimensions = (candidates.len() * channels * (pixels - 1).max(1)) as f64;
        let level = (1.0 + stage.margin * (2.0 / dimensions).sqrt()) * f64::from(sigma).powi(2) * dimensions;
        let most = self.dictionary.atoms.atom_len() / 2;
        let atoms = self.dictionary.atoms.approximate(group, level, most.max(1), coding);
        let weight = if stage.weighted { 1.0 / (1.0 + atoms as f32) } else { 1.0 };
        let rows = said.sums.len() / picture.channels / picture.width;
        let planes = group.chunks_exact(pixels).zip(means.iter()).enumerate();
        for (index, (plane, mean)) in planes {
            let (_, top, left) = candidates[index / channels];
            let channel = start + index % channels;
            for (row, line) in plane.chunks_exact(width).enumerate() {
                let at = (channel * rows + top as usize - said.top + row) * picture.width + left as usize;
                let sums = said.sums[at..at + width].iter_mut().zip(line);
                sums.for_each(|(sum, value)| *sum += weight * (value + mean));
                said.weights[at..at + width].iter_mut().for_each(|sum| *sum += weight);
            }
        }
    }
}

/// Where patches begin along an axis: every `step`, and the last possible place.
fn places(len: usize, patch: usize, step: usize) -> Vec<usize> {
    let last = len - patch;
    let mut places: Vec<usize> = (0..=last).step_by(step).collect();
    if places.last() != Some(&last) {
        places.push(last);
    }
    places
}

/// The place that a place beyond the end of an axis is reflected to, the last one repeated.
fn reflected(place: usize, len: usize) -> usize {
    let within = place % (2 * len);
    if within < len { within } else { 2 * len - 1 - within }
}

/// The picture, continued by reflection below and to the right to the size of a patch where it is smaller.
pub(super) fn padded(picture: &Picture, [rows, columns]: [usize; 2]) -> Picture {
    let (height, width) = (picture.height.max(rows), picture.width.max(columns));
    if (height, width) == (picture.height, picture.width) {
        return picture.clone();
    }
    let values = (0..picture.channels * height * width).map(|at| {
        let (channel, row, column) = (at / (height * width), at % (height * width) / width, at % width);
        let from = reflected(row, picture.height) * picture.width + reflected(column, picture.width);
        picture.values[channel * picture.pixels() + from]
    });
    Picture { channels: picture.channels, height, width, values: values.collect() }
}

/// The same for a mask of the picture.
pub(super) fn padded_mask(known: &[bool], picture: &Picture, size: [usize; 2]) -> Vec<bool> {
    let values = known.iter().map(|known| if *known { 1.0 } else { 0.0 }).collect();
    let mask = Picture { channels: 1, height: picture.height, width: picture.width, values };
    padded(&mask, size).values.into_iter().map(|value| value > 0.5).collect()
}

/// The part of a padded picture that is the picture.
pub(super) fn cropped(padded: &Picture, picture: &Picture) -> Picture {
    let mut values = Vec::with_capacity(picture.values.len());
    for plane in padded.values.chunks_exact(padded.pixels()) {
        plane.chunks_exact(padded.width).take(picture.height).for_each(|row| values.extend(&row[..picture.width]));
    }
    Picture { values, ..*picture }
}
