//! proxylistener, and the clients of Grid Engine's jobs.

#[path = "../support/mod.rs"]
mod support;

mod listener;
mod proxy;
mod real_identd;

mod audit;
mod clients;
mod failover;
mod limits;
mod operation;
mod proxylistener;
