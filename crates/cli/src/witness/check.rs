//! Checks a checkpoint against the newest checkpoint that the witness keeps.

use super::alarm::{Alarm, AlarmKind};
use super::state::State;
use crate::error::CommandError;
use ledger::checkpoint::Checkpoint;
use ledger::merkle::{Hash, hash_text, verify_consistency};
use ledger::note::{Note, NoteError, VerifierKey};

/// The keys and the origins against which a witness checks a log.
pub struct Checker {
    pub keys: Vec<VerifierKey>,
    pub origin: Option<String>,
    /// The origins to which the log may change. The operator of the witness names them with
    /// `--follow`.
    pub follow: Vec<String>,
}

/// The result of checking a checkpoint.
#[derive(Debug)]
pub enum Verdict {
    /// The checkpoint extends the newest kept checkpoint. `proven` is false if the witness has no
    /// tree from which to compute a consistency proof.
    Extends { note: Note, checkpoint: Checkpoint, proven: bool },
    /// The log has changed its origin or key. The witness accepts the change only if its operator
    /// allows the change.
    Consent(String),
    /// The checkpoint is invalid, or does not extend the newest kept checkpoint.
    Alarm(Alarm),
}

/// A consistency proof, or the reason why the log gives none.
pub type Proof = Result<Vec<Hash>, ProofFailure>;

/// The reasons why the log gives no consistency proof.
#[derive(Debug)]
pub enum ProofFailure {
    /// The log's database could not be reached. A later attempt can succeed.
    Unreachable(CommandError),
    /// The stored tree does not yield a consistency proof.
    Unprovable(String),
}

impl Checker {
    fn how_to_follow(&self, origin: &str) -> String {
        let key = if self.keys.is_empty() { "" } else { ", with its public key (--key)" };
        format!("If the log changed its name and that was meant, follow it: --follow {origin}{key}")
    }

