use super::*;
use crate::canonical::Reason;
use proptest::prelude::*;

const WATCH_ID: [u8; 16] = [7; 16];
const KEY: &str = r#"{"id":1}"#;

fn entry() -> Entry<'static> {
    Entry {
        id: 1,
        operation: "INSERT",
        outcome: "ok",
        watch_id: Some(WATCH_ID),
        key_hash: Some(key_hash(&WATCH_ID, KEY.as_bytes())),
        row_key: Some(KEY),
        row_values: Some(r#"{"id":1,"name":"x"}"#),
        user_id: Some("eve"),
        ..Entry::default()
    }
}

/// Verifies an entry against a checksum that matches its columns. A forger who knows the format can
/// compute a matching checksum.
fn forged(entry: &Entry) -> Result<(), Fault> {
    let checksum = entry.checksum(&mut Vec::new());
    entry.verify(&checksum, &mut Vec::new())
}

#[test]
fn honest_entries_verify() {
    assert_eq!(forged(&entry()), Ok(()));
    assert_eq!(forged(&Entry { watch_id: None, key_hash: None, row_key: None, ..entry() }), Ok(()));
    assert_eq!(forged(&Entry { watch_id: None, key_hash: None, ..entry() }), Ok(()));
    assert_eq!(
        forged(&Entry { operation: "of a later version", outcome: "too", ..entry() }),
        Ok(())
    );
}

#[test]
fn a_changed_column_is_a_checksum_fault_even_if_it_breaks_more() {
    let checksum = entry().checksum(&mut Vec::new());
    for changed in [
        Entry { user_id: Some("mallory"), ..entry() },
        Entry { key_hash: Some(0), ..entry() },
        Entry { row_values: Some("{ }"), ..entry() },
    ] {
        let computed = changed.checksum(&mut Vec::new());
        let fault = changed.verify(&checksum, &mut Vec::new()).unwrap_err();
        assert_eq!(fault, Fault::Checksum { stored: checksum, computed });
        assert_eq!(
            fault.to_string(),
            format!(
                "the checksum does not match: {} is stored, the columns give {}",
                hex::encode(checksum),
                hex::encode(computed)
            )
        );
    }
}

#[test]
fn what_cannot_be_a_checksum() {
    let checksum = entry().checksum(&mut Vec::new());
    for length in [0, 31] {
        let fault = entry().verify(&checksum[..length], &mut Vec::new()).unwrap_err();
        assert_eq!(fault, Fault::ChecksumLength(length));
    }
    let longer = [&checksum[..], b"x"].concat();
    let fault = entry().verify(&longer, &mut Vec::new()).unwrap_err();
    assert_eq!(fault.to_string(), "the checksum is 33 bytes long instead of 32");
}

#[test]
fn a_format_that_is_not_known() {
    for format in [0, 2, -1] {
        let fault = forged(&Entry { format, ..entry() }).unwrap_err();
        assert_eq!(fault, Fault::UnknownFormat(format));
    }
    assert_eq!(
        Fault::UnknownFormat(2).to_string(),
        "unknown format 2: this version verifies format 1"
    );
}

