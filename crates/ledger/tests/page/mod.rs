//! Reads the fenced blocks of `docs/FORMAT.md` for the tests, and selects blocks by their info
//! strings.

use std::path::PathBuf;
use std::process::Command;

pub fn docs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

pub fn page() -> String {
    std::fs::read_to_string(docs().join("FORMAT.md")).expect("docs/FORMAT.md")
}

/// Returns the contents of all fenced blocks of docs/FORMAT.md that have the info string `info`.
/// The newline at the end of each block's content is removed.
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

/// Returns the folder of the verifier in Python.
pub fn verifier() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../verifiers/python")
}

/// Runs a script that generates examples of docs/FORMAT.md, and returns the script's output.
/// Returns None if python3 is not installed.
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
