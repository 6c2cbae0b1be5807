//! Runs the `lead-audit` command as users do.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The program `lead-audit`.
pub struct LeadAudit {
    program: PathBuf,
}

/// The result of one run of the command.
#[derive(Debug)]
pub struct Answer {
    /// The exit status of the command.
    pub status: i32,
    /// The text that the command wrote to standard output.
    pub output: String,
    /// The text that the command wrote to standard error.
    pub errors: String,
}

impl LeadAudit {
    /// Returns the program `lead-audit` that scripts/test.sh has built.
    ///
    /// # Panics
    /// Panics if `LEAD_AUDIT_COMMAND` is not set.
    #[must_use]
    pub fn new() -> Self {
        let program = std::env::var_os("LEAD_AUDIT_COMMAND").map(PathBuf::from);
        LeadAudit {
            program: program.expect(
                "LEAD_AUDIT_COMMAND is the path of lead-audit: cargo build -p cli makes it",
            ),
        }
    }

    /// Returns a `Command` that runs `lead-audit` with the given arguments.
    #[must_use]
    pub fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs the command to its end.
    ///
    /// # Panics
    /// Panics if the command does not start, or is killed by a signal.
    pub fn run(&self, arguments: &[impl AsRef<OsStr>]) -> Answer {
        Answer::of(
            self.command(arguments)
                .output()
                .unwrap_or_else(|error| panic!("{}: {error}", self.program.display())),
        )
    }

    /// Runs the command to its end, and returns the text of its standard output. The command's
    /// exit status must be `status`.
    ///
    /// # Panics
    /// Panics if the command does not end with the exit status `status`.
    #[track_caller]
    pub fn expect(&self, status: i32, arguments: &[impl AsRef<OsStr>]) -> String {
        let answer = self.run(arguments);
        assert_eq!(answer.status, status, "{}\n{}", answer.output, answer.errors);
        answer.output
    }
}

impl Default for LeadAudit {
    fn default() -> Self {
        Self::new()
    }
}

impl Answer {
    /// Returns the result of a process that has ended.
    ///
    /// # Panics
    /// Panics if the process was killed by a signal, or its output is not UTF-8.
    #[must_use]
    pub fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("the output is UTF-8");
        let status = output.status.code().expect("it has ended by itself");
        Answer { status, output: text(output.stdout), errors: text(output.stderr) }
    }
}

/// Returns a path as text for a command line.
///
/// # Panics
/// Panics if the path is not UTF-8.
#[must_use]
pub fn text_of(path: &Path) -> &str {
    path.to_str().expect("paths here are UTF-8")
}
