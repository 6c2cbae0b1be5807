//! Writes canonical JSON strings. This module has the hottest loop of the extension, which runs for
//! every text value of every recorded row.
//!
//! Few texts contain a byte that must be escaped. The loop searches eight bytes at a time for the
//! next byte that must be escaped, and copies all bytes before that byte in one piece. The checker
//! of canonical JSON finds the end of a string with the same search.

use crate::sink::Sink;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends `s` as a canonical JSON string, with its quotes.
#[inline]
pub fn write_string(out: &mut impl Sink, s: &str) {
    write_string_bytes(out, s.as_bytes());
}

/// Appends `s` as a JSON string, with its quotes. Returns whether `s` contains NUL, which
/// PostgreSQL's jsonb cannot store.
///
/// Does not check whether `s` is UTF-8, because the caller checks the whole text that contains the
/// string.
pub fn write_string_bytes(out: &mut impl Sink, s: &[u8]) -> bool {
    out.reserve(s.len() + 2);
    out.push(b'"');
    let has_nul = write_escaped(out, s);
    out.push(b'"');
    has_nul
}

/// Appends the content of the JSON string for `s`, without quotes. Returns whether `s` contains
/// NUL.
pub(super) fn write_escaped(out: &mut impl Sink, s: &[u8]) -> bool {
    let mut rest = s;
    let mut has_nul = false;
    loop {
        let run = find_special(rest);
        out.append(&rest[..run]);
        let Some(&byte) = rest.get(run) else { return has_nul };
        has_nul |= byte == 0;
        write_escape(out, byte);
        rest = &rest[run + 1..];
    }
}

fn write_escape(out: &mut impl Sink, byte: u8) {
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0c => b'f',
        b'\r' => b'r',
        control => {
            let (high, low) = (HEX[usize::from(control >> 4)], HEX[usize::from(control & 0xf)]);
            out.append(&[b'\\', b'u', b'0', b'0', high, low]);
            return;
        }
    };
    out.append(&[b'\\', short]);
}

/// Returns the offset of the first byte that a JSON string must escape: a control character, `"` or
/// `\`. Returns the length of `bytes` if no byte must be escaped.
#[inline]
pub(super) fn find_special(bytes: &[u8]) -> usize {
    let mut at = 0;
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let flags = special_flags(u64::from_le_bytes(word.try_into().expect("eight bytes")));
        if flags != 0 {
            return at + flags.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let tail = words.remainder();
    at + tail.iter().position(|&byte| is_special(byte)).unwrap_or(tail.len())
}

#[inline]
fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Finds the bytes of `word` that a JSON string must escape. In the returned word, the top bit of
/// each byte that must be escaped is set as a flag. Only the lowest flag is reliable, because a
/// borrow of the subtraction can set a wrong flag above a right flag. The caller uses only the
/// lowest flag.
#[inline]
fn special_flags(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x80 * ONES;
    // The xor with 2 turns `"` (0x22) into 0x20, and keeps every control character below 0x20.
    // After the xor, one subtraction finds `"` and all control characters.
    let control_or_quote = (word ^ (0x02 * ONES)).wrapping_sub(0x21 * ONES);
    let backslash = (word ^ (0x5c * ONES)).wrapping_sub(ONES);
    // A byte of `word` whose top bit is set is never special, so `!word` clears its flag.
    (control_or_quote | backslash) & !word & TOPS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(s: &str) -> String {
        let mut out = Vec::new();
        write_string(&mut out, s);
        String::from_utf8(out).unwrap()
    }

    /// Escapes a string one character at a time, following RFC 8785 section 3.2.2.2 literally.
    pub(crate) fn by_the_book(s: &str) -> String {
        let mut out = String::from('"');
        for c in s.chars() {
            match c {
                '\u{8}' => out += "\\b",
                '\t' => out += "\\t",
                '\n' => out += "\\n",
                '\u{c}' => out += "\\f",
                '\r' => out += "\\r",
                '"' => out += "\\\"",
                '\\' => out += "\\\\",
                c if c < ' ' => out += &format!("\\u{:04x}", c as u32),
                c => out.push(c),
            }
        }
        out + "\""
    }

    #[test]
    fn every_byte_at_every_place_of_a_word() {
        for c in (0..0x180).filter_map(char::from_u32) {
            for before in 0..18 {
                for after in [0, 1, 7, 8, 9] {
                    let s = format!(
                        "{}{c}{}",
                        "é#!~\u{7f}]["[..].repeat(3).chars().take(before).collect::<String>(),
                        "x".repeat(after)
                    );
                    assert_eq!(written(&s), by_the_book(&s));
                }
            }
        }
    }

    #[test]
    fn appends() {
        let mut out = b"kept".to_vec();
        write_string(&mut out, "");
        assert_eq!(out, b"kept\"\"");
    }

    proptest! {
        #[test]
        fn as_by_the_book(s in any::<String>(), special in "[\\x00-\\x30\"\\\\a-z€𝄞]{0,80}") {
            prop_assert_eq!(written(&s), by_the_book(&s));
            prop_assert_eq!(written(&special), by_the_book(&special));
        }

        #[test]
        fn any_json_parser_reads_it_back(s in any::<String>()) {
            prop_assert_eq!(serde_json::from_str::<String>(&written(&s)).unwrap(), s);
        }
    }
}
