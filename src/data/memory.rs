//! Signals that are in memory already, and parts of a source.

use super::indices::Indices;
use super::{Dataset, Source, pictures};
use crate::error::{Error, Result};
use crate::geometry::{MAX_TENSOR_LEN, SignalShape, checked_len};
use burn::tensor::{Device, Tensor, TensorData};
use std::path::Path;
use std::sync::Arc;

/// Signals in memory.
///
/// ```
/// use mlcsc::data::{InMemory, Source};
/// use mlcsc::geometry::SignalShape;
///
/// # fn main() -> mlcsc::Result<()> {
/// let two = InMemory::new(SignalShape::new(1, 2, 2), vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])?;
/// assert_eq!(two.len(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct InMemory {
    shape: SignalShape,
    values: Vec<f32>,
    labels: Option<Vec<u8>>,
}

impl InMemory {
    /// Signals of that shape, one after the other.
    ///
    /// # Errors
    /// A number of values that is no multiple of a signal's; a shape without values; values that are not finite.
    pub fn new(shape: SignalShape, values: impl Into<Vec<f32>>) -> Result<Self> {
        let values = values.into();
        if checked_len(&[shape.channels, shape.height, shape.width]).is_none_or(|len| len == 0) {
            let expected = format!("from 1 to {MAX_TENSOR_LEN} values each");
            return Err(Error::shape("signals in memory", expected, shape));
        }
        if !values.len().is_multiple_of(shape.len()) {
            let expected = format!("a multiple of {}, the values of a signal of {shape}", shape.len());
            return Err(Error::shape("values of signals in memory", expected, values.len()));
        }
        if let Some(place) = values.iter().position(|value| !value.is_finite()) {
            let signal = place / shape.len();
            return Err(Error::parameter(format!("signal {signal} in memory"), values[place], "finite values"));
        }
        Ok(Self { shape, values, labels: None })
    }

    /// The signals of a tensor, which is read from its device.
    ///
    /// # Shapes
    /// - signals: `[n, channels, height, width]`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn from_tensor(signals: Tensor<4>) -> Result<Self> {
        let [_, channels, height, width] = signals.dims();
        let values: Vec<f32> = crate::device::read(signals).iter::<f32>().collect();
        Self::new(SignalShape::new(channels, height, width), values)
    }

    /// The signals as a tensor.
    ///
    /// # Shapes
    /// - out: `[n, channels, height, width]`.
    pub fn tensor(&self, device: &Device) -> Tensor<4> {
        Tensor::from_data(TensorData::new(self.values.clone(), self.shape.batched(self.len())), device)
    }

    /// With a class label for every signal.
    ///
    /// # Errors
    /// Not one label a signal.
    pub fn with_labels(self, labels: Vec<u8>) -> Result<Self> {
        if labels.len() != self.len() {
            return Err(Error::shape("labels of signals in memory", format!("{}, one each", self.len()), labels.len()));
        }
        Ok(Self { labels: Some(labels), ..self })
    }
}

impl Source for InMemory {
    fn len(&self) -> usize {
        self.values.len() / self.shape.len()
    }

    fn shape(&self) -> SignalShape {
        self.shape
    }

    fn read(&self, indices: &[usize], out: &mut [f32]) -> Result<()> {
        let len = self.shape.len();
        assert_eq!(out.len(), indices.len() * len, "room for as many signals as are read");
        for (&index, out) in indices.iter().zip(out.chunks_exact_mut(len)) {
            out.copy_from_slice(&self.values[index * len..(index + 1) * len]);
        }
        Ok(())
    }

    fn labels(&self) -> Option<&[u8]> {
        self.labels.as_deref()
    }

    fn describe(&self) -> String {
        format!("{} signals of {} in memory", self.len(), self.shape)
    }
}

impl Source for Arc<dyn Source> {
    fn len(&self) -> usize {
        (**self).len()
    }

    fn shape(&self) -> SignalShape {
        (**self).shape()
    }

    fn read(&self, indices: &[usize], out: &mut [f32]) -> Result<()> {
        (**self).read(indices, out)
    }

    fn labels(&self) -> Option<&[u8]> {
        (**self).labels()
    }

    fn class_names(&self) -> Option<&[String]> {
        (**self).class_names()
    }

    fn file(&self, index: usize) -> Option<&Path> {
        (**self).file(index)
    }

    fn together(&self) -> usize {
        (**self).together()
    }

    fn skipped(&self) -> Option<&str> {
        (**self).skipped()
    }

    fn sampling_rate(&self) -> Option<u32> {
        (**self).sampling_rate()
    }

    fn has_channel_axis(&self) -> bool {
        (**self).has_channel_axis()
    }

    fn describe(&self) -> String {
        (**self).describe()
    }
}

/// Some of a source's signals.
struct Subset {
    source: Arc<dyn Source>,
    indices: Indices,
    labels: Option<Vec<u8>>,
    name: String,
}

impl Subset {
    fn new(source: Arc<dyn Source>, indices: Indices, name: String) -> Self {
        let labels = source.labels().map(|labels| indices.iter().map(|index| labels[index]).collect());
        Self { source, indices, labels, name }
    }
}