    /// Checks a checkpoint. `proof` returns a consistency proof between two tree sizes, or None if
    /// there is no tree from which to compute a proof.
    pub fn check(
        &self,
        state: &State,
        size: u64,
        text: &str,
        proof: impl FnOnce(u64, u64) -> Option<Proof>,
    ) -> Result<Verdict, CommandError> {
        let alarm = |kind, text: String, found: Option<Hash>, note: &str| {
            Ok(Verdict::Alarm(Alarm {
                kind,
                text,
                found: Some((size, found)),
                note: Some(note.to_owned()),
            }))
        };
        let note = match Note::parse_or_unsigned(text.as_bytes()) {
            Ok(note) => note,
            Err(error) => {
                return alarm(
                    AlarmKind::Checkpoint,
                    format!("checkpoint {size} is none: {error}"),
                    None,
                    text,
                );
            }
        };
        let checkpoint = match Checkpoint::parse(note.text()) {
            Ok(checkpoint) => checkpoint,
            Err(error) => {
                return alarm(
                    AlarmKind::Checkpoint,
                    format!("checkpoint {size} is none: {error}"),
                    None,
                    text,
                );
            }
        };
        let root = *checkpoint.root();
        if checkpoint.size() != size {
            let detail =
                format!("the note of checkpoint {size} is of the tree size {}", checkpoint.size());
            return alarm(AlarmKind::Checkpoint, detail, Some(root), text);
        }
        let origin = checkpoint.origin();
        let signers = match note.verify(&self.keys) {
            Ok(signers) => signers,
            Err(NoteError::NoKnownSignature) => Vec::new(),
            Err(error) => {
                return alarm(
                    AlarmKind::Signature,
                    format!("checkpoint {size}: {error}"),
                    Some(root),
                    text,
                );
            }
        };
        let own = signers.iter().any(|signer| signer.key.name() == origin);
        let held = state.held().map(|held| &held.checkpoint);
        let expected = self.origin.as_deref().or(held.map(Checkpoint::origin));
        let other = expected.filter(|&expected| {
            expected != origin && !self.follow.iter().any(|follow| follow == origin)
        });
        if let Some(expected) = other
            && !self.keys.is_empty()
        {
            let detail = format!("checkpoint {size} is of the log {origin:?}, not of {expected:?}");
            if signers.is_empty() || own {
                return alarm(AlarmKind::Checkpoint, detail, Some(root), text);
            }
            // A known key has signed the checkpoint with the new origin, so the log itself has
            // changed its origin.
            return Ok(Verdict::Consent(format!(
                "{detail}, and signed with its key. {}",
                self.how_to_follow(origin)
            )));
        }
        if !self.keys.is_empty() && !own {
            if !signers.is_empty() && self.follow.iter().any(|follow| follow == origin) {
                let text = format!(
                    "checkpoint {size} is not signed by a known key of the name {origin:?}: \
                     give it with --key"
                );
                return Ok(Verdict::Consent(text));
            }
            let detail = if signers.is_empty() {
                format!("checkpoint {size} is not signed by the log's key")
            } else {
                format!(
                    "checkpoint {size}: its origin {origin:?} is not the name of the key that has \
                     signed it"
                )
            };
            return alarm(AlarmKind::Signature, detail, Some(root), text);
        }
        // A log that will change its key signs its checkpoints with the old key and with the new
        // key, under the same name. The witness does not know the new key yet.
        let is_known =
            |name: &str, id| self.keys.iter().any(|key| (key.name(), key.id()) == (name, id));
        let stranger = note
            .signatures()
            .iter()
            .find(|one| one.name() == origin && !is_known(one.name(), one.key_id()));
        if own
            && let Some(stranger) = stranger
            && state.held().is_some_and(|held| held.note.verify(&self.keys).is_ok())
        {
            return Ok(Verdict::Consent(format!(
                "from checkpoint {size} on the log has another key, whose id is {:08x}. \
                 If that was meant, give it too, with --key",
                stranger.key_id()
            )));
        }
        // The first checkpoint of a witness has no predecessor, so it needs no consistency proof.
        let Some(held) = held else {
            return Ok(Verdict::Extends { note, checkpoint, proven: true });
        };
        if size <= held.size() {
            let same = state.sizes().contains(&size) && state.root(size)? == root;
            if !same {
                let detail = format!(
                    "there is another checkpoint of {size} leaves than the one that was \
                     witnessed, or one that was not"
                );
                return alarm(AlarmKind::Forked, detail, Some(root), text);
            }
            return Ok(Verdict::Extends { note, checkpoint, proven: true });
        }
        let proof = match proof(held.size(), size) {
            None if other.is_some() => {
                let detail = format!(
                    "checkpoint {size} is of the log {origin:?}, and nothing proves that it \
                     extends the witnessed one"
                );
                return alarm(AlarmKind::Checkpoint, detail, Some(root), text);
            }
            None => return Ok(Verdict::Extends { note, checkpoint, proven: false }),
            Some(Ok(proof)) => proof,
            Some(Err(ProofFailure::Unreachable(error))) => return Err(error),
            Some(Err(ProofFailure::Unprovable(why))) => {
                let detail =
                    format!("nothing proves that checkpoint {size} extends {}: {why}", held.size());
                return alarm(AlarmKind::Forked, detail, Some(root), text);
            }
        };
        match verify_consistency(held.size(), held.root(), size, &root, &proof) {
            Ok(()) if other.is_some() => Ok(Verdict::Consent(format!(
                "checkpoint {size} extends the witnessed one, but is of the log {origin:?}. {}",
                self.how_to_follow(origin)
            ))),
            Ok(()) => Ok(Verdict::Extends { note, checkpoint, proven: true }),
            Err(error) => {
                let detail = format!(
                    "checkpoint {size} does not extend the witnessed one of {} leaves with root \
                     {}: {error}",
                    held.size(),
                    hash_text(held.root())
                );
                alarm(AlarmKind::Forked, detail, Some(root), text)
            }
        }
    }
}
