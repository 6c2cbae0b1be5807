//! Checks this crate with the test vectors in `docs/FORMAT.md`, sections 11 to 17.
//! `verifiers/python/tests/tree_examples.py` generates these test vectors with the verifier in
//! Python, which was written from `docs/FORMAT.md`. Tests in crates/export check the vectors of
//! `docs/FORMAT.md`, section 18.

use ledger::checkpoint::Checkpoint;
use ledger::cosignature::CosigningKey;
use ledger::merkle::{
    Frontier, Hash, TileId, TileWriter, consistency_proof, hash_text, inclusion_proof, root_at,
    verify_consistency, verify_inclusion,
};
use ledger::note::{Note, SigningKey, VerifierKey};
use ledger::tlog_proof::TlogProof;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::LazyLock;

mod page;
use page::{blocks, page, printed_by};

fn block(info: &str) -> String {
    let mut blocks = blocks(info);
    assert_eq!(blocks.len(), 1, "{info}");
    blocks.remove(0) + "\n"
}

fn hash(text: &str) -> Hash {
    hex::decode(text).unwrap().try_into().unwrap()
}

fn hashes(info: &str) -> Vec<Hash> {
    block(info).split_whitespace().map(hash).collect()
}

/// Returns the lines of the block with the info string `info`, each split into words.
fn words(info: &str) -> Vec<Vec<String>> {
    block(info).lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

fn checksum(i: u64) -> Hash {
    Sha256::digest(i.to_string()).into()
}

fn leaf(i: u64) -> Hash {
    ledger::leaf_hash(&checksum(i))
}

type Tiles = BTreeMap<TileId, Vec<Hash>>;

fn tree_of_numbers(size: u64) -> Tiles {
    let mut writer = TileWriter::new();
    (0..size).for_each(|i| writer.push(leaf(i)));
    writer.take_changed().into_iter().collect()
}

/// The tree of 70,000 leaves from which docs/FORMAT.md, section 11, takes its test vectors. The
/// checksum of leaf `i` is the SHA-256 of the number `i` in decimal.
static NUMBERS: LazyLock<Tiles> = LazyLock::new(|| tree_of_numbers(70_000));

#[test]
fn leaves_roots_and_the_edge() {
    for line in words("text leaves") {
        let i = line[0].parse().unwrap();
        assert_eq!([&line[1], &line[2]], [&hex::encode(checksum(i)), &hex::encode(leaf(i))]);
    }
    let roots = words("text roots");
    assert!(roots.len() > 10);
    for line in roots {
        let size = line[0].parse().unwrap();
        assert_eq!(root_at(&*NUMBERS, size), Ok(hash(&line[1])), "{size} leaves");
    }
    let mut edge = Frontier::new();
    (0..13).for_each(|i| edge.push(leaf(i)));
    assert_eq!(edge.hashes(), hashes("text edge of 13"));
}

#[test]
fn tiles() {
    let lines = words("text tiles");
    for size in [1, 255, 256, 257, 70_000] {
        let tiles = tree_of_numbers(size);
        let mut shown = 0;
        for line in lines.iter().filter(|line| line[0] == size.to_string()) {
            let id = TileId { level: line[1].parse().unwrap(), index: line[2].parse().unwrap() };
            assert_eq!(tiles[&id].len().to_string(), line[3]);
            assert_eq!(
                hex::encode(Sha256::digest(tiles[&id].as_flattened())),
                line[4],
                "{id:?} of {size} leaves"
            );
            shown += 1;
        }
        assert!(
            shown == tiles.len() || size == 70_000,
            "{size} leaves: {shown} of {} tiles shown",
            tiles.len()
        );
    }
}

#[test]
fn proofs() {
    let page = page();
    let numbers = |line: &str, between: &str| -> (u64, u64) {
        let (a, b) = line.split_once(between).unwrap();
        (a.parse().unwrap(), b.parse().unwrap())
    };
    let mut count = 0;
    for line in page.lines().filter_map(|line| line.strip_prefix("```text inclusion of ")) {
        let (index, size) = numbers(line, " in ");
        let proof = hashes(&format!("text inclusion of {line}"));
        assert_eq!(inclusion_proof(&*NUMBERS, index, size).as_ref(), Ok(&proof));
        assert_eq!(
            verify_inclusion(&leaf(index), index, size, &proof, &root_at(&*NUMBERS, size).unwrap()),
            Ok(())
        );
        count += 1;
    }
    assert_eq!(count, 6);
    for line in page.lines().filter_map(|line| line.strip_prefix("```text consistency of ")) {
        let (from, to) = numbers(line, " with ");
        let proof = hashes(&format!("text consistency of {line}"));
        assert_eq!(consistency_proof(&*NUMBERS, from, to).as_ref(), Ok(&proof));
        let roots = [from, to].map(|size| root_at(&*NUMBERS, size).unwrap());
        assert_eq!(verify_consistency(from, &roots[0], to, &roots[1], &proof), Ok(()));
        count += 1;
    }
    assert_eq!(count, 11);
}

struct Keys {
    log: SigningKey,
    witness: CosigningKey,
}

fn keys() -> Keys {
    let [log, witness]: [BTreeMap<String, String>; 2] = blocks("text key")
        .iter()
        .map(|block| {
            let lines = block.lines().map(|line| line.split_once(' ').unwrap());
            lines.map(|(what, value)| (what.to_owned(), value.trim().to_owned())).collect()
        })
        .collect::<Vec<_>>()
        .try_into()
        .unwrap();
    let keys = Keys {
        log: SigningKey::from_seed(&log["name"], &hash(&log["seed"])).unwrap(),
        witness: CosigningKey::from_seed(&witness["name"], &hash(&witness["seed"])).unwrap(),
    };
    for (key, text, text_of_key) in [
        (keys.log.verifier(), &log, keys.log.to_text()),
        (keys.witness.verifier(), &witness, keys.witness.to_text()),
    ] {
        assert_eq!(hex::encode(key.public_key()), text["public"]);
        assert_eq!(format!("{:08x}", key.id()), text["id"]);
        assert_eq!(key.to_string(), text["verifier"]);
        assert_eq!(VerifierKey::from_text(&text["verifier"]).as_ref(), Ok(key));
        assert_eq!(text_of_key.trim_end(), text["signing"]);
    }
    assert_eq!(SigningKey::from_text(&log["signing"]).unwrap().verifier(), keys.log.verifier());
    assert_eq!(
        CosigningKey::from_text(&witness["signing"]).unwrap().verifier(),
        keys.witness.verifier()
    );
    keys
}

/// Returns the log of docs/FORMAT.md, section 15: the ids of its entries, their leaf hashes and the
/// tiles. The leaf hashes are those in docs/FORMAT.md, section 10.
fn log_of_the_examples() -> (Vec<i64>, Vec<Hash>, TileWriter) {
    let ids = blocks("json entry").into_iter().map(|block| {
        let columns: serde_json::Value = serde_json::from_str(&block).unwrap();
        columns["id"].as_str().unwrap().parse::<i64>().unwrap()
    });
    let leaves = blocks("text hashes")
        .into_iter()
        .map(|block| hash(block.rsplit(' ').next().unwrap().trim()));
    let mut entries: Vec<_> = ids.zip(leaves).filter(|(id, _)| *id != i64::MAX).collect();
    entries.sort();
    let mut writer = TileWriter::new();
    entries.iter().for_each(|(_, leaf)| writer.push(*leaf));
    let (ids, leaves) = entries.into_iter().unzip();
    (ids, leaves, writer)
}

#[test]
fn checkpoints_and_signatures() {
    let Keys { log, witness } = keys();
    let (_, _, tree) = log_of_the_examples();
    let checkpoint = Checkpoint::new(log.verifier().name(), tree.size(), tree.root()).unwrap();
    assert_eq!(checkpoint.to_string(), block("text checkpoint"));
    assert_eq!(Checkpoint::parse(&block("text checkpoint")).as_ref(), Ok(&checkpoint));

    let mut note = checkpoint.sign(&log).unwrap();
    assert_eq!(note.to_string(), block("text signed checkpoint"));
    let message = block("text cosigned message");
    assert!(message.ends_with(&checkpoint.to_string()));
    let time = message.lines().nth(1).unwrap().strip_prefix("time ").unwrap().parse().unwrap();
    note.add(witness.cosign(&checkpoint, time).unwrap()).unwrap();
    assert_eq!(note.to_string(), block("text cosigned checkpoint"));

    let read = Note::parse(block("text cosigned checkpoint").as_bytes()).unwrap();
    let witnesses = [witness.verifier().clone()];
    let (opened, cosigned) = Checkpoint::open(&read, log.verifier(), &witnesses).unwrap();
    assert_eq!((opened, cosigned[0].time), (checkpoint, Some(time)));
}

#[test]
fn the_proof_of_one_entry() {
    let Keys { log, witness } = keys();
    let (ids, leaves, mut tree) = log_of_the_examples();
    let proof = TlogProof::parse(block("text proof").as_bytes()).unwrap();
    assert_eq!(proof.to_string(), block("text proof"));
    assert_eq!(ids[proof.index as usize], 3);
    let witnesses = [witness.verifier().clone()];
    for (i, leaf) in leaves.iter().enumerate() {
        assert_eq!(proof.verify(leaf, log.verifier(), &witnesses).is_ok(), i == 2);
    }
    let tiles: Tiles = tree.take_changed().into_iter().collect();
    assert_eq!(inclusion_proof(&tiles, proof.index, tree.size()), Ok(proof.hashes.clone()));
    assert!(block("text proof").contains(&hash_text(&proof.hashes[0])));
}

#[test]
fn what_is_to_be_refused() {
    let strings = |info| -> Vec<String> {
        block(info).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (notes, checkpoints) = (strings("json not notes"), strings("json not checkpoints"));
    assert!(notes.len() > 10 && checkpoints.len() > 10);
    for text in notes {
        assert!(Note::parse(text.as_bytes()).is_err(), "{text:?}");
    }
    for text in checkpoints {
        assert!(Checkpoint::parse(&text).is_err(), "{text:?}");
    }
}

#[test]
fn the_page_has_the_blocks_that_the_generator_prints() {
    let Some(printed) = printed_by("tree_examples.py") else { return };
    let page = page();
    let starts: Vec<_> = printed.match_indices("```").map(|(at, _)| at).collect();
    assert!(starts.len() > 40 && starts.len().is_multiple_of(2));
    for fence in starts.chunks(2) {
        let block = &printed[fence[0]..fence[1] + 3];
        assert!(page.contains(block), "not in FORMAT.md:\n{block}");
    }
}
