//! Handles the lines that are entries. Checks that an entry is allowed at its position in the
//! export, and reports the faults of a checkpoint's entries after the last of these entries.

use super::{Chain, Late, MAX_LATE, Phase, Tree};
use crate::record::{End, Kind};
use crate::verify::FaultKind;
use crate::verify::line::{EntryLine, EntryProblem, Section};
use crate::verify::pending_checkpoint::PendingCheckpoint;
use ledger::IdRanges;
use ledger::merkle::{Frontier, Hash, hash_text, verify_inclusion};

impl Chain<'_> {
    pub(super) fn entry(&mut self, mut entry: EntryLine) {
        let problem = entry.fault.take();
        let (id, line) = (entry.id, self.line);
        match problem.as_deref() {
            None => {}
            // If `other_leaf` is None, the checksum of the entry is correct. An unknown column or
            // format of an entry with a correct checksum is not a fault.
            Some(EntryProblem::Entry(fault))
                if fault.is_unknown() && entry.other_leaf.is_none() =>
            {
                self.entry_fault(FaultKind::NotJudged, id, line, fault.to_string());
            }
            Some(EntryProblem::Unknown(column)) => {
                let detail = format!(
                    "it has a value in the column {column:?}, which the exporter did not know"
                );
                self.entry_fault(FaultKind::NotJudged, id, line, detail);
            }
            Some(EntryProblem::Entry(fault)) => {
                self.entry_fault(FaultKind::Changed, id, line, fault.to_string())
            }
            Some(EntryProblem::NotSealed) => {
                self.entry_fault(
                    FaultKind::Changed,
                    id,
                    line,
                    "it is not the entry that was sealed",
                );
            }
            Some(EntryProblem::Damaged(fault)) => {
                self.entry_fault(
                    FaultKind::Changed,
                    id,
                    line,
                    format!("it is no entry: {}", fault.escape_debug()),
                );
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
                self.entry_fault(
                    FaultKind::Inserted,
                    id,
                    line,
                    "no checkpoint took it, and none can",
                );
            }
            Section::Unsealed => {
                self.begin_tail();
                self.report.unsealed += 1;
                self.unsealed(id);
            }
            // If all entries of the checkpoint were already read, an entry with an unknown column
            // is an unsealed entry.
            Section::Sealed
                if self.kind == Kind::History
                    && matches!(problem.as_deref(), Some(EntryProblem::Unknown(_)))
                    && self.pending.as_ref().is_none_or(|pending| !pending.waits()) =>
            {
                self.begin_tail();
            }
            // A damaged row is allowed among the unsealed entries.
            Section::Sealed
                if self.phase == Phase::Tail
                    && matches!(problem.as_deref(), Some(EntryProblem::Damaged(_))) => {}
            Section::Sealed => {
                self.report.entries += u64::from(there);
                match self.kind {
                    Kind::History => self.sealed(entry),
                    // The code above has already reported an entry with an unknown column. A
                    // selection contains no proof for such an entry.
                    Kind::Selection
                        if matches!(problem.as_deref(), Some(EntryProblem::Unknown(_))) => {}
                    Kind::Selection => {
                        self.selected(&entry, problem.is_some_and(|problem| !problem.is_unknown()))
                    }
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
        if self.pending.is_none() && self.phase == Phase::Anchored {
            // If no checkpoint precedes an entry, the checkpoint of the entry is missing. The next
            // checkpoint shows which leaves belong to the missing checkpoint.
            let size = self.tree.as_ref().map_or(0, |tree| tree.size);
            self.pending =
                Some(PendingCheckpoint::new(size, [0; 32], None, IdRanges::new(), self.line));
            self.phase = Phase::Sealed;
        }
        let Some(pending) = &mut self.pending else {
            if !self.was_late(entry.id, self.line) {
                self.misplaced("an entry stands here that no checkpoint is before");
            }
            return;
        };
        let mut entry = entry;
        pending.key_changes.extend(entry.key_change.take().map(|change| *change));
        let Some(leaf) = pending.arrive(entry, self.line) else { return };
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
        let (Some((size, root, _)), Some(place), Some(leaf)) =
            (self.proven_by, &entry.place, entry.leaf)
        else {
            if !faulty {
                self.misplaced("an entry of a selection has an index and a proof");
            }
            return;
        };
        match self.last_index {
            Some(last) if last == place.index => {
                self.entry_fault(
                    FaultKind::Duplicated,
                    entry.id,
                    self.line,
                    format!("leaf {last} is here twice"),
                );
            }
            Some(last) if last > place.index => {
                self.entry_fault(
                    FaultKind::Reordered,
                    entry.id,
                    self.line,
                    format!("it comes after leaf {last}"),
                );
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
        if self.phase == Phase::Outside || self.phase == Phase::Begun && self.kind == Kind::History
        {
            self.misplaced("an entry stands here before the export has begun");
        }
        if self.phase != Phase::Outside {
            self.phase = Phase::Tail;
        }
    }

    /// Handles a sealed entry that follows an unsealed entry. If the checkpoint still lacks
    /// entries, the unsealed entry is out of place.
    pub(super) fn back_from_tail(&mut self) {
        if self.pending.as_ref().is_none_or(PendingCheckpoint::waits) {
            let detail = "it stands among entries that checkpoints took".to_owned();
            let id = self.last_unsealed;
            self.emit(FaultKind::Reordered, Some(self.line), id.map(|id| (id, id)), None, detail);
        }
        self.phase = Phase::Sealed;
    }

    pub(super) fn unsealed(&mut self, id: Option<i64>) {
        let Some(id) = id else { return };
        if self.sealed_ids.contains(id) {
            self.entry_fault(
                FaultKind::Duplicated,
                Some(id),
                self.line,
                "a checkpoint took an entry of the same id",
            );
        }
        match self.last_unsealed {
            Some(last) if last == id => {
                self.entry_fault(FaultKind::Duplicated, Some(id), self.line, "it is here twice")
            }
            Some(last) if last > id => {
                self.entry_fault(
                    FaultKind::Reordered,
                    Some(id),
                    self.line,
                    format!("it comes after entry {last}"),
                );
            }
            _ => self.last_unsealed = Some(id),
        }
    }

    /// Ends the current checkpoint, and reports the faults of its entries. `next_base` is the tree
    /// size at which the entries of the next checkpoint begin. `cut` means that the file ends among
    /// the entries of the current checkpoint.
    pub(super) fn finish_checkpoint(&mut self, next_base: Option<u64>, cut: bool) {
        let Some(mut pending) = self.pending.take() else { return };
        let Some(mut tree) = self.tree.take() else { return };
        let (line, dropped) = (self.line, pending.dropped);
        self.line = pending.line;
        self.judge_note(&mut pending, cut);
        if pending.is_complete() {
            self.compare_root(&mut tree, &pending, cut);
            self.flush_late();
        } else {
            let kept = pending.kept() as u64;
            let result = pending.finish(tree.edge.as_ref());
            if !pending.plausible {
                if kept == pending.leaves {
                    let detail = format!("it has {} ids for {kept} leaves", pending.ids.count());
                    self.checkpoint_fault(FaultKind::CheckpointChanged, pending.tree_size, detail);
                } else if let Some(base) = pending
                    .tree_size
                    .checked_sub(pending.ids.count())
                    .filter(|&base| base > tree.size)
                {
                    let detail = format!(
                        "leaves {} to {} of the tree, before this checkpoint, are not here",
                        tree.size,
                        base - 1
                    );
                    self.checkpoint_fault(FaultKind::Missing, pending.tree_size, detail);
                } else {
                    let detail =
                        format!("it has {} ids for {} leaves", pending.ids.count(), pending.leaves);
                    self.checkpoint_fault(FaultKind::CheckpointChanged, pending.tree_size, detail);
                }
            }
            for &(id, line) in &result.duplicated {
                self.entry_fault(FaultKind::Duplicated, Some(id), line, "it is here twice");
            }
            for &(id, line) in &result.reordered {
                self.entry_fault(
                    FaultKind::Reordered,
                    Some(id),
                    line,
                    "it is not where it was sealed",
                );
            }
            let mut extra = result.extra;
            extra.retain(|&(id, line, _)| !self.was_late(id, line));
            self.flush_late();
            let ids_of_missing = self.name_malformed(&mut pending, &result.missing);
            let missing = result.missing.count();
            if !cut && !ids_of_missing {
                if missing <= MAX_LATE {
                    self.late.extend(
                        result.missing.iter().map(|id| Late { id, tree_size: pending.tree_size }),
                    );
                } else {
                    for ids in result.missing.ranges() {
                        let detail = "it is not where it was sealed".to_owned();
                        self.emit(
                            FaultKind::Missing,
                            Some(pending.line),
                            Some((ids.first, ids.last)),
                            None,
                            detail,
                        );
                    }
                }
            }
            if missing > 0 && tree.edge.is_some() || dropped > 0 {
                tree.edge = None;
            }
            match result.leaves {
                Some(leaves) => self.push(&mut tree, leaves),
                None => tree.edge = None,
            }
            if dropped > 0 {
                let detail = format!(
                    "{dropped} more entries than fit into memory are out of order after it"
                );
                self.checkpoint_fault(FaultKind::Malformed, pending.tree_size, detail);
            }
            self.compare_root(&mut tree, &pending, cut);
            self.place_extra(&mut tree, extra, next_base);
        }
        self.line = line;
        self.tree = Some(tree);
    }

    pub(super) fn push(&mut self, tree: &mut Tree, leaves: Vec<Hash>) {
        for leaf in leaves {
            if let Some(edge) = &mut tree.edge {
                edge.push(leaf);
                if self.ahead.last() == Some(&edge.size()) {
                    let root = edge.root();
                    self.compare_ahead(edge.size(), &root, tree.suspect);
                }
            }
        }
    }

    /// Reports the malformed lines among the entries of a checkpoint. If there are as many missing
    /// ids as malformed lines, the report names the ids, and the function returns true.
    pub(super) fn name_malformed(
        &mut self,
        pending: &mut PendingCheckpoint,
        missing: &IdRanges,
    ) -> bool {
        let malformed = std::mem::take(&mut pending.malformed);
        let named = !malformed.is_empty() && missing.count() == malformed.len() as u64;
        let mut ids = missing.iter();
        for (line, detail) in malformed {
            let id = if named { ids.next() } else { None };
            self.entry_fault(FaultKind::Malformed, id, line, detail);
        }
        named
    }

    /// Returns whether this entry was missing among the entries of an earlier checkpoint. If it was
    /// missing there, reports the entry as out of place.
    pub(super) fn was_late(&mut self, id: Option<i64>, line: u64) -> bool {
        let Some(at) = self.late.iter().position(|late| Some(late.id) == id) else { return false };
        self.late.swap_remove(at);
        self.entry_fault(FaultKind::Reordered, id, line, "it is not where it was sealed");
        true
    }

    pub(super) fn flush_late(&mut self) {
        for late in std::mem::take(&mut self.late) {
            let detail = "it is not where it was sealed".to_owned();
            self.emit(
                FaultKind::Missing,
                None,
                Some((late.id, late.id)),
                Some(late.tree_size),
                detail,
            );
        }
    }

    /// Handles the entries that follow after the entries of a checkpoint without belonging to the
    /// checkpoint. If an entry does not belong to the checkpoint, either somebody inserted the
    /// entry, or the entry's own checkpoint is missing.
    pub(super) fn place_extra(
        &mut self,
        tree: &mut Tree,
        extra: Vec<(Option<i64>, u64, Option<Hash>)>,
        next_base: Option<u64>,
    ) {
        if extra.is_empty() {
            return;
        }
        let size = tree.size + extra.len() as u64;
        if next_base != Some(size) {
            for (id, line, _) in extra {
                self.entry_fault(
                    FaultKind::Inserted,
                    id,
                    line,
                    "the checkpoint before it did not take it",
                );
            }
            return;
        }
        let detail =
            format!("the checkpoint that took leaves {} to {} is not here", tree.size, size - 1);
        self.emit(FaultKind::Missing, Some(extra[0].1), None, None, detail);
        match extra.iter().map(|(_, _, leaf)| *leaf).collect::<Option<Vec<_>>>() {
            Some(leaves) => self.push(tree, leaves),
            None => tree.edge = None,
        }
        tree.size = size;
    }

    /// Compares the root of the computed tree with the root in the checkpoint.
    pub(super) fn compare_root(&mut self, tree: &mut Tree, pending: &PendingCheckpoint, cut: bool) {
        if cut && tree.edge.as_ref().is_none_or(|edge| edge.size() != pending.tree_size) {
            // The caller of `finish_checkpoint` reports that the export ends early.
            tree.edge = None;
            return;
        }
        if pending.leaves == 0 {
            return;
        }
        tree.size = pending.tree_size;
        self.report.tree_size = self.report.tree_size.max(tree.size);
        let given = pending.edge.clone().map(|edge| Frontier::from_parts(pending.tree_size, edge));
        let given = match given {
            Some(Ok(edge)) if edge.root() == pending.root => Some(edge),
            Some(_) => {
                let detail = "the right edge of the tree does not give its root";
                self.checkpoint_fault(FaultKind::CheckpointChanged, pending.tree_size, detail);
                None
            }
            None => None,
        };
        match &tree.edge {
            Some(edge) if edge.size() == pending.tree_size && edge.root() == pending.root => {
                tree.suspect = false
            }
            Some(edge) => {
                if !tree.suspect {
                    self.wrong_root(pending, edge.root());
                }
                tree.suspect = edge.size() == pending.tree_size;
                if !tree.suspect {
                    tree.edge = None;
                }
            }
            None => self.unjudged += 1,
        }
        if tree.suspect || tree.edge.is_none() {
            if let Some(given) = given {
                // The right edge `given` yields the root of the checkpoint, so the verifier
                // continues with `given`.
                (tree.edge, tree.suspect) = (Some(given), false);
                self.ahead.retain(|&known| known >= pending.tree_size);
            } else {
                return;
            }
        }
        if pending.signed {
            self.vouch(pending.tree_size);
        }
    }

    pub(super) fn wrong_root(&mut self, pending: &PendingCheckpoint, root: Hash) {
        let detail = format!(
            "they give the root {}, checkpoint {} has {}",
            hash_text(&root),
            pending.tree_size,
            hash_text(&pending.root)
        );
        let ids = pending
            .ids
            .ranges()
            .first()
            .zip(pending.ids.ranges().last())
            .map(|(first, last)| (first.first, last.last));
        // If the log has signed the checkpoint, the checkpoint is unchanged and the entries were
        // changed.
        let kind = if pending.signed { FaultKind::Changed } else { FaultKind::CheckpointChanged };
        self.emit(kind, Some(pending.line), ids, Some(pending.tree_size), detail);
    }

    pub(super) fn end(&mut self, end: End) {
        if self.phase == Phase::Outside || self.phase == Phase::Begun && self.kind == Kind::History
        {
            self.misplaced("an \"end\" record cannot stand here");
        }
        let to = self.phase;
        self.finish_checkpoint(Some(end.tree_size), false);
        self.flush_late();
        self.judge_header();
        self.phase = Phase::Outside;
        let size = match self.kind {
            Kind::History => self.tree.as_ref().map_or(0, |tree| tree.size),
            Kind::Selection => self.proven_by.map_or(0, |(size, ..)| size),
        };
        // If this export already has faults, the numbers in its last line are not checked. Missing
        // and superfluous lines are among the reported faults of entries.
        if self.report.fault_count() > self.faults_before || to == Phase::Outside {
            return;
        }
        if end.tree_size != size {
            self.emit(
                FaultKind::Missing,
                Some(self.line),
                None,
                None,
                format!("the export ends with a tree of {size} leaves, but says {}", end.tree_size),
            );
        } else if end.lines.checked_add(1) != Some(self.lines) {
            let kind =
                if end.lines >= self.lines { FaultKind::Missing } else { FaultKind::Inserted };
            let detail = format!(
                "the export has {} lines before its end, but says {}",
                self.lines - 1,
                end.lines
            );
            self.emit(kind, Some(self.line), None, None, detail);
        }
    }
}
