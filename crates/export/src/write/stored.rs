//! A row of `lead_audit.entry` on its way into an export.

use ledger::Entry;
use ledger::canonical;
use ledger::merkle::Hash;

/// What is stored under an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredEntry {
    /// An entry, right or wrong.
    Entry {
        /// Its preimage, a canonical JSON object.
        preimage: String,
        /// The checksum beside it.
        checksum: Hash,
    },
    /// Something that no entry can be, and why.
    Damaged(String),
}

/// What a row is, from its columns. `extra` is the name of a column with a value that this version does not know.
pub fn read_stored(entry: &Entry, checksum: Option<&[u8]>, extra: Option<&str>) -> StoredEntry {
    if let Some(column) = extra {
        return StoredEntry::Damaged(format!("it has a value in the column {column:?}, which this version does not know"));
    }
    let Some(checksum) = checksum else { return StoredEntry::Damaged("checksum is NULL".to_owned()) };
    let Ok(checksum) = Hash::try_from(checksum) else {
        return StoredEntry::Damaged(format!("the checksum is {} bytes long instead of 32", checksum.len()));
    };
    // Spliced into the line as it is, so that it must not be able to be anything else.
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
