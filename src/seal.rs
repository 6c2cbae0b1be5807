//! Appends entries to the tree, and publishes its checkpoints outside the database.
//!
//! A round of sealing (`round`) takes the entries of finished transactions and appends their leaf
//! hashes to the tiles of one Merkle tree (`stored_tree`). Ids whose entries may still commit wait
//! for a later round (`open_ids`). The round then writes a checkpoint with its ids, root and note
//! (`signer`). After the commit, never before it, `publish` writes the note to a file
//! (`checkpoint_file`) and to the server's log, and `notify` sends it. A failure to publish or to
//! send does not stop sealing. Writers take no part in sealing and never wait for it.

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

/// Forgets the sealing lock, and publishes the checkpoints of a committed transaction. Called when
/// the transaction has ended.
pub fn transaction_ends(committed: bool) {
    sealing_lock::transaction_ends();
    publish::transaction_ends(committed);
}

/// Forgets the sealing lock and the checkpoints of a subtransaction that has rolled back.
pub fn subtransaction_aborts(own: pg_sys::SubTransactionId) {
    sealing_lock::subtransaction_aborts(own);
    publish::subtransaction_aborts(own);
}

/// Gives the sealing lock and the checkpoints of a committed subtransaction to its parent.
pub fn subtransaction_commits(own: pg_sys::SubTransactionId, parent: pg_sys::SubTransactionId) {
    sealing_lock::subtransaction_commits(own, parent);
    publish::subtransaction_commits(own, parent);
}
