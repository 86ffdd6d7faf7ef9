//! Ctrl-C (SIGTERM and SIGHUP too): the first one asks a command that takes long to stop cleanly, the second one ends the program at
//! once. Other commands end at the first. No half-written file is left behind either way.
//!
//! A signal that was ignored when the program started stays ignored: `nohup` keeps a program from ending with its terminal, and a
//! shell without job control keeps Ctrl-C from what it started in the background.

use super::output;
use crate::error::{Error, Result};
use crate::files;
use crate::pursuit::Observer;
use std::io::IsTerminal;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

static WATCHED: AtomicBool = AtomicBool::new(false);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Exit code of a program that was interrupted.
pub const EXIT_CODE: u8 = 130;

/// From here on Ctrl-C takes files that are being written with it.
pub fn handle() {
    static HANDLED: Once = Once::new();
    HANDLED.call_once(|| {
        let ignored = Ignored::now();
        // Without a handler Ctrl-C ends the program at once, which is no worse.
        let _ = ctrlc::set_handler(|| {
            if !WATCHED.load(Ordering::SeqCst) || INTERRUPTED.swap(true, Ordering::SeqCst) {
                files::abandon();
                std::process::exit(EXIT_CODE.into());
            }
            if std::io::stderr().is_terminal() {
                output::complain("stopping; a second Ctrl-C ends the program at once");
            }
        });
        ignored.restore();
    });
}

/// From here on the first Ctrl-C is only noted, for [`interrupted`] to tell.
pub fn watch() {
    handle();
    WATCHED.store(true, Ordering::SeqCst);
}

/// The signals that are ignored, as whoever started the program wished. The handler of all is set for them too.
#[cfg(unix)]
struct Ignored(Vec<libc::c_int>);

#[cfg(unix)]
impl Ignored {
    fn now() -> Self {
        let signals = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];
        Self(signals.into_iter().filter(|&signal| is_ignored(signal)).collect())
    }

    fn restore(self) {
        for signal in self.0 {
            // SAFETY: no function is given that could run at a bad moment.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
    }
}

#[cfg(unix)]
fn is_ignored(signal: libc::c_int) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action nothing is changed; the present one is written to where there is room for it, and read only if it
    // was written.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// Nothing like that elsewhere.
#[cfg(not(unix))]
struct Ignored;

#[cfg(not(unix))]
impl Ignored {
    fn now() -> Self {
        Self
    }

    fn restore(self) {}
}

/// Whether Ctrl-C was pressed since [`watch`].
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Ctrl-C ends a pursuit whose progress is not shown.
#[derive(Debug)]
pub struct Unseen;

impl Observer for Unseen {
    fn is_cancelled(&self) -> bool {
        interrupted()
    }
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
