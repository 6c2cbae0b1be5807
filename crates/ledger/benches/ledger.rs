//! Measures the operations of the format, and SHA-256 over the same bytes for comparison.
//! `bench/ledger.py` runs these benchmarks and writes the table in `bench/README.md`.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ledger::canonical;
use ledger::checkpoint::Checkpoint;
use ledger::merkle::{
    Frontier, Hash, TILE_WIDTH, TileId, TileWriter, Tiles, consistency_proof, inclusion_proof,
    node_hash, root_at, verify_consistency, verify_inclusion,
};
use ledger::note::{Note, SigningKey};
use ledger::{Entry, leaf_hash};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::convert::Infallible;
use std::hint::black_box;

const KEY: &str = r#"{"id":"0000000000000000000000000000002a"}"#;

/// Returns the JSON of a row whose column `note` has about `note` characters.
fn row(note: usize) -> String {
    format!(
        r#"{{"company_name":"Example Company 42 Holdings Ltd.","created_at":"2026-02-03T04:05:06.789","deleted_at":null,"email":"contact42@example42.com","enrichment_status":"PENDING","id":"0000000000000000000000000000002a","is_deleted":false,"is_manual":true,"note":"{}"}}"#,
        "All is well. \\\"Quoted\\\", 1 line\\n".repeat(note / 32)
    )
}

fn entry(row: &str) -> Entry<'_> {
    let watch_id = [0x7d; 16];
    Entry {
        id: 4_711,
        txid: 742,
        occurred_at: 823_406_706_789_012,
        watch_id: Some(watch_id),
        key_hash: Some(ledger::key_hash(&watch_id, KEY.as_bytes())),
        relation: Some(16_412),
        backend_pid: Some(4_711),
        table_schema: Some("public"),
        table_name: Some("leads"),
        operation: "UPDATE",
        outcome: "ok",
        row_key: Some(KEY),
        row_values: Some(row),
        changed_values: Some(r#"{"enrichment_status":"COMPLETED"}"#),
        user_id: Some("u-17"),
        user_ip: Some("192.0.2.17"),
        request_id: Some("0b9e6c1e-6a2f-4f0e-8a63-0a8c3d2f7c55"),
        db_session_user: Some("lead_app"),
        db_current_user: Some("lead_app"),
        client_addr: Some("192.0.2.7"),
        application_name: Some("lead manager"),
        ..Entry::default()
    }
}

fn entries(c: &mut Criterion) {
    for (name, note) in [("entry", 0), ("large entry", 10_240)] {
        let row = row(note);
        let entry = entry(&row);
        let mut scratch = Vec::new();
        let checksum = entry.checksum(&mut scratch);
        let mut preimage = Vec::new();
        entry.write_preimage(&mut preimage);
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Bytes(preimage.len() as u64));
        group.bench_function("SHA-256 of the preimage", |b| {
            b.iter(|| Sha256::digest(black_box(&preimage)))
        });
        group.bench_function("preimage", |b| {
            b.iter(|| {
                scratch.clear();
                black_box(&entry).write_preimage(&mut scratch);
            });
        });
        group.bench_function("checksum", |b| b.iter(|| black_box(&entry).checksum(&mut scratch)));
        group.bench_function("verify", |b| {
            b.iter(|| black_box(&entry).verify(&checksum, &mut scratch))
        });
        group.finish();
        let mut group = c.benchmark_group(format!("JSON of {name}"));
        group.throughput(Throughput::Bytes(row.len() as u64));
        group.bench_function("SHA-256 of the row", |b| {
            b.iter(|| Sha256::digest(black_box(row.as_bytes())))
        });
        group.bench_function("check", |b| b.iter(|| canonical::check(black_box(row.as_bytes()))));
        group.finish();
    }
    let text = "A text of an ordinary length, with an \"accent\" é and a newline\n".repeat(16);
    let mut group = c.benchmark_group("JSON string of 1 kB");
    group.throughput(Throughput::Bytes(text.len() as u64));
    let mut out = Vec::new();
    group.bench_function("SHA-256 of the string", |b| {
        b.iter(|| Sha256::digest(black_box(text.as_bytes())))
    });
    group.bench_function("write", |b| {
        b.iter(|| {
            out.clear();
            canonical::write_string(&mut out, black_box(&text));
        });
    });
    group.finish();
}

/// A tree of any size in which all leaves are equal, so that the leaves need no memory.
struct Large {
    size: u64,
    /// The roots of perfect trees. The element with index `h` is the root of the perfect tree of
    /// height `h`.
    nodes: Vec<Hash>,
}

