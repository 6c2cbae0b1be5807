//! Verifies honest and tampered exports. Verification must find honest exports intact. In a
//! tampered export, verification must find and name each change.

mod common;

use common::{Log, Outcome, entry, run, with_checkpoint, with_key};
use export::verify::Verdict;

type Named = Vec<(&'static str, Option<(i64, i64)>)>;

/// Returns a log with three checkpoints. The second checkpoint seals an id that was still open when
/// the first checkpoint was sealed. The transaction of id 6 rolled back. Two entries of the log are
/// not sealed.
fn log() -> Log {
    let mut log = Log::of(&[&[1, 2, 4], &[3, 5, 7, 8, 9], &[10, 11, 12, 13, 14, 15]]);
    log.add(16);
    log.add(18);
    log
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

fn joined(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[track_caller]
fn assert_intact(outcome: &Outcome) {
    assert_eq!(outcome.named(), [], "{}", outcome.shown());
    assert_eq!(outcome.verdict(), Verdict::Intact, "{}", outcome.shown());
}

fn one(id: i64) -> Option<(i64, i64)> {
    Some((id, id))
}

/// Returns the faults that verification finds in a tampered history.
fn found(text: &str) -> Named {
    let outcome = run(&[text.as_bytes()], &with_key());
    assert_eq!(outcome.verdict(), Verdict::Tampered, "{}", outcome.shown());
    outcome.named()
}

/// Replaces the bytes of `line` at the position `at` with `by`. If `line` already contains `by` at
/// this position, replaces `by` with `or_by`.
fn replace(line: &mut String, at: usize, by: &str, or_by: &str) {
    let range = at..at + by.len();
    let by = if line[range.clone()] == *by { or_by } else { by };
    line.replace_range(range, by);
}

/// Returns the index of the line that contains the entry with this id.
fn line_of(lines: &[String], id: i64) -> usize {
    lines
        .iter()
        .position(|line| {
            line.starts_with("{\"checksum\"") && line.contains(&format!(",\"id\":{id},"))
        })
        .unwrap()
}

#[test]
fn an_honest_history_is_intact() {
    let log = log();
    let outcome = run(&[log.whole().as_bytes()], &with_key());
    assert_intact(&outcome);
    let report = &outcome.report;
    assert_eq!((report.entries, report.unsealed, report.checkpoints, report.signed), (14, 2, 3, 3));
    assert_eq!((report.from_size, report.tree_size, report.vouched), (Some(0), 14, Some(14)));
    assert_eq!(report.root, Some(log.edge(14).root()));
    assert_eq!(report.lines, 2 + 3 + 14 + 2 + 1);
    assert!(
        report.remarks.iter().any(|remark| remark.contains("not sealed yet")),
        "{:?}",
        report.remarks
    );
    // Verifies with each checkpoint alone, and then with a checkpoint and a key. The tree of the
    // export passes through the size of each checkpoint.
    for size in [3, 8, 14] {
        let outcome = run(&[log.whole().as_bytes()], &with_checkpoint(log.note_at(size)));
        assert_intact(&outcome);
        assert_eq!(outcome.report.known_matched, 1);
        assert_eq!(outcome.report.vouched, Some(size));
    }
    let mut both = with_key();
    both.know(log.note_at(8).as_bytes(), "kept", &[]).unwrap();
    assert_intact(&run(&[log.whole().as_bytes()], &both));
}

#[test]
fn the_smallest_logs() {
    let empty = Log::new();
    let outcome = run(&[empty.whole().as_bytes()], &with_key());
    assert_eq!((outcome.named(), outcome.verdict()), (vec![], Verdict::CouldNotTell));
    assert_intact(&run(&[Log::of(&[&[1]]).whole().as_bytes()], &with_key()));
    let mut unsealed = Log::new();
    unsealed.add(1);
    let outcome = run(&[unsealed.whole().as_bytes()], &with_key());
    assert_eq!((outcome.named(), outcome.verdict()), (vec![], Verdict::CouldNotTell));
}

#[test]
fn without_key_or_checkpoint_nothing_can_be_told() {
    let outcome = run(&[log().whole().as_bytes()], &export::verify::Trust::default());
    assert_eq!(outcome.named(), []);
    assert_eq!(outcome.verdict(), Verdict::CouldNotTell);
    assert!(
        outcome.report.remarks[0].contains("nothing from outside vouches"),
        "{:?}",
        outcome.report.remarks
    );
}

#[test]
fn histories_in_pieces() {
    let log = log();
    let pieces = [log.history(0, 3, &[]), log.history(3, 8, &[]), log.history(8, 14, &[])];
    let bytes: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
    let outcome = run(&bytes, &with_key());
    assert_intact(&outcome);
    assert_eq!(outcome.report.entries, 14);
    // Verifies all pieces concatenated in one file.
    assert_intact(&run(&[pieces.concat().as_bytes()], &with_key()));
    // Verifies with the newest checkpoint as a kept checkpoint.
    assert_intact(&run(&bytes, &with_checkpoint(log.note_at(14))));
    // Verifies the later pieces without the first piece. A kept checkpoint at the start of a piece
    // vouches for no entry of the piece. A kept checkpoint within a piece vouches for the entries
    // before this checkpoint.
    assert_intact(&run(&bytes[1..], &with_key()));
    assert_intact(&run(&bytes[1..], &with_checkpoint(log.note_at(8))));
    let outcome = run(&bytes[1..2], &with_checkpoint(log.note_at(3)));
    assert_eq!((outcome.named(), outcome.verdict()), (vec![], Verdict::CouldNotTell));
    // Verifies the pieces without one of them, and then in the wrong order.
    assert_eq!(run(&[bytes[0], bytes[2]], &with_key()).named(), [("missing", None)]);
    assert_ne!(run(&[bytes[1], bytes[0], bytes[2]], &with_key()).named(), []);
}

#[test]
fn an_older_checkpoint_is_reached_by_a_proof() {
    let log = log();
    let piece = log.history(8, 14, &[3]);
    let mut trust = with_key();
    trust.know(log.note_at(3).as_bytes(), "kept", &[]).unwrap();
    let outcome = run(&[piece.as_bytes()], &trust);
    assert_intact(&outcome);
    assert_eq!(outcome.report.known_matched, 1);
    // Without a consistency proof in the export, verification cannot compare the older checkpoint
    // with the tree.
    let outcome = run(&[log.history(8, 14, &[]).as_bytes()], &trust);
    assert_eq!(outcome.named(), []);
    assert_eq!(outcome.report.known_unjudged.len(), 1);
    // Verifies with a kept checkpoint that belongs to a different history.
    let other = Log::of(&[&[1, 2, 3]]);
    let mut trust = with_key();
    trust.know(other.note_at(3).as_bytes(), "kept", &[]).unwrap();
    assert_eq!(run(&[piece.as_bytes()], &trust).named(), [("history forked", None)]);
}

#[test]
fn selections() {
    let log = log();
    let text = log.selection(&[2, 3, 15], &[8]);
    assert_intact(&run(&[text.as_bytes()], &with_key()));
    assert_intact(&run(&[text.as_bytes()], &with_checkpoint(log.note_at(14))));
    let outcome = run(&[text.as_bytes()], &with_checkpoint(log.note_at(8)));
    assert_eq!(outcome.report.known_matched, 1, "{}", outcome.shown());
    let lines = lines(&text);
    for (id, other) in [(2, 4), (3, 9), (15, 14)] {
        // Replaces the entry in this line by the entry with the id `other`. The checksum in the
        // line is then the checksum of the entry `other`.
        let common::Parts { preimage, checksum } = common::parts(&log.entries[&other]);
        let at = line_of(&lines, id);
        let mut changed = lines.clone();
        let rest = changed[at].split_once(",\"index\"").unwrap().1.to_owned();
        changed[at] = format!("{{\"checksum\":\"{checksum}\",\"entry\":{preimage},\"index\"{rest}");
        let outcome = run(&[joined(&changed).as_bytes()], &with_key());
        assert_eq!(outcome.named(), [("changed", one(other))], "{}", outcome.shown());
    }
    let mut twice = lines.clone();
    twice.insert(4, lines[3].clone());
    assert_eq!(run(&[joined(&twice).as_bytes()], &with_key()).named(), [("duplicated", one(2))]);
    let mut swapped = lines.clone();
    swapped.swap(3, 4);
    assert_eq!(run(&[joined(&swapped).as_bytes()], &with_key()).named(), [("reordered", one(2))]);
    let mut less = lines;
    less.remove(4);
    assert_eq!(run(&[joined(&less).as_bytes()], &with_key()).named(), [("missing", None)]);
}

#[test]
fn a_changed_column_is_named() {
    let log = log();
    let honest = lines(&log.whole());
    for id in [1, 3, 9, 10, 15] {
        let mut changed = honest.clone();
        let at = line_of(&changed, id);
        changed[at] = changed[at].replace("u-17", "u-18");
        assert_eq!(found(&joined(&changed)), [("changed", one(id))]);
        // A forger changes an entry and writes a matching checksum. Without the sealed leaf,
        // verification finds only that some entry of the checkpoint was changed.
        let log_ids = |log: &Log| {
            log.checkpoints.iter().find(|c| c.entry_ids.contains(id)).unwrap().entry_ids.clone()
        };
        let mut forged = log.clone();
        forged.entries.insert(id, entry(id, "u-18"));
        let ids = log_ids(&log);
        let batch = Some((ids.iter().min().unwrap(), ids.iter().max().unwrap()));
        let text = lines(&forged.whole());
        // The writer has added the sealed leaf to the line of the changed entry.
        assert!(text[at].contains(",\"leaf\":\""));
        assert_eq!(found(&joined(&text)), [("changed", one(id))]);
        // The forger removes the sealed leaf from the line.
        let mut text = text;
        text[at] = text[at].split_once(",\"leaf\"").unwrap().0.to_owned() + "}";
        assert_eq!(found(&joined(&text))[0], ("changed", batch));
        // Changes only the checksum in the line of the entry.
        let mut wrong = honest.clone();
        replace(&mut wrong[at], 13, "00", "11");
        assert_eq!(found(&joined(&wrong)), [("changed", one(id))]);
    }
}

#[test]
fn entries_that_the_database_lost_are_named() {
    let mut log = log();
    for id in [1, 3, 7, 15] {
        log.entries.remove(&id);
    }
    assert_eq!(found(&log.whole()), [1, 3, 7, 15].map(|id| ("missing", one(id))));
    // If the ids of the checkpoint also omit the lost entry, verification reports the checkpoint as
    // changed.
    let mut log = Log::of(&[&[1, 2, 3, 4, 5], &[6, 7]]);
    log.entries.remove(&3);
    log.checkpoints[0].entry_ids = [1, 2, 4, 5].into_iter().collect();
    assert_eq!(found(&log.whole()), [("missing", None), ("checkpoint changed", None)]);
}

#[test]
fn removed_inserted_and_moved_lines_are_named() {
    let honest = lines(&log().whole());
    for id in [1, 4, 3, 9, 10, 15] {
        let at = line_of(&honest, id);
        let mut less = honest.clone();
        less.remove(at);
        assert_eq!(found(&joined(&less)), [("missing", one(id))], "without {id}");
        let mut twice = honest.clone();
        twice.insert(at, honest[at].clone());
        assert_eq!(found(&joined(&twice)), [("duplicated", one(id))], "{id} twice");
        let mut garbled = honest.clone();
        garbled[at] = garbled[at].replace("\"entry\":{", "\"entry\": {");
        assert_eq!(found(&joined(&garbled)), [("malformed", one(id))], "{id} malformed");
    }
    for (id, before) in [(1, 4), (11, 15), (15, 11), (5, 3)] {
        let mut moved = honest.clone();
        let line = moved.remove(line_of(&moved, id));
        let to = line_of(&moved, before);
        moved.insert(to, line);
        let named = found(&joined(&moved));
        assert_eq!(named.len(), 1, "{named:?}");
        assert_eq!(named[0].0, "reordered");
        assert!(
            named[0].1 == one(id) || id == 1 && before == 4 && named[0].1 == one(2),
            "{id} before {before}: {named:?}"
        );
    }
    // Moves an entry behind the entries of its checkpoint.
    let mut late = honest.clone();
    let line = late.remove(line_of(&late, 4));
    late.insert(line_of(&honest, 3), line);
    assert_eq!(found(&joined(&late)), [("reordered", one(4))]);
    // Adds an entry that the log never had.
    let mut more = honest.clone();
    let common::Parts { preimage, checksum } = common::parts(&entry(6, "eve"));
    more.insert(
        line_of(&honest, 7),
        format!("{{\"checksum\":\"{checksum}\",\"entry\":{preimage}}}"),
    );
    assert_eq!(found(&joined(&more)), [("inserted", one(6))]);
}

#[test]
fn unsealed_entries_are_checked_by_their_checksum() {
    let honest = lines(&log().whole());
    let at = line_of(&honest, 16);
    let mut changed = honest.clone();
    changed[at] = changed[at].replace("u-17", "u-18");
    assert_eq!(found(&joined(&changed)), [("changed", one(16))]);
    let mut less = honest.clone();
    less.remove(at);
    assert_eq!(found(&joined(&less)), [("missing", None)]);
    let mut twice = honest.clone();
    twice.insert(at, honest[at].clone());
    assert_eq!(found(&joined(&twice)), [("duplicated", one(16))]);
    let mut inserted = honest.clone();
    inserted[at] = inserted[at].replace("\"unsealed\":", "\"inserted\":");
    assert_eq!(found(&joined(&inserted)), [("inserted", one(16))]);
    let mut moved = honest.clone();
    let line = moved.remove(at);
    moved.insert(line_of(&honest, 12), line);
    assert_eq!(found(&joined(&moved)), [("reordered", one(16))]);
    // Repeats a sealed entry as an unsealed entry.
    let mut again = honest.clone();
    again.insert(at, honest[line_of(&honest, 9)].replace("\"entry\":", "\"unsealed\":"));
    assert_eq!(found(&joined(&again)), [("duplicated", one(9))]);
}

#[test]
fn changed_checkpoints_are_named() {
    let log = log();
    let honest = lines(&log.whole());
    let checkpoints: Vec<usize> =
        (0..honest.len()).filter(|&i| honest[i].starts_with("{\"checkpoint\"")).collect();
    assert_eq!(checkpoints.len(), 3);
    for at in checkpoints {
        // Changes the root outside of the note in the line of the checkpoint.
        let mut changed = honest.clone();
        let place = changed[at].find("\"root\":\"").unwrap() + 8;
        replace(&mut changed[at], place, "00", "11");
        assert_eq!(found(&joined(&changed)), [("checkpoint changed", None)]);
        // Changes the root in the note of the checkpoint, so that the signature is bad.
        let mut changed = honest.clone();
        let place = changed[at].find("\\n\\n— ").unwrap() - 5;
        replace(&mut changed[at], place, "A", "B");
        let named = found(&joined(&changed));
        assert!(named.contains(&("signature bad", None)), "{named:?}");
        // Changes the signature in the note of the checkpoint.
        let mut changed = honest.clone();
        let place = changed[at].find("\\n\",\"root\"").unwrap() - 9;
        replace(&mut changed[at], place, "A", "B");
        assert_eq!(found(&joined(&changed)), [("signature bad", None)]);
        // Removes the line of the checkpoint.
        let mut less = honest.clone();
        less.remove(at);
        let named = found(&joined(&less));
        assert_eq!(named.len(), 1, "{named:?}");
    }
}

#[test]
fn removed_signatures_are_reported() {
    let mut log = log();
    let last = log.checkpoints.len() - 1;
    let stripped = |log: &Log, which: usize| {
        let checkpoint = &log.checkpoints[which];
        common::note(common::ORIGIN, checkpoint.tree_size, checkpoint.root, false)
    };
    let honest = log.clone();
    log.checkpoints[last].note = stripped(&log, last);
    assert_eq!(found(&log.whole()), [("signature bad", None)]);
    // Removes the signatures of the remaining checkpoints, so that no checkpoint is signed.
    (0..last).for_each(|which| log.checkpoints[which].note = stripped(&log, which));
    assert_eq!(found(&log.whole()), [("signature bad", None)]);
    // The log can begin to sign after its first checkpoint, so an unsigned first checkpoint is not
    // a fault.
    let mut later = honest;
    later.checkpoints[0].note = stripped(&later, 0);
    assert_intact(&run(&[later.whole().as_bytes()], &with_key()));
}

#[test]
fn a_rewritten_or_shortened_history_contradicts_a_kept_checkpoint() {
    let honest = log();
    for unsigned in [false, true] {
        let mut forged = Log::new();
        forged.signed = !unsigned;
        for (i, ids) in [vec![1, 2, 4], vec![3, 5, 7, 8, 9], vec![10, 11, 12, 13, 14, 15]]
            .into_iter()
            .enumerate()
        {
            ids.iter().for_each(|&id| forged.add(id));
            if i == 1 {
                forged.entries.insert(5, entry(5, "nobody"));
            }
            forged.seal(&ids);
        }
        // A forger who has the log's key cannot make another history that matches the kept
        // checkpoint.
        for size in [8, 14] {
            let outcome = run(&[forged.whole().as_bytes()], &with_checkpoint(honest.note_at(size)));
            assert_eq!(outcome.named(), [("history forked", None)], "{}", outcome.shown());
        }
        let outcome = run(&[forged.whole().as_bytes()], &with_checkpoint(honest.note_at(3)));
        assert_eq!(outcome.named(), []);
    }
    let cut = honest.history(0, 8, &[]);
    assert_intact(&run(&[cut.as_bytes()], &with_key()));
    let mut trust = with_key();
    trust.know(honest.note_at(14).as_bytes(), "kept", &[]).unwrap();
    assert_eq!(run(&[cut.as_bytes()], &trust).named(), [("history gone back", None)]);
    trust.older = true;
    assert_intact(&run(&[cut.as_bytes()], &trust));
}

#[test]
fn truncated_files_and_other_files() {
    let text = log().whole();
    let lines_of = lines(&text);
    for keep in 1..lines_of.len() {
        let named = found(&joined(&lines_of[..keep]));
        assert!(named.iter().all(|(kind, _)| *kind == "truncated"), "{keep}: {named:?}");
    }
    assert!(
        found(&text[..text.len() - 30])
            .iter()
            .all(|(kind, _)| ["truncated", "malformed"].contains(kind))
    );
    assert_eq!(found(""), [("truncated", None)]);
    for other in ["hello\n", "{}\n", "\n\n", "null\n"] {
        assert!(found(other).iter().all(|(kind, _)| *kind == "malformed"), "{other:?}");
    }
    // A file that cannot be read to its end proves no tampering, but verification does not find it
    // intact either.
    let compressed = export_compressed(&text);
    assert_intact(&run(&[&compressed], &with_key()));
    let outcome = run(&[&compressed[..compressed.len() - 20]], &with_key());
    assert_eq!(
        (outcome.named(), outcome.verdict()),
        (vec![], Verdict::CouldNotTell),
        "{}",
        outcome.shown()
    );
    assert!(outcome.report.incomplete.is_some());
}

fn export_compressed(text: &str) -> Vec<u8> {
    use export::write::{Compression, Output};
    let output = Output::new(Vec::new(), Compression::Zstd(3), 0).unwrap().with_frames_of(1000);
    let log = log();
    let bytes = log.history_into(0, log.size(), &[], output);
    assert!(bytes.len() < text.len());
    bytes
}

#[test]
fn a_damaged_tree_in_the_database_does_not_make_honest_entries_faulty() {
    // Changes a leaf of the log in its tile. The upper levels of the tree are unchanged.
    let mut log = log();
    log.leaves[4] = [9; 32];
    let named = found(&log.whole());
    assert!(named.contains(&("changed", one(5))), "{named:?}");
    assert!(
        named.iter().all(|(_, ids)| ids.is_none() || *ids == one(5) || *ids == Some((3, 9))),
        "{named:?}"
    );
}

#[test]
fn nothing_hides_behind_an_entry_on_its_line() {
    let honest = lines(&log().whole());
    let at = line_of(&honest, 3);
    // With each addition, the line is still canonical JSON and begins and ends like the line of an
    // entry.
    for more in [r#","zzz":{}"#, r#","zzz":{"a":{}}"#] {
        let mut changed = honest.clone();
        let end = changed[at].len() - 1;
        changed[at].insert_str(end, more);
        assert_eq!(found(&joined(&changed)), [("malformed", one(3))]);
    }
}

#[test]
fn another_log() {
    let mut trust = with_key();
    trust.origin = Some("example.com/other".into());
    let outcome = run(&[log().whole().as_bytes()], &trust);
    assert!(
        outcome.named().iter().all(|(kind, _)| *kind == "history forked"),
        "{}",
        outcome.shown()
    );
    assert_eq!(outcome.verdict(), Verdict::Tampered);
}

fn with_keys(keys: &[(&str, u8)]) -> export::verify::Trust {
    let mut trust = export::verify::Trust::default();
    keys.iter().for_each(|&(name, seed)| {
        trust.trust_key(common::key_of(name, seed).verifier().clone()).unwrap()
    });
    trust
}

const BEFORE: &str = "lead_audit/7d4c1f0e-52a9-4b7e-9d3b-0c6f5e1a2b84";
const AFTER: &str = "example.com/sales";

/// Returns a log that first has no key, then a key, then another key with the same name, and then a
/// key with another name. The checkpoints of the log have the sizes 2, 3, 5, 6, 8, 9 and 11.
fn log_of_many_keys(with_former: bool) -> Log {
    let mut log = Log::new();
    (log.origin, log.signed) = (BEFORE.into(), false);
    let grow = |log: &mut Log, ids: &[i64]| {
        ids.iter().for_each(|&id| log.add(id));
        log.seal(ids);
    };
    grow(&mut log, &[1, 2]);
    log.change_key(3, common::ORIGIN, Some(7), with_former);
    grow(&mut log, &[4, 5]);
    log.change_key(6, common::ORIGIN, Some(8), with_former);
    grow(&mut log, &[7, 8]);
    log.change_key(9, AFTER, Some(9), with_former);
    grow(&mut log, &[10, 11]);
    log
}

#[test]
fn a_log_may_begin_to_sign_and_change_its_key_and_its_name() {
    for with_former in [true, false] {
        let log = log_of_many_keys(with_former);
        let whole = log.whole();
        // The newest key vouches for the whole history. A kept checkpoint also vouches for the
        // whole history.
        let all = [(common::ORIGIN, 7), (common::ORIGIN, 8), (AFTER, 9)];
        for keys in [&all[..], &all[2..], &all[1..]] {
            let outcome = run(&[whole.as_bytes()], &with_keys(keys));
            assert_intact(&outcome);
            assert_eq!(outcome.report.vouched, Some(11));
            assert_eq!(outcome.report.origin.as_deref(), Some(AFTER));
        }
        for size in [2, 3, 5, 6, 8, 9, 11] {
            assert_intact(&run(&[whole.as_bytes()], &with_checkpoint(log.note_at(size))));
        }
        let mut two = with_checkpoint(log.note_at(2));
        two.know(log.note_at(11).as_bytes(), "kept", &[]).unwrap();
        assert_intact(&run(&[whole.as_bytes()], &two));
        let outcome = run(&[whole.as_bytes()], &export::verify::Trust::default());
        assert_eq!(
            (outcome.named(), outcome.verdict()),
            (vec![], Verdict::CouldNotTell),
            "{}",
            outcome.shown()
        );
        // The verifier asks for an origin that the log had earlier, for its last origin, and for
        // the origin of another log.
        for (origin, verdict) in [
            (BEFORE, Verdict::Intact),
            (AFTER, Verdict::Intact),
            ("example.com/other", Verdict::Tampered),
        ] {
            let mut trust = with_keys(&all);
            trust.origin = Some(origin.into());
            assert_eq!(run(&[whole.as_bytes()], &trust).verdict(), verdict, "{origin}");
        }
        // An old key vouches only for the history up to the last checkpoint that it signed.
        for (seed, own, double) in [(7, 5, 6), (8, 8, 9)] {
            let to = if with_former { double } else { own };
            let outcome = run(&[whole.as_bytes()], &with_keys(&[(common::ORIGIN, seed)]));
            assert_eq!(
                (outcome.named(), outcome.verdict()),
                (vec![], Verdict::CouldNotTell),
                "{}",
                outcome.shown()
            );
            assert_eq!(outcome.report.vouched, Some(to));
            assert_eq!(outcome.report.key_unknown_from, Some(double));
            // Verifies the history up to the last checkpoint that the old key signed.
            let outcome = run(
                &[log.history(0, double, &[]).as_bytes()],
                &with_keys(&[(common::ORIGIN, seed)]),
            );
            assert_eq!(
                (outcome.named(), outcome.verdict()),
                (vec![], Verdict::CouldNotTell),
                "{}",
                outcome.shown()
            );
            // A later kept checkpoint vouches for the entries for which the old key cannot vouch.
            let mut trust = with_keys(&[(common::ORIGIN, seed)]);
            trust.know(log.note_at(11).as_bytes(), "kept", &[]).unwrap();
            assert_intact(&run(&[whole.as_bytes()], &trust));
        }
        // Splits the history at each checkpoint. The two pieces must form one history.
        for at in [2, 3, 5, 6, 8, 9] {
            let pieces = [log.history(0, at, &[]), log.history(at, 11, &[])];
            let bytes: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
            assert_intact(&run(&bytes, &with_keys(&all)));
            assert_intact(&run(&bytes, &with_keys(&all[2..])));
            // Verifies only the last piece, with only an old key. The verifier cannot tell whether
            // the piece is intact.
            let outcome = run(&bytes[1..], &with_keys(&all[..1]));
            assert_eq!(
                (outcome.named(), outcome.verdict()),
                (vec![], Verdict::CouldNotTell),
                "{at} {}",
                outcome.shown()
            );
        }
        let selection = log.selection(&[2, 6, 9, 11], &[]);
        assert_intact(&run(&[selection.as_bytes()], &with_keys(&all)));
        let outcome = run(&[selection.as_bytes()], &with_keys(&all[..1]));
        assert_eq!(
            (outcome.named(), outcome.verdict()),
            (vec![], Verdict::CouldNotTell),
            "{}",
            outcome.shown()
        );
    }
}

#[test]
fn another_name_or_key_needs_an_entry() {
    // Replaces the origin in the newest note of a log by a forged origin. The forged note has no
    // signature in the first case, and a different signature in each other case.
    for (seed, former) in
        [(None, None), (Some(9), None), (None, Some((common::ORIGIN.to_owned(), 7)))]
    {
        let mut forged = log();
        let last = forged.checkpoints.pop().unwrap();
        forged.leaves.truncate(8);
        (forged.origin, forged.signed, forged.seed) =
            ("evil".into(), seed.is_some(), seed.unwrap_or(7));
        forged.former = former;
        forged.seal(&last.entry_ids.iter().collect::<Vec<_>>());
        let outcome = run(&[forged.whole().as_bytes()], &with_key());
        assert_eq!(outcome.verdict(), Verdict::Tampered, "{}", outcome.shown());
        assert!(outcome.named().contains(&("signature bad", None)), "{}", outcome.shown());
        assert!(outcome.named().contains(&("history forked", None)), "{}", outcome.shown());
        let outcome = run(&[forged.whole().as_bytes()], &with_checkpoint(forged.note_at(3)));
        assert_eq!(outcome.named(), [("history forked", None)]);
    }
    // Seals a KEY entry that does not match the change of the log's origin.
    for (old, new) in [("other", AFTER), (common::ORIGIN, "other")] {
        let mut forged = Log::of(&[&[1, 2]]);
        let change = ledger::KeyChange {
            old_origin: old.into(),
            old_key: None,
            new_origin: new.into(),
            new_key: None,
        };
        forged.entries.insert(3, common::key_entry(3, &change));
        (forged.origin, forged.signed) = (AFTER.into(), false);
        forged.seal(&[3]);
        let outcome = run(&[forged.whole().as_bytes()], &with_key());
        assert_eq!(outcome.verdict(), Verdict::Tampered, "{}", outcome.shown());
    }
    // Versions of the extension before 1.1 wrote no KEY entry for a change of the key. A signature
    // of a later checkpoint by a known key confirms the change.
    let mut legacy = Log::new();
    (legacy.origin, legacy.signed) = (BEFORE.into(), false);
    legacy.add(1);
    legacy.seal(&[1]);
    (legacy.origin, legacy.signed) = (common::ORIGIN.into(), true);
    legacy.add(2);
    legacy.seal(&[2]);
    let outcome = run(&[legacy.whole().as_bytes()], &with_key());
    assert_eq!(outcome.named(), [("history forked", None)]);
    legacy.add(3);
    legacy.seal(&[3]);
    let outcome = run(&[legacy.whole().as_bytes()], &with_key());
    assert_intact(&outcome);
    assert!(
        outcome
            .report
            .remarks
            .iter()
            .any(|remark| remark.contains("no entry says that it changed")),
        "{}",
        outcome.shown()
    );
}

#[test]
fn unknown_parts_are_not_judged() {
    // Verifies an export of an unknown version, which has unknown lines.
    let other = "{\"export\":{\"exported_at\":\"2000-01-01T00:00:00.000000Z\",\"kind\":\"archive\",\"version\":2}}\n{\"x\":1}\nhello\n";
    let outcome = run(&[other.as_bytes()], &with_key());
    assert_eq!(
        (outcome.named(), outcome.verdict()),
        (vec![], Verdict::CouldNotTell),
        "{}",
        outcome.shown()
    );
    assert!(
        outcome.report.incomplete.as_ref().is_some_and(|text| text.contains("version 2")),
        "{}",
        outcome.shown()
    );
    // Makes an entry with an unknown column, and an entry with an unknown format. The checksum of
    // each entry covers all of its columns.
    for (from, to) in [
        ("\"user_id\":\"u-17\"", "\"user_id\":\"u-17\",\"user_zone\":1"),
        ("\"format\":1", "\"format\":2"),
    ] {
        let mut log = Log::new();
        let preimage = common::parts(&entry(1, "u-17")).preimage.replace(from, to);
        let checksum: [u8; 32] =
            sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(&preimage))
                .into();
        log.entries.insert(1, export::write::StoredEntry::Entry { preimage, checksum });
        log.add(2);
        log.seal(&[1, 2]);
        for text in [log.whole(), log.selection(&[1, 2], &[])] {
            let outcome = run(&[text.as_bytes()], &with_key());
            assert_eq!(outcome.named(), [("not judged", one(1))], "{}", outcome.shown());
            assert_eq!(outcome.verdict(), Verdict::CouldNotTell, "{}", outcome.shown());
            // A change of the entry is a fault, although this version cannot judge the whole entry.
            let changed = text.replacen("u-17", "u-18", 1);
            assert_eq!(run(&[changed.as_bytes()], &with_key()).named(), [("changed", one(1))]);
        }
    }
    // The exporter reports an entry with an unknown column, and whether the entry still has the
    // sealed checksum.
    for (sealed, verdict) in [(true, Verdict::CouldNotTell), (false, Verdict::Tampered)] {
        let mut log = log();
        let checksum = match &log.entries[&5] {
            export::write::StoredEntry::Entry { checksum, .. } if sealed => Some(*checksum),
            _ => Some([1; 32]),
        };
        log.entries
            .insert(5, export::write::StoredEntry::Unknown { column: "extra".into(), checksum });
        for text in [log.whole(), log.selection(&[5, 7], &[])] {
            let outcome = run(&[text.as_bytes()], &with_key());
            assert_eq!(outcome.verdict(), verdict, "{}", outcome.shown());
            assert_eq!(outcome.named(), [(if sealed { "not judged" } else { "changed" }, one(5))]);
        }
    }
}

#[test]
fn a_selection_without_entries_proves_nothing() {
    let log = log();
    for text in [log.selection(&[], &[]), Log::new().selection(&[], &[])] {
        let outcome = run(&[text.as_bytes()], &with_key());
        assert_eq!(
            (outcome.named(), outcome.verdict()),
            (vec![], Verdict::CouldNotTell),
            "{}",
            outcome.shown()
        );
    }
}

#[test]
fn unsealed_entries_are_counted_once() {
    let mut log = log();
    let first = log.whole();
    log.seal(&[16, 18]);
    log.add(19);
    let second = log.history(14, 16, &[]);
    let outcome = run(&[first.as_bytes(), second.as_bytes()], &with_key());
    assert_intact(&outcome);
    assert_eq!(outcome.report.unsealed, 1);
}
