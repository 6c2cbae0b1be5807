//! Writes the export of an invented log to standard output, for bench/export.py. The program's
//! argument is the number of entries. Each entry of the log is an UPDATE of a lead. Each checkpoint
//! is signed and seals a thousand entries. The program writes the public key of the log to standard
//! error.

use export::write::{
    Compression, HistoryWriter, Output, StoredCheckpoint, StoredEntry, read_stored,
};
use export::{Header, Kind};
use ledger::IdRanges;
use ledger::checkpoint::Checkpoint;
use ledger::leaf_hash;
use ledger::merkle::Frontier;
use ledger::note::SigningKey;
use ledger::{Entry, key_hash};
use std::error::Error;
use std::io::{self, Write};

const ORIGIN: &str = "example.com/synthetic";

fn entry(id: i64) -> StoredEntry {
    let watch_id = *b"0123456789abcdef";
    let key = format!(r#"{{"id":"{id:032x}"}}"#);
    let row = format!(
        "{{\"company_name\":\"Example Company {id} Holdings Ltd.\",\"contact_name\":\"Contact Person {id}\",\
         \"created_at\":\"2026-02-03T04:05:06.789\",\"deleted_at\":null,\"email\":\"contact{id}@example{id}.com\",\
         \"enrichment_status\":\"PENDING\",\"id\":\"{id:032x}\",\"is_deleted\":false,\"is_manual\":true,\"source\":\"web\"}}"
    );
    let entry = Entry {
        id,
        txid: 700 + id as u64,
        occurred_at: 839_000_000_000_000 + id * 1000,
        watch_id: Some(watch_id),
        key_hash: Some(key_hash(&watch_id, key.as_bytes())),
        relation: Some(16_412),
        backend_pid: Some(4711),
        table_schema: Some("public"),
        table_name: Some("leads"),
        operation: "UPDATE",
        outcome: "ok",
        row_key: Some(&key),
        row_values: Some(&row),
        changed_values: Some(r#"{"enrichment_status":"COMPLETED"}"#),
        user_id: Some("u-17"),
        user_ip: Some("192.0.2.17"),
        user_agent: Some("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
        request_id: Some("7d4c1f0e-52a9-4b7e-9d3b-0c6f5e1a2b84"),
        db_session_user: Some("app"),
        db_current_user: Some("app"),
        client_addr: Some("10.0.0.1"),
        application_name: Some("lead manager"),
        ..Entry::default()
    };
    let checksum = entry.checksum(&mut Vec::new());
    read_stored(&entry, Some(&checksum), None)
}

fn main() -> Result<(), Box<dyn Error>> {
    let count: i64 = std::env::args().nth(1).ok_or("how many entries?")?.parse()?;
    let key = SigningKey::from_seed(ORIGIN, &[9; 32])?;
    eprintln!("{}", key.verifier());
    let header = Header {
        exported_at: 0,
        kind: Kind::History,
        origin: Some(ORIGIN.into()),
        selection: None,
    };
    let output = Output::new(io::stdout().lock(), Compression::None, 0)?;
    let mut writer = HistoryWriter::begin(output, header, Frontier::new(), None)?;
    let mut edge = Frontier::new();
    let mut next = 1;
    while next <= count {
        let ids = IdRanges::from_range(next, count.min(next + 999));
        let entries: Vec<_> = ids.iter().map(|id| (id, entry(id))).collect();
        let leaves: Vec<_> = entries
            .iter()
            .filter_map(|(_, stored)| match stored {
                StoredEntry::Entry { checksum, .. } => Some(leaf_hash(checksum)),
                StoredEntry::Damaged(_) | StoredEntry::Unknown { .. } => None,
            })
            .collect();
        leaves.iter().for_each(|leaf| edge.push(*leaf));
        let (tree_size, root) = (edge.size(), edge.root());
        let note = Checkpoint::new(ORIGIN, tree_size, root)?.sign(&key)?.to_string();
        let checkpoint = StoredCheckpoint { tree_size, root, entry_ids: ids, sealed_at: 0, note };
        writer.checkpoint(checkpoint, leaves, || None)?;
        for (id, stored) in &entries {
            writer.entry(*id, stored)?;
        }
        writer.end_checkpoint()?;
        next += 1000;
    }
    writer.end(edge.size())?.finish()?.flush()?;
    Ok(())
}
