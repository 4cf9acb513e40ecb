//! Lines of `/proc/net/tcp`: any text yields the sockets that listen on a port, at most one per line.

use urlproxy::grid::client::parse_sockets;

pub fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    assert!(parse_sockets(&text, 8000).len() <= text.lines().count());
    // Port and state as they must be, so that the fields around them are reached.
    let line = |address: &str, rest: &str| format!("  0: {address}:1F40 00000000:0000 0A {rest}\n");
    if let Some((address, rest)) = text.split_once('\n') {
        let found = parse_sockets(&line(address, rest), 8000);
        assert!(found.len() <= 1 + rest.lines().count());
    }
    let known = parse_sockets(&(line("0100007F", "0:0 0:0 0 1000") + &text), 8000);
    assert_eq!(known.first().map(|socket| (socket.address.to_string(), socket.uid)), Some(("127.0.0.1".into(), 1000)));
}
