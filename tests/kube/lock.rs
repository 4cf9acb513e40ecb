//! Several replicas on one Redis: a lock in it elects the one that writes.

use redis::FromRedisValue;
use urlproxy::registry::{Applied, Claim, ClaimOutcome, LockReply, ToolChanges, apply, beat_lock, release_lock};
use urlproxy::route::ToolName;

use crate::api_server::{ApiServer, web_service};
use crate::kube2proxy::{Kube2proxy, members, url_of};
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

fn cluster() -> (ApiServer, RedisServer) {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    api.apply("hello", "hello", web_service("10.96.0.1", 80));
    (api, redis)
}

fn lock(redis: &RedisServer) -> String {
    redis.cli(&["GET", "k8s_lock"])
}

fn number(lock: &str) -> u64 {
    lock.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no number in {lock:?}"))
}

fn leads(replica: &Kube2proxy) -> bool {
    replica.metric("kube2proxy_leading") == 1.0
}

fn change(api: &ApiServer, redis: &RedisServer, port: u16) {
    api.apply("hello", "hello", web_service("10.96.0.1", port));
    wait_for("a change", || url_of(redis, "hello") == format!("http://10.96.0.1:{port}"));
}

#[test]
fn one_replica_leads_and_another_takes_over() {
    let (api, redis) = cluster();
    let mut first = Kube2proxy::start(&api, &redis, &[]);
    let mut second = Kube2proxy::start(&api, &redis, &[]);
    second.daemon.wait_for_line(&["INFO", "standing by"]);
    assert!(leads(&first) && !leads(&second) && first.is_ready());
    let held = lock(&redis);
    for port in 81..90 {
        change(&api, &redis, port);
        assert_eq!(lock(&redis), held, "the leader does not change");
    }
    // Shutdown releases the lock.
    first.daemon.signal("TERM");
    assert_eq!(first.daemon.wait_for_end(), 0);
    wait_for("the second leads", || leads(&second));
    assert!(number(&lock(&redis)) > number(&held));
    change(&api, &redis, 90);
    // Killed: the lock expires.
    let third = Kube2proxy::start(&api, &redis, &[]);
    assert!(!leads(&third));
    second.daemon.signal("KILL");
    let _ = second.daemon.wait_for_end();
    api.apply("hello", "hello", web_service("10.96.0.1", 91));
    wait_for("the third leads", || leads(&third));
    wait_for("the change", || url_of(&redis, "hello") == "http://10.96.0.1:91");
    assert_eq!(third.daemon.log().matches("standing by").count(), 1, "logged once");
}

#[test]
fn late_write_of_a_former_leader_changes_nothing() {
    let (api, redis) = cluster();
    let first = Kube2proxy::start(&api, &redis, &[]);
    let second = Kube2proxy::start(&api, &redis, &[]);
    first.daemon.signal("STOP");
    wait_for("the second leads", || leads(&second));
    let held = lock(&redis);
    // When the first wakes up it still considers itself the leader, and this change is new to it.
    api.apply("hello", "hello", web_service("10.96.0.1", 81));
    wait_for("a change", || url_of(&redis, "hello") == "http://10.96.0.1:81");
    first.daemon.signal("CONT");
    first.daemon.wait_for_line(&["WARN", "lock lost"]);
    assert_eq!(lock(&redis), held);
    for port in 82..90 {
        change(&api, &redis, port);
        assert_eq!(lock(&redis), held);
    }
    assert!(leads(&second) && !leads(&first) && first.is_ready());
    assert!(!second.daemon.log().contains("lock lost"));
}

#[test]
fn writes_without_the_lock_are_refused() {
    let redis = RedisServer::start(&[]);
    let mut connection = redis::Client::open(redis.plain_url()).unwrap().get_connection().unwrap();
    let mut take = |identity: &str| {
        let LockReply::Taken(held) = beat_lock(identity, None, true, 60_000).invoke(&mut connection).unwrap() else {
            panic!("the lock is another's");
        };
        held
    };
    let late = take("one");
    redis.cli(&["DEL", "k8s_lock"]);
    let held = take("one");
    assert!(number(&held) > number(&late));
    // The number also grows if the clock of Redis is behind.
    redis.cli(&["SET", "k8s_lock_number", "4000000000000000"]);
    redis.cli(&["DEL", "k8s_lock"]);
    let held = take("one");
    assert_eq!(held, "4000000000000001 one");

    let mut connection = redis::Client::open(redis.plain_url()).unwrap().get_connection().unwrap();
    let tool = ToolName::try_new(b"hello").unwrap();
    let claim = Claim {
        pattern: ".*".into(),
        url: "http://10.96.0.1:80".into(),
        origin: r#"{"source":"kube2proxy","owner":"hello/hello","host":"h","since":1}"#.into(),
        owner: "hello/hello".into(),
        member: "hello/hello/.*".into(),
        since: 1,
    };
    let mut settled = |lock: &str| {
        let settlement = ToolChanges { tool: &tool, claims: std::slice::from_ref(&claim), gone: &[] };
        let mut replies: Vec<redis::RedisResult<redis::Value>> =
            apply(&[settlement], lock).query(&mut connection).unwrap();
        Applied::from_redis_value(replies.pop().unwrap().unwrap()).unwrap()
    };
    for other in [&late, "", "4000000000000001 another", "4000000000000001"] {
        assert_eq!(settled(other), Applied::Refused, "{other:?}");
    }
    assert_eq!(redis.cli(&["KEYS", "prefix:*"]), "");
    assert_eq!(settled(&held), Applied::Done(vec![ClaimOutcome::Written { evicted: None }]));
    redis.cli(&["SET", "k8s_writer", "old"]);
    assert_eq!(settled(&held), Applied::Refused, "an earlier version writes");
    redis.cli(&["DEL", "k8s_writer"]);
    let mut other = redis::Client::open(redis.plain_url()).unwrap().get_connection().unwrap();
    assert!(!release_lock(&late).invoke(&mut other).unwrap() && release_lock(&held).invoke(&mut other).unwrap());
    assert_eq!((lock(&redis), settled(&held)), ("4000000000000001 -".into(), Applied::Refused));
    redis.cli(&["DEL", "k8s_lock"]);
    redis.cli(&["HSET", "k8s_lock", "a", "b"]);
    assert_eq!(settled(""), Applied::Refused);
}

