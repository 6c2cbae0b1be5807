//! Writes the manual pages of `lead-audit`, and its completions for bash, fish and zsh.
//! scripts/package.sh puts the manual pages and completions into the package. `cargo run -p cli
//! --example manual -- DIRECTORY` writes the manual pages and completions to DIRECTORY.

#[allow(dead_code)] // the example only builds the command and reads no field
#[path = "../src/arguments.rs"]
mod arguments;

use clap::CommandFactory;
use clap_complete::{Shell, generate_to};
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let directory =
        env::args_os().nth(1).ok_or_else(|| io::Error::other("usage: manual DIRECTORY"))?;
    let directory = Path::new(&directory);
    fs::create_dir_all(directory)?;
    clap_mangen::generate_to(arguments::Arguments::command(), directory)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        generate_to(shell, &mut arguments::Arguments::command(), "lead-audit", directory)?;
    }
    Ok(())
}
