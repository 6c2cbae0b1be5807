//! `lead_audit.status()`: lists which parts are on, and how to turn on the others. Each part
//! reports its own state.

mod parts;
mod queue;
