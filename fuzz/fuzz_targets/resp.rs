//! Any bytes from a server, in pieces of any size, give replies or an error, without a crash.
#![no_main]

use libfuzzer_sys::fuzz_target;
use urlproxy::redis_client::Decoder;

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let mut decoder = Decoder::new();
    for chunk in bytes.chunks(usize::from(piece).max(1)) {
        let space = decoder.space();
        let len = chunk.len().min(space.len());
        space[..len].copy_from_slice(&chunk[..len]);
        decoder.filled(len);
        loop {
            match decoder.next_reply() {
                Ok(Some(reply)) => drop(format!("{reply:?}")),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});
