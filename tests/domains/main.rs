//! Tests of invisible-unicorn.

#[path = "../support/mod.rs"]
mod support;

mod site;

mod api;
mod database;
mod failover;
mod killed;
mod limits;
mod operation;
mod ownership;
