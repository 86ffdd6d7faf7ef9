//! Progress on stderr: a bar with rate and time left on a terminal, plain lines elsewhere.

use super::{interrupt, output};
use crate::pursuit::Observer;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::time::Duration;

/// Time between two drawings of a bar that nothing is counted for.
const TICK: Duration = Duration::from_millis(250);

/// Progress of something that is counted.
///
/// On a terminal it is a bar, there from the beginning and with the time that has passed, so that something is seen of a single long
/// signal too; elsewhere nothing but the lines given to [`Self::line`]. It vanishes when it is dropped: before another one is made.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// For `total` of `unit` (plural), with a verb in front: `Progress::new("coding", "signals", 1000)`.
    pub fn new(verb: &str, unit: &str, total: u64) -> Self {
        let terminal = io::stderr().is_terminal() && !output::is_silent();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        // The pieces of text are the program's own, so the template is valid; if it weren't, the default bar would do.
        let template = format!("{verb} [{{bar:32}}] {{human_pos}}/{{human_len}} {unit} · {{elapsed}}{{pace}}  {{msg}}");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            let pace = |state: &ProgressState, text: &mut dyn Write| {
                // Before anything is counted nothing is known. A bar without its pace is still a bar.
                if state.pos() > 0 && state.per_sec() > 0.0 {
                    let (rate, left) = (output::number(state.per_sec()), HumanDuration(state.eta()));
                    let _ = write!(text, " · {rate}/s · {left:#} left");
                }
            };
            bar.set_style(style.progress_chars("█▌ ").with_key("pace", pace));
        }
        if terminal {
            bar.tick();
            bar.enable_steady_tick(TICK);
        }
        Self { bar }
    }

    /// Counts `count` more.
    pub fn advance(&self, count: u64) {
        self.bar.inc(count);
    }

    /// Says how many are counted by now.
    pub fn set(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// Where counting goes on, as after resuming: rate and time left are computed from here.
    pub fn start_at(&self, position: u64) {
        self.bar.set_position(position);
        self.bar.reset_eta();
    }

    /// Whether there is a bar to be seen.
    pub fn is_visible(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Shows a short text behind the bar (on a terminal only).
    pub fn message(&self, text: impl Into<String>) {
        self.bar.set_message(text.into());
    }

    /// Prints a line to stderr, above the bar where there is one.
    pub fn line(&self, text: &str) {
        self.bar.suspend(|| output::complain(text));
    }

    /// Removes the bar.
    pub fn finish(self) {}
}

/// Ctrl-C ends what is being coded, and a terminal is shown how far that is.
impl Observer for Progress {
    fn is_cancelled(&self) -> bool {
        interrupt::interrupted()
    }

    fn progress(&self, done: f64) {
        // A batch that is finished is counted.
        self.message(if done < 1.0 { format!("batch at {:.0}%", 100.0 * done) } else { String::new() });
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
