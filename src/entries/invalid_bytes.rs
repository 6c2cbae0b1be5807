//! Notes which parts of an entry are percent-encoded because their bytes are not valid text. The
//! notes become the member `invalid_bytes` of the column `details` (docs/FORMAT.md, section 3.1).

use crate::pg::{ServerError, Text, TextWriter};
use ledger::Sink;
use ledger::canonical::{compare_keys, members, write_string};
use std::collections::BTreeMap;

/// The name of the member of `details` that lists the percent-encoded parts.
const MEMBER: &str = "invalid_bytes";

/// The percent-encoded parts of an entry, by column. The part of a column is the whole column, or
/// some members of the column's JSON object. Almost no entry has percent-encoded parts, and an
/// empty `InvalidBytes` allocates no memory.
#[derive(Debug, Clone, Default)]
pub struct InvalidBytes(BTreeMap<&'static str, Part>);

#[derive(Debug, Clone)]
enum Part {
    /// The whole text of the column.
    Whole,
    /// The members with these names in the column's JSON object.
    Members(Vec<String>),
}

impl InvalidBytes {
    /// Notes that the members `names` of the JSON object in `column` are percent-encoded. The order
    /// of `names` is kept. Does nothing if `names` is empty.
    pub fn note<'n>(&mut self, column: &'static str, names: impl Iterator<Item = &'n str>) {
        let names: Vec<String> = names.map(str::to_owned).collect();
        if !names.is_empty() {
            self.0.insert(column, Part::Members(names));
        }
    }

    /// Notes that the whole text of `column` is percent-encoded.
    pub fn note_text(&mut self, column: &'static str) {
        self.0.insert(column, Part::Whole);
    }

    /// Removes all notes.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns `details` with the notes added, or `None` if there are no notes.
    pub fn into_details(self, details: Option<&Text>) -> Result<Option<Text>, ServerError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let mut text = Text::new();
        text.write(|out| {
            let mut separator = b'{';
            let mut begin =
                |out: &mut TextWriter| out.push(std::mem::replace(&mut separator, b','));
            let (before, after): (Vec<_>, Vec<_>) = members(details.map_or("{}", Text::as_str))
                .partition(|(name, _)| compare_keys(name, MEMBER).is_lt());
            for (name, value) in before {
                begin(out);
                copy_member(out, name, value);
            }
            begin(out);
            write_string(out, MEMBER);
            out.push(b':');
            self.write(out);
            for (name, value) in after {
                begin(out);
                copy_member(out, name, value);
            }
            out.push(b'}');
            Ok(())
        })?;
        Ok(Some(text))
    }

    fn write(&self, out: &mut TextWriter) {
        let mut separator = b'{';
        for (column, part) in &self.0 {
            out.push(std::mem::replace(&mut separator, b','));
            write_string(out, column);
            out.push(b':');
            match part {
                Part::Whole => out.append(b"true"),
                Part::Members(names) => {
                    let mut separator = b'[';
                    for name in names {
                        out.push(std::mem::replace(&mut separator, b','));
                        write_string(out, name);
                    }
                    out.push(b']');
                }
            }
        }
        out.push(b'}');
    }
}

/// Appends a member of another JSON object to `out`, byte by byte.
fn copy_member(out: &mut TextWriter, name: &str, value: &str) {
    for part in ["\"", name, "\":", value] {
        out.append(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_stay_in_order() {
        let mut bytes = InvalidBytes::default();
        bytes.note("row_values", ["b", "a\""].into_iter());
        bytes.note("row_key", std::iter::empty());
        bytes.note_text("table_name");
        let expected = r#""invalid_bytes":{"row_values":["b","a\""],"table_name":true}"#;
        for (details, before, after) in [
            (None, "{", "}"),
            (Some(r#"{"command":"X"}"#), r#"{"command":"X","#, "}"),
            (Some(r#"{"row_count":1}"#), "{", r#","row_count":1}"#),
            (Some(r#"{"a":{},"z":[]}"#), r#"{"a":{},"#, r#","z":[]}"#),
        ] {
            let details = details.map(Text::from);
            let text = bytes.clone().into_details(details.as_ref()).unwrap().unwrap();
            assert_eq!(text.as_str(), format!("{before}{expected}{after}"));
            ledger::canonical::check(text.bytes()).unwrap();
        }
        assert!(InvalidBytes::default().into_details(None).unwrap().is_none());
    }
}
