//! Backends chosen to harm others.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::report::Report;
use crate::site::{Plan, Site};
use crate::support::nginx::{try_get, try_get_from};
use crate::support::port::free_port;
use crate::support::redis::RedisServer;
use crate::support::wait;

use super::{FEW, SOON, becomes_true, under_attack, wait_in_step, wait_listed, while_busy};

const SHIPPED: &str = include_str!("../../../nginx-conf/urlproxy.conf");

/// A tool has two backends. Two other tools register the first of them, beside one of their own, and their requests fail there:
/// by HTTPS, which it does not speak, and by HTTP for a path that makes it close the connection.
pub fn that_are_anothers() -> Report {
    const REQUESTS: usize = 200;
    let site = Site::start(&[]);
    let victim = Ipv4Addr::new(127, 0, 77, 1);
    let port = fragile();
    let closed = free_port();
    let sets = [
        ("victim", format!("http://{victim}:{port}"), format!("http://127.0.77.2:{port}")),
        ("tls", format!("https://{victim}:{port}"), format!("https://127.0.0.1:{closed}")),
        ("plain", format!("http://{victim}:{port}"), format!("http://127.0.0.1:{closed}")),
    ];
    for (tool, first, second) in &sets {
        site.redis.cli(&["SADD", &format!("prefix:{tool}"), first, second]);
    }
    wait_in_step(&site);
    let nginx = site.nginx.port;
    let ask = move || try_get(nginx, "/victim/", wait::SOON).map(|answer| (answer.status, answer.body));
    let answered_by_first = move || {
        let answers: Vec<_> = (0..REQUESTS).map(|_| ask()).collect();
        let failed = answers.iter().filter(|it| !it.as_ref().is_ok_and(|(status, _)| *status == 200)).count();
        let by_first = answers.iter().flatten().filter(|(_, body)| *body == victim.to_string()).count();
        (failed, by_first)
    };
    let idle = answered_by_first();
    let attack = move |number: usize| {
        let _ = try_get(nginx, ["/tls/", "/plain/break"][number], wait::SOON);
        thread::sleep(Duration::from_millis(20));
    };
    let ((attacked, failing), note) = under_attack(&site, || {
        while_busy(0..2, attack, || {
            thread::sleep(Duration::from_millis(500));
            answered_by_first()
        })
    });
    let recovered = site.recovers();
    site.finish(recovered, SOON, FEW)
        .note(format!("{} of {REQUESTS} by the shared backend, idle {}; {note}", attacked.1, idle.1))
        .expect(idle.0 + attacked.0 == 0, format!("{} of the victim's requests failed", idle.0 + attacked.0))
        .expect(failing.iter().all(|asked| *asked > 2), format!("{failing:?} requests are too few for an attack"))
        .expect(idle.1 > REQUESTS / 4, format!("without an attack it answered {} of {REQUESTS}", idle.1))
        .expect(attacked.1 > REQUESTS / 4, format!("it answered {} of {REQUESTS}", attacked.1))
}

/// A server on one port of every loopback address. It answers with its address, and closes the connection at a request for
/// `break`.
fn fragile() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    let serve = |mut stream: TcpStream| -> std::io::Result<()> {
        let address = stream.local_addr()?.ip().to_string();
        let mut bytes = [0; 4096];
        loop {
            let read = stream.read(&mut bytes)?;
            if !bytes[..read].starts_with(b"GET ") || bytes[..read].windows(5).any(|part| part == b"break") {
                return Ok(());
            }
            let length = address.len();
            stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{address}").as_bytes())?;
        }
    };
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || serve(stream));
        }
    });
    port
}

/// The shipped configuration as one text, with other addresses for listening, Redis and backends. Without a limit for the test's
/// own address, which many clients share.
fn shipped(redis: &RedisServer) -> String {
    let mut text = SHIPPED.to_owned();
    let https = format!("listen 127.0.0.1:{};", free_port());
    for (here, there) in [
        ("redis://127.0.0.1:6379/0", redis.url().as_str()),
        ("include urlproxy/snippets/listen-tls.conf;", "listen 127.0.0.1:@port@;"),
        ("listen 80;", &https),
        ("listen [::]:80;", ""),
        ("allow_backend ", "allow_backend 127.0.0.0/8 "),
    ] {
        assert!(text.contains(here), "nginx-conf/urlproxy.conf lacks {here:?}");
        text = text.replace(here, there);
    }
    included(&text)
        .replace("/usr/share/urlproxy/error", concat!(env!("CARGO_MANIFEST_DIR"), "/nginx-conf/error"))
        .replace("geo $urlproxy_unlimited {", "geo $urlproxy_unlimited {\n127.0.0.0/8 test;")
}

/// A configuration with the snippets and lists that it includes, and without certificates.
fn included(text: &str) -> String {
    let mut whole = String::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("ssl_certificate")) {
        let mut words = line.split_whitespace();
        let file = words.next().filter(|word| *word == "include").and(words.next());
        match file.and_then(|file| file.strip_prefix("urlproxy/")?.strip_suffix(';')) {
            Some(file) => {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("nginx-conf").join(file);
                whole += &included(
                    &fs::read_to_string(&path).unwrap_or_else(|error| panic!("{error} while reading {path:?}")),
                );
            }
            None => whole += line,
        }
        whole.push('\n');
    }
    whole
}

