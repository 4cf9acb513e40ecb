//! Tests of behavior that all daemons share, of the documents, and of the packaging.

#[path = "../support/mod.rs"]
mod support;

mod documents;
mod operation;
mod packaging;
