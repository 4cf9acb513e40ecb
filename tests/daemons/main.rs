//! Tests of behavior that all daemons share, of the documents, of the packaging, and of what Prometheus and Grafana get.

#[path = "../support/mod.rs"]
mod support;

mod documents;
mod monitoring;
mod operation;
mod packaging;
