//! In-database tests, a file for each behaviour.
