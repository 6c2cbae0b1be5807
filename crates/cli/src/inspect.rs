//! The command `inspect`, which shows the content of a file. The command checks only the syntax of
//! the file. The command verifies no signature, checksum or proof.

use crate::Status;
use crate::arguments::Inspect;
use crate::error::CommandError;
use crate::files::read_note;
use crate::progress::Console;
use crate::prove::checkpoint_of;
use export::read::{Blocks, Limits, open};
use export::{EntryColumns, Kind, Record};
use ledger::cosignature::CosigningKey;
use ledger::merkle::{Hash, hash_text};
use ledger::note::{Note, SigningKey, VerifierKey};
use ledger::tlog_proof::TlogProof;
use serde_json::{Value, json};
use std::io::Read;

pub fn run(arguments: &Inspect, console: Console) -> Result<Status, CommandError> {
    let path = &arguments.file;
    if !path.exists()
        && let Some(key) = path.to_str().and_then(|text| VerifierKey::from_text(text).ok())
    {
        return show(&key_lines("public key", &key), console);
    }
    if arguments.id.is_some() || arguments.line.is_some() {
        return record(arguments, console);
    }
    let mut beginning = Vec::new();
    if path.as_os_str() != "-" {
        let reader = open(path).map_err(CommandError::file(path))?;
        reader.take(12).read_to_end(&mut beginning).map_err(CommandError::file(path))?;
    }
    if beginning.starts_with(b"{\"export\":") {
        return overview(arguments, console);
    }
    let bytes = read_note(path)?;
    let text = String::from_utf8_lossy(&bytes);
    if let Ok(proof) = TlogProof::parse(&bytes) {
        let mut lines = vec![
            ("what", json!("proof of an entry (C2SP tlog-proof)")),
            ("leaf index", json!(proof.index)),
        ];
        lines.push(("proof", proof.hashes.iter().map(hash_text).collect()));
        lines.extend(note_lines(&proof.checkpoint));
        return show(&lines, console);
    }
    if let Ok(key) = VerifierKey::from_text(text.trim()) {
        return show(&key_lines("public key", &key), console);
    }
    // If the file contains a private key, only its public key is shown.
    if let Ok(key) = SigningKey::from_text(&text) {
        return show(&key_lines("private key of a log; its public key", key.verifier()), console);
    }
    if let Ok(key) = CosigningKey::from_text(&text) {
        return show(
            &key_lines("private key of a witness; its public key", key.verifier()),
            console,
        );
    }
    if let Ok(note) = Note::parse_or_unsigned(&bytes)
        && checkpoint_of(&note).is_some()
    {
        let mut lines = vec![("what", json!("checkpoint (C2SP tlog-checkpoint)"))];
        lines.extend(note_lines(&note));
        return show(&lines, console);
    }
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    if let Ok(found) = Record::parse(line) {
        return show(&record_lines(&found), console);
    }
    if ledger::canonical::check(line).is_ok() && line.starts_with(b"{") {
        return show(&entry_lines(&String::from_utf8_lossy(line)), console);
    }
    Err(CommandError::content(path)("neither an export, an entry, a checkpoint, a proof nor a key"))
}

type Lines = Vec<(&'static str, Value)>;

fn show(lines: &[(&str, Value)], console: Console) -> Result<Status, CommandError> {
    let value: serde_json::Map<String, Value> =
        lines.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let text: Vec<String> =
        lines.iter().map(|(name, value)| format!("{name:<18} {}", shown(value))).collect();
    console.result(&text.join("\n"), &Value::Object(value))?;
    Ok(Status::Intact)
}

/// Returns a value as text whose characters cannot control a terminal.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text
            .chars()
            .flat_map(|c| if c == '"' { vec![c] } else { c.escape_debug().collect() })
            .collect(),
        Value::Array(values) => {
            let shown: Vec<String> = values.iter().map(shown).collect();
            if shown.is_empty() { "none".to_owned() } else { shown.join(&format!("\n{:19}", "")) }
        }
        other => other.to_string(),
    }
}

fn key_lines(what: &str, key: &VerifierKey) -> Lines {
    vec![
        ("what", json!(what)),
        ("name", json!(key.name())),
        ("key id", json!(format!("{:08x}", key.id()))),
        ("algorithm", json!(format!("{:?}", key.algorithm()))),
        ("text", json!(key.to_string())),
    ]
}

