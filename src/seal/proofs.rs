//! Implements the SQL functions for proofs and for the log's public data:
//! `lead_audit.inclusion_proof()`, `consistency_proof()`, `latest_checkpoint()`, `origin()`,
//! `verifier_key()`. Each function reads only a few tiles of each level, even from a large tree.

use super::signer::{Signer, verifier_key};
use super::stored_tree::StoredCheckpoint;
use super::stored_tree::TreeRow;
use super::stored_tree::{StoredTiles, tree_is_damaged};
use crate::pg::{ServerError, SpiPlan, with_spi};
use crate::version;
use ledger::merkle;
use ledger::note::Note;
use ledger::tlog_proof::TlogProof;
use pgrx::{IntoDatum, PgSqlErrorCode, pg_extern, pg_sys};

/// The error that is raised if the requested proof or checkpoint does not exist, or does not exist
/// yet. The second field is an optional hint.
struct Refusal(ServerError, Option<&'static str>);

impl From<ServerError> for Refusal {
    fn from(error: ServerError) -> Self {
        Refusal(error, None)
    }
}

fn refusal(
    code: PgSqlErrorCode,
    message: String,
    detail: String,
    hint: Option<&'static str>,
) -> Refusal {
    Refusal(ServerError { code, message, detail: Some(detail) }, hint)
}

/// Runs `work` within SPI, with the snapshot of the calling statement.
fn answer<T>(work: impl FnOnce(pg_sys::Snapshot) -> Result<T, Refusal>) -> T {
    version::require();
    // SAFETY: a statement that calls a function has an active snapshot, which stays active until
    // the function returns.
    match with_spi(|| work(unsafe { pg_sys::GetActiveSnapshot() })) {
        Ok(value) => value,
        Err(Refusal(error, hint)) => error.raise(hint.map(str::to_owned)),
    }
}

/// `lead_audit.inclusion_proof(bigint, bigint)`: returns a C2SP tlog-proof.
#[pg_extern(sql = false)]
fn inclusion_proof(id: Option<i64>, tree_size: Option<i64>) -> Option<String> {
    let id = id?;
    Some(answer(|snapshot| {
        let Some(leaf) = leaf_of(snapshot, id) else { return Err(not_sealed(snapshot, id)) };
        let checkpoint = match tree_size {
            None => StoredCheckpoint::newest(snapshot)?,
            Some(size) => StoredCheckpoint::of_size(snapshot, size)?,
        };
        let Some(checkpoint) = checkpoint else {
            return Err(refusal(
                PgSqlErrorCode::ERRCODE_NO_DATA_FOUND,
                match tree_size {
                    Some(size) => format!("there is no checkpoint of tree size {size}"),
                    None => "there is no checkpoint yet".to_owned(),
                },
                "A proof leads to a checkpoint.".to_owned(),
                Some("lead_audit.checkpoint has the sizes that there are."),
            ));
        };
        if leaf >= checkpoint.size {
            return Err(refusal(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("entry {id} is not in the tree of size {}", checkpoint.size),
                format!("It is leaf {leaf}, counted from 0, and was sealed later."),
                Some("Ask for a larger tree, or for none: then it is the newest."),
            ));
        }
        let hashes = merkle::inclusion_proof(StoredTiles::of(snapshot), leaf, checkpoint.size)
            .map_err(tree_is_damaged)?;
        let note =
            Note::parse_or_unsigned(checkpoint.note.as_bytes()).map_err(|error| ServerError {
                code: PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
                message: format!(
                    "the note of the checkpoint of tree size {} cannot be read",
                    checkpoint.size
                ),
                detail: Some(format!("{error}.")),
            })?;
        Ok(TlogProof { extra: None, index: leaf, hashes, checkpoint: note }.to_string())
    }))
}

/// `lead_audit.consistency_proof(bigint, bigint)`: returns the hashes of the proof in base64, one
/// hash on each line.
#[pg_extern(sql = false)]
fn consistency_proof(from_size: Option<i64>, to_size: Option<i64>) -> Option<String> {
    let from = from_size?;
    Some(answer(|snapshot| {
        let largest = TreeRow::load(snapshot)?.size;
        let to = to_size.unwrap_or(largest as i64);
        let sizes = match (u64::try_from(from), u64::try_from(to)) {
            (Ok(from), Ok(to)) if from <= to && to <= largest => (from, to),
            _ => {
                return Err(refusal(
                    PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                    format!("no tree of size {from} grew to one of size {to}"),
                    format!("The tree has {largest} leaves."),
                    Some(
                        "Sizes are 0 or more, the first is not above the second, and that is not \
                         above the tree's.",
                    ),
                ));
            }
        };
        let hashes = merkle::consistency_proof(StoredTiles::of(snapshot), sizes.0, sizes.1)
            .map_err(tree_is_damaged)?;
        Ok(hashes.iter().map(|hash| merkle::hash_text(hash) + "\n").collect())
    }))
}

/// `lead_audit.latest_checkpoint()`: returns the note of the newest checkpoint, or NULL if no
/// checkpoint exists.
#[pg_extern(sql = false)]
fn latest_checkpoint() -> Option<String> {
    answer(|snapshot| Ok(StoredCheckpoint::newest(snapshot)?.map(|checkpoint| checkpoint.note)))
}

/// `lead_audit.origin()`: returns the origin that the next checkpoint will have.
#[pg_extern(sql = false)]
fn origin() -> String {
    answer(|snapshot| Ok(Signer::of(&TreeRow::load(snapshot)?)?.origin().to_owned()))
}

/// `lead_audit.verifier_key()`: returns the text of the log's public key, which verifies the next
/// checkpoint, or NULL if checkpoints are not signed.
#[pg_extern(sql = false)]
fn verifier_key_text() -> Option<String> {
    match verifier_key() {
        Ok(key) => key.map(|key| key.to_string()),
        Err(error) => error.raise(None),
    }
}

/// Returns the index of an entry's leaf, or `None` if the entry is not sealed.
fn leaf_of(snapshot: pg_sys::Snapshot, id: i64) -> Option<u64> {
    let plan = SpiPlan::prepare(
        "SELECT r.first_leaf + ($1 - r.first_id) FROM (SELECT * FROM lead_audit.leaf_range \
         WHERE first_id <= $1 ORDER BY first_id DESC LIMIT 1) r WHERE $1 <= r.last_id",
        &[pg_sys::INT8OID],
    );
    plan.read(snapshot, &[id.into_datum()])
        .get::<i64>(0, 0)
        .and_then(|leaf| u64::try_from(leaf).ok())
}

fn not_sealed(snapshot: pg_sys::Snapshot, id: i64) -> Refusal {
    let plan =
        SpiPlan::prepare("SELECT true FROM lead_audit.entry WHERE id = $1", &[pg_sys::INT8OID]);
    if plan.read(snapshot, &[id.into_datum()]).len() == 0 {
        refusal(
            PgSqlErrorCode::ERRCODE_NO_DATA_FOUND,
            format!("there is no entry {id}"),
            "No entry of this id was sealed, and none waits to be.".to_owned(),
            None,
        )
    } else {
        refusal(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("entry {id} is not sealed yet"),
            "It is in no checkpoint.".to_owned(),
            Some("Wait for the background worker, or call lead_audit.seal()."),
        )
    }
}
