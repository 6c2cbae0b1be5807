//! Checks that a stored text is exactly one canonical JSON value.
//!
//! Without this check, two entries with different columns could have the same preimage. For
//! example, the text `{},"row_values":{}` in `row_key` would have the same preimage as `{}` in
//! `row_key` and `{}` in `row_values`. The input of the checker can be hostile, so the checker does
//! not recurse. For nested values, the checker allocates at most a small multiple of the text's
//! size. For an object without nested values, the checker allocates nothing.

use super::order::compare_utf8;
use super::write::find_special;
use core::cmp::Ordering;
use core::ops::Range;
use thiserror::Error;

/// The error for a text that is not exactly one canonical JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{reason} at byte {offset}")]
pub struct NotCanonical {
    /// Byte offset of the fault in the text.
    pub offset: usize,
    /// The kind of fault.
    pub reason: Reason,
}

/// The reasons why a text is not canonical.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Reason {
    /// The text ends inside a value.
    #[error("the text ends too early")]
    Truncated,
    /// Text follows after the end of the value.
    #[error("more text after the value")]
    TrailingBytes,
    /// The text contains bytes that are not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// The text contains a byte that is not allowed at its position.
    #[error("unexpected byte")]
    Unexpected,
    /// The text contains white space between tokens.
    #[error("white space")]
    WhiteSpace,
    /// A number is not in canonical form: its sign, its zeros or its exponent are not allowed.
    #[error("number not in canonical form")]
    Number,
    /// A string contains an unescaped control character.
    #[error("control character not escaped")]
    ControlCharacter,
    /// A string contains an escape sequence that canonical JSON does not use for the escaped
    /// character.
    #[error("escape sequence not in canonical form")]
    Escape,
    /// A key of an object sorts before the preceding key.
    #[error("object key out of order")]
    KeyOrder,
    /// An object contains the same key twice.
    #[error("duplicate object key")]
    DuplicateKey,
}

/// Checks that `text` is exactly one canonical JSON value and nothing else.
pub fn check(text: &[u8]) -> Result<(), NotCanonical> {
    match core::str::from_utf8(text) {
        Ok(text) => check_str(text),
        Err(error) => Err(NotCanonical { offset: error.valid_up_to(), reason: Reason::NotUtf8 }),
    }
}

/// Checks that `text`, which is known to be UTF-8, is exactly one canonical JSON value.
pub(crate) fn check_str(text: &str) -> Result<(), NotCanonical> {
    Checker {
        text: text.as_bytes(),
        at: 0,
        inside: Inside::Nothing,
        outer: Vec::new(),
        outer_keys: Vec::new(),
    }
    .run()
}

/// The kind of the innermost open container. An open container is an array or object whose end the
/// checker has not reached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Nothing,
    Array,
    Object,
}

struct Checker<'a> {
    text: &'a [u8],
    at: usize,
    inside: Inside,
    /// The kinds of the open containers around `inside`. The last key of each object in `outer` is
    /// in the separate list `outer_keys`, so that a nested array takes only one byte of memory.
    outer: Vec<Inside>,
    outer_keys: Vec<Range<usize>>,
}

type Checked<T = ()> = Result<T, NotCanonical>;

