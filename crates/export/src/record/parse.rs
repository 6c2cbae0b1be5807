//! Parses a line of an export. The members of each record must be in the order of their names,
//! without duplicates.

use super::{
    CheckpointRecord, Damaged, End, Header, Kind, Place, Record, RecordError, Start, Unknown,
    VERSION,
};
use crate::columns::instant;
use crate::unescape;
use ledger::canonical::{self, members};
use ledger::merkle::Hash;
use ledger::{IdRanges, parse_integer};

/// Maximum number of hashes in an inclusion proof, a consistency proof or a right edge.
pub(super) const MAX_HASHES: usize = 130;

impl<'a> Record<'a> {
    /// Parses a line of an export that is given without its newline.
    pub fn parse(line: &'a [u8]) -> Result<Self, RecordError> {
        canonical::check(line)?;
        // `canonical::check` has already refused a line that is not UTF-8.
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
                let (note, root) =
                    (fields.required("note", string)?, fields.required("root", hash)?);
                let (sealed_at, tree_size) =
                    (fields.required("sealed_at", time)?, fields.required("tree_size", number)?);
                Record::Checkpoint(CheckpointRecord {
                    tree_size,
                    root,
                    entry_ids,
                    sealed_at,
                    note,
                    edge,
                })
            }
            "consistency" => Record::Consistency {
                from_size: fields.required("from_size", number)?,
                hashes: fields.required("hashes", hashes)?,
            },
            "damaged" => {
                let (fault, id) =
                    (fields.required("fault", string)?, fields.optional("id", number)?);
                Record::Damaged(Damaged { id, fault, leaf: fields.optional("leaf", hash)? })
            }
            "end" => Record::End(End {
                lines: fields.required("lines", number)?,
                tree_size: fields.required("tree_size", number)?,
            }),
            "export" => {
                // The version is checked before the other members, because an export of an unknown
                // version can have members that this program does not know.
                let version = members(value)
                    .find(|(name, _)| *name == "version")
                    .and_then(|(_, version)| parse_integer(version));
                if let Some(other) = version.filter(|&version| version != VERSION) {
                    return Err(RecordError::Version(other));
                }
                let (exported_at, kind) =
                    (fields.required("exported_at", time)?, fields.required("kind", string)?);
                let kind = match kind.as_str() {
                    "history" => Kind::History,
                    "selection" => Kind::Selection,
                    _ => return Err(RecordError::Value("kind")),
                };
                let (origin, selection) =
                    (fields.optional("origin", string)?, fields.optional("selection", string)?);
                fields.required::<u64>("version", number)?;
                Record::Export(Header { exported_at, kind, origin, selection })
            }
            "missing" => Record::Missing {
                id: fields.optional("id", number)?,
                leaf: fields.optional("leaf", hash)?,
            },
            "start" => {
                let (edge, note) =
                    (fields.required("edge", hashes)?, fields.optional("note", string)?);
                Record::Start(Start {
                    tree_size: fields.required("tree_size", number)?,
                    edge,
                    note,
                })
            }
            "unknown" => {
                let (column, id) =
                    (fields.required("column", string)?, fields.optional("id", number)?);
                Record::Unknown(Unknown { column, id, leaf: fields.optional("leaf", hash)? })
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
}

/// The members of a record that are not parsed yet, in the order of their names.
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

fn number<T: std::str::FromStr + ToString>(
    value: &str,
    name: &'static str,
) -> Result<T, RecordError> {
    parse_integer(value).ok_or(RecordError::Value(name))
}

fn time(value: &str, name: &'static str) -> Result<i64, RecordError> {
    instant(&string(value, name)?).ok_or(RecordError::Value(name))
}

fn hash(value: &str, name: &'static str) -> Result<Hash, RecordError> {
    let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default();
    let mut hash = [0; 32];
    // `decode_to_slice` also accepts uppercase digits, but a record can contain only lowercase
    // digits.
    if inner.bytes().any(|byte| byte.is_ascii_uppercase())
        || hex::decode_to_slice(inner, &mut hash).is_err()
    {
        return Err(RecordError::Value(name));
    }
    Ok(hash)
}

fn hashes(value: &str, name: &'static str) -> Result<Vec<Hash>, RecordError> {
    let inner = value
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .ok_or(RecordError::Value(name))?;
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
