//! Checks the origin and the signature of each checkpoint. The origin and the key may change only
//! if a sealed KEY entry states the change (docs/FORMAT.md, section 15).

use super::faults::Faults;
use crate::seal::{Identity, TreeRow, verifier_key};
use ledger::IdRanges;
use ledger::KeyChange;
use ledger::note::{Note, NoteError, VerifierKey};
use std::collections::BTreeMap;

/// The state of the check between two checkpoints.
pub struct Signatures<'c> {
    changes: &'c BTreeMap<i64, KeyChange>,
    /// The origin and key that sealing stored in lead_audit.tree with the last checkpoint.
    expected: Option<Identity>,
    /// The public key of the signing key in the settings.
    configured: Option<VerifierKey>,
    /// The origin of the last checkpoint that was checked. The field is `None` before the first
    /// checkpoint.
    origin: Option<String>,
    /// The key that must sign the next checkpoint.
    key: Option<VerifierKey>,
    /// Whether every further checkpoint must be signed. The field is true after the first signed
    /// checkpoint, and after a KEY entry that introduces a key.
    is_strict: bool,
    /// The tree size of the last checkpoint that `key` has not signed, and that precedes the first
    /// signed checkpoint.
    not_signed: Option<u64>,
    /// The tree size of the last signed checkpoint.
    signed: Option<u64>,
    /// The tree size and the fault of each checkpoint whose origin changed although no KEY entry
    /// states the change.
    unexplained: Vec<(u64, String)>,
}

fn parsed(key: Option<&String>) -> Option<VerifierKey> {
    VerifierKey::from_text(key?).ok()
}

impl<'c> Signatures<'c> {
    /// Returns the state before the first checkpoint.
    pub fn of(tree: &TreeRow, changes: &'c BTreeMap<i64, KeyChange>) -> Self {
        let configured = verifier_key().unwrap_or_else(|error| {
            pgrx::warning!(
                "signatures are not checked with the key in lead_audit.signing_key_file: {error}"
            );
            None
        });
        let expected = tree.identity.clone();
        let key = match changes.values().next() {
            Some(first) => parsed(first.old_key.as_ref()),
            None => parsed(expected.as_ref().and_then(|expected| expected.key.as_ref()))
                .or_else(|| configured.clone()),
        };
        Signatures {
            changes,
            expected,
            configured,
            origin: None,
            key,
            is_strict: false,
            not_signed: None,
            signed: None,
            unexplained: Vec::new(),
        }
    }

    /// Checks the next checkpoint, which added the entries with the ids `ids` to the tree.
    pub fn check(
        &mut self,
        note: &Note,
        origin: &str,
        size: u64,
        ids: &IdRanges,
        faults: &mut Faults,
    ) {
        let took =
            |id: i64| ids.ranges().iter().any(|range| (range.first..=range.last).contains(&id));
        let before = self.origin.as_deref();
        let change =
            self.changes.iter().rev().map(|(id, change)| (*id, change)).find(|(id, change)| {
                took(*id)
                    && change.new_origin == origin
                    && before.is_none_or(|before| before == change.old_origin)
            });
        match change {
            Some((_, change)) => {
                self.key = parsed(change.new_key.as_ref());
                self.is_strict = self.key.is_some();
            }
            None => {
                if let Some(before) = before.filter(|before| *before != origin) {
                    let text = format!(
                        "it is of the log \"{origin}\", not of \"{before}\", and no entry says \
                         that it changed"
                    );
                    self.unexplained.push((size, text));
                }
            }
        }
        self.origin = Some(origin.to_owned());
        let Some(key) = &self.key else { return };
        let complaint = match note.verify(std::slice::from_ref(key)) {
            Ok(_) if key.name() == origin => {
                self.is_strict = true;
                self.signed = Some(size);
                return;
            }
            Ok(_) => {
                format!("its origin \"{origin}\" is not the name of the key that has signed it")
            }
            // Unsigned checkpoints are allowed only before the first signed checkpoint.
            Err(NoteError::NoKnownSignature) if !self.is_strict => {
                self.not_signed = Some(size);
                return;
            }
            Err(error) => error.to_string(),
        };
        self.is_strict = true;
        faults.of_tree("signature", format!("the checkpoint of tree size {size}: {complaint}"));
    }

    /// Reports the faults that can be found only after all checkpoints were checked.
    pub fn finish(&mut self, faults: &mut Faults) {
        for (size, text) in std::mem::take(&mut self.unexplained) {
            // Version 1.0 wrote no KEY entry when the origin changed. Therefore a changed origin
            // alone is not a fault if a later checkpoint is signed. The later signature also covers
            // the entries of the checkpoint with the changed origin.
            if self.signed.is_none_or(|signed| signed <= size) {
                faults.of_tree("checkpoint", format!("the checkpoint of tree size {size}: {text}"));
            }
        }
        if let (Some(expected), Some(origin)) = (&self.expected, &self.origin)
            && expected.origin != *origin
        {
            let expected = &expected.origin;
            let detail = format!(
                "the newest checkpoint is of the log \"{origin}\"; sealing has written one of \
                 \"{expected}\""
            );
            faults.of_tree("checkpoint", detail);
        }
        let in_force = self.key.as_ref().filter(|_| self.is_strict);
        if let Some(configured) = &self.configured
            && in_force != Some(configured)
            && self.origin.is_some()
        {
            pgrx::warning!(
                "the newest checkpoint is not signed with the key in lead_audit.signing_key_file: \
                 the next sealing will be"
            );
        }
        if let Some(size) = self.not_signed {
            pgrx::warning!(
                "checkpoints up to tree size {size} are not signed with the key in \
                 lead_audit.signing_key_file: whether they are with an earlier one, `lead-audit \
                 verify` can tell, which takes both keys"
            );
        }
    }
}
