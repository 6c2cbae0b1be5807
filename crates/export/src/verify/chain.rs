//! Processes the lines of the exports in sequence. Checks the order of the lines, computes the
//! tree's right edge, and compares the tree with the kept checkpoints.

mod checkpoints;
mod entries;

use super::line::Line;
use super::pending_checkpoint::PendingCheckpoint;
use super::{Fault, FaultKind, Report, Trust};
use crate::record::{Header, Kind, RecordError};
use ledger::IdRanges;
use ledger::merkle::{Frontier, Hash};
use std::collections::BTreeSet;

/// Maximum number of ranges of ids that the verifier remembers to detect an id that occurs twice.
const MAX_ID_RANGES: usize = 1 << 20;

/// If a checkpoint lacks at most this number of entries, the verifier also looks for these entries
/// among the entries of the next checkpoint.
const MAX_LATE: u64 = 16;

/// The position of the current line in an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Before the record `export`, or after the record `end`.
    Outside,
    /// After the record `export`.
    Begun,
    /// After the record `start`, or after the checkpoint of a selection.
    Anchored,
    /// Among sealed entries.
    Sealed,
    /// Among unsealed entries.
    Tail,
}

/// The state of the tree at the current line.
#[derive(Debug, Clone)]
struct Tree {
    size: u64,
    /// The right edge of the tree: the roots of its perfect subtrees. The value is None if the
    /// right edge is unknown because a part of the tree is missing.
    edge: Option<Frontier>,
    /// Whether the root in the last checkpoint differs from the root of `edge`. A difference means
    /// that either the checkpoint or an earlier entry was changed.
    suspect: bool,
}

/// An entry that is missing among the entries of its checkpoint, but can follow among the entries
/// of the next checkpoint.
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
    /// `lines` is the number of lines of this export up to the current line. `faults_before` is the
    /// number of faults that the verifier found before this export.
    lines: u64,
    faults_before: u64,
    tree: Option<Tree>,
    pending: Option<PendingCheckpoint>,
    late: Vec<Late>,
    /// `ahead` contains the sizes of the kept checkpoints that the tree has not reached yet.
    /// `matched` contains the sizes of the kept checkpoints whose root equals the root of the tree
    /// at this size.
    ahead: Vec<u64>,
    matched: BTreeSet<u64>,
    signed_before: bool,
    last_signed: Option<bool>,
    /// Whether the note at the start of the export has a second signature. The log's next key can
    /// have made the second signature.
    may_have_successor: bool,
    /// The tree size of the largest checkpoint that a known key has signed. The name of this key
    /// must be the origin in the checkpoint.
    signed_to: Option<u64>,
    /// `origins` contains the origins of the notes of this export. `header_origin` is the origin in
    /// the first line of this export.
    origins: Vec<String>,
    header_origin: Option<String>,
    /// Whether one of the checkpoints has the origin that [`Trust::origin`] requires.
    origin_found: bool,
    /// Changes of the origin without a KEY entry in the history.
    unexplained: Vec<Fault>,
    /// The error that ends verification if an export has an unknown version.
    pub other_version: Option<String>,
    histories: u64,
    /// The checkpoint to which the proofs of a selection lead: its tree size, its root, and whether
    /// it is signed. The value is None in a history.
    proven_by: Option<(u64, Hash, bool)>,
    last_index: Option<u64>,
    last_unsealed: Option<i64>,
    sealed_ids: IdRanges,
    unjudged: u64,
}

impl<'t> Chain<'t> {
    pub fn new(trust: &'t Trust, sink: &'t mut dyn FnMut(Fault)) -> Self {
        Chain {
            trust,
            sink,
            report: Report::default(),
            file: String::new(),
            line: 0,
            phase: Phase::Outside,
            kind: Kind::History,
            lines: 0,
            faults_before: 0,
            tree: None,
            pending: None,
            late: Vec::new(),
            ahead: Vec::new(),
            matched: BTreeSet::new(),
            signed_before: false,
            last_signed: None,
            may_have_successor: false,
            signed_to: None,
            origins: Vec::new(),
            header_origin: None,
            origin_found: trust.origin.is_none(),
            unexplained: Vec::new(),
            other_version: None,
            histories: 0,
            proven_by: None,
            last_index: None,
            last_unsealed: None,
            sealed_ids: IdRanges::new(),
            unjudged: 0,
        }
    }

    fn emit(
        &mut self,
        kind: FaultKind,
        line: Option<u64>,
        ids: Option<(i64, i64)>,
        tree_size: Option<u64>,
        detail: String,
    ) {
        match kind {
            FaultKind::NotJudged => self.report.not_judged += 1,
            kind => *self.report.faults.entry(kind).or_default() += 1,
        }
        (self.sink)(Fault { kind, file: self.file.clone(), line, ids, tree_size, detail });
    }

    fn entry_fault(
        &mut self,
        kind: FaultKind,
        id: Option<i64>,
        line: u64,
        detail: impl Into<String>,
    ) {
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

    /// Handles the end of a file. `cut` means that the rest of the file could not be read. An
    /// unreadable file is not a fault of the export.
    pub fn end_file(&mut self, cut: bool) {
        if self.phase != Phase::Outside {
            self.finish_checkpoint(None, true);
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
        if self.other_version.is_some() {
            return;
        }
        self.line = line;
        self.lines += 1;
        match judged {
            // If the version of an export is unknown, this program cannot interpret its lines.
            Line::Malformed(error @ RecordError::Version(_)) => {
                self.other_version = Some(format!("line {line}: {error}"))
            }
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
        if let Some(pending) = &mut self.pending
            && pending.malformed(self.line, detail.clone())
        {
            return;
        }
        self.emit(FaultKind::Malformed, Some(self.line), None, None, detail);
    }

    fn export(&mut self, header: Header) {
        if self.phase != Phase::Outside {
            self.finish_checkpoint(None, true);
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
        self.origins.clear();
        self.header_origin = header.origin;
        if header.kind == Kind::History {
            self.histories += 1;
            // The number of unsealed entries restarts at 0, because an export that continues a
            // history repeats the unsealed entries of this history.
            self.report.unsealed = 0;
        }
    }
}
