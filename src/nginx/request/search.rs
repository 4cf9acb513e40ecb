//! Route lookup: the target tool or domain first, then the default.

use super::endpoint::{Destination, Endpoint};
use super::route::{Outcome, RequestRoute};
use crate::directive::location::{DefaultRoute, Mode};
use crate::nginx::conf::table::Worker;
use crate::nginx::ffi::pool::Pool;
use crate::route::{Kind, LookupKey, MAX_DOMAIN_LEN, PathRequest, label_below, normal_host, split_path};
use crate::table::{HashedKey, Lookup, Record, Table};

/// The tool or domain that a request names.
pub(super) enum Target<'r> {
    Tool(PathRequest<'r>),
    Domain(&'r [u8]),
    /// The host is not directly below the domain of the tools.
    OtherHost,
    /// The request has no host.
    NoHost,
}

impl<'r> Target<'r> {
    /// `host` is nginx's host of the request: lower case, without port and trailing dot.
    #[inline(always)]
    pub fn of(mode: &Mode, path: &'r [u8], host: impl FnOnce() -> &'r [u8]) -> Self {
        if *mode == Mode::Path {
            return Self::Tool(split_path(path));
        }
        match (mode, host()) {
            (_, b"") => Self::NoHost,
            (Mode::Subdomain(domain), host) => match label_below(host, domain.as_str().as_bytes()) {
                Some(tool) => Self::Tool(PathRequest { tool, rest: path }),
                None => Self::OtherHost,
            },
            (_, host) => Self::Domain(host),
        }
    }
}

/// Whether a record has a matching route.
#[derive(PartialEq)]
enum SearchResult {
    Found,
    NotFound,
    /// The read was contended, or the routes are still being built.
    Unknown,
}

/// Whether the tool has a `redirect:` key.
enum Redirect {
    Found,
    Absent,
    /// Redirects are not loaded yet: a tool without a route may still have one.
    Unknown,
    /// The read was contended.
    Contended,
}

/// Observes the steps of a lookup. A request's lookup has `()`, which compiles to nothing.
pub(super) trait Trace {
    /// Records of this kind are not all loaded: what is absent may exist.
    fn unloaded(&mut self, kind: Kind);

    /// A record was looked up, so that a pattern of it is searched in `rest`.
    fn sought(&mut self, key: &HashedKey<'_>, found: &Lookup<'_>, rest: &[u8]);

    /// The read of the tool's redirect was contended.
    fn contended_redirect(&mut self);

    /// A domain that replaces a moved one was looked up.
    fn sought_moved(&mut self, key: &HashedKey<'_>, found: &Lookup<'_>);
}

impl Trace for () {
    #[inline(always)]
    fn unloaded(&mut self, _: Kind) {}

    #[inline(always)]
    fn sought(&mut self, _: &HashedKey<'_>, _: &Lookup<'_>, _: &[u8]) {}

    #[inline(always)]
    fn contended_redirect(&mut self) {}

    #[inline(always)]
    fn sought_moved(&mut self, _: &HashedKey<'_>, _: &Lookup<'_>) {}
}

/// Looks up the target, then the default. `None` only if out of memory.
#[inline]
pub(super) fn look_up<'r>(
    route: &mut RequestRoute<'r>,
    pool: Pool<'r>,
    target: &Target<'r>,
    may_redirect: bool,
    trace: impl Trace,
) -> Option<()> {
    if matches!(target, Target::NoHost) {
        route.outcome = Outcome::NoHost;
        return Some(());
    }
    let conf = route.table;
    let mut worker = conf.worker.try_borrow_mut().ok()?;
    let Some(table) = conf.table.get() else {
        route.outcome = Outcome::Unready;
        return Some(());
    };
    Search { pool, table, worker: &mut worker, route, trace }.run(target, may_redirect)
}