fn note_lines(note: &Note) -> Lines {
    let mut lines = Vec::new();
    if let Some(checkpoint) = checkpoint_of(note) {
        lines.push(("origin", json!(checkpoint.origin())));
        lines.push(("tree size", json!(checkpoint.size())));
        lines.push(("root", json!(hash_text(checkpoint.root()))));
        let extensions: Vec<&str> = checkpoint.extensions().collect();
        if !extensions.is_empty() {
            lines.push(("extensions", json!(extensions)));
        }
    }
    let signatures: Vec<String> = note
        .signatures()
        .iter()
        .map(|signature| format!("{} (key id {:08x})", signature.name(), signature.key_id()))
        .collect();
    lines.push(("signatures", json!(signatures)));
    lines
}

fn entry_lines(preimage: &str) -> Lines {
    let mut lines: Lines = vec![("what", json!("entry"))];
    const NAMES: [&str; 30] = [
        "id",
        "occurred_at",
        "operation",
        "outcome",
        "soft_delete",
        "table_schema",
        "table_name",
        "row_key",
        "row_values",
        "changed_values",
        "details",
        "user_id",
        "user_ip",
        "user_agent",
        "request_id",
        "db_session_user",
        "db_current_user",
        "client_addr",
        "application_name",
        "backend_pid",
        "txid",
        "error_code",
        "error_message",
        "error_detail",
        "statement",
        "relation",
        "watch_id",
        "key_hash",
        "previous_key_hash",
        "format",
    ];
    let columns = EntryColumns::of(preimage);
    let known =
        NAMES.iter().filter_map(|name| columns.get(name).map(|value| (*name, json!(value))));
    lines.extend(known);
    let unknown: Vec<&str> = columns
        .0
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| !NAMES.contains(name))
        .collect();
    if !unknown.is_empty() {
        lines.push(("unknown columns", json!(unknown)));
    }
    lines
}

fn record_lines(record: &Record) -> Lines {
    let entry = |what: &str, checksum: &Hash, entry: &str| {
        let mut lines = entry_lines(entry);
        lines[0].1 = json!(what);
        lines.push(("checksum", json!(hex::encode(checksum))));
        lines
    };
    match record {
        Record::Export(header) => vec![
            ("what", json!("export")),
            ("kind", json!(if header.kind == Kind::History { "history" } else { "selection" })),
            ("selection", json!(header.selection)),
            ("origin", json!(header.origin)),
            ("exported at", json!(instant(header.exported_at))),
        ],
        Record::Start(start) => {
            let mut lines = vec![
                ("what", json!("tree before the first entry")),
                ("tree size", json!(start.tree_size)),
            ];
            let note =
                start.note.as_ref().and_then(|note| Note::parse_or_unsigned(note.as_bytes()).ok());
            lines.extend(note.iter().flat_map(note_lines));
            lines
        }
        Record::Consistency { from_size, hashes } => vec![
            ("what", json!("consistency proof")),
            ("from size", json!(from_size)),
            ("hashes", hashes.iter().map(hash_text).collect()),
        ],
        Record::Checkpoint(checkpoint) => {
            let mut lines = vec![
                ("what", json!("checkpoint")),
                ("sealed at", json!(instant(checkpoint.sealed_at))),
                ("entry ids", json!(checkpoint.entry_ids.to_string())),
            ];
            match Note::parse_or_unsigned(checkpoint.note.as_bytes()) {
                Ok(note) => lines.extend(note_lines(&note)),
                Err(error) => lines.push(("note", json!(error.to_string()))),
            }
            lines
        }
        Record::Sealed { checksum, entry: preimage, place, .. } => {
            let mut lines = entry("entry", checksum, preimage);
            if let Some(place) = place {
                lines.push(("leaf index", json!(place.index)));
            }
            lines
        }
        Record::Unsealed { checksum, entry: preimage } => {
            entry("entry, not sealed yet", checksum, preimage)
        }
        Record::Inserted { checksum, entry: preimage } => {
            entry("entry that no checkpoint can take", checksum, preimage)
        }
        Record::Missing { id, .. } => vec![("what", json!("missing entry")), ("id", json!(id))],
        Record::Damaged(damaged) => {
            vec![
                ("what", json!("damaged entry")),
                ("id", json!(damaged.id)),
                ("fault", json!(damaged.fault)),
            ]
        }
        Record::Unknown(unknown) => {
            let mut lines = vec![(
                "what",
                json!("entry with a value in a column that the exporter did not know"),
            )];
            lines.extend([("id", json!(unknown.id)), ("column", json!(unknown.column))]);
            lines
        }
        Record::End(end) => {
            vec![
                ("what", json!("end")),
                ("lines", json!(end.lines)),
                ("tree size", json!(end.tree_size)),
            ]
        }
    }
}

