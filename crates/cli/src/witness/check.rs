//! Checking one checkpoint against the one that is held.

use super::alarm::{Alarm, AlarmKind};
use super::state::State;
use crate::error::CommandError;
use ledger::checkpoint::Checkpoint;
use ledger::merkle::{Hash, hash_text, verify_consistency};
use ledger::note::{Note, NoteError, VerifierKey};

/// What a witness knows of the log.
pub struct Checker {
    pub keys: Vec<VerifierKey>,
    pub origin: Option<String>,
}

/// What checking comes to.
#[derive(Debug)]
pub enum Verdict {
    /// It extends what is held: proven, or only not contradicted.
    Extends { note: Note, checkpoint: Checkpoint, proven: bool },
    /// It does not.
    Alarm(Alarm),
}

/// A consistency proof, or why there is none.
pub type Proof = Result<Vec<Hash>, ProofFailure>;

/// Why there is no proof.
#[derive(Debug)]
pub enum ProofFailure {
    /// The log could not be asked; later it may.
    Unreachable(CommandError),
    /// What the log has stored gives none.
    Unprovable(String),
}

impl Checker {
    /// Checks a checkpoint. `proof` gives a consistency proof from one size to another, or nothing if there is no tree to ask.
    pub fn check(
        &self,
        state: &State,
        size: u64,
        text: &str,
        proof: impl FnOnce(u64, u64) -> Option<Proof>,
    ) -> Result<Verdict, CommandError> {
        let alarm = |kind, text: String, found: Option<Hash>, note: &str| {
            Ok(Verdict::Alarm(Alarm { kind, text, found: Some((size, found)), note: Some(note.to_owned()) }))
        };
        let note = match Note::parse_or_unsigned(text.as_bytes()) {
            Ok(note) => note,
            Err(error) => return alarm(AlarmKind::Checkpoint, format!("checkpoint {size} is none: {error}"), None, text),
        };
        let checkpoint = match Checkpoint::parse(note.text()) {
            Ok(checkpoint) => checkpoint,
            Err(error) => return alarm(AlarmKind::Checkpoint, format!("checkpoint {size} is none: {error}"), None, text),
        };
        let root = *checkpoint.root();
        if checkpoint.size() != size {
            let detail = format!("the note of checkpoint {size} is of the tree size {}", checkpoint.size());
            return alarm(AlarmKind::Checkpoint, detail, Some(root), text);
        }
        let held = state.held().map(|held| &held.checkpoint);
        let expected = self.origin.as_deref().or(held.map(Checkpoint::origin));
        if let Some(expected) = expected
            && expected != checkpoint.origin()
        {
            let detail = format!("checkpoint {size} is of the log {:?}, not of {expected:?}", checkpoint.origin());
            return alarm(AlarmKind::Checkpoint, detail, Some(root), text);
        }
        match note.verify(&self.keys) {
            Ok(_) => {}
            Err(NoteError::NoKnownSignature) if self.keys.is_empty() => {}
            Err(NoteError::NoKnownSignature) => {
                return alarm(
                    AlarmKind::Signature,
                    format!("checkpoint {size} is not signed by the log's key"),
                    Some(root),
                    text,
                );
            }
            Err(error) => return alarm(AlarmKind::Signature, format!("checkpoint {size}: {error}"), Some(root), text),
        }
        // Nothing is before the first one.
        let Some(held) = held else { return Ok(Verdict::Extends { note, checkpoint, proven: true }) };
        if size <= held.size() {
            let same = state.sizes().contains(&size) && state.root(size)? == root;
            if !same {
                let detail =
                    format!("there is another checkpoint of {size} leaves than the one that was witnessed, or one that was not");
                return alarm(AlarmKind::Forked, detail, Some(root), text);
            }
            return Ok(Verdict::Extends { note, checkpoint, proven: true });
        }
        let proof = match proof(held.size(), size) {
            None => return Ok(Verdict::Extends { note, checkpoint, proven: false }),
            Some(Ok(proof)) => proof,
            Some(Err(ProofFailure::Unreachable(error))) => return Err(error),
            Some(Err(ProofFailure::Unprovable(why))) => {
                let detail = format!("nothing proves that checkpoint {size} extends {}: {why}", held.size());
                return alarm(AlarmKind::Forked, detail, Some(root), text);
            }
        };
        match verify_consistency(held.size(), held.root(), size, &root, &proof) {
            Ok(()) => Ok(Verdict::Extends { note, checkpoint, proven: true }),
            Err(error) => {
                let detail = format!(
                    "checkpoint {size} does not extend the witnessed one of {} leaves with root {}: {error}",
                    held.size(),
                    hash_text(held.root())
                );
                alarm(AlarmKind::Forked, detail, Some(root), text)
            }
        }
    }
}
