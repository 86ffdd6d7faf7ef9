//! How strong the noise in a picture is.

use super::Picture;

/// Median of the magnitude of a normal variable of variance 1.
const MEDIAN: f64 = 0.674_489_750_196_081_7;

/// Length of the filter (1, −2, 1) ⊗ (1, −2, 1), by which white noise comes out stronger.
const LENGTH: f64 = 6.0;

/// Standard deviation of white noise, in the picture's own units: the median absolute deviation of second differences in both directions
/// at once, where smooth surfaces and straight edges vanish, of all channels together (J. Immerkær, "Fast noise variance estimation",
/// Computer Vision and Image Understanding 64(2), 1996; the median as in D. Donoho, I. Johnstone, "Ideal spatial adaptation by wavelet
/// shrinkage", Biometrika 81(3), 1994). Fine texture counts as noise. Values that are not finite are passed over. `known`, one value a
/// pixel, says which pixels may be read; `None`
/// where there are no nine known ones together, or the picture or `known` has another number of values than its shape says.
pub fn estimate(picture: &Picture, known: Option<&[bool]>) -> Option<f32> {
    strength(&mut deviations(picture, known).concat())
}

/// How many times as strong as in another channel noise may be measured that is of one strength.
const EVEN: f32 = 1.2;

/// The same for every channel: one strength for all where they differ by less than a fifth, else that of each. `None` where one of them cannot
/// be measured.
pub fn estimate_each(picture: &Picture, known: Option<&[bool]>) -> Option<Vec<f32>> {
    let mut found = deviations(picture, known);
    let all = strength(&mut found.concat())?;
    let each = found.iter_mut().map(|of_channel| strength(of_channel)).collect::<Option<Vec<f32>>>()?;
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
    let (halved, known) = halved(plane, known);
    let quarter = at_half_size(&halved, known.as_deref()).map_or(half, |quarter| 2.0 * quarter);
    let most = half.max(found);
    Some([found, if half > REDUCED * found { most.max(quarter) } else { most }])
}

/// Strength of white noise of which the means of two by two pixels have as much as those of a plane.
fn at_half_size(plane: &Picture, known: Option<&[bool]>) -> Option<f32> {
    let (half, known) = halved(plane, known);
    estimate(&half, known.as_deref()).map(|found| 2.0 * found)
}

/// The means of two by two pixels, and which of them are known.
fn halved(plane: &Picture, known: Option<&[bool]>) -> (Picture, Option<Vec<bool>>) {
    let [height, width] = [plane.height / 2, plane.width / 2];
    let places = |at: usize| {
        let first = at / width * 2 * plane.width + at % width * 2;
        [first, first + 1, first + plane.width, first + plane.width + 1]
    };
    let values = (0..height * width).map(|at| places(at).iter().map(|&place| plane.values[place]).sum::<f32>() / 4.0);
    let half = Picture { channels: 1, height, width, values: values.collect() };
    let known = known.map(|known| (0..height * width).map(|at| places(at).iter().all(|&place| known[place])).collect());
    (half, known)
}

/// The least and the largest of strengths of noise; [∞, 0] of none.
pub fn extremes(sigmas: &[f32]) -> [f32; 2] {
    sigmas.iter().fold([f32::INFINITY, 0.0], |[least, most], sigma| [least.min(*sigma), most.max(*sigma)])
}

/// Magnitudes of second differences, those of each channel.
fn deviations(picture: &Picture, known: Option<&[bool]>) -> Vec<Vec<f64>> {
    if picture.check().is_err() || known.is_some_and(|known| known.len() != picture.pixels()) {
        return Vec::new();
    }
    picture.values.chunks_exact(picture.pixels().max(1)).map(|plane| of_plane(plane, picture, known)).collect()
}

fn of_plane(plane: &[f32], picture: &Picture, known: Option<&[bool]>) -> Vec<f64> {
    let (height, width) = (picture.height, picture.width);
    let mut found = Vec::new();
    for row in 1..height.saturating_sub(1) {
        for column in 1..width.saturating_sub(1) {
            let at = |down: usize, across: usize| (row + down - 1) * width + column + across - 1;
            let all = (0..9).all(|place| known.is_none_or(|known| known[at(place / 3, place % 3)]));
            if all {
                let line = |down: usize| {
                    f64::from(plane[at(down, 0)]) - 2.0 * f64::from(plane[at(down, 1)]) + f64::from(plane[at(down, 2)])
                };
                found.push((line(0) - 2.0 * line(1) + line(2)).abs());
            }
        }
    }
    found.retain(|value| value.is_finite());
    found
}

/// The strength of the noise that makes such deviations.
fn strength(found: &mut [f64]) -> Option<f32> {
    let middle = found.len() / 2;
    (!found.is_empty()).then(|| (*found.select_nth_unstable_by(middle, f64::total_cmp).1 / (LENGTH * MEDIAN)) as f32)
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
