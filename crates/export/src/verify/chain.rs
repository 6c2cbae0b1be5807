//! The lines one after the other: what may follow what, the tree's right edge, and the checkpoints that were kept.

use super::batch::Batch;
use super::line::{EntryLine, EntryProblem, Line, Opened, OpenedNote, Section};
use super::{Fault, FaultKind, Report, Trust};
use crate::IdRanges;
use crate::record::{CheckpointRecord, End, Header, Kind, Start};
use ledger::merkle::{Frontier, Hash, hash_text, verify_consistency, verify_inclusion};
use std::collections::BTreeSet;

/// Ranges of sealed ids that are remembered at most, to notice one that occurs again.
const MAX_ID_RANGES: usize = 1 << 20;

/// Missing entries of a batch that may still turn up in the next one.
const MAX_LATE: u64 = 16;

/// Where in an export the lines are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Before `export`, or after `end`.
    Outside,
    /// After `export`.
    Begun,
    /// After `start`, or after the checkpoint of a selection.
    Anchored,
    /// Among the entries that checkpoints took.
    Sealed,
    /// Among those that none took.
    Tail,
}

/// The tree that the lines have led to.
#[derive(Debug, Clone)]
struct Tree {
    size: u64,
    /// Its right edge; None if something that is missing has left it unknown.
    edge: Option<Frontier>,
    /// The last checkpoint had another root: either it or an entry before it was changed.
    suspect: bool,
}

/// An entry that did not arrive where it should.
struct Late {
    id: i64,
    tree_size: u64,
}

/// The state of verification between two lines.
pub(super) struct Chain<'t> {
    trust: &'t Trust,
    sink: &'t mut dyn FnMut(Fault),
    pub report: Report,
    file: String,
    line: u64,
    phase: Phase,
    kind: Kind,
    /// Lines of this export, and faults before it.
    lines: u64,
    faults_before: u64,
    tree: Option<Tree>,
    batch: Option<Batch>,
    late: Vec<Late>,
    /// Kept checkpoints that the tree has not grown to yet, and those that it has the root of.
    ahead: Vec<u64>,
    matched: BTreeSet<u64>,
    signed_before: bool,
    last_signed: Option<bool>,
    /// Of a selection: size and root that the proofs lead to, and whether they are signed.
    proven_by: Option<(u64, Hash, bool)>,
    last_index: Option<u64>,
    last_unsealed: Option<i64>,
    sealed_ids: IdRanges,
    unjudged: u64,
}

impl<'t> Chain<'t> {
    pub fn new(trust: &'t Trust, sink: &'t mut dyn FnMut(Fault)) -> Self {
        let report = Report { origin: trust.origin.clone(), ..Report::default() };
        Chain {
            trust,
            sink,
            report,
            file: String::new(),
            line: 0,
            phase: Phase::Outside,
            kind: Kind::History,
            lines: 0,
            faults_before: 0,
            tree: None,
            batch: None,
            late: Vec::new(),
            ahead: Vec::new(),
            matched: BTreeSet::new(),
            signed_before: false,
            last_signed: None,
            proven_by: None,
            last_index: None,
            last_unsealed: None,
            sealed_ids: IdRanges::new(),
            unjudged: 0,
        }
    }

    // ---- faults ------------------------------------------------------------------------------------------------------

    fn emit(&mut self, kind: FaultKind, line: Option<u64>, ids: Option<(i64, i64)>, tree_size: Option<u64>, detail: String) {
        *self.report.faults.entry(kind).or_default() += 1;
        (self.sink)(Fault { kind, file: self.file.clone(), line, ids, tree_size, detail });
    }

    fn entry_fault(&mut self, kind: FaultKind, id: Option<i64>, line: u64, detail: impl Into<String>) {
        self.emit(kind, Some(line), id.map(|id| (id, id)), None, detail.into());
    }

    fn checkpoint_fault(&mut self, kind: FaultKind, tree_size: u64, detail: impl Into<String>) {
        self.emit(kind, Some(self.line), None, Some(tree_size), detail.into());
    }

    fn misplaced(&mut self, detail: impl Into<String>) {
        self.emit(FaultKind::Malformed, Some(self.line), None, None, detail.into());
    }

    // ---- files and lines -----------------------------------------------------------------------------------------------

