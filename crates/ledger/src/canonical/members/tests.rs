use super::super::{compare_keys, write_string};
use super::*;
use proptest::prelude::*;

fn all(object: &str) -> Vec<(&str, &str)> {
    members(object).collect()
}

fn quoted(text: &str) -> String {
    let mut out = Vec::new();
    write_string(&mut out, text);
    String::from_utf8(out).unwrap()
}

#[test]
fn names_and_values_as_they_are_written() {
    assert_eq!(all("{}"), []);
    assert_eq!(all(r#"{"":""}"#), [("", r#""""#)]);
    assert_eq!(
        all(
            r#"{"\"":1,"a\\":"}\",{\\","b":[{"a":[1,"]"]},{}],"c":{"b":{},"d":null},"é\u001f":-1.10}"#
        ),
        [
            (r#"\""#, "1"),
            (r"a\\", r#""}\",{\\""#),
            ("b", r#"[{"a":[1,"]"]},{}]"#),
            ("c", r#"{"b":{},"d":null}"#),
            (r"é\u001f", "-1.10"),
        ]
    );
}

#[test]
fn other_values_have_no_members() {
    for text in ["", "null", "[]", r#"[{"a":1}]"#, r#""{""#, "1"] {
        assert_eq!(all(text), [], "{text}");
    }
}

#[test]
fn a_million_levels_deep() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let value = open.repeat(1_000_000) + "1" + &close.repeat(1_000_000);
        let text = format!(r#"{{"a":{value},"b":2}}"#);
        assert_eq!(all(&text), [("a", value.as_str()), ("b", "2")]);
    }
}

proptest! {
    #[test]
    fn what_was_put_together(
        members in prop::collection::btree_map(
            prop_oneof![any::<String>(), "[\\x00-\\x24\\\\ab{}\\[\\]:,]{0,6}"],
            prop_oneof![any::<String>(), "[\\x00-\\x24\\\\ab{}\\[\\]:,]{0,20}"],
            0..6,
        ),
        nesting in 0..3usize,
    ) {
        let mut members: Vec<_> = members.into_iter().collect();
        members.sort_by(|a, b| compare_keys(&a.0, &b.0));
        let members: Vec<_> = members
            .iter()
            .map(|(name, value)| {
                let value = quoted(value);
                let (before, after) = ("[{\"\":".repeat(nesting), "},0]".repeat(nesting));
                (quoted(name), format!("{before}{value}{after}"))
            })
            .collect();
        let pairs = members.iter().map(|(name, value)| format!("{name}:{value}"));
        let text = pairs.collect::<Vec<_>>().join(",");
        let text = format!("{{{text}}}");
        prop_assert_eq!(super::super::check(text.as_bytes()), Ok(()));
        let found: Vec<_> = all(&text)
            .into_iter()
            .map(|(name, value)| (format!("\"{name}\""), value.to_owned()))
            .collect();
        prop_assert_eq!(found, members);
    }

    #[test]
    fn ends_on_any_text(text in "[{}\\[\\]:,\"\\\\aé𝄞\n0]{0,40}", other in any::<String>()) {
        for text in [format!("{{{text}"), format!("{{\"{text}"), text, other] {
            prop_assert!(all(&text).len() <= text.len());
        }
    }
}
