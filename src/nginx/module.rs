//! What nginx knows of this module: its directives, its configuration levels, its hooks.

use std::cell::OnceCell;
use std::ffi::{c_char, c_void};
use std::ptr;

use nginx_sys::{
    NGX_CONF_1MORE, NGX_CONF_BLOCK, NGX_CONF_TAKE1, NGX_HTTP_LIF_CONF, NGX_HTTP_LMT_CONF, NGX_HTTP_LOC_CONF,
    NGX_HTTP_LOC_CONF_OFFSET, NGX_HTTP_MAIN_CONF, NGX_HTTP_MAIN_CONF_OFFSET, NGX_HTTP_MODULE, NGX_HTTP_SIF_CONF,
    NGX_HTTP_SRV_CONF, NGX_HTTP_UPS_CONF, ngx_command_t, ngx_conf_parse, ngx_conf_t, ngx_http_handler_pt,
    ngx_http_module_t, ngx_http_phases_NGX_HTTP_ACCESS_PHASE, ngx_http_phases_NGX_HTTP_LOG_PHASE,
    ngx_http_phases_NGX_HTTP_PRECONTENT_PHASE, ngx_http_set_complex_value_slot, ngx_http_upstream_srv_conf_t,
    ngx_int_t, ngx_module_t, ngx_str_t, ngx_uint_t,
};
use ngx::core::Status;
use ngx::http::{HttpModule, HttpModuleLocationConf, HttpModuleMainConf, NgxHttpCoreModule};
use ngx::ngx_string;

use super::directive::{self, CONF_ERROR, CONF_OK, DirectiveError, command};
use super::guard::guarded;
use super::indices::IndicesInUse;
use super::keepalive::Keepalive;
use super::location_conf::{LocationConf, Urlproxy, UrlproxyCanonical, UrlproxyDefault, UrlproxyList, UrlproxyMiss};
use super::loop_mark::UrlproxyLoopMark;
use super::peers::Upstream;
use super::proxy_conf::ProxyModule;
use super::table_conf::{ENTRIES, TableConf, TableOptions};
use super::{checks, list, phases, pool, process, upstream, variables, zone};

/// Names the module's types to the accessors of its configuration.
pub(super) struct Module;

/// All tables of a configuration.
#[derive(Default)]
pub(super) struct MainConf {
    #[expect(clippy::vec_box, reason = "locations and zones keep references, which must survive the next push")]
    tables: Vec<Box<TableConf>>,
    #[expect(clippy::vec_box, reason = "requests keep references, which must survive the next push")]
    upstreams: Vec<Box<Upstream>>,
    /// Looked for when the first location is checked.
    pub proxy: OnceCell<Option<ProxyModule>>,
    #[expect(dead_code, reason = "kept for its end: then the module's indices are free")]
    indices: IndicesInUse,
}

