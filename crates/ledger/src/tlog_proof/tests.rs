use super::*;
use crate::cosignature::CosigningKey;
use crate::merkle::{TileId, TileWriter, inclusion_proof};
use crate::note::SigningKey;
use std::collections::BTreeMap;

fn leaf(i: u8) -> Hash {
    crate::leaf_hash(&[i; 32])
}

struct Log {
    key: SigningKey,
    checkpoint: Checkpoint,
    tiles: BTreeMap<TileId, Vec<Hash>>,
}

fn log(size: u8) -> Log {
    let mut writer = TileWriter::new();
    (0..size).for_each(|i| writer.push(leaf(i)));
    let key = SigningKey::from_seed("example.com/log", &[1; 32]).unwrap();
    let checkpoint = Checkpoint::new("example.com/log", u64::from(size), writer.root()).unwrap();
    Log { key, checkpoint, tiles: writer.take_changed().into_iter().collect() }
}

fn proof(log: &Log, index: u8, extra: Option<&[u8]>) -> TlogProof {
    TlogProof {
        extra: extra.map(<[u8]>::to_vec),
        index: u64::from(index),
        hashes: inclusion_proof(&log.tiles, u64::from(index), log.checkpoint.size()).unwrap(),
        checkpoint: log.checkpoint.sign(&log.key).unwrap(),
    }
}

#[test]
fn it_is_written_and_read_and_proves() {
    let log = log(13);
    let witness = CosigningKey::from_seed("witness.example", &[2; 32]).unwrap();
    let witnesses = [witness.verifier().clone()];
    for index in 0..13 {
        for extra in [None, Some(&b"entry 17"[..])] {
            let mut proof = proof(&log, index, extra);
            proof.checkpoint.add(witness.cosign(&log.checkpoint, 5).unwrap()).unwrap();
            let text = proof.to_string();
            let read = TlogProof::parse(text.as_bytes()).unwrap();
            assert_eq!(read, proof);
            let (checkpoint, cosigned) =
                read.verify(&leaf(index), log.key.verifier(), &witnesses).unwrap();
            assert_eq!(
                (checkpoint, cosigned.len(), cosigned[0].time),
                (log.checkpoint.clone(), 1, Some(5))
            );
            for other in (0..13).filter(|&other| other != index) {
                let error = read.verify(&leaf(other), log.key.verifier(), &[]).unwrap_err();
                assert!(matches!(error, TlogProofError::Proof(ProofError::Root { .. })));
            }
        }
    }
}

#[test]
fn its_text() {
    let text = proof(&log(3), 1, Some(&[255, 254])).to_string();
    let lines: Vec<_> = text.split('\n').collect();
    assert_eq!(lines[..3], ["c2sp.org/tlog-proof@v1", "extra //4=", "index 1"]);
    assert_eq!(lines[3..5], [hash_text(&leaf(0)), hash_text(&leaf(2))]);
    assert_eq!(lines[5..8], ["", "example.com/log", "3"]);
    let alone = proof(&log(1), 0, None);
    assert!(
        alone.to_string().starts_with("c2sp.org/tlog-proof@v1\nindex 0\n\nexample.com/log\n1\n")
    );
    assert_eq!(TlogProof::parse(alone.to_string().as_bytes()), Ok(alone));
}

#[test]
fn an_unsigned_log_proves_inclusion_and_no_more() {
    let log = log(3);
    let mut proof = proof(&log, 2, None);
    proof.checkpoint = Note::new(log.checkpoint.to_string()).unwrap();
    let read = TlogProof::parse(proof.to_string().as_bytes()).unwrap();
    assert_eq!(read, proof);
    assert_eq!(read.verify_unsigned(&leaf(2)), Ok(log.checkpoint.clone()));
    assert!(read.verify_unsigned(&leaf(1)).is_err());
    let not_signed = CheckpointError::NotSignedBy("example.com/log".into());
    assert_eq!(read.verify(&leaf(2), log.key.verifier(), &[]), Err(not_signed.into()));
}

#[test]
fn what_is_not_a_proof() {
    let good = proof(&log(3), 1, Some(b"x")).to_string();
    assert!(TlogProof::parse(good.as_bytes()).is_ok());
    let parse =
        |from: &str, to: &str| TlogProof::parse(good.replacen(from, to, 1).as_bytes()).unwrap_err();
    let first = hash_text(&leaf(0));
    for header in
        ["c2sp.org/tlog-proof@v2", "c2sp.org/tlog-proof@v1 ", "", "c2sp.org/tlog-proof@v1\r"]
    {
        assert_eq!(parse("c2sp.org/tlog-proof@v1", header), TlogProofError::Header, "{header}");
    }
    for extra in ["extra ", "extra x", "extra eA", "extra eB==", "extra  eA==", "extra eA== "] {
        assert_eq!(parse("extra eA==", extra), TlogProofError::Extra, "{extra}");
    }
    for extra in ["extra", "Extra eA==", "extra eA==\nextra eA==", "", "index 1\nextra eA=="] {
        assert!(
            TlogProof::parse(good.replacen("extra eA==", extra, 1).as_bytes()).is_err(),
            "{extra}"
        );
    }
    for index in [
        "",
        "index",
        "index ",
        "index 01",
        "index +1",
        "index -1",
        "index 1 ",
        "index  1",
        "index 18446744073709551616",
    ] {
        assert_eq!(parse("index 1", index), TlogProofError::Index, "{index}");
    }
    for hash in
        ["AA==", &first[..43], &format!("{first} "), &format!("{first}\r"), &format!(" {first}")]
    {
        assert_eq!(parse(&first, hash), TlogProofError::Hash(1), "{hash}");
    }
    assert_eq!(parse(&first, &vec![&first[..]; 64].join("\n")), TlogProofError::TooManyHashes);
    assert!(
        matches!(parse(&first, ""), TlogProofError::Checkpoint(_)),
        "an empty line ends the hashes"
    );
    assert_eq!(parse(&good[good.find("\n\n").unwrap()..], "\n\n"), TlogProofError::NoCheckpoint);
    assert_eq!(parse(&good[good.find("\n\n").unwrap()..], "\n"), TlogProofError::NoCheckpoint);
    assert_eq!(parse("\nexample.com/log\n", "\nexample.com/log\n0"), CheckpointError::Size.into());
    assert_eq!(TlogProof::parse(b"c2sp.org/tlog-proof@v1\n\xff"), Err(TlogProofError::NotUtf8));
    assert_eq!(
        TlogProof::parse(&vec![b'x'; MAX_PROOF_BYTES + 1]),
        Err(TlogProofError::TooLong(MAX_PROOF_BYTES + 1))
    );
}

/// Changes one byte of a proof at a time. Each changed proof does not parse, or does not verify, or
/// differs only in the extra data, which the format does not protect.
#[test]
fn every_changed_byte_is_noticed() {
    let log = log(13);
    let text = proof(&log, 9, Some(b"extra")).to_string();
    for i in 0..text.len() {
        for flip in [1, 2, 0x20, 0x80] {
            let mut changed = text.as_bytes().to_vec();
            changed[i] ^= flip;
            let Ok(read) = TlogProof::parse(&changed) else { continue };
            let verified = read.verify(&leaf(9), log.key.verifier(), &[]).is_ok();
            let extra = text.find("extra ").unwrap() + 6..text.find("\nindex").unwrap();
            assert_eq!(verified, extra.contains(&i), "byte {i} of {text}");
        }
    }
}
