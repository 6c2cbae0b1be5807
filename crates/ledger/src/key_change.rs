//! Writes and parses the `details` of a KEY entry, which states a change of the log's key or origin
//! (`docs/FORMAT.md`, section 15).

use crate::canonical::{members, unescape, write_string};

/// The content of `details` in a KEY entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyChange {
    /// The origin before the change.
    pub old_origin: String,
    /// The verifier key before the change. The field is None if checkpoints were not signed before
    /// the change, or if the key is unknown.
    pub old_key: Option<String>,
    /// The origin after the change.
    pub new_origin: String,
    /// The verifier key after the change. The field is None if checkpoints are not signed after the
    /// change.
    pub new_key: Option<String>,
}

impl KeyChange {
    /// The operation of an entry that states a change of the key or the origin.
    pub const OPERATION: &str = "KEY";

    /// Parses `details`, which must be a canonical JSON object. Returns None if the object does not
    /// describe a change of the key or the origin.
    pub fn of_details(details: &str) -> Option<Self> {
        let text = |name: &str| {
            let (_, value) = members(details).find(|(member, _)| *member == name)?;
            match value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
                Some(inner) => unescape(inner).map(Some),
                None => (value == "null").then_some(None),
            }
        };
        Some(KeyChange {
            old_origin: text("old_origin")??,
            old_key: text("old_key")?,
            new_origin: text("new_origin")??,
            new_key: text("new_key")?,
        })
    }

    /// Returns the canonical JSON for the column `details`.
    pub fn to_details(&self) -> String {
        let mut out = Vec::new();
        let members = [
            ("{\"new_key\":", self.new_key.as_deref()),
            (",\"new_origin\":", Some(&*self.new_origin)),
            (",\"old_key\":", self.old_key.as_deref()),
            (",\"old_origin\":", Some(&*self.old_origin)),
        ];
        for (name, value) in members {
            out.extend_from_slice(name.as_bytes());
            match value {
                Some(value) => write_string(&mut out, value),
                None => out.extend_from_slice(b"null"),
            }
        }
        out.push(b'}');
        // `out` is always valid UTF-8, so `from_utf8_lossy` replaces nothing.
        String::from_utf8_lossy(&out).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let change = KeyChange {
            old_origin: "lead_audit/\"1\"".into(),
            old_key: None,
            new_origin: "example.com/crm".into(),
            new_key: Some("example.com/crm+022dc77e+AYqI".into()),
        };
        let details = change.to_details();
        assert_eq!(crate::canonical::check(details.as_bytes()), Ok(()));
        assert_eq!(KeyChange::of_details(&details), Some(change));
        for other in [
            "{}",
            r#"{"new_key":1,"new_origin":"a","old_key":null,"old_origin":"b"}"#,
            r#"{"new_key":null,"new_origin":null,"old_key":null,"old_origin":"b"}"#,
        ] {
            assert_eq!(KeyChange::of_details(other), None, "{other}");
        }
    }
}
