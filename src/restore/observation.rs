//! What has become of a picture before it was seen: a linear operator and its adjoint.

use super::Picture;
use super::patches::reflected;
use crate::error::{Error, Result};
use rayon::prelude::*;

/// A blur: the picture is convolved with a kernel. [`Observation::seen`] continues it by reflection beyond its borders;
/// [`restore`](super::restore) takes what is there as unknown.
#[derive(Debug, Clone, PartialEq)]
pub struct Blur {
    size: [usize; 2],
    values: Vec<f32>,
}

/// Standard deviations of a Gaussian kernel from its centre to its border.
const GAUSSIAN_EXTENT: f32 = 4.0;

/// Largest standard deviation of a Gaussian kernel in pixels.
const MAX_GAUSSIAN: f32 = 64.0;

/// Part of a kernel's entries, in magnitude, that does not count where it reaches farthest.
const REST: f64 = 2e-3;

impl Blur {
    /// By a kernel `[height, width]`, centred at row ⌊height / 2⌋ and column ⌊width / 2⌋ (as `scipy.ndimage.convolve` has it), which is
    /// divided by its sum: a blur leaves the brightness alone.
    ///
    /// # Errors
    /// Another number of values, values that are not finite, a sum that is not above 0.
    pub fn new(size: [usize; 2], values: &[f32]) -> Result<Self> {
        if size[0].checked_mul(size[1]) != Some(values.len()) || values.is_empty() {
            let expected = format!("{}x{}, at least one", size[0], size[1]);
            return Err(Error::shape("values of a blur's kernel", expected, values.len()));
        }
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(Error::parameter("blur", value, "a kernel of finite values"));
        }
        let sum: f64 = values.iter().map(|value| f64::from(*value)).sum();
        if sum <= 0.0 {
            return Err(Error::parameter("blur", format!("a kernel with sum {sum}"), "a kernel with a sum above 0"));
        }
        Ok(Self { size, values: values.iter().map(|value| (f64::from(*value) / sum) as f32).collect() })
    }

    /// By a normal distribution of standard deviation `sigma`, in pixels, cut off at four of them.
    ///
    /// # Errors
    /// A standard deviation out of (0, 64].
    pub fn gaussian(sigma: f32) -> Result<Self> {
        if !(sigma > 0.0 && sigma <= MAX_GAUSSIAN) {
            let expected = format!("a standard deviation above 0 and up to {MAX_GAUSSIAN} pixels");
            return Err(Error::parameter("blur", sigma, expected));
        }
        let radius = (GAUSSIAN_EXTENT * sigma).ceil() as usize;
        let size = 2 * radius + 1;
        let squared = |place: usize| (place as f64 - radius as f64).powi(2);
        let variance = f64::from(sigma).powi(2);
        let value = |at: usize| (-(squared(at / size) + squared(at % size)) / (2.0 * variance)).exp() as f32;
        Self::new([size, size], &(0..size * size).map(value).collect::<Vec<f32>>())
    }

    /// Rows and columns of the kernel.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Rows up and down and columns on both sides from the centre to where the rest of the kernel is next to nothing.
    fn reach(&self) -> [usize; 2] {
        let [height, width] = self.size;
        let axis = |len: usize, place: &dyn Fn(usize) -> usize| {
            let mut far = vec![0.0f64; len / 2 + 1];
            for (at, value) in self.values.iter().enumerate() {
                far[place(at).abs_diff(len / 2)] += f64::from(value.abs());
            }
            let (mut beyond, least) = (0.0, REST * far.iter().sum::<f64>());
            // From the farthest on, as long as what was left out so far is small enough.
            let left = |value: &&f64| {
                beyond += **value;
                beyond <= least
            };
            len / 2 - far.iter().rev().take_while(left).count().min(len / 2)
        };
        [axis(height, &|at| at / width), axis(width, &|at| at % width)]
    }

    /// Where a row or column of the picture, continued by as much as the kernel needs, comes from.
    fn sources(len: usize, kernel: usize) -> Vec<usize> {
        // An output reads the pixels from `kernel − 1 − ⌊kernel / 2⌋` before it on.
        let before = (kernel - 1 - kernel / 2) as isize;
        (0..len + kernel - 1).map(|place| reflected(place as isize - before, len)).collect()
    }

    fn apply(&self, plane: &[f32], [height, width]: [usize; 2]) -> Vec<f32> {
        let [rows, columns] = [Self::sources(height, self.size[0]), Self::sources(width, self.size[1])];
        let continued: Vec<f32> =
            rows.iter().flat_map(|row| columns.iter().map(move |column| plane[row * width + column])).collect();
        let mut out = vec![0.0; plane.len()];
        out.par_chunks_exact_mut(width).enumerate().for_each(|(top, out)| {
            self.taps(|down, across, tap| {
                let line = &continued[(top + down) * columns.len() + across..][..width];
                out.iter_mut().zip(line).for_each(|(out, value)| *out += tap * value);
            });
        });
        out
    }

    fn adjoint(&self, plane: &[f32], [height, width]: [usize; 2]) -> Vec<f32> {
        let [rows, columns] = [Self::sources(height, self.size[0]), Self::sources(width, self.size[1])];
        let mut continued = vec![0.0; rows.len() * columns.len()];
        continued.par_chunks_exact_mut(columns.len()).enumerate().for_each(|(row, out)| {
            self.taps(|down, across, tap| {
                if let Some(top) = row.checked_sub(down).filter(|top| *top < height) {
                    let line = &plane[top * width..][..width];
                    out[across..across + width].iter_mut().zip(line).for_each(|(out, value)| *out += tap * value);
                }
            });
        });
        let mut out = vec![0.0; height * width];
        for (line, row) in continued.chunks_exact(columns.len()).zip(&rows) {
            line.iter().zip(&columns).for_each(|(value, column)| out[row * width + column] += value);
        }
        out
    }

    /// Every entry of the kernel, turned by 180°, with its place.
    fn taps(&self, mut tell: impl FnMut(usize, usize, f32)) {
        let [height, width] = self.size;
        for (at, tap) in self.values.iter().rev().enumerate().filter(|(_, tap)| **tap != 0.0) {
            debug_assert!(at / width < height);
            tell(at / width, at % width, *tap);
        }
    }
}

