//! Extracts an entry's columns from its preimage, for display.

use ledger::canonical::{members, unescape};

/// The columns of an entry that are not NULL, by name. String values are unescaped. Other values
/// keep the text that they have in the preimage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryColumns(pub Vec<(String, String)>);

impl EntryColumns {
    /// Reads the columns from a preimage, which must be a canonical JSON object.
    pub fn of(preimage: &str) -> Self {
        let shown =
            |value: &str| match value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
                Some(inner) => unescape(inner).unwrap_or_else(|| value.to_owned()),
                None => value.to_owned(),
            };
        EntryColumns(
            members(preimage)
                .map(|(name, value)| (unescape(name).unwrap_or_default(), shown(value)))
                .collect(),
        )
    }

    /// Returns the value of a column. Returns None if the column is NULL.
    pub fn get(&self, column: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == column).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_written(text in any::<String>(), special in "[\\x00-\\x30\"\\\\a-z€𝄞]{0,30}") {
            for text in [text, special] {
                let mut out = Vec::new();
                ledger::canonical::write_string(&mut out, &text);
                let out = String::from_utf8(out).unwrap();
                prop_assert_eq!(unescape(&out[1..out.len() - 1]), Some(text));
            }
        }

        #[test]
        fn never_panics(text in "[\\\\u0-9a-fé\"]{0,12}") {
            unescape(&text);
        }
    }

    #[test]
    fn columns_by_name() {
        let columns = EntryColumns::of(r#"{"id":5,"row_key":{"a":"\n"},"user_id":"a\"b"}"#);
        assert_eq!(columns.get("id"), Some("5"));
        assert_eq!(columns.get("row_key"), Some(r#"{"a":"\n"}"#));
        assert_eq!(columns.get("user_id"), Some("a\"b"));
        assert_eq!(columns.get("statement"), None);
    }
}
