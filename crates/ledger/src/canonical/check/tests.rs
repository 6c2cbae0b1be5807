use super::super::{compare_keys, write_string};
use super::*;
use proptest::prelude::*;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

fn verdict(text: &str) -> Result<(), (usize, Reason)> {
    check(text.as_bytes()).map_err(|fault| (fault.offset, fault.reason))
}

#[test]
fn canonical_texts() {
    for text in [
        "null",
        "true",
        "false",
        "0",
        "-1",
        "10",
        "1.10",
        "0.0",
        "-0.01",
        "123456789012345678901234567890.000",
        r#""""#,
        r#""\b\t\n\f\r\"\\\u0000\u001f/é𝄞""#,
        "\"\u{7f}\u{2028}\"",
        "[]",
        "{}",
        "[[],{},[{}]]",
        r#"{"":0,"a":{"z":1},"aa":[{"b":1,"c":2},{"a":1}],"b":{}}"#,
        r#"{"\n":1,"\r":2,"1":3}"#,
        r#"{"\t":1,"\u000b":2,"\f":3}"#,
        "{\"\u{1f600}\":1,\"\u{e000}\":2}",
    ] {
        assert_eq!(verdict(text), Ok(()), "{text}");
    }
}

#[test]
fn what_is_wrong_and_where() {
    use Reason::*;
    for (text, offset, reason) in [
        ("", 0, Truncated),
        ("{", 1, Truncated),
        ("[1,", 3, Truncated),
        (r#"{"a""#, 4, Truncated),
        (r#"{"a":"#, 5, Truncated),
        (r#""a"#, 2, Truncated),
        ("tru", 0, Unexpected),
        ("True", 0, Unexpected),
        ("nan", 0, Unexpected),
        ("[1,]", 3, Unexpected),
        (r#"{"a":1,}"#, 7, Unexpected),
        ("{1:2}", 1, Unexpected),
        ("[}", 1, Unexpected),
        ("[1}", 2, Unexpected),
        ("{]", 1, Unexpected),
        ("]", 0, Unexpected),
        ("[1 ]", 2, WhiteSpace),
        (" 1", 0, WhiteSpace),
        ("1 ", 1, TrailingBytes),
        ("1\n", 1, TrailingBytes),
        (r#"{},"user_id":"eve""#, 2, TrailingBytes),
        ("{}{}", 2, TrailingBytes),
        (r#"{"a": 1}"#, 5, WhiteSpace),
        ("-0", 0, Number),
        ("-0.00", 0, Number),
        ("01", 0, Number),
        ("-01", 0, Number),
        ("-", 0, Number),
        ("1.", 0, Number),
        ("1e5", 0, Number),
        ("1.5E5", 0, Number),
        ("[1.2.3]", 1, Number),
        ("+1", 0, Unexpected),
        (".5", 0, Unexpected),
        ("\"a\tb\"", 2, ControlCharacter),
        (r#""\/""#, 1, Escape),
        (r#""\u000a""#, 1, Escape),
        (r#""\u001F""#, 1, Escape),
        (r#""\u0041""#, 1, Escape),
        (r#""\u007f""#, 1, Escape),
        (r#""\ud834\udd1e""#, 1, Escape),
        (r#""\u00"#, 1, Escape),
        (r#""\"#, 1, Escape),
        (r#"{"a":1,"a":2}"#, 7, DuplicateKey),
        (r#"{"\n":1,"\n":2}"#, 8, DuplicateKey),
        (r#"{"b":1,"a":2}"#, 7, KeyOrder),
        (r#"{"a":1,"":2}"#, 7, KeyOrder),
        (r#"{"b":{"x":{}},"a":2}"#, 14, KeyOrder),
        (r#"{"\\":1,"[":2}"#, 8, KeyOrder),
        ("{\"\u{e000}\":1,\"\u{1f600}\":2}", 9, KeyOrder),
    ] {
        assert_eq!(verdict(text), Err((offset, reason)), "{text}");
    }
    assert_eq!(check(b"\"a\xff\""), Err(NotCanonical { offset: 2, reason: NotUtf8 }));
    assert_eq!(check(b"\"\xed\xa0\x80\""), Err(NotCanonical { offset: 1, reason: NotUtf8 }));
}

#[test]
fn display_says_what_and_where() {
    let fault = check(br#"{"b":1,"a":2}"#).unwrap_err();
    assert_eq!(fault.to_string(), "object key out of order at byte 7");
}

#[test]
fn a_million_levels_deep() {
    for (open, middle, close) in [("[", "", "]"), (r#"{"a":"#, "1", "}"), (r#"[{"a":"#, "1", "}]")]
    {
        let text = open.repeat(1_000_000) + middle + &close.repeat(1_000_000);
        assert_eq!(verdict(&text), Ok(()));
        let unclosed = &text[..text.len() - 1];
        assert_eq!(verdict(unclosed), Err((unclosed.len(), Reason::Truncated)));
    }
}

/// A JSON value that this test generates. The test writes canonical JSON with its own code, which
/// shares nothing with the checker.
#[derive(Debug, Clone)]
enum Json {
    Plain(&'static str),
    Number(String),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Json::Plain(text) => out.extend_from_slice(text.as_bytes()),
            Json::Number(text) => out.extend_from_slice(text.as_bytes()),
            Json::String(text) => write_string(out, text),
            Json::Array(items) => {
                out.push(b'[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    item.write(out);
                }
                out.push(b']');
            }
            Json::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                members.sort_by(|a, b| a.0.encode_utf16().cmp(b.0.encode_utf16()));
                members.dedup_by(|a, b| a.0 == b.0);
                out.push(b'{');
                for (i, (key, value)) in members.into_iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    write_string(out, key);
                    out.push(b':');
                    value.write(out);
                }
                out.push(b'}');
            }
        }
    }

    fn text(&self) -> String {
        let mut out = Vec::new();
        self.write(&mut out);
        String::from_utf8(out).unwrap()
    }
}

fn json() -> impl Strategy<Value = Json> {
    let string = prop_oneof![any::<String>(), "[\\x00-\\x24\\\\ab\u{e000}\u{ffff}\u{10000}]{0,6}"];
    let leaf = prop_oneof![
        prop::sample::select(&["null", "true", "false"][..]).prop_map(Json::Plain),
        "(0|-?[1-9][0-9]{0,25})(\\.[0-9]{1,9})?".prop_map(Json::Number),
        string.clone().prop_map(Json::String),
    ];
    leaf.prop_recursive(5, 60, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Json::Array),
            prop::collection::vec((string.clone(), inner), 0..8).prop_map(Json::Object),
        ]
    })
}

/// Converts a mutated text to canonical JSON with serde_json, independently of the checker. Returns
/// None if the mutated text is not JSON or has a number that cannot be canonical.
fn rewritten(text: &str) -> Option<String> {
    fn convert(raw: &RawValue) -> Option<Json> {
        let text = raw.get();
        Some(match text.as_bytes()[0] {
            b'{' => {
                let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text).ok()?;
                let members = members.into_iter().map(|(key, value)| Some((key, convert(&value)?)));
                Json::Object(members.collect::<Option<_>>()?)
            }
            b'[' => {
                let items: Vec<Box<RawValue>> = serde_json::from_str(text).ok()?;
                Json::Array(items.iter().map(|item| convert(item)).collect::<Option<_>>()?)
            }
            b'"' => Json::String(serde_json::from_str(text).ok()?),
            b'n' => Json::Plain("null"),
            b't' => Json::Plain("true"),
            b'f' => Json::Plain("false"),
            _ if text.contains(['e', 'E']) => return None,
            _ if text.starts_with('-') && !text.contains(|c| matches!(c, '1'..='9')) => {
                return None;
            }
            _ => Json::Number(text.to_owned()),
        })
    }
    let raw: Box<RawValue> = serde_json::from_str(text).ok()?;
    convert(&raw).map(|json| json.text())
}

proptest! {
    #[test]
    fn accepts_what_is_written_canonically(json in json()) {
        let text = json.text();
        prop_assert_eq!(verdict(&text), Ok(()), "{}", text);
    }

    #[test]
    fn refuses_what_stands_before_or_after(json in json(), other in json(), space in "[ \t\r\n,]") {
        let text = json.text();
        let (before, after) = (space.clone() + &text, text.clone() + &space);
        prop_assert!(verdict(&before).is_err());
        prop_assert!(verdict(&after).is_err());
        if !matches!(json, Json::Number(_)) {
            let both = text + &other.text();
            prop_assert!(verdict(&both).is_err());
        }
    }

    #[test]
    fn refuses_every_prefix(json in json()) {
        let text = json.text();
        if !matches!(json, Json::Number(_)) {
            for end in (0..text.len()).filter(|&end| text.is_char_boundary(end)) {
                prop_assert!(verdict(&text[..end]).is_err(), "{}", &text[..end]);
            }
        }
    }

    #[test]
    fn refuses_members_that_change_places(
        keys in prop::collection::btree_set("[a-c\n\\\\\u{e000}\u{10000}]{0,3}", 2..6),
        value in json(), swap in any::<prop::sample::Index>(), same in any::<bool>(),
    ) {
        let mut keys: Vec<_> = keys.into_iter().collect();
        keys.sort_by(|a, b| compare_keys(a, b));
        let i = swap.index(keys.len() - 1);
        if same {
            keys[i] = keys[i + 1].clone();
        } else {
            keys.swap(i, i + 1);
        }
        let members: Vec<_> =
            keys.iter().map(|key| format!("{}:{}", Json::String(key.clone()).text(), value.text())).collect();
        let expected = if same { Reason::DuplicateKey } else { Reason::KeyOrder };
        let found = verdict(&format!("[{{{}}}]", members.join(","))).map_err(|(_, reason)| reason);
        prop_assert_eq!(found, Err(expected));
    }

    /// Checks that `check` accepts a mutated text if and only if `rewritten` returns exactly this
    /// text.
    #[test]
    fn accepts_a_mutation_only_if_it_is_canonical(
        json in json(),
        edits in prop::collection::vec(
            (
                any::<prop::sample::Index>(),
                0..3u8,
                prop::sample::select(&b" \t\n\"\\{}[],:-+.0123e/uabnrt\x00\x1f\xc3"[..]),
            ),
            1..4,
        ),
    ) {
        let mut bytes = json.text().into_bytes();
        for (at, edit, byte) in edits {
            let at = at.index(bytes.len() + 1);
            match edit {
                0 => bytes.insert(at, byte),
                1 if at < bytes.len() => bytes[at] = byte,
                _ if at < bytes.len() && bytes.len() > 1 => drop(bytes.remove(at)),
                _ => {}
            }
        }
        let accepted = check(&bytes).is_ok();
        let canonical = match std::str::from_utf8(&bytes) {
            Ok(text) => rewritten(text).is_some_and(|again| again == text),
            Err(_) => false,
        };
        prop_assert_eq!(accepted, canonical, "{:?}", String::from_utf8_lossy(&bytes));
    }
}