impl MainConf {
    /// The tables of the configuration.
    pub fn tables(&'static self) -> impl Iterator<Item = &'static TableConf> {
        self.tables.iter().map(AsRef::as_ref)
    }

    /// Adds an upstream with `urlproxy_peers`.
    pub fn add_upstream(&mut self, upstream: Upstream) {
        self.upstreams.push(Box::new(upstream));
    }

    /// What this module has of an upstream with `urlproxy_peers`.
    pub fn upstream(&self, conf: *const ngx_http_upstream_srv_conf_t) -> Option<&Upstream> {
        self.upstreams.iter().map(AsRef::as_ref).find(|upstream| ptr::eq(upstream.conf, conf))
    }

    /// The same, while the configuration is read.
    pub fn upstream_mut(&mut self, conf: *const ngx_http_upstream_srv_conf_t) -> Option<&mut Upstream> {
        self.upstreams.iter_mut().map(AsMut::as_mut).find(|upstream| ptr::eq(upstream.conf, conf))
    }

    /// Whether an upstream has `urlproxy_peers`.
    pub fn has_upstream(&self, conf: *const ngx_http_upstream_srv_conf_t) -> bool {
        self.upstream(conf).is_some()
    }

    /// Whether any upstream has `urlproxy_peers`.
    pub fn has_upstreams(&self) -> bool {
        !self.upstreams.is_empty()
    }

    /// What keeps connections.
    pub fn keepalives(&self) -> impl Iterator<Item = &Keepalive> {
        self.upstreams.iter().filter_map(|upstream| upstream.keepalive.as_deref())
    }

    /// Warns of upstreams that keep more connections than workers can spare.
    pub fn check_connections(&self, worker_connections: usize, warn: impl Fn(&str)) {
        let kept: usize = self.keepalives().map(Keepalive::most).sum();
        if kept > worker_connections / 2 {
            warn(&format!(
                "\"urlproxy_keepalive\" of all upstreams keeps {kept} connections, more than half of {worker_connections} \
                 worker_connections, expected e.g. \"worker_connections {0};\" and \"worker_rlimit_nofile {1};\"",
                4 * kept,
                8 * kept
            ));
        }
    }

    fn find(&'static self, name: &str) -> Option<&'static TableConf> {
        self.tables().find(|table| table.name == name)
    }
}

impl HttpModule for Module {
    fn module() -> &'static ngx_module_t {
        let module = &raw const ngx_http_urlproxy_module;
        // SAFETY: nginx fills in the indices while it loads the module, and nothing after that.
        unsafe { &*module }
    }
}

// SAFETY: `create_main_conf` below makes this type.
unsafe impl HttpModuleMainConf for Module {
    type MainConf = MainConf;
}

// SAFETY: `create_loc_conf` below makes this type.
unsafe impl HttpModuleLocationConf for Module {
    type LocationConf = LocationConf;
}

const LEVELS: u32 = NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF;
/// Blocks inside a server or a location: `if`, `limit_except`.
const BLOCKS: u32 = NGX_HTTP_SIF_CONF | NGX_HTTP_LIF_CONF | NGX_HTTP_LMT_CONF;

static mut COMMANDS: [ngx_command_t; 11] = [
    ngx_command_t {
        name: ngx_string!("urlproxy_table"),
        type_: (NGX_HTTP_MAIN_CONF | NGX_CONF_BLOCK | NGX_CONF_TAKE1) as ngx_uint_t,
        set: Some(urlproxy_table),
        conf: NGX_HTTP_MAIN_CONF_OFFSET,
        offset: 0,
        post: ptr::null_mut(),
    },
    ngx_command_t {
        name: ngx_string!("urlproxy"),
        type_: (LEVELS | BLOCKS | NGX_CONF_1MORE) as ngx_uint_t,
        set: Some(urlproxy),
        conf: NGX_HTTP_LOC_CONF_OFFSET,
        offset: 0,
        post: ptr::null_mut(),
    },
    command::<UrlproxyDefault>(ngx_string!("urlproxy_default"), LEVELS | NGX_CONF_1MORE, NGX_HTTP_LOC_CONF_OFFSET),
    command::<UrlproxyCanonical>(ngx_string!("urlproxy_canonical"), LEVELS | NGX_CONF_1MORE, NGX_HTTP_LOC_CONF_OFFSET),
    ngx_command_t {
        name: ngx_string!("urlproxy_hash"),
        type_: (LEVELS | NGX_CONF_TAKE1) as ngx_uint_t,
        set: Some(ngx_http_set_complex_value_slot),
        conf: NGX_HTTP_LOC_CONF_OFFSET,
        offset: std::mem::offset_of!(LocationConf, hash),
        post: ptr::null_mut(),
    },
    command::<UrlproxyMiss>(ngx_string!("urlproxy_miss"), LEVELS | NGX_CONF_1MORE, NGX_HTTP_LOC_CONF_OFFSET),
    command::<UrlproxyLoopMark>(ngx_string!("urlproxy_loop_mark"), LEVELS | NGX_CONF_1MORE, NGX_HTTP_LOC_CONF_OFFSET),
    command::<UrlproxyList>(ngx_string!("urlproxy_list"), NGX_HTTP_LOC_CONF | NGX_CONF_1MORE, NGX_HTTP_LOC_CONF_OFFSET),
    ngx_command_t {
        name: ngx_string!("urlproxy_peers"),
        type_: (NGX_HTTP_UPS_CONF | nginx_sys::NGX_CONF_ANY) as ngx_uint_t,
        set: Some(upstream::urlproxy_peers),
        conf: 0,
        offset: 0,
        post: ptr::null_mut(),
    },
    ngx_command_t {
        name: ngx_string!("urlproxy_keepalive"),
        type_: (NGX_HTTP_UPS_CONF | nginx_sys::NGX_CONF_ANY) as ngx_uint_t,
        set: Some(upstream::urlproxy_keepalive),
        conf: 0,
        offset: 0,
        post: ptr::null_mut(),
    },
    ngx_command_t::empty(),
];

static CONTEXT: ngx_http_module_t = ngx_http_module_t {
    preconfiguration: Some(preconfiguration),
    postconfiguration: Some(postconfiguration),
    create_main_conf: Some(Module::create_main_conf),
    init_main_conf: None,
    create_srv_conf: None,
    merge_srv_conf: None,
    create_loc_conf: Some(Module::create_loc_conf),
    merge_loc_conf: Some(merge_loc_conf),
};

ngx::ngx_modules!(ngx_http_urlproxy_module);

/// The module, under the name that `load_module` reports.
#[allow(non_upper_case_globals)]
pub(super) static mut ngx_http_urlproxy_module: ngx_module_t = ngx_module_t {
    ctx: (&raw const CONTEXT).cast_mut().cast(),
    commands: (&raw mut COMMANDS).cast(),
    type_: NGX_HTTP_MODULE as ngx_uint_t,
    init_module: Some(process::init_module),
    init_process: Some(process::init_process),
    exit_process: Some(process::exit_process),
    ..ngx_module_t::default()
};

unsafe extern "C" fn preconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    guarded(Status::NGX_ERROR.0, || {
        // SAFETY: nginx calls this with its parser, before it reads the http block.
        unsafe { variables::add(cf) }.map_or(Status::NGX_ERROR.0, |()| Status::NGX_OK.0)
    })
}

