//! proxylistener's connection limits: no tool keeps other tools of its host out.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::listener::{Listener, identd, read_reply};
use crate::support::http;
use crate::support::redis::RedisServer;
use crate::support::wait::{SOON, wait_for};

const URL: &str = "http://127.0.0.1:8000";

/// A proxylistener with clients of `tools.hello` and of a hog.
struct Shared {
    listener: Listener,
    status: SocketAddr,
    /// Ports of the hog's clients.
    hogs: Arc<Mutex<HashSet<u16>>>,
    /// While set, the identd does not answer.
    is_slow: Arc<AtomicBool>,
}

impl Shared {
    fn start(redis: &RedisServer, args: &[&str]) -> Self {
        let hogs = Arc::new(Mutex::new(HashSet::new()));
        let is_slow = Arc::new(AtomicBool::new(false));
        let (known, is_waited_for) = (Arc::clone(&hogs), Arc::clone(&is_slow));
        let ident_port = identd(move |mut stream, (client, ours)| {
            while is_waited_for.load(SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
            let user = if known.lock().unwrap().contains(&client) { "hog" } else { "hello" };
            let _ = stream.write_all(format!("{client} , {ours} : USERID : UNIX : tools.{user}\r\n").as_bytes());
        });
        let args = [args, &["--metrics-listen", "127.0.0.1:0", "--ident-timeout", "1m"]].concat();
        let listener = Listener::start(&redis.url(), ident_port, &args);
        let status = listener.daemon.address_in("metrics endpoint listening");
        Self { listener, status, hogs, is_slow }
    }

    /// A client of the hog that has sent a command.
    fn hog(&self) -> TcpStream {
        let mut client = self.listener.connect();
        self.hogs.lock().unwrap().insert(client.local_addr().unwrap().port());
        client.set_read_timeout(Some(SOON)).unwrap();
        client.write_all(b"unregister\n.*\n").unwrap();
        client
    }

    #[track_caller]
    fn sample(&self, name: &str) -> u64 {
        let (_, metrics) = http::get(self.status, "/metrics");
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {metrics}"))
    }
}

#[test]
fn lingering_clients_keep_no_other_client_out() {
    let redis = RedisServer::start(&[]);
    let shared = Shared::start(&redis, &[]);
    let answered: Vec<_> = (0..150)
        .map(|_| {
            let mut client = shared.hog();
            let _ = client.read(&mut [0; 2]);
            client
        })
        .collect();
    let replies: Vec<_> = (0..40).map(|_| shared.listener.register(".*", URL)).collect();
    assert_eq!(replies, vec!["ok"; 40]);
    assert_eq!(shared.sample("proxylistener_connections_refused_total{by=\"per_host\"}"), 0);
    drop(answered);
}

/// Clients that have their reply and do not close are limited as well: the oldest are closed.
#[test]
fn lingering_clients_are_limited() {
    let redis = RedisServer::start(&[]);
    // One host may have 8 of 16.
    let shared = Shared::start(&redis, &["--max-connections", "16"]);
    let closed = "proxylistener_lingering_connections_refused_total{by=\"waited_longest\"}";
    let mut answered = Vec::new();
    wait_for("the oldest are closed", || {
        let mut client = shared.hog();
        let mut reply = [0; 2];
        client.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"ok");
        answered.push(client);
        shared.sample(closed) > 0
    });
    assert!(shared.sample("proxylistener_lingering_connections") <= 8);
}

#[test]
fn user_of_many_commands_keeps_no_other_user_out() {
    let redis = RedisServer::start(&[]);
    // One host may have 64 of 200.
    let shared = Shared::start(&redis, &["--max-connections", "200"]);
    shared.is_slow.store(true, SeqCst);
    let hogs: Vec<_> = (0..100).map(|_| shared.hog()).collect();
    wait_for("all places are taken", || shared.sample("proxylistener_connections") == 64);
    let mut other = shared.listener.connect();
    other.write_all(format!("register\n.*\n{URL}\n").as_bytes()).unwrap();
    wait_for("the others wait", || shared.sample("proxylistener_waiting_connections") == 37);
    shared.is_slow.store(false, SeqCst);
    assert_eq!(read_reply(other), "ok");
    assert_eq!(shared.sample("proxylistener_connections_refused_total{by=\"per_host\"}"), 0);
    drop(hogs);
}

#[test]
fn one_user_may_use_half_of_its_hosts_connections() {
    let redis = RedisServer::start(&[]);
    // One host may have 8 of 16, and each of its users 4.
    let shared = Shared::start(&redis, &["--max-connections", "16"]);
    redis.signal("STOP");
    let hogs: Vec<_> = (0..8).map(|_| shared.hog()).collect();
    let refused = "proxylistener_connections_refused_total{by=\"per_owner\"}";
    wait_for("half of them are refused", || shared.sample(refused) == 4);
    let mut other = shared.listener.connect();
    other.write_all(format!("register\n.*\n{URL}\n").as_bytes()).unwrap();
    redis.signal("CONT");
    assert_eq!(read_reply(other), "ok");
    let failed = hogs.into_iter().map(read_reply).filter(|reply| reply == "fail").count();
    assert!(failed >= 4, "{failed}");
    shared.listener.daemon.wait_for_line(&["refused", "tool=\"hog\"", "too many concurrent commands"]);
}

/// Old clients take a connection that closes without a reply for success.
#[test]
fn refused_clients_get_a_reply() {
    let redis = RedisServer::start(&[]);
    // One host may have 8 of 16, and as many may wait.
    let shared = Shared::start(&redis, &["--max-connections", "16", "--idle-timeout", "2s"]);
    shared.is_slow.store(true, SeqCst);
    let hogs: Vec<_> = (0..40).map(|_| shared.hog()).collect();
    let is_answered = |client: &TcpStream| {
        client.set_nonblocking(true).unwrap();
        let is_answered = client.peek(&mut [0]).is_ok();
        client.set_nonblocking(false).unwrap();
        is_answered
    };
    // Some are evicted before their command is read, others wait in vain; the identd holds 8.
    wait_for("the others are refused", || hogs.iter().filter(|client| is_answered(client)).count() == 32);
    let (refused, served): (Vec<_>, Vec<_>) = hogs.into_iter().partition(is_answered);
    assert_eq!(refused.into_iter().map(read_reply).collect::<Vec<_>>(), vec!["fail"; 32]);
    shared.is_slow.store(false, SeqCst);
    // The user of a command is known only now, and may have half of the places.
    let replies: Vec<_> = served.into_iter().map(read_reply).collect();
    assert!(replies.iter().all(|reply| reply == "ok" || reply == "fail"), "{replies:?}");
    assert!(replies.iter().any(|reply| reply == "ok"), "{replies:?}");
}
