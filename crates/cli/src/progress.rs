//! Prints results to standard output, and progress, remarks and errors to standard error.

use crate::error::CommandError;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// Returns whether a terminal can react to the character instead of showing it. For example, the
/// character moves the cursor, or reorders or hides text.
fn is_active(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
        )
}

/// Escapes the characters to which a terminal can react, so that text from a server or a file
/// cannot control the terminal.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => shown.push(character),
            active if is_active(active) => shown.extend(active.escape_default()),
            other => shown.push(other),
        }
    }
    shown
}

/// Returns the text on one line, so that quoted text cannot imitate a line of this program's
/// output.
pub fn on_one_line(text: &str) -> String {
    text.replace('\n', "\\n")
}

/// Returns the value as JSON. Characters to which a terminal can react are escaped. In JSON,
/// characters to which a terminal can react occur only inside of strings.
fn plain_json(value: &Value) -> String {
    let mut shown = String::new();
    for character in value.to_string().chars() {
        if is_active(character) {
            shown.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            shown.push(character);
        }
    }
    shown
}

/// The options that determine what the program prints.
#[derive(Debug, Clone, Copy)]
pub struct Console {
    /// Whether results are printed as JSON.
    pub json: bool,
    /// Whether the program prints only results and errors.
    pub quiet: bool,
}

impl Console {
    /// Prints a result: `text` on one line, or `value` as JSON.
    pub fn result(self, text: &str, value: &Value) -> Result<(), CommandError> {
        let mut out = io::stdout().lock();
        let written = if self.json {
            writeln!(out, "{}", plain_json(value))
        } else {
            writeln!(out, "{}", printable(text))
        };
        written.and_then(|()| out.flush()).map_err(CommandError::Output)
    }

    /// Prints a remark, which is not a result, on standard error.
    pub fn remark(self, text: &str) {
        if !self.quiet && !self.json {
            // A failure to write to standard error is ignored, because it cannot be reported.
            _ = writeln!(io::stderr(), "{}", printable(text));
        }
    }

    /// Prints an error.
    pub fn error(self, error: &CommandError) {
        let text = error.to_string();
        _ = writeln!(io::stderr(), "lead-audit: {}", printable(&on_one_line(&text)));
        if self.json {
            _ = writeln!(io::stdout(), "{}", plain_json(&json!({ "error": text, "status": 2 })));
        }
    }

    /// Returns a progress bar for a long task. The progress bar is visible only on a terminal.
    /// `length` is the total length of the task, if it is known.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_told_nothing_but_text() {
        let hostile = "a\u{1b}[2J\u{7}\r\u{9b}1m\u{202e}b\u{2066}\u{200b}é\n\tc";
        let expected = "a\\u{1b}[2J\\u{7}\\r\\u{9b}1m\\u{202e}b\\u{2066}\\u{200b}é\n\tc";
        assert_eq!(printable(hostile), expected);
        let value = json!({ "text": hostile });
        let shown = plain_json(&value);
        assert!(!shown.chars().any(is_active), "{shown}");
        assert_eq!(serde_json::from_str::<Value>(&shown).expect("it is still JSON"), value);
    }
}
