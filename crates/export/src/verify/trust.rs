//! The keys and checkpoints that the verifier trusts.

use ledger::checkpoint::{Checkpoint, CheckpointError};
use ledger::merkle::Hash;
use ledger::note::{Algorithm, Note, NoteError, VerifierKey};
use std::collections::BTreeMap;
use thiserror::Error;

/// A checkpoint that the verifier kept from an earlier verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The root in the checkpoint.
    pub root: Hash,
    /// The origin in the checkpoint.
    pub origin: String,
    /// The source of the checkpoint, for people.
    pub from: String,
}

/// The keys, checkpoints and origin that the verifier trusts, because they do not come from the
/// export.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Public keys of the log. A signature by any of these keys counts, so the list can contain the
    /// keys before and after a change of the log's key.
    pub keys: Vec<VerifierKey>,
    /// The kept checkpoints, by tree size.
    pub known: BTreeMap<u64, Known>,
    /// An origin that the log has or had. The value is None if the verifier knows no origin.
    pub origin: Option<String>,
    /// Whether the export can be older than the kept checkpoints. If `older` is true, an export can
    /// end before a kept checkpoint without a fault.
    pub older: bool,
}

/// The reasons why the verifier cannot use a kept checkpoint or a key.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The text is not a checkpoint, or one of its signatures is bad.
    #[error("{from}: {cause}")]
    Checkpoint {
        /// Source of the checkpoint.
        from: String,
        /// The reason why the checkpoint is refused.
        cause: CheckpointError,
    },
    /// Two kept checkpoints contradict each other.
    #[error(
        "{from} and {other} are two checkpoints of one tree size with different roots: \
         the log has forked"
    )]
    Contradiction {
        /// Source of the first checkpoint.
        from: String,
        /// Source of the second checkpoint.
        other: String,
    },
    /// The key is a witness's key and not a log's key.
    #[error("{0} is a witness's key; the log's is wanted")]
    WitnessKey(String),
}

impl Trust {
    /// Adds a public key of the log.
    ///
    /// # Errors
    /// Fails if `key` is the key of a witness.
    pub fn trust_key(&mut self, key: VerifierKey) -> Result<(), TrustError> {
        if key.algorithm() != Algorithm::Ed25519 {
            return Err(TrustError::WitnessKey(key.to_string()));
        }
        self.keys.push(key);
        Ok(())
    }

    /// Adds a kept checkpoint. If the note has a signature by a known key, the signature must be
    /// good. Each of the `witnesses` must have cosigned the checkpoint.
    ///
    /// # Errors
    /// Fails if the checkpoint is malformed, lacks a required signature, or contradicts a
    /// checkpoint that was added before.
    pub fn know(
        &mut self,
        note: &[u8],
        from: &str,
        witnesses: &[VerifierKey],
    ) -> Result<Checkpoint, TrustError> {
        let error =
            |cause: CheckpointError| TrustError::Checkpoint { from: from.to_owned(), cause };
        let note = Note::parse_or_unsigned(note).map_err(|cause| error(cause.into()))?;
        match note.verify(&self.keys) {
            Ok(_) | Err(NoteError::NoKnownSignature) => {}
            Err(cause) => return Err(error(cause.into())),
        }
        if !witnesses.is_empty() {
            note.verify(witnesses).map_err(|cause| error(cause.into()))?;
        }
        let checkpoint = Checkpoint::parse(note.text()).map_err(error)?;
        // The origin of the kept checkpoint is not compared with the names of the keys, because the
        // log can have changed its origin after this checkpoint. The history shows each change of
        // the origin.
        let known = Known {
            root: *checkpoint.root(),
            origin: checkpoint.origin().to_owned(),
            from: from.to_owned(),
        };
        if let Some(other) = self.known.get(&checkpoint.size())
            && other.root != known.root
        {
            return Err(TrustError::Contradiction {
                from: from.to_owned(),
                other: other.from.clone(),
            });
        }
        self.known.insert(checkpoint.size(), known);
        Ok(checkpoint)
    }
}
