//! The members of an object, without a value tree: where each begins and ends is found by looking
//! for quotes and brackets.

use super::write::find_special;

/// The members of a canonical object, as they are written: what is between the quotes of the name,
/// and the value.
///
/// A canonical name has one spelling, so two names are equal if and only if they are written alike.
/// Of a text that is not canonical this gives nothing that means anything, but it always ends.
pub fn members(object: &str) -> Members<'_> {
    Members { rest: object.strip_prefix('{').unwrap_or_default() }
}

/// Iterator of [`members`].
#[derive(Debug, Clone)]
pub struct Members<'a> {
    /// From the quote before the next name on; begins with no quote where there is none.
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
        // All the places are beside an ASCII byte, and so on the border of a character.
        self.rest = value[value_end..].strip_prefix(',').unwrap_or_default();
        Some((&after_quote[..name_end], &value[..value_end]))
    }
}

/// Where the quote is that ends a string; `text` begins after the one that opens it.
fn string_end(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += find_special(text.get(at..)?);
        match text.get(at)? {
            b'"' => return Some(at),
            // What follows a backslash may be a quote; the digits of \u00xx are not special.
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Where the comma or brace is that follows a value. Nesting is only counted.
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