/// The cubic of R. Keys with a = −1/2, "Cubic convolution interpolation for digital image processing", IEEE Trans. Acoustics, Speech, and
/// Signal Processing 29(6), 1981.
fn cubic(at: f32) -> f32 {
    match at.abs() {
        near if near <= 1.0 => (1.5 * near - 2.5) * near * near + 1.0,
        far if far < 2.0 => ((-0.5 * far + 2.5) * far - 4.0) * far + 2.0,
        _ => 0.0,
    }
}

/// Rows or columns made fewer by a factor: each is a mean of those around its centre, weighted by the cubic stretched by the factor, as
/// common programs reduce pictures ("bicubic", with what is called antialiasing).
#[derive(Debug, Clone)]
struct Reduction {
    long: usize,
    /// Places and weights, output by output.
    weights: Vec<Vec<(usize, f32)>>,
}

impl Reduction {
    fn new(short: usize, factor: usize) -> Self {
        let (long, scale) = (short * factor, factor as f32);
        let weights = (0..short).map(|place| {
            let centre = (place as f32 + 0.5) * scale - 0.5;
            let around = (centre - 2.0 * scale).floor() as isize..=(centre + 2.0 * scale).ceil() as isize;
            let taps: Vec<(usize, f32)> = around
                .map(|other| (reflected(other, long), cubic((other as f32 - centre) / scale)))
                .filter(|(_, weight)| *weight != 0.0)
                .collect();
            let sum: f32 = taps.iter().map(|(_, weight)| weight).sum();
            taps.into_iter().map(|(other, weight)| (other, weight / sum)).collect()
        });
        Self { long, weights: weights.collect() }
    }