fn instant(micros: i64) -> String {
    let mut text = Vec::new();
    ledger::time::write_timestamp(&mut text, micros);
    String::from_utf8_lossy(&text).into_owned()
}

/// Shows the record with the requested id or on the requested line.
fn record(arguments: &Inspect, console: Console) -> Result<Status, CommandError> {
    let path = &arguments.file;
    let reader = open(path).map_err(CommandError::file(path))?;
    let wanted = arguments.id.map(|id| format!(",\"id\":{id},"));
    for block in Blocks::new(reader, Limits::default()) {
        let block = block.map_err(CommandError::content(path))?;
        for (number, line) in block.lines() {
            let hit = match (&wanted, arguments.line) {
                // A line without the text of the requested id cannot contain the requested record,
                // so the line is not parsed.
                (Some(wanted), _) => contains(line, wanted.as_bytes()),
                (None, line) => line == Some(number),
            };
            if !hit {
                continue;
            }
            let at_line = |error: export::RecordError| {
                CommandError::content(path)(format!("line {number}: {error}"))
            };
            let record = Record::parse(line).map_err(at_line)?;
            let id = match &record {
                Record::Sealed { entry, .. }
                | Record::Unsealed { entry, .. }
                | Record::Inserted { entry, .. } => {
                    EntryColumns::of(entry).get("id").map(str::to_owned)
                }
                _ => None,
            };
            if arguments.id.is_none_or(|wanted| id == Some(wanted.to_string())) {
                let mut lines = record_lines(&record);
                lines.push(("line", json!(number)));
                return show(&lines, console);
            }
        }
    }
    Err(CommandError::content(path)("it is not in this file"))
}

fn contains(line: &[u8], part: &[u8]) -> bool {
    line.windows(part.len()).any(|window| window == part)
}

/// Shows a summary of an export.
fn overview(arguments: &Inspect, console: Console) -> Result<Status, CommandError> {
    let path = &arguments.file;
    let reader = open(path).map_err(CommandError::file(path))?;
    let (mut entries, mut unsealed, mut checkpoints, mut others, mut exports) =
        (0u64, 0u64, 0u64, 0u64, 0u64);
    let mut first: Lines = Vec::new();
    let mut last: Lines = Vec::new();
    for block in Blocks::new(reader, Limits::default()) {
        let block = block.map_err(CommandError::content(path))?;
        for (number, line) in block.lines() {
            if line.starts_with(b"{\"checksum\":") {
                let sealed = line.get(78..87) == Some(b",\"entry\":");
                *(if sealed { &mut entries } else { &mut unsealed }) += 1;
                continue;
            }
            let record = Record::parse(line)
                .map_err(|error| CommandError::content(path)(format!("line {number}: {error}")))?;
            match &record {
                Record::Export(_) => {
                    exports += 1;
                    if exports == 1 {
                        first = record_lines(&record);
                    }
                }
                Record::Checkpoint(_) => {
                    checkpoints += 1;
                    last = record_lines(&record);
                }
                Record::Start(_) | Record::End(_) | Record::Consistency { .. } => {}
                _ => others += 1,
            }
        }
    }
    let mut lines = first;
    lines.push(("exports in it", json!(exports)));
    lines.push(("entries", json!(entries)));
    lines.push(("not sealed yet", json!(unsealed)));
    lines.push(("missing, damaged", json!(others)));
    lines.push(("checkpoints", json!(checkpoints)));
    for (name, value) in last {
        match name {
            "sealed at" => lines.push(("last sealed at", value)),
            "tree size" | "root" | "signatures" => lines.push((name, value)),
            _ => {}
        }
    }
    show(&lines, console)
}
