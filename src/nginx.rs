//! The nginx module: a shell around the table and the companion. What decides something lives elsewhere.
//!
//! - configuration: `directive`, `units`, `table_conf`, `location_conf`, `upstream`, `checks` (warnings) and `proxy_conf`,
//!   `default_keepalive` (nginx's own is off)
//! - life: `zone` (shared memory), `first_load`, `process` (companion and its log), `indices` (the module's place in nginx)
//! - requests: `request` (find the route once), `phases` (refuse, count), `variables`, `peers` (choose a backend),
//!   `keepalive` (idle connections), `list`

mod addr_text;
mod checks;
mod default_keepalive;
mod directive;
mod endpoint;
mod first_load;
mod guard;
mod indices;
mod keepalive;
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
mod upstream;
mod variables;
mod zone;
