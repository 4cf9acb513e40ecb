//! Sources that fail over, copy, refuse and change: no such event removes a route.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use urlproxy::sync::{Entry, Settings};
use urlproxy::table::Table;

use crate::connecting::{ask, open, refusal};
use crate::following::{following, routes, settings};
use crate::support::need::need_program;
use crate::support::redis::RedisServer;
use crate::support::sentinel::{FakeSentinel, start_sentinel};
use crate::support::wait::wait_for;

/// Tools that every source always has.
const KEPT: [&str; 3] = ["a", "b", "set"];

pub fn fill(server: &RedisServer) {
    assert_eq!(server.cli(&["HSET", "prefix:a", ".*", "http://10.0.0.1:1"]), "1");
    assert_eq!(server.cli(&["HSET", "prefix:b", ".*", "http://10.0.0.1:2"]), "1");
    assert_eq!(server.cli(&["SADD", "prefix:set", "http://10.0.0.1:3"]), "1");
}

pub fn route(server: &RedisServer, tool: &str, port: u16) {
    let written = server.cli(&["HSET", &format!("prefix:{tool}"), ".*", &format!("http://10.0.0.1:{port}")]);
    assert!(["0", "1"].contains(&written.as_str()), "{written}");
}

pub fn has(table: Table<'_>, tool: &str, port: u16) -> bool {
    routes(table).get(&format!("{tool} .*")).is_some_and(|backend| *backend == format!("http://10.0.0.1:{port}"))
}

/// Waits for the routes of [`fill`], then checks that none of them is ever missing during `test`.
pub fn keeping(table: Table<'_>, test: impl FnOnce()) {
    let missing = || {
        let routes = routes(table);
        KEPT.into_iter().filter(|tool| !routes.contains_key(&format!("{tool} .*"))).collect::<Vec<_>>()
    };
    wait_for("loaded", || missing().is_empty());
    thread::scope(|scope| {
        let (looking, ended) = channel::<()>();
        scope.spawn(move || {
            loop {
                // The last look is after the end of the test, which may be quicker than the start of this thread.
                let is_over = ended.recv_timeout(Duration::from_millis(1)) != Err(RecvTimeoutError::Timeout);
                assert!(missing().is_empty(), "{:?} disappeared", missing());
                if is_over {
                    break;
                }
            }
        });
        test();
        drop(looking);
    });
}

pub fn assert_logged(said: &[Entry], what: &str) {
    let texts: Vec<_> = said.iter().map(|entry| entry.text.as_str()).collect();
    assert!(texts.iter().any(|text| text.contains(what)), "{what:?} is not in {texts:#?}");
}

fn replica_of(master: &RedisServer) -> RedisServer {
    let port = master.port().to_string();
    let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &port]);
    wait_for("the replica has a copy", || role(&replica) == "slave connected");
    replica
}

/// `master`, or `slave` and the state of its link.
pub fn role(server: &RedisServer) -> String {
    let role = server.cli(&["ROLE"]);
    let parts: Vec<_> = role.lines().collect();
    match parts.as_slice() {
        ["slave", _, _, state, ..] => format!("slave {state}"),
        parts => (*parts.first().unwrap_or(&"")).to_owned(),
    }
}

fn sentinel_url(sentinels: &[u16]) -> String {
    let addresses: Vec<_> = sentinels.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    format!("sentinel://{}/mymaster/0", addresses.join(","))
}

#[test]
fn a_failover_by_command_is_followed() {
    let master = RedisServer::start(&["--repl-diskless-sync-delay", "0"]);
    fill(&master);
    let replica = replica_of(&master);
    let sentinel = start_sentinel(master.port(), 1, "");
    let said = following(&settings(&sentinel_url(&[sentinel.port()])), |table| {
        keeping(table, || {
            wait_for("failing over", || sentinel.cli(&["SENTINEL", "FAILOVER", "mymaster"]) == "OK");
            let begun = Instant::now();
            wait_for("promoted", || role(&replica) == "master");
            let promoted = begun.elapsed();
            route(&replica, "new", 9);
            wait_for("routed", || has(table, "new", 9));
            println!("failover by command: promoted after {promoted:?}, routed after {:?}", begun.elapsed());
            wait_for("the old master follows", || role(&master).starts_with("slave"));
        });
    });
    assert_logged(&said, "in step again after ");
}

