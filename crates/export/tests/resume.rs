//! Cuts an export off after a number of bytes. The writer must be able to continue and complete
//! every interrupted export.

mod common;

use common::{Log, limits, run, with_key};
use export::verify::Verdict;
use export::write::{Compression, Output, ResumeError, ResumePoint, find_resume_point};
use std::io::Write;

/// Distance in bytes between the positions at which files are cut off. The distance is prime, so
/// that the cuts hit all positions within lines.
const STEP: usize = 13;

fn log() -> Log {
    let mut log = Log::of(&[&[1, 2, 4], &[3, 5], &[7, 8, 9]]);
    log.add(10);
    log
}

fn resume_point(bytes: &[u8]) -> Result<ResumePoint, ResumeError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    find_resume_point(&mut file, limits())
}

#[track_caller]
fn assert_goes_on(log: &Log, broken: &[u8], compression: Compression) -> ResumePoint {
    let point = resume_point(broken).unwrap();
    let output = Output::new(Vec::new(), compression, point.lines).unwrap();
    let rest = if point.lines > 0 {
        log.rest_into(point.tree_size, output)
    } else {
        log.history_into(point.tree_size, log.size(), &[], output)
    };
    let whole = [&broken[..point.offset as usize], &rest].concat();
    let outcome = run(&[&whole], &with_key());
    assert_eq!(
        outcome.verdict(),
        Verdict::Intact,
        "{} of {} bytes: {point:?}\n{}",
        broken.len(),
        whole.len(),
        outcome.shown()
    );
    assert_eq!((outcome.report.from_size, outcome.report.tree_size), (Some(0), log.size()));
    point
}

#[test]
fn plain_anywhere() {
    let log = log();
    let whole = log.whole().into_bytes();
    let mut sizes = Vec::new();
    for length in (0..=whole.len()).step_by(STEP) {
        let point = assert_goes_on(&log, &whole[..length], Compression::None);
        sizes.push(point.tree_size);
        // If more of the file remains, the tree size at which the export continues is never
        // smaller. An interruption loses only the entries of the checkpoint that was being written.
        assert!(sizes.is_sorted());
    }
    sizes.dedup();
    assert_eq!(sizes, [0, 3, 5, 8]);
}

#[test]
fn compressed_anywhere() {
    let log = log();
    let compression = Compression::Zstd(1);
    let output = Output::new(Vec::new(), compression, 0).unwrap().with_frames_of(100);
    let whole = log.history_into(0, log.size(), &[], output);
    let mut sizes = Vec::new();
    for length in (0..=whole.len()).step_by(STEP) {
        sizes.push(assert_goes_on(&log, &whole[..length], compression).tree_size);
    }
    sizes.dedup();
    assert_eq!(sizes, [0, 3, 5, 8]);
}

#[test]
fn newer_entries_are_appended() {
    let mut log = log();
    let first = log.whole().into_bytes();
    log.seal(&[10]);
    let point = resume_point(&first).unwrap();
    assert_eq!((point.lines, point.tree_size, point.offset), (0, 8, first.len() as u64));
    assert_goes_on(&log, &first, Compression::None);
}

#[test]
fn other_files_are_not_changed() {
    for text in ["hello\nworld\n", "{}\n{}\n", "{\"end\":{\"lines\":0,\"tree_size\":0}}\n"] {
        assert!(
            matches!(resume_point(text.as_bytes()), Err(ResumeError::Record { line: 1, .. })),
            "{text}"
        );
    }
    assert!(matches!(
        resume_point(log().selection(&[1], &[]).as_bytes()),
        Err(ResumeError::Selection)
    ));
}