    /// Along the rows of `[rows, long]`; out `[short, rows]`, which is the other way round.
    fn apply(&self, plane: &[f32]) -> Vec<f32> {
        let rows = plane.len() / self.long;
        let mut out = vec![0.0; self.weights.len() * rows];
        out.par_chunks_exact_mut(rows).zip(&self.weights).for_each(|(out, taps)| {
            for (out, line) in out.iter_mut().zip(plane.chunks_exact(self.long)) {
                *out = taps.iter().map(|(place, weight)| weight * line[*place]).sum();
            }
        });
        out
    }

    /// From `[short, rows]` to `[rows, long]`.
    fn adjoint(&self, plane: &[f32]) -> Vec<f32> {
        let rows = plane.len() / self.weights.len();
        let mut out = vec![0.0; rows * self.long];
        out.par_chunks_exact_mut(self.long).enumerate().for_each(|(row, out)| {
            for (taps, line) in self.weights.iter().zip(plane.chunks_exact(rows)) {
                taps.iter().for_each(|(place, weight)| out[*place] += weight * line[row]);
            }
        });
        out
    }
}

/// A picture made larger by a factor, between its pixels by the cubic; continued by reflection.
pub(super) fn enlarged(plane: &[f32], [height, width]: [usize; 2], factor: usize) -> Vec<f32> {
    let taps = |len: usize| -> Vec<[(usize, f32); 4]> {
        (0..len * factor)
            .map(|place| {
                let centre = (place as f32 + 0.5) / factor as f32 - 0.5;
                let first = centre.floor() as isize - 1;
                [0, 1, 2, 3].map(|next| (reflected(first + next, len), cubic(centre - (first + next) as f32)))
            })
            .collect()
    };
    let (rows, columns) = (taps(height), taps(width));
    let mut out = vec![0.0; rows.len() * columns.len()];
    out.par_chunks_exact_mut(columns.len()).zip(&rows).for_each(|(out, rows)| {
        let line: Vec<f32> = (0..width)
            .map(|column| rows.iter().map(|(row, weight)| weight * plane[row * width + column]).sum())
            .collect();
        for (out, columns) in out.iter_mut().zip(&columns) {
            *out = columns.iter().map(|(column, weight)| weight * line[*column]).sum();
        }
    });
    out
}

/// What was done to a picture, noise aside: it was blurred, then reduced, then some of its pixels were lost.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    blur: Option<Blur>,
    reduced: usize,
    known: Option<Vec<bool>>,
}

impl Default for Observation {
    fn default() -> Self {
        Self { blur: None, reduced: 1, known: None }
    }
}

/// Largest factor by which a picture can have been reduced.
pub const MAX_REDUCED: usize = 8;

impl Observation {
    /// Blurred.
    #[must_use]
    pub fn blurred(mut self, blur: Blur) -> Self {
        self.blur = Some(blur);
        self
    }

    /// Reduced by a factor in rows and columns, from 1 to [`MAX_REDUCED`], by the cubic that common programs reduce pictures with.
    #[must_use]
    pub fn reduced_by(mut self, factor: usize) -> Self {
        self.reduced = factor;
        self
    }

    /// Known in the pixels that are true, one value for each that is left; others are never read.
    #[must_use]
    pub fn known_in(mut self, known: Vec<bool>) -> Self {
        self.known = Some(known);
        self
    }

    /// The factor by which it was reduced.
    pub fn factor(&self) -> usize {
        self.reduced
    }

    /// What is seen of a picture, without noise; 0 in pixels that are lost.
    ///
    /// # Errors
    /// A picture with another number of values than its shape says, or whose rows and columns are no multiples of the factor that it is
    /// reduced by; a mask of another size, or one that hides everything;
    /// a blur larger than the picture.
    pub fn seen(&self, picture: &Picture) -> Result<Picture> {
        picture.check()?;
        let [height, width] = [picture.height, picture.width].map(|len| len / self.reduced.max(1));
        self.check([height, width])?;
        if [height, width].map(|len| len * self.reduced) != [picture.height, picture.width] {
            let expected = format!("multiples of {}, by which it is reduced", self.reduced);
            return Err(Error::shape("rows and columns", expected, format!("{}x{}", picture.height, picture.width)));
        }
        let operator = self.operator([height, width]);
        let planes = picture.values.chunks_exact(picture.pixels()).map(|plane| operator.apply(plane));
        Picture::new(picture.channels, height, width, planes.collect::<Vec<_>>().concat())
    }

