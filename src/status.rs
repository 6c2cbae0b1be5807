//! Implements `lead_audit.status()`, which lists the parts that are on, and tells how to turn on
//! the others. Each part reports its own state.

mod parts;
mod queue;
