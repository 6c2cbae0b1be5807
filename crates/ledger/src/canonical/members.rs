//! Iterates over the members of an object and builds no tree of JSON values. The iterator finds the
//! end of each member by quotes and brackets.

use super::write::find_special;

/// Returns the members of a canonical object: each name as it is written, without its quotes, and
/// each value as it is written.
///
/// In canonical JSON a name has exactly one spelling, so two names are equal if and only if their
/// texts are equal. For a text that is not canonical the result is meaningless, but the iterator
/// always ends.
pub fn members(object: &str) -> Members<'_> {
    Members { rest: object.strip_prefix('{').unwrap_or_default() }
}

/// The iterator that [`members`] returns.
#[derive(Debug, Clone)]
pub struct Members<'a> {
    /// The unread part of the object. Begins with the quote before the next name. After the last
    /// member, begins with another character or is empty.
    rest: &'a str,
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        let rest = core::mem::take(&mut self.rest);
        let after_quote = rest.strip_prefix('"')?;
        let name_end = string_end(after_quote.as_bytes())?;
        let value = after_quote[name_end + 1..].strip_prefix(':')?;
        let value_end = value_end(value.as_bytes())?;
        // Each offset is next to an ASCII byte, so it is a character boundary.
        self.rest = value[value_end..].strip_prefix(',').unwrap_or_default();
        Some((&after_quote[..name_end], &value[..value_end]))
    }
}

/// Returns the offset of a string's closing quote. `text` begins after the opening quote.
fn string_end(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += find_special(text.get(at..)?);
        match text.get(at)? {
            b'"' => return Some(at),
            // The character after a backslash can be a quote, so it is skipped. The digits of
            // \u00xx are not special.
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Returns the offset of the comma or brace that follows a value. The function only counts
/// brackets, and skips strings.
fn value_end(text: &[u8]) -> Option<usize> {
    let mut depth = 0usize;
    let mut at = 0;
    loop {
        match text.get(at)? {
            b'"' => at += 1 + string_end(&text[at + 1..])?,
            b'[' | b'{' => depth += 1,
            b',' | b'}' if depth == 0 => return Some(at),
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests;
