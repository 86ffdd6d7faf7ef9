//! Feature vectors: codes pooled over the cells of grids.
//!
//! A code `[m, h, w]` is divided into g × g cells of (nearly) equal size; of every cell and channel the largest value or the mean is
//! kept. Where codes have both signs, what is positive and what is negative in them can be pooled apart (*rectified*), for
//! otherwise they cancel.

use crate::error::{Error, Result};
use crate::geometry::SignalShape;
use crate::text::counted;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Vectors of one length.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    values: Vec<f32>,
    columns: usize,
}

impl Features {
    /// Vectors of `columns` values, one after the other.
    ///
    /// # Errors
    /// Values that are not whole vectors, or not finite.
    pub fn new(values: Vec<f32>, columns: usize) -> Result<Self> {
        if columns == 0 || !values.len().is_multiple_of(columns) {
            let expected = format!("a multiple of {columns} > 0");
            return Err(Error::shape("values of feature vectors", expected, values.len()));
        }
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(Error::parameter("feature", value, "a finite number"));
        }
        Ok(Self { values, columns })
    }

    /// Raises magnitudes to a power in (0, 1], signs kept: less than 1 brings large values closer to small ones.
    ///
    /// # Errors
    /// A power out of range.
    pub fn raise(&mut self, power: f32) -> Result<()> {
        check_power(power)?;
        if power != 1.0 {
            let raise = |value: &mut f32| *value = value.abs().powf(power).copysign(*value);
            self.values.par_chunks_mut(self.columns).for_each(|row| row.iter_mut().for_each(raise));
        }
        Ok(())
    }

    /// Number of vectors.
    pub fn rows(&self) -> usize {
        self.values.len() / self.columns
    }

    /// Whether all vectors are equal, so that nothing tells them apart.
    pub fn are_all_equal(&self) -> bool {
        (1..self.rows()).all(|row| self.row(row) == self.row(0))
    }

    /// Values of a vector.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// A vector.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline(always)]
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.columns..][..self.columns]
    }
}

/// Checks what [`Features::raise`] takes.
///
/// # Errors
/// A power out of range.
pub fn check_power(power: f32) -> Result<()> {
    match power > 0.0 && power <= 1.0 {
        true => Ok(()),
        false => Err(Error::parameter("power", power, "a number in (0, 1]")),
    }
}

/// What features are divided by once their means are taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[derive(strum::Display, strum::EnumIter, strum::EnumString, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum Scaling {
    /// Every feature by its own standard deviation: the penalty weighs rare features like frequent ones. The default.
    #[default]
    Each,
    /// All by the root of their mean variance: features keep their proportions, and rare ones count for less.
    Common,
}

/// What brings features to mean 0 and standard deviation 1, each or on the average, over the vectors that it was taken from;
/// features that never change there become 0.
#[derive(Debug, Clone)]
pub struct Standardization {
    means: Vec<f32>,
    scales: Vec<f32>,
}

/// Vectors whose sums are taken by one core.
const PART: usize = 256;

impl Standardization {
    /// Of all vectors.
    pub fn of(features: &Features, scaling: Scaling) -> Self {
        let (rows, columns) = (features.rows(), features.columns);
        // Every part is computed whole by one core and parts are added in order, whatever the number of threads.
        let mut sums = vec![0.0f64; columns];
        let mut squares = vec![0.0f64; columns];
        for group in features.values.chunks(16 * PART * columns) {
            let parts: Vec<(Vec<f64>, Vec<f64>)> = group
                .par_chunks(PART * columns)
                .map(|part| {
                    let (mut sums, mut squares) = (vec![0.0; columns], vec![0.0; columns]);
                    for row in part.chunks_exact(columns) {
                        for ((sum, square), &value) in sums.iter_mut().zip(&mut squares).zip(row) {
                            *sum += f64::from(value);
                            *square += f64::from(value) * f64::from(value);
                        }
                    }
                    (sums, squares)
                })
                .collect();
            for (part_sums, part_squares) in parts {
                sums.iter_mut().zip(part_sums).for_each(|(sum, part)| *sum += part);
                squares.iter_mut().zip(part_squares).for_each(|(sum, part)| *sum += part);
            }
        }
        let count = rows.max(1) as f64;
        let means: Vec<f64> = sums.iter().map(|sum| sum / count).collect();
        let variances = squares.iter().zip(&means).map(|(square, mean)| {
            let variance = square / count - mean * mean;
            // Less than that is rounding.
            if variance > 1e-12 * square / count { variance } else { 0.0 }
        });
        let mut variances: Vec<f64> = variances.collect();
        if scaling == Scaling::Common {
            let changing = variances.iter().filter(|&&variance| variance > 0.0).count().max(1);
            let mean = variances.iter().sum::<f64>() / changing as f64;
            variances.iter_mut().filter(|variance| **variance > 0.0).for_each(|variance| *variance = mean);
        }
        let scales =
            variances.iter().map(|&variance| if variance > 0.0 { (1.0 / variance.sqrt()) as f32 } else { 0.0 });
        Self { scales: scales.collect(), means: means.iter().map(|&mean| mean as f32).collect() }
    }

