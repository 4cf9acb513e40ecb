//! Any bytes from a server, in pieces of any size, give the same replies and the same error; so do the parsers of whole replies.

use urlproxy::redis_client::{Decoder, Invalidation, Reply, Role, master_address};

pub fn check(bytes: &[u8]) {
    let Some((&piece, bytes)) = bytes.split_first() else { return };
    let in_pieces = decode(bytes, usize::from(piece).max(1));
    assert_eq!(in_pieces, decode(bytes, usize::MAX));
}

/// The replies, and the error that ended them.
fn decode(bytes: &[u8], piece: usize) -> (Vec<String>, Option<String>) {
    let mut decoder = Decoder::new();
    let (mut seen, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let space = decoder.space();
        let (now, later) = rest.split_at(rest.len().min(piece).min(space.len()));
        space[..now.len()].copy_from_slice(now);
        decoder.filled(now.len());
        rest = later;
        loop {
            match decoder.next_reply() {
                Ok(Some(reply)) => seen.push(shown(&reply)),
                Ok(None) => break,
                Err(error) => return (seen, Some(error.to_string())),
            }
        }
    }
    (seen, None)
}

fn shown(reply: &Reply<'_>) -> String {
    let push = if let Reply::Push(parts) | Reply::Array(parts) = reply { Invalidation::from_push(parts) } else { None };
    if let Ok(address) = master_address(reply) {
        assert!(address.port > 0 && !address.host.is_empty() && !address.host.contains(char::is_control));
    }
    format!("{reply:?} {:?} {push:?}", Role::of(reply))
}
