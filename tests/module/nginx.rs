//! Real nginx with the module, real Redis and traffic.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use urlproxy::sync::Snapshot;

use crate::support::nginx::{Nginx, Tool, is_alive, module};
use crate::support::redis::RedisServer;
use crate::support::wait::{SOON, wait_for};

fn http(redis: &str, table: &str) -> String {
    format!(
        "urlproxy_table tools {{ zone 1m; redis {redis}; {table} }}
        upstream tools {{ urlproxy_peers; keepalive 16; }}
        server {{
            listen 127.0.0.1:@port@;
            location / {{
                urlproxy tools path;
                proxy_http_version 1.1;
                proxy_set_header Connection '';
                proxy_pass $urlproxy_scheme://tools;
            }}
            location = /list {{ urlproxy_list tools; }}
        }}"
    )
}

fn set(redis: &RedisServer, tool: &str, url: &str) {
    redis.cli(&["HSET", &format!("prefix:{tool}"), ".*", url]);
}

/// Number of connected companions.
fn companions(redis: &RedisServer) -> usize {
    redis.cli(&["CLIENT", "LIST"]).lines().filter(|line| line.contains("name=urlproxy ")).count()
}

#[test]
fn starts_with_redis_up_never_answer_503() {
    let (redis, tool) = (RedisServer::start(&[]), Tool::start("hello"));
    set(&redis, "hello", &tool.url());
    let nginx = Nginx::start("worker_processes 2;", &http(&redis.url(), ""));
    let first = nginx.get("/hello/");
    assert_eq!((first.status, first.body.as_str()), (200, "hello"));
    assert!(nginx.log().contains("urlproxy: routes loaded, tools=1"));
}

#[test]
fn changes_reach_all_workers_at_once() {
    let (redis, tool) = (RedisServer::start(&[]), Tool::start("hello"));
    let nginx = Nginx::start("worker_processes 2;", &http(&redis.url(), ""));
    wait_for("the companion follows", || companions(&redis) == 1);
    assert_eq!(nginx.get("/hello/").status, 503);
    set(&redis, "hello", &tool.url());
    let routed = nginx.wait_for_status("/hello/", 200);
    (0..20).for_each(|_| assert_eq!(nginx.get("/hello/").status, 200));
    redis.cli(&["HDEL", "prefix:hello", ".*"]);
    let withdrawn = nginx.wait_for_status("/hello/", 503);
    println!("routed after {routed:?}, withdrawn after {withdrawn:?}");
}

#[test]
fn four_workers_have_one_companion() {
    let redis = RedisServer::start(&[]);
    let _nginx = Nginx::start("worker_processes 4;", &http(&redis.url(), ""));
    wait_for("the companion follows", || companions(&redis) == 1);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500) {
        assert_eq!(companions(&redis), 1);
    }
}

#[test]
fn configuration_tests_do_not_connect() {
    let redis = RedisServer::start(&[]);
    let nginx = Nginx::prepare("", &http(&redis.url(), "wait_for_routes 60s;"));
    let connections = || {
        let stats = redis.cli(&["INFO", "stats"]);
        let line = stats.lines().find_map(|l| l.strip_prefix("total_connections_received:")).unwrap().trim().to_owned();
        line.parse::<u64>().unwrap()
    };
    let before = connections();
    redis.signal("STOP");
    let output = nginx.check();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    redis.signal("CONT");
    assert_eq!(connections(), before + 1, "only the connection of this query");
}

#[test]
fn nginx_starts_with_the_module_and_no_http_block() {
    let stream = "load_module /usr/lib/nginx/modules/ngx_stream_module.so;";
    for (main, block) in [("", ""), (stream, "stream { server { listen 127.0.0.1:@port@; return hello; } }")] {
        let mut nginx = Nginx::prepare("", "");
        nginx.configure_block(main, block);
        let checked = nginx.check();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        nginx.launch_until("a worker runs", |nginx| !nginx.workers().is_empty());
        if !block.is_empty() {
            let mut answer = String::new();
            TcpStream::connect((Ipv4Addr::LOCALHOST, nginx.port)).unwrap().read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "hello");
        }
        nginx.stop();
        for trouble in ["[alert]", "[emerg]", "panic", "exited on signal"] {
            assert!(!nginx.log().contains(trouble), "{block:?}: {}", nginx.log());
        }
        assert!(nginx.log().contains("exit"), "{block:?}: {}", nginx.log());
    }
}

/// A Redis that accepts and never answers, and its number of connections.
fn silent_redis() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming().map_while(Result::ok) {
            counted.fetch_add(1, Relaxed);
            held.push(stream);
        }
    });
    (url, asked)
}

