//! Converts a row of `lead_audit.entry` to the form that an export contains.

use crate::record::{Damaged, Record, Unknown};
use ledger::canonical;
use ledger::merkle::Hash;
use ledger::{Entry, leaf_hash};

/// The row of an entry, classified by whether an export can contain it as an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredEntry {
    /// A row that can be written as an entry, although it can have faults.
    Entry {
        /// The preimage of the entry, a canonical JSON object.
        preimage: String,
        /// The stored checksum.
        checksum: Hash,
    },
    /// A row that cannot be written as an entry, with the reason.
    Damaged(String),
    /// An entry with a value in a column that this version does not know.
    Unknown {
        /// The name of the unknown column.
        column: String,
        /// The stored checksum. The value is None if the checksum does not have 32 bytes.
        checksum: Option<Hash>,
    },
}

impl StoredEntry {
    /// Returns the leaf of the stored checksum.
    pub fn leaf(&self) -> Option<Hash> {
        match self {
            StoredEntry::Entry { checksum, .. } => Some(leaf_hash(checksum)),
            StoredEntry::Unknown { checksum, .. } => checksum.as_ref().map(leaf_hash),
            StoredEntry::Damaged(_) => None,
        }
    }

    /// Returns the record for a row that cannot be written as an entry. `sealed` is the leaf that
    /// the tree has at the position of the row. Returns None if the row can be written as an entry.
    pub(super) fn instead(&self, id: i64, sealed: Option<Hash>) -> Option<Record<'static>> {
        match self {
            StoredEntry::Entry { .. } => None,
            StoredEntry::Damaged(fault) => {
                Some(Record::Damaged(Damaged { id: Some(id), fault: fault.clone(), leaf: sealed }))
            }
            // If the leaf of the row's checksum differs from the sealed leaf, the row is damaged.
            // The content of the row's unknown column does not matter.
            StoredEntry::Unknown { .. } if sealed.is_some() && self.leaf() != sealed => {
                let fault =
                    "it has a value in an unknown column, and not the checksum that was sealed"
                        .to_owned();
                Some(Record::Damaged(Damaged { id: Some(id), fault, leaf: sealed }))
            }
            StoredEntry::Unknown { column, .. } => Some(Record::Unknown(Unknown {
                column: column.clone(),
                id: Some(id),
                leaf: self.leaf(),
            })),
        }
    }
}

/// Classifies a row by its columns. `extra` is the name of a column that has a value but that this
/// version does not know.
pub fn read_stored(entry: &Entry, checksum: Option<&[u8]>, extra: Option<&str>) -> StoredEntry {
    if let Some(column) = extra {
        let checksum = checksum.and_then(|checksum| checksum.try_into().ok());
        return StoredEntry::Unknown { column: column.to_owned(), checksum };
    }
    let Some(checksum) = checksum else {
        return StoredEntry::Damaged("checksum is NULL".to_owned());
    };
    let Ok(checksum) = Hash::try_from(checksum) else {
        return StoredEntry::Damaged(format!(
            "the checksum is {} bytes long instead of 32",
            checksum.len()
        ));
    };
    // The text of each JSON column must be exactly one JSON object, because the writer inserts the
    // text into the line unchanged.
    let columns = [
        ("row_key", entry.row_key),
        ("row_values", entry.row_values),
        ("changed_values", entry.changed_values),
        ("details", entry.details),
    ];
    for (column, text) in columns {
        let Some(text) = text else { continue };
        if let Err(error) = canonical::check(text.as_bytes()) {
            return StoredEntry::Damaged(format!("{column} is not canonical JSON: {error}"));
        }
        if !text.starts_with('{') {
            return StoredEntry::Damaged(format!("{column} is not a JSON object"));
        }
    }
    let mut preimage = Vec::new();
    entry.write_preimage(&mut preimage);
    match String::from_utf8(preimage) {
        Ok(preimage) => StoredEntry::Entry { preimage, checksum },
        Err(_) => StoredEntry::Damaged("a text is not UTF-8".to_owned()),
    }
}
