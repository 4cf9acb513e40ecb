//! A failover of Redis while jobs register: Sentinels name another master, and the former one may still answer.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use crate::clients::job::{active, port_of, runner, server};
use crate::listener::{Listener, identd_of, read_reply};
use crate::support::http::is_ready;
use crate::support::redis::RedisServer;
use crate::support::sentinel::{CutOff, FakeSentinel, clients, sentinel_configuration};
use crate::support::tls::Pki;
use crate::support::wait::wait_for;

const URL: &str = "http://127.0.0.1:8000";

fn start(url: &str) -> Listener {
    Listener::start(url, identd_of("tools.hello"), &["--audit-interval", "off"])
}

fn has(server: &RedisServer, pattern: &str) -> bool {
    server.cli(&["HGET", "prefix:hello", pattern]) == URL
}

#[test]
fn registrations_go_to_the_named_master_while_the_former_one_answers() {
    let site = CutOff::start();
    let listener = start(&site.url());
    assert_eq!(listener.register("/before", URL), "ok");
    assert!(has(&site.former, "/before"));
    wait_for("a connection", || clients(&site.former) == 1);
    for round in 0..2 {
        let (from, to) = if round == 0 { (&site.former, &site.promoted) } else { (&site.promoted, &site.former) };
        site.sentinel.set_master("127.0.0.1", to.port());
        wait_for("no connection to the former master, without any request", || clients(from) == 0);
        let pattern = format!("/after{round}");
        assert_eq!(listener.register(&pattern, URL), "ok");
        assert!(has(to, &pattern) && !has(from, &pattern));
        let (from, to) = (format!("from=127.0.0.1:{}", from.port()), format!("to=127.0.0.1:{}", to.port()));
        listener.daemon.wait_for_line(&["WARN Sentinels name another master", &from, &to, "master=\"mymaster\""]);
    }
    assert_eq!(listener.daemon.log().matches("Sentinels name another master").count(), 2, "once each");
}

#[test]
fn late_reply_of_the_former_master_is_no_ok() {
    for takes_writes in [false, true] {
        let site = CutOff::start();
        let listener = start(&site.url());
        assert_eq!(listener.register("/before", URL), "ok");
        let replicas = if takes_writes { "0" } else { "1" };
        site.promoted.cli(&["CONFIG", "SET", "min-replicas-to-write", replicas]);
        site.former.signal("STOP");
        let mut client = listener.connect();
        client.write_all(format!("register\n.*\n{URL}\n").as_bytes()).unwrap();
        site.fail_over();
        listener.daemon.wait_for_line(&["WARN Sentinels name another master"]);
        site.former.signal("CONT");
        let reply = read_reply(client);
        // The request is sent again, within its two seconds.
        assert_eq!(reply == "ok", has(&site.promoted, ".*"), "{reply}");
        assert!(takes_writes || reply == "fail", "{reply}");
    }
}

#[test]
fn minority_of_the_sentinels_and_silent_ones_change_nothing() {
    let (server, other) = (RedisServer::start(&[]), RedisServer::start(&[]));
    let sentinels = [(); 3].map(|()| FakeSentinel::start("127.0.0.1", server.port()));
    let [first, second, third] = &sentinels;
    let listener = start(&first.url(&[second, third]));
    assert_eq!(listener.register("/a", URL), "ok");
    first.set_master("127.0.0.1", other.port());
    let asked = first.asked();
    wait_for("some checks", || first.asked() >= asked + 3);
    // One that names the former master is alone, as the others do not answer.
    second.set_reply("-LOADING\r\n".into());
    third.set_reply(String::new());
    let asked = first.asked();
    wait_for("some checks", || first.asked() >= asked + 3);
    assert_eq!(listener.register("/b", URL), "ok");
    assert!(has(&server, "/b") && clients(&other) == 0);
    assert!(!listener.daemon.log().contains("another master"), "{}", listener.daemon.log());
    second.set_master("127.0.0.1", other.port());
    wait_for("two of three suffice", || clients(&server) == 0);
    assert_eq!(listener.register("/c", URL), "ok");
    assert!(has(&other, "/c") && !has(&server, "/c"));
}

#[test]
fn replaced_master_gets_no_writes_when_only_its_own_sentinel_answers() {
    let (former, promoted) = (RedisServer::start(&[]), RedisServer::start(&[]));
    let sentinels = [(); 3].map(|()| FakeSentinel::start("127.0.0.1", former.port()));
    let [own, second, third] = &sentinels;
    let listener = start(&own.url(&[second, third]));
    assert_eq!(listener.register("/a", URL), "ok");
    for sentinel in [second, third] {
        sentinel.set_master("127.0.0.1", promoted.port());
    }
    wait_for("the majority is heard", || clients(&former) == 0);
    assert_eq!(listener.register("/b", URL), "ok");
    // The network to the majority and to the new master fails.
    for sentinel in [second, third] {
        sentinel.set_reply(String::new());
    }
    promoted.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    for _ in 0..3 {
        assert_eq!(listener.register("/c", URL), "fail");
    }
    assert!(has(&promoted, "/b") && !has(&former, "/c") && clients(&former) == 0);
    second.set_master("127.0.0.1", promoted.port());
    wait_for("one that names the new master suffices", || listener.register("/c", URL) == "ok");
    assert!(has(&promoted, "/c") && !has(&former, "/c"));
    // The former master may be elected again.
    for sentinel in [second, third] {
        sentinel.set_master("127.0.0.1", former.port());
    }
    wait_for("elected again", || clients(&promoted) == 0 && listener.register("/d", URL) == "ok");
    assert!(has(&former, "/d"));
}

