//! Shared test support: servers that end with the test, and requirements of the machine.
#![allow(dead_code, reason = "each test program uses a part of this module")]

pub mod daemon;
pub mod http;
pub mod need;
pub mod nginx;
pub mod port;
pub mod program;
pub mod redis;
pub mod sentinel;
pub mod source;
pub mod tls;
pub mod wait;
