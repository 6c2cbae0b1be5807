//! Judges each line independently of other lines, so that lines can be judged in parallel. Parses a
//! line, and verifies the checksums and signatures in it.

use crate::columns::{EntryFault, Judged, judge_entry, judge_whole_entry};
use crate::record::{
    CheckpointRecord, Damaged, End, Header, Place, Record, RecordError, Start, Unknown,
};
use ledger::canonical;
use ledger::checkpoint::Checkpoint;
use ledger::merkle::Hash;
use ledger::note::{Note, NoteError, VerifierKey};
use ledger::{KeyChange, leaf_hash};

/// A parsed line with its verdict.
#[derive(Debug)]
pub(super) enum Line {
    Entry(EntryLine),
    Export(Header),
    Start(Start, Option<Opened>),
    Consistency { from_size: u64, hashes: Vec<Hash> },
    Checkpoint(Box<(CheckpointRecord, Opened)>),
    End(End),
    Malformed(RecordError),
}

/// The part of an export that contains an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Sealed,
    Unsealed,
    Inserted,
}

/// An `entry` record of the export, or the record that stands instead of it, such as `missing`.
#[derive(Debug)]
pub(super) struct EntryLine {
    pub section: Section,
    pub id: Option<i64>,
    /// The leaf that the tree should have at the position of the entry. The value is None if the
    /// leaf is unknown.
    pub leaf: Option<Hash>,
    /// A second possible leaf, computed from the entry's columns. The value is None if the checksum
    /// matches the columns.
    pub other_leaf: Option<Hash>,
    pub place: Option<Place>,
    pub fault: Option<Box<EntryProblem>>,
    /// The change of the log's key or origin that the entry records.
    pub key_change: Option<Box<KeyChange>>,
}

/// The reasons why an entry is not a valid sealed entry.
#[derive(Debug)]
pub(super) enum EntryProblem {
    Entry(EntryFault),
    /// The entry is not the entry that was sealed at its position.
    NotSealed,
    Missing,
    Damaged(String),
    /// The entry has a value in a column that the exporter did not know. The string is the name of
    /// this column.
    Unknown(String),
}

impl EntryProblem {
    /// Returns whether the entry has only an unknown part, which is not a fault.
    pub fn is_unknown(&self) -> bool {
        match self {
            EntryProblem::Entry(fault) => fault.is_unknown(),
            EntryProblem::Unknown(_) => true,
            _ => false,
        }
    }
}

/// The result of reading a note: its content, or the error as text.
pub(super) type Opened = Result<OpenedNote, String>;

/// The content of a note.
#[derive(Debug)]
pub(super) struct OpenedNote {
    pub checkpoint: Checkpoint,
    /// The signers of the note. The value is an error if a signature by a known key is bad.
    pub signers: Result<Signers, NoteError>,
}

/// The signers of a note.
#[derive(Debug, Clone, Default)]
pub(super) struct Signers {
    /// Whether the note has a signature by a known key whose name is the origin of the note.
    pub own: bool,
    /// The known verifier keys, as text, that have signed the note, but have a name other than the
    /// origin of the note. An earlier key of the log can be such a key.
    pub former: Vec<String>,
    /// Whether the note has a signature by an unknown key whose name is the origin of the note.
    pub stranger: bool,
}

