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
pub use publish::{
    publish_by_itself, publish_committed, subtransaction_aborts, subtransaction_commits,
    transaction_ends,
};
pub use round::copied_from;
pub use seal_function::tick;
pub use signer::verifier_key;
pub use stored_tree::{Identity, StoredTiles, TreeRow, objects_are_current};