/// The configuration in force, if it has this module.
///
/// # Safety
/// `cf` is nginx's parser.
unsafe fn former_conf(cf: *mut ngx_conf_t) -> Option<&'static MainConf> {
    // SAFETY: the caller's promise.
    let cycle = unsafe { (*cf).cycle };
    // SAFETY: a configuration is read for a cycle.
    let former = unsafe { (*cycle).old_cycle };
    // SAFETY: nginx keeps the cycle in force until this one is.
    let former = unsafe { former.as_ref() }.filter(|former| !former.conf_ctx.is_null() && !former.modules.is_null())?;
    // A module that was not loaded then has no place in what that cycle has for each.
    // SAFETY: a cycle has an array of so many modules.
    let modules = unsafe { std::slice::from_raw_parts(former.modules, former.modules_n) };
    let ours: *const ngx_module_t = Module::module();
    if modules.iter().any(|&module| module.cast_const() == ours) { Module::main_conf(former) } else { None }
}

/// Finds for each table the one whose routes it goes on with: of the same name, or else, renamed, of the same source.
fn find_predecessors(main: &'static MainConf, former: &'static MainConf) {
    for table in main.tables() {
        let is_renamed =
            |former: &&TableConf| former.settings.source == table.settings.source && main.find(&former.name).is_none();
        let predecessor = former.find(&table.name).or_else(|| former.tables().find(is_renamed));
        table.predecessor.set(predecessor.and_then(|former| former.table.get().copied()));
        table.is_new_source.set(predecessor.is_some_and(|former| former.settings.source != table.settings.source));
    }
}

unsafe extern "C" fn postconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    let phases: [(u32, ngx_http_handler_pt); 3] = [
        (ngx_http_phases_NGX_HTTP_ACCESS_PHASE, Some(phases::access)),
        (ngx_http_phases_NGX_HTTP_PRECONTENT_PHASE, Some(phases::before_content)),
        (ngx_http_phases_NGX_HTTP_LOG_PHASE, Some(phases::count)),
    ];
    guarded(Status::NGX_ERROR.0, || {
        // SAFETY: nginx calls this with its parser, once the http block is read.
        let Some(core) = NgxHttpCoreModule::main_conf_mut(unsafe { &*cf }) else { return Status::NGX_ERROR.0 };
        // SAFETY: nginx passes its parser.
        if let (Some(main), Some(former)) = (Module::main_conf(unsafe { &*cf }), unsafe { former_conf(cf) }) {
            find_predecessors(main, former);
        }
        for (phase, handler) in phases {
            let Some(phase) = core.phases.get_mut(phase as usize) else { return Status::NGX_ERROR.0 };
            // SAFETY: the phase's handlers are an array of this type.
            let pushed = unsafe { pool::push::<ngx_http_handler_pt>(&raw mut phase.handlers, handler) };
            if pushed.is_none() {
                return Status::NGX_ERROR.0;
            }
        }
        // nginx calls a phase's handlers from the last to the first: this one after `try_files`, which changes the URI.
        if let Some(phase) = core.phases.get_mut(ngx_http_phases_NGX_HTTP_PRECONTENT_PHASE as usize) {
            // SAFETY: as above, and nobody else is at it now.
            unsafe { phase.handlers.as_slice_mut::<ngx_http_handler_pt>() }.rotate_right(1);
        }
        Status::NGX_OK.0
    })
}

