//! Where signals come from: files, folders of images, MNIST, and digits drawn by a generator.
//!
//! Everything that can be read is a [`Source`]: a number of signals of one shape, read by index into a caller's buffer, so
//! that nothing but raw bytes is ever held for the whole set.

use crate::error::Result;
use crate::model::geometry::{Pair, SignalShape};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A set of signals of one shape, read by index.
pub trait Source: Send + Sync {
    /// Number of signals.
    fn len(&self) -> usize;

    /// Whether there is no signal.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shape of every signal.
    fn shape(&self) -> SignalShape;

    /// Reads the signals at `indices` into `out`, laid out as `[indices.len(), channels, height, width]`.
    ///
    /// Pixels of images lie in [0, 1]; arrays are passed on as they are.
    ///
    /// # Errors
    /// Files that vanished or turn out damaged; values that are not finite.
    ///
    /// # Panics
    /// If an index is out of range or `out` has another length than the signals need.
    fn read(&self, indices: &[usize], out: &mut [f32]) -> Result<()>;

    /// Class labels, where the source has them: one per signal.
    fn labels(&self) -> Option<&[u8]> {
        None
    }

    /// What this is, for messages: a path, or a name with its settings.
    fn describe(&self) -> String;
}

/// What to read and how; stored in run folders, so that a resumed run reads the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// `digits`, `mnist`, or the path of an IDX file, of a folder with MNIST's IDX files, of an image, of a folder of images
    /// or of a `.npy` array.
    #[serde(default = "default_source")]
    pub source: String,
    /// Signals to draw for `digits`, at least 2. Default 12,000. Of every six one is held out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
    /// Height and width of random patches to cut from images or arrays instead of using them whole. Default: whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<Pair>,
    /// Number of random patches, at least 1. Default 20,000. Ignored without `patch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patches: Option<usize>,
    /// Whether colour images are turned grey. Default: they stay as they are; grey ones among colour ones become colour.
    #[serde(default)]
    pub grey: bool,
    /// Part of the signals, in [0, 1), that is held out where a source does not come with a test set. Default 0.1, at least
    /// one signal where there are two.
    #[serde(default = "default_held_out")]
    pub held_out: f32,
    /// Seed of the generator, of the patches and of the split.
    #[serde(default)]
    pub seed: u64,
}

fn default_source() -> String {
    "digits".into()
}

fn default_held_out() -> f32 {
    0.1
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            source: default_source(),
            count: None,
            patch: None,
            patches: None,
            grey: false,
            held_out: default_held_out(),
            seed: 0,
        }
    }
}

/// Part of a [`Dataset`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// Signals to learn from.
    Train,
    /// Held-out signals.
    Test,
    /// Both, the training signals first (for a single file: in the file's order).
    All,
}

/// Signals to learn from and signals held out, of one shape.
#[derive(Clone)]
pub struct Dataset {
    /// Signals to learn from.
    pub train: Arc<dyn Source>,
    /// Held-out signals of the same shape.
    pub test: Arc<dyn Source>,
    /// All signals.
    pub all: Arc<dyn Source>,
    /// Whether the source itself says what its test set is (MNIST, `digits`), rather than a part being cut off.
    pub has_test_set: bool,
}
