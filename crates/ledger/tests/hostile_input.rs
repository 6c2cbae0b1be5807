//! Tests the parsers of this crate with hostile texts. No parser may panic, and each accepted text
//! must be written back byte for byte. A parser may allocate at most a small multiple of the text's
//! size. If a text exceeds the size limit of a parser, the parser must allocate less than the
//! text's size.

#![allow(unsafe_code, reason = "an allocator that counts is unsafe to implement")]

use ledger::checkpoint::Checkpoint;
use ledger::cosignature::CosigningKey;
use ledger::merkle::{TileId, TileWriter, inclusion_proof};
use ledger::note::{MAX_NOTE_BYTES, Note, SigningKey, VerifierKey};
use ledger::tlog_proof::{MAX_PROOF_BYTES, TlogProof};
use proptest::prelude::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// An allocator that calls the system's allocator, and counts the bytes that each thread holds.
struct Counting;

fn count(change: isize) {
    // `try_with` can fail while a thread ends. The failure is ignored, because no test reads the
    // counters of a thread that is ending.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call is passed to System unchanged. `count` does not allocate, because the counters
// are const thread-locals without Drop.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller of the allocator gives the guarantees that System requires.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller of the allocator gives the guarantees that System requires.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns the largest number of bytes that `work` held at one time. The bytes that the thread held
/// before the call are not counted.
fn peak<T>(work: impl FnOnce() -> T) -> usize {
    let before = HELD.get();
    PEAK.set(before);
    drop(work());
    (PEAK.get() - before) as usize
}

fn log() -> SigningKey {
    SigningKey::from_seed("example.com/log", &[1; 32]).unwrap()
}

/// Returns valid texts: a checkpoint, a note, a proof, a signing key and a verifier key.
fn honest() -> [String; 5] {
    let mut writer = TileWriter::new();
    (0..9).for_each(|i| writer.push([i; 32]));
    let tiles: BTreeMap<TileId, Vec<[u8; 32]>> = writer.take_changed().into_iter().collect();
    let witness = CosigningKey::from_seed("witness.example", &[2; 32]).unwrap();
    let checkpoint = Checkpoint::new("example.com/log", 9, writer.root()).unwrap();
    let mut note = checkpoint.sign(&log()).unwrap();
    note.add(witness.cosign(&checkpoint, 1_700_000_000).unwrap()).unwrap();
    let hashes = inclusion_proof(&tiles, 4, 9).unwrap();
    let proof =
        TlogProof { extra: Some(b"more".to_vec()), index: 4, hashes, checkpoint: note.clone() };
    [
        checkpoint.to_string(),
        note.to_string(),
        proof.to_string(),
        log().to_text().to_string(),
        witness.verifier().to_string(),
    ]
}

/// Passes `bytes` to every parser.
fn read_as_everything(bytes: &[u8]) {
    let keys = [log().verifier().clone()];
    if let Ok(note) = Note::parse(bytes) {
        assert_eq!(note.to_string().as_bytes(), bytes);
        let _ = note.verify(&keys);
        let _ = Checkpoint::open(&note, &keys[0], &[]);
    }
    if let Ok(note) = Note::parse_or_unsigned(bytes) {
        assert_eq!(note.to_string().as_bytes(), bytes);
    }
    if let Ok(proof) = TlogProof::parse(bytes) {
        assert_eq!(proof.to_string().as_bytes(), bytes);
        let _ = proof.verify(&[0; 32], &keys[0], &[]);
        let _ = proof.verify_unsigned(&[0; 32]);
    }
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(checkpoint) = Checkpoint::parse(text) {
        assert_eq!(checkpoint.to_string(), text);
    }
    if let Ok(key) = VerifierKey::from_text(text) {
        assert_eq!(key.to_string(), text.trim_end_matches('\n'));
    }
    if let Ok(key) = SigningKey::from_text(text) {
        assert_eq!(key.to_text().trim_end(), text.trim_end_matches('\n'));
    }
    let _ = CosigningKey::from_text(text);
}

#[test]
fn honest_texts_are_read() {
    let [checkpoint, note, proof, signing_key, verifier_key] = honest();
    assert!(Checkpoint::parse(&checkpoint).is_ok());
    assert!(Note::parse(note.as_bytes()).is_ok());
    assert!(TlogProof::parse(proof.as_bytes()).is_ok());
    assert!(SigningKey::from_text(&signing_key).is_ok());
    assert!(VerifierKey::from_text(&verifier_key).is_ok());
    honest().iter().for_each(|text| read_as_everything(text.as_bytes()));
}

#[test]
fn every_beginning_and_every_end_of_a_text() {
    for text in honest() {
        for i in 0..=text.len() {
            read_as_everything(&text.as_bytes()[..i]);
            read_as_everything(&text.as_bytes()[i..]);
        }
    }
}

#[test]
fn large_texts_take_little_memory() {
    let [checkpoint, note, proof, _, key] = honest();
    let line = note.lines().last().unwrap();
    let fill = |begin: &str, with: &str, bytes: usize| {
        format!("{begin}{}", with.repeat((bytes - begin.len()) / with.len()))
    };
    let proof_begin = &proof[..proof.find("extra").unwrap()];
    let texts = [
        fill("", "\n", MAX_NOTE_BYTES),
        fill("", "a\n", MAX_NOTE_BYTES),
        fill(&checkpoint, "x\n", MAX_NOTE_BYTES - 1),
        fill(&checkpoint, "\n", MAX_NOTE_BYTES),
        fill("a\n\n", "— a AAAAAAA=\n", MAX_NOTE_BYTES),
        fill("a\n\n", &format!("{line}\n"), MAX_NOTE_BYTES),
        fill("a\n\n— ", "a", MAX_NOTE_BYTES),
        fill("a\n\n— a ", "AAAA", MAX_NOTE_BYTES) + "\n",
        fill(
            &format!("{proof_begin}index 0\n"),
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
            MAX_PROOF_BYTES,
        ),
        fill(&format!("{proof_begin}extra "), "AAAA", MAX_PROOF_BYTES) + "\n",
        fill(&format!("{proof_begin}index 0\n\n{checkpoint}"), "a\n", MAX_NOTE_BYTES),
        fill(&key, "A", MAX_NOTE_BYTES),
        fill("PRIVATE+KEY+", "a+", MAX_NOTE_BYTES),
    ];
    for text in texts {
        let peak = peak(|| read_as_everything(text.as_bytes()));
        assert!(
            peak < 4 * text.len(),
            "{peak} bytes for {} bytes of {:?}…",
            text.len(),
            &text[..text.len().min(60)]
        );
    }
    // A text that exceeds the size limit is refused without parsing.
    for begin in [&checkpoint, &note, &proof, &key] {
        let text = fill(begin, "a\n", 50_000_000);
        let peak = peak(|| {
            assert!(Note::parse(text.as_bytes()).is_err());
            assert!(Note::parse_or_unsigned(text.as_bytes()).is_err());
            assert!(TlogProof::parse(text.as_bytes()).is_err());
            assert!(VerifierKey::from_text(&text).is_err());
            assert!(SigningKey::from_text(&text).is_err());
        });
        assert!(peak < 10_000, "{peak} bytes");
    }
}

/// Checks that the memory of a [`TileWriter`] grows only with the leaves that were appended since
/// the last call of `take_changed`.
#[test]
fn appending_takes_the_memory_of_what_was_appended() {
    let peak = peak(|| {
        let mut writer = TileWriter::new();
        for i in 0..300_000u64 {
            writer.push(ledger::leaf_hash(&[i as u8; 32]));
            if i % 1_000 == 0 {
                drop(writer.take_changed());
            }
        }
    });
    assert!(peak < 300_000, "{peak} bytes");
}

proptest! {
    #[test]
    fn anything(bytes in any::<Vec<u8>>(), text in any::<String>()) {
        read_as_everything(&bytes);
        read_as_everything(text.as_bytes());
    }

    /// Tests nearly valid texts. The test joins the beginning of a valid text with the end of
    /// another valid text, and then changes, inserts or removes bytes.
    #[test]
    fn nearly_honest(
        which in (0..5usize, 0..5usize), at in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4u8, prop_oneof![any::<u8>(), Just(b'\n'), Just(b' '), Just(b'+'), Just(b'0')]), 0..6),
    ) {
        let texts = honest();
        let (first, second) = (texts[which.0].as_bytes(), texts[which.1].as_bytes());
        let mut bytes = [&first[..at.0.index(first.len() + 1)], &second[at.1.index(second.len() + 1)..]].concat();
        for (at, edit, byte) in edits {
            let i = at.index(bytes.len() + 1);
            match edit {
                0 => bytes.insert(i, byte),
                1 if i < bytes.len() => bytes[i] = byte,
                2 if i < bytes.len() => { bytes.remove(i); }
                _ => bytes.splice(i..i, texts[usize::from(byte) % 5].bytes()).for_each(drop),
            }
        }
        read_as_everything(&bytes);
    }
}
