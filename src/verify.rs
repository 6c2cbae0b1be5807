//! Verification inside the database. `entries` holds each entry, as it is stored, against its
//! checksum and its leaf of the tree; `tree` holds the leaves against the roots of the checkpoints.
//! What is wrong comes out as `faults`.

mod entries;
mod faults;
mod leaves;
mod report;
mod signatures;
mod stored_state;
mod tree;