/// Parses and judges a line without looking at other lines.
pub(super) fn judge(line: &[u8], keys: &[VerifierKey], scratch: &mut Vec<u8>) -> Line {
    if let Some(entry) = plain_entry(line, scratch) {
        return Line::Entry(entry);
    }
    let record = match Record::parse(line) {
        Ok(record) => record,
        Err(error) => return Line::Malformed(error),
    };
    match record {
        Record::Sealed { checksum, entry, leaf, place } => {
            let mut judged = entry_line(Section::Sealed, entry, &checksum, scratch);
            if let Some(leaf) = leaf {
                judged.leaf = Some(leaf);
                judged.other_leaf = None;
                // `fault` can hold only one problem. The fault `NotSealed` replaces an unknown
                // column or format, which is not a fault.
                if judged.fault.as_ref().is_none_or(|problem| problem.is_unknown()) {
                    judged.fault = Some(Box::new(EntryProblem::NotSealed));
                }
            }
            Line::Entry(EntryLine { place, ..judged })
        }
        Record::Unsealed { checksum, entry } => {
            Line::Entry(entry_line(Section::Unsealed, entry, &checksum, scratch))
        }
        Record::Inserted { checksum, entry } => {
            Line::Entry(entry_line(Section::Inserted, entry, &checksum, scratch))
        }
        Record::Missing { id, leaf } => {
            Line::Entry(instead_of_entry(id, leaf, EntryProblem::Missing))
        }
        Record::Damaged(Damaged { id, fault, leaf }) => {
            Line::Entry(instead_of_entry(id, leaf, EntryProblem::Damaged(fault)))
        }
        Record::Unknown(Unknown { column, id, leaf }) => {
            Line::Entry(instead_of_entry(id, leaf, EntryProblem::Unknown(column)))
        }
        Record::Export(header) => Line::Export(header),
        Record::Start(start) => {
            let opened = start.note.as_deref().map(|note| open(note, keys));
            Line::Start(start, opened)
        }
        Record::Consistency { from_size, hashes } => Line::Consistency { from_size, hashes },
        Record::Checkpoint(checkpoint) => {
            let opened = open(&checkpoint.note, keys);
            Line::Checkpoint(Box::new((checkpoint, opened)))
        }
        Record::End(end) => Line::End(end),
    }
}

/// Reads a sealed entry of a history, the most frequent line: `{"checksum":"…","entry":{…}}`. In
/// the canonical line of a sealed entry, each part has a fixed position, so one pass over the line
/// is enough. Returns None for any other line, even if the line is valid.
fn plain_entry(line: &[u8], scratch: &mut Vec<u8>) -> Option<EntryLine> {
    let (hex, rest) = line.strip_prefix(b"{\"checksum\":\"")?.split_first_chunk::<64>()?;
    let preimage = rest.strip_prefix(b"\",\"entry\":")?.strip_suffix(b"}")?;
    let mut checksum = [0; 32];
    // `decode_to_slice` also accepts uppercase digits, but a record can contain only lowercase
    // digits.
    if hex.iter().any(u8::is_ascii_uppercase)
        || hex::decode_to_slice(hex, &mut checksum).is_err()
        || !preimage.starts_with(b"{")
    {
        return None;
    }
    canonical::check(line).ok()?;
    let preimage = std::str::from_utf8(preimage).ok()?;
    Some(judged_line(Section::Sealed, judge_whole_entry(preimage, &checksum, scratch)?, &checksum))
}

fn entry_line(section: Section, entry: &str, checksum: &Hash, scratch: &mut Vec<u8>) -> EntryLine {
    judged_line(section, judge_entry(entry, checksum, scratch), checksum)
}

fn judged_line(section: Section, judged: Judged, checksum: &Hash) -> EntryLine {
    EntryLine {
        section,
        id: judged.id,
        leaf: Some(leaf_hash(checksum)),
        other_leaf: (judged.computed != *checksum).then(|| leaf_hash(&judged.computed)),
        place: None,
        fault: judged.fault.map(|fault| Box::new(EntryProblem::Entry(fault))),
        key_change: judged.key_change,
    }
}

fn instead_of_entry(id: Option<i64>, leaf: Option<Hash>, problem: EntryProblem) -> EntryLine {
    let fault = Some(Box::new(problem));
    EntryLine {
        section: Section::Sealed,
        id,
        leaf,
        other_leaf: None,
        place: None,
        fault,
        key_change: None,
    }
}

fn open(note: &str, keys: &[VerifierKey]) -> Opened {
    let note = Note::parse_or_unsigned(note.as_bytes()).map_err(|error| error.to_string())?;
    let checkpoint = Checkpoint::parse(note.text()).map_err(|error| error.to_string())?;
    let verified = match note.verify(keys) {
        Err(NoteError::NoKnownSignature) => Ok(Vec::new()),
        other => other,
    };
    let signers = verified.map(|verified| {
        let is_known = |name: &str, id| keys.iter().any(|key| (key.name(), key.id()) == (name, id));
        let origin = checkpoint.origin();
        Signers {
            own: verified.iter().any(|one| one.key.name() == origin),
            former: verified
                .iter()
                .filter(|one| one.key.name() != origin)
                .map(|one| one.key.to_string())
                .collect(),
            stranger: note
                .signatures()
                .iter()
                .any(|one| one.name() == origin && !is_known(one.name(), one.key_id())),
        }
    });
    Ok(OpenedNote { checkpoint, signers })
}
