//! What is the same for all daemons.

#[path = "../support/mod.rs"]
mod support;

mod documents;
mod operation;
mod packaging;
