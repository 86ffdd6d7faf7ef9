//! Ctrl-C (and SIGTERM): the first one asks the command to stop cleanly, the second one ends the program at once.

use crate::error::{Error, Result};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From here on the first Ctrl-C is only noted, for [`interrupted`] to tell.
pub fn watch() {
    static WATCHING: Once = Once::new();
    WATCHING.call_once(|| {
        // Without a handler Ctrl-C ends the program at once, which is no worse.
        let _ = ctrlc::set_handler(|| {
            if INTERRUPTED.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
        });
    });
}

/// Whether Ctrl-C was pressed since [`watch`].
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// An interruption is named by how things were left, whoever noticed it.
pub fn named<T>(result: Result<T>, state: &str) -> Result<T> {
    result.map_err(|error| match error {
        Error::Interrupted(_) => Error::Interrupted(state.into()),
        other => other,
    })
}

/// [`interrupted`] as an error, `state` being how things were left.
///
/// # Errors
/// [`Error::Interrupted`] if Ctrl-C was pressed.
pub fn check(state: &str) -> Result<()> {
    if interrupted() { Err(Error::Interrupted(state.into())) } else { Ok(()) }
}
