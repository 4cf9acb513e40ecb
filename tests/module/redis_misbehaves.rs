//! The companion's connection against servers, proxies and networks that do what Redis never does.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use redis::cmd;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, getsockname, listen, socket_with};
use urlproxy::redis_client::{Connection, ConnectionError, Reply, RespError};

use crate::connecting::{PATIENT, SHORT, open, open_impatient, refusal, source, track};
use crate::support::redis::RedisServer;
use crate::support::wait::SOON;

/// Runs `serve` for the first client of a new port; gone with the test program.
fn server(serve: impl FnOnce(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    thread::spawn(move || serve(listener.accept().unwrap().0));
    url
}

/// Answers the login like Redis, then hands the connection to `serve`.
fn server_after_login(serve: impl FnOnce(TcpStream) + Send + 'static) -> String {
    server(|mut client| {
        for (asked, answer) in [("HELLO", "%1\r\n$5\r\nproto\r\n:3\r\n"), ("SELECT", "+OK\r\n+OK\r\n")] {
            await_word(&mut client, asked);
            client.write_all(answer.as_bytes()).unwrap();
        }
        serve(client);
    })
}

/// Keeps the connection open, says nothing, until the test drops the other end of `held`.
fn hold(_client: TcpStream, held: &Receiver<()>) {
    let _ = held.recv();
}

/// Reads until `word` and whatever came with it.
fn await_word(client: &mut TcpStream, word: &str) {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(word) {
        let mut bytes = [0; 4096];
        let received = client.read(&mut bytes).unwrap();
        assert_ne!(received, 0, "closed before {word}");
        seen.extend_from_slice(&bytes[..received]);
    }
}

#[test]
fn an_old_server_is_named_as_one() {
    for answer in [
        "-ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `default`, `s3cret`, \r\n",
        "-NOPROTO unsupported protocol version\r\n",
    ] {
        let url = server(move |mut client| {
            await_word(&mut client, "HELLO");
            client.write_all(answer.as_bytes()).unwrap();
            await_word(&mut client, "never");
        });
        let refused = refusal(open(&url.replace("//", "//:s3cret@")));
        assert_eq!(refused, "server does not know HELLO 3: tracking needs Redis 6 or later");
    }
}

#[test]
fn a_refusal_never_quotes_the_password() {
    let url = server(|mut client| {
        await_word(&mut client, "HELLO");
        client.write_all(b"-ERR syntax error in 'AUTH default s3cret'\r\n").unwrap();
        await_word(&mut client, "never");
    });
    let refused = refusal(open(&url.replace("//", "//:s3cret@")));
    assert_eq!(refused, "server says ERR syntax error in 'AUTH default ***'");
}

#[test]
fn a_server_that_never_answers_is_given_up_in_the_login() {
    let (_hold, held) = channel();
    let url = server(move |client| hold(client, &held));
    assert!(matches!(open_impatient(&url).err(), Some(ConnectionError::Silent(_))));
}

/// A port whose queue of connections is full: further ones get no answer at all. Keep what is returned.
fn deaf_port() -> (OwnedFd, Vec<OwnedFd>, u16) {
    let socket = || socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
    let listener = socket();
    bind(&listener, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    listen(&listener, 0).unwrap();
    let address = SocketAddrV4::try_from(getsockname(&listener).unwrap()).unwrap();
    let waiting = (0..4).map(|_| socket()).inspect(|client| _ = connect(client, &address)).collect();
    (listener, waiting, address.port())
}

#[test]
fn a_connection_that_is_never_accepted_times_out() {
    let (_listener, _waiting, port) = deaf_port();
    let begun = Instant::now();
    let refused = refusal(open_impatient(&format!("redis://127.0.0.1:{port}")));
    assert_eq!(refused, format!("cannot connect to 127.0.0.1:{port}: timed out"));
    assert!(begun.elapsed() >= SHORT.connect, "{:?}", begun.elapsed());
}

#[test]
fn stop_ends_every_wait_within_a_slice() {
    let (_listener, _waiting, deaf) = deaf_port();
    let (_hold, held) = channel();
    let mute = server_after_login(move |client| hold(client, &held));
    let asked = Cell::new(0);
    let stop = || asked.replace(asked.get() + 1) == 2;
    let outcome = Connection::open(&source(&format!("redis://127.0.0.1:{deaf}")), PATIENT, &stop);
    assert!(matches!(outcome.err(), Some(ConnectionError::Stopped)));
    assert_eq!(asked.get(), 3, "asked before each of two slices, and then no more");

    let stopping = Cell::new(false);
    let stop = || stopping.get();
    let mut connection = Connection::open(&source(&mute), PATIENT, &stop).unwrap();
    stopping.set(true);
    assert!(matches!(connection.wait_push(Instant::now() + SOON), Err(ConnectionError::Stopped)));
}

/// A proxy that hands on what `port` sends one byte at a time.
fn dripping(port: u16) -> String {
    server(move |client| {
        let upstream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        client.set_nodelay(true).unwrap();
        let (mut asked, mut answered) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
        thread::spawn(move || {
            let _ = std::io::copy(&mut asked, &mut &upstream);
            upstream.shutdown(Shutdown::Write)
        });
        let mut byte = [0];
        while answered.read(&mut byte).is_ok_and(|n| n == 1) && (&client).write_all(&byte).is_ok() {}
    })
}

#[test]
fn replies_may_come_byte_by_byte() {
    let server = RedisServer::start(&[]);
    let mut connection = open(&dripping(server.port())).unwrap();
    track(&mut connection);
    let mut packed = Vec::new();
    (0..100)
        .for_each(|i| cmd("HSET").arg("prefix:a").arg(i).arg(format!("value {i}")).write_packed_command(&mut packed));
    cmd("HGETALL").arg("prefix:a").write_packed_command(&mut packed);
    connection.send(&packed).unwrap();
    for _ in 0..100 {
        connection.reply(|reply| assert_eq!(reply, Reply::Integer(1))).unwrap();
    }
    let pairs = connection.reply(|reply| if let Reply::Map(pairs) = reply { pairs.len() } else { 0 });
    assert_eq!(pairs.unwrap(), 100);
    assert!(connection.wait_push(Instant::now() + SOON).unwrap());
}

/// Sends `bytes` one at a time, each 20 ms after the last, until the test hangs up.
fn drip(mut client: TcpStream, bytes: impl Iterator<Item = u8>, hang_up: &Receiver<()>) {
    client.set_nodelay(true).unwrap();
    for byte in bytes {
        let pause = hang_up.recv_timeout(Duration::from_millis(20));
        if pause != Err(RecvTimeoutError::Timeout) || client.write_all(&[byte]).is_err() {
            return;
        }
    }
}

#[test]
fn a_reply_that_drips_for_ever_is_given_up() {
    let (_hold, held) = channel();
    let url =
        server_after_login(move |client| drip(client, b"+".iter().copied().chain([b'x'].into_iter().cycle()), &held));
    let mut connection = open_impatient(&url).unwrap();
    let begun = Instant::now();
    let outcome = connection.reply(|_| ());
    assert!(matches!(outcome, Err(ConnectionError::Slow(_))), "{outcome:?}");
    assert!(begun.elapsed() >= SHORT.reply, "{:?}", begun.elapsed());
}

#[test]
fn a_push_that_drips_for_ever_does_not_hold_the_wait() {
    let (_hold, held) = channel();
    let url =
        server_after_login(move |client| drip(client, b">2\r\n$999\r\n".iter().copied().chain([b'x'; 999]), &held));
    let mut connection = open_impatient(&url).unwrap();
    // Were the wait held until the push is whole, this would be true.
    assert!(!connection.wait_push(Instant::now() + Duration::from_millis(200)).unwrap());
    assert!(connection.ping().is_err(), "but the next reply never comes");
}

#[test]
fn pushes_without_end_hold_neither_reply_nor_wait() {
    let flood = || {
        server_after_login(|mut client| {
            let pushes = b">2\r\n+message\r\n+x\r\n".repeat(1000);
            while client.write_all(&pushes).is_ok() {}
        })
    };
    let mut connection = open_impatient(&flood()).unwrap();
    let outcome = connection.reply(|_| ());
    assert!(matches!(outcome, Err(ConnectionError::Slow(_))), "{outcome:?}");
    let mut connection = open_impatient(&flood()).unwrap();
    assert!(!connection.wait_push(Instant::now() + Duration::from_millis(200)).unwrap());
}

#[test]
fn what_is_no_reply_is_given_up() {
    for (sent, want) in [
        ("HTTP/1.1 400 Bad Request\r\n", RespError::UnknownType(b'H')),
        ("$536870912\r\n", RespError::BulkTooLong(512 << 20)),
        ("*2000000000\r\n", RespError::TooManyElements(2_000_000_000)),
        ("$3\r\nabcdef", RespError::Unterminated(3)),
    ] {
        let (_hold, held) = channel();
        let url = server_after_login(move |mut client| {
            client.write_all(sent.as_bytes()).unwrap();
            hold(client, &held);
        });
        let mut connection = open(&url).unwrap();
        match connection.reply(|_| ()) {
            Err(ConnectionError::Resp(error)) => assert_eq!(error, want, "{sent}"),
            other => panic!("{sent}: {other:?}"),
        }
        assert!(matches!(connection.reply(|_| ()), Err(ConnectionError::GivenUp)));
    }
}

#[test]
fn a_reply_that_nobody_asked_for_is_given_up() {
    let (_hold, held) = channel();
    let url = server_after_login(move |mut client| {
        client.write_all(b"+PONG\r\n").unwrap();
        hold(client, &held);
    });
    let outcome = open(&url).unwrap().wait_push(Instant::now() + SOON);
    assert!(matches!(&outcome, Err(ConnectionError::Unexpected(what)) if what == "\"PONG\""), "{outcome:?}");
}

#[test]
fn a_server_that_answers_before_it_reads_on_is_no_deadlock() {
    const COMMANDS: usize = 20_000;
    // Echoes with nothing buffered: it reads the next piece only when the last one is written, as a proxy may.
    let url = server_after_login(|mut client| {
        let mut piece = [0; 4096];
        while let Ok(n @ 1..) = client.read(&mut piece) {
            if client.write_all(&piece[..n]).is_err() {
                return;
            }
        }
    });
    let mut connection = open(&url).unwrap();
    let word = "x".repeat(1000);
    let echoed = format!("*1\r\n${}\r\n{word}\r\n", word.len());
    connection.send(echoed.repeat(COMMANDS).as_bytes()).unwrap();
    for _ in 0..COMMANDS {
        assert!(connection.reply(|reply| reply == Reply::Array(vec![Reply::Text(word.as_bytes())])).unwrap());
    }
}

#[test]
fn commands_that_nobody_reads_are_given_up() {
    let (_hold, held) = channel();
    let url = server_after_login(move |client| hold(client, &held));
    let outcome = open_impatient(&url).unwrap().send(&vec![b'x'; 64 << 20]);
    assert!(matches!(outcome, Err(ConnectionError::Stuck(_))), "{outcome:?}");
}

#[cfg(feature = "tls")]
#[test]
fn a_handshake_that_never_ends_times_out() {
    let (_hold, held) = channel();
    let url = server(move |client| hold(client, &held));
    let refused = refusal(open_impatient(&url.replace("redis:", "rediss:")));
    assert_eq!(refused, "no TLS with \"127.0.0.1\": handshake timed out");
}
