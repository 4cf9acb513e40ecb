//! Commands to proxylistener: any bytes in pieces of any size give the same command or error.

use urlproxy::grid::parse_command;

pub fn check(bytes: &[u8]) {
    let Some((&piece, bytes)) = bytes.split_first() else { return };
    let whole = parse_command(bytes);
    // At most some 64 pieces.
    let piece = usize::from(piece).max(1 + bytes.len() / 64);
    let mut len = 0;
    let first = loop {
        let parsed = parse_command(&bytes[..len]);
        if parsed != Ok(None) || len == bytes.len() {
            break parsed;
        }
        len = bytes.len().min(len + piece);
    };
    assert_eq!(first, whole);
}