#[test]
fn a_failover_by_death_is_followed() {
    let mut master = RedisServer::start(&["--repl-diskless-sync-delay", "0"]);
    fill(&master);
    let replica = replica_of(&master);
    let sentinels = [(); 3].map(|()| start_sentinel(master.port(), 2, ""));
    let down_after = |milliseconds: &str| {
        for sentinel in &sentinels {
            assert_eq!(sentinel.cli(&["SENTINEL", "SET", "mymaster", "down-after-milliseconds", milliseconds]), "OK");
        }
    };
    // No server listens at the first address.
    let ports = [1, sentinels[0].port(), sentinels[1].port(), sentinels[2].port()];
    following(&settings(&sentinel_url(&ports)), |table| {
        keeping(table, || {
            for sentinel in &sentinels {
                let usable = || sentinel.cli(&["SENTINEL", "CKQUORUM", "mymaster"]).starts_with("OK 3 ");
                wait_for("the Sentinels know each other", usable);
                let knows = || sentinel.cli(&["SENTINEL", "REPLICAS", "mymaster"]).contains("master-link-status\nok");
                wait_for("the Sentinels know the replica", knows);
            }
            let begun = Instant::now();
            master.stop();
            down_after("500");
            wait_for("promoted", || role(&replica) == "master");
            let promoted = begun.elapsed();
            route(&replica, "new", 9);
            wait_for("routed", || has(table, "new", 9));
            println!("failover by kill -9: promoted after {promoted:?}, routed after {:?}", begun.elapsed());
            // On a busy machine the new master may be silent for 500 ms; the Sentinels would then promote the empty old one.
            down_after("60000");
            // The old master returns empty, and acts as master until a Sentinel demotes it.
            master.start_again();
            wait_for("the old master follows", || role(&master) == "slave connected");
            route(&replica, "new", 10);
            wait_for("routed again", || has(table, "new", 10));
        });
    });
}

#[test]
fn partitioned_masters_are_abandoned() {
    let (old, new) = (RedisServer::start(&[]), RedisServer::start(&[]));
    fill(&old);
    fill(&new);
    let sentinel = FakeSentinel::start("127.0.0.1", old.port());
    let said = following(&settings(&sentinel_url(&[sentinel.port])), |table| {
        keeping(table, || {
            let begun = Instant::now();
            route(&new, "new", 9);
            sentinel.set_master("127.0.0.1", new.port());
            wait_for("routed", || has(table, "new", 9));
            println!("a partitioned master was abandoned after {:?}", begun.elapsed());
        });
    });
    assert_logged(&said, &format!("the master has moved from 127.0.0.1:{} to 127.0.0.1:{}", old.port(), new.port()));
}

#[test]
fn demoted_masters_are_abandoned_without_a_disconnect() {
    let old = RedisServer::start(&["--repl-diskless-sync-delay", "0"]);
    fill(&old);
    let new = replica_of(&old);
    let sentinel = FakeSentinel::start("127.0.0.1", old.port());
    let said = following(&settings(&sentinel_url(&[sentinel.port])), |table| {
        keeping(table, || {
            let begun = Instant::now();
            new.cli(&["REPLICAOF", "NO", "ONE"]);
            old.cli(&["REPLICAOF", "127.0.0.1", &new.port().to_string()]);
            let has_client = |server: &RedisServer| server.cli(&["CLIENT", "LIST"]).contains("name=urlproxy");
            wait_for("the old master is abandoned", || !has_client(&old));
            // The Sentinel still names the old one.
            wait_for("refused", || old.cli(&["INFO", "commandstats"]).contains("cmdstat_role:calls="));
            sentinel.set_master("127.0.0.1", new.port());
            route(&new, "new", 9);
            wait_for("routed", || has(table, "new", 9) && has_client(&new));
            println!("a demoted master was abandoned after {:?}", begun.elapsed());
        });
    });
    assert_logged(&said, &format!("127.0.0.1:{} is a replica, expected the master \"mymaster\"", old.port()));
}