    /// Which pixels are known, where some are not.
    pub(super) fn known(&self) -> Option<&[bool]> {
        self.known.as_deref().filter(|known| known.contains(&false))
    }

    /// Whether pixels are combinations of several.
    pub(super) fn mixes(&self) -> bool {
        self.blur.is_some() || self.reduced > 1
    }

    /// Checks it for observed pictures of this size.
    ///
    /// # Errors
    /// A factor out of range; a mask of another size, or one that hides everything; a kernel larger than the picture.
    pub fn check(&self, observed: [usize; 2]) -> Result<()> {
        if !(1..=MAX_REDUCED).contains(&self.reduced) {
            return Err(Error::parameter("upscale", self.reduced, format!("a factor from 1 to {MAX_REDUCED}")));
        }
        if let Some(known) = &self.known {
            let pixels = observed[0] * observed[1];
            if known.len() != pixels {
                return Err(Error::shape("mask", pixels, known.len()));
            }
            if !known.contains(&true) {
                return Err(Error::parameter("mask", "nothing known", "at least one known pixel"));
            }
        }
        if let Some(Blur { size, .. }) = &self.blur {
            let whole = observed.map(|len| len * self.reduced);
            if size[0] > whole[0] || size[1] > whole[1] {
                let expected = format!("a kernel no larger than the picture, {}x{}", whole[0], whole[1]);
                return Err(Error::parameter("blur", format!("{}x{}", size[0], size[1]), expected));
            }
        }
        Ok(())
    }

    /// Rows and columns of what is seen that depend on what a blur brings in from beyond its borders, counted from these; what little comes from
    /// farther off does not count.
    pub fn reach(&self) -> [usize; 2] {
        let reach = self.blur.as_ref().map_or([0; 2], Blur::reach);
        reach.map(|reach| reach.div_ceil(self.reduced.max(1)))
    }

    /// Mean square of the blur's frequency response, 0 without one: that of a kernel is the sum of its squares.
    pub(super) fn passed(&self) -> f32 {
        self.blur.as_ref().map_or(0.0, |blur| blur.values.iter().map(|value| value * value).sum())
    }

    /// The observation of a picture that is continued by margins of which nothing is known.
    pub(super) fn continued(&self, [height, width]: [usize; 2], [rows, columns]: [usize; 2]) -> Self {
        let inner = |at: usize, margin: usize, len: usize| at.checked_sub(margin).filter(|at| *at < len);
        let (all_rows, all_columns) = (height + 2 * rows, width + 2 * columns);
        let known = (0..all_rows * all_columns).map(|at| {
            let (row, column) = (inner(at / all_columns, rows, height), inner(at % all_columns, columns, width));
            let (Some(row), Some(column)) = (row, column) else { return false };
            self.known.as_ref().is_none_or(|known| known[row * width + column])
        });
        Self { known: Some(known.collect()), ..self.clone() }
    }

    /// The operator from pictures to observed ones of this size, channel by channel.
    pub(super) fn operator(&self, observed: [usize; 2]) -> Operator<'_> {
        let reduction = (self.reduced > 1).then(|| observed.map(|len| Reduction::new(len, self.reduced)));
        Operator {
            blur: self.blur.as_ref(),
            reduction,
            known: self.known(),
            whole: observed.map(|len| len * self.reduced),
        }
    }
}

/// H, which takes a picture to what is seen of it, and its adjoint.
pub(super) struct Operator<'a> {
    blur: Option<&'a Blur>,
    reduction: Option<[Reduction; 2]>,
    known: Option<&'a [bool]>,
    /// Rows and columns of the picture.
    pub(super) whole: [usize; 2],
}

