//! The command `witness`, which follows a log and keeps its checkpoints. The witness notices if the
//! log changes its history or takes back a checkpoint. All readers who accept only checkpoints with
//! the cosignature of the witness see the same history.
//!
//! The witness handles each checkpoint in four steps: it checks, cosigns, stores and publishes the
//! checkpoint. Because the witness publishes only checkpoints that it already keeps on disk, it can
//! be killed at any moment. After a restart, the witness cosigns only checkpoints that extend the
//! newest kept checkpoint.

mod alarm;
mod check;
mod source;
mod state;

use crate::Status;
use crate::arguments::Witness;
use crate::error::CommandError;
use crate::files::{read_small, replace};
use crate::progress::Console;
use crate::trust::public_key;
use alarm::{Alarm, raise};
use check::{Checker, Verdict};
use ledger::checkpoint::Checkpoint;
use ledger::cosignature::CosigningKey;
use ledger::note::Note;
use serde_json::json;
use source::Source;
use state::State;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Maximum time between two attempts while the database cannot be reached.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

pub fn run(arguments: &Witness, console: Console) -> Result<Status, CommandError> {
    if arguments.database.database.is_none() && arguments.checkpoints.is_none() {
        return Err(CommandError::Refused(
            "what is to be followed? Give --database or --checkpoints, or both".to_owned(),
        ));
    }
    let keys = arguments.key.iter().map(|key| public_key(key)).collect::<Result<Vec<_>, _>>()?;
    let cosigner = arguments.signing_key.as_deref().map(signing_key).transpose()?;
    let mut state = State::open(&arguments.state)?;
    if let (Some(origin), Some(held)) = (&arguments.origin, state.held())
        && origin != held.checkpoint.origin()
        && !arguments.follow.iter().any(|follow| follow == held.checkpoint.origin())
    {
        let cause =
            format!("it holds checkpoints of {:?}, not of {origin:?}", held.checkpoint.origin());
        return Err(CommandError::Content { path: arguments.state.clone(), cause });
    }
    let mut source = Source::new(arguments);
    let checker =
        Checker { keys, origin: arguments.origin.clone(), follow: arguments.follow.clone() };
    if checker.keys.is_empty() {
        console.remark("No public key was given: signatures are not verified.");
    }
    publish(&state, arguments.publish.as_deref())?;
    let interval = Duration::from_secs(u64::from(arguments.interval));
    let mut wait = interval;
    loop {
        match look(&mut source, &checker, &mut state, cosigner.as_ref(), arguments, console) {
            Ok(None) => wait = interval,
            Ok(Some(alarm)) => {
                raise(&alarm, &state, arguments.alarm.as_deref(), console)?;
                return Ok(Status::Tampered);
            }
            Err(error) if error.is_transient() && !arguments.once => {
                console.error(&error);
                source.forget();
                wait = (wait * 2).min(LONGEST_WAIT.max(interval));
            }
            Err(error) => return Err(error),
        }
        if arguments.once {
            return Ok(Status::Intact);
        }
        std::thread::sleep(wait);
    }
}

fn signing_key(path: &Path) -> Result<CosigningKey, CommandError> {
    let bytes = read_small(path)?;
    let text = String::from_utf8_lossy(&bytes);
    CosigningKey::from_text(&text)
        .map_err(|cause| CommandError::Key { from: path.display().to_string(), cause })
}

/// Checks, keeps and publishes the new checkpoints in ascending order of their tree sizes. Stops at
/// the first checkpoint that fails the check.
fn look(
    source: &mut Source,
    checker: &Checker,
    state: &mut State,
    cosigner: Option<&CosigningKey>,
    arguments: &Witness,
    console: Console,
) -> Result<Option<Alarm>, CommandError> {
    let seen = source.look(state)?;
    if let Some(alarm) = seen.alarm {
        return Ok(Some(alarm));
    }
    for (&size, text) in &seen.notes {
        let verdict = checker.check(state, size, text, |from, to| {
            seen.tree.as_ref().map(|tree| tree.consistency(from, to))
        })?;
        let (mut note, checkpoint, proven) = match verdict {
            Verdict::Consent(text) => return Err(CommandError::Refused(text)),
            Verdict::Alarm(alarm) => return Ok(Some(seen.explain(alarm, state)?)),
            Verdict::Extends { note, checkpoint, proven } => (note, checkpoint, proven),
        };
        let first = state.held().is_none();
        let cosigned = proven && cosigner.is_some();
        if let Some(cosigner) = cosigner.filter(|_| proven) {
            cosign(&mut note, &checkpoint, cosigner)?;
        }
        state.keep(&note, checkpoint)?;
        publish(state, arguments.publish.as_deref())?;
        let what = match (first, proven, cosigned) {
            (true, ..) => "the first one, which is believed",
            (_, false, _) => "not proven to extend the one before, and so not cosigned",
            (_, _, true) => "extends the one before; cosigned",
            _ => "extends the one before",
        };
        let value =
            json!({ "checkpoint": size, "first": first, "proven": proven, "cosigned": cosigned });
        console.result(&format!("checkpoint {size}: {what}"), &value)?;
    }
    source.rest(seen.tree)?;
    Ok(None)
}

fn cosign(
    note: &mut Note,
    checkpoint: &Checkpoint,
    cosigner: &CosigningKey,
) -> Result<(), CommandError> {
    let failed =
        |error: &dyn std::fmt::Display| CommandError::Refused(format!("cosigning failed: {error}"));
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let signature = cosigner.cosign(checkpoint, time).map_err(|error| failed(&error))?;
    note.add(signature).map_err(|error| failed(&error))
}

/// Publishes the newest kept checkpoint as two files in the directory. The name of one file is the
/// tree size, and the name of the other file is `checkpoint`.
fn publish(state: &State, directory: Option<&Path>) -> Result<(), CommandError> {
    let (Some(directory), Some(held)) = (directory, state.held()) else { return Ok(()) };
    std::fs::create_dir_all(directory).map_err(CommandError::file(directory))?;
    let text = held.note.to_string();
    for name in [format!("{:020}", held.checkpoint.size()), "checkpoint".to_owned()] {
        let path = directory.join(name);
        if std::fs::read(&path).is_ok_and(|there| there == text.as_bytes()) {
            continue;
        }
        replace(&path, text.as_bytes())?;
    }
    Ok(())
}
