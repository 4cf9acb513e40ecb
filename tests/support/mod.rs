//! What the tests of more than one part share: servers that end with the test, and what a test needs of its machine.
#![allow(dead_code, reason = "each test program uses its part of this")]

pub mod daemon;
pub mod http;
pub mod need;
pub mod nginx;
pub mod port;
pub mod redis;
pub mod sentinel;
pub mod tls;
pub mod wait;
