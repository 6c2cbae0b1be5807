//! The entry by which the log changes its key or its origin: operation KEY, docs/FORMAT.md, section
//! 15.
//!
//! It is written by the sealing that notices the change, in the same transaction, and sealed by it:
//! alone in the first checkpoint that has the new origin and is signed with the new key. That
//! checkpoint is signed with the old key too, if it is still there, so that whoever has only that
//! one knows from the log itself that another one follows.

use super::id_gaps;
use super::signer::{Signer, previous_key};
use super::stored_tree::Identity;
use super::stored_tree::StoredCheckpoint;
use super::stored_tree::TreeRow;
use crate::entries::{self, NewEntry};
use crate::pg::{NewestSnapshot, ServerError, SpiPlan, Text};
use ledger::KeyChange;
use ledger::note::SigningKey;
use pgrx::{IntoDatum, pg_sys};

/// A change that was just written, and is not sealed yet.
pub struct KeyEntry {
    /// The entry's id.
    pub id: i64,
    /// Who signs from now on.
    pub signer: Signer,
    /// The key before, if it is still there.
    pub former: Option<SigningKey>,
}

impl KeyEntry {
    /// Writes the entry if the settings say another key or origin than the last checkpoint has, and
    /// sealing can take it now.
    pub fn write_if_due() -> Result<Option<Self>, ServerError> {
        let snapshot = NewestSnapshot::take();
        let mut tree = TreeRow::load(snapshot.as_ptr())?;
        let Some(newest) = StoredCheckpoint::newest(snapshot.as_ptr())? else { return Ok(None) };
        if newest.size != tree.size
            || tree.must_wait_for_restore(snapshot.as_ptr())
            || snapshot.in_progress().is_none()
            || tree.is_from_elsewhere() && !has_arrived(snapshot.as_ptr(), &tree, Some(&newest))
        {
            return Ok(None);
        }
        // What is wrong with the settings is said when there is something to seal.
        let Ok(signer) = Signer::of(&tree) else { return Ok(None) };
        let now = signer.identity();
        let Some(before) = tree.identity.take().or_else(|| signer.identity_of(&newest.note)) else {
            return Ok(None);
        };
        if before == now {
            return Ok(None);
        }
        drop(snapshot);
        let former = former_key(&before)?;
        if before.origin != now.origin {
            pgrx::warning!(
                "the origin of the audit log changes from \"{}\" to \"{}\": those who follow it have to be told",
                before.origin,
                now.origin
            );
        }
        let change = KeyChange {
            old_origin: before.origin,
            old_key: before.key,
            new_origin: now.origin,
            new_key: now.key,
        };
        let mut details = Text::from(&*change.to_details());
        let entry = NewEntry {
            operation: KeyChange::OPERATION,
            details: Some(&mut details),
            ..NewEntry::default()
        };
        let id = entries::write_at_once(entry)?;
        Ok(Some(KeyEntry { id, signer, former }))
    }
}

/// The key that has signed so far, if it can be read. Without it the change goes on: it may be
/// lost.
fn former_key(before: &Identity) -> Result<Option<SigningKey>, ServerError> {
    let Some(public) = &before.key else { return Ok(None) };
    let reason = match previous_key() {
        Ok(Some(key)) if key.verifier().to_string() == *public => return Ok(Some(key)),
        Ok(Some(key)) => {
            format!("lead_audit.previous_signing_key_file has the key {}", key.verifier())
        }
        Ok(None) => "lead_audit.previous_signing_key_file is not set".to_owned(),
        Err(error) => format!("{error}. {}", error.detail.as_deref().unwrap_or_default()),
    };
    pgrx::warning!(
        "the change of the audit log's key is not signed with the key before, {public}: {}",
        reason.trim()
    );
    Ok(None)
}

/// Of a tree from elsewhere: whether gaps and entries have been restored too. In a parallel restore
/// they come later, by a transaction that may not have begun: what is not there yet must not be
/// taken for what will never come.
pub fn has_arrived(
    snapshot: pg_sys::Snapshot,
    tree: &TreeRow,
    newest: Option<&StoredCheckpoint>,
) -> bool {
    let plan = SpiPlan::prepare(
        "SELECT true FROM lead_audit.entry WHERE id >= $1 LIMIT 1",
        &[pg_sys::INT8OID],
    );
    let last_id = newest.map_or(i64::MIN, |newest| newest.last_id);
    id_gaps::are_complete(snapshot, tree) && plan.read(snapshot, &[last_id.into_datum()]).len() == 1
}
