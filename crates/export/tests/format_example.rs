//! The example of `docs/FORMAT.md`, "The export", read from the page: it is what this crate writes, and intact to whoever has the
//! key that stands there.

mod common;

use common::{Log, key, run};
use export::verify::{Trust, Verdict};
use ledger::note::VerifierKey;
use std::path::Path;

/// The one block of the page with this info string.
fn block(info: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/FORMAT.md");
    let page = std::fs::read_to_string(path).expect("docs/FORMAT.md");
    let (_, rest) = page.split_once(&format!("\n```{info}\n")).unwrap_or_else(|| panic!("no block {info:?} in FORMAT.md"));
    rest.split_once("```\n").expect("the block ends").0.to_owned()
}

fn log() -> Log {
    let mut log = Log::of(&[&[1, 3], &[2]]);
    log.add(5);
    log
}

#[test]
fn the_page_has_what_is_written() {
    assert_eq!(block("text export"), log().whole());
    assert_eq!(block("text export key"), format!("{}\n", key().verifier()));
}

#[test]
fn the_example_is_intact() {
    let mut trust = Trust::default();
    trust.trust_key(VerifierKey::from_text(&block("text export key")).unwrap()).unwrap();
    let outcome = run(&[block("text export").as_bytes()], &trust);
    assert_eq!(outcome.verdict(), Verdict::Intact, "{}", outcome.shown());
    assert_eq!((outcome.report.entries, outcome.report.unsealed, outcome.report.checkpoints), (3, 1, 2));
}
