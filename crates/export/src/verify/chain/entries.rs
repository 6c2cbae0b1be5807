//! Lines that are entries: which part of the export they are in, and whether they can stand there.

use super::{Chain, Phase};
use crate::record::Kind;
use crate::verify::FaultKind;
use crate::verify::batch::Batch;
use crate::verify::line::{EntryLine, EntryProblem, Section};
use ledger::IdRanges;
use ledger::merkle::{Hash, verify_inclusion};

impl Chain<'_> {
    pub(super) fn entry(&mut self, mut entry: EntryLine) {
        let problem = entry.fault.take();
        let (id, line) = (entry.id, self.line);
        match problem.as_deref() {
            None => {}
            // If it is the very one that was sealed, there is nothing wrong with it that could be known.
            Some(EntryProblem::Entry(fault)) if fault.is_unknown() && entry.other_leaf.is_none() => {
                self.entry_fault(FaultKind::NotJudged, id, line, fault.to_string());
            }
            Some(EntryProblem::Unknown(column)) => {
                let detail = format!("it has a value in the column {column:?}, which the exporter did not know");
                self.entry_fault(FaultKind::NotJudged, id, line, detail);
            }
            Some(EntryProblem::Entry(fault)) => self.entry_fault(FaultKind::Changed, id, line, fault.to_string()),
            Some(EntryProblem::NotSealed) => {
                self.entry_fault(FaultKind::Changed, id, line, "it is not the entry that was sealed");
            }
            Some(EntryProblem::Damaged(fault)) => {
                self.entry_fault(FaultKind::Changed, id, line, format!("it is no entry: {}", fault.escape_debug()));
            }
            Some(EntryProblem::Missing) => {
                let detail = if id.is_some() {
                    "it is not in the database"
                } else {
                    "an entry whose id is not known is not in the database"
                };
                self.entry_fault(FaultKind::Missing, id, line, detail);
            }
        }
        let there = !matches!(problem.as_deref(), Some(EntryProblem::Missing));
        match entry.section {
            Section::Inserted => {
                self.begin_tail();
                self.entry_fault(FaultKind::Inserted, id, line, "no checkpoint took it, and none can");
            }
            Section::Unsealed => {
                self.begin_tail();
                self.report.unsealed += 1;
                self.unsealed(id);
            }
            // All that the checkpoint took is there: it is one that no checkpoint took.
            Section::Sealed
                if self.kind == Kind::History
                    && matches!(problem.as_deref(), Some(EntryProblem::Unknown(_)))
                    && self.batch.as_ref().is_none_or(|batch| !batch.waits()) =>
            {
                self.begin_tail();
            }
            // Something that is no entry has no place of its own.
            Section::Sealed if self.phase == Phase::Tail && matches!(problem.as_deref(), Some(EntryProblem::Damaged(_))) => {}
            Section::Sealed => {
                self.report.entries += u64::from(there);
                match self.kind {
                    Kind::History => self.sealed(entry),
                    // It has no proof, and nothing more is said of it.
                    Kind::Selection if matches!(problem.as_deref(), Some(EntryProblem::Unknown(_))) => {}
                    Kind::Selection => self.selected(&entry, problem.is_some_and(|problem| !problem.is_unknown())),
                }
            }
        }
    }

    pub(super) fn sealed(&mut self, entry: EntryLine) {
        if entry.place.is_some() {
            self.misplaced("an entry of a history has no proof of its own");
        }
        if self.phase == Phase::Tail {
            self.back_from_tail();
        }
        if self.batch.is_none() && self.phase == Phase::Anchored {
            // If the checkpoint that took it is not there, the next one will tell.
            let size = self.tree.as_ref().map_or(0, |tree| tree.size);
            self.batch = Some(Batch::new(size, [0; 32], None, IdRanges::new(), self.line));
            self.phase = Phase::Sealed;
        }
        let Some(batch) = &mut self.batch else {
            if !self.was_late(entry.id, self.line) {
                self.misplaced("an entry stands here that no checkpoint is before");
            }
            return;
        };
        let mut entry = entry;
        batch.key_changes.extend(entry.key_change.take().map(|change| *change));
        let Some(leaf) = batch.arrive(entry, self.line) else { return };
        if let Some(tree) = &mut self.tree
            && let Some(edge) = &mut tree.edge
        {
            edge.push(leaf);
            if self.ahead.last() == Some(&edge.size()) {
                self.reached();
            }
        }
    }

    pub(super) fn selected(&mut self, entry: &EntryLine, faulty: bool) {
        if !matches!(self.phase, Phase::Anchored | Phase::Sealed) {
            self.misplaced("an entry stands here that no checkpoint is before");
            return;
        }
        self.phase = Phase::Sealed;
        let (Some((size, root, _)), Some(place), Some(leaf)) = (self.proven_by, &entry.place, entry.leaf) else {
            if !faulty {
                self.misplaced("an entry of a selection has an index and a proof");
            }
            return;
        };
        match self.last_index {
            Some(last) if last == place.index => {
                self.entry_fault(FaultKind::Duplicated, entry.id, self.line, format!("leaf {last} is here twice"));
            }
            Some(last) if last > place.index => {
                self.entry_fault(FaultKind::Reordered, entry.id, self.line, format!("it comes after leaf {last}"));
            }
            _ => {}
        }
        self.last_index = Some(place.index.max(self.last_index.unwrap_or(0)));
        let proven = |leaf: &Hash| verify_inclusion(leaf, place.index, size, &place.proof, &root);
        let other = entry.other_leaf.as_ref().is_some_and(|other| proven(other).is_ok());
        if let Err(error) = proven(&leaf)
            && !faulty
            && !other
        {
            let detail = format!("it is not in the tree of checkpoint {size}: {error}");
            self.entry_fault(FaultKind::Changed, entry.id, self.line, detail);
        }
    }

    pub(super) fn begin_tail(&mut self) {
        if self.phase == Phase::Outside || self.phase == Phase::Begun && self.kind == Kind::History {
            self.misplaced("an entry stands here before the export has begun");
        }
        if self.phase != Phase::Outside {
            self.phase = Phase::Tail;
        }
    }

    /// Something that was sealed follows what was not: if the batch still waits for it, what stood between is out of place.
    pub(super) fn back_from_tail(&mut self) {
        if self.batch.as_ref().is_none_or(Batch::waits) {
            let detail = "it stands among entries that checkpoints took".to_owned();
            let id = self.last_unsealed;
            self.emit(FaultKind::Reordered, Some(self.line), id.map(|id| (id, id)), None, detail);
        }
        self.phase = Phase::Sealed;
    }

    pub(super) fn unsealed(&mut self, id: Option<i64>) {
        let Some(id) = id else { return };
        if self.sealed_ids.contains(id) {
            self.entry_fault(FaultKind::Duplicated, Some(id), self.line, "a checkpoint took an entry of the same id");
        }
        match self.last_unsealed {
            Some(last) if last == id => self.entry_fault(FaultKind::Duplicated, Some(id), self.line, "it is here twice"),
            Some(last) if last > id => {
                self.entry_fault(FaultKind::Reordered, Some(id), self.line, format!("it comes after entry {last}"));
            }
            _ => self.last_unsealed = Some(id),
        }
    }
}
