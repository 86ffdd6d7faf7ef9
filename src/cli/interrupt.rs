//! Ctrl-C (SIGTERM and SIGHUP too): the first one asks the command to stop cleanly, the second one ends the program at once.
//!
//! A signal that was ignored when the program started stays ignored: `nohup` keeps a program from ending with its terminal, and a
//! shell without job control keeps Ctrl-C from what it started in the background.

use crate::error::{Error, Result};
use signal_hook::{consts, flag};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Once};

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Signals that ask a program to end.
#[cfg(unix)]
const SIGNALS: [i32; 3] = [consts::SIGINT, consts::SIGTERM, consts::SIGHUP];
#[cfg(not(unix))]
const SIGNALS: [i32; 2] = [consts::SIGINT, consts::SIGTERM];

/// Exit code of a program that was interrupted.
pub const EXIT_CODE: u8 = 130;

/// From here on the first Ctrl-C is only noted, for [`interrupted`] to tell.
pub fn watch() {
    static WATCHING: Once = Once::new();
    WATCHING.call_once(|| {
        for signal in SIGNALS.into_iter().filter(|&signal| !is_ignored(signal)) {
            // In this order: the first signal does not meet its own note. Without a handler a signal ends the program at once, which
            // is no worse.
            let _ = flag::register_conditional_shutdown(signal, EXIT_CODE.into(), INTERRUPTED.clone());
            let _ = flag::register(signal, INTERRUPTED.clone());
        }
    });
}

/// Whether a signal is ignored, as whoever started the program wished.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action nothing is changed; the present one is written to where there is room for it, and read only if it
    // was written.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(not(unix))]
fn is_ignored(_: i32) -> bool {
    false
}

/// Whether Ctrl-C was pressed since [`watch`].
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// [`interrupted`] as an error, `state` being how things were left.
///
/// # Errors
/// [`Error::Interrupted`] if Ctrl-C was pressed.
pub fn check(state: &str) -> Result<()> {
    if interrupted() { Err(Error::Interrupted(state.into())) } else { Ok(()) }
}
