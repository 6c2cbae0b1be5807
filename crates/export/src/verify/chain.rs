//! The lines one after the other: what may follow what, the tree's right edge, and the checkpoints that were kept.

mod batch_end;
mod checkpoints;
mod entries;
mod kept;

use super::batch::Batch;
use super::line::Line;
use super::{Fault, FaultKind, Report, Trust};
use crate::IdRanges;
use crate::record::{Header, Kind};
use ledger::merkle::{Frontier, Hash};
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
}
