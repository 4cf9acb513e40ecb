//! The table, the companion that keeps it in step with Redis, what is asked of Redis, and nginx with all of it.

#[path = "../support/mod.rs"]
mod support;

mod connecting;
mod following;

mod addresses;
mod companion;
mod companion_withdrawals;
mod hostile_patterns;
mod nginx;
mod oversized;
mod redis_connection;
mod redis_misbehaves;
mod sources;
mod structure;
mod withdrawals;
mod writers_killed;
