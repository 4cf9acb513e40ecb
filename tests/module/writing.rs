//! Writers' scripts and commands against a real Redis, as each program uses them.

use urlproxy::registry::{
    self, Applied, Claim, ClaimOutcome, GridRoute, LockReply, Ownership, Registered, Registration, ToolChanges,
};
use urlproxy::route::ToolName;

use crate::support::redis::RedisServer;

fn connect(redis: &RedisServer) -> redis::Connection {
    redis::Client::open(redis.url()).unwrap().get_connection().unwrap()
}

fn tool(name: &str) -> ToolName {
    ToolName::try_new(name.as_bytes()).unwrap()
}

#[test]
fn an_operator_sets_and_deletes_redirects() {
    let redis = RedisServer::start(&[]);
    let mut connection = connect(&redis);
    registry::set_redirect(&tool("a"), "/x", "a.example.org").exec(&mut connection).unwrap();
    registry::set_redirect(&tool("a"), "/y", "a.example.org").exec(&mut connection).unwrap();
    registry::delete_redirect(&tool("a"), "/y").exec(&mut connection).unwrap();
    assert_eq!(redis.cli(&["HGETALL", "redirect:a"]), "/x\na.example.org");
}

#[test]
fn domains_are_written_compared_and_found() {
    let redis = RedisServer::start(&[]);
    let mut connection = connect(&redis);
    let backends = ["http://10.0.0.1:1", "http://10.0.0.1:2"].map(str::to_owned);
    let mut transaction = redis::pipe();
    registry::write_frontend(&mut transaction, "a.org", &backends);
    transaction.exec(&mut connection).unwrap();
    redis.cli(&["SET", "prefix:a", "x"]);
    let mut pipeline = redis::pipe();
    registry::compare_frontend(&mut pipeline, "a.org", &[backends[1].clone(), "http://10.0.0.1:3".into()]);
    let (has, count): (Vec<u8>, u64) = pipeline.query(&mut connection).unwrap();
    assert_eq!((has, count), (vec![1, 0], 2));
    let (_, found): (u64, Vec<String>) = registry::scan_frontends(0, 1000).query(&mut connection).unwrap();
    assert_eq!(found, ["frontend:a.org"]);
}

#[test]
fn a_repaired_index_evicts_only_for_a_proven_owner() {
    let redis = RedisServer::start(&[]);
    let mut connection = connect(&redis);
    let url = "http://10.0.0.1:8000";
    // As old writers register: without the index.
    for name in ["prefix:old", "prefix:new"] {
        redis.cli(&["HSET", name, ".*", url]);
    }
    let route = |name: &str| GridRoute {
        tool: tool(name),
        pattern: ".*".into(),
        url: url.into(),
        backend: url.parse().unwrap(),
        origin: String::new(),
        registrant: None,
    };
    let done = |evicted: Option<&str>| Registration::Done { evicted: evicted.map(str::to_owned), is_new: false };
    for (name, ownership, want) in [
        ("old", Ownership::Unproven, done(None)),
        ("new", Ownership::Unproven, Registration::AddressHeld("old".into())),
        ("new", Ownership::Proven, done(Some("old"))),
    ] {
        assert_eq!(registry::index_address(&route(name), ownership).invoke(&mut connection).unwrap(), want, "{name}");
    }
    assert_eq!(
        (redis.cli(&["EXISTS", "prefix:old"]), redis.cli(&["HGET", "addresses", "10.0.0.1:8000"])),
        ("0".into(), "new".into())
    );
}

#[test]
fn claims_are_written_once_by_the_holder_of_the_lock() {
    let redis = RedisServer::start(&[]);
    let mut connection = connect(&redis);
    let taken = registry::beat_lock("me", None, true, 60_000).invoke(&mut connection).unwrap();
    let LockReply::Taken(lock) = taken else { panic!("{taken:?}") };
    let service = Registered::parse("tool-a/a/.*").unwrap();
    let url = "http://10.0.0.1:8000";
    let origin = format!(
        r#"{{"source":"kube2proxy","owner":"{}","host":"me","since":1,"destination":"{url}"}}"#,
        service.owner()
    );
    let claims = [Claim {
        pattern: ".*".into(),
        url: url.into(),
        origin,
        owner: service.owner(),
        member: service.to_string(),
        since: 1,
    }];
    let mut apply = |claims: &[Claim], gone: &[&Registered], lock: &str| {
        let (a, gone) = (tool("a"), gone.iter().map(|&gone| gone.clone()).collect::<Vec<_>>());
        let changes = [ToolChanges { tool: &a, claims, gone: &gone }];
        let (_, applied): (redis::Value, Applied) = registry::apply(&changes, lock).query(&mut connection).unwrap();
        applied
    };
    assert_eq!(apply(&claims, &[], "1 other"), Applied::Refused);
    let written = Applied::Done(vec![ClaimOutcome::Written { evicted: None }]);
    assert_eq!(apply(&claims, &[], &lock), written);
    assert_eq!(apply(&claims, &[], &lock), Applied::Done(vec![ClaimOutcome::Unchanged]));
    assert_eq!(redis.cli(&["HGETALL", "prefix:a"]), format!(".*\n{url}"));
    assert_eq!(apply(&[], &[&service], &lock), Applied::Done(vec![]));
    assert_eq!(redis.cli(&["EXISTS", "prefix:a", "origin:a", "k8s_services"]), "0");
}

#[test]
fn changes_of_keys_with_a_prefix_are_asked_for() {
    let redis = RedisServer::start(&[]);
    let mut connection = connect(&redis);
    registry::track_keys("frontend:").exec(&mut connection).unwrap();
    let mut question = redis::cmd("CLIENT");
    let info: Vec<redis::Value> = question.arg("TRACKINGINFO").query(&mut connection).unwrap();
    let [_, flags, _, _, _, prefixes] = &info[..] else { panic!("{info:?}") };
    let texts = |value: &redis::Value| redis::from_redis_value::<Vec<String>>(value.clone()).unwrap();
    assert_eq!((texts(flags).join(" "), texts(prefixes).join(" ")), ("on bcast noloop".into(), "frontend:".into()));
}
