//! The alarm: what is wrong, kept as evidence, said, and given to a command.

use super::state::State;
use crate::error::CommandError;
use crate::files::replace;
use crate::progress::{Console, on_one_line};
use ledger::merkle::{Hash, hash_text};
use serde_json::json;
use std::process::Command;

/// What is wrong.
#[derive(Debug)]
pub struct Alarm {
    pub kind: AlarmKind,
    pub text: String,
    /// Size and root of what was found, as far as there is any.
    pub found: Option<(u64, Option<Hash>)>,
    /// The checkpoint that it is about, as evidence.
    pub note: Option<String>,
}

/// What kind of alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlarmKind {
    /// The log shows another history than the one that was witnessed.
    Forked,
    /// The log shows less than it has shown.
    GoneBack,
    /// A checkpoint is not signed, or badly.
    Signature,
    /// A checkpoint is of another log, or none.
    Checkpoint,
}

impl AlarmKind {
    /// Its name, for people and for LEAD_AUDIT_ALARM.
    pub fn name(self) -> &'static str {
        match self {
            AlarmKind::Forked => "history forked",
            AlarmKind::GoneBack => "history gone back",
            AlarmKind::Signature => "signature bad",
            AlarmKind::Checkpoint => "checkpoint changed",
        }
    }
}

/// Raises it.
pub fn raise(
    alarm: &Alarm,
    state: &State,
    command: Option<&str>,
    console: Console,
) -> Result<(), CommandError> {
    let evidence = alarm.note.as_ref().map(|note| {
        // One file for each different note, so that raising it again every minute does not fill the
        // disk.
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
        "alarm": alarm.kind.name(), "message": alarm.text, "origin": origin, "held_size": held_size, "held_root": held_root,
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
        // It is not the alarm's to know.
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

/// Tells notes apart in the names of files: FNV-1a.
fn checksum(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