    /// Brings vectors to that scale.
    ///
    /// # Errors
    /// Vectors of another length.
    pub fn apply(&self, features: &mut Features) -> Result<()> {
        if features.columns != self.means.len() {
            let expected = counted(self.means.len(), "value");
            return Err(Error::shape("feature vectors", expected, features.columns));
        }
        features.values.par_chunks_mut(features.columns).for_each(|row| {
            for ((value, mean), scale) in row.iter_mut().zip(&self.means).zip(&self.scales) {
                *value = (*value - mean) * scale;
            }
        });
        Ok(())
    }
}

/// What is kept of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[derive(strum::Display, strum::EnumIter, strum::EnumString, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum PoolingMethod {
    /// The largest value. The default.
    #[default]
    Max,
    /// The mean.
    Mean,
}

/// What is done about signs before pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[derive(strum::Display, strum::EnumIter, strum::EnumString, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum Rectification {
    /// max(γ, 0) and max(−γ, 0) are pooled apart, two features a cell; of non-negative codes only the first. The default.
    #[default]
    Split,
    /// |γ| is pooled.
    Absolute,
    /// γ is pooled as it is: of a cell whose values have both signs, the one of largest magnitude or the mean.
    Signed,
}

/// How codes become features.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolingConfig {
    /// Cells along each side, at least 1, for every grid; features of all grids stand beside each other. Codes of fewer positions
    /// than cells are taken as they are. Default: one grid of 4.
    pub grids: Vec<usize>,
    /// What is kept of a cell.
    pub method: PoolingMethod,
    /// What is done about signs.
    pub rectification: Rectification,
}

impl Default for PoolingConfig {
    fn default() -> Self {
        Self { grids: vec![4], method: PoolingMethod::default(), rectification: Rectification::default() }
    }
}

/// Most cells along a side.
const MAX_GRID: usize = 1024;

