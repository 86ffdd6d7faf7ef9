//! Progress on stderr: a bar with rate and time left on a terminal, a plain line now and then elsewhere.

use super::{interrupt, output};
use crate::pursuit::Observer;
use crate::text::grouped;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two drawings of a bar that nothing is counted for.
const TICK: Duration = Duration::from_millis(250);

/// Units that are parts of a whole.
pub const PER_CENT: &str = "%";
pub const PER_PICTURE: &str = "parts of 1000 a picture";

/// Time between two plain lines, and before the first: what is done by then needs none.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// Progress of something that is counted.
///
/// On a terminal it is a bar, there from the beginning and with the time that has passed, so that something is seen of a single long
/// signal too; elsewhere there are the lines given to [`Self::line`], and where these are a minute apart, lines on what the bar would show. It
/// vanishes when it is dropped: before another one is made.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    /// What is done, and what is counted.
    names: [String; 2],
    lines: Option<Mutex<Lines>>,
}

/// What plain lines need to know.
#[derive(Debug)]
struct Lines {
    /// When counting began, and at what number.
    begun: (Instant, u64),
    last: Instant,
    message: String,
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
        let now = Instant::now();
        let lines = Lines { begun: (now, 0), last: now, message: String::new() };
        let lines = (!terminal && !output::is_silent()).then(|| Mutex::new(lines));
        Self { bar, names: [verb, unit].map(str::to_owned), lines }
    }

    /// Counts `count` more.
    pub fn advance(&self, count: u64) {
        self.bar.inc(count);
        self.tell();
    }

    /// Says how many are counted by now.
    pub fn set(&self, position: u64) {
        self.bar.set_position(position);
        self.tell();
    }

    /// Where counting goes on, as after resuming: rate and time left are computed from here.
    pub fn start_at(&self, position: u64) {
        self.bar.set_position(position);
        self.bar.reset_eta();
        self.with_lines(|lines| lines.begun = (Instant::now(), position));
    }

    /// Whether there is a bar to be seen.
    pub fn is_visible(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Shows a short text behind the bar, or in the next plain line.
    pub fn message(&self, text: impl Into<String>) {
        let text = text.into();
        self.with_lines(|lines| lines.message.clone_from(&text));
        self.bar.set_message(text);
        self.tell();
    }

    /// Prints a line to stderr, above the bar where there is one.
    pub fn line(&self, text: &str) {
        self.with_lines(|lines| lines.last = Instant::now());
        self.bar.suspend(|| output::complain(text));
    }

    fn with_lines<T>(&self, change: impl FnOnce(&mut Lines) -> T) -> Option<T> {
        self.lines.as_ref().map(|lines| change(&mut lines.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Prints a plain line, if it is time for one.
    fn tell(&self) {
        let text = self.with_lines(|lines| {
            let now = Instant::now();
            (now - lines.last > LINE_EVERY).then(|| {
                lines.last = now;
                let [verb, unit] = &self.names;
                let (position, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
                plain(
                    verb,
                    unit,
                    [position, total],
                    position.saturating_sub(lines.begun.1),
                    now - lines.begun.0,
                    &lines.message,
                )
            })
        });
        if let Some(text) = text.flatten() {
            output::complain(&text);
        }
    }

    /// Removes the bar.
    pub fn finish(self) {}
}

/// Ctrl-C ends what is being coded, and a terminal is shown how far that is.
impl Observer for Progress {
    fn is_cancelled(&self) -> bool {
        // Not every pursuit can say how far it is.
        self.tell();
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

/// A line on what is at `position` of `total`, of which `done` took so long.
fn plain(verb: &str, unit: &str, [position, total]: [u64; 2], done: u64, elapsed: Duration, message: &str) -> String {
    let elapsed_text = HumanDuration(Duration::from_secs(elapsed.as_secs()));
    let is_share = [PER_CENT, PER_PICTURE].contains(&unit);
    let mut text = match is_share {
        true => format!("{verb}: {:.0}% after {elapsed_text:#}", 100.0 * position as f64 / total.max(1) as f64),
        false => format!("{verb}: {} of {} {unit} after {elapsed_text:#}", grouped(position), grouped(total)),
    };
    if done > 0 {
        let rate = done as f64 / elapsed.as_secs_f64();
        let left = Duration::from_secs_f64((total.saturating_sub(position) as f64 / rate).min(1e9));
        let pace = if is_share { String::new() } else { format!(", {}/s", output::number(rate)) };
        let _ = write!(text, "{pace}, {:#} left", HumanDuration(left));
    }
    if !message.is_empty() {
        let _ = write!(text, "; {message}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_say_what_a_bar_would() {
        let minute = Duration::from_secs(60);
        let line = |position, done, message: &str| plain("coding", "signals", [position, 5000], done, minute, message);
        assert_eq!(line(0, 0, "batch at 40%"), "coding: 0 of 5,000 signals after 60s; batch at 40%");
        let share = plain("restoring", PER_PICTURE, [500, 2000], 500, minute, "");
        assert_eq!(share, "restoring: 25% after 60s, 3m left");
        assert_eq!(line(2000, 1500, ""), "coding: 2,000 of 5,000 signals after 60s, 25/s, 2m left");
    }
}