#[test]
fn master_that_hangs_while_connecting_is_left_for_the_new_one() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let redis = RedisServer::start(&[]);
    let sentinel = FakeSentinel::start("127.0.0.1", silent.local_addr().unwrap().port());
    // Selecting another database is a part of the login.
    let listener = start(&sentinel.url(&[]).replace("/mymaster/0", "/mymaster/1"));
    let _hanging = silent.accept().unwrap();
    let client = thread::spawn({
        let mut client = listener.connect();
        move || {
            client.write_all(format!("register\n/a\n{URL}\n").as_bytes()).unwrap();
            read_reply(client)
        }
    });
    sentinel.set_master("127.0.0.1", redis.port());
    assert_eq!(client.join().unwrap(), "ok");
    assert_eq!(redis.cli(&["-n", "1", "HGET", "prefix:hello", "/a"]), URL);
}

#[test]
fn every_ok_has_a_commit_while_sentinels_change_their_mind_all_the_time() {
    let site = CutOff::start();
    let listener = start(&site.url());
    let (is_over, registered, failed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..20)
            .map(|client| {
                let (listener, site, registered, failed) = (&listener, &site, &registered, &failed);
                scope.spawn(move || {
                    for number in 0..50 {
                        let pattern = format!("/{client}/{number}");
                        // A tool has few patterns, so they replace each other.
                        if listener.register(&format!("/{client}"), &format!("http://127.0.0.1:{}", 8000 + number))
                            == "ok"
                        {
                            registered.fetch_add(1, SeqCst);
                            let url = format!("http://127.0.0.1:{}", 8000 + number);
                            let key = format!("/{client}");
                            let is_at = |server: &RedisServer| server.cli(&["HGET", "prefix:hello", &key]) == url;
                            assert!(is_at(&site.former) || is_at(&site.promoted), "{pattern} is lost");
                        } else {
                            failed.fetch_add(1, SeqCst);
                        }
                    }
                })
            })
            .collect();
        let flapping = scope.spawn(|| {
            let ports = [site.promoted.port(), site.former.port()];
            for port in ports.iter().cycle() {
                let asked = site.sentinel.asked();
                site.sentinel.set_master("127.0.0.1", *port);
                wait_for("two checks", || is_over.load(SeqCst) || site.sentinel.asked() >= asked + 2);
                if is_over.load(SeqCst) {
                    return;
                }
            }
        });
        let ending = Ending(&is_over);
        for client in clients {
            client.join().unwrap();
        }
        drop(ending);
        flapping.join().unwrap();
    });
    let moves = listener.daemon.log().matches("Sentinels name another master").count();
    println!("{} registered, {} failed, {moves} moves", registered.into_inner(), failed.into_inner());
    assert!(moves > 0);
}

#[test]
fn too_few_replicas_fail_the_command_and_are_said_once() {
    let redis = RedisServer::start(&["--min-replicas-to-write", "1"]);
    let args = ["--audit-interval", "off", "--metrics-listen", "127.0.0.1:0"];
    let listener = Listener::start(&redis.url(), identd_of("tools.hello"), &args);
    let status = listener.daemon.address_in("metrics endpoint listening");
    const WHY: &str =
        "the master refuses writes, because fewer replicas are connected to it than its min-replicas-to-write";
    listener.daemon.wait_for_line(&["WARN Redis does not accept writes", WHY]);
    for _ in 0..3 {
        assert_eq!(listener.register("/a", URL), "fail");
    }
    assert!(!has(&redis, "/a") && !is_ready(status));
    let connected = clients(&redis);
    assert_eq!(connected, 1, "the connection stays");
    redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    listener.daemon.wait_for_line(&["INFO Redis accepts writes again"]);
    assert_eq!(listener.register("/a", URL), "ok");
    wait_for("ready", || is_ready(status));
    assert_eq!(listener.daemon.log().matches("WARN Redis does not accept writes").count(), 1);
}

#[test]
fn lost_route_is_renewed_in_the_new_master() {
    let site = CutOff::start();
    let listener = start(&site.url());
    let job = runner(active(&[listener.address]), &["--renew-interval", "200ms"], &server("0.0.0.0"));
    let url = format!("http://127.0.0.1:{}", port_of(&job));
    let is_routed = |server: &RedisServer| server.cli(&["HGET", "prefix:hello", ".*"]) == url;
    wait_for("the route", || is_routed(&site.former));
    site.fail_over();
    let took = wait_for("the route in the new master", || is_routed(&site.promoted));
    println!("lost route is back {took:?} after Sentinel's word, with --renew-interval 200ms");
}

