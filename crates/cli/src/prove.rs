//! The commands `prove` and `verify-proof`. A proof shows a third party that an entry is in the
//! tree.

use crate::Status;
use crate::arguments::{Prove, VerifyProof};
use crate::database::{EntryReader, Selection, Snapshot, select};
use crate::error::CommandError;
use crate::export_command::url;
use crate::files::{read_note, read_small, replace};
use crate::progress::Console;
use crate::trust;
use export::write::StoredEntry;
use export::{EntryColumns, Record, judge_entry};
use ledger::checkpoint::Checkpoint;
use ledger::merkle::{hash_text, inclusion_proof};
use ledger::note::{Note, NoteError};
use ledger::tlog_proof::TlogProof;
use ledger::{IdRange, leaf_hash};
use serde_json::json;
use std::io::Write;
use std::path::Path;

/// Writes the proof for the entry with the requested id.
pub fn prove(arguments: &Prove, console: Console) -> Result<Status, CommandError> {
    let id = arguments.id;
    let snapshot = Snapshot::open(url(&arguments.database)?)?;
    let refused = |text: String| Err(CommandError::Refused(text));
    let Some(last) = snapshot.last_checkpoint(None)? else {
        return refused("nothing was sealed yet: there is no checkpoint".to_owned());
    };
    let selection = Selection { from_id: Some(id), to_id: Some(id), ..Selection::default() };
    let selected = select(&snapshot, &selection, last.tree_size)?;
    let Some(&(index, _)) = selected.sealed.first() else {
        let known = if selected.unsealed.is_empty() {
            "there is no entry"
        } else {
            "no checkpoint took yet the entry"
        };
        return refused(format!("{known} {id}"));
    };
    let mut preimage = None;
    EntryReader::new(&snapshot)?.read::<CommandError>(&[IdRange::of(id)], |_, stored| {
        preimage = match stored {
            StoredEntry::Entry { preimage, .. } => Some(preimage),
            StoredEntry::Damaged(fault) => {
                return Err(CommandError::Refused(format!("entry {id} is none any more: {fault}")));
            }
            StoredEntry::Unknown { column, .. } => {
                let text = format!(
                    "entry {id} has a value in the column {column:?}, which this program does not \
                     know"
                );
                return Err(CommandError::Refused(text));
            }
        };
        Ok(())
    })?;
    let hashes = inclusion_proof(&snapshot.tiles(), index, last.tree_size)
        .map_err(|error| CommandError::Refused(format!("the stored tree has no proof: {error}")))?;
    let note = Note::parse_or_unsigned(last.note.as_bytes())
        .map_err(|error| CommandError::Refused(format!("the last checkpoint is none: {error}")))?;
    let proof = TlogProof { extra: None, index, hashes, checkpoint: note }.to_string();
    write(&arguments.output, proof.as_bytes())?;
    if let (Some(path), Some(preimage)) = (&arguments.entry, preimage) {
        write(path, preimage.as_bytes())?;
    }
    console.remark(&format!("Entry {id} is leaf {index} of {}", last.tree_size));
    Ok(Status::Intact)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), CommandError> {
    if path.as_os_str() == "-" {
        std::io::stdout().write_all(bytes).map_err(CommandError::Output)
    } else {
        replace(path, bytes)
    }
}

