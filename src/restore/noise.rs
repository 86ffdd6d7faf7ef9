//! How strong the noise in a picture is.

use super::Picture;

/// Median of the magnitude of a normal variable of variance 1.
const MEDIAN: f64 = 0.674_489_750_196_081_7;

/// Length of the filter (1, −2, 1) ⊗ (1, −2, 1), by which white noise comes out stronger.
const LENGTH: f64 = 6.0;

/// Standard deviation of white noise, in the picture's own units: the median absolute deviation of second differences in both directions
/// at once, where smooth surfaces and straight edges vanish, of all channels together (J. Immerkær, "Fast noise variance estimation",
/// Computer Vision and Image Understanding 64(2), 1996; the median as in D. Donoho, I. Johnstone, "Ideal spatial adaptation by wavelet
/// shrinkage", Biometrika 81(3), 1994). Fine texture counts as noise. Patterns that vanish when the picture is halved, such as checkers and
/// halftones, do not, because white noise would remain; and a picture of two values has no noise. Where noise was clipped at the least or the
/// largest value, such pixels are left out, if most pixels are known. Values that are not finite are passed over.
///
/// `known`, one value a pixel, says which pixels may be read. Where few of these have all their neighbours, pixels are compared with the planes
/// through the nearest known ones. `None` where too few are near each other, or the picture or `known` has another number of values
/// than its shape says.
pub fn estimate(picture: &Picture, known: Option<&[bool]>) -> Option<f32> {
    let (half, known_half) = halved(picture, known)?;
    strength_of_both(deviations(picture, known).concat(), deviations(&half, known_half.as_deref()).concat())
}

/// The strength at the full size, but at most 1.25 times what the picture at half its size implies for white noise.
fn strength_of_both(mut whole: Vec<f32>, mut half: Vec<f32>) -> Option<f32> {
    let reduced = if half.len() < ENOUGH { None } else { strength(&mut half) };
    let most = reduced.map_or(f32::INFINITY, |reduced| 2.0 * CLEARLY * reduced);
    Some(strength(&mut whole)?.min(most))
}

/// Fewer differences than this are too few for their median to be trusted.
const ENOUGH: usize = 256;

/// By this factor noise may be measured weaker at half the size by chance.
const CLEARLY: f32 = 1.25;

/// How many times as strong as in another channel noise may be measured that is of one strength.
const EVEN: f32 = 1.2;

/// The same for every channel: one strength for all where they differ by less than a fifth, else that of each. `None` where one of them cannot
/// be measured.
pub fn estimate_each(picture: &Picture, known: Option<&[bool]>) -> Option<Vec<f32>> {
    let (half, known_half) = halved(picture, known)?;
    let [whole, half] = [deviations(picture, known), deviations(&half, known_half.as_deref())];
    let all = strength_of_both(whole.concat(), half.concat())?;
    // Pictures of one row have no half.
    let halves = half.into_iter().chain(std::iter::repeat(Vec::new()));
    let each = whole.into_iter().zip(halves).map(|(whole, half)| strength_of_both(whole, half));
    let each = each.collect::<Option<Vec<f32>>>()?;
    let [least, most] = extremes(&each);
    if most > EVEN * least {
        return Some(each);
    }
    Some(vec![all; each.len()])
}

/// How many times as strong noise has to be at half the size for what is there at the full one to say little.
const REDUCED: f32 = 1.5;

/// Strength of the noise of a plane, as [`estimate`] finds it, and the largest that it shows at any of three sizes. Noise that is alike in
/// neighbouring pixels, as in colours that JPEG stored at half the size, hardly shows at the full size: then a half and a quarter of it are
/// measured, where texture counts as well.
pub(super) fn at_any_size(plane: &Picture, known: Option<&[bool]>) -> Option<[f32; 2]> {
    let found = estimate(plane, known)?;
    let Some(half) = at_half_size(plane, known) else { return Some([found; 2]) };
    let (halved, known) = halved(plane, known)?;
    let quarter = at_half_size(&halved, known.as_deref()).map_or(half, |quarter| 2.0 * quarter);
    let most = half.max(found);
    Some([found, if half > REDUCED * found { most.max(quarter) } else { most }])
}

/// Strength of white noise of which the means of two by two pixels have as much as those of a plane.
fn at_half_size(plane: &Picture, known: Option<&[bool]>) -> Option<f32> {
    let (half, known) = halved(plane, known)?;
    estimate(&half, known.as_deref()).map(|found| 2.0 * found)
}

