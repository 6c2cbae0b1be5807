use super::*;
use crate::hash::sha256;
use proptest::prelude::*;

/// Returns an entry in which every column is set. `row_values` contains the number `1.10`, which
/// many JSON libraries write as `1.1`.
fn full() -> Entry<'static> {
    Entry {
        id: 7,
        format: FORMAT,
        txid: u64::MAX,
        occurred_at: 762_226_245_123_456,
        watch_id: Some(*b"\x01\x23\x45\x67\x89\xab\xcd\xef\x00\x10\x20\x30\x40\x50\x60\xff"),
        key_hash: Some(-5),
        previous_key_hash: Some(i64::MIN),
        relation: Some(u32::MAX),
        backend_pid: Some(4321),
        table_schema: Some("public"),
        table_name: Some("leads"),
        operation: "UPDATE",
        outcome: "ok",
        soft_delete: Some("deleted"),
        row_key: Some(r#"{"id":1}"#),
        row_values: Some(r#"{"id":1,"n":1.10}"#),
        changed_values: Some(r#"{"n":2}"#),
        details: Some(r#"{"a":[]}"#),
        user_id: Some("u-17"),
        user_ip: Some("192.0.2.1"),
        user_agent: Some("say \"hi\"\n"),
        request_id: Some("r"),
        db_session_user: Some("app"),
        db_current_user: Some("app2"),
        client_addr: Some("::1"),
        application_name: Some("psql"),
        error_code: Some("23505"),
        error_message: Some("duplicate"),
        error_detail: Some("Key"),
        statement: Some("UPDATE …"),
    }
}

#[test]
fn every_member_in_its_place() {
    let mut out = b"kept".to_vec();
    full().write_preimage(&mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        concat!(
            r#"kept{"application_name":"psql","backend_pid":4321,"changed_values":{"n":2},"client_addr":"::1","#,
            r#""db_current_user":"app2","db_session_user":"app","details":{"a":[]},"error_code":"23505","#,
            r#""error_detail":"Key","error_message":"duplicate","format":1,"id":7,"key_hash":-5,"#,
            r#""occurred_at":"2024-02-26T01:30:45.123456Z","operation":"UPDATE","outcome":"ok","#,
            r#""previous_key_hash":-9223372036854775808,"relation":4294967295,"request_id":"r","row_key":{"id":1},"#,
            r#""row_values":{"id":1,"n":1.10},"#,
            r#""soft_delete":"deleted","statement":"UPDATE …","table_name":"leads","table_schema":"public","#,
            r#""txid":18446744073709551615,"user_agent":"say \"hi\"\n","user_id":"u-17","user_ip":"192.0.2.1","#,
            r#""watch_id":"01234567-89ab-cdef-0010-2030405060ff"}"#,
        )
    );
}

#[test]
fn nulls_have_no_member() {
    let mut out = Vec::new();
    Entry::default().write_preimage(&mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        r#"{"format":1,"id":0,"occurred_at":"2000-01-01T00:00:00.000000Z","operation":"","outcome":"","txid":0}"#
    );
}

#[test]
fn the_preimage_is_canonical_itself() {
    let mut out = Vec::new();
    full().write_preimage(&mut out);
    crate::canonical::check(&out).unwrap();
}

#[test]
fn the_checksum_is_that_of_the_preimage() {
    let mut scratch = b"left over".to_vec();
    let long = "x".repeat(100_000);
    for entry in [
        full(),
        Entry::default(),
        Entry { statement: Some(&long), row_values: Some(&long), ..full() },
    ] {
        let mut preimage = Vec::new();
        entry.write_preimage(&mut preimage);
        assert_eq!(entry.checksum(&mut scratch), sha256(&preimage));
    }
    assert!(scratch.capacity() < 10_000, "the memory that this takes does not depend on the entry");
}

/// Changes each field once to another value, and once to NULL if the field can be NULL.
#[test]
fn any_change_of_any_field_changes_the_checksum() {
    type Change = fn(&mut Entry<'static>);
    macro_rules! changes {
        ($($field:ident: $other:expr),* $(,)?) => {
            {
                // A pattern without `..` must name every field of `Entry`, so the list of changes
                // above is complete.
                let Entry { $($field: _),* } = full();
                vec![$((stringify!($field), (|entry| entry.$field = $other) as Change)),*]
            }
        };
    }
    macro_rules! nulls {
        ($($field:ident),*) => {
            vec![$((stringify!($field), (|entry| entry.$field = None) as Change)),*]
        };
    }
    let mut changes = changes! {
        id: 8, format: 2, txid: 0, occurred_at: 762_226_245_123_457, watch_id: Some([0; 16]),
        key_hash: Some(5), previous_key_hash: Some(0), relation: Some(0), backend_pid: Some(-4321),
        table_schema: Some(""), table_name: Some("lead"), operation: "UPDATE ", outcome: "failed",
        soft_delete: Some("restored"), row_key: Some(r#"{"id":2}"#),
        row_values: Some(r#"{"id":1,"n":1.1}"#), changed_values: Some("{}"),
        details: Some(r#"{"a":{}}"#), user_id: Some("u-18"), user_ip: Some("192.0.2.2"),
        user_agent: Some("say \\\"hi\\\"\\n"), request_id: Some("R"),
        db_session_user: Some("app2"), db_current_user: Some("app"), client_addr: Some("::"),
        application_name: Some("psql\0"), error_code: Some("23506"), error_message: Some("duplicates"),
        error_detail: Some("key"), statement: Some("UPDATE ..."),
    };
    changes.extend(nulls!(
        watch_id,
        key_hash,
        previous_key_hash,
        relation,
        backend_pid,
        table_schema,
        table_name,
        soft_delete,
        row_key,
        row_values,
        changed_values,
        details,
        user_id,
        user_ip,
        user_agent,
        request_id,
        db_session_user,
        db_current_user,
        client_addr,
        application_name,
        error_code,
        error_message,
        error_detail,
        statement
    ));
    let mut scratch = Vec::new();
    let mut seen = std::collections::HashMap::from([(full().checksum(&mut scratch), "nothing")]);
    for (field, change) in changes {
        let mut entry = full();
        change(&mut entry);
        let same = seen.insert(entry.checksum(&mut scratch), field);
        assert_eq!(same, None, "{field}");
    }
}

/// The text columns, in the order in which the test below takes their values from `texts`.
const TEXTS: [&str; 15] = [
    "table_schema",
    "table_name",
    "soft_delete",
    "user_id",
    "user_ip",
    "user_agent",
    "request_id",
    "db_session_user",
    "db_current_user",
    "client_addr",
    "application_name",
    "error_code",
    "error_message",
    "error_detail",
    "statement",
];

proptest! {
    /// Compares the preimage with the output of serde_json, which sorts ASCII keys and escapes
    /// strings as RFC 8785 requires.
    #[test]
    fn as_serde_json_would_write_it(
        id in any::<i64>(), txid in any::<u64>(),
        pid in any::<Option<i32>>(), relation in any::<Option<u32>>(),
        key_hash in any::<Option<i64>>(), previous_key_hash in any::<Option<i64>>(),
        watch_id in any::<Option<[u8; 16]>>(),
        operation in any::<String>(), outcome in "[a-z_]{0,8}",
        texts in prop::collection::vec(any::<Option<String>>(), TEXTS.len()),
        jsons in prop::collection::vec(
            prop::option::of(prop::collection::btree_map("[a-z\"]{0,3}", any::<i64>(), 0..4)),
            4,
        ),
    ) {
        let mut oracle = serde_json::json!({
            "id": id, "format": 1, "txid": txid, "occurred_at": "2000-01-01T00:00:00.000000Z",
            "operation": operation, "outcome": outcome, "backend_pid": pid, "relation": relation,
            "key_hash": key_hash, "previous_key_hash": previous_key_hash,
            "watch_id": watch_id.map(|id| {
                let hex = hex::encode(id);
                [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
            }),
        });
        for (name, value) in TEXTS.iter().zip(&texts) {
            oracle[*name] = serde_json::json!(value);
        }
        let columns = ["row_key", "row_values", "changed_values", "details"];
        for (name, value) in columns.iter().zip(&jsons) {
            oracle[*name] = serde_json::json!(value);
        }
        oracle.as_object_mut().unwrap().retain(|_, value| !value.is_null());

        let texts: Vec<_> = texts.iter().map(Option::as_deref).collect();
        let text = |json| serde_json::to_string(json).unwrap();
        let jsons: Vec<_> = jsons.iter().map(|json| json.as_ref().map(text)).collect();
        let jsons: Vec<_> = jsons.iter().map(Option::as_deref).collect();
        let entry = Entry {
            id, format: 1, txid, occurred_at: 0, watch_id, key_hash, previous_key_hash, relation,
            backend_pid: pid, operation: &operation, outcome: &outcome,
            table_schema: texts[0], table_name: texts[1], soft_delete: texts[2],
            user_id: texts[3], user_ip: texts[4], user_agent: texts[5], request_id: texts[6],
            db_session_user: texts[7], db_current_user: texts[8], client_addr: texts[9],
            application_name: texts[10], error_code: texts[11], error_message: texts[12],
            error_detail: texts[13], statement: texts[14],
            row_key: jsons[0], row_values: jsons[1], changed_values: jsons[2], details: jsons[3],
        };
        let mut out = Vec::new();
        entry.write_preimage(&mut out);
        prop_assert_eq!(String::from_utf8(out).unwrap(), oracle.to_string());
    }
}
