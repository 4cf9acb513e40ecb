//! The address index with a real Redis: an address belongs to at most one tool, the last one with proven ownership.

use std::net::IpAddr;

use urlproxy::registry::{self, Origin, Ownership, Registration, Withdrawal};
use urlproxy::route::{Backend, MAX_ROUTES, Pattern, ToolName};

use crate::support::redis::RedisServer;

const ADDRESS: &str = "10.0.0.1:8000";

struct Store {
    redis: RedisServer,
    connection: redis::Connection,
}

impl Store {
    fn start() -> Self {
        let redis = RedisServer::start(&[]);
        let connection = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
        Self { redis, connection }
    }

    fn register(&mut self, name: &str, pattern: &str, url: &str, ownership: Ownership) -> Registration {
        let call = registry::register(&tool(name), &any(pattern), &backend(url), None, &origin(name), ownership);
        ignoring_new(call.unwrap().invoke(&mut self.connection).unwrap())
    }

    fn renew(&mut self, name: &str, url: &str, canonical: Option<&str>) -> Registration {
        let call = registry::renew(&tool(name), &any(".*"), &backend(url), canonical, &origin(name)).unwrap();
        ignoring_new(call.invoke(&mut self.connection).unwrap())
    }

    fn unregister(&mut self, name: &str, hosts: &[&str]) -> Withdrawal {
        let hosts: Vec<IpAddr> = hosts.iter().map(|host| host.parse().unwrap()).collect();
        registry::unregister_if_from(&tool(name), ".*", &hosts).invoke(&mut self.connection).unwrap()
    }

    fn unregister_url(&mut self, name: &str, pattern: &str, url: &str) -> Withdrawal {
        registry::unregister_url(&tool(name), pattern, &backend(url)).invoke(&mut self.connection).unwrap()
    }

    fn route(&self, name: &str) -> String {
        self.redis.cli(&["HGET", &format!("prefix:{name}"), ".*"])
    }

    fn holder(&self, address: &str) -> String {
        self.redis.cli(&["HGET", "addresses", address])
    }
}

fn tool(name: &str) -> ToolName {
    ToolName::try_new(name.as_bytes()).unwrap()
}

fn any(pattern: &str) -> Pattern {
    Pattern::try_new(pattern).unwrap()
}

fn backend(url: &str) -> Backend {
    url.parse().unwrap()
}

fn origin(name: &str) -> Origin {
    let (source, owner, host) = ("proxylistener".into(), format!("tools.{name}"), "10.0.0.1".into());
    Origin { source, owner, host, since: 1, destination: None }
}

fn url(address: &str) -> String {
    format!("http://{address}")
}

/// Ignores whether the route is new, which most tests do not care about.
fn ignoring_new(registration: Registration) -> Registration {
    match registration {
        Registration::Done { evicted, .. } => Registration::Done { evicted, is_new: true },
        other => other,
    }
}

fn done() -> Registration {
    Registration::Done { evicted: None, is_new: true }
}

#[test]
fn proven_registrations_evict_and_unproven_ones_do_not() {
    let mut store = Store::start();
    let url = url(ADDRESS);
    assert_eq!(store.register("old", ".*", &url, Ownership::Unproven), done());
    assert_eq!(store.register("old", "/api", &url, Ownership::Unproven), done());
    assert_eq!(store.register("old", "/else", "http://10.0.0.1:9000", Ownership::Unproven), done());
    store.redis.cli(&["HSET", "redirect:old", ".*", "old.example.org"]);
    assert_eq!(store.register("new", ".*", &url, Ownership::Unproven), Registration::AddressHeld("old".into()));
    assert_eq!((store.route("new"), store.holder(ADDRESS)), (String::new(), "old".into()));
    // HTTPS at the same address is the same server.
    let evicted = Registration::Done { evicted: Some("old".into()), is_new: true };
    assert_eq!(store.register("new", ".*", "https://10.0.0.1:8000", Ownership::Proven), evicted);
    assert_eq!(store.redis.cli(&["HGETALL", "prefix:old"]), "/else\nhttp://10.0.0.1:9000");
    assert_eq!(store.redis.cli(&["HKEYS", "origin:old"]), "/else");
    assert_eq!(store.redis.cli(&["EXISTS", "redirect:old"]), "0");
    assert_eq!((store.holder(ADDRESS), store.holder("10.0.0.1:9000")), ("new".into(), "old".into()));
    assert_eq!(store.register("new", ".*", &url, Ownership::Unproven), done(), "its own address");
}

#[test]
fn index_entries_without_a_route_do_not_count() {
    let mut store = Store::start();
    let url = url(ADDRESS);
    assert_eq!(store.register("gone", ".*", &url, Ownership::Proven), done());
    // Old writers do not maintain the index.
    store.redis.cli(&["DEL", "prefix:gone"]);
    assert_eq!(store.register("new", ".*", &url, Ownership::Unproven), done());
    assert_eq!(store.holder(ADDRESS), "new");
    // URLs need not be normalized.
    store.redis.cli(&["HSET", "prefix:new", ".*", "HTTP://10.0.0.1:08000/"]);
    assert_eq!(store.register("late", ".*", &url, Ownership::Unproven), Registration::AddressHeld("new".into()));
    for (key, kind) in [("addresses", "a string"), ("prefix:new", "a set")] {
        store.redis.cli(&["DEL", key]);
        store.redis.cli(if kind == "a set" { &["SADD", "prefix:new", "x"] } else { &["SET", "addresses", "x"] });
        assert_eq!(store.register("late", ".*", &url, Ownership::Unproven), done(), "{key} is {kind}");
    }
}