/// Shows an attack on the checksum: two entries with different columns have the same preimage.
/// Verification finds the attack, because one of the columns is not canonical JSON.
#[test]
fn text_moved_between_columns_keeps_the_checksum_and_is_found() {
    let honest = Entry { details: Some("{}"), error_code: Some("23505"), ..entry() };
    let moved = Entry { details: Some(r#"{},"error_code":"23505""#), error_code: None, ..entry() };
    let checksum = honest.checksum(&mut Vec::new());
    assert_eq!(checksum, moved.checksum(&mut Vec::new()));
    assert_eq!(honest.verify(&checksum, &mut Vec::new()), Ok(()));
    let fault = moved.verify(&checksum, &mut Vec::new()).unwrap_err();
    let cause = NotCanonical { offset: 2, reason: Reason::TrailingBytes };
    assert_eq!(fault, Fault::NotCanonical { column: "details", cause });
    assert_eq!(
        fault.to_string(),
        "details is not canonical JSON: more text after the value at byte 2"
    );
}

#[test]
fn every_json_column_is_an_object() {
    for (column, entry) in [
        ("row_key", Entry { row_key: Some("1"), ..entry() }),
        ("row_values", Entry { row_values: Some("[]"), ..entry() }),
        ("changed_values", Entry { changed_values: Some("null"), ..entry() }),
        ("details", Entry { details: Some(r#""{""#), ..entry() }),
    ] {
        assert_eq!(forged(&entry), Err(Fault::NotAnObject { column }));
    }
    for (column, entry) in [
        ("row_key", Entry { row_key: Some("{} "), ..entry() }),
        ("row_values", Entry { row_values: Some(r#"{"b":1,"a":1}"#), ..entry() }),
        ("changed_values", Entry { changed_values: Some("{\"a\":1e1}"), ..entry() }),
        ("details", Entry { details: Some(""), ..entry() }),
    ] {
        assert!(
            matches!(forged(&entry), Err(Fault::NotCanonical { column: found, .. }) if found == column)
        );
    }
}

#[test]
fn a_key_hash_that_hides_the_entry_from_its_history() {
    let computed = entry().key_hash;
    let fault = forged(&Entry { key_hash: Some(0), ..entry() }).unwrap_err();
    assert_eq!(fault, Fault::KeyHash { stored: Some(0), computed });
    let fault = forged(&Entry { key_hash: None, ..entry() }).unwrap_err();
    assert_eq!(fault, Fault::KeyHash { stored: None, computed });
    let fault = forged(&Entry { row_key: None, key_hash: Some(-3), ..entry() }).unwrap_err();
    assert_eq!(fault, Fault::KeyHash { stored: Some(-3), computed: None });
    assert_eq!(fault.to_string(), "the key hash is -3, but watch_id and row_key give NULL");
}

/// Returns the entry of an UPDATE that changed a primary key of two columns. The names of the key
/// columns also occur in nested objects of the row.
fn rekeyed() -> Entry<'static> {
    Entry {
        operation: "UPDATE",
        key_hash: Some(key_hash(&WATCH_ID, br#"{"no":2,"t\"":"x"}"#)),
        previous_key_hash: Some(key_hash(&WATCH_ID, br#"{"no":1.10,"t\"":"}"}"#)),
        row_key: Some(r#"{"no":2,"t\"":"x"}"#),
        row_values: Some(
            r#"{"a":{"no":7,"t\"":[8]},"m":"\"no\":9,","no":1.10,"p":null,"t\"":"}"}"#,
        ),
        ..entry()
    }
}

#[test]
fn a_previous_key_hash_of_the_key_in_the_old_row() {
    assert_eq!(forged(&rekeyed()), Ok(()));
    // A previous key hash of NULL is not a fault, although the UPDATE changed the key.
    assert_eq!(forged(&Entry { previous_key_hash: None, ..rekeyed() }), Ok(()));
}

#[test]
fn a_previous_key_hash_that_is_not_what_the_columns_give() {
    let computed = rekeyed().previous_key_hash;
    let fault = forged(&Entry { previous_key_hash: Some(0), ..rekeyed() }).unwrap_err();
    assert_eq!(fault, Fault::PreviousKeyHash { stored: 0, computed });
    let stored = computed.unwrap();
    for changed in [
        // The operation is not UPDATE.
        Entry { operation: "INSERT", ..rekeyed() },
        Entry { operation: "UPDATE ", ..rekeyed() },
        // `row_values` is NULL, or lacks the first, the last or every column of the key.
        Entry { row_values: None, ..rekeyed() },
        Entry { row_values: Some(r#"{"a":{"no":1.10},"t\"":"}"}"#), ..rekeyed() },
        Entry { row_values: Some(r#"{"no":1.10,"p":{"t\"":"}"}}"#), ..rekeyed() },
        Entry { row_values: Some("{}"), ..rekeyed() },
        // `row_key` or `watch_id` is NULL, so no key hash can be computed.
        Entry { row_key: None, key_hash: None, ..rekeyed() },
        Entry { watch_id: None, key_hash: None, ..rekeyed() },
    ] {
        assert_eq!(
            forged(&changed),
            Err(Fault::PreviousKeyHash { stored, computed: None }),
            "{changed:?}"
        );
    }
    let fault = Fault::PreviousKeyHash { stored: -3, computed: None };
    let text =
        "the previous key hash is -3, but operation, watch_id, row_key and row_values give NULL";
    assert_eq!(fault.to_string(), text);
}

#[test]
fn a_wrong_key_hash_is_reported_before_a_wrong_previous_one() {
    let fault =
        forged(&Entry { key_hash: Some(0), previous_key_hash: Some(0), ..rekeyed() }).unwrap_err();
    assert!(matches!(fault, Fault::KeyHash { stored: Some(0), .. }));
}

proptest! {
    /// Compares the previous key with the output of serde_json. The maps of serde_json have the
    /// order of canonical JSON, because all names in this test are ASCII.
    #[test]
    fn the_previous_key_is_what_a_json_library_makes_of_it(
        row in prop::collection::btree_map(
            "[a-c\"\\\\\n]{0,2}",
            prop_oneof![any::<String>(), "[{}\\[\\]\",:\\\\]{0,9}"],
            0..8,
        ),
        key in prop::collection::btree_set("[a-c\"\\\\\n]{0,2}", 0..4), from_row in any::<bool>(),
    ) {
        let key: Vec<_> = if from_row {
            row.keys().take(key.len()).cloned().collect()
        } else {
            key.into_iter().collect()
        };
        let after = key.iter().map(|name| (name.clone(), 0.into()));
        let after: serde_json::Map<_, _> = after.collect();
        let before = key.iter().map(|name| Some((name.clone(), row.get(name)?.clone().into())));
        let before: Option<serde_json::Map<String, serde_json::Value>> = before.collect();
        let mut out = Vec::new();
        let row_key = serde_json::Value::Object(after).to_string();
        let found = write_previous_key(&mut out, &row_key, &serde_json::to_string(&row).unwrap());
        let found = found.map(|()| String::from_utf8(out).unwrap());
        prop_assert_eq!(found, before.map(|before| serde_json::Value::Object(before).to_string()));
    }
}
