//! Signals as burn's data loaders take them.

use super::Source;
use crate::geometry::SignalShape;
use burn::data::dataloader::batcher::Batcher;
use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::{Device, Tensor, TensorData};
use std::sync::Arc;

/// A source as a burn `Dataset`, whose items are the values of a signal.
#[derive(Clone)]
pub struct SignalDataset(Arc<dyn Source>);

impl SignalDataset {
    /// The signals of a source.
    pub fn new(source: Arc<dyn Source>) -> Self {
        Self(source)
    }

    /// What makes batches of the items.
    pub fn batcher(&self) -> SignalBatcher {
        SignalBatcher(self.0.shape())
    }
}

impl Dataset<Vec<f32>> for SignalDataset {
    fn get(&self, index: usize) -> Result<Vec<f32>, DatasetError> {
        let mut values = vec![0.0; self.0.shape().len()];
        self.0.read(&[index], &mut values).map_err(DatasetError::new)?;
        Ok(values)
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

/// Batches of signals, `[n, channels, height, width]`.
#[derive(Debug, Clone)]
pub struct SignalBatcher(SignalShape);

impl Batcher<Vec<f32>, Tensor<4>> for SignalBatcher {
    fn batch(&self, items: Vec<Vec<f32>>, device: &Device) -> Tensor<4> {
        let dims = self.0.batched(items.len());
        Tensor::from_data(TensorData::new(items.concat(), dims), device)
    }
}
