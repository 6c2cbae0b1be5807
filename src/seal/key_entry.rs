//! Writes the KEY entry, which states a new key or origin of the log (docs/FORMAT.md, section 15).
//!
//! If a round of sealing finds a new key or origin in the settings, it writes a KEY entry. The
//! round seals the KEY entry in the same transaction. The checkpoint of a KEY entry adds only this
//! entry to the tree, and is the first checkpoint with the new origin and the new key's signature.
//! The old key also signs the checkpoint of the KEY entry, if the old key is still available. A
//! verifier that has only the old key therefore learns the new key from the log itself.

use super::open_ids;
use super::signer::{Signer, previous_key};
use super::stored_tree::Identity;
use super::stored_tree::StoredCheckpoint;
use super::stored_tree::TreeRow;
use crate::entries::{self, NewEntry};
use crate::pg::{NewestSnapshot, ServerError, SpiPlan, Text};
use ledger::KeyChange;
use ledger::note::SigningKey;
use pgrx::{IntoDatum, pg_sys};

/// A KEY entry that the current round has written and has not sealed yet.
pub struct KeyEntry {
    /// The id of the KEY entry.
    pub id: i64,
    /// The signer with the new key and origin.
    pub signer: Signer,
    /// The previous signing key, if it is still available.
    pub former: Option<SigningKey>,
}

impl KeyEntry {
    /// Writes a KEY entry if the settings specify another key or another origin than the last
    /// checkpoint has. Writes no KEY entry while sealing cannot seal the entry at once, for example
    /// during a restore.
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
        // If the settings are wrong, this function writes no KEY entry and raises no error. The
        // round of sealing reads the same settings later, and raises the error of the settings.
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
                "the origin of the audit log changes from \"{}\" to \"{}\": those who follow it \
                 have to be told",
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

/// Returns the signing key before the change, or `None` if this key cannot be read. A key change
/// does not require the previous key, because the previous key may be lost.
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

/// Returns whether a restore has loaded all rows of lead_audit.open_gap, and the entries of the
/// newest checkpoint. This function is called only if the stored tree comes from another cluster or
/// database. A parallel restore can load lead_audit.open_gap and lead_audit.entry in separate
/// transactions after lead_audit.tree. While this function returns false, the restore may still
/// load an entry that is missing now.
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
    open_ids::are_complete(snapshot, tree)
        && plan.read(snapshot, &[last_id.into_datum()]).len() == 1
}
