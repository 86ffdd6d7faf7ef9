//! An observer that ends a pursuit.

use mlcsc::pursuit::Observer;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Ends a pursuit when it has been asked so many times, and keeps what it was told.
#[derive(Debug)]
pub struct Patience {
    /// How often it may still be asked.
    pub left: AtomicUsize,
    /// The progress that it was told.
    pub told: Mutex<Vec<f64>>,
}

impl Patience {
    pub fn new(left: usize) -> Self {
        Self { left: AtomicUsize::new(left), told: Mutex::default() }
    }
}

impl Observer for Patience {
    fn is_cancelled(&self) -> bool {
        self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err()
    }

    fn progress(&self, done: f64) {
        self.told.lock().unwrap().push(done);
    }
}
