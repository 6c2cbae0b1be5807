//! Runs the Rust program of the page docs/clients.md. The tests in clients/python/tests run the
//! page's programs in other languages.

use acceptance::{Cluster, app_database};
use std::process::Command;

mod page {
    include!(concat!(env!("OUT_DIR"), "/clients_page.rs"));

    /// Runs the Rust program of docs/clients.md.
    pub fn run() {
        main().expect("the program succeeds");
    }
}

/// The test `rust_program` runs this function in a separate process, because the program reads
/// environment variables. On its own, this function checks nothing: `rust_program` checks the
/// entries.
#[test]
#[ignore = "run by rust_program"]
fn program() {
    page::run();
}

#[test]
fn rust_program() {
    let cluster = Cluster::start();
    let mut admin = app_database(&cluster, "page");
    let output = Command::new(std::env::current_exe().expect("this test has a path"))
        .args(["--ignored", "--exact", "program"])
        .env("PGHOST", cluster.socket_directory())
        .env("PGDATABASE", "page")
        .env("PGUSER", "app")
        .output()
        .expect("this test can be run");
    assert!(output.status.success(), "{output:?}");
    let rows = admin
        .query(
            "SELECT user_id, user_ip, user_agent, request_id FROM lead_audit.log ORDER BY id",
            &[],
        )
        .expect("the log");
    let rows: Vec<Vec<Option<String>>> =
        rows.iter().map(|row| (0..4).map(|column| row.get(column)).collect()).collect();
    let known = ["u-17", "203.0.113.7", "Firefox", "r-1"].map(|value| Some(value.to_owned()));
    assert_eq!(rows, [known.to_vec(), vec![None; 4]]);
}
