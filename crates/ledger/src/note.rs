//! Implements signed notes (C2SP signed-note v1.0.0). Keys have the text form of Go's
//! `golang.org/x/mod/sumdb/note`.
//!
//! A [`Note`] is a text followed by signatures. Parsing a note checks its form, but not its
//! signatures. The text of a note can be trusted only after [`Note::verify`] has accepted the note.
//! The keys for [`Note::verify`] must not come from the source of the note.

mod key;

pub use key::{Algorithm, KeyError, SigningKey, VerifierKey, is_key_name};
pub(crate) use key::{KeyPair, SIGNATURE_BYTES};

use crate::encoding::{base64, from_base64};
use std::fmt;
use thiserror::Error;

/// Maximum size of a note in bytes. C2SP signed-note, "Format", lets each verifier choose its own
/// limit for the size of notes. `MAX_NOTE_BYTES` equals the limit of Go's library
/// `golang.org/x/mod/sumdb/note`.
pub const MAX_NOTE_BYTES: usize = 1_000_000;

/// Maximum number of signatures in a note. C2SP requires verifiers to accept at least 16
/// signatures. `MAX_SIGNATURES` equals the limit of Go's library `golang.org/x/mod/sumdb/note`.
pub const MAX_SIGNATURES: usize = 100;

/// A text with signatures that are not verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

/// One signature line of a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    name: String,
    key_id: u32,
    bytes: Vec<u8>,
}

/// One signature that has been verified and is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified<'k> {
    /// The key that made the signature.
    pub key: &'k VerifierKey,
    /// The time in a witness's cosignature, in seconds since 1970. The field is None for the
    /// signature of a log.
    pub time: Option<u64>,
}

/// The reasons why a note is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NoteError {
    /// The note exceeds the size limit.
    #[error("the note is {0} bytes long: more than {MAX_NOTE_BYTES}")]
    TooLong(usize),
    /// The note is not UTF-8.
    #[error("the note is not UTF-8")]
    NotUtf8,
    /// The note contains a control character other than the newline.
    #[error("the note has the control character U+{:04X}", u32::from(*.0))]
    ControlCharacter(char),
    /// The text of the note is empty, or does not end in a newline.
    #[error("the text of the note does not end in a newline")]
    NoNewline,
    /// The note has no blank line followed by signatures.
    #[error("the note is not signed")]
    NotSigned,
    /// A line below the last blank line of the note is not a signature line.
    #[error("line {0} below the text of the note is not a signature")]
    MalformedSignature(usize),
    /// The note has more signatures than allowed.
    #[error("the note has more than {MAX_SIGNATURES} signatures")]
    TooManySignatures,
    /// A signature has the name and id of a known key, but is not a valid signature by this key
    /// over the text.
    #[error("the signature by {0} is bad")]
    BadSignature(String),
    /// No signature of the note is by a known key.
    #[error("the note is not signed by a known key")]
    NoKnownSignature,
}

impl Note {
    /// Returns a note without signatures. The text must end in a newline. Except newlines, the text
    /// must not contain control characters below U+0020.
    pub fn new(text: impl Into<String>) -> Result<Self, NoteError> {
        let text = text.into();
        check_characters(&text)?;
        if text.ends_with('\n') {
            Ok(Note { text, signatures: Vec::new() })
        } else {
            Err(NoteError::NoNewline)
        }
    }