impl PoolingConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// No grid; a grid of no cell or of more than 1024 along a side.
    pub fn check(&self) -> Result<()> {
        if self.grids.is_empty() {
            return Err(Error::parameter("grids", "nothing", "at least one number of cells"));
        }
        match self.grids.iter().find(|grid| !(1..=MAX_GRID).contains(*grid)) {
            Some(grid) => Err(Error::parameter("grids", grid, format!("a number of cells from 1 to {MAX_GRID}"))),
            None => Ok(()),
        }
    }

    /// Features of one channel's cell.
    fn halves(&self, nonnegative: bool) -> usize {
        if self.rectification == Rectification::Split && !nonnegative { 2 } else { 1 }
    }

    /// Features of a code of that shape.
    pub fn len(&self, shape: SignalShape, nonnegative: bool) -> usize {
        let cells = |grid: usize| grid.min(shape.height) * grid.min(shape.width);
        let cells: usize = self.grids.iter().map(|&grid| cells(grid)).sum();
        shape.channels * self.halves(nonnegative) * cells
    }

    /// Pools one code into `out`: grid after grid, in each channel after channel, cell after cell.
    ///
    /// # Panics
    /// If `code` is not of that shape or `out` not [`Self::len`] long.
    pub fn pool(&self, code: &[f32], shape: SignalShape, nonnegative: bool, out: &mut [f32]) {
        let SignalShape { channels, height, width } = shape;
        assert_eq!(code.len(), shape.len(), "values of a code of {shape}");
        assert_eq!(out.len(), self.len(shape, nonnegative), "features of a code of {shape}");
        let halves = self.halves(nonnegative);
        let mut out = out.iter_mut();
        for &grid in &self.grids {
            let (down, across) = (grid.min(height), grid.min(width));
            for channel in 0..channels {
                let map = &code[channel * height * width..][..height * width];
                for cell in 0..down * across {
                    let (row, column) = (cell / across, cell % across);
                    let rows = row * height / down..(row + 1) * height / down;
                    let columns = column * width / across..(column + 1) * width / across;
                    let cell = rows.flat_map(|row| map[row * width..][columns.clone()].iter().copied());
                    for (half, out) in out.by_ref().take(halves).enumerate() {
                        *out = self.cell(cell.clone(), half == 1);
                    }
                }
            }
        }
    }

    /// One feature; `negative` asks for the half below zero.
    fn cell(&self, values: impl Iterator<Item = f32> + Clone, negative: bool) -> f32 {
        let rectified = |value: f32| match self.rectification {
            Rectification::Split if negative => (-value).max(0.0),
            Rectification::Split => value.max(0.0),
            Rectification::Absolute => value.abs(),
            Rectification::Signed => value,
        };
        let values = values.map(rectified);
        match self.method {
            PoolingMethod::Max => {
                values.fold(0.0, |best, value| if value.abs() > f32::abs(best) { value } else { best })
            }
            PoolingMethod::Mean => {
                let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
                sum / f32::max(count, 1.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_by_hand() {
        let shape = SignalShape::new(1, 3, 4);
        let code = [1.0, -2.0, 0.0, 4.0, 0.5, 0.0, -1.0, 0.0, -3.0, 2.5, 0.0, 0.25];
        let pooled = |config: PoolingConfig, nonnegative| {
            let mut out = vec![f32::NAN; config.len(shape, nonnegative)];
            config.pool(&code, shape, nonnegative, &mut out);
            out
        };
        let grid = |rectification, method| PoolingConfig { grids: vec![2], method, rectification };
        // Rows 0 and 1 to 2, columns 0 to 1 and 2 to 3.
        assert_eq!(
            pooled(grid(Rectification::Split, PoolingMethod::Max), false),
            [1.0, 2.0, 4.0, 0.0, 2.5, 3.0, 0.25, 1.0]
        );
        assert_eq!(pooled(grid(Rectification::Split, PoolingMethod::Max), true), [1.0, 4.0, 2.5, 0.25]);
        assert_eq!(pooled(grid(Rectification::Absolute, PoolingMethod::Max), false), [2.0, 4.0, 3.0, 1.0]);
        assert_eq!(pooled(grid(Rectification::Signed, PoolingMethod::Max), false), [-2.0, 4.0, -3.0, -1.0]);
        assert_eq!(pooled(grid(Rectification::Signed, PoolingMethod::Mean), false), [-0.5, 2.0, 0.0, -0.1875]);
        let pyramid = PoolingConfig { grids: vec![1, 9], ..PoolingConfig::default() };
        let all = pooled(pyramid, true);
        assert_eq!(all[0], 4.0);
        assert_eq!(all[1..], code.map(|value| value.max(0.0)));
    }

    #[test]
    fn standard_features_have_mean_0_and_deviation_1() {
        let values: Vec<f32> = (0..3000).flat_map(|row| [(row % 7) as f32, 5.0, 0.0, 1e3 + (row % 3) as f32]).collect();
        let mut features = Features::new(values, 4).unwrap();
        let common = Standardization::of(&features, Scaling::Common);
        let standardization = Standardization::of(&features, Scaling::Each);
        standardization.apply(&mut features).unwrap();
        for column in 0..4 {
            let values: Vec<f64> = (0..3000).map(|row| f64::from(features.row(row)[column])).collect();
            let mean = values.iter().sum::<f64>() / 3000.0;
            let variance = values.iter().map(|value| value * value).sum::<f64>() / 3000.0;
            assert!(mean.abs() < 1e-3, "{column}: {mean}");
            let expected = if column == 1 || column == 2 { 0.0 } else { 1.0 };
            assert!((variance - expected).abs() < 1e-3, "{column}: {variance}");
        }
        assert!(standardization.apply(&mut Features::new(vec![0.0; 3], 3).unwrap()).is_err());
        // Variances of 4 and 2/3: both divided by the root of their mean, 7/3.
        assert_eq!(common.scales[1..3], [0.0, 0.0]);
        assert!((f64::from(common.scales[0]) - (3.0f64 / 7.0).sqrt()).abs() < 1e-3, "{:?}", common.scales);
        assert_eq!(common.scales[0], common.scales[3]);
    }

    #[test]
    fn powers_keep_signs() {
        let mut features = Features::new(vec![4.0, -9.0, 0.0, 0.25], 2).unwrap();
        features.raise(1.0).unwrap();
        assert_eq!(features.row(0), [4.0, -9.0]);
        features.raise(0.5).unwrap();
        assert_eq!((features.row(0), features.row(1)), (&[2.0, -3.0][..], &[0.0, 0.5][..]));
    }

    #[test]
    fn mistakes_are_errors() {
        assert!(Features::new(vec![0.0; 5], 2).is_err());
        assert!(Features::new(vec![0.0; 5], 0).is_err());
        assert!(Features::new(vec![f32::NAN], 1).is_err());
        assert!(PoolingConfig { grids: vec![], ..PoolingConfig::default() }.check().is_err());
        assert!(PoolingConfig { grids: vec![2, 0], ..PoolingConfig::default() }.check().is_err());
        for power in [0.0, -0.5, 1.5, f32::NAN] {
            assert!(Features::new(vec![4.0], 1).unwrap().raise(power).is_err());
        }
        assert!(PoolingConfig::default().check().is_ok());
    }
}
