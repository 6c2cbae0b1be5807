//! Exports entries with the query in `docs/FORMAT.md`, and verifies the export with the Python
//! verifier (`verifiers/python`).

use crate::cluster::Cluster;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The verdict of the Python verifier on all entries of a database.
#[derive(Debug)]
pub struct PythonVerdict {
    /// The number of entries that the Python verifier read.
    pub entries: u64,
    /// The number of faults that the Python verifier counted.
    pub faults: u64,
    /// The messages of the Python verifier, by the id of the faulty entry.
    pub faulty: BTreeMap<i64, Vec<String>>,
    /// Whether the Python verifier ended with exit status 0.
    pub satisfied: bool,
}

/// Exports all entries of a database, and verifies the export with the Python verifier.
///
/// # Panics
/// Panics if the export or the verifier itself fails.
#[must_use]
pub fn verify_with_python(cluster: &Cluster, database: &str) -> PythonVerdict {
    let mut export = cluster
        .client_program("psql")
        .args([
            "-XqAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-v",
            "FETCH_COUNT=10000",
            "-d",
            database,
            "-c",
            "\\encoding UTF8",
            "-f",
            "-",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("psql starts");
    let mut input = export.stdin.take().expect("standard input is a pipe");
    std::io::Write::write_all(&mut input, documented_query().as_bytes())
        .expect("psql reads the query");
    drop(input);
    let verifier = Command::new("python3")
        .arg(python_verifier())
        .arg("entries")
        .stdin(export.stdout.take().expect("standard output is a pipe"))
        .output()
        .expect("python3 starts");
    assert!(export.wait().expect("psql ends").success(), "the export failed");
    let output = String::from_utf8(verifier.stdout).expect("its output is UTF-8");
    let errors = String::from_utf8_lossy(&verifier.stderr);
    assert!(errors.is_empty(), "the verifier failed:\n{errors}");
    read(&output, verifier.status.success())
}

/// Parses the output of the Python verifier. A line for a fault looks like "entry 17: the reason".
/// The last line of the output looks like "200 entries, 1 faults".
fn read(output: &str, satisfied: bool) -> PythonVerdict {
    let mut verdict = PythonVerdict { entries: 0, faults: 0, faulty: BTreeMap::new(), satisfied };
    let mut lines: Vec<&str> = output.lines().collect();
    let last = lines.pop().unwrap_or_default();
    let numbers: Vec<u64> = last.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [entries, faults] = numbers[..] else {
        panic!("unexpected last line of the verifier: {last:?}")
    };
    (verdict.entries, verdict.faults) = (entries, faults);
    for line in lines {
        let (name, what) =
            line.split_once(": ").unwrap_or_else(|| panic!("unexpected line: {line:?}"));
        let id = name.strip_prefix("entry ").and_then(|id| id.parse().ok());
        let id = id.unwrap_or_else(|| panic!("a fault without the entry's id: {line:?}"));
        verdict.faulty.entry(id).or_default().push(what.to_owned());
    }
    verdict
}

/// Returns the query that exports entries. Reads this query from the here-document in section 9 of
/// docs/FORMAT.md.
fn documented_query() -> String {
    let page = std::fs::read_to_string(docs().join("FORMAT.md")).expect("docs/FORMAT.md is there");
    let (_, rest) =
        page.split_once("<<'SQL'").expect("FORMAT.md has a here-document with the export's query");
    let (_, rest) = rest.split_once('\n').expect("the query begins on the next line");
    let (query, _) = rest.split_once("\nSQL\n").expect("the here-document ends");
    format!("{query};\n")
}

/// Returns the directory of the Python verifier. The command `python3 DIRECTORY entries` or
/// `python3 DIRECTORY export` runs the verifier.
#[must_use]
pub fn python_verifier() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../verifiers/python/src/lead_audit_verifier")
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}
