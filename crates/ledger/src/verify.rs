//! Verifies an entry against its stored checksum.
//!
//! The checksum is compared before anything else. If somebody changed a column and left the
//! checksum, the reported fault is the wrong checksum, even if the change broke the JSON of the
//! column. The checks that follow find faults that exist although the checksum matches.

use crate::canonical::{NotCanonical, check_str, members};
use crate::entry::{Entry, FORMAT};
use crate::hash::{first_eight_bytes, key_hash};
use crate::sink::{Hashing, Sink};
use core::fmt;
use thiserror::Error;

/// A fault of an entry. `lead_audit.verify()` shows the text of the fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Fault {
    /// The entry has a format that this version cannot verify.
    #[error("unknown format {0}: this version verifies format {FORMAT}")]
    UnknownFormat(i16),
    /// The checksum is not 32 bytes long.
    #[error("the checksum is {0} bytes long instead of 32")]
    ChecksumLength(usize),
    /// The columns do not match the checksum.
    #[error(
        "the checksum does not match: {} is stored, the columns give {}",
        Hex(.stored), Hex(.computed)
    )]
    Checksum {
        /// The stored checksum.
        stored: [u8; 32],
        /// The checksum computed from the columns.
        computed: [u8; 32],
    },
    /// The checksum matches, but a JSON column is not one canonical value: someone moved text from
    /// one column to another.
    #[error("{column} is not canonical JSON: {cause}")]
    NotCanonical {
        /// The column.
        column: &'static str,
        /// The reason why the column is not canonical, and the offset.
        cause: NotCanonical,
    },
    /// The checksum matches, but a JSON column is not an object.
    #[error("{column} is not a JSON object")]
    NotAnObject {
        /// The column.
        column: &'static str,
    },
    /// The checksum matches, but the key hash does not match `watch_id` and `row_key`: a search for
    /// the history of this key misses the entry.
    #[error(
        "the key hash is {}, but watch_id and row_key give {}",
        OrNull(.stored), OrNull(.computed)
    )]
    KeyHash {
        /// The stored key hash.
        stored: Option<i64>,
        /// The key hash computed from the columns.
        computed: Option<i64>,
    },
    /// The checksum matches, but the previous key hash does not match the key in `row_values`, or
    /// the entry is not an UPDATE and must not have a previous key hash.
    #[error(
        "the previous key hash is {stored}, but operation, watch_id, row_key and row_values give \
         {}",
        OrNull(.computed)
    )]
    PreviousKeyHash {
        /// The stored previous key hash. A NULL there is never a fault.
        stored: i64,
        /// The previous key hash computed from the columns.
        computed: Option<i64>,
    },
}

impl Entry<'_> {
    /// Checks the entry against its stored checksum. Empties `scratch`, which the caller can reuse
    /// for the next entry.
    ///
    /// If there are several faults, returns the one that explains most: first an unknown format,
    /// then the checksum, then the faults that exist although the checksum matches.
    pub fn verify(&self, stored: &[u8], scratch: &mut Vec<u8>) -> Result<(), Fault> {
        if self.format != FORMAT {
            return Err(Fault::UnknownFormat(self.format));
        }
        let stored =
            <[u8; 32]>::try_from(stored).map_err(|_| Fault::ChecksumLength(stored.len()))?;
        let computed = self.checksum(scratch);
        if stored != computed {
            return Err(Fault::Checksum { stored, computed });
        }
        for (column, text) in self.json_columns() {
            let Some(text) = text else { continue };
            check_str(text).map_err(|cause| Fault::NotCanonical { column, cause })?;
            if !text.starts_with('{') {
                return Err(Fault::NotAnObject { column });
            }
        }
        self.verify_key_hashes(scratch)
    }

    /// Checks only the two key hashes. The JSON columns of the entry must be known to be canonical
    /// objects. Reads only `watch_id`, `key_hash`, `previous_key_hash`, `operation`, `row_key` and
    /// `row_values`. Empties `scratch`.
    pub fn verify_key_hashes(&self, scratch: &mut Vec<u8>) -> Result<(), Fault> {
        let computed = match (&self.watch_id, self.row_key) {
            (Some(watch_id), Some(row_key)) => Some(key_hash(watch_id, row_key.as_bytes())),
            _ => None,
        };
        if self.key_hash != computed {
            return Err(Fault::KeyHash { stored: self.key_hash, computed });
        }
        if let Some(stored) = self.previous_key_hash {
            let computed = self.computed_previous_key_hash(scratch);
            if computed != Some(stored) {
                return Err(Fault::PreviousKeyHash { stored, computed });
            }
        }
        Ok(())
    }

    /// Returns the only value other than NULL that `previous_key_hash` may have. None if
    /// `previous_key_hash` must be NULL.
    fn computed_previous_key_hash(&self, scratch: &mut Vec<u8>) -> Option<i64> {
        if self.operation != "UPDATE" {
            return None;
        }
        let mut hashing = Hashing::new(scratch);
        hashing.append(self.watch_id.as_ref()?);
        write_previous_key(&mut hashing, self.row_key?, self.row_values?)?;
        Some(first_eight_bytes(&hashing.finish()))
    }
}

/// Appends the row's previous key: an object with the names of `row_key` and their values in
/// `row_values`. Both arguments are canonical objects. None if `row_values` lacks one of the names.
fn write_previous_key(out: &mut impl Sink, row_key: &str, row_values: &str) -> Option<()> {
    out.push(b'{');
    // Both objects have their names in the same order, so one pass over the row finds all names.
    let mut values = members(row_values);
    for (i, (name, _)) in members(row_key).enumerate() {
        let (_, value) = values.find(|(candidate, _)| *candidate == name)?;
        if i > 0 {
            out.push(b',');
        }
        for part in ["\"", name, "\":", value] {
            out.append(part.as_bytes());
        }
    }
    out.push(b'}');
    Some(())
}

struct Hex<'a>(&'a [u8; 32]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

struct OrNull<'a>(&'a Option<i64>);

impl fmt::Display for OrNull<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("NULL"),
        }
    }
}

#[cfg(test)]
mod tests;