/// The means of two by two pixels, and which of them are known; `None` where the picture or `known` is not what its shape says.
fn halved(picture: &Picture, known: Option<&[bool]>) -> Option<(Picture, Option<Vec<bool>>)> {
    if !fits(picture, known) {
        return None;
    }
    let [height, width] = [picture.height / 2, picture.width / 2];
    let places = |at: usize| {
        let first = at / width * 2 * picture.width + at % width * 2;
        [first, first + 1, first + picture.width, first + picture.width + 1]
    };
    let planes = picture.values.chunks_exact(picture.pixels().max(1));
    let values = planes.flat_map(|plane| {
        (0..height * width).map(move |at| places(at).iter().map(|&place| plane[place]).sum::<f32>() / 4.0)
    });
    let half = Picture { channels: picture.channels, height, width, values: values.collect() };
    let known = known.map(|known| (0..height * width).map(|at| places(at).iter().all(|&place| known[place])).collect());
    Some((half, known))
}

/// Whether a picture has the values that its shape says, and `known` one for each of its pixels.
fn fits(picture: &Picture, known: Option<&[bool]>) -> bool {
    picture.check().is_ok() && known.is_none_or(|known| known.len() == picture.pixels())
}

/// The least and the largest of strengths of noise; [∞, 0] of none.
pub fn extremes(sigmas: &[f32]) -> [f32; 2] {
    sigmas.iter().fold([f32::INFINITY, 0.0], |[least, most], sigma| [least.min(*sigma), most.max(*sigma)])
}

/// Magnitudes of second differences, those of each channel.
fn deviations(picture: &Picture, known: Option<&[bool]>) -> Vec<Vec<f32>> {
    if !fits(picture, known) {
        return Vec::new();
    }
    picture.values.chunks_exact(picture.pixels().max(1)).map(|plane| of_plane(plane, picture, known)).collect()
}

fn of_plane(plane: &[f32], picture: &Picture, known: Option<&[bool]>) -> Vec<f32> {
    let readable: Vec<bool> =
        plane.iter().enumerate().map(|(at, value)| value.is_finite() && known.is_none_or(|known| known[at])).collect();
    let limits = Limits::of(plane, &readable);
    if limits.hold_all(plane, &readable) {
        return vec![0.0; ENOUGH];
    }
    let found = differences(plane, picture, &readable);
    let readable_count = readable.iter().filter(|readable| **readable).count();
    if known.is_some() && found.len() < MANY && found.len() * FEW < readable_count {
        let apart = from_planes(plane, picture, &readable);
        return if apart.len() > found.len() { apart } else { found };
    }
    if limits.cut_noise(plane, picture, &readable) {
        let inside: Vec<bool> =
            plane.iter().zip(&readable).map(|(value, readable)| *readable && !limits.holds(*value)).collect();
        let all = found.len();
        drop(found);
        let inner = differences(plane, picture, &inside);
        return if inner.len() * FEW >= all { inner } else { differences(plane, picture, &readable) };
    }
    found
}

/// Less than one in so many is too few, unless there are many.
const FEW: usize = 8;
const MANY: usize = 4096;

/// A picture of two values and more pixels than this has no noise.
const SEVERAL: usize = 8;

/// The least and the largest value of a plane.
struct Limits([f32; 2]);

impl Limits {
    fn of(plane: &[f32], readable: &[bool]) -> Self {
        let values = plane.iter().zip(readable).filter(|(_, readable)| **readable);
        Self(
            values
                .fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], (&value, _)| [low.min(value), high.max(value)]),
        )
    }

    fn holds(&self, value: f32) -> bool {
        self.0.contains(&value)
    }

    /// Whether there is nothing between them: a drawing or a halftone, in which noise would have left more than two values.
    fn hold_all(&self, plane: &[f32], readable: &[bool]) -> bool {
        let values = || plane.iter().zip(readable).filter(|(_, readable)| **readable);
        values().count() > SEVERAL && values().all(|(value, _)| self.holds(*value))
    }

    /// Whether noise was clipped at them: more than 1% of the pixels lie there, and enough single pixels among these do not.
    fn cut_noise(&self, plane: &[f32], picture: &Picture, readable: &[bool]) -> bool {
        let (height, width) = (picture.height, picture.width);
        let held = |at: usize| readable[at] && self.holds(plane[at]);
        let (mut within, mut alone) = (0, 0);
        for row in 1..height.saturating_sub(1) {
            for column in 1..width.saturating_sub(1) {
                let centre = row * width + column;
                if held(centre) {
                    within += 1;
                } else if readable[centre] {
                    let around = (0..9).filter(|place| held(centre + place / 3 * width + place % 3 - width - 1));
                    alone += usize::from(around.count() >= 7);
                }
            }
        }
        within * 100 > height * width && alone * 200 > within
    }
}

