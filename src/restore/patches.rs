//! All overlapping patches of a picture, coded alone or in groups, and put together again.

use super::alike::{self, Prior};
use super::{PatchDictionary, Picture, RestoreConfig};
use crate::pursuit::joint::JointScratch;
use rayon::prelude::*;
use std::ops::Range;

/// Rows of patches between two looks at the progress, whose outcomes are in memory at once.
const BAND: usize = 16;

/// How patches are estimated.
#[derive(Clone, Copy)]
pub(super) enum Stage<'a> {
    /// One by one, by atoms.
    Alone,
    /// Together with those that are alike in a guide, by atoms that they share; patches with fewer atoms count more in the mean.
    Joint(&'a Picture),
    /// As draws of one distribution together with those that are alike in a guide, which also says what distribution.
    Alike(&'a Picture),
    /// The same of patches that are known in part.
    AlikeKnown(&'a Picture, &'a [bool], &'a Prior),
}

impl<'a> Stage<'a> {
    /// Where patches that are alike are looked for.
    fn guide(self) -> Option<&'a Picture> {
        match self {
            Self::Alone => None,
            Self::Joint(guide) | Self::Alike(guide) | Self::AlikeKnown(guide, ..) => Some(guide),
        }
    }
}

/// Standard deviations by which the energy of pure noise may lie above its mean in a residual, of patches alone and in groups.
const MARGIN_ALONE: f64 = 1.8;
const MARGIN_JOINT: f64 = 2.0;

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
    alike: alike::Scratch,
    before: Vec<f32>,
    known: Vec<bool>,
    candidates: Vec<(f32, u32, u32)>,
    distances: Vec<f32>,
    group: Vec<f32>,
    means: Vec<f32>,
}

impl<'a> Patches<'a> {
    pub(super) fn new(dictionary: &'a PatchDictionary, config: &'a RestoreConfig) -> Self {
        Self { dictionary, config }
    }

    /// How far from a patch those alike are looked for, and rows of a patch.
    pub(super) fn radius_and_height(&self) -> (usize, usize) {
        (self.config.radius, self.dictionary.size()[0])
    }

    /// A number that is a multiple of the steps of all passes.
    pub(super) fn steps(&self) -> usize {
        self.config.step * STEP_ALONE
    }

    /// The dictionary's covariance as a prior that is this part of a group's variance.
    pub(super) fn prior(&self, part: f32) -> Prior {
        let pixels = self.dictionary.size().iter().product();
        Prior::new(self.dictionary.atoms.atoms(), pixels, part)
    }

