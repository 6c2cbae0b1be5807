//! One line of an export: reading it, strictly, and writing it. `docs/FORMAT.md`, "The export", is what this implements.

use crate::columns::instant;
use crate::id_ranges::{IdRanges, IdRangesError, integer};
use crate::unescape;
use ledger::canonical::{self, NotCanonical, members, write_string};
use ledger::merkle::Hash;
use thiserror::Error;

/// The version of the export format that this crate writes and reads.
pub const VERSION: u64 = 1;

/// Hashes that an inclusion or consistency proof, or a right edge, can have at most.
const MAX_HASHES: usize = 130;

/// One line of an export. What is long is borrowed from the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<'a> {
    /// What this is: the first line.
    Export(Header),
    /// The tree before the first entry.
    Start(Start),
    /// Proves that an older tree became the one of the record before it.
    Consistency {
        /// Leaves of the older tree.
        from_size: u64,
        /// The consistency proof.
        hashes: Vec<Hash>,
    },
    /// A checkpoint. In a history the entries that it took follow.
    Checkpoint(CheckpointRecord),
    /// An entry that a checkpoint took.
    Sealed {
        /// The checksum that is stored with it.
        checksum: Hash,
        /// Its preimage.
        entry: &'a str,
        /// The leaf hash that is in the tree, where that is not the one that the checksum gives.
        leaf: Option<Hash>,
        /// In a selection: where in the tree it is.
        place: Option<Place>,
    },
    /// An entry that no checkpoint took yet.
    Unsealed {
        /// The checksum that is stored with it.
        checksum: Hash,
        /// Its preimage.
        entry: &'a str,
    },
    /// An entry that no checkpoint took and no later one can take: it was added behind the log's back.
    Inserted {
        /// The checksum that is stored with it.
        checksum: Hash,
        /// Its preimage.
        entry: &'a str,
    },
    /// An entry that its checkpoint took and that is not there any more.
    Missing {
        /// Its id, if the checkpoint still says it.
        id: Option<i64>,
        /// Its leaf hash, if the tree still has it.
        leaf: Option<Hash>,
    },
    /// What is stored in the place of an entry and is none.
    Damaged(Damaged),
    /// The last line.
    End(End),
}

/// What an export is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// When it was begun, in microseconds since 2000. Information only.
    pub exported_at: i64,
    /// Which of the two forms.
    pub kind: Kind,
    /// The origin of the log, where it is known: there may be no checkpoint yet.
    pub origin: Option<String>,
    /// Of a selection: what was selected, for people.
    pub selection: Option<String>,
}

/// The two forms of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Every entry from one tree size to another, in the order of the tree.
    History,
    /// Some entries, each with its inclusion proof.
    Selection,
}

/// The tree before the first entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Leaves in it.
    pub tree_size: u64,
    /// Its right edge.
    pub edge: Vec<Hash>,
    /// The note of its checkpoint; None only for the empty tree.
    pub note: Option<String>,
}

/// One row of `lead_audit.checkpoint`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointRecord {
    /// Leaves in the tree, as it is stored beside the note.
    pub tree_size: u64,
    /// The root, as it is stored beside the note.
    pub root: Hash,
    /// The ids of the entries that it took.
    pub entry_ids: IdRanges,
    /// When, in microseconds since 2000. Information only.
    pub sealed_at: i64,
    /// The signed note, or the text alone.
    pub note: String,
    /// The right edge of the tree, every now and then.
    pub edge: Option<Vec<Hash>>,
}

/// Where an entry is in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which leaf, from 0.
    pub index: u64,
    /// The inclusion proof.
    pub proof: Vec<Hash>,
}

/// What is stored in the place of an entry and is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// Its id, if it has one.
    pub id: Option<i64>,
    /// Why it is no entry.
    pub fault: String,
    /// The leaf hash that is in the tree, if it has one for it.
    pub leaf: Option<Hash>,
}

/// The last line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// How many lines of the export are before this one.
    pub lines: u64,
    /// Leaves in the tree that it ends with.
    pub tree_size: u64,
}

