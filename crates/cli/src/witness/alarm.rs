//! Raises an alarm: stores the evidence, reports the fault, and runs the alarm command.

use super::state::State;
use crate::error::CommandError;
use crate::files::replace;
use crate::progress::{Console, on_one_line};
use ledger::merkle::{Hash, hash_text};
use serde_json::json;
use std::process::Command;

/// A fault that the witness found.
#[derive(Debug)]
pub struct Alarm {
    pub kind: AlarmKind,
    pub text: String,
    /// Tree size and root of the checkpoint that caused the alarm. The value is None if the size or
    /// the root is unknown.
    pub found: Option<(u64, Option<Hash>)>,
    /// The note of the checkpoint that caused the alarm. The note is the evidence.
    pub note: Option<String>,
}

/// The kinds of alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlarmKind {
    /// The log has a history that differs from the witnessed history.
    Forked,
    /// The log has fewer leaves than the witnessed history.
    GoneBack,
    /// The signature of a checkpoint is missing or invalid.
    Signature,
    /// A checkpoint belongs to a log that the witness does not follow, or is not a valid
    /// checkpoint.
    Checkpoint,
}

impl AlarmKind {
    /// Returns the name of the kind of alarm, for people and for the variable LEAD_AUDIT_ALARM.
    pub fn name(self) -> &'static str {
        match self {
            AlarmKind::Forked => "history forked",
            AlarmKind::GoneBack => "history gone back",
            AlarmKind::Signature => "signature bad",
            AlarmKind::Checkpoint => "checkpoint changed",
        }
    }
}

/// Raises the alarm: stores the evidence, prints the fault, and runs the alarm command.
pub fn raise(
    alarm: &Alarm,
    state: &State,
    command: Option<&str>,
    console: Console,
) -> Result<(), CommandError> {
    let evidence = alarm.note.as_ref().map(|note| {
        // The name of the evidence file depends only on the tree size and the note. Repeated alarms
        // for the same note write the same file, so they do not fill the disk.
        let name = format!(
            "evidence-{:020}-{:08x}",
            alarm.found.map_or(0, |(size, _)| size),
            checksum(note)
        );
        (state.directory().join(name), note)
    });
    if let Some((path, note)) = &evidence {
        replace(path, note.as_bytes())?;
    }
    let held = state.held();
    let (held_size, held_root) =
        held.map_or((0, String::new()), |h| (h.checkpoint.size(), hash_text(h.checkpoint.root())));
    let found_size = alarm.found.map(|(size, _)| size);
    let found_root = alarm.found.and_then(|(_, root)| root).map(|root| hash_text(&root));
    let origin = held.map(|held| held.checkpoint.origin().to_owned()).unwrap_or_default();
    let evidence = evidence.map(|(path, _)| path.display().to_string());
    let value = json!({
        "alarm": alarm.kind.name(), "message": alarm.text, "origin": origin,
        "held_size": held_size, "held_root": held_root,
        "found_size": found_size, "found_root": found_root, "evidence": evidence,
    });
    console
        .result(&on_one_line(&format!("ALARM: {}: {}", alarm.kind.name(), alarm.text)), &value)?;
    let Some(command) = command else { return Ok(()) };
    let status = Command::new("/bin/sh")
        .args(["-c", command])
        .env("LEAD_AUDIT_ALARM", alarm.kind.name())
        .env("LEAD_AUDIT_MESSAGE", &alarm.text)
        .env("LEAD_AUDIT_ORIGIN", origin)
        .env("LEAD_AUDIT_HELD_SIZE", held_size.to_string())
        .env("LEAD_AUDIT_HELD_ROOT", held_root)
        .env("LEAD_AUDIT_FOUND_SIZE", found_size.map(|size| size.to_string()).unwrap_or_default())
        .env("LEAD_AUDIT_FOUND_ROOT", found_root.unwrap_or_default())
        .env("LEAD_AUDIT_EVIDENCE", evidence.unwrap_or_default())
        // The alarm command does not need the database, so its environment does not contain the
        // database's URL and password.
        .env_remove("LEAD_AUDIT_DATABASE_URL")
        .env_remove("PGPASSWORD")
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => {
            console.error(&CommandError::Refused(format!("the alarm command ended with {status}")))
        }
        Err(error) => console
            .error(&CommandError::Refused(format!("the alarm command did not start: {error}"))),
    }
    Ok(())
}

/// Returns a checksum (FNV-1a) of a note, so that evidence files of different notes have different
/// names.
fn checksum(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