impl Checker<'_> {
    fn run(mut self) -> Checked {
        // The position in `text` of the last key that was read in the innermost open object. The
        // range is empty if the innermost open container is not an object.
        let mut key = 0..0;
        'value: loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                }
                b'-' | b'0'..=b'9' => self.number()?,
                b't' => self.literal(b"true")?,
                b'f' => self.literal(b"false")?,
                b'n' => self.literal(b"null")?,
                b'[' => {
                    self.at += 1;
                    if self.peek()? != b']' {
                        self.open(Inside::Array, key);
                        key = 0..0;
                        continue 'value;
                    }
                    self.at += 1;
                }
                b'{' => {
                    self.at += 1;
                    if self.peek()? != b'}' {
                        self.open(Inside::Object, key);
                        key = self.key()?;
                        continue 'value;
                    }
                    self.at += 1;
                }
                _ => return self.unexpected(),
            }
            // This loop runs at the end of a value, and closes each container that ends directly
            // after the value.
            loop {
                match self.inside {
                    Inside::Nothing if self.at == self.text.len() => return Ok(()),
                    Inside::Nothing => return self.fail(Reason::TrailingBytes),
                    Inside::Array => match self.peek()? {
                        b',' => {
                            self.at += 1;
                            continue 'value;
                        }
                        b']' => {}
                        _ => return self.unexpected(),
                    },
                    Inside::Object => match self.peek()? {
                        b',' => {
                            self.at += 1;
                            let start = self.at;
                            let next = self.key()?;
                            match self.compare_keys(&key, &next) {
                                Ordering::Less => key = next,
                                Ordering::Equal => return fail(start, Reason::DuplicateKey),
                                Ordering::Greater => return fail(start, Reason::KeyOrder),
                            }
                            continue 'value;
                        }
                        b'}' => {}
                        _ => return self.unexpected(),
                    },
                }
                self.at += 1;
                self.inside = self.outer.pop().unwrap_or(Inside::Nothing);
                if self.inside == Inside::Object {
                    key = self.outer_keys.pop().unwrap_or(0..0);
                }
            }
        }
    }

    fn open(&mut self, container: Inside, key: Range<usize>) {
        if self.inside != Inside::Nothing {
            self.outer.push(self.inside);
        }
        if self.inside == Inside::Object {
            self.outer_keys.push(key);
        }
        self.inside = container;
    }

    /// Reads a key and its colon. Returns the range of the key between its quotes.
    fn key(&mut self) -> Checked<Range<usize>> {
        if self.peek()? != b'"' {
            return self.unexpected();
        }
        let key = self.string()?;
        if self.peek()? != b':' {
            return self.unexpected();
        }
        self.at += 1;
        Ok(key)
    }

    /// Reads a string, beginning at its opening quote. Returns the range of the string between its
    /// quotes.
    fn string(&mut self) -> Checked<Range<usize>> {
        let start = self.at + 1;
        self.at = start;
        loop {
            self.at += find_special(&self.text[self.at..]);
            match self.peek()? {
                b'"' => {
                    let end = self.at;
                    self.at += 1;
                    return Ok(start..end);
                }
                b'\\' => match unescape(&self.text[self.at + 1..]) {
                    Some((_, length)) => self.at += 1 + length,
                    None => return self.fail(Reason::Escape),
                },
                _ => return self.fail(Reason::ControlCharacter),
            }
        }
    }

    /// Reads a number of the form `-?(0|[1-9][0-9]*)(\.[0-9]+)?`. Refuses a zero with a minus sign.
    fn number(&mut self) -> Checked {
        let start = self.at;
        let negative = self.text[self.at] == b'-';
        self.at += usize::from(negative);
        let whole = self.digits();
        let mut zero = whole == b"0";
        let mut canonical = zero || matches!(whole.first(), Some(b'1'..=b'9'));
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            let fraction = self.digits();
            zero &= fraction.iter().all(|&digit| digit == b'0');
            canonical &= !fraction.is_empty();
        }
        let more = matches!(self.text.get(self.at), Some(b'e' | b'E' | b'+' | b'-' | b'.'));
        if !canonical || more || (negative && zero) { fail(start, Reason::Number) } else { Ok(()) }
    }

    fn digits(&mut self) -> &[u8] {
        let rest = &self.text[self.at..];
        let length = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn literal(&mut self, literal: &[u8]) -> Checked {
        if !self.text[self.at..].starts_with(literal) {
            return self.unexpected();
        }
        self.at += literal.len();
        Ok(())
    }

    fn compare_keys(&self, a: &Range<usize>, b: &Range<usize>) -> Ordering {
        let (a, b) = (&self.text[a.clone()], &self.text[b.clone()]);
        if a.contains(&b'\\') || b.contains(&b'\\') {
            compare_utf8(Unescaped(a), Unescaped(b))
        } else {
            compare_utf8(a.iter().copied(), b.iter().copied())
        }
    }

    fn peek(&self) -> Checked<u8> {
        self.text
            .get(self.at)
            .copied()
            .ok_or(NotCanonical { offset: self.at, reason: Reason::Truncated })
    }

    fn unexpected<T>(&self) -> Checked<T> {
        let space = matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r'));
        self.fail(if space { Reason::WhiteSpace } else { Reason::Unexpected })
    }

    fn fail<T>(&self, reason: Reason) -> Checked<T> {
        fail(self.at, reason)
    }
}

fn fail<T>(offset: usize, reason: Reason) -> Checked<T> {
    Err(NotCanonical { offset, reason })
}

/// Decodes an escape of canonical JSON. `rest` begins after the backslash. Returns the byte that
/// the escape stands for, and the length of the escape without its backslash.
fn unescape(rest: &[u8]) -> Option<(u8, usize)> {
    Some(match rest {
        [b'"', ..] => (b'"', 1),
        [b'\\', ..] => (b'\\', 1),
        [b'b', ..] => (0x08, 1),
        [b't', ..] => (b'\t', 1),
        [b'n', ..] => (b'\n', 1),
        [b'f', ..] => (0x0c, 1),
        [b'r', ..] => (b'\r', 1),
        [b'u', b'0', b'0', high @ (b'0' | b'1'), low, ..] => {
            let low = match low {
                b'0'..=b'9' => low - b'0',
                b'a'..=b'f' => low - b'a' + 10,
                _ => return None,
            };
            let control = (high - b'0') * 16 + low;
            if matches!(control, 0x08 | b'\t' | b'\n' | 0x0c | b'\r') {
                return None;
            }
            (control, 5)
        }
        _ => return None,
    })
}

/// Iterates over the bytes of a JSON string, and decodes its escapes. The checker has already
/// accepted the string.
struct Unescaped<'a>(&'a [u8]);

impl Iterator for Unescaped<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        if byte != b'\\' {
            return Some(byte);
        }
        let (byte, length) = unescape(rest)?;
        self.0 = &rest[length..];
        Some(byte)
    }
}

#[cfg(test)]
mod tests;