#[test]
fn the_majority_of_sentinels_decides() {
    let (stale, master) = (RedisServer::start(&[]), RedisServer::start(&[]));
    let naming = |server: &RedisServer| FakeSentinel::start("127.0.0.1", server.port());
    let (one, two, three) = (naming(&stale), naming(&master), naming(&master));
    let port_behind = |sentinels: &[u16]| {
        let mut connection = open(&sentinel_url(sentinels)).unwrap();
        connection.ping().unwrap();
        ask(&mut connection, &["CONFIG", "GET", "port"])
    };
    assert!(
        port_behind(&[one.port, two.port, three.port]).contains(&format!("{:?}", master.port().to_string().as_bytes()))
    );
    assert!(port_behind(&[one.port, two.port]).contains(&format!("{:?}", stale.port().to_string().as_bytes())));
    three.set_master("localhost", stale.port());
    assert!(port_behind(&[three.port]).contains(&format!("{:?}", stale.port().to_string().as_bytes())), "by name");
}

#[test]
fn a_minority_of_sentinels_moves_nobody() {
    let (old, new) = (RedisServer::start(&[]), RedisServer::start(&[]));
    fill(&old);
    fill(&new);
    let sentinels = [(); 3].map(|()| FakeSentinel::start("127.0.0.1", old.port()));
    following(&settings(&sentinel_url(&sentinels.each_ref().map(|sentinel| sentinel.port))), |table| {
        keeping(table, || {
            let clients = |server: &RedisServer| server.cli(&["CLIENT", "LIST"]).matches("name=urlproxy").count();
            wait_for("followed", || clients(&old) == 1);
            // The other two give no valid answer.
            sentinels[0].set_master("127.0.0.1", new.port());
            sentinels[1..].iter().for_each(|sentinel| sentinel.set_master("0.0.0.0", 1));
            route(&new, "new", 9);
            let asked = sentinels[0].asked();
            wait_for("asked again", || sentinels[0].asked() >= asked + 3);
            assert_eq!((clients(&old), clients(&new), has(table, "new", 9)), (1, 0, false));
            sentinels[1].set_master("127.0.0.1", new.port());
            wait_for("routed", || has(table, "new", 9));
        });
    });
}