    pub fn begin_file(&mut self, name: &str) {
        self.file = name.to_owned();
        self.line = 0;
    }

    /// The file has ended. `cut` if it could not be read to its end, which is no fault of the export.
    pub fn end_file(&mut self, cut: bool) {
        if self.phase != Phase::Outside {
            self.finish_batch(None, true);
            if !cut {
                let detail = "the file ends before its \"end\" record".to_owned();
                self.emit(FaultKind::Truncated, None, None, None, detail);
            }
        } else if self.line == 0 && !cut {
            self.emit(FaultKind::Truncated, None, None, None, "the file is empty".to_owned());
        }
        self.flush_late();
        self.phase = Phase::Outside;
    }

    pub fn take(&mut self, line: u64, judged: Line) {
        self.line = line;
        self.lines += 1;
        match judged {
            Line::Malformed(error) => self.malformed(error.to_string()),
            Line::Export(header) => self.export(header),
            Line::Start(start, opened) => self.start(start, opened),
            Line::Consistency { from_size, hashes } => self.consistency(from_size, &hashes),
            Line::Checkpoint(checkpoint) => self.checkpoint(checkpoint.0, checkpoint.1),
            Line::Entry(entry) => self.entry(entry),
            Line::End(end) => self.end(end),
        }
    }

    fn malformed(&mut self, detail: String) {
        if let Some(batch) = &mut self.batch
            && batch.malformed(self.line, detail.clone())
        {
            return;
        }
        self.emit(FaultKind::Malformed, Some(self.line), None, None, detail);
    }

    fn export(&mut self, header: Header) {
        if self.phase != Phase::Outside {
            self.finish_batch(None, true);
            self.emit(
                FaultKind::Truncated,
                Some(self.line),
                None,
                None,
                "another export begins before this one has ended".to_owned(),
            );
        }
        self.phase = Phase::Begun;
        self.kind = header.kind;
        self.lines = 1;
        self.faults_before = self.report.fault_count();
        self.last_unsealed = None;
        self.last_index = None;
        self.proven_by = None;
        if let Some(origin) = &header.origin {
            self.check_origin(origin, None);
        }
    }

    fn check_origin(&mut self, origin: &str, tree_size: Option<u64>) {
        match &self.report.origin {
            None => self.report.origin = Some(origin.to_owned()),
            Some(expected) if expected != origin => {
                let detail = format!("it is of the log {origin:?}, not of {expected:?}");
                self.emit(FaultKind::Forked, Some(self.line), None, tree_size, detail);
            }
            Some(_) => {}
        }
    }

    // ---- checkpoints ---------------------------------------------------------------------------------------------------

    /// What a note says, and whether it is signed, held against what is stored beside it.
    fn opened(&mut self, opened: Opened, tree_size: u64, root: Option<Hash>) -> Option<OpenedNote> {
        let note = match opened {
            Ok(note) => note,
            Err(error) => {
                self.checkpoint_fault(FaultKind::CheckpointChanged, tree_size, format!("its note is none: {error}"));
                return None;
            }
        };
        if note.checkpoint.size() != tree_size {
            let detail = format!("its note is of the tree size {}", note.checkpoint.size());
            self.checkpoint_fault(FaultKind::CheckpointChanged, tree_size, detail);
        } else if let Some(root) = root
            && root != *note.checkpoint.root()
        {
            let detail =
                format!("its note has the root {}, {} is stored beside it", hash_text(note.checkpoint.root()), hash_text(&root));
            self.checkpoint_fault(FaultKind::CheckpointChanged, tree_size, detail);
        }
        self.check_origin(note.checkpoint.origin(), Some(tree_size));
        let signed = match &note.signed {
            Ok(signed) => *signed,
            Err(error) => {
                self.checkpoint_fault(FaultKind::SignatureBad, tree_size, error.to_string());
                // Said once is enough: it does not count as one that is not signed.
                self.last_signed = None;
                return Some(note);
            }
        };
        if !signed && self.signed_before {
            self.checkpoint_fault(FaultKind::SignatureBad, tree_size, "it is not signed by the key, though one before it is");
        }
        self.signed_before |= signed;
        self.last_signed = Some(signed || self.signed_before);
        Some(note)
    }

