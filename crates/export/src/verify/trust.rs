//! What whoever verifies knows from elsewhere.

use ledger::checkpoint::{Checkpoint, CheckpointError};
use ledger::merkle::Hash;
use ledger::note::{Algorithm, Note, NoteError, VerifierKey};
use std::collections::BTreeMap;
use thiserror::Error;

/// A checkpoint that was kept from earlier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The root.
    pub root: Hash,
    /// The origin.
    pub origin: String,
    /// Where it was kept, for people.
    pub from: String,
}

/// What whoever verifies knows from elsewhere. Everything in it is believed.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Public keys of the log: a checkpoint has to be signed by one of them.
    pub keys: Vec<VerifierKey>,
    /// Checkpoints that were kept from earlier, by tree size.
    pub known: BTreeMap<u64, Known>,
    /// One of the origins that the log has had, where it is known.
    pub origin: Option<String>,
    /// The export may be older than the checkpoints that were kept: that it ends before one of them
    /// is no fault.
    pub older: bool,
}

/// Why a checkpoint that was kept cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrustError {
    /// It is not a checkpoint, or its signatures are wrong.
    #[error("{from}: {cause}")]
    Checkpoint {
        /// Where it was kept.
        from: String,
        /// What is wrong with it.
        cause: CheckpointError,
    },
    /// Two checkpoints that were kept contradict each other.
    #[error(
        "{from} and {other} are two checkpoints of one tree size with different roots: the log has forked"
    )]
    Contradiction {
        /// Where one was kept.
        from: String,
        /// Where the other was kept.
        other: String,
    },
    /// A public key of a witness where the log's is wanted.
    #[error("{0} is a witness's key; the log's is wanted")]
    WitnessKey(String),
}

impl Trust {
    /// Adds a public key of the log.
    ///
    /// # Errors
    /// If it is a witness's.
    pub fn trust_key(&mut self, key: VerifierKey) -> Result<(), TrustError> {
        if key.algorithm() != Algorithm::Ed25519 {
            return Err(TrustError::WitnessKey(key.to_string()));
        }
        self.keys.push(key);
        Ok(())
    }

    /// Adds a checkpoint that was kept. A signature by a known key has to be good; `witnesses`, if
    /// there are any, have to have cosigned it.
    ///
    /// # Errors
    /// If it cannot be read, is not signed by whom it has to be, or contradicts another.
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
        // A log may have changed its origin in between: whether it has, its history says.
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