#[test]
fn errors_of_sentinels_and_masters_are_reported() {
    let master = RedisServer::start(&["--repl-diskless-sync-delay", "0"]);
    let replica = replica_of(&master);
    master.cli(&["ACL", "SETUSER", "sync", "on", ">pw", "~*", "+@all", "-role"]);
    let sentinel = start_sentinel(master.port(), 1, "requirepass s3cret");
    let to = |userinfo: &str, name: &str, query: &str| {
        refusal(open(&format!("sentinel://{userinfo}127.0.0.1:{}/{name}/0{query}", sentinel.port())))
    };
    let none =
        format!("no Sentinel knows the address of master \"mymaster\": 127.0.0.1:{}: server says ", sentinel.port());
    assert!(to("", "mymaster", "").starts_with(&format!("{none}NOAUTH ")), "{}", to("", "mymaster", ""));
    let wrong = to("", "mymaster", "?sentinel_password=wr0ng");
    assert!(wrong.starts_with(&format!("{none}WRONGPASS ")) && !wrong.contains("wr0ng"), "{wrong}");
    assert_eq!(to("", "mymaster", "?sentinel_password=s3cret"), "accepted");
    assert_eq!(to("", "mymaster", "?sentinel_user=default&sentinel_password=s3cret"), "accepted");
    let user = ["ACL", "SETUSER", "watch", "on", ">w", "+sentinel|get-master-addr-by-name"];
    assert_eq!(sentinel.cli(&[&["-a", "s3cret", "--no-auth-warning"], &user[..]].concat()), "OK");
    assert_eq!(to("", "mymaster", "?sentinel_user=watch&sentinel_password=w"), "accepted");
    let unknown = to("", "other", "?sentinel_password=s3cret");
    assert!(unknown.ends_with("unknown master"), "{unknown}");
    assert!(to("sync:no@", "mymaster", "?sentinel_password=s3cret").starts_with("server says WRONGPASS "));
    let no_role = to("sync:pw@", "mymaster", "?sentinel_password=s3cret");
    assert!(
        no_role.contains("'role'") && no_role.starts_with("ROLE failed, but sentinel:// needs it: server says "),
        "{no_role}"
    );

    let fake = FakeSentinel::start("127.0.0.1", replica.port());
    let refused = refusal(open(&sentinel_url(&[fake.port])));
    assert_eq!(refused, format!("127.0.0.1:{} is a replica, expected the master \"mymaster\"", replica.port()));
    let refused = refusal(open(&format!("sentinel://127.0.0.1:1,127.0.0.1:{}/m", master.port())));
    for part in ["127.0.0.1:1: cannot connect to 127.0.0.1:1: ", "; 127.0.0.1:", ": server says ERR unknown command"] {
        assert!(refused.contains(part), "{part:?} is not in {refused}");
    }
}

#[test]
fn changes_arrive_through_a_replica() {
    let master = RedisServer::start(&["--repl-diskless-sync-delay", "0"]);
    fill(&master);
    let replica = replica_of(&master);
    following(&settings(&replica.url()), |table| {
        keeping(table, || {
            for port in 10..15 {
                route(&master, "new", port);
                let late = wait_for("routed", || has(table, "new", port));
                println!("a change through a replica arrived after {late:?}");
            }
            master.cli(&["DEL", "prefix:new"]);
            wait_for("withdrawn", || routes(table).len() == KEPT.len());
        });
    });
}

#[test]
fn a_replica_of_a_new_master_withdraws_only_routes_missing_there() {
    let [master, other] = [(); 2].map(|()| RedisServer::start(&["--repl-diskless-sync-delay", "0"]));
    fill(&master);
    route(&master, "gone", 8);
    fill(&other);
    let many = "for i = 1, 300 do redis.call('HSET', 'prefix:t' .. i, '.*', 'http://10.0.0.1:' .. i) end return 'ok'";
    assert_eq!(other.cli(&["EVAL", many, "0"]), "ok");
    // Loading takes half a second, during which commands are answered with LOADING.
    let port = master.port().to_string();
    let slow = ["--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024"];
    // Redis 6 answers nothing meanwhile.
    let slow = &slow[..if master.is_6() { 2 } else { 4 }];
    let replica = RedisServer::start(&[&["--replicaof", "127.0.0.1", &port], slow].concat());
    wait_for("the replica has a copy", || role(&replica) == "slave connected");
    let quick = Settings { resync_interval: Duration::from_millis(100), ..settings(&replica.url()) };
    let said = following(&quick, |table| {
        keeping(table, || {
            wait_for("loaded", || has(table, "gone", 8));
            let begun = Instant::now();
            replica.cli(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]);
            wait_for("the other's routes", || has(table, "t300", 300) && !has(table, "gone", 8));
            println!("a replica's new copy was loaded after {:?}", begun.elapsed());
            assert_eq!(routes(table).len(), KEPT.len() + 300);
            route(&other, "new", 9);
            wait_for("routed", || has(table, "new", 9));
        });
    });
    assert_logged(&said, "the replica is not synchronized with its master (link state \"");
}

