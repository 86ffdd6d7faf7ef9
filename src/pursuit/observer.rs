//! Watching a pursuit, and ending it, from outside.

use crate::error::{Error, Result};
use std::fmt::Debug;
use std::sync::Mutex;

/// Hears how far a pursuit has come, and may end it before it is done.
///
/// A pursuit asks between iterations and between parts of a large signal, from several threads at once.
pub trait Observer: Sync + Debug {
    /// Whether the pursuit is to end now: [`super::Pursuit::solve`] then returns [`Error::Interrupted`].
    fn is_cancelled(&self) -> bool;

    /// Hears that about this part of a batch, in [0, 1], has been done; it never falls. Not every pursuit can tell.
    fn progress(&self, _done: f64) {}
}

/// A pursuit's observer as a pursuit that does a part of its work sees it.
#[derive(Debug)]
pub(super) struct Share<'a> {
    /// Whose work a part is done of.
    pub observer: &'a dyn Observer,
    /// What is done before.
    pub from: f64,
    /// How much of the whole this part is; of 0 nothing is told.
    pub part: f64,
}

impl Observer for Share<'_> {
    fn is_cancelled(&self) -> bool {
        self.observer.is_cancelled()
    }

    fn progress(&self, done: f64) {
        if self.part > 0.0 {
            self.observer.progress((self.from + self.part * done).min(1.0));
        }
    }
}

/// What a pursuit has done of a batch, for its observer.
pub(crate) struct Work<'a> {
    observer: Option<&'a dyn Observer>,
    /// Signals of the batch.
    count: usize,
    /// Sum over signals of the part that is done.
    done: Mutex<f64>,
}

impl<'a> Work<'a> {
    pub fn new(observer: Option<&'a dyn Observer>, count: usize) -> Self {
        Self { observer, count, done: Mutex::new(0.0) }
    }

    /// Whether the observer wants the pursuit to end.
    pub fn is_cancelled(&self) -> bool {
        self.observer.is_some_and(Observer::is_cancelled)
    }

    /// [`Self::is_cancelled`] as an error.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the observer wants the pursuit to end.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(interrupted()) } else { Ok(()) }
    }

    /// One of the signals has come so much further, in parts of its whole work.
    pub fn advance(&self, part: f64) {
        let Some(observer) = self.observer.filter(|_| part > 0.0) else { return };
        // Nothing that is done under the lock panics.
        let Ok(mut done) = self.done.lock() else { return };
        *done += part;
        observer.progress((*done / self.count.max(1) as f64).min(1.0));
    }
}

/// What a pursuit that was ended returns.
pub(super) fn interrupted() -> Error {
    Error::Interrupted("the pursuit was ended before it was done".into())
}

/// How far a signal has come on the way to a relative duality gap. Gaps fall by factors.
#[derive(Debug, Clone, Default)]
pub(super) struct Closing {
    first: Option<f64>,
    told: f64,
}

impl Closing {
    /// By how much further it is now that the gap is this one.
    pub fn to(&mut self, relative_gap: f64, wanted: f64) -> f64 {
        let first = *self.first.get_or_insert(relative_gap);
        let done = (first / relative_gap).ln() / (first / wanted).ln();
        self.reach(if done.is_finite() { done.min(0.99) } else { 0.0 })
    }

    /// What is left when it is finished.
    pub fn finish(&mut self) -> f64 {
        self.reach(1.0)
    }

    fn reach(&mut self, done: f64) -> f64 {
        let further = (done - self.told).max(0.0);
        self.told += further;
        further
    }
}
