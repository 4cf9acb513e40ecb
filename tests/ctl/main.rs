//! Tests of urlproxyctl with a real Redis.

#[path = "../support/mod.rs"]
mod support;

mod asking;
mod comparing;
mod draining;
mod fake_admin;
mod live;
mod moving;
mod program;
mod real;
mod withdrawing;
mod writing;