/// Three thousand requests of one tool never get an answer. The shipped configuration limits a tool's open requests.
pub fn that_never_answer() -> Report {
    const REQUESTS: usize = 3000;
    let redis = RedisServer::start(&[]);
    let whole = Some(shipped(&redis));
    let site = Site::with(redis, Plan { whole, ..Plan::default() });
    let tarpit = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let url = format!("http://{}", tarpit.local_addr().expect("its address"));
    thread::spawn(move || {
        // Kept open.
        let _held: Vec<_> = tarpit.incoming().map_while(Result::ok).collect();
    });
    site.redis.cli(&["HSET", "prefix:tarpit", ".*", &url]);
    wait_in_step(&site);
    let port = site.nginx.port;
    let open = || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
        stream.write_all(b"GET /tarpit/ HTTP/1.1\r\nHost: test\r\nUser-Agent: test\r\n\r\n").ok()?;
        stream.set_nonblocking(true).ok()?;
        Some(stream)
    };
    /// The answer on a connection, up to its status.
    fn status_of(mut stream: &TcpStream) -> Option<String> {
        let mut bytes = [0; 12];
        let read = stream.read(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..read]).into_owned())
    }
    let ((waiting, refused, other), note) = under_attack(&site, || {
        let streams: Vec<_> = (0..REQUESTS).map(|_| open()).collect();
        let mut answers: Vec<Option<String>> = vec![None; REQUESTS];
        let (mut refused, mut last) = (0, 1);
        // Until all surplus requests are answered.
        becomes_true(SOON, || {
            last = refused;
            for (stream, answer) in streams.iter().zip(&mut answers).filter(|(_, answer)| answer.is_none()) {
                *answer = stream.as_ref().and_then(status_of);
            }
            refused = answers.iter().flatten().filter(|it| *it == "HTTP/1.1 503").count();
            thread::sleep(Duration::from_millis(200));
            refused > 0 && refused == last
        });
        site.serves_on(400);
        let waiting = streams.iter().zip(&answers).filter(|(stream, it)| stream.is_some() && it.is_none()).count();
        (waiting, refused, REQUESTS - waiting - refused)
    });
    let recovered = site.recovers();
    site.finish(recovered, SOON, FEW)
        .note(format!("{waiting} wait, {refused} are refused; {note}"))
        .expect(waiting > 0 && refused > REQUESTS / 2, format!("{waiting} wait, {refused} are refused"))
        .expect(other == 0, format!("{other} of the tool's requests neither wait nor were answered 503"))
}

/// A tool's backend is a name of this proxy: a request must not loop.
pub fn that_lead_back_by_name() -> Report {
    const REQUESTS: usize = 5;
    /// The request and its repetitions.
    const MOST_HOPS: usize = 3;
    let resolver = resolver();
    let http = format!(
        "log_format hop '$status';
        server {{
            listen 127.0.0.1:@port@;
            server_name by-name.test;
            access_log hops.log hop;
            location / {{
                urlproxy tools path;
                resolver 127.0.0.1:{resolver} ipv6=off;
                proxy_set_header Host $host;
                proxy_connect_timeout 2s;
                proxy_read_timeout 2s;
                proxy_pass $urlproxy_backend;
            }}
        }}"
    );
    let site = Site::with(RedisServer::start(&[]), Plan { http, ..Plan::default() });
    let port = site.nginx.port;
    site.redis.cli(&["HSET", "prefix:loop", ".*", &format!("http://back.test:{port}")]);
    wait_in_step(&site);
    wait_listed(&site, "loop");
    let (answers, note) = under_attack(&site, || {
        let ask = |_| try_get_from(port, "by-name.test", "/loop/", wait::SOON).map_or(0, |answer| answer.status);
        let answers: Vec<_> = (0..REQUESTS).map(ask).collect();
        site.serves_on(200);
        answers
    });
    let recovered = site.recovers();
    let hops = std::fs::read_to_string(site.nginx.dir().join("hops.log")).unwrap_or_default().lines().count();
    site.finish(recovered, SOON, FEW)
        .note(format!("{REQUESTS} requests answered {answers:?} after {hops} hops; {note}"))
        .expect(answers.iter().all(|status| matches!(status, 502 | 508)), format!("answered {answers:?}"))
        .expect(hops >= REQUESTS, "no request arrived by name")
        .expect(hops <= REQUESTS * MOST_HOPS, format!("{hops} requests of {REQUESTS}"))
}

/// A DNS server that resolves every name to 127.0.0.1 (RFC 1035, one question per query).
fn resolver() -> u16 {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = socket.local_addr().expect("its address").port();
    thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((read, from)) = socket.recv_from(&mut packet) {
            let (Some(head), Some(question)) = (packet.get(..12), packet.get(12..read)) else { continue };
            let flags_and_counts = [0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
            // The question's name, type A, class IN, TTL ten seconds.
            let answer = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 10, 0, 4, 127, 0, 0, 1];
            let reply = [&head[..2], &flags_and_counts[..], question, &answer[..]].concat();
            let _ = socket.send_to(&reply, from);
        }
    });
    port
}
