//! Changes exports at random. Verification must never find a changed export intact, and must always
//! find an honest export intact.

mod common;

use common::{Log, run, with_checkpoint, with_key};
use export::verify::{Trust, Verdict};
use export::{CheckpointRecord, Header, Record};
use proptest::prelude::*;

/// Generates logs of at most three checkpoints. The transactions of a generated log overlap, roll
/// back, or are not sealed yet.
fn logs() -> impl Strategy<Value = Log> {
    prop::collection::vec((prop::sample::select(vec![0usize, 1, 1, 2, 3]), any::<bool>()), 1..40)
        .prop_map(|fates| {
            let mut log = Log::new();
            let mut batches = [Vec::new(), Vec::new(), Vec::new()];
            for (id, (fate, _)) in (1..).zip(&fates) {
                // The value 0 stands for a transaction that rolled back. Any other value is the
                // number of the checkpoint that seals the id.
                if let Some(batch) = fate.checked_sub(1) {
                    batches[batch].push(id);
                }
            }
            for batch in batches.iter().filter(|batch| !batch.is_empty()) {
                batch.iter().for_each(|&id| log.add(id));
                log.seal(batch);
            }
            if fates[0].1 {
                log.add(fates.len() as i64 + 1);
            }
            log
        })
}

/// Returns a line without the members that verification ignores.
fn essence(line: &str) -> String {
    let mut out = Vec::new();
    match Record::parse(line.as_bytes()) {
        Ok(Record::Export(header)) => {
            Record::Export(Header { exported_at: 0, ..header }).write(&mut out)
        }
        Ok(Record::Checkpoint(checkpoint)) => {
            Record::Checkpoint(CheckpointRecord { sealed_at: 0, ..checkpoint }).write(&mut out)
        }
        _ => return line.to_owned(),
    }
    String::from_utf8(out).unwrap()
}

fn differs(a: &str, b: &str) -> bool {
    a.lines().map(essence).ne(b.lines().map(essence))
}

/// Returns whether the byte at position `at` belongs to the signatures of a note.
fn below_a_note(text: &str, at: usize) -> bool {
    let start =
        text.as_bytes()[..at].iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let line = text[start..].lines().next().unwrap_or_default();
    line.find("\\n\\n— ").is_some_and(|signatures| at >= start + signatures)
}

fn trusts(log: &Log) -> Vec<Trust> {
    let Some(last) = log.checkpoints.last() else { return Vec::new() };
    let mut both = with_key();
    both.know(last.note.as_bytes(), "kept", &[]).unwrap();
    vec![with_key(), with_checkpoint(&last.note), both]
}

proptest! {
    // By default, each test runs few cases. If PROPTEST_CASES is set, each test runs with the
    // configuration of proptest itself.
    #![proptest_config(if std::env::var_os("PROPTEST_CASES").is_some() { ProptestConfig::default() } else { ProptestConfig::with_cases(60) })]

    #[test]
    fn honest_logs_are_intact(log in logs()) {
        for trust in trusts(&log) {
            let outcome = run(&[log.whole().as_bytes()], &trust);
            prop_assert_eq!(outcome.named(), vec![], "{}", outcome.shown());
            prop_assert_eq!(outcome.verdict(), Verdict::Intact);
        }
        // Splits the history at each checkpoint, and verifies the two pieces together.
        for checkpoint in &log.checkpoints {
            let size = checkpoint.tree_size;
            let pieces = [log.history(0, size, &[]), log.history(size, log.size(), &[])];
            // A split at the newest checkpoint is not verified, because then both pieces contain
            // the unsealed entries.
            if size < log.size() {
                let outcome = run(&[pieces[0].as_bytes(), pieces[1].as_bytes()], &with_key());
                prop_assert_eq!(outcome.verdict(), Verdict::Intact, "{}", outcome.shown());
            }
        }
    }

    #[test]
    fn any_changed_byte_is_found(log in logs(), at in any::<prop::sample::Index>(), byte in prop_oneof![any::<u8>(), b'0'..=b'9', b'a'..=b'z']) {
        let honest = log.whole();
        let mut bytes = honest.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let changed = std::str::from_utf8(&bytes).map_or(true, |changed| differs(changed, &honest));
        for trust in trusts(&log) {
            let outcome = run(&[&bytes], &trust);
            let intact = outcome.verdict() == Verdict::Intact;
            // Verification can overlook a damaged signature in two cases: the verifier has no key,
            // or the damaged signature looks like the signature of an unknown key. If a damaged
            // signature looks like the signature of an unknown key, the log seems to begin signing
            // at a later checkpoint. A verifier with a key always finds a damaged signature of the
            // last checkpoint.
            let is_last = honest[..honest.floor_char_boundary(at)].rfind("{\"checkpoint\"") == honest.rfind("{\"checkpoint\"");
            let only_signature = below_a_note(&honest, at) && (trust.keys.is_empty() || !is_last);
            prop_assert!(!intact || !changed || only_signature, "byte {} of {}\n{}", at, honest, outcome.shown());
        }
    }

    #[test]
    fn removed_repeated_and_exchanged_lines_are_found(log in logs(), a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>(), how in 0..3) {
        let honest = log.whole();
        let mut lines: Vec<&str> = honest.lines().collect();
        let (a, b) = (a.index(lines.len()), b.index(lines.len()));
        match how {
            0 => _ = lines.remove(a),
            1 => lines.insert(b, lines[a]),
            _ => lines.swap(a, b),
        }
        let changed: String = lines.iter().map(|line| format!("{line}\n")).collect();
        if changed != honest {
            for trust in trusts(&log) {
                let outcome = run(&[changed.as_bytes()], &trust);
                prop_assert_eq!(outcome.verdict(), Verdict::Tampered, "how {} at {} and {}:\n{}\n{}", how, a, b, changed, outcome.shown());
            }
        }
    }

    /// Verification ends with a verdict even for arbitrary lines.
    #[test]
    fn any_lines_get_a_verdict(lines in prop::collection::vec(0..60usize, 0..40), log in logs(), more in any::<Vec<u8>>()) {
        let honest = log.whole();
        let all: Vec<&str> = honest.lines().collect();
        let mut bytes = Vec::new();
        for line in lines {
            bytes.extend_from_slice(all[line % all.len()].as_bytes());
            bytes.push(b'\n');
        }
        bytes.extend_from_slice(&more);
        run(&[&bytes], &with_key());
    }
}
