//! Verifies an entry against its stored checksum.
//!
//! The checksum is compared before the content of the columns is checked. If somebody changed a
//! JSON column but not the checksum, the reported fault is [`Fault::Checksum`], even if the changed
//! column is not JSON. The other checks find faults of forged entries whose checksum matches.

use crate::canonical::{NotCanonical, check_str, members};
use crate::entry::{Entry, FORMAT};
use crate::hash::{first_eight_bytes, key_hash};
use crate::sink::{Hashing, Sink};
use core::fmt;
use thiserror::Error;

/// A fault of an entry. `lead_audit.verify()` shows the `Display` text of a fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Fault {
    /// The entry has a format that this version of lead_audit cannot verify.
    #[error("unknown format {0}: this version verifies format {FORMAT}")]
    UnknownFormat(i16),
    /// The checksum is not 32 bytes long.
    #[error("the checksum is {0} bytes long instead of 32")]
    ChecksumLength(usize),
    /// The stored checksum differs from the checksum that is computed from the columns.
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
    /// The checksum matches, but a JSON column does not contain exactly one canonical JSON value. A
    /// forger who moves text from one column to another without changing the preimage causes the
    /// fault `NotCanonical`.
    #[error("{column} is not canonical JSON: {cause}")]
    NotCanonical {
        /// The name of the column.
        column: &'static str,
        /// The reason why the column is not canonical JSON, and the offset in the column's text.
        cause: NotCanonical,
    },
    /// The checksum matches, but the value in a JSON column is not a JSON object.
    #[error("{column} is not a JSON object")]
    NotAnObject {
        /// The name of the column.
        column: &'static str,
    },
    /// The checksum matches, but `key_hash` does not match `watch_id` and `row_key`. `history()`
    /// does not find an entry whose key hash is wrong.
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
    /// The checksum matches, but `previous_key_hash` does not match the old key in `row_values`. A
    /// previous key hash in an entry whose operation is not UPDATE is also a `PreviousKeyHash`
    /// fault.
    #[error(
        "the previous key hash is {stored}, but operation, watch_id, row_key and row_values give \
         {}",
        OrNull(.computed)
    )]
    PreviousKeyHash {
        /// The stored previous key hash. A previous key hash of NULL is never a fault.
        stored: i64,
        /// The previous key hash computed from the columns.
        computed: Option<i64>,
    },
}

impl Entry<'_> {
    /// Checks the entry against its stored checksum, `stored`. Uses `scratch` as a buffer, which
    /// the caller can reuse for the next entry.
    ///
    /// Returns only one fault, even if the entry has several faults. An unknown format has priority
    /// over a wrong checksum, and a wrong checksum has priority over all other faults.
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

    /// Checks only `key_hash` and `previous_key_hash`. The caller must know that the JSON columns
    /// of the entry are canonical JSON objects. Reads only `watch_id`, `key_hash`,
    /// `previous_key_hash`, `operation`, `row_key` and `row_values`. Uses `scratch` as a buffer.
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

    /// Computes the value that `previous_key_hash` must have if it is not NULL. Returns None if
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

/// Appends the row's previous key: a JSON object with the names from `row_key` and their values
/// from `row_values`. `row_key` and `row_values` must be canonical JSON objects. Returns None if
/// `row_values` lacks one of the names in `row_key`.
fn write_previous_key(out: &mut impl Sink, row_key: &str, row_values: &str) -> Option<()> {
    out.push(b'{');
    // The names in `row_key` and `row_values` have the same order, so one pass over `row_values`
    // finds all names of `row_key`.
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