/// Magnitudes of the second differences of readable pixels.
fn differences(plane: &[f32], picture: &Picture, readable: &[bool]) -> Vec<f32> {
    let (height, width) = (picture.height, picture.width);
    let mut found = Vec::new();
    for row in 1..height.saturating_sub(1) {
        for column in 1..width.saturating_sub(1) {
            let at = |down: usize, across: usize| (row + down - 1) * width + column + across - 1;
            if (0..9).all(|place| readable[at(place / 3, place % 3)]) {
                let line = |down: usize| {
                    f64::from(plane[at(down, 0)]) - 2.0 * f64::from(plane[at(down, 1)]) + f64::from(plane[at(down, 2)])
                };
                found.push((line(0) - 2.0 * line(1) + line(2)).abs() as f32);
            }
        }
    }
    found
}

/// Pixels that a plane is laid through, how far they may be from the one that it is compared with, and most pixels that are looked at.
const NEAREST: usize = 6;
const FAR: isize = 4;
const MOST_COMPARED: usize = 1 << 16;

/// Distances of readable pixels from the planes through the nearest other ones, scaled so that white noise gives values as large as its second
/// differences are.
fn from_planes(plane: &[f32], picture: &Picture, readable: &[bool]) -> Vec<f32> {
    let (height, width) = (picture.height as isize, picture.width as isize);
    let mut around: Vec<[isize; 2]> = (-FAR..=FAR)
        .flat_map(|down| (-FAR..=FAR).map(move |across| [down, across]))
        .filter(|to| *to != [0, 0])
        .collect();
    around.sort_by_key(|[down, across]| down * down + across * across);
    let centres: Vec<usize> = (0..plane.len()).filter(|at| readable[*at]).collect();
    let step = centres.len().div_ceil(MOST_COMPARED).max(1);
    let deviation = |&centre: &usize| {
        let [row, column] = [centre as isize / width, centre as isize % width];
        let near = around.iter().filter_map(|&[down, across]| {
            let [row, column] = [row + down, column + across];
            let inside = (0..height).contains(&row) && (0..width).contains(&column);
            let at = inside.then(|| (row * width + column) as usize)?;
            readable[at].then(|| [down as f64, across as f64, f64::from(plane[at])])
        });
        let near: Vec<[f64; 3]> = near.take(NEAREST).collect();
        let [expected, spread] = plane_at_origin(&near)?;
        Some((LENGTH * (f64::from(plane[centre]) - expected).abs() / (1.0 + spread).sqrt()) as f32)
    };
    centres.iter().step_by(step).filter_map(deviation).collect()
}

/// The value in the origin of the plane through points (row, column, value) by least squares, and its variance where that of the points'
/// values is 1. `None` where there are fewer than four points, or they lie on one side or nearly on a line.
fn plane_at_origin(points: &[[f64; 3]]) -> Option<[f64; 2]> {
    let count = points.len() as f64;
    if points.len() < 4 {
        return None;
    }
    let [y, x, value] = [0, 1, 2].map(|axis| points.iter().map(|point| point[axis]).sum::<f64>() / count);
    let moment = |of: &dyn Fn(f64, f64, f64) -> f64| {
        points.iter().map(|point| of(point[0] - y, point[1] - x, point[2] - value)).sum::<f64>()
    };
    let (yy, xy, xx) = (moment(&|y, _, _| y * y), moment(&|y, x, _| x * y), moment(&|_, x, _| x * x));
    let determinant = yy * xx - xy * xy;
    if determinant < 0.05 * yy * xx || determinant <= 0.0 {
        return None;
    }
    let (yv, xv) = (moment(&|y, _, value| y * value), moment(&|_, x, value| x * value));
    let slopes = [(xx * yv - xy * xv) / determinant, (yy * xv - xy * yv) / determinant];
    let spread = 1.0 / count + (xx * y * y - 2.0 * xy * x * y + yy * x * x) / determinant;
    (spread <= 1.0).then(|| [value - slopes[0] * y - slopes[1] * x, spread])
}