/// Verifies a proof together with its entry.
pub fn verify_proof(arguments: &VerifyProof, console: Console) -> Result<Status, CommandError> {
    let trust = trust::gather(&arguments.trust, false)?;
    let proof = TlogProof::parse(&read_note(&arguments.proof)?)
        .map_err(CommandError::content(&arguments.proof))?;
    let entry = read_small(&arguments.entry)?;
    let entry = entry.strip_suffix(b"\n").unwrap_or(&entry);
    let (preimage, given) = preimage_and_checksum(entry, &arguments.entry)?;
    let tampered = |text: String| {
        console.result(
            &format!("TAMPERED WITH: {text}"),
            &json!({ "verdict": "tampered", "detail": text }),
        )?;
        Ok(Status::Tampered)
    };
    let computed = judge_entry(preimage, &[0; 32], &mut Vec::new()).computed;
    if let Some(fault) = judge_entry(preimage, &given.unwrap_or(computed), &mut Vec::new()).fault {
        return tampered(format!("the entry: {fault}"));
    }
    let checkpoint = match proof.verify_unsigned(&leaf_hash(&computed)) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return tampered(format!("the entry is not in the tree: {error}")),
    };
    if trust.origin.as_deref().is_some_and(|origin| origin != checkpoint.origin()) {
        return tampered(format!("the proof is of the log {:?}", checkpoint.origin()));
    }
    // An unknown key that has the log's name can be a key that the log used before or after a
    // change of its key.
    let stranger = proof
        .checkpoint
        .signatures()
        .iter()
        .any(|signature| signature.name() == checkpoint.origin());
    let signed = match proof.checkpoint.verify(&trust.keys) {
        Ok(signers) if signers.iter().any(|signer| signer.key.name() == checkpoint.origin()) => {
            true
        }
        Ok(_) if stranger => false,
        Ok(_) => {
            let origin = checkpoint.origin();
            return tampered(format!(
                "the checkpoint: its origin {origin:?} is not the name of the key that has signed \
                 it"
            ));
        }
        Err(NoteError::NoKnownSignature) if trust.keys.is_empty() || stranger => false,
        Err(error) => return tampered(format!("the checkpoint: {error}")),
    };
    let kept = trust.known.get(&checkpoint.size());
    if let Some(kept) = kept
        && kept.root != *checkpoint.root()
    {
        return tampered(format!(
            "the checkpoint in {} has another root: the history has forked",
            kept.from
        ));
    }
    let columns = EntryColumns::of(preimage);
    let id = columns.get("id").unwrap_or_default().to_owned();
    let what = format!(
        "entry {id} is leaf {} of {:?}, tree size {}",
        proof.index,
        checkpoint.origin(),
        checkpoint.size()
    );
    let value = |verdict: &str| {
        json!({ "verdict": verdict, "id": id, "index": proof.index,
                "origin": checkpoint.origin(), "tree_size": checkpoint.size(),
                "root": hash_text(checkpoint.root()), "signed": signed, "matched": kept.is_some() })
    };
    if signed || kept.is_some() {
        console.result(&format!("INTACT: {what}"), &value("intact"))?;
        Ok(Status::Intact)
    } else {
        let other =
            if trust.keys.is_empty() { "" } else { "; it is signed, but not with the given key" };
        let advice = "Give the log's --key, or a --checkpoint of this size";
        let text =
            format!("COULD NOT TELL: {what}, if that checkpoint is genuine{other}. {advice}");
        console.result(&text, &value("could not tell"))?;
        Ok(Status::CouldNotTell)
    }
}

/// Returns the preimage and the checksum of an entry. `bytes` is the preimage itself, or a line of
/// an export.
fn preimage_and_checksum<'a>(
    bytes: &'a [u8],
    path: &Path,
) -> Result<(&'a str, Option<[u8; 32]>), CommandError> {
    if bytes.starts_with(b"{\"checksum\":") {
        return match Record::parse(bytes).map_err(CommandError::content(path))? {
            Record::Sealed { checksum, entry, .. }
            | Record::Unsealed { checksum, entry }
            | Record::Inserted { checksum, entry } => Ok((entry, Some(checksum))),
            _ => Err(CommandError::content(path)("not an entry")),
        };
    }
    ledger::canonical::check(bytes).map_err(CommandError::content(path))?;
    let text = std::str::from_utf8(bytes).map_err(CommandError::content(path))?;
    if text.starts_with('{') {
        Ok((text, None))
    } else {
        Err(CommandError::content(path)("not a JSON object"))
    }
}

/// Returns the checkpoint in a note without verifying its signatures. The command `inspect`, which
/// only shows a checkpoint, calls this function.
pub fn checkpoint_of(note: &Note) -> Option<Checkpoint> {
    Checkpoint::parse(note.text()).ok()
}
