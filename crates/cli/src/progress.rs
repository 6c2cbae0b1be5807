//! What the user sees: results on standard output; progress, remarks and errors on standard error.

use crate::error::CommandError;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// How to talk.
#[derive(Debug, Clone, Copy)]
pub struct Console {
    /// For machines.
    pub json: bool,
    /// As little as possible.
    pub quiet: bool,
}

impl Console {
    /// A result: a line for people, or an object for machines.
    pub fn result(self, text: &str, value: &Value) -> Result<(), CommandError> {
        let mut out = io::stdout().lock();
        let written = if self.json { writeln!(out, "{value}") } else { writeln!(out, "{text}") };
        written.and_then(|()| out.flush()).map_err(CommandError::Output)
    }

    /// Something to know that is no result.
    pub fn remark(self, text: &str) {
        if !self.quiet && !self.json {
            // Nobody can be told if this fails.
            _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// An error.
    pub fn error(self, error: &CommandError) {
        let text = error.to_string();
        _ = writeln!(io::stderr(), "lead-audit: {text}");
        if self.json {
            _ = writeln!(io::stdout(), "{}", json!({ "error": text, "status": 2 }));
        }
    }

    /// A bar for long work, if somebody is looking. `length` is the whole of it, if it is known.
    pub fn bar(self, what: &'static str, length: Option<u64>, bytes: bool) -> ProgressBar {
        if self.quiet || self.json || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = length.map_or_else(ProgressBar::no_length, ProgressBar::new);
        let template = match (length, bytes) {
            (Some(_), true) => "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            (None, true) => "{msg} {spinner} {bytes} {bytes_per_sec}",
            (Some(_), false) => "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}",
            (None, false) => "{msg} {spinner} {human_pos} {per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }
}
