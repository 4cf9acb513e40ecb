//! One `check` per target: libFuzzer calls it with mutated bytes, `tests/seeds.rs` of the main package with the seeds.

pub mod accept_file;
pub mod active_proxy;
pub mod admin_answer;
pub mod admin_query;
pub mod automata;
pub mod backend;
pub mod ctl_settings;
pub mod directive;
pub mod domain_api;
pub mod export_line;
pub mod host;
pub mod ident;
pub mod images;
pub mod import_plan;
pub mod job_record;
pub mod kubeconfig;
pub mod list;
pub mod log_line;
pub mod lookup;
pub mod loop_mark;
pub mod manifest;
pub mod network;
pub mod package_json;
pub mod pattern;
pub mod pods;
pub mod proc_net;
pub mod protocol;
pub mod qstat;
pub mod record;
pub mod redirect;
pub mod redis_reply;
pub mod redis_url;
pub mod registry;
pub mod resp;
pub mod restart_history;
pub mod services;
pub mod setting;
pub mod site_config;
pub mod snapshot;
pub mod suffixes;
pub mod template;
pub mod terminal_text;
pub mod zone;

/// Its name and its check.
pub type Target = (&'static str, fn(&[u8]));

/// All targets by name, which is also that of their file, their binary and their folder of seeds.
pub const TARGETS: &[Target] = &[
    ("accept_file", accept_file::check),
    ("active_proxy", active_proxy::check),
    ("admin_answer", admin_answer::check),
    ("admin_query", admin_query::check),
    ("automata", automata::check),
    ("backend", backend::check),
    ("ctl_settings", ctl_settings::check),
    ("directive", directive::check),
    ("domain_api", domain_api::check),
    ("export_line", export_line::check),
    ("host", host::check),
    ("ident", ident::check),
    ("images", images::check),
    ("import_plan", import_plan::check),
    ("job_record", job_record::check),
    ("kubeconfig", kubeconfig::check),
    ("list", list::check),
    ("log_line", log_line::check),
    ("lookup", lookup::check),
    ("loop_mark", loop_mark::check),
    ("manifest", manifest::check),
    ("network", network::check),
    ("package_json", package_json::check),
    ("pattern", pattern::check),
    ("pods", pods::check),
    ("proc_net", proc_net::check),
    ("protocol", protocol::check),
    ("qstat", qstat::check),
    ("record", record::check),
    ("redirect", redirect::check),
    ("redis_reply", redis_reply::check),
    ("redis_url", redis_url::check),
    ("registry", registry::check),
    ("resp", resp::check),
    ("restart_history", restart_history::check),
    ("services", services::check),
    ("setting", setting::check),
    ("site_config", site_config::check),
    ("snapshot", snapshot::check),
    ("suffixes", suffixes::check),
    ("template", template::check),
    ("terminal_text", terminal_text::check),
    ("zone", zone::check),
];
