//! Reads the test vectors from `docs/FORMAT.md`. Checks this crate and the verifier in
//! `verifiers/python` with the test vectors. The verifier in `verifiers/python` was written from
//! `docs/FORMAT.md` alone.

use ledger::{Entry, Fault, canonical, key_hash, leaf_hash, time};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::process::{Command, Stdio};

mod page;
use page::{blocks, page, printed_by, verifier};

fn lines(info: &str) -> Vec<String> {
    let lines: Vec<_> =
        blocks(info).iter().flat_map(|block| block.split('\n')).map(str::to_owned).collect();
    assert!(lines.len() > 10);
    lines
}

struct Example {
    columns: Map<String, Value>,
    preimage: String,
    length: usize,
    checksum: String,
    leaf: String,
}

fn examples() -> Vec<Example> {
    let (entries, preimages, hashes) =
        (blocks("json entry"), blocks("text preimage"), blocks("text hashes"));
    assert!(
        entries.len() >= 4 && entries.len() == preimages.len() && entries.len() == hashes.len()
    );
    let parts = entries.into_iter().zip(preimages).zip(hashes);
    parts
        .map(|((columns, preimage), hashes)| {
            let hash = |name: &str| {
                let line = hashes.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap_or_else(|| panic!("no {name} in {hashes}")).trim().to_owned()
            };
            Example {
                columns: serde_json::from_str(&columns).expect("columns of an example"),
                preimage,
                length: hash("length").parse().unwrap(),
                checksum: hash("checksum"),
                leaf: hash("leaf"),
            }
        })
        .collect()
}

/// Returns a text column of an example. Panics if the example contains the column as a number.
fn text<'a>(columns: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    match columns.get(name)? {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => panic!("{name}: {other}"),
    }
}

