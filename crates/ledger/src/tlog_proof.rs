//! Implements proofs that show to a third party that one entry is in the log (C2SP tlog-proof). The
//! third party needs the proof, the entry and the public key of the log. The proof shows that the
//! entry is in the tree whose checkpoint the log signed.

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::decimal::parse_u64;
use crate::encoding::{base64, from_base64, hash_from_base64};
use crate::merkle::{Hash, ProofError, hash_text, verify_inclusion};
use crate::note::{Note, NoteError, Verified, VerifierKey};
use std::fmt;
use thiserror::Error;

/// The first line of a proof.
const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// Maximum size of a proof in bytes. The checkpoint in a proof can have `MAX_NOTE_BYTES` bytes, and
/// the lines before the checkpoint can also have `MAX_NOTE_BYTES` bytes.
pub const MAX_PROOF_BYTES: usize = 2 * crate::note::MAX_NOTE_BYTES;

/// Maximum number of hashes in a proof, which is the height of a tree of 2⁶⁴ leaves.
const MAX_HASHES: usize = 64;

/// An inclusion proof together with a checkpoint that contains the root of the tree. A proof can be
/// trusted only after [`verify`](Self::verify) has accepted the proof. The extra data of a proof
/// can never be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlogProof {
    /// Extra data, which no hash and no signature protects. The extra data are never empty.
    pub extra: Option<Vec<u8>>,
    /// Index of the leaf, counted from 0.
    pub index: u64,
    /// The hashes of the inclusion proof. The first hash is that of the leaf's sibling.
    pub hashes: Vec<Hash>,
    /// The checkpoint as the log issued it. The checkpoint of a log that does not sign has no
    /// signatures, and proves nothing by itself.
    pub checkpoint: Note,
}

/// The reasons why a proof is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TlogProofError {
    /// The proof exceeds the size limit.
    #[error("the proof is {0} bytes long: more than {MAX_PROOF_BYTES}")]
    TooLong(usize),
    /// The proof is not UTF-8.
    #[error("the proof is not UTF-8")]
    NotUtf8,
    /// The first line of the proof is not the header.
    #[error("the first line is not {HEADER:?}")]
    Header,
    /// The extra data are empty, or not base64.
    #[error("the extra data of the proof are not base64, or empty")]
    Extra,
    /// The line with the index is missing, or the index is not a decimal number without sign and
    /// without leading zeros.
    #[error("the proof has no line \"index NUMBER\" where it should be")]
    Index,
    /// A line between the index and the checkpoint is not a hash.
    #[error("hash {0} of the proof is not 32 bytes in base64")]
    Hash(usize),
    /// The proof has more hashes than a tree of 2⁶⁴ leaves has levels.
    #[error("the proof has more than {MAX_HASHES} hashes")]
    TooManyHashes,
    /// The proof has no blank line that is followed by a checkpoint.
    #[error("the proof has no checkpoint")]
    NoCheckpoint,
    /// The checkpoint is malformed, or a signature is invalid.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The entry is not in the tree of the checkpoint.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

impl From<NoteError> for TlogProofError {
    fn from(error: NoteError) -> Self {
        TlogProofError::Checkpoint(error.into())
    }
}

impl TlogProof {
    /// Parses a proof (C2SP tlog-proof, "Format"). If the parsed proof is written with
    /// [`Display`](fmt::Display), the result is equal to `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, TlogProofError> {
        if bytes.len() > MAX_PROOF_BYTES {
            return Err(TlogProofError::TooLong(bytes.len()));
        }
        let proof = std::str::from_utf8(bytes).map_err(|_| TlogProofError::NotUtf8)?;
        let (line, mut rest) = proof.split_once('\n').ok_or(TlogProofError::Header)?;
        if line != HEADER {
            return Err(TlogProofError::Header);
        }
        let mut next = || {
            let (line, after) = rest.split_once('\n')?;
            rest = after;
            Some(line)
        };
        let mut line = next().ok_or(TlogProofError::Index)?;
        let mut extra = None;
        if let Some(encoded) = line.strip_prefix("extra ") {
            extra = Some(
                from_base64(encoded)
                    .filter(|data| !data.is_empty())
                    .ok_or(TlogProofError::Extra)?,
            );
            line = next().ok_or(TlogProofError::Index)?;
        }
        let index = line.strip_prefix("index ").and_then(parse_u64).ok_or(TlogProofError::Index)?;
        let mut hashes = Vec::new();
        loop {
            let line = next().ok_or(TlogProofError::NoCheckpoint)?;
            if line.is_empty() {
                break;
            }
            if hashes.len() == MAX_HASHES {
                return Err(TlogProofError::TooManyHashes);
            }
            hashes.push(hash_from_base64(line).ok_or(TlogProofError::Hash(hashes.len() + 1))?);
        }
        if rest.is_empty() {
            return Err(TlogProofError::NoCheckpoint);
        }
        let checkpoint = Note::parse_or_unsigned(rest.as_bytes())?;
        Checkpoint::parse(checkpoint.text())?;
        Ok(TlogProof { extra, index, hashes, checkpoint })
    }

    /// Verifies that the entry with the leaf hash `leaf_hash` is in the tree of the checkpoint.
    /// Also verifies that the key `log` has signed the checkpoint. Each cosignature by one of
    /// `witnesses` must be valid. The caller decides how many cosignatures are required.
    pub fn verify<'k>(
        &self,
        leaf_hash: &Hash,
        log: &VerifierKey,
        witnesses: &'k [VerifierKey],
    ) -> Result<(Checkpoint, Vec<Verified<'k>>), TlogProofError> {
        let (checkpoint, cosigned) = Checkpoint::open(&self.checkpoint, log, witnesses)?;
        self.verify_inclusion(leaf_hash, &checkpoint)?;
        Ok((checkpoint, cosigned))
    }

    /// Verifies only that the entry with the leaf hash `leaf_hash` is in the tree of the returned
    /// checkpoint. This function is for logs that do not sign. The caller must compare the returned
    /// checkpoint with a checkpoint from a trusted source.
    pub fn verify_unsigned(&self, leaf_hash: &Hash) -> Result<Checkpoint, TlogProofError> {
        let checkpoint = Checkpoint::parse(self.checkpoint.text())?;
        self.verify_inclusion(leaf_hash, &checkpoint)?;
        Ok(checkpoint)
    }

    fn verify_inclusion(
        &self,
        leaf_hash: &Hash,
        checkpoint: &Checkpoint,
    ) -> Result<(), ProofError> {
        verify_inclusion(leaf_hash, self.index, checkpoint.size(), &self.hashes, checkpoint.root())
    }
}

/// Writes the text of the proof.
impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", base64(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{}", hash_text(hash)))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

#[cfg(test)]
mod tests;
