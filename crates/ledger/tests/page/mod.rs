//! Reads `docs/FORMAT.md` for the tests: its fenced blocks, selected by their info strings.

use std::path::PathBuf;
use std::process::Command;

pub fn docs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

pub fn page() -> String {
    std::fs::read_to_string(docs().join("FORMAT.md")).expect("docs/FORMAT.md")
}

/// Returns the contents of all fenced blocks of the page with this info string. The newline at the
/// end of each content is removed.
pub fn blocks(info: &str) -> Vec<String> {
    let page = page();
    let blocks: Vec<_> = page
        .split(&format!("\n```{info}\n"))
        .skip(1)
        .map(|rest| {
            if rest.starts_with("```\n") { "" } else { rest.split("\n```\n").next().unwrap() }
                .to_owned()
        })
        .collect();
    assert!(!blocks.is_empty(), "no block {info:?} in FORMAT.md");
    blocks
}

/// Returns the folder of the independent implementation in Python.
pub fn verifier() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../verifiers/python")
}

/// Returns the output of a script that generates examples of the page. None if there is no python3.
pub fn printed_by(script: &str) -> Option<String> {
    let printed = match Command::new("python3").arg(verifier().join("tests").join(script)).output()
    {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("there is no python3 here: {script} was not tested");
            return None;
        }
        Err(error) => panic!("python3: {error}"),
    };
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    Some(String::from_utf8(printed.stdout).unwrap())
}