    /// Parses a signed note (C2SP signed-note, "Format"). The note must have at least one
    /// signature. The signatures can be by any keys, and are not verified.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > MAX_NOTE_BYTES {
            return Err(NoteError::TooLong(bytes.len()));
        }
        let note = std::str::from_utf8(bytes).map_err(|_| NoteError::NotUtf8)?;
        check_characters(note)?;
        if !note.ends_with('\n') {
            return Err(NoteError::NoNewline);
        }
        let blank = note.rfind("\n\n").ok_or(NoteError::NotSigned)?;
        let (text, lines) = (&note[..blank + 1], &note[blank + 2..]);
        if lines.is_empty() {
            return Err(NoteError::NotSigned);
        }
        let mut signatures = Vec::new();
        for (i, line) in lines.split_terminator('\n').enumerate() {
            if i == MAX_SIGNATURES {
                return Err(NoteError::TooManySignatures);
            }
            signatures.push(Signature::parse(line).ok_or(NoteError::MalformedSignature(i + 1))?);
        }
        Ok(Note { text: text.to_owned(), signatures })
    }

    /// Parses a signed note, or a text without signatures, such as the checkpoint of a log that
    /// does not sign. A text that contains a blank line must have the form of a signed note.
    pub fn parse_or_unsigned(bytes: &[u8]) -> Result<Self, NoteError> {
        match (Self::parse(bytes), std::str::from_utf8(bytes)) {
            (Err(NoteError::NotSigned), Ok(text)) if !text.ends_with("\n\n") => Self::new(text),
            (result, _) => result,
        }
    }

    /// Returns the text that the signatures cover. The text includes its last newline, but not the
    /// blank line before the signatures.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the signatures, in the order of the note.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Returns whether the note has any signature, valid or invalid.
    pub fn is_signed(&self) -> bool {
        !self.signatures.is_empty()
    }

    /// Appends a signature. The new signature replaces an earlier signature by the same key.
    pub fn add(&mut self, signature: Signature) -> Result<(), NoteError> {
        self.signatures
            .retain(|other| (&other.name, other.key_id) != (&signature.name, signature.key_id));
        if self.signatures.len() == MAX_SIGNATURES {
            return Err(NoteError::TooManySignatures);
        }
        self.signatures.push(signature);
        Ok(())
    }

    /// Verifies the signatures by `keys` (C2SP signed-note, "Signatures"). Ignores signatures by
    /// keys that are not in `keys`. Fails if a signature by one of `keys` is invalid, or if none of
    /// `keys` has signed the note. Returns the verified signatures in the order of the note. The
    /// caller decides which of `keys` must have signed the note.
    pub fn verify<'k>(&self, keys: &'k [VerifierKey]) -> Result<Vec<Verified<'k>>, NoteError> {
        let mut verified: Vec<Verified<'k>> = Vec::new();
        for signature in &self.signatures {
            let Some(key) = keys.iter().find(|key| key.made(signature)) else { continue };
            let good = key.verify(&self.text, &signature.bytes);
            let time = good.map_err(|_| NoteError::BadSignature(signature.name.clone()))?;
            if !verified.iter().any(|earlier| earlier.key == key) {
                verified.push(Verified { key, time });
            }
        }
        if verified.is_empty() { Err(NoteError::NoKnownSignature) } else { Ok(verified) }
    }
}

/// Writes the note as it is stored and transmitted. A note without signatures is written as its
/// text only.
impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if self.is_signed() {
            f.write_str("\n")?;
        }
        self.signatures.iter().try_for_each(|signature| writeln!(f, "{signature}"))
    }
}

impl Signature {
    pub(crate) fn new(name: &str, key_id: u32, bytes: Vec<u8>) -> Self {
        Signature { name: name.to_owned(), key_id, bytes }
    }

    /// Parses a signature line without its newline.
    fn parse(line: &str) -> Option<Self> {
        let (name, encoded) = line.strip_prefix("— ")?.split_once(' ')?;
        let bytes = from_base64(encoded)?;
        let (key_id, bytes) = bytes.split_first_chunk()?;
        // Like Go's library, this function refuses a signature that has no bytes after the key id.
        if !is_key_name(name) || bytes.is_empty() {
            return None;
        }
        Some(Signature::new(name, u32::from_be_bytes(*key_id), bytes.to_vec()))
    }

    /// Returns the name of the key.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the id of the key. The name and the id together identify the key.
    pub fn key_id(&self) -> u32 {
        self.key_id
    }

    /// Returns the bytes of the signature, as the algorithm of the key encodes them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Writes the signature line, without its newline.
impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&self.key_id.to_be_bytes()[..], &self.bytes].concat();
        write!(f, "— {} {}", self.name, base64(&bytes))
    }
}

/// Checks that a text contains no control character below U+0020 except newlines.
fn check_characters(text: &str) -> Result<(), NoteError> {
    match text.chars().find(|&character| character < ' ' && character != '\n') {
        Some(character) => Err(NoteError::ControlCharacter(character)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
