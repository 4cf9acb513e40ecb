//! The nginx module: a shell around the table and the companion. What decides something lives elsewhere.
//!
//! - configuration: `directive`, `units`, `table_conf`, `location_conf`, `checks` (warnings) and `proxy_conf`
//! - life: `zone` (shared memory), `first_load`, `process` (companion and its log), `indices` (the module's place in nginx)
//! - requests: `request` (find the route once), `phases` (refuse, count), `variables`, `peers`, `list`

mod addr_text;
mod checks;
mod directive;
mod endpoint;
mod first_load;
mod guard;
mod indices;
mod kept;
mod list;
mod location_conf;
mod log;
mod loop_mark;
mod module;
mod peers;
mod phases;
mod pool;
mod process;
mod proxy_conf;
mod request;
mod sockaddr;
mod table_conf;
mod units;
mod variables;
mod zone;
