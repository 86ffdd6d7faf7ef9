//! Batches of a source, as burn-train loads them.

use crate::autoencoder::training::TrainingBatch;
use crate::data::Source;
use crate::learn::order::Order;
use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::{Device, Tensor, TensorData};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts steps.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    pub done: Arc<AtomicUsize>,
    pub steps: usize,
}

impl Clock {
    pub(super) fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    /// Part of the run that is done.
    pub(super) fn progress(&self) -> f32 {
        self.done() as f32 / self.steps.max(1) as f32
    }
}

/// Batches of a source: in an order that follows from seed and epoch, or as they come.
#[derive(Clone)]
pub(super) struct Batches {
    pub source: Arc<dyn Source>,
    pub batch_size: usize,
    /// The order of signals, those that belong together as one; `None` for the source's own.
    pub order: Option<Order>,
    /// Epochs begun.
    pub epoch: Arc<AtomicUsize>,
    pub clock: Clock,
    pub run_seed: u64,
    pub device: Device,
}

impl DataLoader<TrainingBatch> for Batches {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<TrainingBatch> + 'a> {
        let epoch = self.epoch.fetch_add(1, Ordering::SeqCst);
        Box::new(BatchIterator { batches: self, order: self.order.clone(), epoch, position: 0 })
    }

    fn num_items(&self) -> usize {
        self.source.len()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<TrainingBatch>> {
        Arc::new(Self { device: device.clone(), ..self.clone() })
    }

    /// All of it: several devices divide every batch, not the signals, so that no parts are asked for.
    fn slice(&self, _: usize, _: usize) -> Arc<dyn DataLoader<TrainingBatch>> {
        Arc::new(self.clone())
    }
}

struct BatchIterator<'a> {
    batches: &'a Batches,
    order: Option<Order>,
    epoch: usize,
    position: usize,
}

impl Iterator for BatchIterator<'_> {
    type Item = std::result::Result<TrainingBatch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Batches { source, batch_size, clock, device, run_seed, .. } = self.batches;
        let end = (self.position + batch_size).min(source.len());
        if self.position >= end {
            return None;
        }
        let indices: Vec<usize> = match &mut self.order {
            Some(order) => {
                let together = source.together();
                let groups = order.indices(self.epoch, self.position / together..end / together);
                groups.into_iter().flat_map(|group| group * together..(group + 1) * together).collect()
            }
            None => (self.position..end).collect(),
        };
        let mut values = vec![0.0; indices.len() * source.shape().len()];
        let read = source.read(&indices, &mut values).map_err(DatasetError::new);
        let signals = TensorData::new(values, source.shape().batched(indices.len()));
        let labels = source.labels().map(|labels| {
            let labels: Vec<i32> = indices.iter().map(|&index| i32::from(labels[index])).collect();
            Tensor::from_data(TensorData::new(labels, [indices.len()]), device)
        });
        self.position = end;
        Some(read.map(|()| TrainingBatch {
            signals: Tensor::from_data(signals, device),
            labels,
            step: clock.done(),
            steps: clock.steps,
            seed: *run_seed,
            part: 0,
            of: indices.len(),
        }))
    }
}

impl DataLoaderIterator<TrainingBatch> for BatchIterator<'_> {
    fn progress(&self) -> Progress {
        Progress::new(self.position, self.batches.source.len(), Some("signals".into()))
    }
}
