//! Implements checkpoints (C2SP tlog-checkpoint). A checkpoint is a statement of a log about its
//! tree, in the form of a signed note.

use crate::decimal::parse_u64;
use crate::encoding::hash_from_base64;
use crate::merkle::{Hash, hash_text};
use crate::note::{Note, NoteError, SigningKey, Verified, VerifierKey};
use std::fmt;
use thiserror::Error;

/// The origin, the size and the root of a tree at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    size: u64,
    root: Hash,
    /// The extension lines (C2SP tlog-checkpoint), each with its newline.
    extensions: String,
}

/// The reasons why a checkpoint is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The note is malformed, or a signature is invalid.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text has fewer than three lines, or does not end in a newline.
    #[error("a checkpoint has at least three lines, each ending in a newline")]
    Lines,
    /// The origin is empty or has a control character.
    #[error("the origin of the checkpoint is empty or has a control character")]
    Origin,
    /// The tree size is not a decimal number without sign and without leading zeros.
    #[error("the tree size of the checkpoint is not a number, or not written as one")]
    Size,
    /// The root is not 32 bytes in base64.
    #[error("the root of the checkpoint is not 32 bytes in base64")]
    Root,
    /// An extension line is empty or has a control character.
    #[error("an extension line of the checkpoint is empty or has a control character")]
    Extension,
    /// The origin in the checkpoint differs from the name of the log's key.
    #[error("the checkpoint is of {found:?}, not of {expected:?}")]
    OtherOrigin {
        /// The name of the log's key.
        expected: String,
        /// The origin in the checkpoint.
        found: String,
    },
    /// The log has not signed the checkpoint. A cosignature of a witness does not replace the
    /// signature of the log.
    #[error("the checkpoint is not signed by {0}")]
    NotSignedBy(String),
}

fn is_line(line: &str) -> bool {
    !line.is_empty() && !line.chars().any(|character| character < ' ')
}

impl Checkpoint {
    /// Returns a checkpoint without extension lines. `origin` must be one line that is not empty.
    pub fn new(origin: impl Into<String>, size: u64, root: Hash) -> Result<Self, CheckpointError> {
        let origin = origin.into();
        if is_line(&origin) {
            Ok(Checkpoint { origin, size, root, extensions: String::new() })
        } else {
            Err(CheckpointError::Origin)
        }
    }

    /// Parses the text of a checkpoint without its signatures (C2SP tlog-checkpoint, "Note text").
    /// [`Display`](fmt::Display) writes a parsed checkpoint back byte for byte.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut rest = text;
        let mut next = || {
            let (line, after) = rest.split_once('\n').ok_or(CheckpointError::Lines)?;
            rest = after;
            Ok::<_, CheckpointError>(line)
        };
        let (origin, size, root) = (next()?, next()?, next()?);
        let size = parse_u64(size).ok_or(CheckpointError::Size)?;
        let root = hash_from_base64(root).ok_or(CheckpointError::Root)?;
        let mut checkpoint = Checkpoint::new(origin, size, root)?;
        if !rest.is_empty() {
            let lines = rest.strip_suffix('\n').ok_or(CheckpointError::Lines)?;
            if !lines.split('\n').all(is_line) {
                return Err(CheckpointError::Extension);
            }
            checkpoint.extensions = rest.to_owned();
        }
        Ok(checkpoint)
    }

    /// Parses and verifies a signed checkpoint. The key `log` must have signed the note, and the
    /// origin of the checkpoint must be the name of this key. Each cosignature by one of
    /// `witnesses` must be valid. Returns the checkpoint and the cosignatures by `witnesses`.
    pub fn open<'k>(
        note: &Note,
        log: &VerifierKey,
        witnesses: &'k [VerifierKey],
    ) -> Result<(Self, Vec<Verified<'k>>), CheckpointError> {
        // An invalid signature with the name and id of `log` or of one of `witnesses` makes this
        // function fail.
        match note.verify(std::slice::from_ref(log)) {
            Err(NoteError::NoKnownSignature) => {
                return Err(CheckpointError::NotSignedBy(log.name().to_owned()));
            }
            other => other?,
        };
        let cosigned = match note.verify(witnesses) {
            Err(NoteError::NoKnownSignature) => Vec::new(),
            other => other?,
        };
        let checkpoint = Checkpoint::parse(note.text())?;
        if checkpoint.origin != log.name() {
            return Err(CheckpointError::OtherOrigin {
                expected: log.name().to_owned(),
                found: checkpoint.origin,
            });
        }
        Ok((checkpoint, cosigned))
    }

    /// Returns a note with this checkpoint and the log's signature. The origin of the checkpoint
    /// must be the name of `key`.
    pub fn sign(&self, key: &SigningKey) -> Result<Note, CheckpointError> {
        let name = key.verifier().name();
        if self.origin != name {
            return Err(CheckpointError::OtherOrigin {
                expected: name.to_owned(),
                found: self.origin.clone(),
            });
        }
        let mut note = Note::new(self.to_string())?;
        note.add(key.sign(note.text()))?;
        Ok(note)
    }

    /// Returns the origin of the log.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the number of leaves in the tree.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the root of the tree.
    pub fn root(&self) -> &Hash {
        &self.root
    }

    /// Returns the extension lines: all lines after the third line. This crate does not interpret
    /// extension lines.
    pub fn extensions(&self) -> impl Iterator<Item = &str> {
        self.extensions.split_terminator('\n')
    }
}

/// Writes the text of the checkpoint, which is the signed part of the note.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}\n{}\n{}", self.origin, self.size, hash_text(&self.root), self.extensions)
    }
}

#[cfg(test)]
mod tests;