fn integer<T: std::str::FromStr>(columns: &Map<String, Value>, name: &str) -> Option<T> {
    let text = match columns.get(name)? {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Some(text.parse().unwrap_or_else(|_| panic!("{name}: {text}")))
}

/// Converts a timestamp of year 1 or later to microseconds since 2000, by counting the days. This
/// function shares no code with the crate that it tests.
fn micros(text: &str) -> i64 {
    let number = |part: &str| part.parse::<i64>().unwrap();
    let (date, clock) = text.strip_suffix('Z').unwrap().split_once('T').unwrap();
    let date: Vec<_> = date.split('-').map(number).collect();
    let clock: Vec<_> = clock.split([':', '.']).map(number).collect();
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_before = |year: i64| (1..year).map(|year| 365 + i64::from(leap(year))).sum::<i64>();
    let months = [31, 28 + i64::from(leap(date[0])), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let days = days_before(date[0]) - days_before(2000)
        + months[..date[1] as usize - 1].iter().sum::<i64>()
        + date[2]
        - 1;
    (((days * 24 + clock[0]) * 60 + clock[1]) * 60 + clock[2]) * 1_000_000 + clock[3]
}

fn entry(columns: &Map<String, Value>) -> Entry<'_> {
    let watch_id = text(columns, "watch_id").map(|uuid| {
        let bytes = hex::decode(uuid.replace('-', "")).unwrap();
        bytes.try_into().unwrap()
    });
    let text = |name| text(columns, name);
    Entry {
        id: integer(columns, "id").unwrap(),
        format: integer(columns, "format").unwrap(),
        txid: integer(columns, "txid").unwrap(),
        occurred_at: micros(text("occurred_at").unwrap()),
        watch_id,
        key_hash: integer(columns, "key_hash"),
        previous_key_hash: integer(columns, "previous_key_hash"),
        relation: integer(columns, "relation"),
        backend_pid: integer(columns, "backend_pid"),
        table_schema: text("table_schema"),
        table_name: text("table_name"),
        operation: text("operation").unwrap(),
        outcome: text("outcome").unwrap(),
        soft_delete: text("soft_delete"),
        row_key: text("row_key"),
        row_values: text("row_values"),
        changed_values: text("changed_values"),
        details: text("details"),
        user_id: text("user_id"),
        user_ip: text("user_ip"),
        user_agent: text("user_agent"),
        request_id: text("request_id"),
        db_session_user: text("db_session_user"),
        db_current_user: text("db_current_user"),
        client_addr: text("client_addr"),
        application_name: text("application_name"),
        error_code: text("error_code"),
        error_message: text("error_message"),
        error_detail: text("error_detail"),
        statement: text("statement"),
    }
}

#[test]
fn entries_give_their_preimage_and_hashes() {
    for example in examples() {
        let entry = entry(&example.columns);
        let (mut preimage, mut scratch) = (Vec::new(), Vec::new());
        entry.write_preimage(&mut preimage);
        let checksum = entry.checksum(&mut scratch);
        assert_eq!(std::str::from_utf8(&preimage).unwrap(), example.preimage);
        assert_eq!(preimage.len(), example.length, "length of the preimage of entry {}", entry.id);
        assert_eq!(hex::encode(checksum), example.checksum, "checksum of entry {}", entry.id);
        assert_eq!(
            hex::encode(leaf_hash(&checksum)),
            example.leaf,
            "leaf hash of entry {}",
            entry.id
        );
        assert_eq!(entry.verify(&checksum, &mut scratch), Ok(()));
    }
}

#[test]
fn the_first_example_has_every_column_of_the_page() {
    let page = page();
    let table =
        page.split("| --- | --- | --- | --- |\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = table.lines().flat_map(|line| line.split('|').nth(1).unwrap().split(','));
    let mut names: Vec<_> = names.map(|name| name.trim().trim_matches('`').to_owned()).collect();
    assert_eq!(names.pop().unwrap(), "checksum");
    let mut columns: Vec<_> = examples()[0].columns.keys().cloned().collect();
    names.sort();
    columns.sort();
    assert_eq!(names, columns);
}

#[test]
fn canonical_texts_are_told_from_others() {
    for line in lines("text canonical") {
        assert_eq!(canonical::check(line.as_bytes()), Ok(()), "{line}");
    }
    for line in lines("text not canonical") {
        assert!(canonical::check(line.as_bytes()).is_err(), "{line}");
    }
}

#[test]
fn instants_have_their_text() {
    for line in lines("text instants") {
        let (micros, expected) = line.split_once(' ').unwrap();
        let mut written = Vec::new();
        time::write_timestamp(&mut written, micros.parse().unwrap());
        assert_eq!(String::from_utf8(written).unwrap(), expected.trim());
    }
}

/// Returns the output lines of the Python verifier for these rows, and whether the verifier exited
/// with status 0. Returns None if python3 is not installed.
fn python(rows: &[Value]) -> Option<(Vec<String>, bool)> {
    let child = Command::new("python3")
        .arg(verifier().join("src/lead_audit_verifier"))
        .arg("entries")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("there is no python3 here: the verifier in Python was not tested");
            return None;
        }
        Err(error) => panic!("python3: {error}"),
    };
    let input: String = rows.iter().map(|row| format!("{row}\n")).collect();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    Some((lines, output.status.success()))
}

fn exported(example: &Example) -> Value {
    let mut row = example.columns.clone();
    row.insert("checksum".into(), example.checksum.clone().into());
    Value::Object(row)
}

/// Returns an entry with these `details` and a matching checksum. A forger who knows the format can
/// compute a matching checksum.
fn with_details(id: i64, details: &str) -> Value {
    let entry = Entry { id, details: Some(details), ..Entry::default() };
    let checksum = entry.checksum(&mut Vec::new());
    json!({
        "id": id, "format": 1, "txid": 0, "occurred_at": "2000-01-01T00:00:00.000000Z", "operation": "", "outcome": "",
        "details": details, "checksum": hex::encode(checksum),
    })
}

