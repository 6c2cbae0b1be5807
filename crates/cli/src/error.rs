//! Defines the errors of the commands.

use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The reasons why a command failed.
#[derive(Debug, Error)]
pub enum CommandError {
    /// A file could not be read or written.
    #[error("{}: {cause}", .path.display())]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The error of the system call.
        cause: io::Error,
    },
    /// A file has invalid content.
    #[error("{}: {cause}", .path.display())]
    Content {
        /// The path of the file.
        path: PathBuf,
        /// The reason why the content is invalid.
        cause: String,
    },
    /// A key on the command line or in a file is invalid.
    #[error("{from}: {cause}")]
    Key {
        /// The source of the key: the command line or a file.
        from: String,
        cause: ledger::note::KeyError,
    },
    /// The database failed, or the connection to the database failed. The text never contains the
    /// connection string, because a connection string can contain a password.
    #[error("database: {0}")]
    Database(String),
    /// A kept checkpoint is invalid.
    #[error(transparent)]
    Trust(#[from] export::verify::TrustError),
    /// The command cannot do what the user requested.
    #[error("{0}")]
    Refused(String),
    /// The command could not write to standard output.
    #[error("standard output: {0}")]
    Output(io::Error),
    /// Verification could not begin.
    #[error(transparent)]
    Verify(#[from] export::verify::VerifyError),
}

impl CommandError {
    /// Returns a function for `map_err` that makes errors about this file.
    pub fn file(path: &Path) -> impl Fn(io::Error) -> Self {
        move |cause| CommandError::File { path: path.to_owned(), cause }
    }

    /// Returns a function for `map_err` that makes errors about the content of this file.
    pub fn content<E: ToString>(path: &Path) -> impl Fn(E) -> Self {
        move |cause| CommandError::Content { path: path.to_owned(), cause: cause.to_string() }
    }

    /// Returns whether the command can succeed if it is tried again.
    pub fn is_transient(&self) -> bool {
        matches!(self, CommandError::Database(_))
    }
}

impl From<postgres::Error> for CommandError {
    fn from(error: postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            // If a connection fails, the source of the error has the useful text, for example about
            // a refused connection, a missing file or a bad certificate.
            let cause = std::error::Error::source(&error)
                .map(|cause| format!(": {cause}"))
                .unwrap_or_default();
            let text = error.to_string();
            return CommandError::Database(if text.ends_with(&cause) {
                text
            } else {
                text + &cause
            });
        };
        let mut text = format!("{} (SQLSTATE {})", db.message(), db.code().code());
        if let Some(detail) = db.detail() {
            text += &format!(". {detail}");
        }
        match db.code().code() {
            "42501" => {
                text += ". docs/privileges.md says what a role needs that exports, verifies or \
                         witnesses."
            }
            "42P01" | "3F000" => text += ". Is lead_audit 0.2 or later installed in this database?",
            _ => {}
        }
        CommandError::Database(text)
    }
}
