//! Deskewing: images of slanted things set upright.
//!
//! Every row is moved sideways in proportion to its distance from the centre of mass, so that the mixed second moment of the image
//! vanishes: the shear of Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document Recognition",
//! Proc. IEEE 86(11), 1998, section III-A. No label is asked.

use crate::geometry::SignalShape;
use rayon::prelude::*;

/// Deskews signals in place, each by itself, all of its channels by one shear.
///
/// Masses are what values are above the smallest one of the signal, summed over channels. Rows are moved by fractions of a pixel with
/// linear interpolation; what comes in from outside has the smallest value. A signal without height or without contrast stays as
/// it is.
///
/// # Panics
/// If `signals` is no whole number of signals of that shape.
pub fn deskew(signals: &mut [f32], shape: SignalShape) {
    assert!(signals.len().is_multiple_of(shape.len()), "values of signals of {shape}");
    signals.par_chunks_mut(shape.len()).for_each(|signal| deskew_one(signal, shape));
}

fn deskew_one(signal: &mut [f32], shape: SignalShape) {
    let (height, width) = (shape.height, shape.width);
    let background = signal.iter().copied().fold(f32::INFINITY, f32::min);
    // Σ m, Σ m y, Σ m x, Σ m y², Σ m y x, with the middle of the image as origin: squares stay small.
    let middle = [height, width].map(|extent| (extent as f64 - 1.0) / 2.0);
    let [mut mass, mut of_y, mut of_x, mut of_yy, mut of_yx] = [0.0f64; 5];
    for (line, values) in signal.chunks_exact(width).enumerate() {
        let y = (line % height) as f64 - middle[0];
        for (column, &value) in values.iter().enumerate() {
            let (m, x) = (f64::from(value - background), column as f64 - middle[1]);
            mass += m;
            of_y += m * y;
            of_x += m * x;
            of_yy += m * y * y;
            of_yx += m * y * x;
        }
    }
    let variance = of_yy - of_y * of_y / mass;
    let shear = (of_yx - of_y * of_x / mass) / variance;
    // Neither mass nor height: nothing to set upright.
    if !shear.is_finite() || variance <= 1e-9 * of_yy {
        return;
    }
    let centre = of_y / mass;
    let mut row = vec![0.0f32; width];
    for (line, values) in signal.chunks_exact_mut(width).enumerate() {
        let from = shear * ((line % height) as f64 - middle[0] - centre);
        let (whole, part) = (from.floor(), (from - from.floor()) as f32);
        row.copy_from_slice(values);
        let at = |column: f64| match column >= 0.0 && column < width as f64 {
            true => row[column as usize],
            false => background,
        };
        for (column, value) in values.iter_mut().enumerate() {
            let left = column as f64 + whole;
            *value = (1.0 - part) * at(left) + part * at(left + 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Mixed second moment over the second moment of rows.
    fn slant(signal: &[f32], shape: SignalShape) -> f64 {
        let background = signal.iter().copied().fold(f32::INFINITY, f32::min);
        let values = || {
            signal.iter().enumerate().map(|(index, &value)| {
                let (y, x) = (index / shape.width % shape.height, index % shape.width);
                (f64::from(value - background), y as f64, x as f64)
            })
        };
        let mass: f64 = values().map(|(m, ..)| m).sum();
        let [y, x] = [values().map(|(m, y, _)| m * y).sum::<f64>(), values().map(|(m, _, x)| m * x).sum()];
        let mixed: f64 = values().map(|(m, row, column)| m * (row - y / mass) * (column - x / mass)).sum();
        let rows: f64 = values().map(|(m, row, _)| m * (row - y / mass) * (row - y / mass)).sum();
        mixed / rows
    }

    /// Blobs in the middle of an image, away from its sides, over a background.
    fn blobs(shape: SignalShape, background: f32, seed: u64) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut signal = vec![background; shape.len()];
        for (index, value) in signal.iter_mut().enumerate() {
            let (row, column) = (index / shape.width % shape.height, index % shape.width);
            if (2..shape.height - 2).contains(&row) && column.abs_diff(shape.width / 2) <= 2 {
                *value += rng.random::<f32>();
            }
        }
        signal
    }

    #[test]
    fn what_is_deskewed_has_no_slant_and_the_same_rows() {
        let shape = SignalShape::new(2, 9, 24);
        for seed in 0..50 {
            let background = [0.0, -1.5, 0.25][seed as usize % 3];
            // Slanted by a shift of whole pixels that grows from row to row.
            let upright = blobs(shape, background, seed);
            let mut signal = vec![background; shape.len()];
            for line in 0..shape.len() / shape.width {
                let shift = (line % shape.height) / (1 + seed as usize % 3);
                for column in 0..shape.width - shift {
                    signal[line * shape.width + column + shift] = upright[line * shape.width + column];
                }
            }
            let before = slant(&signal, shape);
            let mut found = signal.clone();
            deskew(&mut found, shape);
            // Linear interpolation keeps the mass of a row and moves its centre as far as it is asked to.
            let after = slant(&found, shape);
            assert!(after.abs() < 1e-4, "seed {seed}: {before} became {after}");
            for (found, signal) in found.chunks_exact(shape.width).zip(signal.chunks_exact(shape.width)) {
                let [found, expected] = [found, signal].map(|row| row.iter().sum::<f32>());
                assert!((found - expected).abs() < 1e-4, "seed {seed}: row of {expected} became {found}");
            }
        }
    }

    /// A straight line that leans by one column per row becomes upright, exactly.
    #[test]
    fn a_leaning_line_is_set_upright() {
        let shape = SignalShape::new(1, 7, 9);
        let line = |column: fn(usize) -> usize| {
            let mut signal = vec![0.0f32; shape.len()];
            (0..7).for_each(|row| signal[row * 9 + column(row)] = 1.0);
            signal
        };
        let mut signal = line(|row| row + 1);
        deskew(&mut signal, shape);
        assert_eq!(signal, line(|_| 4));
        let mut signal = line(|row| 7 - row);
        deskew(&mut signal, shape);
        assert_eq!(signal, line(|_| 4));
    }

    #[test]
    fn what_has_no_slant_stays() {
        let shape = SignalShape::new(1, 4, 6);
        let row: Vec<f32> = (0..24).map(|index| if index / 6 == 1 { index as f32 } else { 0.0 }).collect();
        for signal in [vec![0.0; 24], vec![0.7; 24], row] {
            let mut found = signal.clone();
            deskew(&mut found, shape);
            assert_eq!(found, signal);
        }
        let mut none: [f32; 0] = [];
        deskew(&mut none, shape);
    }
}