#[test]
fn the_python_verifier_accepts_the_examples_and_what_is_canonical() {
    let mut rows: Vec<_> = examples().iter().map(exported).collect();
    for (id, text) in (100..).zip(lines("text canonical")) {
        rows.push(with_details(id, &format!("{{\"a\":{text}}}")));
    }
    let expected = format!("{} entries, 0 faults", rows.len());
    if let Some(verdict) = python(&rows) {
        assert_eq!(verdict, (vec![expected], true));
    }
}

#[test]
fn the_python_verifier_finds_every_changed_column() {
    let mut rows = Vec::new();
    for example in examples() {
        for name in example.columns.keys().filter(|name| *name != "id") {
            let mut row = exported(&example);
            row[name] = match &row[name] {
                Value::Null => json!("{}"),
                Value::String(text) if text.starts_with('{') => {
                    json!(text.replacen('{', "{\"\":0,", 1))
                }
                Value::String(text) if text.parse::<u64>().is_ok() => json!("17"),
                Value::String(text) => json!(format!("{text} ")),
                _ => json!(17),
            };
            rows.push(row);
        }
    }
    if let Some((lines, success)) = python(&rows) {
        assert_eq!(lines.len(), rows.len() + 1, "{lines:#?}");
        assert_eq!(lines.last().unwrap(), &format!("{0} entries, {0} faults", rows.len()));
        assert!(!success);
    }
}

#[test]
fn the_python_verifier_finds_what_a_matching_checksum_hides() {
    let mut rows = Vec::new();
    for (id, text) in (0..).zip(lines("text not canonical")) {
        rows.push(with_details(2 * id, &text));
        let inside = format!("{{\"a\":{text}}}");
        if canonical::check(inside.as_bytes()).is_err() {
            rows.push(with_details(2 * id + 1, &inside));
        }
    }
    rows.push(with_details(9_998, "[]"));
    rows.push(with_details(9_999, &"[".repeat(100_000)));
    let mut wrong_key_hash = with_details(10_000, "{}");
    let entry = Entry { id: 10_000, details: Some("{}"), key_hash: Some(5), ..Entry::default() };
    wrong_key_hash["key_hash"] = json!("5");
    wrong_key_hash["checksum"] = json!(hex::encode(entry.checksum(&mut Vec::new())));
    rows.push(wrong_key_hash);
    if let Some((lines, success)) = python(&rows) {
        let faults: std::collections::HashSet<_> =
            lines.iter().filter_map(|line| line.split(':').next()).collect();
        for row in &rows {
            assert!(faults.contains(format!("entry {}", row["id"]).as_str()), "not found: {row}");
        }
        assert!(!success);
    }
}

/// Returns example 6 of docs/FORMAT.md with `changes` to its columns and a matching checksum.
fn rekeyed(id: i64, changes: &[(&str, Value)]) -> Value {
    let rekeyed = |example: &Example| text(&example.columns, "previous_key_hash").is_some();
    let mut columns =
        examples().into_iter().find(rekeyed).expect("an example with a previous key").columns;
    columns["id"] = json!(id.to_string());
    for (name, value) in changes {
        columns.insert((*name).to_owned(), value.clone());
    }
    let checksum = entry(&columns).checksum(&mut Vec::new());
    columns.insert("checksum".into(), hex::encode(checksum).into());
    Value::Object(columns)
}

fn verdict(row: &Value) -> Result<(), Fault> {
    let entry = entry(row.as_object().unwrap());
    entry.verify(&entry.checksum(&mut Vec::new()), &mut Vec::new())
}

