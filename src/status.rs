//! Implements `lead_audit.status()`, which states for each part of lead_audit whether the part is
//! on, and how to turn it on. For each part, one function reports the state of the part.

mod parts;
mod queue;
