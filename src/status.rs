//! Implements `lead_audit.status()`, which lists the parts of lead_audit that are on or off, and
//! tells how to turn on a part. For each part, one function reports the state of the part.

mod parts;
mod queue;