#[test]
fn leader_reacquires_the_lock_after_a_flush_and_writes_everything() {
    let (mut api, redis) = cluster();
    let first = Kube2proxy::start(&api, &redis, &["--resync-interval", "1h"]);
    let second = Kube2proxy::start(&api, &redis, &["--resync-interval", "1h"]);
    for is_away in [false, false, false, true] {
        if is_away {
            api.stop();
            first.daemon.wait_for_line(&["WARN", "watch failed"]);
        }
        let before = lock(&redis);
        redis.cli(&["FLUSHALL"]);
        wait_for("written", || url_of(&redis, "hello") == "http://10.96.0.1:80" && members(&redis).len() == 1);
        let after = lock(&redis);
        assert!(number(&after) > number(&before), "{before} {after}");
        assert_eq!(after.split(' ').nth(1), before.split(' ').nth(1), "the same holder");
    }
    assert!(leads(&first) && !leads(&second));
    first.daemon.wait_for_line(&["WARN", "lock missing in Redis"]);
}

#[test]
fn disconnected_leader_lets_another_lead() {
    let (mut away, redis) = cluster();
    let api = ApiServer::start();
    api.apply("hello", "hello", web_service("10.96.0.1", 80));
    let first = Kube2proxy::start(&away, &redis, &[]);
    let second = Kube2proxy::start(&api, &redis, &[]);
    assert!(leads(&first));
    away.stop();
    first.daemon.wait_for_line(&["WARN", "watch failed"]);
    wait_for("the second leads", || leads(&second));
    first.daemon.wait_for_line(&["WARN", "releasing the lock for another replica"]);
    change(&api, &redis, 81);
    assert!(!leads(&first));
}

#[test]
fn earlier_version_is_waited_for() {
    let (api, redis) = cluster();
    redis.cli(&["SET", "k8s_writer", "old_1_0", "PX", "3000"]);
    let kube2proxy = Kube2proxy::launch(&api, &redis, &[]);
    kube2proxy.daemon.wait_for_line(&["WARN", "standing by; a kube2proxy of an earlier version", "old_1_0"]);
    assert_eq!(url_of(&redis, "hello"), "");
    wait_for("it leads", || leads(&kube2proxy));
    wait_for("written", || url_of(&redis, "hello") == "http://10.96.0.1:80");
    // An earlier version that starts later ignores the lock.
    redis.cli(&["SET", "k8s_writer", "old_2_0"]);
    redis.cli(&["HSET", "prefix:hello", ".*", "http://10.96.0.9:80"]);
    kube2proxy.daemon.wait_for_line(&["WARN", "lock lost"]);
    api.apply("hello", "hello", web_service("10.96.0.1", 81));
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(url_of(&redis, "hello"), "http://10.96.0.9:80", "they do not write in turn");
    redis.cli(&["DEL", "k8s_writer"]);
    wait_for("it leads again", || leads(&kube2proxy));
}

#[test]
fn no_replica_is_ready_while_redis_does_not_answer() {
    let (api, redis) = cluster();
    let replicas = [Kube2proxy::start(&api, &redis, &[]), Kube2proxy::start(&api, &redis, &[])];
    replicas[1].daemon.wait_for_line(&["INFO", "standing by"]);
    for round in 1..=2 {
        redis.signal("STOP");
        for replica in &replicas {
            wait_for("it is not ready", || !replica.is_ready());
            wait_for("the log says it", || {
                replica.daemon.log().matches("Redis request failed; retrying").count() >= round
            });
        }
        redis.signal("CONT");
        replicas.iter().for_each(Kube2proxy::wait_until_ready);
        wait_for("one leads", || replicas.iter().filter(|replica| leads(replica)).count() == 1);
        change(&api, &redis, 100 + u16::try_from(round).unwrap());
    }
}
