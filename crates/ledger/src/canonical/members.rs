//! Iterates over the members of a canonical JSON object without building a tree of JSON values. The
//! iterator finds the end of each member by quotes and brackets.

use super::write::find_special;

/// Returns the members of a canonical JSON object as pairs of name and value. Each name is returned
/// as the text between its quotes, including escapes. Each value is returned as its text in the
/// object.
///
/// In canonical JSON a name has exactly one spelling, so two names are equal if and only if their
/// texts are equal. If `object` is not canonical, the members are meaningless, but the iterator
/// still ends.
pub fn members(object: &str) -> Members<'_> {
    Members { rest: object.strip_prefix('{').unwrap_or_default() }
}

/// The iterator that [`members`] returns.
#[derive(Debug, Clone)]
pub struct Members<'a> {
    /// The unread part of the object, which begins with the quote before the next name. After the
    /// last member, the unread part is empty or begins with another character.
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
        // Each offset in this function is next to an ASCII byte, and is therefore a character
        // boundary.
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
            // The byte after a backslash can be a quote, so the loop skips this byte. The loop does
            // not skip the digits of \u00xx, because digits are not special.
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Returns the offset of the comma or brace that follows a value. Does not parse the value, but
/// only skips strings and counts brackets.
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
