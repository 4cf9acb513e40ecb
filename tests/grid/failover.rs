//! A failover of Redis while jobs register: Sentinels name another master, and the former one may still answer.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

use crate::listener::{Listener, identd_of, read_reply};
use crate::support::http::is_ready;
use crate::support::redis::RedisServer;
use crate::support::sentinel::{CutOff, FakeSentinel, clients};
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
        for client in clients {
            client.join().unwrap();
        }
        is_over.store(true, SeqCst);
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
