//! From entries to a tree, from the tree to checkpoints that leave the database.
//!
//! `seal` takes the entries of finished transactions (`id_gaps` knows which may still come),
//! appends their leaf hashes to the tiles of one Merkle tree (`stored_tree`), and writes a
//! checkpoint with its ids, root and note (`signer`). After the commit, never before it, `publish`
//! and `notify` bring the note out. Sealing depends on neither. Writers take no part in any of it
//! and wait for nothing.

mod id_gaps;
mod inserted_ids;
mod key_entry;
mod notify;
mod proofs;
mod publication;
mod publish;
mod round;
mod seal_function;
mod signer;
mod stored_tree;
mod tree_guard;

pub use id_gaps::{last_id_given_out, parse_ids};
pub use inserted_ids::InsertedIds;
pub use notify::{notify, queue_is_full};
pub use publish::{publish_by_itself, publish_committed};
pub use round::copied_from;
pub use seal_function::{before_prepare, tick};
pub use signer::verifier_key;
pub use stored_tree::{Identity, StoredTiles, TreeRow, objects_are_current};

use pgrx::pg_sys;

/// The transaction is over.
pub fn transaction_ends(committed: bool) {
    seal_function::transaction_ends();
    publish::transaction_ends(committed);
}

/// A subtransaction was rolled back.
pub fn subtransaction_aborts(own: pg_sys::SubTransactionId) {
    seal_function::subtransaction_aborts(own);
    publish::subtransaction_aborts(own);
}

/// A subtransaction was committed.
pub fn subtransaction_commits(own: pg_sys::SubTransactionId, parent: pg_sys::SubTransactionId) {
    seal_function::subtransaction_commits(own, parent);
    publish::subtransaction_commits(own, parent);
}
