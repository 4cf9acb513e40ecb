//! webservicemonitor.

#[path = "../support/mod.rs"]
mod support;

mod site;

mod facts;
mod failover;
mod hostile;
mod operation;
mod qstat_samples;
mod rounds;
mod starts;
