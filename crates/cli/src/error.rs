//! What can go wrong with a command.

use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a command ended.
#[derive(Debug, Error)]
pub enum CommandError {
    /// A file.
    #[error("{}: {cause}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A file that is not what it should be.
    #[error("{}: {cause}", .path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// A key on the command line or in a file.
    #[error("{from}: {cause}")]
    Key {
        /// Where it is from.
        from: String,
        /// What is wrong with it.
        cause: ledger::note::KeyError,
    },
    /// The database, or the way there. It never shows the connection string, which may have a
    /// password in it.
    #[error("database: {0}")]
    Database(String),
    /// A checkpoint that was kept.
    #[error(transparent)]
    Trust(#[from] export::verify::TrustError),
    /// Something that was asked for cannot be done.
    #[error("{0}")]
    Refused(String),
    /// Standard output.
    #[error("standard output: {0}")]
    Output(io::Error),
    /// Verification did not begin.
    #[error(transparent)]
    Verify(#[from] export::verify::VerifyError),
}

impl CommandError {
    /// Something with a file, for `map_err`.
    pub fn file(path: &Path) -> impl Fn(io::Error) -> Self {
        move |cause| CommandError::File { path: path.to_owned(), cause }
    }

    /// Something that is not what it should be, for `map_err`.
    pub fn content<E: ToString>(path: &Path) -> impl Fn(E) -> Self {
        move |cause| CommandError::Content { path: path.to_owned(), cause: cause.to_string() }
    }

    /// Whether trying again later may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, CommandError::Database(_))
    }
}

impl From<postgres::Error> for CommandError {
    fn from(error: postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            // Of a connection the cause is what helps: refused, no such file, certificate.
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
                text += ". docs/privileges.md says what a role needs that exports, verifies or witnesses."
            }
            "42P01" | "3F000" => text += ". Is lead_audit 0.2 or later installed in this database?",
            _ => {}
        }
        CommandError::Database(text)
    }
}