/// The strength of the noise that makes such deviations.
fn strength(found: &mut [f32]) -> Option<f32> {
    let middle = found.len() / 2;
    let median = |found: &mut [f32]| f64::from(*found.select_nth_unstable_by(middle, f32::total_cmp).1);
    (!found.is_empty()).then(|| (median(found) / (LENGTH * MEDIAN)) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample;
    use rand_distr::{Distribution, StandardNormal};

    fn noisy(sigma: f32) -> Picture {
        let mut random = sample::generator(1);
        let values = (0..200 * 150).map(|place| {
            let (row, column) = (place / 150, place % 150);
            let noise: f32 = StandardNormal.sample(&mut random);
            // A ramp and two edges.
            row as f32
                + 0.5 * column as f32
                + if column > 70 { 80.0 } else { 0.0 }
                + if row > 90 { -50.0 } else { 0.0 }
                + sigma * noise
        });
        Picture::new(1, 200, 150, values.collect()).unwrap()
    }

    #[test]
    fn it_finds_the_noise_and_nothing_else() {
        for sigma in [2.0, 10.0, 40.0] {
            let found = estimate(&noisy(sigma), None).unwrap();
            assert!((found / sigma - 1.0).abs() < 0.05, "{sigma}: {found}");
        }
        let channels = [noisy(3.0), noisy(12.0)].map(|channel| channel.values).concat();
        let each = estimate_each(&Picture::new(2, 200, 150, channels).unwrap(), None).unwrap();
        assert!((each[0] / 3.0 - 1.0).abs() < 0.05 && (each[1] / 12.0 - 1.0).abs() < 0.05, "{each:?}");
        // The ramp alone: rounding.
        assert!(estimate(&noisy(0.0), None).unwrap() < 1e-3);
    }

    /// Noise that is the same in two by two pixels, as in colours that were reduced, shows at their size.
    #[test]
    fn smooth_noise_is_found() {
        let mut random = sample::generator(1);
        let grains: Vec<f32> = (0..100 * 75).map(|_| StandardNormal.sample(&mut random)).collect();
        let values = (0..200 * 150).map(|at| 10.0 * grains[at / 150 / 2 * 75 + at % 150 / 2]);
        let plane = Picture::new(1, 200, 150, values.collect()).unwrap();
        let [fine, most] = at_any_size(&plane, None).unwrap();
        assert!(fine < 12.0 && (most / 20.0 - 1.0).abs() < 0.1, "{fine} {most}");
        // Of white noise there is as much at every size.
        let [fine, most] = at_any_size(&noisy(10.0), None).unwrap();
        assert!(most < 1.1 * fine, "{fine} {most}");
    }

    /// Noise is found where few pixels are known, where it was cut off, and not in drawings, checkers and halftones.
    #[test]
    fn pictures_of_other_kinds() {
        let mut random = sample::generator(2);
        let picture = noisy(20.0);
        for part in [0.5, 0.2] {
            let known: Vec<bool> = (0..200 * 150).map(|_| rand::RngExt::random_bool(&mut random, part)).collect();
            let found = estimate(&picture, Some(&known)).unwrap();
            assert!((found / 20.0 - 1.0).abs() < 0.06, "{part}: {found}");
        }
        // A third of the pixels are white.
        let cut = Picture { values: picture.values.iter().map(|value| value.min(170.0)).collect(), ..picture.clone() };
        let white = cut.values.iter().filter(|value| **value == 170.0).count();
        let found = estimate(&cut, None).unwrap();
        assert!(white > 8_000 && (found / 20.0 - 1.0).abs() < 0.12, "{white} {found}");
        let of = |value: &dyn Fn(usize, usize) -> f32| {
            let values = (0..100 * 100).map(|at| value(at / 100, at % 100)).collect();
            estimate(&Picture::new(1, 100, 100, values).unwrap(), None).unwrap()
        };
        let checker = |row: usize, column: usize| 200.0 * ((row + column) % 2) as f32;
        assert_eq!(of(&checker), 0.0);
        assert_eq!(of(&|row, column| [[0.0, 100.0], [200.0, 100.0]][row % 2][column % 2]), 0.0);
        // Small pictures: no bias.
        let small = (0..50).map(|_| {
            let values = (0..24 * 24).map(|_| StandardNormal.sample(&mut random)).collect();
            estimate(&Picture::new(1, 24, 24, values).unwrap(), None).unwrap()
        });
        let mean = small.sum::<f32>() / 50.0;
        assert!((mean - 1.0).abs() < 0.05, "{mean}");
        assert!(of(&|row, column| checker(row, column) + 0.3 * row as f32) < 1e-3);
        // A ramp in black and white.
        let order = [0, 8, 2, 10, 12, 4, 14, 6, 3, 11, 1, 9, 15, 7, 13, 5];
        assert_eq!(of(&|row, column| f32::from(column * 16 / 100 > order[row % 4 * 4 + column % 4])), 0.0);
    }

    #[test]
    fn unknown_pixels_are_not_read() {
        let mut picture = noisy(10.0);
        let known: Vec<bool> = (0..200 * 150).map(|place| place % 7 != 0 || place > 9_000).collect();
        let expected = estimate(&picture, Some(&known)).unwrap();
        picture.values.iter_mut().zip(&known).filter(|(_, known)| !**known).for_each(|(value, _)| *value = f32::NAN);
        assert_eq!(estimate(&picture, Some(&known)), Some(expected));
        assert_eq!(estimate(&picture, Some(&vec![false; 200 * 150])), None);
        assert_eq!(estimate(&Picture::new(1, 2, 2, vec![1.0; 4]).unwrap(), None), None);
        assert_eq!(estimate(&noisy(1.0), Some(&[true; 3])), None);
        assert_eq!(estimate_each(&Picture { height: 0, ..noisy(1.0) }, None), None);
    }
}