#[test]
fn tables_age_while_a_replica_has_lost_its_master() {
    let mut master = RedisServer::start(&["--repl-diskless-sync-delay", "0"]);
    fill(&master);
    let replica = replica_of(&master);
    let settings = Settings { resync_interval: Duration::from_secs(3600), ..settings(&replica.url()) };
    following(&settings, |table| {
        let unix_seconds = || std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
        let age = || table.header().age_seconds(unix_seconds());
        wait_for("in step", || age() == Some(0));
        master.stop();
        wait_for("the replica has noticed", || role(&replica) != "slave connected");
        wait_for("an age", || age().is_some_and(|age| age >= 3));
        assert!(has(table, "a", 1), "existing routes stay");
        master.start_again();
        wait_for("in step again", || age() == Some(0));
    });
}

#[test]
fn a_replica_that_starts_empty_withdraws_nothing() {
    let mut master = RedisServer::start(&["--repl-diskless-sync-delay", "0", "--appendonly", "yes"]);
    fill(&master);
    let mut replica = replica_of(&master);
    let said = following(&settings(&replica.url()), |table| {
        keeping(table, || {
            master.stop();
            replica.stop();
            // Its last copy.
            let _ = std::fs::remove_file(replica.dir().join("dump.rdb"));
            replica.start_again();
            assert_eq!((replica.cli(&["DBSIZE"]), role(&replica).split(' ').next()), ("0".to_owned(), Some("slave")));
            let stats = || replica.cli(&["INFO", "commandstats"]);
            let times = |command: &str| stats().lines().any(|line| line.starts_with(&format!("cmdstat_{command}:")));
            wait_for("the companion is back", || times(if replica.is_6() { "client" } else { "client|tracking" }));
            // Sessions begin and end without a scan.
            let deadline = Instant::now() + Duration::from_millis(1500);
            wait_for("some sessions", || Instant::now() >= deadline);
            assert!(!times("scan"), "{}", stats());
            let begun = Instant::now();
            master.start_again();
            route(&master, "new", 9);
            wait_for("routed", || has(table, "new", 9));
            println!("after its master's return a replica's change arrived after {:?}", begun.elapsed());
        });
    });
    assert_logged(&said, "; its data may be incomplete");
}

/// The rights that docs/operations.md documents.
const RIGHTS: &str = "%R~prefix:* %R~redirect:* %R~frontend:* %R~origin:* +ping +select +scan +hgetall +hlen +hmget +hstrlen +smembers +client|tracking +client|setname +memory|usage +role";

#[test]
fn documented_acl_rights_are_necessary_and_sufficient() {
    assert!(include_str!("../../docs/operations.md").contains(RIGHTS));
    let server = RedisServer::start(&[]);
    fill(&server);
    let allow = |rights: &[&str]| {
        let words = [&["ACL", "SETUSER", "sync", "reset", "on", ">pw"], rights].concat();
        assert_eq!(server.cli(&words), "OK", "{words:?}");
    };
    let is_6 = server.is_6();
    // As documented for Redis 6. Its log names commands without their subcommands.
    let documented = if is_6 { RIGHTS.replace("%R~", "~") } else { RIGHTS.to_owned() };
    let logged = |right: &'static str| if is_6 { right.split('|').next().unwrap() } else { right };
    let rights: Vec<_> = documented.split(' ').collect();
    allow(&rights);
    let needed = ["select", "client|tracking", "scan", "hgetall", "smembers", "ping", "prefix:a"];
    let url = format!("redis://sync:pw@127.0.0.1:{}/0", server.port());
    let said = following(&settings(&url), |table| {
        keeping(table, || {
            for (number, right) in (100..).zip(needed) {
                let is_other = |r: &&str| if right == "prefix:a" { !r.contains('~') } else { r[1..] != *right };
                let others: Vec<_> = rights.iter().copied().filter(is_other).collect();
                server.cli(&["ACL", "LOG", "RESET"]);
                allow(&others);
                server.cli(&["CLIENT", "KILL", "USER", "sync"]);
                route(&server, "new", number);
                wait_for(&format!("denied {right}"), || {
                    let log = server.cli(&["ACL", "LOG"]);
                    log.lines().any(|line| line == logged(right))
                });
                allow(&rights);
                route(&server, "new", number + 1000);
                let late = wait_for("routed", || has(table, "new", number + 1000));
                println!("allowed {right} again, a change arrived after {late:?}");
            }
            // The companion works without these.
            assert!(!server.cli(&["ACL", "LOG"]).lines().any(|line| ["role", "client|setname"].contains(&line)));
        });
    });
    let tracking = format!("'{}'", logged("client|tracking"));
    for refused in ["'select'", &tracking, "to SCAN", "to HGETALL", "to SMEMBERS", "'ping'", "access"] {
        let is_logged = |entry: &Entry| entry.text.contains("NOPERM") && entry.text.contains(refused);
        assert!(said.iter().any(is_logged), "{refused} is not in {said:#?}");
    }
}

