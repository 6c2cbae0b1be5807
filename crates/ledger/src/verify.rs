//! Holding an entry against the checksum that is stored with it.
//!
//! The checksum is compared first: whoever changes a column and leaves the checksum alone is told
//! just that, also where the change broke the column's JSON. What is checked after it are the
//! faults that a matching checksum can hide.

use crate::canonical::{NotCanonical, check_str, members};
use crate::entry::{Entry, FORMAT};
use crate::hash::{first_eight_bytes, key_hash};
use crate::sink::{Hashing, Sink};
use core::fmt;
use thiserror::Error;

/// What is wrong with an entry. Its text is what `lead_audit.verify()` shows.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Fault {
    /// The entry has a format that this version cannot judge.
    #[error("unknown format {0}: this version verifies format {FORMAT}")]
    UnknownFormat(i16),
    /// The checksum is not 32 bytes long.
    #[error("the checksum is {0} bytes long instead of 32")]
    ChecksumLength(usize),
    /// The columns are not those that the checksum was taken over.
    #[error("the checksum does not match: {} is stored, the columns give {}", Hex(.stored), Hex(.computed))]
    Checksum {
        /// What is stored.
        stored: [u8; 32],
        /// What the columns give.
        computed: [u8; 32],
    },
    /// The checksum matches, but a JSON column is not one canonical value: text was moved from one
    /// column to another.
    #[error("{column} is not canonical JSON: {cause}")]
    NotCanonical {
        /// The column.
        column: &'static str,
        /// What is wrong with it, and where.
        cause: NotCanonical,
    },
    /// The checksum matches, but a JSON column is not an object.
    #[error("{column} is not a JSON object")]
    NotAnObject {
        /// The column.
        column: &'static str,
    },
    /// The checksum matches, but the key hash is not that of `watch_id` and `row_key`: history by
    /// key misses the entry.
    #[error("the key hash is {}, but watch_id and row_key give {}", OrNull(.stored), OrNull(.computed))]
    KeyHash {
        /// What is stored.
        stored: Option<i64>,
        /// What the columns give.
        computed: Option<i64>,
    },
    /// The checksum matches, but the previous key hash is not that of the key in `row_values`, or
    /// the entry is of no UPDATE and has none.
    #[error(
        "the previous key hash is {stored}, but operation, watch_id, row_key and row_values give {}",
        OrNull(.computed)
    )]
    PreviousKeyHash {
        /// What is stored. NULL is never a fault here.
        stored: i64,
        /// What the columns give.
        computed: Option<i64>,
    },
}

impl Entry<'_> {
    /// Checks the entry against the checksum that is stored with it. `scratch` is emptied; keep it
    /// for the next entry.
    ///
    /// Of several faults the one that explains most is reported: an unknown format, then the
    /// checksum, then what is wrong although the checksum matches.
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

    /// Checks the two key hashes alone, of an entry whose JSON columns are known to be canonical
    /// objects. Looks at `watch_id`, `key_hash`, `previous_key_hash`, `operation`, `row_key` and
    /// `row_values` only. `scratch` is emptied.
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

    /// What `previous_key_hash` has to be where it is not NULL; None where it has to be NULL.
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

/// Appends the key that the row had before: the object of `row_key`'s names with the values that
/// they have in `row_values`, both of which are canonical objects. None if `row_values` lacks one.
fn write_previous_key(out: &mut impl Sink, row_key: &str, row_values: &str) -> Option<()> {
    out.push(b'{');
    // The names of both are in the same order, so one pass over the row finds them all.
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
