//! Which log it is and who signs for it, from checkpoint to checkpoint: `docs/FORMAT.md`, sections 15 and 18.
//!
//! A log changes its key or its origin with an entry that says so (operation `KEY`). Its checkpoint is the first with the new ones,
//! and is signed with the old key too. So a checkpoint is judged here when its entries are there.

use super::{Chain, Fault};
use crate::verify::FaultKind;
use crate::verify::batch::{Batch, Said};
use crate::verify::line::OpenedNote;
use ledger::KeyChange;

impl Chain<'_> {
    /// Another note is of this log.
    fn note_origin(&mut self, origin: &str, tree_size: u64) {
        self.origin_found |= self.trust.origin.as_deref() == Some(origin);
        if self.origins.last().is_none_or(|last| last != origin) {
            self.origins.push(origin.to_owned());
        }
        if let Some(known) = self.trust.known.get(&tree_size).filter(|known| known.origin != origin) {
            let detail = format!("it is of the log {origin:?}, and of {:?} in {}", known.origin, known.from);
            self.checkpoint_fault(FaultKind::Forked, tree_size, detail);
        }
        self.report.origin = Some(origin.to_owned());
    }

    /// The note that a history starts with, or that of a selection: there is no entry to explain it. Returns whether it is signed.
    pub(super) fn judge_alone(&mut self, note: &OpenedNote, goes_on: bool) -> bool {
        let (origin, size) = (note.checkpoint.origin(), note.checkpoint.size());
        if goes_on && let Some(before) = self.report.origin.clone().filter(|before| before != origin) {
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
            // The log may have changed its key before.
            self.report.key_unknown_from = Some(size);
        } else if !signers.former.is_empty() {
            let detail = format!("it is of the log {origin:?}, which is not the name of the key that has signed it");
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

    /// A checkpoint of which all entries are there, or will never be (`cut`): is it of this log, and does a known key vouch for it?
    pub(super) fn judge_note(&mut self, batch: &mut Batch, cut: bool) {
        let Some(Said { origin, signers }) = batch.said.take() else { return };
        let size = batch.tree_size;
        let before = self.report.origin.clone();
        let change = batch
            .key_changes
            .iter()
            .rev()
            .find(|change| change.new_origin == origin && before.as_ref().is_none_or(|before| *before == change.old_origin));
        let may_come = cut && change.is_none();
        if let Some(before) = before.filter(|before| *before != origin)
            && change.is_none()
            && !may_come
        {
            let detail = format!("it is of the log {origin:?}, not of {before:?}, and no entry says that it changed");
            let line = Some(self.line);
            let fault =
                Fault { kind: FaultKind::Forked, file: self.file.clone(), line, ids: None, tree_size: Some(size), detail };
            self.unexplained.push(fault);
        }
        self.note_origin(&origin, size);
        let Some(signers) = signers else {
            // Said once is enough: it does not count as one that is not signed.
            self.last_signed = None;
            return;
        };
        if self.trust.keys.is_empty() || may_come {
            return;
        }
        let is_known = |text: &str| self.trust.keys.iter().any(|key| key.to_string() == text);
        let by_former = change.and_then(|change| change.old_key.as_ref()).is_some_and(|old| signers.former.contains(old));
        if !signers.own && !by_former && !signers.former.is_empty() {
            let detail = format!("it is of the log {origin:?}, which is not the name of the key that has signed it");
            self.last_signed = None;
            return self.checkpoint_fault(FaultKind::SignatureBad, size, detail);
        }
        batch.signed = signers.own || by_former;
        self.report.signed += u64::from(batch.signed);
        self.last_signed = Some(batch.signed || self.signed_before);
        let was_known = self.signed_before && self.report.key_unknown_from.is_none();
        let may_have_changed = std::mem::take(&mut self.may_have_successor);
        match change {
            // Of an unsigned log nobody has to know a key.
            Some(KeyChange { new_key, .. }) if new_key.as_deref().is_none_or(|new| !is_known(new)) => {
                self.report.key_unknown_from = if was_known || batch.signed { Some(size) } else { self.report.key_unknown_from };
            }
            _ if batch.signed => self.report.key_unknown_from = None,
            _ if was_known && may_have_changed => self.report.key_unknown_from = Some(size),
            _ if was_known => {
                let detail = "it is not signed by the key, though one before it is";
                self.checkpoint_fault(FaultKind::SignatureBad, size, detail);
            }
            _ => {}
        }
        self.signed_before |= batch.signed;
        if signers.own {
            self.signed_to = Some(self.signed_to.unwrap_or(0).max(size));
        }
    }

    /// The export has ended: its first line has to be of the same log.
    pub(super) fn judge_header(&mut self) {
        if let Some(origin) = self.header_origin.take()
            && !self.origins.contains(&origin)
        {
            let is = self.origins.last().map_or_else(|| "of none".to_owned(), |last| format!("of {last:?}"));
            let detail = format!("its first line says that it is of the log {origin:?}, and its checkpoints are {is}");
            self.emit(FaultKind::Forked, Some(self.line), None, None, detail);
        }
    }

    /// Everything was read.
    pub(super) fn judge_origins(&mut self) {
        // Versions before 1.1 left no entry. What a known key has signed later covers it.
        for fault in std::mem::take(&mut self.unexplained) {
            if self.signed_to.is_some_and(|signed| Some(signed) > fault.tree_size) {
                let size = fault.tree_size.unwrap_or(0);
                self.report.remarks.push(format!("checkpoint {size}: {}; a later one is signed", fault.detail));
            } else {
                *self.report.faults.entry(fault.kind).or_default() += 1;
                (self.sink)(fault);
            }
        }
        if !self.origin_found
            && let (Some(wanted), Some(origin)) = (self.trust.origin.clone(), self.report.origin.clone())
        {
            self.emit(FaultKind::Forked, None, None, None, format!("it is of the log {origin:?}, not of {wanted:?}"));
        }
        if !self.trust.keys.is_empty()
            && self.last_signed == Some(false)
            && self.report.key_unknown_from.is_none()
            && self.report.incomplete.is_none()
        {
            let detail = "the last checkpoint is not signed by the key".to_owned();
            self.emit(FaultKind::SignatureBad, None, None, Some(self.report.tree_size), detail);
        }
        // Whoever has kept a checkpoint from after the change has something else that vouches.
        self.report.key_unknown_from =
            self.report.key_unknown_from.filter(|&from| self.matched.last().is_none_or(|&kept| kept < from));
        self.report.is_empty_selection = self.histories == 0 && self.report.entries == 0 && self.report.from_size.is_some();
    }
}
