//! Extracts the Rust program from docs/clients.md, so that tests/clients_page.rs can run it.

use std::{env, fs, path::Path};

fn main() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/clients.md");
    println!("cargo::rerun-if-changed={}", page.display());
    let text =
        fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    let (_, program) =
        text.split_once("\n```rust file=main.rs\n").expect("the page has a Rust program");
    let (program, _) = program.split_once("\n```\n").expect("the program ends");
    let directory = env::var("OUT_DIR").expect("cargo sets it");
    fs::write(Path::new(&directory).join("clients_page.rs"), program)
        .expect("OUT_DIR can be written to");
}