#[test]
fn users_without_role_can_follow() {
    let server = RedisServer::start(&[]);
    fill(&server);
    server.cli(&["ACL", "SETUSER", "sync", "on", ">pw", "~*", "+@all", "-role", "-client", "+client|tracking"]);
    let url = format!("redis://sync:pw@127.0.0.1:{}/0", server.port());
    following(&settings(&url), |table| {
        keeping(table, || {
            route(&server, "new", 9);
            wait_for("routed", || has(table, "new", 9));
        });
    });
}

#[test]
fn valkey_is_followed_like_redis() {
    // In Debian 12 only in the backports.
    if !need_program("valkey-server", "--version") {
        return;
    }
    let mut server = RedisServer::start_program("valkey-server", None, &["--appendonly", "yes"]);
    assert!(server.cli(&["INFO", "server"]).contains("valkey_version:"));
    fill(&server);
    following(&settings(&server.url()), |table| {
        keeping(table, || {
            route(&server, "new", 9);
            wait_for("routed", || has(table, "new", 9));
            server.stop();
            server.start_again();
            let begun = Instant::now();
            route(&server, "new", 10);
            wait_for("routed again", || has(table, "new", 10));
            println!("after Valkey's return a change arrived after {:?}", begun.elapsed());
        });
    });
}

/// A replica pushes nothing for the keys of a full copy, which may be over between two looks at its role. But it pushes a null when
/// it drops the old keys, or swaps them for the new ones; Redis 6.0.5 and older push an empty key.
#[test]
fn a_quick_full_copy_is_noticed() {
    for load in ["disabled", "swapdb"] {
        let masters = [(); 2].map(|()| RedisServer::start(&["--repl-diskless-sync-delay", "0"]));
        masters.iter().for_each(fill);
        let replica = replica_of(&masters[0]);
        assert_eq!(replica.cli(&["CONFIG", "SET", "repl-diskless-load", load]), "OK");
        let settings = Settings { resync_interval: Duration::from_secs(3600), ..settings(&replica.url()) };
        let said = following(&settings, |table| {
            wait_for("loaded", || has(table, "a", 1));
            for (port, master) in (100..).zip(masters.iter().rev().cycle()).take(10) {
                route(master, "changed", port);
                let copying = Instant::now();
                replica.cli(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]);
                let late = wait_for("routed", || has(table, "changed", port));
                println!("{load}: a change in a full copy was routed {late:?} after {:?}", copying.elapsed());
            }
        });
        let seen = said.iter().filter(|entry| entry.text.contains("(link state")).count();
        assert!(seen < 10, "each copy was seen in the role, so this test shows nothing");
    }
}
