//! Who answers a request: the tool or the domain that it is for, else the default.

use nginx_sys::ngx_pool_t;

use super::super::endpoint::{Destination, Endpoint};
use super::super::location_conf::{DefaultRoute, Mode};
use super::super::pool;
use super::super::table_conf::Worker;
use super::{Outcome, RequestRoute};
use crate::route::{Kind, LookupKey, PathRequest, label_below, normal_host, split_path};
use crate::table::{Lookup, Record, Sought, Table};

/// Whom a request is for. Paths live as long as the request, and so does its host.
pub(super) enum Asked {
    Tool(PathRequest<'static>),
    Domain(&'static [u8]),
    /// The host is not one below the domain that has the tools.
    Nobody,
    /// The client named no host.
    NoHost,
}

impl Asked {
    /// `host` is what nginx has made of the request line, `Host` or `:authority`: lower case, without port and trailing dot.
    #[inline(always)]
    pub fn of(mode: &Mode, uri: &'static [u8], host: impl FnOnce() -> &'static [u8]) -> Self {
        if *mode == Mode::Path {
            return Self::Tool(split_path(uri));
        }
        match (mode, host()) {
            (_, b"") => Self::NoHost,
            (Mode::Subdomain(domain), host) => match label_below(host, domain.as_str().as_bytes()) {
                Some(tool) => Self::Tool(PathRequest { tool, rest: uri }),
                None => Self::Nobody,
            },
            (_, host) => Self::Domain(host),
        }
    }
}

/// Whether somebody answers.
#[derive(PartialEq)]
enum Answer {
    Yes,
    No,
    /// The table could not tell.
    Unknown,
}

/// Whether the tool has a `redirect:` key.
enum Redirect {
    Found,
    Absent,
    /// The table does not have all of them: a tool without a route may still have moved.
    Unknown,
    /// The table could not tell.
    Contended,
}

impl RequestRoute {
    /// Finds out who answers: the tool, else the default. `None` only when memory has run out.
    #[inline]
    pub(super) fn look_up(&mut self, pool: *mut ngx_pool_t, asked: &Asked, may_redirect: bool) -> Option<()> {
        // SAFETY: the configuration that routes the request lives longer than it.
        let conf = unsafe { &*self.conf };
        if matches!(asked, Asked::NoHost) {
            self.outcome = Outcome::NoHost;
            return Some(());
        }
        let mut worker = self.table.worker.try_borrow_mut().ok()?;
        let Some(table) = self.table.table.get() else {
            self.outcome = Outcome::Unready;
            return Some(());
        };
        let mut search = Search { pool, table, worker: &mut worker };
        // Before the search: what is loaded meanwhile must not turn "not yet" into "no such tool".
        let kind = if matches!(asked, Asked::Domain(_)) { Kind::Domain } else { Kind::Tool };
        let is_loaded = table.header().knows(kind);
        let mut is_certain = is_loaded;
        let mut answer = match asked {
            Asked::Tool(asked) => {
                let sought = table.sought(LookupKey::tool(asked.tool));
                // What is a part of an answer cannot be sent elsewhere.
                if conf.redirects() && may_redirect {
                    match self.search_redirect(&mut search, &sought) {
                        Redirect::Found => {
                            self.outcome = Outcome::Redirect;
                            return Some(());
                        }
                        Redirect::Absent => {}
                        Redirect::Unknown => is_certain = false,
                        Redirect::Contended => {
                            self.outcome = Outcome::Unready;
                            return Some(());
                        }
                    }
                }
                self.search(&mut search, &sought, asked.rest)?
            }
            Asked::Domain(host) => self.search_domain(&mut search, host)?,
            Asked::Nobody | Asked::NoHost => Answer::No,
        };
        if answer == Answer::No && is_loaded {
            match conf.default_route() {
                DefaultRoute::Off => {}
                DefaultRoute::Tool(tool) => {
                    let sought = table.sought(LookupKey::tool(tool.as_bytes()));
                    answer = self.search_outlined(&mut search, &sought, self.uri)?;
                    if answer == Answer::Yes {
                        self.tool = tool.name();
                        self.outcome = Outcome::Default;
                    }
                }
                DefaultRoute::Backend(backend) => {
                    self.single = Some(Endpoint::of(backend));
                    self.outcome = Outcome::Default;
                    answer = Answer::Yes;
                }
            }
        }
        if answer != Answer::Yes {
            let is_known = answer == Answer::No && is_certain;
            self.outcome = if is_known { Outcome::Miss } else { Outcome::Unready };
        }
        Some(())
    }

    /// Whether the tool has moved.
    #[inline(never)]
    fn search_redirect(&mut self, search: &mut Search<'_>, tool: &Sought<'_>) -> Redirect {
        let Some(redirect) = tool.redirect() else { return Redirect::Absent };
        let is_known = search.table.header().knows(Kind::Redirect);
        match search.table.look_up(&redirect, &mut search.worker.scratch) {
            Lookup::Found(record) => {
                self.counters = search.table.counters(record.counters()).map(|line| (line, line.ticket()));
                Redirect::Found
            }
            Lookup::Absent if is_known => Redirect::Absent,
            Lookup::Absent => Redirect::Unknown,
            Lookup::Contended => Redirect::Contended,
        }
    }

    /// Takes over the backends of a host, or of the wildcard that stands for it.
    #[inline(never)]
    fn search_domain(&mut self, search: &mut Search<'_>, host: &'static [u8]) -> Option<Answer> {
        let Some(normal) = normal_host(host) else { return Some(Answer::No) };
        let table = search.table;
        let mut answer = self.search_outlined(search, &table.sought(LookupKey::domain(&normal)), self.uri)?;
        self.domain = host;
        if answer == Answer::No
            && let Some(key) = LookupKey::wildcard(&normal)
        {
            answer = self.search_outlined(search, &table.sought(key), self.uri)?;
            // SAFETY: the request's pool.
            self.domain = unsafe { pool::copy(search.pool, &[b"*", key.name()].concat()) }?;
        }
        if answer != Answer::Yes {
            self.domain = b"";
        }
        Some(answer)
    }

    /// As [`Self::search`], for whom it need not be inlined.
    #[inline(never)]
    fn search_outlined(&mut self, search: &mut Search<'_>, sought: &Sought<'_>, rest: &[u8]) -> Option<Answer> {
        self.search(search, sought, rest)
    }

    /// Takes over the route of a record, if one of its patterns is found.
    #[inline(always)]
    fn search(&mut self, search: &mut Search<'_>, sought: &Sought<'_>, rest: &[u8]) -> Option<Answer> {
        let table = search.table;
        let record = match table.look_up(sought, &mut search.worker.scratch) {
            Lookup::Found(record) => record,
            Lookup::Absent => return Some(Answer::No),
            Lookup::Contended => return Some(Answer::Unknown),
        };
        self.version = Some(record.version());
        if let Some((scheme, addr)) = record.plain() {
            self.pattern = b".*";
            self.single = Some(Endpoint { scheme, destination: Destination::Addr(addr.into()) });
        } else {
            let answer = self.select(search.pool, &record, rest)?;
            if answer != Answer::Yes {
                return Some(answer);
            }
        }
        self.owner = record.owner();
        self.counters = table.counters(record.counters()).map(|line| (line, line.ticket()));
        Some(Answer::Yes)
    }

    /// Takes over the first of a record's routes whose pattern is found.
    #[inline(never)]
    fn select(&mut self, pool: *mut ngx_pool_t, record: &Record<'_>, rest: &[u8]) -> Option<Answer> {
        let Some(route) = record.select(rest) else {
            if record.routes().next().is_some() {
                self.version = None;
                return Some(Answer::No);
            }
            // A record without any routes is one whose routes are being built. That much is certain.
            return Some(Answer::Unknown);
        };
        // SAFETY: the request's pool.
        self.pattern = unsafe { pool::copy(pool, route.pattern) }?;
        let copied = |backend| Endpoint::copied(pool, backend);
        if route.backend_count == 1 {
            self.single = Some(copied(route.first_backend()?)?);
        } else {
            // SAFETY: the request's pool.
            self.several = unsafe { pool::collect(pool, route.backend_count, route.backends().map(copied)) }?;
            self.due.set(Some(record.counters()));
        }
        Some(Answer::Yes)
    }
}

/// What a search needs.
struct Search<'w> {
    pool: *mut ngx_pool_t,
    table: &'static Table<'static>,
    worker: &'w mut Worker,
}
