//! The program `lead-audit` exports the audit trail, verifies exports and databases, and witnesses
//! checkpoints.
//!
//! The exit status of every command is 0 (intact, or done), 1 (tampered with) or 2 (could not tell,
//! or could not be done).
//!
//! * [`arguments`] – the options of the command line. Each command has a module of its own
//! * [`database`] – connects to a database and reads it in one snapshot
//! * [`trust`] – reads the trusted keys and checkpoints from files
//! * [`files`] – reads small files, and writes files atomically
//! * [`progress`], [`error`] – print progress, remarks and error messages

mod arguments;
mod database;
mod error;
mod export_command;
mod files;
mod inspect;
mod keygen;
mod progress;
mod prove;
mod trust;
mod verify;
mod witness;

use arguments::{Arguments, Command};
use clap::Parser;
use error::CommandError;
use std::process::ExitCode;

/// The result of a command. The status determines the exit status of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Exit status 0: intact, or done.
    Intact,
    /// Exit status 1: tampered with.
    Tampered,
    /// Exit status 2: could not tell.
    CouldNotTell,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        ExitCode::from(match status {
            Status::Intact => 0,
            Status::Tampered => 1,
            Status::CouldNotTell => 2,
        })
    }
}

fn main() -> ExitCode {
    let Arguments { json, quiet, command } = Arguments::parse();
    let output = progress::Console { json, quiet };
    let result = match command {
        Command::Keygen(arguments) => keygen::run(&arguments, output),
        Command::Export(arguments) => export_command::run(&arguments, output),
        Command::Verify(arguments) => verify::run(&arguments, output),
        Command::Witness(arguments) => witness::run(&arguments, output),
        Command::Inspect(arguments) => inspect::run(&arguments, output),
        Command::Prove(arguments) => prove::prove(&arguments, output),
        Command::VerifyProof(arguments) => prove::verify_proof(&arguments, output),
    };
    match result {
        Ok(status) => status.into(),
        // The program that reads the output has closed the pipe, as `head` does in `lead-audit
        // inspect … | head`.
        Err(CommandError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::from(2)
        }
        Err(error) => {
            output.error(&error);
            Status::CouldNotTell.into()
        }
    }
}
