//! Writes JSON values that contain invalid bytes. Invalid bytes are NUL, which PostgreSQL's jsonb
//! cannot store, and bytes that are not UTF-8. This module writes an object with percent-encoded
//! text in place of a value with invalid bytes, so no byte is lost. The `details` of the entry list
//! the replaced values (docs/FORMAT.md, section 3.1).

use super::write::{find_special, write_escaped};
use crate::sink::Sink;

/// Returns whether the bytes are UTF-8 and contain no NUL.
pub fn is_text(bytes: &[u8]) -> bool {
    !bytes.contains(&0) && core::str::from_utf8(bytes).is_ok()
}

/// Percent-encodes a text. `%`, NUL and each byte that is not UTF-8 become `%XX`, and all other
/// bytes stay unchanged.
pub fn percent_encoded(bytes: &[u8]) -> String {
    let mut encoded = String::with_capacity(bytes.len() + 16);
    for_each_piece(bytes, |piece| match piece {
        Piece::Text(text) => encoded.push_str(text),
        Piece::Byte(byte) => encoded.extend(percent(byte).map(char::from)),
    });
    encoded
}

/// Appends the object that replaces `value`, a JSON value with invalid bytes. `value` is the text
/// of the JSON value, written by [`write_string_bytes`](super::write_string_bytes) or a similar
/// writer. The invalid bytes in `value` are bytes that are not UTF-8, and the escape `\u0000`.
pub fn write_bytes_value(out: &mut impl Sink, value: &[u8]) {
    match value {
        [b'"', content @ .., b'"'] => {
            out.append(br#"{"$bytes":""#);
            write_string_content(out, content);
        }
        _ => {
            out.append(br#"{"$json_bytes":""#);
            write_percent(out, value);
        }
    }
    out.append(br#""}"#);
}

/// Appends the content of a JSON string in percent-encoding, without quotes. Copies every escape
/// except `\u0000`, which becomes `%00`.
fn write_string_content(out: &mut impl Sink, mut content: &[u8]) {
    const NUL: &[u8] = br"\u0000";
    loop {
        let run = find_special(content);
        write_percent(out, &content[..run]);
        content = &content[run..];
        let length = match content {
            [] => return,
            _ if content.starts_with(NUL) => {
                out.append(b"%00");
                content = &content[NUL.len()..];
                continue;
            }
            [b'\\', b'u', ..] => NUL.len(),
            [b'\\', _, ..] => 2,
            _ => 1,
        };
        let (escape, rest) = content.split_at(length.min(content.len()));
        out.append(escape);
        content = rest;
    }
}

/// Appends the bytes in percent-encoding, as part of a JSON string.
fn write_percent(out: &mut impl Sink, bytes: &[u8]) {
    for_each_piece(bytes, |piece| match piece {
        Piece::Text(text) => {
            write_escaped(out, text.as_bytes());
        }
        Piece::Byte(byte) => out.append(&percent(byte)),
    });
}

enum Piece<'a> {
    /// A part of the text that is copied unchanged.
    Text(&'a str),
    /// A byte that must be percent-encoded.
    Byte(u8),
}

fn for_each_piece(bytes: &[u8], mut each: impl FnMut(Piece)) {
    for chunk in bytes.utf8_chunks() {
        for text in chunk.valid().split_inclusive(['%', '\0']) {
            match text.strip_suffix(['%', '\0']) {
                Some(before) => {
                    each(Piece::Text(before));
                    each(Piece::Byte(text.as_bytes()[before.len()]));
                }
                None => each(Piece::Text(text)),
            }
        }
        chunk.invalid().iter().for_each(|&byte| each(Piece::Byte(byte)));
    }
}

fn percent(byte: u8) -> [u8; 3] {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    [b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::{check, write_string_bytes};
    use proptest::prelude::*;

    /// Generates bytes that are often UTF-8, often special characters of JSON, and often invalid
    /// bytes.
    fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"%".to_vec()),
            Just(vec![0]),
            Just(b"\\u0000".to_vec()),
            any::<String>().prop_map(String::into_bytes),
            "[\\x00-\\x30\"\\\\%]{0,8}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..4),
        ];
        prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
    }

    /// Decodes a percent-encoded text (RFC 3986).
    fn decoded(text: &str) -> Vec<u8> {
        let mut bytes = text.bytes();
        let mut out = Vec::new();
        while let Some(byte) = bytes.next() {
            let mut digit = || char::from(bytes.next().unwrap()).to_digit(16).unwrap() as u8;
            out.push(if byte == b'%' { digit() << 4 | digit() } else { byte });
        }
        out
    }

    fn stand_in(value: &[u8]) -> serde_json::Value {
        let mut out = Vec::new();
        write_bytes_value(&mut out, value);
        check(&out).unwrap();
        let stand_in: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert!(
            stand_in
                .as_object()
                .unwrap()
                .values()
                .all(|text| !text.as_str().unwrap().contains('\0'))
        );
        stand_in
    }

    #[test]
    fn what_is_text() {
        assert!(is_text("é%".as_bytes()) && is_text(b""));
        assert!(!is_text(b"\xe9") && !is_text(b"a\0b"));
    }

    #[test]
    fn examples() {
        assert_eq!(percent_encoded(b"caf\xe9 100%\0"), "caf%E9 100%25%00");
        assert_eq!(stand_in(b"\"caf\xe9\""), serde_json::json!({"$bytes": "caf%E9"}));
        assert_eq!(
            stand_in(br#""a\u0000\u0001\"b""#),
            serde_json::json!({"$bytes": "a%00\u{1}\"b"})
        );
        assert_eq!(
            stand_in(br#"["a\u0000"]"#),
            serde_json::json!({"$json_bytes": r#"["a\u0000"]"#})
        );
        assert_eq!(stand_in(b"[\"\xff%\"]"), serde_json::json!({"$json_bytes": "[\"%FF%25\"]"}));
    }

    proptest! {
        #[test]
        fn no_byte_is_lost(bytes in any_bytes()) {
            prop_assert_eq!(decoded(&percent_encoded(&bytes)), bytes.clone());
            let mut string = Vec::new();
            let has_nul = write_string_bytes(&mut string, &bytes);
            prop_assert_eq!(has_nul, bytes.contains(&0));
            prop_assert_eq!(decoded(stand_in(&string)["$bytes"].as_str().unwrap()), bytes.clone());
            let array = [b"[", &*string, b"]"].concat();
            let stand_in = stand_in(&array);
            prop_assert_eq!(decoded(stand_in["$json_bytes"].as_str().unwrap()), array.clone());
        }

        #[test]
        fn a_text_is_only_changed_at_its_percent_signs(text in any::<String>()) {
            let expected = text.replace('%', "%25").replace('\0', "%00");
            prop_assert_eq!(percent_encoded(text.as_bytes()), expected);
        }
    }
}
