//! The name filter is a Bloom filter of the names of watched tables, in shared memory. If a
//! statement fails before PostgreSQL knows the statement's table, the name filter tells whether the
//! statement's text can name a watched table.

use crate::failures::queue::{self, NAME_WORDS};
use crate::pg::current_database;
use std::sync::atomic::Ordering;

/// Returns the positions of the two bits that represent a name in the name filter. Ignores the case
/// of letters, because a statement can spell a name in any case.
fn bits(name: &[u8]) -> [usize; 2] {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in name {
        hash = (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3);
    }
    let count = (NAME_WORDS * 64) as u64;
    [(hash % count) as usize, ((hash >> 32) % count) as usize]
}

/// Adds a name to the name filter. A table with this name is watched, or may be watched.
pub fn note_name(name: &str) {
    queue::find(current_database(), |place| {
        for bit in bits(name.as_bytes()) {
            place.names[bit / 64].fetch_or(1 << (bit % 64), Ordering::Relaxed);
        }
    });
}

/// Returns whether a statement with this text can be a write to a watched table. The text of a
/// write contains a keyword of a writing command, and a name that is in the name filter.
pub fn may_concern(text: &str) -> bool {
    const WRITES: [&str; 8] =
        ["insert", "update", "delete", "merge", "copy", "truncate", "execute", "call"];
    let mut writes = false;
    let mut words = Vec::new();
    for word in Words(text) {
        writes |= WRITES.iter().any(|write| word.eq_ignore_ascii_case(write));
        words.push(word);
    }
    if !writes {
        return false;
    }
    queue::find(current_database(), |place| {
        words.iter().any(|word| {
            bits(word.as_bytes())
                .iter()
                .all(|bit| place.names[bit / 64].load(Ordering::Relaxed) & (1 << (bit % 64)) != 0)
        })
    })
    .unwrap_or(false)
}

/// An iterator over the possible names in a statement's text. Each word, and each text between
/// double quotes, can be a name.
struct Words<'a>(&'a str);

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
        let start = self.0.find(|c: char| is_word(c) || c == '"')?;
        let rest = &self.0[start..];
        let (word, after) = if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            (&quoted[..end], quoted.get(end + 1..).unwrap_or(""))
        } else {
            let end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
            rest.split_at(end)
        };
        self.0 = after;
        Some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_names_and_keywords() {
        let words: Vec<&str> =
            Words("INSERT INTO crm.\"Kunden alt\"(a1,$b) VALUES ('x y');--é_2").collect();
        assert_eq!(
            words,
            ["INSERT", "INTO", "crm", "Kunden alt", "a1", "$b", "VALUES", "x", "y", "é_2"]
        );
        assert_eq!(Words("\"open").collect::<Vec<_>>(), ["open"]);
        assert_eq!(Words(" ,;").count(), 0);
    }

    #[test]
    fn bits_do_not_depend_on_case() {
        assert_eq!(bits(b"Leads"), bits(b"lEADS"));
        assert_ne!(bits(b"leads"), bits(b"lead"));
    }
}