/// Why a line is not one of an export.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The line is not canonical JSON.
    #[error("not canonical JSON: {0}")]
    NotCanonical(#[from] NotCanonical),
    /// The line is JSON, but no record begins like it.
    #[error("not a record of an export")]
    Unknown,
    /// The export is of a version that this program does not read.
    #[error("an export of version {0}: this program reads version {VERSION}")]
    Version(u64),
    /// A member is missing, or there is one more.
    #[error("the members of this record are not those that it has to have")]
    Members,
    /// A member has a value that it cannot have.
    #[error("the value of {0:?} is not one that it can have")]
    Value(&'static str),
    /// The ids of a checkpoint.
    #[error("the value of \"entry_ids\" is {0}")]
    EntryIds(#[from] IdRangesError),
}

impl<'a> Record<'a> {
    /// Reads a line, without its end.
    pub fn parse(line: &'a [u8]) -> Result<Self, RecordError> {
        canonical::check(line)?;
        // Checked just now.
        let line = std::str::from_utf8(line).map_err(|_| RecordError::Unknown)?;
        let mut outer = Fields(members(line));
        let (name, value) = outer.0.next().ok_or(RecordError::Unknown)?;
        if name == "checksum" {
            return Self::parse_entry(hash(value, "checksum")?, outer);
        }
        let mut fields = Fields(members(value));
        let record = match name {
            "checkpoint" => {
                let edge = fields.optional("edge", hashes)?;
                let entry_ids = IdRanges::parse(&fields.required("entry_ids", string)?)?;
                let (note, root) = (fields.required("note", string)?, fields.required("root", hash)?);
                let (sealed_at, tree_size) = (fields.required("sealed_at", time)?, fields.required("tree_size", number)?);
                Record::Checkpoint(CheckpointRecord { tree_size, root, entry_ids, sealed_at, note, edge })
            }
            "consistency" => Record::Consistency {
                from_size: fields.required("from_size", number)?,
                hashes: fields.required("hashes", hashes)?,
            },
            "damaged" => {
                let (fault, id) = (fields.required("fault", string)?, fields.optional("id", number)?);
                Record::Damaged(Damaged { id, fault, leaf: fields.optional("leaf", hash)? })
            }
            "end" => {
                Record::End(End { lines: fields.required("lines", number)?, tree_size: fields.required("tree_size", number)? })
            }
            "export" => {
                let (exported_at, kind) = (fields.required("exported_at", time)?, fields.required("kind", string)?);
                let kind = match kind.as_str() {
                    "history" => Kind::History,
                    "selection" => Kind::Selection,
                    _ => return Err(RecordError::Value("kind")),
                };
                let (origin, selection) = (fields.optional("origin", string)?, fields.optional("selection", string)?);
                match fields.required("version", number)? {
                    VERSION => Record::Export(Header { exported_at, kind, origin, selection }),
                    other => return Err(RecordError::Version(other)),
                }
            }
            "missing" => Record::Missing { id: fields.optional("id", number)?, leaf: fields.optional("leaf", hash)? },
            "start" => {
                let (edge, note) = (fields.required("edge", hashes)?, fields.optional("note", string)?);
                Record::Start(Start { tree_size: fields.required("tree_size", number)?, edge, note })
            }
            _ => return Err(RecordError::Unknown),
        };
        fields.end()?;
        outer.end()?;
        Ok(record)
    }

    fn parse_entry(checksum: Hash, mut fields: Fields<'a>) -> Result<Self, RecordError> {
        if let Some(entry) = fields.optional("entry", object)? {
            let index = fields.optional("index", number)?;
            let leaf = fields.optional("leaf", hash)?;
            let place = match (index, fields.optional("proof", hashes)?) {
                (Some(index), Some(proof)) => Some(Place { index, proof }),
                (None, None) => None,
                _ => return Err(RecordError::Members),
            };
            fields.end()?;
            return Ok(Record::Sealed { checksum, entry, leaf, place });
        }
        let inserted = fields.optional("inserted", object)?;
        let unsealed = fields.optional("unsealed", object)?;
        fields.end()?;
        match (inserted, unsealed) {
            (Some(entry), None) => Ok(Record::Inserted { checksum, entry }),
            (None, Some(entry)) => Ok(Record::Unsealed { checksum, entry }),
            _ => Err(RecordError::Members),
        }
    }

    /// Appends the line, with its end. Whatever is borrowed has to be a canonical JSON object; the line then is one.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut object = Object::open(out);
        match self {
            Record::Export(header) => {
                let mut inner = object.object("export");
                inner.instant("exported_at", header.exported_at);
                inner.string("kind", if header.kind == Kind::History { "history" } else { "selection" });
                inner.optional("origin", header.origin.as_deref(), Object::string);
                inner.optional("selection", header.selection.as_deref(), Object::string);
                inner.number("version", VERSION);
                inner.close();
            }
            Record::Start(start) => {
                let mut inner = object.object("start");
                inner.hashes("edge", &start.edge);
                inner.optional("note", start.note.as_deref(), Object::string);
                inner.number("tree_size", start.tree_size);
                inner.close();
            }
            Record::Consistency { from_size, hashes } => {
                let mut inner = object.object("consistency");
                inner.number("from_size", from_size);
                inner.hashes("hashes", hashes);
                inner.close();
            }
            Record::Checkpoint(checkpoint) => {
                let mut inner = object.object("checkpoint");
                inner.optional("edge", checkpoint.edge.as_deref(), Object::hashes);
                inner.string("entry_ids", &checkpoint.entry_ids.to_string());
                inner.string("note", &checkpoint.note);
                inner.string("root", &hex::encode(checkpoint.root));
                inner.instant("sealed_at", checkpoint.sealed_at);
                inner.number("tree_size", checkpoint.tree_size);
                inner.close();
            }
            Record::Sealed { checksum, entry, leaf, place } => {
                object.string("checksum", &hex::encode(checksum));
                object.raw("entry", entry.as_bytes());
                object.optional("index", place.as_ref().map(|place| place.index), |o, n, v| o.number(n, v));
                object.optional("leaf", leaf.as_ref(), |o, n, v| o.string(n, &hex::encode(v)));
                object.optional("proof", place.as_ref().map(|place| &place.proof[..]), Object::hashes);
            }
            Record::Unsealed { checksum, entry } => {
                object.string("checksum", &hex::encode(checksum));
                object.raw("unsealed", entry.as_bytes());
            }
            Record::Inserted { checksum, entry } => {
                object.string("checksum", &hex::encode(checksum));
                object.raw("inserted", entry.as_bytes());
            }
            Record::Missing { id, leaf } => {
                let mut inner = object.object("missing");
                inner.optional("id", id.as_ref(), Object::number);
                inner.optional("leaf", leaf.as_ref(), |o, n, v| o.string(n, &hex::encode(v)));
                inner.close();
            }
            Record::Damaged(damaged) => {
                let mut inner = object.object("damaged");
                inner.string("fault", &damaged.fault);
                inner.optional("id", damaged.id, |o, n, v| o.number(n, v));
                inner.optional("leaf", damaged.leaf.as_ref(), |o, n, v| o.string(n, &hex::encode(v)));
                inner.close();
            }
            Record::End(end) => {
                let mut inner = object.object("end");
                inner.number("lines", end.lines);
                inner.number("tree_size", end.tree_size);
                inner.close();
            }
        }
        object.close();
        out.push(b'\n');
    }
}

/// The members of a record that are still to be read. They come in the order of their names.
struct Fields<'a>(canonical::Members<'a>);