#[test]
fn addresses_are_free_after_their_last_route_is_removed() {
    let mut store = Store::start();
    let (first, second) = (url(ADDRESS), "http://10.0.0.2:8000");
    store.register("hello", ".*", &first, Ownership::Proven);
    store.register("hello", "/api", &first, Ownership::Proven);
    assert_eq!(store.unregister_url("hello", "/api", second), Withdrawal::Kept);
    assert_eq!(store.unregister_url("hello", "/none", &first), Withdrawal::Absent);
    assert_eq!(
        (store.unregister_url("hello", "/api", &first), store.holder(ADDRESS)),
        (Withdrawal::Removed, "hello".into())
    );
    assert_eq!(store.register("hello", ".*", second, Ownership::Proven), done(), "the job has moved to another host");
    assert_eq!((store.holder(ADDRESS), store.holder("10.0.0.2:8000")), (String::new(), "hello".into()));
    assert_eq!(store.unregister("hello", &["10.0.0.2"]), Withdrawal::Removed);
    assert_eq!(store.redis.cli(&["EXISTS", "addresses"]), "0");
}

#[test]
fn only_the_host_of_a_route_unregisters_it() {
    let mut store = Store::start();
    store.register("hello", ".*", &url(ADDRESS), Ownership::Proven);
    assert_eq!(store.unregister("hello", &["10.0.0.2", "fd00::2"]), Withdrawal::Kept);
    assert_eq!(store.unregister("none", &["10.0.0.2"]), Withdrawal::Absent);
    // An old listener wrote in between: the origin belongs to the previous route.
    store.redis.cli(&["HSET", "prefix:hello", ".*", "http://10.0.0.2:8000"]);
    assert_eq!(store.unregister("hello", &["10.0.0.1"]), Withdrawal::Kept);
    assert_eq!(store.unregister("hello", &["10.0.0.2"]), Withdrawal::Removed);
    // Without an origin, the backend's host decides if it is an address: a late epilog must not remove a route that the old
    // kube2proxy wrote. A route to a name may be removed from any host, as before.
    store.redis.cli(&["HSET", "prefix:hello", ".*", "http://10.0.0.2:8000"]);
    assert_eq!(store.unregister("hello", &["10.0.0.1"]), Withdrawal::Kept);
    assert_eq!(store.unregister("hello", &["10.0.0.2"]), Withdrawal::Removed);
    store.redis.cli(&["HSET", "prefix:hello", ".*", "http://exec-1:8000"]);
    assert_eq!(store.unregister("hello", &["10.0.0.1"]), Withdrawal::Removed);
    store.register("hello", ".*", &url(ADDRESS), Ownership::Proven);
    assert_eq!(
        store.unregister("hello", &["fd00::1", "10.0.0.1"]),
        Withdrawal::Removed,
        "one of the machine's addresses"
    );
    assert_eq!(store.redis.cli(&["EXISTS", "prefix:hello", "origin:hello", "addresses"]), "0");
    for origin in [r#"{"host":"::ffff:10.0.0.1","destination":"http://10.0.0.9:80"}"#, r#"{"host":"::ffff:10.0.0.1"}"#]
    {
        let at = if origin.contains(".9") { "http://10.0.0.9:80" } else { "http://10.0.0.1:80" };
        store.redis.cli(&["HSET", "prefix:hello", ".*", at]);
        store.redis.cli(&["HSET", "origin:hello", ".*", origin]);
        assert_eq!(store.unregister("hello", &["10.0.0.1"]), Withdrawal::Removed, "{origin}");
    }
}

#[test]
fn renewals_write_only_missing_parts() {
    let mut store = Store::start();
    let url = url(ADDRESS);
    assert_eq!(store.renew("hello", &url, Some("hello.example.org")), done(), "as after FLUSHALL");
    assert_eq!((store.route("hello"), store.holder(ADDRESS)), (url.clone(), "hello".into()));
    assert_eq!(store.redis.cli(&["HGET", "redirect:hello", ".*"]), "hello.example.org");
    let writes = |store: &Store| {
        store.redis.cli(&["INFO", "persistence"]).lines().find(|l| l.starts_with("rdb_changes")).map(str::to_owned)
    };
    store.redis.cli(&["HSET", "origin:hello", ".*", r#"{"host":"10.0.0.1"}"#]);
    let before = writes(&store);
    assert_eq!(store.renew("hello", &url, Some("hello.example.org")), done());
    assert_eq!(writes(&store), before, "nothing to write");
    assert_eq!(store.redis.cli(&["HGET", "origin:hello", ".*"]), r#"{"host":"10.0.0.1"}"#);
    assert_eq!(store.renew("hello", "http://10.0.0.2:8000", None), Registration::Superseded);
    assert_eq!(store.route("hello"), url);
    store.redis.cli(&["HDEL", "addresses", ADDRESS]);
    assert_eq!((store.renew("hello", &url, None), store.holder(ADDRESS)), (done(), "hello".into()));
    assert_eq!(store.redis.cli(&["EXISTS", "redirect:hello"]), "0");
    assert_eq!(store.renew("thief", &url, None), Registration::Done { evicted: Some("hello".into()), is_new: true });
}

#[test]
fn patterns_per_tool_are_limited() {
    let mut store = Store::start();
    for number in 0..MAX_ROUTES {
        assert_eq!(store.register("hello", &format!("/{number}"), &url(ADDRESS), Ownership::Unproven), done());
    }
    assert_eq!(store.register("hello", "/more", &url(ADDRESS), Ownership::Proven), Registration::TooManyPatterns);
    assert_eq!(store.register("hello", "/0", "http://10.0.0.2:1", Ownership::Unproven), done());
}
