//! Models of others, by their own encoders.

use super::coding::{ALL_ZERO, CodingArgs};
use super::data::{ShardArgs, Signals};
use super::interrupt;
use super::output::{Summary, number};
use super::progress::Progress;
use crate::autoencoder::{Autoencoder, Coded};
use crate::data::wanted_shape;
use crate::error::{Error, Result};
use crate::foreign::{ForeignAutoencoder, is_foreign};
use crate::kernels::sparse::to_host;
use crate::model::normalization::Undo;
use crate::pursuit::{SignalReport, StopReason};
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::{Value, json};
use std::ops::Range;
use std::path::Path;
use std::time::Instant;

/// How an interruption leaves things.
const UNFINISHED: &str = "not all signals were coded";

/// Values of a batch of codes at most: 64 MiB.
const BATCH_VALUES: usize = 1 << 24;

/// The auto-encoder of others that a file holds, if it holds one.
///
/// # Errors
/// As [`ForeignAutoencoder::load`].
pub fn open(path: &Path, device: &Device) -> Result<Option<ForeignAutoencoder>> {
    match is_foreign(path)? {
        true => Ok(Some(ForeignAutoencoder::load(path, device)?)),
        false => Ok(None),
    }
}

/// An encoder ready to code signals, as flags ask for it.
pub struct Encoder {
    network: ForeignAutoencoder,
    batch_size: usize,
}

/// One batch that it coded.
pub struct EncodedBatch {
    pub start: usize,
    pub signals: Tensor<4>,
    pub coded: Coded,
    pub undo: Undo,
    pub reports: Vec<SignalReport>,
}

/// What is known after coding.
#[derive(Default)]
pub struct Encoded {
    signals: usize,
    nonzeros: usize,
    data_term: f64,
    seconds: f64,
}

impl Encoder {
    /// The encoder of an auto-encoder.
    pub fn new(network: ForeignAutoencoder, args: &CodingArgs) -> Self {
        let most = (BATCH_VALUES / network.config().units).clamp(1, 512);
        Self { batch_size: args.solver.batch_size.unwrap_or(most), network }
    }

    /// The auto-encoder.
    pub fn network(&self) -> &ForeignAutoencoder {
        &self.network
    }

    /// Codes all signals and calls `visit` with one batch after the other. Ctrl-C ends it between two batches.
    ///
    /// # Errors
    /// Signals of another shape, or that cannot be read; an interruption; errors of `visit`.
    pub fn run(&self, signals: &Signals, visit: impl FnMut(EncodedBatch) -> Result<()>) -> Result<Encoded> {
        self.run_on(signals, 0..signals.len(), visit)
    }

    /// Which signals a process codes that is to code a part.
    ///
    /// # Errors
    /// More parts than batches.
    pub fn range(&self, signals: &Signals, shard: &ShardArgs) -> Result<Range<usize>> {
        let Range { start, end } = shard.batches(signals.len().div_ceil(self.batch_size))?;
        Ok(start * self.batch_size..(end * self.batch_size).min(signals.len()))
    }

    /// [`Self::run`] for some of the signals, whole batches.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_on(
        &self,
        signals: &Signals,
        range: Range<usize>,
        mut visit: impl FnMut(EncodedBatch) -> Result<()>,
    ) -> Result<Encoded> {
        let (wanted, found) = (self.network.signal(), signals.shape());
        if wanted != found {
            let what = format!("signals of {}", signals.source());
            return Err(Error::shape(what, wanted_shape(wanted, wanted, found), found));
        }
        let progress = Progress::new("coding", "signals", range.len() as u64);
        let device = self.network.encoder.centre.val().device();
        let mut encoded = Encoded { signals: range.len(), ..Encoded::default() };
        interrupt::watch();
        for start in range.clone().step_by(self.batch_size) {
            interrupt::check(UNFINISHED)?;
            let count = self.batch_size.min(range.end - start);
            let values = signals.read(start, count)?;
            let clock = Instant::now();
            let tensor = Tensor::from_data(TensorData::new(values, found.batched(count)), &device);
            let coded = self.network.reconstruct(tensor.clone())?;
            let undo = self.network.undo(tensor.clone())?;
            let reports = reports(&tensor, &coded);
            encoded.seconds += clock.elapsed().as_secs_f64();
            for report in &reports {
                encoded.nonzeros += report.nonzeros;
                encoded.data_term += f64::from(report.data_term);
            }
            visit(EncodedBatch { start, signals: tensor, coded, undo, reports })?;
            progress.advance(count as u64);
        }
        Ok(encoded)
    }

    /// What the codes of a file were computed with.
    pub fn describe(&self, source: &str) -> Value {
        json!({
            "format_version": 1,
            "signals": source,
            "pursuit": { "name": "encoder", "autoencoder": self.network.config() },
        })
    }

    /// Results as JSON.
    pub fn json(&self, encoded: &Encoded, signals: &Signals, device: &str) -> Value {
        let count = encoded.signals.max(1) as f64;
        json!({
            "signals": encoded.signals,
            "skipped": signals.skipped(),
            "seconds": encoded.seconds,
            "signals_per_second": encoded.signals as f64 / encoded.seconds,
            "mean_data_term": encoded.data_term / count,
            "mean_nonzeros": encoded.nonzeros as f64 / count,
            "nonnegative": self.network.config().activation.is_nonnegative(),
            "pursuit": "encoder",
            "autoencoder": self.network.config(),
            "device": device,
            "precision": crate::device::precision(),
            "warning": (encoded.nonzeros == 0).then_some(ALL_ZERO),
        })
    }

    /// The same as text.
    pub fn summary(&self, encoded: &Encoded, signals: &Signals, device: &str) -> Summary {
        let count = encoded.signals.max(1) as f64;
        let config = self.network.config();
        let mut summary =
            Summary::new(format!("coded {}", Signals::describe_all(std::slice::from_ref(signals), encoded.signals)));
        summary
            .row("encoder", format!("{} of {}, {device}", config.activation, config.format))
            .row("½‖y − x‖²", format!("mean {}", number(encoded.data_term / count)))
            .row("non-zeros", format!("mean {} of {}", number(encoded.nonzeros as f64 / count), config.units))
            .row(
                "time",
                format!(
                    "{} s ({} signals/s)",
                    number(encoded.seconds),
                    number(encoded.signals as f64 / encoded.seconds)
                ),
            );
        if encoded.nonzeros == 0 {
            summary.row("warning", ALL_ZERO);
        }
        summary
    }
}

/// What can be said of codes that no pursuit found: of their minimum nothing is known.
fn reports(signals: &Tensor<4>, coded: &Coded) -> Vec<SignalReport> {
    let errors = to_host((signals.clone() - coded.reconstruction.clone()).flatten::<2>(1, 3).square().sum_dim(1));
    let codes = to_host(coded.codes.clone());
    let units = codes.len() / errors.len().max(1);
    let report = |(code, error): (&[f32], f32)| SignalReport {
        lambda: 0.0,
        iterations: 1,
        objective: 0.5 * error,
        relative_gap: if error == 0.0 { 0.0 } else { 1.0 },
        data_term: 0.5 * error,
        nonzeros: code.iter().filter(|value| **value != 0.0).count(),
        stop: StopReason::Direct,
        finished_by: None,
    };
    codes.chunks_exact(units.max(1)).zip(errors).map(report).collect()
}