unsafe extern "C" fn merge_loc_conf(cf: *mut ngx_conf_t, above: *mut c_void, conf: *mut c_void) -> *mut c_char {
    guarded(CONF_ERROR, || {
        // SAFETY: nginx passes two levels that `create_loc_conf` made.
        let above = unsafe { &*above.cast::<LocationConf>() };
        // SAFETY: as above.
        let conf = unsafe { &mut *conf.cast::<LocationConf>() };
        // SAFETY: nginx passes its parser.
        let parser = unsafe { &*cf };
        let main = Module::main_conf(parser);
        let Some(core) = NgxHttpCoreModule::location_conf_mut(parser) else { return CONF_ERROR };
        if let Err(error) = conf.merge(above, core.noname() != 0, |name| main.and_then(|main| main.find(name))) {
            // SAFETY: as above.
            return unsafe { directive::refuse(cf, &error) };
        }
        if let Some(main) = main {
            // SAFETY: nginx passes its parser, and this module comes after nginx's own.
            unsafe { checks::warn(cf, main, conf) };
        }
        if conf.list.is_some() {
            core.handler = Some(list::list);
        }
        CONF_OK
    })
}

/// `urlproxy ...;`, where a request can be passed on.
unsafe extern "C" fn urlproxy(cf: *mut ngx_conf_t, command: *mut ngx_command_t, conf: *mut c_void) -> *mut c_char {
    guarded(CONF_ERROR, || {
        // SAFETY: nginx passes its parser.
        let level = unsafe { (*cf).cmd_type };
        if level & (NGX_HTTP_LOC_CONF | NGX_HTTP_LIF_CONF) as ngx_uint_t == 0 {
            let text = "\"urlproxy\" is allowed where \"proxy_pass\" is, in a location or an \"if\" in one, \
                        e.g. \"location / { urlproxy tools path; proxy_pass $urlproxy_scheme://tools; }\"";
            // SAFETY: as above.
            return unsafe { directive::refuse(cf, &DirectiveError::Other(text.into())) };
        }
        // SAFETY: nginx has passed all that it passes to a directive.
        unsafe { directive::set::<Urlproxy>(cf, command, conf) }
    })
}