/// Three tables with silent sources, each with a longer `wait_for_routes` than the test.
fn waiting_tables() -> (String, Vec<Arc<AtomicUsize>>) {
    let (urls, asked): (Vec<_>, Vec<_>) = (0..3).map(|_| silent_redis()).unzip();
    let table = |(n, url)| format!("urlproxy_table t{n} {{ zone 1m; redis {url}; wait_for_routes 600s; }}\n");
    let tables: String = urls.iter().enumerate().map(table).collect();
    (format!("{tables} server {{ listen 127.0.0.1:@port@; }}"), asked)
}

#[test]
fn first_loads_run_concurrently_and_end_on_a_signal() {
    let (conf, asked) = waiting_tables();
    let nginx = Nginx::start("", &conf);
    wait_for("all sources are connected", || asked.iter().all(|asked| asked.load(Relaxed) > 0));
    // A shell's background job ignores INT and QUIT until nginx has its handlers.
    nginx.signal("TERM");
    wait_for("it ends", || !is_alive(nginx.master()));
}

#[test]
fn reloads_that_wait_for_routes_end_with_nginx() {
    for (main, signal) in [("", "TERM"), ("", "QUIT"), ("master_process off;", "TERM")] {
        let (redis, (conf, asked)) = (RedisServer::start(&[]), waiting_tables());
        let nginx = Nginx::start(main, &http(&redis.url(), ""));
        // Only then does nginx have signal handlers.
        wait_for("the companion follows", || nginx.log().contains("urlproxy: companion started; following"));
        nginx.configure(main, &conf);
        nginx.signal("HUP");
        wait_for("all sources are connected", || asked.iter().all(|asked| asked.load(Relaxed) > 0));
        nginx.signal(signal);
        wait_for("it ends", || !is_alive(nginx.master()));
        assert!(
            nginx.log().contains("loading routes failed: nginx is shutting down"),
            "{main} {signal}: {}",
            nginx.log()
        );
    }
}

/// As in production: the master runs as root, the workers as another user, who owns the file.
#[test]
fn snapshots_of_the_workers_user_are_trusted_and_others_are_not() {
    const NOBODY: u32 = 65534;
    let mut redis = RedisServer::start(&[]);
    redis.stop();
    let lines = "{\"urlproxy_snapshot\":2,\"synced_at\":@now@,\"kinds\":[\"tool\"],\"records\":0}\n";
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let lines = lines.replace("@now@", &now.to_string());
    let text = format!("{lines}{{\"checksum\":\"{}\"}}\n", Snapshot::checksum(lines.as_bytes()));
    for (owner, want) in [
        (NOBODY, "urlproxy: snapshot restored, tools=0"),
        (
            12345,
            "urlproxy: snapshot ignored: the file belongs to user 12345, expected root or the user that nginx runs as",
        ),
    ] {
        let nginx = Nginx::prepare("", &http(&redis.url(), "snapshot @dir@/tools.snapshot; wait_for_routes 100ms;"));
        let conf = nginx.dir().join("nginx.conf");
        let directory = nginx.dir().join("snapshots");
        let text_of_conf = std::fs::read_to_string(&conf).unwrap();
        let text_of_conf =
            text_of_conf.replace("user root;", "user nobody nogroup;").replace("@dir@", directory.to_str().unwrap());
        std::fs::write(&conf, text_of_conf).unwrap();
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("tools.snapshot");
        std::fs::write(&path, &text).unwrap();
        chown(&directory, Some(NOBODY), None).expect("root: files can be given to others");
        chown(&path, Some(owner), None).unwrap();
        let nginx = nginx.run();
        wait_for("the snapshot is checked", || nginx.log().contains("snapshot"));
        assert!(nginx.log().contains(want), "{want}: {}", nginx.log());
    }
}

#[test]
fn single_process_mode_follows_redis() {
    let (redis, tool) = (RedisServer::start(&[]), Tool::start("hello"));
    let nginx = Nginx::start("master_process off;", &http(&redis.url(), ""));
    wait_for("the companion follows", || companions(&redis) == 1);
    set(&redis, "hello", &tool.url());
    nginx.wait_for_status("/hello/", 200);
    redis.cli(&["DEL", "prefix:hello"]);
    nginx.wait_for_status("/hello/", 503);
}

/// A tool that switches protocols and then echoes.
fn echoing_tool() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                read_head(&mut stream);
                let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
                stream.write_all(head.as_bytes())?;
                std::io::copy(&mut stream.try_clone()?, &mut stream).map(drop)
            });
        }
    });
    url
}

