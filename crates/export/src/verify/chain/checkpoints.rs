//! Lines that say where the tree is: `start`, `consistency`, `checkpoint`.

use super::{Chain, MAX_ID_RANGES, Phase, Tree};
use crate::record::{CheckpointRecord, Kind, Start};
use crate::verify::FaultKind;
use crate::verify::batch::{Batch, Said};
use crate::verify::line::{Opened, OpenedNote};
use ledger::merkle::{Frontier, Hash, hash_text, verify_consistency};
use ledger::{IdRange, IdRanges};

impl Chain<'_> {
    /// What a note says, held against what is stored beside it.
    pub(super) fn opened(&mut self, opened: Opened, tree_size: u64, root: Option<Hash>) -> Option<OpenedNote> {
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
            self.checkpoint_fault(FaultKind::CheckpointChanged, size, "the export starts with a tree that has no note");
        }
        let root = note.as_ref().map(|note| *note.checkpoint.root());
        let goes_on = self.tree.is_some();
        let signed = note.as_ref().is_some_and(|note| self.judge_alone(note, goes_on));
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
        if signed && self.edge_is_known() {
            self.vouch(size);
        }
    }

    /// Whether an export goes on where the one before it ended.
    pub(super) fn follows(&mut self, before: &Tree, size: u64, edge: Option<&Frontier>) {
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

    pub(super) fn edge_is_known(&self) -> bool {
        self.tree.as_ref().is_some_and(|tree| tree.edge.is_some())
    }

    pub(super) fn consistency(&mut self, from_size: u64, hashes: &[Hash]) {
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

    pub(super) fn checkpoint(&mut self, record: CheckpointRecord, opened: Opened) {
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
        let signed = note.as_ref().is_some_and(|note| note.signers.as_ref().is_ok_and(|signers| signers.own));
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
        let said = note.map(|note| Said { origin: note.checkpoint.origin().to_owned(), signers: note.signers.ok() });
        let mut batch = Batch::new(tree_size, root, said, record.entry_ids, self.line);
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

    pub(super) fn remember_ids(&mut self, ids: &IdRanges, tree_size: u64) {
        for &IdRange { first, last } in ids.ranges() {
            if self.sealed_ids.ranges().len() < MAX_ID_RANGES && !self.sealed_ids.insert_range(first, last) {
                let detail = "an earlier checkpoint took an entry of the same id".to_owned();
                self.emit(FaultKind::Duplicated, Some(self.line), Some((first, last)), Some(tree_size), detail);
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
        let signed = note.as_ref().is_some_and(|note| self.judge_alone(note, self.report.origin.is_some()));
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
}
