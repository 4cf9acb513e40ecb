//! The companion, its Redis client, killed writers, and nginx with the module, against real servers.

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
mod pacing;
mod redis_connection;
mod redis_misbehaves;
#[cfg(feature = "tls")]
mod secure_sources;
mod sources;
mod statistics;
mod structure;
mod withdrawals;
mod writers_killed;
mod writing;