    fn start(&mut self, start: Start, opened: Option<Opened>) {
        if self.phase != Phase::Begun || self.kind != Kind::History {
            self.misplaced("a \"start\" record cannot stand here");
            return;
        }
        self.phase = Phase::Anchored;
        let size = start.tree_size;
        let note = opened.and_then(|opened| self.opened(opened, size, None));
        if note.is_none() && size > 0 && start.note.is_none() {
            self.checkpoint_fault(FaultKind::CheckpointChanged, size, "the export starts with a tree that has no note");
        }
        let root = note.as_ref().map(|note| *note.checkpoint.root());
        let edge = match Frontier::from_parts(size, start.edge) {
            Ok(edge) if root.is_none_or(|root| root == edge.root()) => Some(edge),
            Ok(_) => {
                self.checkpoint_fault(FaultKind::CheckpointChanged, size, "the right edge of the tree does not give its root");
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
            self.ahead = self.trust.known.keys().copied().filter(|&known| known >= size).rev().collect();
        }
        self.tree = Some(Tree { size, edge, suspect: false });
        self.report.tree_size = self.report.tree_size.max(size);
        self.reached();
        if let (Some(note), true) = (&note, self.edge_is_known())
            && matches!(note.signed, Ok(true))
        {
            self.vouch(size);
        }
    }

    /// Whether an export goes on where the one before it ended.
    fn follows(&mut self, before: &Tree, size: u64, edge: Option<&Frontier>) {
        if size > before.size {
            let detail = format!("leaves {} to {} of the tree are in no export that was given", before.size, size - 1);
            self.emit(FaultKind::Missing, Some(self.line), None, Some(size), detail);
        } else if size < before.size {
            let detail =
                format!("it starts with a tree of {size} leaves, though the export before it ended with {}", before.size);
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

    fn edge_is_known(&self) -> bool {
        self.tree.as_ref().is_some_and(|tree| tree.edge.is_some())
    }

    fn consistency(&mut self, from_size: u64, hashes: &[Hash]) {
        let to = match (self.kind, &self.tree, self.proven_by) {
            _ if self.phase != Phase::Anchored => None,
            (Kind::Selection, _, Some((size, root, signed))) => Some((size, root, signed)),
            (Kind::History, Some(Tree { size, edge: Some(edge), .. }), _) => Some((*size, edge.root(), false)),
            _ => None,
        };
        if self.phase != Phase::Anchored {
            self.misplaced("a \"consistency\" record cannot stand here");
        }
        let (Some((size, root, _)), Some(known)) = (to, self.trust.known.get(&from_size)) else { return };
        match verify_consistency(from_size, &known.root, size, &root, hashes) {
            Ok(()) => {
                self.matched.insert(from_size);
                // The older tree vouches for itself only.
                self.vouch(from_size);
            }
            Err(error) => {
                let detail = format!("it does not extend the checkpoint of {from_size} leaves in {}: {error}", known.from);
                self.emit(FaultKind::Forked, Some(self.line), None, Some(size), detail);
            }
        }
    }

    fn checkpoint(&mut self, record: CheckpointRecord, opened: Opened) {
        if self.kind == Kind::Selection {
            return self.checkpoint_of_selection(&record, opened);
        }
        let count = record.entry_ids.count();
        let base = record.tree_size.checked_sub(count);
        if self.phase == Phase::Tail {
            let detail = "it stands before a checkpoint".to_owned();
            self.emit(FaultKind::Reordered, Some(self.line), self.last_unsealed.map(|id| (id, id)), None, detail);
            self.phase = Phase::Sealed;
        }
        self.finish_batch(base, false);
        if !matches!(self.phase, Phase::Anchored | Phase::Sealed) {
            self.misplaced("a \"checkpoint\" record cannot stand here");
        }
        self.phase = Phase::Sealed;
        self.report.checkpoints += 1;
        let note = self.opened(opened, record.tree_size, Some(record.root));
        let signed = note.as_ref().is_some_and(|note| matches!(note.signed, Ok(true)));
        self.report.signed += u64::from(signed);
        let (tree_size, root) = match &note {
            Some(note) if note.checkpoint.size() == record.tree_size || signed => {
                (note.checkpoint.size(), *note.checkpoint.root())
            }
            _ => (record.tree_size, record.root),
        };
        // Without a start there is still something to hold the ids against.
        let tree = self.tree.get_or_insert_with(|| Tree { size: base.unwrap_or(0), edge: None, suspect: false });
        let size = tree.size;
        self.report.from_size.get_or_insert(size);
        let mut batch = Batch::new(tree_size, root, signed, record.entry_ids, self.line);
        batch.edge = record.edge;
        if tree_size <= size {
            batch.expect_nothing();
            batch.leaves = 0;
            let kind = if tree_size == size { FaultKind::Duplicated } else { FaultKind::Reordered };
            self.checkpoint_fault(kind, tree_size, format!("it comes after the one of {size} leaves"));
        } else {
            batch.leaves = tree_size - size;
            batch.plausible = batch.leaves == count;
            self.remember_ids(&batch.ids, tree_size);
        }
        self.batch = Some(batch);
    }

    fn remember_ids(&mut self, ids: &IdRanges, tree_size: u64) {
        for &(from, to) in ids.ranges() {
            if self.sealed_ids.ranges().len() < MAX_ID_RANGES && !self.sealed_ids.insert_range(from, to) {
                let detail = "an earlier checkpoint took an entry of the same id".to_owned();
                self.emit(FaultKind::Duplicated, Some(self.line), Some((from, to)), Some(tree_size), detail);
            }
        }
    }

    fn checkpoint_of_selection(&mut self, record: &CheckpointRecord, opened: Opened) {
        if self.phase != Phase::Begun {
            self.misplaced("a \"checkpoint\" record cannot stand here");
            return;
        }
        self.phase = Phase::Anchored;
        self.report.checkpoints += 1;
        let size = record.tree_size;
        let note = self.opened(opened, size, Some(record.root));
        let signed = note.as_ref().is_some_and(|note| matches!(note.signed, Ok(true)));
        self.report.signed += u64::from(signed);
        let root = note.as_ref().map_or(record.root, |note| *note.checkpoint.root());
        if let Some(edge) = &record.edge
            && Frontier::from_parts(size, edge.clone()).is_ok_and(|edge| edge.root() != root)
        {
            self.checkpoint_fault(FaultKind::CheckpointChanged, size, "the right edge of the tree does not give its root");
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

    // ---- entries -------------------------------------------------------------------------------------------------------

    fn entry(&mut self, mut entry: EntryLine) {
        let problem = entry.fault.take();
        let (id, line) = (entry.id, self.line);
        match problem.as_deref() {
            None => {}
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
            // Something that is no entry has no place of its own.
            Section::Sealed if self.phase == Phase::Tail && matches!(problem.as_deref(), Some(EntryProblem::Damaged(_))) => {}
            Section::Sealed => {
                self.report.entries += u64::from(there);
                match self.kind {
                    Kind::History => self.sealed(entry),
                    Kind::Selection => self.selected(&entry, problem.is_some()),
                }
            }
        }
    }

    fn sealed(&mut self, entry: EntryLine) {
        if entry.place.is_some() {
            self.misplaced("an entry of a history has no proof of its own");
        }
        if self.phase == Phase::Tail {
            self.back_from_tail();
        }
        if self.batch.is_none() && self.phase == Phase::Anchored {
            // If the checkpoint that took it is not there, the next one will tell.
            let size = self.tree.as_ref().map_or(0, |tree| tree.size);
            self.batch = Some(Batch::new(size, [0; 32], false, IdRanges::new(), self.line));
            self.phase = Phase::Sealed;
        }
        let Some(batch) = &mut self.batch else {
            if !self.was_late(entry.id, self.line) {
                self.misplaced("an entry stands here that no checkpoint is before");
            }
            return;
        };
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

    fn selected(&mut self, entry: &EntryLine, faulty: bool) {
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

    fn begin_tail(&mut self) {
        if self.phase == Phase::Outside || self.phase == Phase::Begun && self.kind == Kind::History {
            self.misplaced("an entry stands here before the export has begun");
        }
        if self.phase != Phase::Outside {
            self.phase = Phase::Tail;
        }
    }

    /// Something that was sealed follows what was not: if the batch still waits for it, what stood between is out of place.
    fn back_from_tail(&mut self) {
        if self.batch.as_ref().is_none_or(Batch::waits) {
            let detail = "it stands among entries that checkpoints took".to_owned();
            let id = self.last_unsealed;
            self.emit(FaultKind::Reordered, Some(self.line), id.map(|id| (id, id)), None, detail);
        }
        self.phase = Phase::Sealed;
    }

    fn unsealed(&mut self, id: Option<i64>) {
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

    // ---- the end of a batch, of an export, of everything ---------------------------------------------------------------

    /// Ends the batch. `next_base` is where the next one says that this one ends; `cut` if its end is not there.
    fn finish_batch(&mut self, next_base: Option<u64>, cut: bool) {
        let Some(mut batch) = self.batch.take() else { return };
        let Some(mut tree) = self.tree.take() else { return };
        let (line, dropped) = (self.line, batch.dropped);
        self.line = batch.line;
        if batch.is_complete() {
            self.settle(&mut tree, &batch, cut);
            self.flush_late();
        } else {
            let kept = batch.kept() as u64;
            let outcome = batch.finish(tree.edge.as_ref());
            if !batch.plausible {
                if kept == batch.leaves {
                    let detail = format!("it has {} ids for {kept} leaves", batch.ids.count());
                    self.checkpoint_fault(FaultKind::CheckpointChanged, batch.tree_size, detail);
                } else if let Some(base) = batch.tree_size.checked_sub(batch.ids.count()).filter(|&base| base > tree.size) {
                    let detail =
                        format!("leaves {} to {} of the tree, before this checkpoint, are not here", tree.size, base - 1);
                    self.checkpoint_fault(FaultKind::Missing, batch.tree_size, detail);
                } else {
                    let detail = format!("it has {} ids for {} leaves", batch.ids.count(), batch.leaves);
                    self.checkpoint_fault(FaultKind::CheckpointChanged, batch.tree_size, detail);
                }
            }
            for &(id, line) in &outcome.duplicated {
                self.entry_fault(FaultKind::Duplicated, Some(id), line, "it is here twice");
            }
            for &(id, line) in &outcome.reordered {
                self.entry_fault(FaultKind::Reordered, Some(id), line, "it is not where it was sealed");
            }
            let mut extra = outcome.extra;
            extra.retain(|&(id, line, _)| !self.was_late(id, line));
            self.flush_late();
            let ids_of_missing = self.name_malformed(&mut batch, &outcome.missing);
            let missing = outcome.missing.count();
            if !cut && !ids_of_missing {
                if missing <= MAX_LATE {
                    self.late.extend(outcome.missing.iter().map(|id| Late { id, tree_size: batch.tree_size }));
                } else {
                    for &(from, to) in outcome.missing.ranges() {
                        let detail = "it is not where it was sealed".to_owned();
                        self.emit(FaultKind::Missing, Some(batch.line), Some((from, to)), None, detail);
                    }
                }
            }
            if missing > 0 && tree.edge.is_some() || dropped > 0 {
                tree.edge = None;
            }
            match outcome.leaves {
                Some(leaves) => self.push(&mut tree, leaves),
                None => tree.edge = None,
            }
            if dropped > 0 {
                let detail = format!("{dropped} more entries than fit into memory are out of order after it");
                self.checkpoint_fault(FaultKind::Malformed, batch.tree_size, detail);
            }
            self.settle(&mut tree, &batch, cut);
            self.place_extra(&mut tree, extra, next_base);
        }
        self.line = line;
        self.tree = Some(tree);
    }

    fn push(&mut self, tree: &mut Tree, leaves: Vec<Hash>) {
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

    /// Malformed lines of a batch, with the ids that should be there if there is no doubt which.
    fn name_malformed(&mut self, batch: &mut Batch, missing: &IdRanges) -> bool {
        let malformed = std::mem::take(&mut batch.malformed);
        let named = !malformed.is_empty() && missing.count() == malformed.len() as u64;
        let mut ids = missing.iter();
        for (line, detail) in malformed {
            let id = if named { ids.next() } else { None };
            self.entry_fault(FaultKind::Malformed, id, line, detail);
        }
        named
    }

    /// Whether this entry is one that was missing from the batch before.
    fn was_late(&mut self, id: Option<i64>, line: u64) -> bool {
        let Some(at) = self.late.iter().position(|late| Some(late.id) == id) else { return false };
        self.late.swap_remove(at);
        self.entry_fault(FaultKind::Reordered, id, line, "it is not where it was sealed");
        true
    }

    fn flush_late(&mut self) {
        for late in std::mem::take(&mut self.late) {
            let detail = "it is not where it was sealed".to_owned();
            self.emit(FaultKind::Missing, None, Some((late.id, late.id)), Some(late.tree_size), detail);
        }
    }

    /// Entries after a batch that are not its own: either they were inserted, or the checkpoint that took them is not there.
    fn place_extra(&mut self, tree: &mut Tree, extra: Vec<(Option<i64>, u64, Option<Hash>)>, next_base: Option<u64>) {
        if extra.is_empty() {
            return;
        }
        let size = tree.size + extra.len() as u64;
        if next_base != Some(size) {
            for (id, line, _) in extra {
                self.entry_fault(FaultKind::Inserted, id, line, "the checkpoint before it did not take it");
            }
            return;
        }
        let detail = format!("the checkpoint that took leaves {} to {} is not here", tree.size, size - 1);
        self.emit(FaultKind::Missing, Some(extra[0].1), None, None, detail);
        match extra.iter().map(|(_, _, leaf)| *leaf).collect::<Option<Vec<_>>>() {
            Some(leaves) => self.push(tree, leaves),
            None => tree.edge = None,
        }
        tree.size = size;
    }

    /// Holds the tree against the root that its checkpoint has.
    fn settle(&mut self, tree: &mut Tree, batch: &Batch, cut: bool) {
        if cut && tree.edge.as_ref().is_none_or(|edge| edge.size() != batch.tree_size) {
            // The rest of it is not there, which is said elsewhere.
            tree.edge = None;
            return;
        }
        if batch.leaves == 0 {
            return;
        }
        tree.size = batch.tree_size;
        self.report.tree_size = self.report.tree_size.max(tree.size);
        let given = batch.edge.clone().map(|edge| Frontier::from_parts(batch.tree_size, edge));
        let given = match given {
            Some(Ok(edge)) if edge.root() == batch.root => Some(edge),
            Some(_) => {
                let detail = "the right edge of the tree does not give its root";
                self.checkpoint_fault(FaultKind::CheckpointChanged, batch.tree_size, detail);
                None
            }
            None => None,
        };
        match &tree.edge {
            Some(edge) if edge.size() == batch.tree_size && edge.root() == batch.root => tree.suspect = false,
            Some(edge) => {
                if !tree.suspect {
                    self.wrong_root(batch, edge.root());
                }
                tree.suspect = edge.size() == batch.tree_size;
                if !tree.suspect {
                    tree.edge = None;
                }
            }
            None => self.unjudged += 1,
        }
        if tree.suspect || tree.edge.is_none() {
            if let Some(given) = given {
                // It has the root of the checkpoint, so from here on all is as it was.
                (tree.edge, tree.suspect) = (Some(given), false);
                self.ahead.retain(|&known| known >= batch.tree_size);
            } else {
                return;
            }
        }
        if batch.signed {
            self.vouch(batch.tree_size);
        }
    }

    fn wrong_root(&mut self, batch: &Batch, root: Hash) {
        let detail =
            format!("they give the root {}, checkpoint {} has {}", hash_text(&root), batch.tree_size, hash_text(&batch.root));
        let ids = batch.ids.ranges().first().zip(batch.ids.ranges().last()).map(|(first, last)| (first.0, last.1));
        // A checkpoint that is signed is the log's own, so it is the entries.
        let kind = if batch.signed { FaultKind::Changed } else { FaultKind::CheckpointChanged };
        self.emit(kind, Some(batch.line), ids, Some(batch.tree_size), detail);
    }

    fn end(&mut self, end: End) {
        if self.phase == Phase::Outside || self.phase == Phase::Begun && self.kind == Kind::History {
            self.misplaced("an \"end\" record cannot stand here");
        }
        let to = self.phase;
        self.finish_batch(Some(end.tree_size), false);
        self.flush_late();
        self.phase = Phase::Outside;
        let size = match self.kind {
            Kind::History => self.tree.as_ref().map_or(0, |tree| tree.size),
            Kind::Selection => self.proven_by.map_or(0, |(size, ..)| size),
        };
        // Where lines are missing or too many, it has been said of the entries already.
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
            let kind = if end.lines >= self.lines { FaultKind::Missing } else { FaultKind::Inserted };
            let detail = format!("the export has {} lines before its end, but says {}", self.lines - 1, end.lines);
            self.emit(kind, Some(self.line), None, None, detail);
        }
    }

    // ---- checkpoints that were kept ------------------------------------------------------------------------------------

    fn vouch(&mut self, size: u64) {
        self.report.vouched = Some(self.report.vouched.unwrap_or(0).max(size));
    }

    /// The tree has the size of a kept checkpoint.
    fn reached(&mut self) {
        let Some(Tree { edge: Some(edge), suspect, .. }) = &self.tree else { return };
        if self.ahead.last() == Some(&edge.size()) {
            let (size, root, suspect) = (edge.size(), edge.root(), *suspect);
            self.compare_ahead(size, &root, suspect);
        }
    }

    fn compare_ahead(&mut self, size: u64, root: &Hash, suspect: bool) {
        self.ahead.pop();
        let Some(known) = self.trust.known.get(&size) else { return };
        if known.root == *root || !suspect {
            let (known_root, from) = (known.root, known.from.clone());
            self.compare(size, root, &known_root, &from);
        }
    }

    fn compare(&mut self, size: u64, root: &Hash, known: &Hash, from: &str) {
        if root == known {
            self.matched.insert(size);
            self.vouch(size);
        } else {
            let detail = format!("it has the root {} here, but {} in {from}", hash_text(root), hash_text(known));
            self.emit(FaultKind::Forked, None, None, Some(size), detail);
        }
    }

    /// Everything was read.
    pub fn finish(mut self) -> Report {
        let end = self.report.tree_size;
        for (&size, known) in &self.trust.known {
            if self.matched.contains(&size) {
                continue;
            }
            if size > end && !self.trust.older && self.report.incomplete.is_none() {
                let detail =
                    format!("the history ends with {end} leaves, before the checkpoint of {size} leaves in {}", known.from);
                self.emit(FaultKind::GoneBack, None, None, Some(size), detail);
            } else if self.report.faults.get(&FaultKind::Forked).is_none_or(|&count| count == 0) {
                self.report.known_unjudged.push(format!(
                    "the checkpoint of {size} leaves in {}: no tree of that size is in what was verified",
                    known.from
                ));
            }
        }
        if !self.trust.keys.is_empty() && self.last_signed == Some(false) {
            let detail = "the last checkpoint is not signed by the key".to_owned();
            self.emit(FaultKind::SignatureBad, None, None, Some(end), detail);
        }
        self.report.known_matched = self.matched.len() as u64;
        if self.report.root.is_none() {
            self.report.root =
                self.tree.as_ref().filter(|tree| !tree.suspect).and_then(|tree| tree.edge.as_ref()).map(Frontier::root);
        }
        self.remark();
        self.report
    }

    /// What could not be told.
    fn remark(&mut self) {
        let report = &mut self.report;
        let remarks = &mut report.remarks;
        match report.vouched {
            None => remarks.push(
                "nothing from outside vouches for it: give the log's public key or a checkpoint that was kept from earlier"
                    .to_owned(),
            ),
            Some(vouched) if vouched < report.tree_size => {
                remarks.push(format!("nothing vouches for leaves {vouched} to {} yet", report.tree_size - 1));
            }
            Some(_) => {}
        }
        if report.vouched.is_some() && self.trust.known.is_empty() {
            remarks
                .push("no checkpoint from earlier was given: whether the newest entries were cut off cannot be told".to_owned());
        } else if report.vouched.is_some() && self.trust.keys.is_empty() && report.checkpoints > report.signed {
            remarks.push("no public key was given: signatures were not verified".to_owned());
        }
        if report.unsealed > 0 {
            remarks.push(format!("{} entries are not sealed yet: only their checksums could be verified", report.unsealed));
        }
        if self.unjudged > 0 {
            remarks.push(format!(
                "the roots of {} checkpoints could not be worked out, because of the faults before them",
                self.unjudged
            ));
        }
    }
}