/// Ends the clients, also when the test fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn registrations_continue_in_the_new_master_over_tls() {
    let pki = Pki::new();
    let args = ["--repl-diskless-sync-delay", "0"];
    let (_former, former_port) = pki.start(None, &args);
    let primary = former_port.to_string();
    let (promoted, _) = pki.start(None, &[&args[..], &["--replicaof", "127.0.0.1", &primary]].concat());
    let roles = |server: &RedisServer| server.cli(&["ROLE"]);
    wait_for("a copy", || roles(&promoted).contains("connected"));
    let configuration = sentinel_configuration(former_port, 1, "");
    let (sentinel, sentinel_port) = pki.start(Some(&configuration), &["--sentinel"]);
    wait_for("Sentinel knows the replica", || {
        sentinel.cli(&["SENTINEL", "REPLICAS", "mymaster"]).contains("master-link-status\nok")
    });
    let url = format!("sentinels://127.0.0.1:{sentinel_port}/mymaster/0?{}", pki.parameters());
    let listener = start(&url);
    assert_eq!(listener.register("/first", URL), "ok");
    let (is_over, times, failed) = (AtomicBool::new(false), Mutex::new(Vec::new()), AtomicUsize::new(0));
    let done = || times.lock().unwrap().len();
    thread::scope(|scope| {
        // Each client registers one pattern with other URLs, and knows the last one.
        let clients: Vec<_> = (0..10)
            .map(|client| {
                let (listener, is_over, times, failed) = (&listener, &is_over, &times, &failed);
                scope.spawn(move || {
                    let pattern = format!("/{client}");
                    for port in (8000..=65_535).cycle() {
                        let url = format!("http://127.0.0.1:{port}");
                        let is_ok = listener.register(&pattern, &url) == "ok";
                        if is_ok {
                            times.lock().unwrap().push(Instant::now());
                        } else {
                            failed.fetch_add(1, SeqCst);
                        }
                        if is_over.load(SeqCst) {
                            return is_ok.then_some((pattern, url));
                        }
                    }
                    None
                })
            })
            .collect();
        let ending = Ending(&is_over);
        wait_for("registrations", || done() >= 200);
        assert_eq!(sentinel.cli(&["SENTINEL", "FAILOVER", "mymaster"]), "OK");
        wait_for("promoted", || roles(&promoted).starts_with("master"));
        listener.daemon.wait_for_line(&["WARN Sentinels name another master"]);
        let before = done();
        wait_for("registrations in the new master", || done() >= before + 200);
        drop(ending);
        for (pattern, url) in clients.into_iter().filter_map(|client| client.join().unwrap()) {
            assert_eq!(promoted.cli(&["HGET", "prefix:hello", &pattern]), url, "{pattern} is lost");
        }
    });
    let mut times = times.into_inner().unwrap();
    times.sort();
    let pause = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    println!("{} registered, {} failed; longest time without an ok {pause:?}", times.len(), failed.into_inner());
}

#[test]
fn hanging_master_costs_no_more_than_one_connection() {
    // It accepts, and answers neither ROLE nor anything else.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let sentinel = FakeSentinel::start("127.0.0.1", silent.local_addr().unwrap().port());
    let listener = start(&sentinel.url(&[]));
    let held = Arc::new(Mutex::new(Vec::new()));
    let accepted = Arc::clone(&held);
    thread::spawn(move || silent.incoming().flatten().for_each(|stream| accepted.lock().unwrap().push(stream)));
    thread::scope(|scope| {
        for client in 0..20 {
            let listener = &listener;
            scope.spawn(move || assert_eq!(listener.register(&format!("/{client}"), URL), "fail"));
        }
    });
    let is_open = |stream: &TcpStream| {
        stream.set_nonblocking(true).unwrap();
        let mut rest = [0; 4096];
        // Until the end, or until there is no more.
        loop {
            match (&mut &*stream).read(&mut rest) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    };
    wait_for("old connections are closed", || {
        held.lock().unwrap().iter().filter(|stream| is_open(stream)).count() <= 1
    });
    let tasks = fs::read_dir(format!("/proc/{}/task", listener.daemon.pid())).unwrap().count();
    assert!(tasks < 40, "{tasks} threads");
    // A server that works takes over within the next connection.
    let redis = RedisServer::start(&[]);
    sentinel.set_master("127.0.0.1", redis.port());
    wait_for("it is followed", || listener.register("/a", URL) == "ok");
    assert!(has(&redis, "/a"));
}

#[test]
fn names_in_the_replies_of_sentinels_are_resolved() {
    let redis = RedisServer::start(&[]);
    let sentinel = FakeSentinel::start("localhost", redis.port());
    let listener = start(&sentinel.url(&[]));
    assert_eq!(listener.register("/a", URL), "ok");
    sentinel.set_master("no-such-host.invalid", redis.port());
    listener.daemon.wait_for_line(&["WARN Sentinels name another master", "to=no-such-host.invalid:"]);
    assert_eq!(listener.register("/b", URL), "fail");
    sentinel.set_master("localhost", redis.port());
    wait_for("it is followed", || listener.register("/b", URL) == "ok");
}