/// Reads up to the empty line.
fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn draining_workers_yield_the_table_to_their_successor() {
    let (redis, tool) = (RedisServer::start(&[]), Tool::start("hello"));
    set(&redis, "echo", &echoing_tool());
    let conf = http(&redis.url(), "").replace(
        "proxy_set_header Connection '';",
        "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection;",
    );
    let nginx = Nginx::start("worker_processes 1;", &conf);
    wait_for("the companion follows", || companions(&redis) == 1);
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, nginx.port)).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
        .write_all(b"GET /echo/ HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
        .unwrap();
    assert!(read_head(&mut socket).starts_with("HTTP/1.1 101 "));
    let mut echoes = |text: &str| {
        socket.write_all(text.as_bytes()).unwrap();
        let mut back = vec![0; text.len()];
        socket.read_exact(&mut back).unwrap();
        assert_eq!(back, text.as_bytes());
    };
    echoes("before");
    let draining = nginx.workers();
    let following = || nginx.log().matches("urlproxy: companion started; following").count();
    for round in 0..3 {
        wait_for("the generation before has taken over", || following() == round + 1);
        nginx.reload();
        let name = format!("round-{round}");
        set(&redis, &name, &tool.url());
        let gap = nginx.wait_for_status(&format!("/{name}/"), 200);
        println!("no writer for {gap:?}");
        wait_for("the new generation's companion", || {
            assert!(companions(&redis) <= 1, "two companions");
            following() == round + 2
        });
        echoes("while the old worker drains");
    }
    assert!(draining.iter().all(|pid| nginx.workers().contains(pid)), "it drains as long as the connection is open");
}

/// All permutations.
fn orders<T: Clone>(of: &[T]) -> Vec<Vec<T>> {
    let [first, rest @ ..] = of else { return vec![Vec::new()] };
    let insert = |order: Vec<T>| {
        (0..=order.len()).map(move |at| {
            let mut order = order.clone();
            order.insert(at, first.clone());
            order
        })
    };
    let first_anywhere = orders(rest).into_iter().flat_map(|order| insert(order).collect::<Vec<_>>());
    first_anywhere.collect()
}

/// nginx gives each module an index, and this module stays in memory when it is unloaded: another module may have its old index
/// when it is loaded again.
#[test]
fn the_module_can_be_reloaded_among_others_in_any_order() {
    let (redis, tool) = (RedisServer::start(&[]), Tool::start("hello"));
    set(&redis, "hello", &tool.url());
    let ours = module().display().to_string();
    let other = |name: &str| format!("/usr/lib/nginx/modules/{name}.so");
    let others = ["ngx_http_echo_module", "ngx_http_headers_more_filter_module", "ngx_stream_module"].map(other);
    let nginx = Nginx::start("worker_processes 1;", &http(&redis.url(), ""));
    // nginx listens before it handles signals.
    nginx.wait_for_status("/hello/", 200);
    let mut round = 0;
    let mut reload = |modules: &[String], is_broken: bool| {
        round += 1;
        let http =
            if modules.contains(&ours) { http(&redis.url(), "") } else { "server { listen 127.0.0.1:@port@; }".into() };
        let broken = if is_broken { "no_such_directive;" } else { "" };
        let http =
            http.replacen("server {", &format!("server {{ location = /round/{round} {{ return 204; }} {broken}"), 1);
        nginx.configure("", &http);
        let path = nginx.dir().join("nginx.conf");
        let load: String = modules.iter().map(|module| format!("load_module {module}; ")).collect();
        let conf = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, conf.replace(&format!("load_module {ours};"), &load)).unwrap();
        if is_broken {
            let refused = || nginx.log().matches("no_such_directive").count();
            let before = refused();
            nginx.signal("HUP");
            wait_for("the refusal", || refused() > before);
        } else {
            nginx.signal("HUP");
            // An old worker may answer for a moment.
            let is_routed = || !modules.contains(&ours) || nginx.get("/hello/").body == "hello";
            wait_for(&format!("{modules:?} in force"), || {
                assert!(is_alive(nginx.master()), "the master died over {modules:?}");
                assert!(!nginx.log().contains("exited on signal"), "a worker died over {modules:?}");
                nginx.get(&format!("/round/{round}")).status == 204 && is_routed()
            });
        }
    };
    for order in orders(&[std::slice::from_ref(&ours), others.as_slice()].concat()) {
        let without: Vec<_> = order.iter().filter(|module| **module != ours).cloned().collect();
        reload(&[], false);
        reload(&without, false);
        reload(&order, true);
        reload(&without, false);
        reload(&order, true);
        reload(&order, false);
        reload(&order, false);
        reload(&without, true);
        reload(std::slice::from_ref(&ours), false);
    }
}