impl Source for Subset {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn shape(&self) -> SignalShape {
        self.source.shape()
    }

    fn read(&self, indices: &[usize], out: &mut [f32]) -> Result<()> {
        let indices: Vec<usize> = indices.iter().map(|&index| self.indices.get(index)).collect();
        self.source.read(&indices, out)
    }

    fn labels(&self) -> Option<&[u8]> {
        self.labels.as_deref()
    }

    fn class_names(&self) -> Option<&[String]> {
        self.source.class_names()
    }

    fn file(&self, index: usize) -> Option<&Path> {
        self.source.file(self.indices.get(index))
    }

    fn skipped(&self) -> Option<&str> {
        self.source.skipped()
    }

    fn sampling_rate(&self) -> Option<u32> {
        self.source.sampling_rate()
    }

    fn has_channel_axis(&self) -> bool {
        self.source.has_channel_axis()
    }

    fn describe(&self) -> String {
        format!("{} of {}", self.name, self.source.describe())
    }
}

/// The first `count` signals of a source, or all where it has fewer.
pub fn first(source: Arc<dyn Source>, count: usize) -> Arc<dyn Source> {
    if count >= source.len() {
        return source;
    }
    Arc::new(Subset::new(source, Indices::Range(0..count), format!("the first {count}")))
}

impl Dataset {
    /// A random part of a source held out, the same for the same seed; all signals serve both purposes where nothing can be or is to
    /// be held out.
    ///
    /// # Errors
    /// A part outside [0, 1); no signals.
    pub fn divided(source: impl Source + 'static, held_out: f32, seed: u64) -> Result<Self> {
        if !(0.0..1.0).contains(&held_out) {
            return Err(Error::parameter("held_out", held_out, "a number of at least 0 and less than 1"));
        }
        let all: Arc<dyn Source> = Arc::new(source);
        if all.is_empty() {
            return Err(Error::shape(format!("signals of {}", all.describe()), "at least one", 0));
        }
        let [test, train] = pictures::divided(all.len(), held_out, seed);
        if held_out == 0.0 || test.len() == 0 {
            return Ok(Self { train: all.clone(), test: all.clone(), all, has_test_set: false });
        }
        let part =
            |indices, name: &str| -> Arc<dyn Source> { Arc::new(Subset::new(all.clone(), indices, name.into())) };
        let (train, test) = (part(train, "a part"), part(test, "the held-out part"));
        Ok(Self { train, test, all, has_test_set: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn five() -> InMemory {
        let values: Vec<f32> = (0..20).map(|value| value as f32).collect();
        InMemory::new(SignalShape::new(1, 2, 2), values).unwrap().with_labels(vec![0, 1, 2, 3, 4]).unwrap()
    }

    fn firsts(source: &dyn Source) -> Vec<f32> {
        let mut values = vec![0.0; source.len() * 4];
        source.read(&(0..source.len()).collect::<Vec<_>>(), &mut values).unwrap();
        values.into_iter().step_by(4).collect()
    }

    #[test]
    fn signals_are_read_and_divided() {
        let parts = Dataset::divided(five(), 0.4, 3).unwrap();
        assert_eq!((parts.train.len(), parts.test.len(), parts.all.len()), (3, 2, 5));
        let mut both = [firsts(&*parts.train), firsts(&*parts.test)].concat();
        both.sort_by(f32::total_cmp);
        assert_eq!(both, [0.0, 4.0, 8.0, 12.0, 16.0]);
        for part in [&parts.train, &parts.test] {
            let labels = part.labels().unwrap().iter().map(|label| 4.0 * f32::from(*label));
            assert_eq!(labels.collect::<Vec<_>>(), firsts(&**part));
        }
        assert_eq!(firsts(&*first(parts.all.clone(), 2)), [0.0, 4.0]);
        let whole = Dataset::divided(five(), 0.0, 0).unwrap();
        assert_eq!((whole.train.len(), whole.test.len()), (5, 5));
    }

    #[test]
    fn values_that_do_not_fit_are_refused() {
        let shape = SignalShape::new(1, 2, 2);
        for (error, part) in [
            (InMemory::new(shape, vec![0.0; 7]).unwrap_err(), "a multiple of 4"),
            (InMemory::new(SignalShape::new(1, 0, 2), Vec::new()).unwrap_err(), "from 1 to"),
            (InMemory::new(SignalShape::new(usize::MAX, 3, 2), Vec::new()).unwrap_err(), "from 1 to"),
            (InMemory::new(shape, vec![0.0, 0.0, 0.0, 0.0, 0.0, f32::NAN, 0.0, 0.0]).unwrap_err(), "signal 1"),
            (five().with_labels(vec![1]).unwrap_err(), "5, one each"),
        ] {
            assert!(error.to_string().contains(part), "{error}");
        }
        assert!(Dataset::divided(five(), 1.0, 0).is_err());
        assert!(Dataset::divided(InMemory::new(shape, Vec::new()).unwrap(), 0.1, 0).is_err());
    }
}