impl<'a> Fields<'a> {
    fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&'a str, &'static str) -> Result<T, RecordError>,
    ) -> Result<Option<T>, RecordError> {
        let mut ahead = self.0.clone();
        match ahead.next() {
            Some((found, value)) if found == name => {
                self.0 = ahead;
                read(value, name).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn required<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&'a str, &'static str) -> Result<T, RecordError>,
    ) -> Result<T, RecordError> {
        self.optional(name, read)?.ok_or(RecordError::Members)
    }

    fn end(mut self) -> Result<(), RecordError> {
        if self.0.next().is_none() { Ok(()) } else { Err(RecordError::Members) }
    }
}

fn string(value: &str, name: &'static str) -> Result<String, RecordError> {
    let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.and_then(unescape).ok_or(RecordError::Value(name))
}

fn object<'a>(value: &'a str, name: &'static str) -> Result<&'a str, RecordError> {
    if value.starts_with('{') { Ok(value) } else { Err(RecordError::Value(name)) }
}

fn number<T: std::str::FromStr + ToString>(value: &str, name: &'static str) -> Result<T, RecordError> {
    integer(value).ok_or(RecordError::Value(name))
}

fn time(value: &str, name: &'static str) -> Result<i64, RecordError> {
    instant(&string(value, name)?).ok_or(RecordError::Value(name))
}

fn hash(value: &str, name: &'static str) -> Result<Hash, RecordError> {
    let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default();
    let mut hash = [0; 32];
    // Lowercase is the one spelling.
    if inner.bytes().any(|byte| byte.is_ascii_uppercase()) || hex::decode_to_slice(inner, &mut hash).is_err() {
        return Err(RecordError::Value(name));
    }
    Ok(hash)
}

fn hashes(value: &str, name: &'static str) -> Result<Vec<Hash>, RecordError> {
    let inner = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).ok_or(RecordError::Value(name))?;
    let mut found = Vec::new();
    if inner.is_empty() {
        return Ok(found);
    }
    for element in inner.split(',') {
        if found.len() == MAX_HASHES {
            return Err(RecordError::Value(name));
        }
        found.push(hash(element, name)?);
    }
    Ok(found)
}

/// An object that is being written. The names have to come in their order.
struct Object<'o> {
    out: &'o mut Vec<u8>,
    first: bool,
}

impl<'o> Object<'o> {
    fn open(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Object { out, first: true }
    }

    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn raw(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        self.out.extend_from_slice(value);
    }

    fn string(&mut self, name: &str, value: &str) {
        self.name(name);
        write_string(self.out, value);
    }

    fn number(&mut self, name: &str, value: impl ToString) {
        self.raw(name, value.to_string().as_bytes());
    }

    fn instant(&mut self, name: &str, micros: i64) {
        self.name(name);
        self.out.push(b'"');
        ledger::time::write_timestamp(self.out, micros);
        self.out.push(b'"');
    }

    fn hashes(&mut self, name: &str, hashes: &[Hash]) {
        self.name(name);
        self.out.push(b'[');
        for (i, hash) in hashes.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            self.out.extend_from_slice(format!("{comma}\"{}\"", hex::encode(hash)).as_bytes());
        }
        self.out.push(b']');
    }

    fn optional<T>(&mut self, name: &str, value: Option<T>, write: impl FnOnce(&mut Self, &str, T)) {
        if let Some(value) = value {
            write(self, name, value);
        }
    }

    fn object(&mut self, name: &str) -> Object<'_> {
        self.name(name);
        Object::open(self.out)
    }

    fn close(self) {
        self.out.push(b'}');
    }
}

#[cfg(test)]
mod tests;
