//! Verifies the log inside the database. `entries` compares each stored entry with its checksum and
//! its leaf in the tree. `tree` compares the leaves with the roots of the checkpoints.
//! `stored_state` checks the stored tiles, the open gaps (`lead_audit.open_gap`) and the log ids.
//! `faults` collects the faults that verification finds.

mod entries;
mod faults;
mod leaves;
mod report;
mod signatures;
mod stored_state;
mod tree;
