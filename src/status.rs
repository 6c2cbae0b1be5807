//! `lead_audit.status()`: which parts are on, and what to do about those that are not. Each part
//! says it of itself; here they are put together.

mod parts;
mod queue;