#[test]
fn the_python_verifier_judges_a_previous_key_as_the_crate_does() {
    let watch_id: [u8; 16] =
        hex::decode("7d4c1f0e52a94b7e9d3b0c6f5e1a2b84").unwrap().try_into().unwrap();
    let hash = |key: &str| json!(key_hash(&watch_id, key.as_bytes()).to_string());
    // `after` is the key after the UPDATE, `row` is the old row, and `before` is the key in the old
    // row.
    let (after, row) =
        (r#"{"no":2,"t\"":"é"}"#, r#"{"a":{"no":7,"t\"":8},"no":1.10,"t\"":{"":[1],"😀":"}"}}"#);
    let before = r#"{"no":1.10,"t\"":{"":[1],"😀":"}"}}"#;
    let of_two = [("row_key", json!(after)), ("row_values", json!(row)), ("key_hash", hash(after))];
    let with = |more: &[(&'static str, Value)]| [&of_two[..], more].concat();
    let sound = [
        rekeyed(1, &[]),
        rekeyed(2, &[("previous_key_hash", Value::Null)]),
        rekeyed(3, &with(&[("previous_key_hash", hash(before))])),
    ];
    let faulty = [
        rekeyed(4, &[("previous_key_hash", json!("0"))]),
        rekeyed(5, &[("operation", json!("DELETE"))]),
        rekeyed(6, &[("row_values", Value::Null)]),
        rekeyed(7, &[("row_values", json!(r#"{"x":{"id":1}}"#))]),
        rekeyed(8, &[("row_key", Value::Null), ("key_hash", Value::Null)]),
        rekeyed(9, &[("watch_id", Value::Null), ("key_hash", Value::Null)]),
        rekeyed(10, &with(&[("previous_key_hash", hash(after))])),
        rekeyed(11, &with(&[("previous_key_hash", hash(row))])),
    ];
    for row in &sound {
        assert_eq!(verdict(row), Ok(()), "{row}");
    }
    for row in &faulty {
        assert!(matches!(verdict(row), Err(Fault::PreviousKeyHash { .. })), "{row}");
    }
    let mut expected: Vec<_> = (4..=11)
        .map(|id| format!("entry {id}: the previous key hash is not that of watch_id and the key in row_values"))
        .collect();
    expected.push("11 entries, 8 faults".to_owned());
    if let Some(verdict) = python(&[&sound[..], &faulty[..]].concat()) {
        assert_eq!(verdict, (expected, false));
    }
}

#[test]
fn the_page_has_the_examples_that_the_generator_prints() {
    let Some(printed) = printed_by("format_examples.py") else { return };
    let page = page();
    let printed: Vec<_> = printed.split("\n\n").map(str::trim_end).collect();
    assert_eq!(printed.len(), examples().len());
    for example in printed {
        assert!(page.contains(example), "not in FORMAT.md:\n{example}");
    }
}

/// Converts values with invalid bytes to the objects that replace them, and back.
#[test]
fn values_that_are_not_text() {
    let vectors = blocks("text bytes");
    let vectors: Vec<_> = vectors
        .iter()
        .flat_map(|block| block.lines())
        .map(|line| line.split_once(' ').unwrap())
        .collect();
    assert!(vectors.len() > 5);
    for &(value, stand_in) in &vectors {
        let mut written = Vec::new();
        canonical::write_bytes_value(&mut written, &hex::decode(value).unwrap());
        assert_eq!(String::from_utf8(written).unwrap(), stand_in.trim(), "{value}");
        canonical::check(stand_in.trim().as_bytes()).unwrap();
    }
    let script = "import sys; sys.dont_write_bytecode = True; from lead_audit_verifier import entries as v
for line in sys.stdin.buffer.read().decode().splitlines(): print(v.json_bytes(v.parse(line)).hex())";
    let mut python = Command::new("python3")
        .args(["-c", script])
        .current_dir(verifier().join("src"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    let stand_ins: String =
        vectors.iter().map(|(_, stand_in)| format!("{}\n", stand_in.trim())).collect();
    python.stdin.take().unwrap().write_all(stand_ins.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    let values: Vec<_> = vectors.iter().map(|(value, _)| *value).collect();
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().collect::<Vec<_>>(), values);
}