impl Operator<'_> {
    fn hide(&self, plane: &mut [f32]) {
        if let Some(known) = self.known {
            plane.iter_mut().zip(known).filter(|(_, known)| !**known).for_each(|(value, _)| *value = 0.0);
        }
    }

    pub(super) fn apply(&self, plane: &[f32]) -> Vec<f32> {
        let mut out = self.blur.map_or_else(|| plane.to_vec(), |blur| blur.apply(plane, self.whole));
        if let Some([rows, columns]) = &self.reduction {
            out = rows.apply(&columns.apply(&out));
            // Columns first gave [w, H], rows then [h, w].
        }
        self.hide(&mut out);
        out
    }

    pub(super) fn adjoint(&self, plane: &[f32]) -> Vec<f32> {
        let mut out = plane.to_vec();
        self.hide(&mut out);
        if let Some([rows, columns]) = &self.reduction {
            out = columns.adjoint(&rows.adjoint(&out));
        }
        self.blur.map_or_else(|| out.clone(), |blur| blur.adjoint(&out, self.whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample;
    use crate::random;

    fn normals(count: usize, seed: u64) -> Vec<f32> {
        random::normal(&mut sample::generator(seed), count)
    }

    fn dot(left: &[f32], right: &[f32]) -> f64 {
        left.iter().zip(right).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }

    /// ⟨Hx, y⟩ = ⟨x, Hᵀy⟩ for every kind, with kernels of even and odd sizes.
    #[test]
    fn adjoints_are_exact() {
        let observed = [6, 9];
        let known: Vec<bool> = (0..54).map(|at| at % 5 != 0).collect();
        let blurs = [[3, 3], [4, 2], [1, 5]].map(|[height, width]: [usize; 2]| {
            let values: Vec<f32> = normals(height * width, 1).iter().map(|value| value.abs()).collect();
            Blur::new([height, width], &values).unwrap()
        });
        let mut kinds = vec![Observation::default(), Observation::default().reduced_by(2)];
        kinds.extend(blurs.map(|blur| Observation::default().blurred(blur)));
        kinds.push(kinds[2].clone().reduced_by(3).known_in(known));
        for kind in kinds {
            kind.check(observed).unwrap();
            let operator = kind.operator(observed);
            let (x, y) = (normals(operator.whole.iter().product(), 2), normals(54, 3));
            let (left, right) = (dot(&operator.apply(&x), &y), dot(&x, &operator.adjoint(&y)));
            assert!((left - right).abs() < 1e-4, "{kind:?}: {left} {right}");
        }
    }

    /// As `scipy.ndimage.convolve(x, k / k.sum(), mode="reflect")` gives.
    #[test]
    fn blurs_are_convolutions() {
        let x: Vec<f32> = (0..12).map(|at| (at * at % 7) as f32).collect();
        let blur = Blur::new([2, 3], &[1.0, 2.0, 0.0, 3.0, 0.0, 2.0]).unwrap();
        let expected = [[1.375, 2.625, 1.25, 1.75], [2.75, 2.125, 1.75, 1.0], [2.5, 2.25, 2.5, 2.0]];
        let found = blur.apply(&x, [3, 4]);
        assert!(
            found.iter().zip(expected.iter().flatten()).all(|(a, b): (&f32, &f32)| (a - b).abs() < 1e-5),
            "{found:?}"
        );
    }

    #[test]
    fn what_is_constant_stays_so() {
        let constant = vec![7.0; 24 * 30];
        let observation = Observation::default().blurred(Blur::gaussian(1.3).unwrap()).reduced_by(3);
        let seen = observation.operator([8, 10]).apply(&constant);
        assert!(seen.len() == 80 && seen.iter().all(|value| (value - 7.0).abs() < 1e-4));
        assert!(enlarged(&seen, [8, 10], 3).iter().all(|value| (value - 7.0).abs() < 1e-4));
    }
}
