use super::parse::MAX_HASHES;
use super::*;
use proptest::prelude::*;

fn written(record: &Record) -> String {
    let mut out = Vec::new();
    record.write(&mut out);
    assert_eq!(out.pop(), Some(b'\n'));
    String::from_utf8(out).unwrap()
}

fn samples() -> Vec<Record<'static>> {
    let (a, b) = ([0xab; 32], [1; 32]);
    let checkpoint = CheckpointRecord {
        tree_size: 3,
        root: a,
        entry_ids: IdRanges::parse("{[1,3),[7,8)}").unwrap(),
        sealed_at: 5,
        note: "log\n3\n…\n\n— log x\n".into(),
        edge: None,
    };
    let header =
        Header { exported_at: 0, kind: Kind::History, origin: Some("log".into()), selection: None };
    vec![
        Record::Export(header.clone()),
        Record::Export(Header {
            kind: Kind::Selection,
            selection: Some("table \"x\"".into()),
            origin: None,
            ..header
        }),
        Record::Start(Start { tree_size: 0, edge: vec![], note: None }),
        Record::Start(Start { tree_size: 3, edge: vec![a, b], note: Some("n\n".into()) }),
        Record::Consistency { from_size: 9, hashes: vec![b] },
        Record::Checkpoint(CheckpointRecord { edge: Some(vec![a, b]), ..checkpoint.clone() }),
        Record::Checkpoint(checkpoint),
        Record::Sealed { checksum: a, entry: r#"{"id":1}"#, leaf: None, place: None },
        Record::Sealed {
            checksum: a,
            entry: r#"{"id":1}"#,
            leaf: Some(b),
            place: Some(Place { index: 7, proof: vec![a] }),
        },
        Record::Unsealed { checksum: a, entry: "{}" },
        Record::Inserted { checksum: a, entry: "{}" },
        Record::Missing { id: Some(-1), leaf: Some(a) },
        Record::Missing { id: Some(i64::MAX), leaf: None },
        Record::Damaged(Damaged { id: Some(1), fault: "x\n".into(), leaf: Some(a) }),
        Record::Damaged(Damaged { id: None, fault: String::new(), leaf: None }),
        Record::Unknown(Unknown { column: "e\"".into(), id: Some(1), leaf: Some(a) }),
        Record::Unknown(Unknown { column: String::new(), id: None, leaf: None }),
        Record::End(End { lines: 3, tree_size: u64::MAX }),
    ]
}

#[test]
fn what_is_written_is_read_back() {
    for record in samples() {
        let line = written(&record);
        assert_eq!(Record::parse(line.as_bytes()), Ok(record), "{line}");
    }
}

#[test]
fn the_text_of_records() {
    let lines: Vec<_> = samples().iter().map(written).collect();
    let header = r#"{"export":{"exported_at":"2000-01-01T00:00:00.000000Z","kind":"history","origin":"log","version":1}}"#;
    assert_eq!(lines[0], header);
    assert_eq!(lines[2], r#"{"start":{"edge":[],"tree_size":0}}"#);
    assert_eq!(lines[7], format!(r#"{{"checksum":"{}","entry":{{"id":1}}}}"#, "ab".repeat(32)));
    assert_eq!(lines[12], r#"{"missing":{"id":9223372036854775807}}"#);
}

#[test]
fn what_is_no_record() {
    let checksum = "ab".repeat(32);
    for line in [
        "",
        "{}",
        "[]",
        "1",
        "null",
        "{\"other\":{}}",
        "{\"end\":{}}",
        "{\"end\":1}",
        r#"{"end":{"lines":1,"tree_size":2},"more":1}"#,
        r#"{"end":{"lines":1,"tree_size":2,"x":1}}"#,
        r#"{"end":{"lines":"1","tree_size":2}}"#,
        r#"{"end":{"lines":1.0,"tree_size":2}}"#,
        r#"{"end":{"lines":-1,"tree_size":2}}"#,
        r#"{"end":{"lines":1,"tree_size":18446744073709551616}}"#,
        r#"{"end": {"lines":1,"tree_size":2}}"#,
        r#"{"end":{"tree_size":2,"lines":1}}"#,
        r#"{"checksum":"00","entry":{}}"#,
        &format!(r#"{{"checksum":"{}","entry":{{}}}}"#, "AB".repeat(32)),
        &format!(r#"{{"checksum":"{checksum}"}}"#),
        &format!(r#"{{"checksum":"{checksum}","entry":[]}}"#),
        &format!(r#"{{"checksum":"{checksum}","entry":{{}},"index":1}}"#),
        &format!(r#"{{"checksum":"{checksum}","entry":{{}},"unsealed":{{}}}}"#),
        &format!(r#"{{"checksum":"{checksum}","inserted":{{}},"unsealed":{{}}}}"#),
        r#"{"start":{"edge":["00"],"tree_size":1}}"#,
        r#"{"start":{"edge":[[]],"tree_size":1}}"#,
        r#"{"missing":{"id":9223372036854775808}}"#,
    ] {
        assert!(Record::parse(line.as_bytes()).is_err(), "{line}");
    }
    let many = format!(
        r#"{{"start":{{"edge":[{}],"tree_size":1}}}}"#,
        vec![format!("\"{checksum}\""); MAX_HASHES + 1].join(",")
    );
    assert_eq!(Record::parse(many.as_bytes()), Err(RecordError::Value("edge")));
    let later =
        r#"{"export":{"exported_at":"2000-01-01T00:00:00.000000Z","kind":"history","version":2}}"#;
    assert_eq!(Record::parse(later.as_bytes()), Err(RecordError::Version(2)));
    let later = r#"{"export":{"exported_for":[],"kind":"archive","version":2}}"#;
    assert_eq!(Record::parse(later.as_bytes()), Err(RecordError::Version(2)));
    assert!(matches!(Record::parse(b"\xff"), Err(RecordError::NotCanonical(_))));
}

proptest! {
    /// Checks that a record can be written in only one way. Either `parse` refuses a truncated or
    /// changed line, or `write` writes the parsed line back byte for byte.
    #[test]
    fn one_spelling(
        which in 0..18usize,
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let mut line = written(&samples()[which]).into_bytes();
        let at = at.index(line.len());
        if cut { line.truncate(at) } else { line[at] = byte }
        if let Ok(record) = Record::parse(&line) {
            prop_assert_eq!(written(&record).into_bytes(), line);
        }
    }
}
