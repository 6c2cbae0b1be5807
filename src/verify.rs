//! Verification inside the database: entries as they are stored, held against their checksums.

mod report;
mod stored_entry;
