//! The settings of the http block: all tables and upstreams, and `urlproxy_table NAME { ... }`.

use std::cell::{OnceCell, Ref, RefCell};
use std::rc::Rc;

use super::routed::RoutedLocation;
use super::table::TableConf;
use super::upstream::UpstreamConf;
use crate::directive::DirectiveError;
use crate::directive::table::{ENTRIES, TableOptions};
use crate::nginx::ffi::config_error::ConfigError;
use crate::nginx::ffi::directive::{Command, MainLevel};
use crate::nginx::ffi::module::IndicesInUse;
use crate::nginx::ffi::parser::Parser;
use crate::nginx::ffi::proxy::ProxyModule;
use crate::nginx::ffi::server_block::Listener;
use crate::nginx::ffi::upstream_block::UpstreamId;
use crate::nginx::keepalive::Keepalive;
use crate::table::HealthSettings;

/// This module's settings of the http block.
#[derive(Default)]
pub(in crate::nginx) struct MainConf {
    tables: Vec<Rc<TableConf>>,
    #[expect(clippy::vec_box, reason = "nginx points to each item, which must not move at the next push")]
    upstreams: Vec<Box<UpstreamConf>>,
    /// The locations with `urlproxy`.
    routed: RefCell<Vec<RoutedLocation>>,
    /// Found when the first location is checked.
    pub proxy: OnceCell<Option<ProxyModule>>,
    #[expect(dead_code, reason = "its drop frees the module's indices")]
    indices: IndicesInUse,
}

impl MainConf {
    /// The tables of the configuration.
    pub fn tables(&self) -> impl Iterator<Item = &TableConf> {
        self.tables.iter().map(AsRef::as_ref)
    }

    /// The table of this name.
    pub fn table(&self, name: &str) -> Option<&Rc<TableConf>> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// Adds a location with `urlproxy`.
    pub fn add_routed(&self, location: RoutedLocation) {
        if let Ok(mut routed) = self.routed.try_borrow_mut() {
            routed.push(location);
        }
    }

    /// Notes where the servers of these locations listen.
    pub fn set_listeners(&self, listeners: &[Listener]) {
        if let Ok(mut routed) = self.routed.try_borrow_mut() {
            routed.iter_mut().for_each(|location| location.set_listeners(listeners));
        }
    }