    /// Takes noise of standard deviation `sigma` off. `None` where `progress` says so.
    pub(super) fn pass(
        &self,
        picture: &Picture,
        stage: Stage,
        sigma: f32,
        progress: &mut dyn FnMut(f32) -> bool,
    ) -> Option<Picture> {
        let [height, width] = self.dictionary.size();
        let step = match stage.guide() {
            Some(_) => self.config.step,
            None if self.config.together => STEP_ALONE,
            None => 1,
        };
        let (tops, lefts) = (places(picture.height, height, step), places(picture.width, width, step));
        let mut sums = vec![0.0f32; picture.values.len()];
        let mut weights = vec![0.0f32; picture.values.len()];
        let bands = tops.len().div_ceil(BAND);
        for (band, tops) in tops.chunks(BAND).enumerate() {
            let said: Vec<Said> = tops
                .par_iter()
                .map_init(Scratch::default, |scratch, &top| self.row(picture, stage, (top, &lefts), sigma, scratch))
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
        stage: Stage,
        (top, lefts): (usize, &[usize]),
        sigma: f32,
        scratch: &mut Scratch,
    ) -> Said {
        let [height, _] = self.dictionary.size();
        let radius = if stage.guide().is_some() { self.config.radius } else { 0 };
        let (first, last) = (top.saturating_sub(radius), (top + radius).min(picture.height - height));
        let rows = last - first + height;
        let len = picture.channels * rows * picture.width;
        let mut said = Said { top: first, sums: vec![0.0; len], weights: vec![0.0; len] };
        for &left in lefts {
            if self.is_settled(stage, picture, (top, left)) {
                continue;
            }
            scratch.candidates.clear();
            match stage.guide() {
                None => scratch.candidates.push((0.0, top as u32, left as u32)),
                Some(guide) => self.find_alike(guide, (top, left), (first, last), scratch),
            }
            match stage {
                Stage::Alone | Stage::Joint(_) => {
                    // As many channels as an atom has are coded together.
                    let own = self.dictionary.channels();
                    let shared = matches!(stage, Stage::Joint(_)) && own == 1 && self.config.joint_colours;
                    let at_once = if shared { picture.channels } else { own };
                    for start in (0..picture.channels).step_by(at_once) {
                        self.code(picture, start..start + at_once, sigma, stage, scratch, &mut said);
                    }
                }
                Stage::Alike(_) | Stage::AlikeKnown(..) => {
                    for channel in 0..picture.channels {
                        self.estimate(picture, channel, sigma, stage, scratch, &mut said);
                    }
                }
            }
        }
        said
    }

    /// Whether all pixels of a patch are known, and nothing is to change about them.
    fn is_settled(&self, stage: Stage, picture: &Picture, (top, left): (usize, usize)) -> bool {
        let Stage::AlikeKnown(_, known, _) = stage else { return false };
        let [height, width] = self.dictionary.size();
        let mut lines = (top..top + height).map(|row| &known[row * picture.width + left..][..width]);
        self.config.sigma == 0.0 && lines.all(|line| !line.contains(&false))
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
    fn code(
        &self,
        picture: &Picture,
        places: Range<usize>,
        sigma: f32,
        stage: Stage,
        scratch: &mut Scratch,
        said: &mut Said,
    ) {
        let [height, width] = self.dictionary.size();
        let (channels, pixels) = (places.len(), height * width);
        let Scratch { coding, candidates, group, means, before, .. } = scratch;
        group.clear();
        means.clear();
        for &(_, top, left) in candidates.iter() {
            for channel in places.clone() {
                let begin = group.len();
                append_patch(picture, channel, (top, left), [height, width], group);
                let mean = group[begin..].iter().sum::<f32>() / pixels as f32;
                group[begin..].iter_mut().for_each(|value| *value -= mean);
                means.push(mean);
            }
        }
        // The means take one dimension of every channel's noise with them.
        let dimensions = (candidates.len() * channels * (pixels - 1).max(1)) as f64;
        let alone = matches!(stage, Stage::Alone);
        let margin = if alone { MARGIN_ALONE } else { MARGIN_JOINT };
        let level = (1.0 + margin * (2.0 / dimensions).sqrt()) * f64::from(sigma).powi(2) * dimensions;
        let most = self.dictionary.atoms.atom_len() / 2;
        before.clone_from(group);
        let (atoms, enough) = self.dictionary.atoms.approximate(group, level, most.max(1), coding);
        if !enough {
            // What takes so many atoms is as good as it is. What too few atoms leave out is signal, too: more of it than there is noise, and
            // the patches are better as they are.
            let left: f64 = before.iter().zip(&*group).map(|(own, made)| f64::from(own - made).powi(2)).sum();
            if self.dictionary.count() >= self.dictionary.atoms.atom_len() || left > 2.0 * level {
                group.clone_from(before);
            }
        }
        for (plane, mean) in group.chunks_exact_mut(pixels).zip(means.iter()) {
            plane.iter_mut().for_each(|value| *value += mean);
        }
        let weight = if alone { 1.0 } else { 1.0 / (1.0 + atoms as f32) };
        for (index, plane) in group.chunks_exact(pixels).enumerate() {
            let (_, top, left) = candidates[index / channels];
            said.add(picture, places.start + index % channels, (top, left), plane, width, weight);
        }
    }

    /// Estimates one channel of the candidates, and adds what it says.
    fn estimate(
        &self,
        picture: &Picture,
        channel: usize,
        sigma: f32,
        stage: Stage,
        scratch: &mut Scratch,
        said: &mut Said,
    ) {
        let size = self.dictionary.size();
        let pixels = size[0] * size[1];
        let Scratch { alike, candidates, group, before, known, .. } = scratch;
        let Some(guide) = stage.guide() else { return };
        group.clear();
        before.clear();
        for &(_, top, left) in candidates.iter() {
            append_patch(picture, channel, (top, left), size, group);
            append_patch(guide, channel, (top, left), size, before);
        }
        if let Stage::AlikeKnown(_, mask, prior) = stage {
            known.clear();
            for &(_, top, left) in candidates.iter() {
                for row in 0..size[0] {
                    known.extend(&mask[(top as usize + row) * picture.width + left as usize..][..size[1]]);
                }
            }
            alike::estimate_known(group, before, known, sigma, prior, alike);
        } else {
            alike::estimate(group, before, pixels, sigma, alike);
        }
        for (&(_, top, left), plane) in candidates.iter().zip(group.chunks_exact(pixels)) {
            if self.is_settled(stage, picture, (top as usize, left as usize)) {
                continue;
            }
            said.add(picture, channel, (top, left), plane, size[1], 1.0);
        }
    }
}

impl Said {
    /// Adds what a patch says of its pixels.
    fn add(
        &mut self,
        picture: &Picture,
        channel: usize,
        (top, left): (u32, u32),
        plane: &[f32],
        width: usize,
        weight: f32,
    ) {
        let rows = self.sums.len() / picture.channels / picture.width;
        for (row, line) in plane.chunks_exact(width).enumerate() {
            let at = (channel * rows + top as usize - self.top + row) * picture.width + left as usize;
            let sums = self.sums[at..at + width].iter_mut().zip(line);
            sums.for_each(|(sum, value)| *sum += weight * value);
            self.weights[at..at + width].iter_mut().for_each(|sum| *sum += weight);
        }
    }
}

/// Appends the pixels of one channel of a patch.
fn append_patch(
    picture: &Picture,
    channel: usize,
    (top, left): (u32, u32),
    [height, width]: [usize; 2],
    out: &mut Vec<f32>,
) {
    for row in 0..height {
        let at = channel * picture.pixels() + (top as usize + row) * picture.width + left as usize;
        out.extend_from_slice(&picture.values[at..at + width]);
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

/// The place that a place before the beginning or beyond the end of an axis is reflected to, the outermost one repeated.
pub(super) fn reflected(place: isize, len: usize) -> usize {
    let within = place.rem_euclid(2 * len as isize) as usize;
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
        let from = reflected(row as isize, picture.height) * picture.width + reflected(column as isize, picture.width);
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
