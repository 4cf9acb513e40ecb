//! The Redis client against misbehaving servers, proxies and networks.

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

use crate::connecting::{LONG, SHORT, open, open_with_short_timeouts, refusal, source, track};
use crate::support::redis::RedisServer;
use crate::support::wait::SOON;

/// Runs `serve` for the first client of a new port.
fn server(serve: impl FnOnce(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    thread::spawn(move || serve(listener.accept().unwrap().0));
    url
}

/// Answers the login like Redis, then passes the connection to `serve`.
fn server_after_login(serve: impl FnOnce(TcpStream) + Send + 'static) -> String {
    server(|mut client| {
        for (asked, answer) in [("HELLO", "%1\r\n$5\r\nproto\r\n:3\r\n"), ("SELECT", "+OK\r\n+OK\r\n")] {
            await_word(&mut client, asked);
            client.write_all(answer.as_bytes()).unwrap();
        }
        serve(client);
    })
}

/// Keeps the connection open without sending, until the test drops the other end of `held`.
fn hold(_client: TcpStream, held: &Receiver<()>) {
    let _ = held.recv();
}

/// Reads until `word` is received.
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
fn old_servers_are_reported() {
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
fn refusals_never_quote_the_password() {
    let url = server(|mut client| {
        await_word(&mut client, "HELLO");
        client.write_all(b"-ERR syntax error in 'AUTH default s3cret'\r\n").unwrap();
        await_word(&mut client, "never");
    });
    let refused = refusal(open(&url.replace("//", "//:s3cret@")));
    assert_eq!(refused, "server says ERR syntax error in 'AUTH default ***'");
}

#[test]
fn logins_without_answer_time_out() {
    let (_hold, held) = channel();
    let url = server(move |client| hold(client, &held));
    assert!(matches!(open_with_short_timeouts(&url).err(), Some(ConnectionError::Silent(_))));
}

/// A port with a full listen queue, so that new connections hang. Keep the returned sockets.
fn hanging_port() -> (OwnedFd, Vec<OwnedFd>, u16) {
    let socket = || socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
    let listener = socket();
    bind(&listener, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    listen(&listener, 0).unwrap();
    let address = SocketAddrV4::try_from(getsockname(&listener).unwrap()).unwrap();
    let waiting = (0..4).map(|_| socket()).inspect(|client| _ = connect(client, &address)).collect();
    (listener, waiting, address.port())
}

#[test]
fn connections_that_hang_time_out() {
    let (_listener, _waiting, port) = hanging_port();
    let begun = Instant::now();
    let refused = refusal(open_with_short_timeouts(&format!("redis://127.0.0.1:{port}")));
    assert_eq!(refused, format!("cannot connect to 127.0.0.1:{port}: timed out"));
    assert!(begun.elapsed() >= SHORT.connect, "{:?}", begun.elapsed());
}

#[test]
fn stop_ends_waits_within_a_slice() {
    let (_listener, _waiting, port) = hanging_port();
    let (_hold, held) = channel();
    let mute = server_after_login(move |client| hold(client, &held));
    let checks = Cell::new(0);
    let stop = || checks.replace(checks.get() + 1) == 2;
    let outcome = Connection::open(&source(&format!("redis://127.0.0.1:{port}")), LONG, &stop);
    assert!(matches!(outcome.err(), Some(ConnectionError::Stopped)));
    assert_eq!(checks.get(), 3, "checked before each of two slices, then no more");

    let stopping = Cell::new(false);
    let stop = || stopping.get();
    let mut connection = Connection::open(&source(&mute), LONG, &stop).unwrap();
    stopping.set(true);
    assert!(matches!(connection.wait_push(Instant::now() + SOON), Err(ConnectionError::Stopped)));
}

/// A proxy that forwards replies from `port` one byte at a time.
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
fn replies_decode_byte_by_byte() {
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

/// Sends `bytes` one at a time, 20 ms apart, until the test hangs up.
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
fn replies_that_drip_forever_time_out() {
    let (_hold, held) = channel();
    let url =
        server_after_login(move |client| drip(client, b"+".iter().copied().chain([b'x'].into_iter().cycle()), &held));
    let mut connection = open_with_short_timeouts(&url).unwrap();
    let begun = Instant::now();
    let outcome = connection.reply(|_| ());
    assert!(matches!(outcome, Err(ConnectionError::Slow(_))), "{outcome:?}");
    assert!(begun.elapsed() >= SHORT.reply, "{:?}", begun.elapsed());
}

#[test]
fn pushes_that_drip_forever_do_not_extend_the_wait() {
    let (_hold, held) = channel();
    let url =
        server_after_login(move |client| drip(client, b">2\r\n$999\r\n".iter().copied().chain([b'x'; 999]), &held));
    let mut connection = open_with_short_timeouts(&url).unwrap();
    // A wait until the push is complete would return true.
    assert!(!connection.wait_push(Instant::now() + Duration::from_millis(200)).unwrap());
    assert!(connection.ping().is_err(), "the next reply never comes");
}

#[test]
fn endless_pushes_extend_neither_reply_nor_wait() {
    let flood = || {
        server_after_login(|mut client| {
            let pushes = b">2\r\n+message\r\n+x\r\n".repeat(1000);
            while client.write_all(&pushes).is_ok() {}
        })
    };
    let mut connection = open_with_short_timeouts(&flood()).unwrap();
    let outcome = connection.reply(|_| ());
    assert!(matches!(outcome, Err(ConnectionError::Slow(_))), "{outcome:?}");
    let mut connection = open_with_short_timeouts(&flood()).unwrap();
    assert!(!connection.wait_push(Instant::now() + Duration::from_millis(200)).unwrap());
}

#[test]
fn invalid_replies_are_errors() {
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
fn unsolicited_replies_are_errors() {
    let (_hold, held) = channel();
    let url = server_after_login(move |mut client| {
        client.write_all(b"+PONG\r\n").unwrap();
        hold(client, &held);
    });
    let outcome = open(&url).unwrap().wait_push(Instant::now() + SOON);
    assert!(matches!(&outcome, Err(ConnectionError::Unexpected(what)) if what == "\"PONG\""), "{outcome:?}");
}

#[test]
fn servers_that_answer_before_reading_on_do_not_deadlock() {
    const COMMANDS: usize = 20_000;
    // An unbuffered echo, as in some proxies: it reads the next piece after writing the last one.
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
fn unread_commands_time_out() {
    let (_hold, held) = channel();
    let url = server_after_login(move |client| hold(client, &held));
    let outcome = open_with_short_timeouts(&url).unwrap().send(&vec![b'x'; 64 << 20]);
    assert!(matches!(outcome, Err(ConnectionError::Stuck(_))), "{outcome:?}");
}

#[cfg(feature = "tls")]
#[test]
fn endless_handshakes_time_out() {
    let (_hold, held) = channel();
    let url = server(move |client| hold(client, &held));
    let refused = refusal(open_with_short_timeouts(&url.replace("redis:", "rediss:")));
    assert_eq!(refused, "TLS with \"127.0.0.1\" failed: handshake timed out");
}
