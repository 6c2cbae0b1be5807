//! Appends entries to the Merkle tree, and publishes the tree's checkpoints outside the database.
//!
//! A round of sealing (`round`) appends the leaf hashes of committed entries to the Merkle tree,
//! which is stored in tiles (`stored_tree`). Entries whose transactions have not ended are sealed
//! in a later round (`open_ids`). At its end, a round of sealing stores a checkpoint with the ids
//! of the sealed entries, the root and a note (`signer`). Only after the commit, `publish` writes
//! the note to a file (`checkpoint_file`) and to the server's log. The module `notify` sends the
//! note with NOTIFY. If a checkpoint cannot be published, sealing nevertheless continues. Sessions
//! that write entries do not seal, and never wait for sealing.

mod checkpoint_file;
mod inserted_ids;
mod key_entry;
mod notify;
mod open_ids;
mod proofs;
mod publish;
mod round;
mod sealing_lock;
mod signer;
mod stored_tree;
mod tree_guard;

pub use inserted_ids::InsertedIds;
pub use notify::{notify, queue_is_full};
pub use open_ids::{last_id_given_out, parse_ids};
pub use publish::{publish_by_itself, publish_committed};
pub use round::copied_from;
pub use sealing_lock::{before_prepare, tick};
pub use signer::verifier_key;
pub use stored_tree::{Identity, StoredTiles, TreeRow, objects_are_current};

use pgrx::pg_sys;

/// Records that the sealing lock is released, because the transaction has ended. If the transaction
/// has committed, its checkpoints are published.
pub fn transaction_ends(committed: bool) {
    sealing_lock::transaction_ends();
    publish::transaction_ends(committed);
}

/// Discards the registered checkpoints of a rolled-back subtransaction, and records that its
/// sealing lock is released.
pub fn subtransaction_aborts(own: pg_sys::SubTransactionId) {
    sealing_lock::subtransaction_aborts(own);
    publish::subtransaction_aborts(own);
}

/// Records that the sealing lock and the checkpoints of a committed subtransaction belong to its
/// parent.
pub fn subtransaction_commits(own: pg_sys::SubTransactionId, parent: pg_sys::SubTransactionId) {
    sealing_lock::subtransaction_commits(own, parent);
    publish::subtransaction_commits(own, parent);
}