impl Large {
    fn new(size: u64) -> Self {
        let mut nodes = vec![leaf_hash(&[7; 32])];
        for height in 0..63 {
            nodes.push(node_hash(&nodes[height], &nodes[height]));
        }
        Large { size, nodes }
    }
}

impl Tiles for Large {
    type Error = Infallible;

    fn tile(&self, id: TileId) -> Result<Cow<'_, [Hash]>, Infallible> {
        Ok(vec![self.nodes[8 * usize::from(id.level)]; id.width_at(self.size)].into())
    }
}

fn tree(c: &mut Criterion) {
    let leaf = leaf_hash(&[7; 32]);
    let mut group = c.benchmark_group("hashes of the tree");
    group.bench_function("SHA-256 of 33 bytes", |b| b.iter(|| Sha256::digest(black_box([0; 33]))));
    group.bench_function("leaf hash", |b| b.iter(|| leaf_hash(black_box(&[7; 32]))));
    group.bench_function("SHA-256 of 65 bytes", |b| b.iter(|| Sha256::digest(black_box([1; 65]))));
    group.bench_function("node hash", |b| b.iter(|| node_hash(black_box(&leaf), &leaf)));
    group.finish();

    const APPENDED: u64 = 10_000;
    for (name, size) in [("empty", 0), ("million", 1_000_001), ("billion", 1_000_000_007)] {
        let tiles = Large::new(size);
        let root = root_at(&tiles, size).unwrap();
        let writer = TileWriter::resume(size, &root, &tiles).unwrap();
        let mut group = c.benchmark_group(format!("tree of {name}"));
        group.throughput(Throughput::Elements(APPENDED));
        group.bench_function("append 10000 leaves", |b| {
            b.iter_batched(
                || writer.clone(),
                |mut writer| {
                    (0..APPENDED).for_each(|_| writer.push(leaf_hash(black_box(&[7; 32]))));
                    (writer.take_changed().len(), writer.root())
                },
                BatchSize::LargeInput,
            );
        });
        group.finish();
        if size == 0 {
            continue;
        }
        let mut group = c.benchmark_group(format!("tree of {name}"));
        let (index, older) = (size / 3, size / 7 * 3);
        group.bench_function("root", |b| b.iter(|| writer.root()));
        group.bench_function("resume", |b| b.iter(|| TileWriter::resume(size, &root, &tiles)));
        group.bench_function("root of an older size", |b| {
            b.iter(|| root_at(&tiles, black_box(older)))
        });
        group.bench_function("inclusion proof", |b| {
            b.iter(|| inclusion_proof(&tiles, black_box(index), size))
        });
        group.bench_function("consistency proof", |b| {
            b.iter(|| consistency_proof(&tiles, black_box(older), size))
        });
        let older_root = root_at(&tiles, older).unwrap();
        let inclusion = inclusion_proof(&tiles, index, size).unwrap();
        let consistency = consistency_proof(&tiles, older, size).unwrap();
        group.bench_function("verify inclusion", |b| {
            b.iter(|| verify_inclusion(black_box(&leaf), index, size, &inclusion, &root))
        });
        group.bench_function("verify consistency", |b| {
            b.iter(|| verify_consistency(older, black_box(&older_root), size, &root, &consistency));
        });
        group.finish();
    }

    // Measures how fast a verifier of the whole log appends leaves to the right edge.
    let mut group = c.benchmark_group("right edge");
    group.throughput(Throughput::Elements(TILE_WIDTH as u64));
    group.bench_function("append 256 leaves", |b| {
        b.iter(|| {
            let mut frontier = Frontier::new();
            (0..TILE_WIDTH).for_each(|_| frontier.push(leaf_hash(black_box(&[7; 32]))));
            frontier.root()
        });
    });
    group.finish();
}

fn signatures(c: &mut Criterion) {
    let key = SigningKey::from_seed("example.com/log", &[1; 32]).unwrap();
    let checkpoint = Checkpoint::new("example.com/log", 1_000_000, [7; 32]).unwrap();
    let note = checkpoint.sign(&key).unwrap().to_string();
    let mut group = c.benchmark_group("checkpoint");
    group.bench_function("sign", |b| b.iter(|| black_box(&checkpoint).sign(&key)));
    group.bench_function("read and verify", |b| {
        b.iter(|| {
            Checkpoint::open(&Note::parse(black_box(note.as_bytes())).unwrap(), key.verifier(), &[])
        });
    });
    group.finish();
}

criterion_group!(benches, entries, tree, signatures);
criterion_main!(benches);
