//! What is the same for all daemons.

#[path = "../support/mod.rs"]
mod support;

mod operation;
mod packaging;
