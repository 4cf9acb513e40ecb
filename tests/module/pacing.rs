//! Full scans give way when the server is busy, and changes are followed meanwhile.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use urlproxy::sync::Settings;
use urlproxy::table::{Lookup, Scratch};

use crate::following::{following, settings};
use crate::support::redis::RedisServer;
use crate::support::wait::{SOON, wait_for};

/// How long the server holds a page back.
const HELD: Duration = Duration::from_millis(200);
/// The pause after that; longer ones are not made in so small a table.
const PAUSE: Duration = Duration::from_millis(200);
/// More than four pages.
const TOOLS: usize = 2000;

/// What the relay sees of a scan.
enum Seen {
    /// The second page is let through to the server.
    SecondPage(Instant),
    ThirdPage(Instant),
}

/// A way to the server that holds the second page of each scan back.
fn start_busy_relay(server: u16, seen: &Sender<Seen>) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let seen = seen.clone();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, seen) = (client.unwrap(), seen.clone());
            let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).unwrap();
            let (to_client, from_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || pass_on(from_server, to_client, |_| ()));
            thread::spawn(move || {
                let (mut stream, mut scans) = (Vec::new(), 0);
                pass_on(client, server, |bytes| {
                    stream.extend_from_slice(bytes);
                    while let Some(at) = find(&stream, b"SCAN\r\n$") {
                        // A scan begins with cursor 0; later cursors may have one digit as well. The request for a page ends
                        // with that for the keys of the next one.
                        let Some(cursor) = stream.get(at + 7..at + 12) else { return };
                        scans = if cursor == b"1\r\n0\r" { 1 } else { scans + 1 };
                        stream.drain(..at + 7);
                        match scans {
                            3 => {
                                thread::sleep(HELD);
                                drop(seen.send(Seen::SecondPage(Instant::now())));
                            }
                            4 => drop(seen.send(Seen::ThirdPage(Instant::now()))),
                            _ => {}
                        }
                    }
                });
            });
        }
    });
    url
}

fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text)
}

/// Until one side closes.
fn pass_on(mut from: TcpStream, mut to: TcpStream, mut look: impl FnMut(&[u8])) {
    let mut bytes = vec![0; 1 << 20];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        look(&bytes[..read]);
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[test]
fn a_scan_gives_way_to_changes_when_the_server_is_slow() {
    let redis = RedisServer::start(&[]);
    let script = "for i = 1, tonumber(ARGV[1]) do redis.call('HSET', 'prefix:t' .. i, '.*', 'http://10.0.0.1:1') end";
    redis.cli(&["EVAL", script, "0", &TOOLS.to_string()]);
    let (sender, seen) = channel();
    let url = start_busy_relay(redis.port(), &sender);
    let settings = Settings { resync_interval: Duration::from_millis(100), ..settings(&url) };
    following(&settings, |table| {
        // A table that was never loaded does not wait.
        wait_for("loaded", || table.header().is_loaded());
        seen.try_iter().for_each(drop);
        let begun = Instant::now();
        for port in 2.. {
            assert!(begun.elapsed() < SOON, "changes wait for the end of the pause");
            let Seen::SecondPage(released) = seen.recv_timeout(SOON).unwrap() else { continue };
            // The page is applied by then, with the changes that came before it.
            wait_for("the pause", || released.elapsed() > PAUSE / 4);
            redis.cli(&["HSET", "prefix:t1", ".*", &format!("http://10.0.0.1:{port}")]);
            let is_routed = || match table.lookup(b"t1".as_slice(), &mut Scratch::default()) {
                Lookup::Found(record) => {
                    record.routes().next().and_then(|r| r.first_backend()).map(|b| b.port) == Some(port)
                }
                _ => false,
            };
            wait_for("routed", is_routed);
            let routed = Instant::now();
            // On a busy machine a connection may time out, and its scan ends.
            let Seen::ThirdPage(asked) = seen.recv_timeout(SOON).unwrap() else { continue };
            assert!(asked - released >= PAUSE, "{:?}", asked - released);
            // A busy machine may be too late.
            if routed < asked {
                break;
            }
        }
        assert_eq!(table.header().live_tools(), TOOLS as u64);
    });
}
