//! Progress on stderr: a bar with rate and time left on a terminal, plain lines elsewhere.

use super::{interrupt, output};
use crate::pursuit::Observer;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::fmt::Write;
use std::io::{self, IsTerminal};

/// Progress of something that is counted.
///
/// On a terminal it is a bar, elsewhere nothing but the lines given to [`Self::line`]. It vanishes when it is dropped.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// For `total` of `unit` (plural), with a verb in front: `Progress::new("coding", "signals", 1000)`.
    pub fn new(verb: &str, unit: &str, total: u64) -> Self {
        let terminal = io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        // The pieces of text are the program's own, so the template is valid; if it weren't, the default bar would do.
        let template =
            format!("{verb} [{{bar:32}}] {{human_pos}}/{{human_len}} {unit} · {{rate}}/s · {{eta}} left  {{msg}}");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            let rate = |state: &ProgressState, text: &mut dyn Write| {
                // A bar without its rate is still a bar.
                let _ = text.write_str(&output::number(state.per_sec()));
            };
            bar.set_style(style.progress_chars("█▌ ").with_key("rate", rate));
        }
        Self { bar }
    }

    /// Counts `count` more.
    pub fn advance(&self, count: u64) {
        self.bar.inc(count);
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
