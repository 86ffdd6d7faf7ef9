//! Where signals come from: files, folders of images, MNIST, and digits drawn by a generator.
//!
//! Everything that can be read is a [`Source`]: a number of signals of one shape, read by index into a caller's buffer, so
//! that nothing but raw bytes is ever held for the whole set.

use crate::error::Result;
use crate::model::geometry::SignalShape;
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

/// Signals to learn from and signals held out.
#[derive(Clone)]
pub struct Splits {
    /// Signals to learn from.
    pub train: Arc<dyn Source>,
    /// Held-out signals of the same shape.
    pub test: Arc<dyn Source>,
}