    /// The locations with `urlproxy`, in the order of the configuration. `None` while the configuration is read.
    pub fn routed(&self) -> Option<Ref<'_, [RoutedLocation]>> {
        self.routed.try_borrow().ok().map(|routed| Ref::map(routed, Vec::as_slice))
    }

    /// The health settings of the first upstream with `urlproxy_peers`, or the defaults.
    pub fn health(&self) -> HealthSettings {
        self.upstreams.first().map_or_else(HealthSettings::default, |upstream| upstream.health)
    }

    /// Adds an upstream with `urlproxy_peers`.
    pub fn add_upstream(&mut self, upstream: UpstreamConf) {
        self.upstreams.push(Box::new(upstream));
    }

    /// The settings of an upstream with `urlproxy_peers`.
    pub fn upstream(&self, id: UpstreamId) -> Option<&UpstreamConf> {
        self.upstreams.iter().map(AsRef::as_ref).find(|upstream| upstream.id == id)
    }

    /// Like [`Self::upstream`], while the configuration is being read.
    pub fn upstream_mut(&mut self, id: UpstreamId) -> Option<&mut UpstreamConf> {
        self.upstreams.iter_mut().map(AsMut::as_mut).find(|upstream| upstream.id == id)
    }

    /// Whether any upstream has `urlproxy_peers`.
    pub fn has_upstreams(&self) -> bool {
        !self.upstreams.is_empty()
    }

    /// The connection pools of all upstreams.
    pub fn keepalives(&self) -> impl Iterator<Item = &Keepalive> {
        self.upstreams.iter().filter_map(|upstream| upstream.keepalive.as_deref())
    }

    /// Warns if the upstreams together keep more than half of a worker's connections.
    pub fn check_connections(&self, worker_connections: usize, warn: impl Fn(&str)) {
        let kept: usize = self.keepalives().map(Keepalive::max_connections).sum();
        if kept > worker_connections / 2 {
            warn(&format!(
                "\"urlproxy_keepalive\" of all upstreams keeps {kept} connections, more than half of {worker_connections} \
                 worker_connections, expected e.g. \"worker_connections {0};\" and \"worker_rlimit_nofile {1};\"",
                4 * kept,
                8 * kept
            ));
        }
    }

    /// Warns of keys and passwords that every user may read.
    pub fn check_files(&self, warn: impl Fn(&str)) {
        for file in self.tables().flat_map(|table| table.settings.source.exposed_files()) {
            warn(&format!("\"redis\" file {file:?} is readable by every user of this host, expected e.g. mode 0640"));
        }
    }

    /// Finds the predecessor of each table: the old table of the same name, or a renamed one with the same source.
    pub fn find_predecessors(&self, old: &Self) {
        for table in self.tables() {
            let is_renamed =
                |old: &&TableConf| old.settings.source == table.settings.source && self.table(&old.name).is_none();
            let same_name = old.table(&table.name).map(AsRef::as_ref);
            let predecessor = same_name.or_else(|| old.tables().find(is_renamed));
            table.predecessor.set(predecessor.and_then(|old| old.table.get().copied()));
            table.is_new_source.set(predecessor.is_some_and(|old| old.settings.source != table.settings.source));
        }
    }
}

/// `urlproxy_table NAME { ... }`
pub(in crate::nginx) struct UrlproxyTable;

impl Command for UrlproxyTable {
    const DIRECTIVE: &'static str = "urlproxy_table";
    type Level = MainLevel;

    fn run(main: &mut MainConf, args: &[&str], parser: &mut Parser<'_>) -> Result<(), ConfigError> {
        let name = args.first().copied().unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || !name.chars().all(plain) {
            let (directive, what, example) = (Self::DIRECTIVE, "name", "urlproxy_table tools { ... }");
            return Err(DirectiveError::Invalid { directive, what, value: name.into(), example }.into());
        }
        if main.table(name).is_some() {
            return Err(format!("\"urlproxy_table {name}\" is duplicate").into());
        }
        let mut options = TableOptions::default();
        parser.read_block(|words| apply_entry(&mut options, words))?;
        let table = Rc::new(TableConf::new(name, options.into_settings(name)?));
        let snapshot_of = |table: &TableConf| table.settings.snapshot.as_ref().map(|snapshot| snapshot.path.clone());
        if let Some(path) = snapshot_of(&table)
            && let Some(other) = main.tables().find(|other| snapshot_of(other).as_ref() == Some(&path))
        {
            let (path, other) = (path.display(), &other.name);
            let text = format!(
                "\"snapshot\" \"{path}\" is already used by \"urlproxy_table {other}\", expected one file per table"
            );
            return Err(text.into());
        }
        parser.add_zone(&format!("urlproxy:{name}"), table.zone_bytes, Rc::clone(&table))?;
        main.tables.push(table);
        Ok(())
    }
}

/// Applies one directive of the block.
fn apply_entry(options: &mut TableOptions, words: &[&str]) -> Result<(), ConfigError> {
    let (name, args) = words.split_first().unwrap_or((&"", &[]));
    let Some((_, apply)) = ENTRIES.iter().find(|(known, _)| known == name) else {
        let known: Vec<_> = ENTRIES.iter().map(|(known, _)| *known).collect();
        let (name, known) = (name.as_bytes().escape_ascii(), known.join(", "));
        return Err(format!("unknown directive \"{name}\" in \"urlproxy_table\", expected one of {known}").into());
    };
    Ok(apply(options, args)?)
}
