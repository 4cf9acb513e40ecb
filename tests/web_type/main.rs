//! webservice-runner with the servers that it runs: lighttpd, PHP, uwsgi, npm. They run as a tool's account in a home of the test.

#[path = "../support/mod.rs"]
mod support;

mod tool;

mod error_log;
mod hostile;
mod lighttpd;
mod needs;
mod nodejs;
mod php;
mod print_config;
mod site_types;
mod snippets;
mod uwsgi;