/// `urlproxy_table NAME { ... }`
unsafe extern "C" fn urlproxy_table(cf: *mut ngx_conf_t, _: *mut ngx_command_t, conf: *mut c_void) -> *mut c_char {
    guarded(CONF_ERROR, || {
        // SAFETY: nginx passes its parser.
        let parser = unsafe { &mut *cf };
        // SAFETY: nginx passes what `create_main_conf` made.
        let main = unsafe { &mut *conf.cast::<MainConf>() };
        // SAFETY: as above.
        let words = unsafe { directive::words(cf) };
        let name = words.get(1).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default().to_owned();
        let refuse = |error| {
            // SAFETY: as above.
            unsafe { directive::refuse(cf, &error) }
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || !name.chars().all(plain) {
            let (directive, what, example) = ("urlproxy_table", "name", "urlproxy_table tools { ... }");
            return refuse(DirectiveError::Invalid { directive, what, value: name, example });
        }
        if main.tables.iter().any(|table| table.name == name) {
            return refuse(DirectiveError::Other(format!("\"urlproxy_table {name}\" is duplicate")));
        }
        let mut options = TableOptions::default();
        let saved = (parser.handler, parser.handler_conf);
        parser.handler = Some(table_entry);
        parser.handler_conf = (&raw mut options).cast();
        // SAFETY: nginx passed its parser, standing behind the opening brace.
        let outcome = unsafe { ngx_conf_parse(cf, ptr::null_mut()) };
        (parser.handler, parser.handler_conf) = saved;
        if outcome != CONF_OK {
            return outcome;
        }
        let table = match options.into_conf(&name) {
            Ok(table) => Box::new(table),
            Err(error) => return refuse(error),
        };
        let snapshot_of = |table: &TableConf| table.settings.snapshot.as_ref().map(|snapshot| snapshot.path.clone());
        if let Some(path) = snapshot_of(&table)
            && let Some(other) = main.tables.iter().find(|other| snapshot_of(other).as_ref() == Some(&path))
        {
            let (path, other) = (path.display(), &other.name);
            return refuse(DirectiveError::Other(format!(
                "\"snapshot\" \"{path}\" is that of \"urlproxy_table {other}\" already, expected a file for each table"
            )));
        }
        // SAFETY: as above; the box keeps the table where it is as long as the configuration.
        if unsafe { zone::request(cf, &table) }.is_none() {
            return CONF_ERROR;
        }
        main.tables.push(table);
        CONF_OK
    })
}

/// One directive inside the block.
unsafe extern "C" fn table_entry(cf: *mut ngx_conf_t, _: *mut ngx_command_t, conf: *mut c_void) -> *mut c_char {
    guarded(CONF_ERROR, || {
        // SAFETY: `urlproxy_table` passed its options, and waits.
        let options = unsafe { &mut *conf.cast::<TableOptions>() };
        // SAFETY: nginx passes its parser, with the words of the directive.
        let name = unsafe { directive::words(cf) }.first().copied().unwrap_or_default();
        // SAFETY: as above.
        unsafe {
            directive::apply(cf, |args| match ENTRIES.iter().find(|(known, _)| known.as_bytes() == name) {
                Some((_, apply)) => apply(options, args),
                None => {
                    let known: Vec<_> = ENTRIES.iter().map(|(known, _)| *known).collect();
                    let (name, known) = (name.escape_ascii(), known.join(", "));
                    Err(DirectiveError::Other(format!(
                        "unknown directive \"{name}\" in \"urlproxy_table\", expected one of {known}"
                    )))
                }
            })
        }
    })
}

/// A name that nginx shows for the zone of a table.
pub(super) fn zone_name(cf: &ngx_conf_t, table: &str) -> Option<ngx_str_t> {
    let name = format!("urlproxy:{table}");
    // SAFETY: the configuration's pool outlives whoever gets the name.
    unsafe { pool::copy(cf.pool, name.as_bytes()) }.map(pool::string)
}

#[cfg(test)]
mod tests {
    use super::super::directive::Directive;
    use super::*;

    /// The names in the table of directives. Read from this file: a test that refers to the table itself would need
    /// all of nginx to link.
    fn directive_names() -> Vec<&'static str> {
        let table = include_str!("module.rs").split("static mut COMMANDS").nth(1).unwrap();
        let table = table.split("ngx_command_t::empty()").next().unwrap();
        let outer = table.split("ngx_string!(\"").skip(1).filter_map(|rest| rest.split('"').next());
        outer.chain(ENTRIES.iter().map(|(name, _)| *name)).collect()
    }

    #[test]
    fn the_reference_has_every_directive_and_no_other() {
        let readme = include_str!("../../README.md");
        let described: Vec<_> = readme
            .lines()
            .filter_map(|line| line.strip_prefix("**Syntax:** `"))
            .filter_map(|line| line.split([' ', ';', '`']).next())
            .collect();
        let (mut names, mut described) = (directive_names(), described);
        names.sort_unstable();
        described.sort_unstable();
        assert_eq!(names, described);
    }

    #[test]
    fn the_table_of_directives_agrees_with_the_types() {
        let names = directive_names();
        for name in [
            Urlproxy::NAME,
            UrlproxyDefault::NAME,
            UrlproxyCanonical::NAME,
            UrlproxyMiss::NAME,
            UrlproxyList::NAME,
            UrlproxyLoopMark::NAME,
        ] {
            assert!(names.contains(&name), "{name}");
        }
    }
}
