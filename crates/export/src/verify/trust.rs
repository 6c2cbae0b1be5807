//! The keys and checkpoints that the verifier trusts.

use ledger::checkpoint::{Checkpoint, CheckpointError};
use ledger::merkle::Hash;
use ledger::note::{Algorithm, Note, NoteError, VerifierKey};
use std::collections::BTreeMap;
use thiserror::Error;

/// A checkpoint kept from an earlier time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The root.
    pub root: Hash,
    /// The origin.
    pub origin: String,
    /// Its source, for people.
    pub from: String,
}

/// The verifier's knowledge from other sources. All of it is trusted.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Public keys of the log. One of them must have signed each checkpoint.
    pub keys: Vec<VerifierKey>,
    /// Kept checkpoints, by tree size.
    pub known: BTreeMap<u64, Known>,
    /// One of the log's origins, if known.
    pub origin: Option<String>,
    /// The export may be older than the kept checkpoints: then it is not a fault if the export ends
    /// before one of them.
    pub older: bool,
}

/// The reasons why a kept checkpoint or a key cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrustError {
    /// It is not a checkpoint, or its signatures are bad.
    #[error("{from}: {cause}")]
    Checkpoint {
        /// Source of the checkpoint.
        from: String,
        /// The error of the checkpoint.
        cause: CheckpointError,
    },
    /// Two kept checkpoints contradict each other.
    #[error(
        "{from} and {other} are two checkpoints of one tree size with different roots: \
         the log has forked"
    )]
    Contradiction {
        /// Source of one.
        from: String,
        /// Source of the other.
        other: String,
    },
    /// The key is a witness's instead of the log's.
    #[error("{0} is a witness's key; the log's is wanted")]
    WitnessKey(String),
}

impl Trust {
    /// Adds a public key of the log.
    ///
    /// # Errors
    /// Fails if it is a witness's key.
    pub fn trust_key(&mut self, key: VerifierKey) -> Result<(), TrustError> {
        if key.algorithm() != Algorithm::Ed25519 {
            return Err(TrustError::WitnessKey(key.to_string()));
        }
        self.keys.push(key);
        Ok(())
    }

    /// Adds a kept checkpoint. Signatures by known keys must be good. If `witnesses` are given,
    /// they must have cosigned it.
    ///
    /// # Errors
    /// Fails if it is malformed, lacks a required signature, or contradicts another one.
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
        // The log may have changed its origin in between: its history shows whether it did.
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
