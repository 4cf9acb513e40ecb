//! kube2proxy.

#[path = "../support/mod.rs"]
mod support;

mod api_server;
mod kube2proxy;
mod proxy_server;

mod failover;
mod faults;
mod lock;
mod operation;
mod routes;
mod scripted_server;
mod tenants;
mod writers;
