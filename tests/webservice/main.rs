//! The command webservice, run as a tool's account, with a scripted grid.

#[path = "../support/mod.rs"]
mod support;

mod site;

mod actions;
mod failures;
mod hostile;
mod manifests;
mod requests;
mod together;