/// One lookup of a request's route.
struct Search<'s, 'r, T> {
    pool: Pool<'r>,
    table: &'s Table<'static>,
    worker: &'s mut Worker,
    /// Receives the result.
    route: &'s mut RequestRoute<'r>,
    trace: T,
}

impl<'r, T: Trace> Search<'_, 'r, T> {
    #[inline(always)]
    fn run(&mut self, target: &Target<'r>, may_redirect: bool) -> Option<()> {
        let (table, conf) = (self.table, self.route.conf);
        // Read before the search: a load that completes meanwhile must not turn "not loaded" into a miss.
        let kind = if matches!(target, Target::Domain(_)) { Kind::Domain } else { Kind::Tool };
        let is_loaded = table.header().knows(kind);
        let mut is_complete = is_loaded;
        if !is_loaded {
            self.trace.unloaded(kind);
        }
        let mut result = match target {
            Target::Tool(path) => {
                let sought = table.hash_key(LookupKey::tool(path.tool));
                // A subrequest cannot redirect the client.
                if conf.options.redirects() && may_redirect {
                    match self.search_redirect(&sought) {
                        Redirect::Found => {
                            self.route.outcome = Outcome::Redirect;
                            return Some(());
                        }
                        Redirect::Absent => {}
                        Redirect::Unknown => {
                            is_complete = false;
                            self.trace.unloaded(Kind::Redirect);
                        }
                        Redirect::Contended => {
                            self.trace.contended_redirect();
                            self.route.outcome = Outcome::Unready;
                            return Some(());
                        }
                    }
                }
                self.search(&sought, path.rest)?
            }
            Target::Domain(host) => self.search_domain(host, is_loaded && may_redirect)?,
            Target::OtherHost | Target::NoHost => SearchResult::NotFound,
        };
        if result == SearchResult::NotFound && is_loaded {
            match conf.options.default_route() {
                DefaultRoute::Off => {}
                DefaultRoute::Tool(tool) => {
                    let sought = table.hash_key(LookupKey::tool(tool.as_bytes()));
                    result = self.search_outlined(&sought, self.route.path)?;
                    if result == SearchResult::Found {
                        self.route.tool = tool.name();
                        self.route.outcome = Outcome::Default;
                    }
                }
                DefaultRoute::Backend(backend) => {
                    self.route.single = Some(Endpoint::of(backend));
                    self.route.outcome = Outcome::Default;
                    result = SearchResult::Found;
                }
            }
        }
        if result != SearchResult::Found {
            let is_known = result == SearchResult::NotFound && is_complete;
            self.route.outcome = if is_known { Outcome::Miss } else { Outcome::Unready };
        }
        Some(())
    }

    /// Looks up the canonical redirect of the tool.
    #[inline(never)]
    fn search_redirect(&mut self, tool: &HashedKey<'_>) -> Redirect {
        let Some(redirect) = tool.redirect() else { return Redirect::Absent };
        let is_known = self.table.header().knows(Kind::Redirect);
        match self.table.lookup_hashed(&redirect, &mut self.worker.scratch) {
            Lookup::Found(record) => {
                self.route.counters = self.table.counters(record.counters()).map(|line| (line, line.ticket()));
                Redirect::Found
            }
            Lookup::Absent if is_known => Redirect::Absent,
            Lookup::Absent => Redirect::Unknown,
            Lookup::Contended => Redirect::Contended,
        }
    }

    /// Looks up the host, then the wildcard of its parent domain; then, if the request may be redirected, both in the domain that
    /// replaces a moved one.
    #[inline(never)]
    fn search_domain(&mut self, host: &'r [u8], may_redirect: bool) -> Option<SearchResult> {
        let Some(normal) = normal_host(host) else { return Some(SearchResult::NotFound) };
        let table = self.table;
        let mut result = self.search_outlined(&table.hash_key(LookupKey::domain(&normal)), self.route.path)?;
        self.route.domain = host;
        if result == SearchResult::NotFound
            && let Some(key) = LookupKey::wildcard(&normal)
        {
            result = self.search_outlined(&table.hash_key(key), self.route.path)?;
            self.route.domain = self.pool.copy(&[b"*", key.name()].concat())?;
        }
        if result != SearchResult::Found {
            self.route.domain = b"";
        }
        if result == SearchResult::NotFound && may_redirect {
            return self.search_moved(host);
        }
        Some(result)
    }

    /// Looks up the host of the same labels below the domain that replaces a moved one, then its wildcard.
    #[inline(never)]
    fn search_moved(&mut self, host: &[u8]) -> Option<SearchResult> {
        let (table, conf) = (self.table, self.route.conf);
        let mut buffer = [0; MAX_DOMAIN_LEN];
        let Some(new) = conf.options.moved_from(host).and_then(|moved| moved.new_host(host, &mut buffer)) else {
            return Some(SearchResult::NotFound);
        };
        for key in [Some(LookupKey::domain(new)), LookupKey::wildcard(new)].into_iter().flatten() {
            let sought = table.hash_key(key);
            let found = table.lookup_hashed(&sought, &mut self.worker.scratch);
            self.trace.sought_moved(&sought, &found);
            match found {
                Lookup::Found(record) => {
                    let (_, domain) = Kind::split(record.key());
                    self.route.domain = self.pool.copy(domain)?;
                    self.route.counters = table.counters(record.counters()).map(|line| (line, line.ticket()));
                    self.route.outcome = Outcome::Moved;
                    return Some(SearchResult::Found);
                }
                Lookup::Absent => {}
                Lookup::Contended => return Some(SearchResult::Unknown),
            }
        }
        Some(SearchResult::NotFound)
    }

    /// [`Self::search`], not inlined: for the less frequent callers.
    #[inline(never)]
    fn search_outlined(&mut self, sought: &HashedKey<'_>, rest: &[u8]) -> Option<SearchResult> {
        self.search(sought, rest)
    }

    /// Looks up a record and stores the first route whose pattern matches.
    #[inline(always)]
    fn search(&mut self, sought: &HashedKey<'_>, rest: &[u8]) -> Option<SearchResult> {
        let table = self.table;
        let found = table.lookup_hashed(sought, &mut self.worker.scratch);
        self.trace.sought(sought, &found, rest);
        let record = match found {
            Lookup::Found(record) => record,
            Lookup::Absent => return Some(SearchResult::NotFound),
            Lookup::Contended => return Some(SearchResult::Unknown),
        };
        self.route.version = Some(record.version());
        if let Some((scheme, addr)) = record.plain() {
            self.route.pattern = b".*";
            self.route.single = Some(Endpoint { scheme, destination: Destination::Addr(addr.into()) });
        } else {
            let result = select(self.route, self.pool, &record, rest)?;
            if result != SearchResult::Found {
                return Some(result);
            }
        }
        self.route.owner = record.owner();
        self.route.counters = table.counters(record.counters()).map(|line| (line, line.ticket()));
        Some(SearchResult::Found)
    }
}

/// Stores the first route of a record whose pattern matches.
#[inline(never)]
fn select<'r>(found: &mut RequestRoute<'r>, pool: Pool<'r>, record: &Record<'_>, rest: &[u8]) -> Option<SearchResult> {
    let Some(route) = record.select(rest) else {
        if record.routes().next().is_some() {
            found.version = None;
            return Some(SearchResult::NotFound);
        }
        // A record without routes is one whose routes are still being built; its version stays valid.
        return Some(SearchResult::Unknown);
    };
    found.pattern = pool.copy(route.pattern)?;
    let copied = |backend| Endpoint::copied(pool, backend);
    if route.backend_count == 1 {
        found.single = Some(copied(route.first_backend()?)?);
    } else {
        found.several = pool.collect(route.backend_count, route.backends().map(copied))?;
        found.pending_turn.set(Some(record.counters()));
    }
    Some(SearchResult::Found)
}
