//! webservice's backend for Kubernetes, against a scripted API server.

#[path = "../support/mod.rs"]
mod support;

mod api_server;
mod site;

mod faults;
mod logs;
mod rollout;
mod shell;
mod states;
