//! Handles the lines that describe the tree at one size: `start`, `consistency` and `checkpoint`.
//! Judges the signatures in `start` and `checkpoint` lines, and compares the tree with the kept
//! checkpoints (`docs/FORMAT.md`, sections 15 and 18).
//!
//! A KEY entry records that the log changed its key or its origin. The checkpoint that includes the
//! KEY entry is the first checkpoint with the new key and origin. The old key has also signed the
//! checkpoint that includes the KEY entry. The verifier judges a checkpoint only after it has read
//! the checkpoint's entries, because one of them can be a KEY entry.

use super::{Chain, Fault, MAX_ID_RANGES, Phase, Tree};
use crate::record::{CheckpointRecord, Kind, Start};
use crate::verify::line::{Opened, OpenedNote};
use crate::verify::pending_checkpoint::{PendingCheckpoint, Said};
use crate::verify::{FaultKind, Report};
use ledger::merkle::{Frontier, Hash, hash_text, verify_consistency};
use ledger::{IdRange, IdRanges, KeyChange};

impl Chain<'_> {
    /// Compares a note with the tree size and root that the same line contains outside of the note.
    pub(super) fn opened(
        &mut self,
        opened: Opened,
        tree_size: u64,
        root: Option<Hash>,
    ) -> Option<OpenedNote> {
        let note = match opened {
            Ok(note) => note,
            Err(error) => {
                self.checkpoint_fault(
                    FaultKind::CheckpointChanged,
                    tree_size,
                    format!("its note is none: {error}"),
                );
                return None;
            }
        };
        if note.checkpoint.size() != tree_size {
            let detail = format!("its note is of the tree size {}", note.checkpoint.size());
            self.checkpoint_fault(FaultKind::CheckpointChanged, tree_size, detail);
        } else if let Some(root) = root
            && root != *note.checkpoint.root()
        {
            let detail = format!(
                "its note has the root {}, {} is stored beside it",
                hash_text(note.checkpoint.root()),
                hash_text(&root)
            );
            self.checkpoint_fault(FaultKind::CheckpointChanged, tree_size, detail);
        }
        if let Err(error) = &note.signers {
            self.checkpoint_fault(FaultKind::SignatureBad, tree_size, error.to_string());
        }
        Some(note)
    }

    pub(super) fn start(&mut self, start: Start, opened: Option<Opened>) {
        if self.phase != Phase::Begun || self.kind != Kind::History {
            self.misplaced("a \"start\" record cannot stand here");
            return;
        }
        self.phase = Phase::Anchored;
        let size = start.tree_size;
        let note = opened.and_then(|opened| self.opened(opened, size, None));
        if note.is_none() && size > 0 && start.note.is_none() {
            self.checkpoint_fault(
                FaultKind::CheckpointChanged,
                size,
                "the export starts with a tree that has no note",
            );
        }
        let root = note.as_ref().map(|note| *note.checkpoint.root());
        let goes_on = self.tree.is_some();
        let signed = note.as_ref().is_some_and(|note| self.judge_alone(note, goes_on));
        let edge = match Frontier::from_parts(size, start.edge) {
            Ok(edge) if root.is_none_or(|root| root == edge.root()) => Some(edge),
            Ok(_) => {
                self.checkpoint_fault(
                    FaultKind::CheckpointChanged,
                    size,
                    "the right edge of the tree does not give its root",
                );
                None
            }
            Err(error) => {
                self.checkpoint_fault(FaultKind::CheckpointChanged, size, error.to_string());
                None
            }
        };
        let before = self.tree.take();
        if let Some(before) = &before {
            self.follows(before, size, edge.as_ref());
        } else {
            self.report.from_size = Some(size);
            self.ahead =
                self.trust.known.keys().copied().filter(|&known| known >= size).rev().collect();
        }
        self.tree = Some(Tree { size, edge, suspect: false });
        self.report.tree_size = self.report.tree_size.max(size);
        self.reached();
        if signed && self.edge_is_known() {
            self.vouch(size);
        }
    }

    /// Checks that an export starts with the tree with which the previous export ended.
    pub(super) fn follows(&mut self, before: &Tree, size: u64, edge: Option<&Frontier>) {
        if size > before.size {
            let detail = format!(
                "leaves {} to {} of the tree are in no export that was given",
                before.size,
                size - 1
            );
            self.emit(FaultKind::Missing, Some(self.line), None, Some(size), detail);
        } else if size < before.size {
            let detail = format!(
                "it starts with a tree of {size} leaves, though the export before it ended with {}",
                before.size
            );
            self.misplaced(detail);
        } else if let (Some(before), Some(edge)) = (&before.edge, edge)
            && before.root() != edge.root()
        {
            let detail = format!(
                "the export before it ended with the root {}, this one starts with {}",
                hash_text(&before.root()),
                hash_text(&edge.root())
            );
            self.emit(FaultKind::Forked, Some(self.line), None, Some(size), detail);
        }
    }

    pub(super) fn edge_is_known(&self) -> bool {
        self.tree.as_ref().is_some_and(|tree| tree.edge.is_some())
    }

    pub(super) fn consistency(&mut self, from_size: u64, hashes: &[Hash]) {
        let to = match (self.kind, &self.tree, self.proven_by) {
            _ if self.phase != Phase::Anchored => None,
            (Kind::Selection, _, Some((size, root, signed))) => Some((size, root, signed)),
            (Kind::History, Some(Tree { size, edge: Some(edge), .. }), _) => {
                Some((*size, edge.root(), false))
            }
            _ => None,
        };
        if self.phase != Phase::Anchored {
            self.misplaced("a \"consistency\" record cannot stand here");
        }
        let (Some((size, root, _)), Some(known)) = (to, self.trust.known.get(&from_size)) else {
            return;
        };
        match verify_consistency(from_size, &known.root, size, &root, hashes) {
            Ok(()) => {
                self.matched.insert(from_size);
                // The proof shows only that the newer tree extends the older tree, so the kept
                // checkpoint vouches only for the entries of the older tree.
                self.vouch(from_size);
            }
            Err(error) => {
                let detail = format!(
                    "it does not extend the checkpoint of {from_size} leaves in {}: {error}",
                    known.from
                );
                self.emit(FaultKind::Forked, Some(self.line), None, Some(size), detail);
            }
        }
    }

    pub(super) fn checkpoint(&mut self, record: CheckpointRecord, opened: Opened) {
        if self.kind == Kind::Selection {
            return self.checkpoint_of_selection(&record, opened);
        }
        let count = record.entry_ids.count();
        let base = record.tree_size.checked_sub(count);
        if self.phase == Phase::Tail {
            let detail = "it stands before a checkpoint".to_owned();
            self.emit(
                FaultKind::Reordered,
                Some(self.line),
                self.last_unsealed.map(|id| (id, id)),
                None,
                detail,
            );
            self.phase = Phase::Sealed;
        }
        self.finish_checkpoint(base, false);
        if !matches!(self.phase, Phase::Anchored | Phase::Sealed) {
            self.misplaced("a \"checkpoint\" record cannot stand here");
        }
        self.phase = Phase::Sealed;
        self.report.checkpoints += 1;
        let note = self.opened(opened, record.tree_size, Some(record.root));
        let signed = note
            .as_ref()
            .is_some_and(|note| note.signers.as_ref().is_ok_and(|signers| signers.own));
        let (tree_size, root) = match &note {
            Some(note) if note.checkpoint.size() == record.tree_size || signed => {
                (note.checkpoint.size(), *note.checkpoint.root())
            }
            _ => (record.tree_size, record.root),
        };
        // The verifier can check the ids even if the export has no record `start`.
        let tree = self.tree.get_or_insert_with(|| Tree {
            size: base.unwrap_or(0),
            edge: None,
            suspect: false,
        });
        let size = tree.size;
        self.report.from_size.get_or_insert(size);
        let said = note.map(|note| Said {
            origin: note.checkpoint.origin().to_owned(),
            signers: note.signers.ok(),
        });
        let mut pending =
            PendingCheckpoint::new(tree_size, root, said, record.entry_ids, self.line);
        pending.edge = record.edge;
        if tree_size <= size {
            pending.expect_nothing();
            pending.leaves = 0;
            let kind = if tree_size == size { FaultKind::Duplicated } else { FaultKind::Reordered };
            self.checkpoint_fault(
                kind,
                tree_size,
                format!("it comes after the one of {size} leaves"),
            );
        } else {
            pending.leaves = tree_size - size;
            pending.plausible = pending.leaves == count;
            self.remember_ids(&pending.ids, tree_size);
        }
        self.pending = Some(pending);
    }

    pub(super) fn remember_ids(&mut self, ids: &IdRanges, tree_size: u64) {
        for &IdRange { first, last } in ids.ranges() {
            if self.sealed_ids.ranges().len() < MAX_ID_RANGES
                && !self.sealed_ids.insert_range(first, last)
            {
                let detail = "an earlier checkpoint took an entry of the same id".to_owned();
                self.emit(
                    FaultKind::Duplicated,
                    Some(self.line),
                    Some((first, last)),
                    Some(tree_size),
                    detail,
                );
            }
        }
    }

    pub(super) fn checkpoint_of_selection(&mut self, record: &CheckpointRecord, opened: Opened) {
        if self.phase != Phase::Begun {
            self.misplaced("a \"checkpoint\" record cannot stand here");
            return;
        }
        self.phase = Phase::Anchored;
        self.report.checkpoints += 1;
        let size = record.tree_size;
        let note = self.opened(opened, size, Some(record.root));
        let signed =
            note.as_ref().is_some_and(|note| self.judge_alone(note, self.report.origin.is_some()));
        self.report.signed += u64::from(signed);
        let root = note.as_ref().map_or(record.root, |note| *note.checkpoint.root());
        if let Some(edge) = &record.edge
            && Frontier::from_parts(size, edge.clone()).is_ok_and(|edge| edge.root() != root)
        {
            self.checkpoint_fault(
                FaultKind::CheckpointChanged,
                size,
                "the right edge of the tree does not give its root",
            );
        }
        self.proven_by = Some((size, root, signed));
        self.report.from_size.get_or_insert(0);
        self.report.tree_size = self.report.tree_size.max(size);
        self.report.root = Some(root);
        if let Some(known) = self.trust.known.get(&size) {
            self.compare(size, &root, &known.root.clone(), &known.from.clone());
        }
        if signed {
            self.vouch(size);
        }
    }

    /// Records the origin of a note of this log.
    fn note_origin(&mut self, origin: &str, tree_size: u64) {
        self.origin_found |= self.trust.origin.as_deref() == Some(origin);
        if self.origins.last().is_none_or(|last| last != origin) {
            self.origins.push(origin.to_owned());
        }
        if let Some(known) = self.trust.known.get(&tree_size).filter(|known| known.origin != origin)
        {
            let detail =
                format!("it is of the log {origin:?}, and of {:?} in {}", known.origin, known.from);
            self.checkpoint_fault(FaultKind::Forked, tree_size, detail);
        }
        self.report.origin = Some(origin.to_owned());
    }

    /// Judges the note at the start of a history, or the note of a selection. The export contains
    /// no KEY entry that can explain the key or origin of this note. Returns whether a known key
    /// has signed the note.
    pub(super) fn judge_alone(&mut self, note: &OpenedNote, goes_on: bool) -> bool {
        let (origin, size) = (note.checkpoint.origin(), note.checkpoint.size());
        if goes_on
            && let Some(before) = self.report.origin.clone().filter(|before| before != origin)
        {
            let detail = format!("it is of the log {origin:?}, not of {before:?}");
            self.checkpoint_fault(FaultKind::Forked, size, detail);
        }
        self.note_origin(origin, size);
        let Ok(signers) = &note.signers else {
            self.last_signed = None;
            return false;
        };
        if self.trust.keys.is_empty() {
            return false;
        }
        self.may_have_successor = signers.own && signers.stranger;
        if signers.own {
            self.report.key_unknown_from = None;
        } else if signers.stranger {
            // The log can have changed its key, and the unknown key can be its new key.
            self.report.key_unknown_from = Some(size);
        } else if !signers.former.is_empty() {
            let detail = format!(
                "it is of the log {origin:?}, which is not the name of the key that has signed it"
            );
            self.checkpoint_fault(FaultKind::SignatureBad, size, detail);
            self.last_signed = None;
            return false;
        }
        self.signed_before |= signers.own;
        self.last_signed = Some(signers.own);
        if signers.own {
            self.signed_to = Some(self.signed_to.unwrap_or(0).max(size));
        }
        signers.own
    }

    /// Judges whether a checkpoint is from this log, and whether a known key has signed it. The
    /// caller must have read all entries of the checkpoint. `cut` means that the file ends before
    /// the last entry of the checkpoint.
    pub(super) fn judge_note(&mut self, pending: &mut PendingCheckpoint, cut: bool) {
        let Some(Said { origin, signers }) = pending.said.take() else { return };
        let size = pending.tree_size;
        let before = self.report.origin.clone();
        let change = pending.key_changes.iter().rev().find(|change| {
            change.new_origin == origin
                && before.as_ref().is_none_or(|before| *before == change.old_origin)
        });
        let may_come = cut && change.is_none();
        if let Some(before) = before.filter(|before| *before != origin)
            && change.is_none()
            && !may_come
        {
            let detail = format!(
                "it is of the log {origin:?}, not of {before:?}, and no entry says that it changed"
            );
            let line = Some(self.line);
            let fault = Fault {
                kind: FaultKind::Forked,
                file: self.file.clone(),
                line,
                ids: None,
                tree_size: Some(size),
                detail,
            };
            self.unexplained.push(fault);
        }
        self.note_origin(&origin, size);
        let Some(signers) = signers else {
            // If a signature is bad, the verifier has already reported the signature, and does not
            // report a missing signature too.
            self.last_signed = None;
            return;
        };
        if self.trust.keys.is_empty() || may_come {
            return;
        }
        let is_known = |text: &str| self.trust.keys.iter().any(|key| key.to_string() == text);
        let by_former = change
            .and_then(|change| change.old_key.as_ref())
            .is_some_and(|old| signers.former.contains(old));
        if !signers.own && !by_former && !signers.former.is_empty() {
            let detail = format!(
                "it is of the log {origin:?}, which is not the name of the key that has signed it"
            );
            self.last_signed = None;
            return self.checkpoint_fault(FaultKind::SignatureBad, size, detail);
        }
        pending.signed = signers.own || by_former;
        self.report.signed += u64::from(pending.signed);
        self.last_signed = Some(pending.signed || self.signed_before);
        let was_known = self.signed_before && self.report.key_unknown_from.is_none();
        let may_have_changed = std::mem::take(&mut self.may_have_successor);
        match change {
            // If the log stops signing its checkpoints, `new_key` is None and counts as an unknown
            // key.
            Some(KeyChange { new_key, .. })
                if new_key.as_deref().is_none_or(|new| !is_known(new)) =>
            {
                self.report.key_unknown_from = if was_known || pending.signed {
                    Some(size)
                } else {
                    self.report.key_unknown_from
                };
            }
            _ if pending.signed => self.report.key_unknown_from = None,
            _ if was_known && may_have_changed => self.report.key_unknown_from = Some(size),
            _ if was_known => {
                let detail = "it is not signed by the key, though one before it is";
                self.checkpoint_fault(FaultKind::SignatureBad, size, detail);
            }
            _ => {}
        }
        self.signed_before |= pending.signed;
        if signers.own {
            self.signed_to = Some(self.signed_to.unwrap_or(0).max(size));
        }
    }

    /// Checks at the end of an export that the origin in its first line is the origin of one of its
    /// notes.
    pub(super) fn judge_header(&mut self) {
        if let Some(origin) = self.header_origin.take()
            && !self.origins.contains(&origin)
        {
            let is = self
                .origins
                .last()
                .map_or_else(|| "of none".to_owned(), |last| format!("of {last:?}"));
            let detail = format!(
                "its first line says that it is of the log {origin:?}, and its checkpoints are {is}"
            );
            self.emit(FaultKind::Forked, Some(self.line), None, None, detail);
        }
    }

    /// Reports the faults of origins and signatures after all files were read.
    pub(super) fn judge_origins(&mut self) {
        // Versions of the extension before 1.1 wrote no KEY entry for a change of the origin. If a
        // known key has signed a later checkpoint, this signature also confirms the earlier change.
        for fault in std::mem::take(&mut self.unexplained) {
            if self.signed_to.is_some_and(|signed| Some(signed) > fault.tree_size) {
                let size = fault.tree_size.unwrap_or(0);
                self.report
                    .remarks
                    .push(format!("checkpoint {size}: {}; a later one is signed", fault.detail));
            } else {
                *self.report.faults.entry(fault.kind).or_default() += 1;
                (self.sink)(fault);
            }
        }
        if !self.origin_found
            && let (Some(wanted), Some(origin)) =
                (self.trust.origin.clone(), self.report.origin.clone())
        {
            self.emit(
                FaultKind::Forked,
                None,
                None,
                None,
                format!("it is of the log {origin:?}, not of {wanted:?}"),
            );
        }
        if !self.trust.keys.is_empty()
            && self.last_signed == Some(false)
            && self.report.key_unknown_from.is_none()
            && self.report.incomplete.is_none()
        {
            let detail = "the last checkpoint is not signed by the key".to_owned();
            self.emit(FaultKind::SignatureBad, None, None, Some(self.report.tree_size), detail);
        }
        // If the tree matches a kept checkpoint whose size is at least `key_unknown_from`, this
        // checkpoint vouches for the entries. The unknown key then does not matter.
        self.report.key_unknown_from = self
            .report
            .key_unknown_from
            .filter(|&from| self.matched.last().is_none_or(|&kept| kept < from));
        self.report.is_empty_selection =
            self.histories == 0 && self.report.entries == 0 && self.report.from_size.is_some();
    }

    pub(super) fn vouch(&mut self, size: u64) {
        self.report.vouched = Some(self.report.vouched.unwrap_or(0).max(size));
    }

    /// Compares the tree with the next kept checkpoint, if the tree has the size of that
    /// checkpoint.
    pub(super) fn reached(&mut self) {
        let Some(Tree { edge: Some(edge), suspect, .. }) = &self.tree else { return };
        if self.ahead.last() == Some(&edge.size()) {
            let (size, root, suspect) = (edge.size(), edge.root(), *suspect);
            self.compare_ahead(size, &root, suspect);
        }
    }

    pub(super) fn compare_ahead(&mut self, size: u64, root: &Hash, suspect: bool) {
        self.ahead.pop();
        let Some(known) = self.trust.known.get(&size) else { return };
        if known.root == *root || !suspect {
            let (known_root, from) = (known.root, known.from.clone());
            self.compare(size, root, &known_root, &from);
        }
    }

    pub(super) fn compare(&mut self, size: u64, root: &Hash, known: &Hash, from: &str) {
        if root == known {
            self.matched.insert(size);
            self.vouch(size);
        } else {
            let detail = format!(
                "it has the root {} here, but {} in {from}",
                hash_text(root),
                hash_text(known)
            );
            self.emit(FaultKind::Forked, None, None, Some(size), detail);
        }
    }

    /// Returns the report of the verification. The caller must have passed all lines of all files
    /// to this `Chain`.
    pub(in crate::verify) fn finish(mut self) -> Report {
        let end = self.report.tree_size;
        for (&size, known) in &self.trust.known {
            if self.matched.contains(&size) {
                continue;
            }
            if size > end && !self.trust.older && self.report.incomplete.is_none() {
                let detail = format!(
                    "the history ends with {end} leaves, before the checkpoint of {size} leaves \
                     in {}",
                    known.from
                );
                self.emit(FaultKind::GoneBack, None, None, Some(size), detail);
            } else if self.report.faults.get(&FaultKind::Forked).is_none_or(|&count| count == 0) {
                self.report.known_unjudged.push(format!(
                    "the checkpoint of {size} leaves in {}: no tree of that size is in what was \
                     verified",
                    known.from
                ));
            }
        }
        self.judge_origins();
        self.report.known_matched = self.matched.len() as u64;
        if self.report.root.is_none() {
            self.report.root = self
                .tree
                .as_ref()
                .filter(|tree| !tree.suspect)
                .and_then(|tree| tree.edge.as_ref())
                .map(Frontier::root);
        }
        self.remark();
        self.report
    }

    /// Adds to the report the questions that verification could not decide.
    pub(super) fn remark(&mut self) {
        let report = &mut self.report;
        if let Some(from) = report.key_unknown_from {
            report.remarks.push(format!(
                "from tree size {from} on the log has another key: give it too, after you have \
                 asked its operator whether it is genuine"
            ));
        }
        if report.not_judged > 0 {
            let text = format!(
                "{} entries have something that this version does not know",
                report.not_judged
            );
            report.remarks.push(text);
        }
        if report.is_empty_selection {
            report
                .remarks
                .push("the selection has no sealed entry, so that nothing is proven".to_owned());
        }
        let remarks = &mut report.remarks;
        match report.vouched {
            None => remarks.push(
                "nothing from outside vouches for it: give the log's public key or a checkpoint \
                 that was kept from earlier"
                    .to_owned(),
            ),
            Some(vouched) if vouched < report.tree_size => {
                remarks.push(format!(
                    "nothing vouches for leaves {vouched} to {} yet",
                    report.tree_size - 1
                ));
            }
            Some(_) => {}
        }
        if report.vouched.is_some() && self.trust.known.is_empty() {
            remarks.push(
                "no checkpoint from earlier was given: whether the newest entries were cut off \
                 cannot be told"
                    .to_owned(),
            );
        } else if report.vouched.is_some()
            && self.trust.keys.is_empty()
            && report.checkpoints > report.signed
        {
            remarks.push("no public key was given: signatures were not verified".to_owned());
        }
        if report.unsealed > 0 {
            remarks.push(format!(
                "{} entries are not sealed yet: only their checksums could be verified",
                report.unsealed
            ));
        }
        if self.unjudged > 0 {
            remarks.push(format!(
                "the roots of {} checkpoints could not be worked out, because of the faults \
                 before them",
                self.unjudged
            ));
        }
    }
}
