//! Formats an address on the stack: `core::fmt` would cost more than the whole lookup.

use std::net::SocketAddr;

/// Enough for the longest IPv6 address with port.
const BYTES: usize = 48;

/// The digits of each octet, then their number.
const OCTETS: [[u8; 4]; 256] = {
    let mut octets = [[0; 4]; 256];
    let mut n = 0;
    while n < 256 {
        let (a, b, c) = (b'0' + (n / 100) as u8, b'0' + (n / 10 % 10) as u8, b'0' + (n % 10) as u8);
        octets[n] = if n >= 100 {
            [a, b, c, 3]
        } else if n >= 10 {
            [b, c, 0, 2]
        } else {
            [c, 0, 0, 1]
        };
        n += 1;
    }
    octets
};

/// An address as text.
#[derive(Clone, Copy)]
pub(in crate::nginx) struct AddrText {
    bytes: [u8; BYTES],
    len: u8,
}

impl AddrText {
    /// Empty text.
    pub const EMPTY: Self = Self { bytes: [0; BYTES], len: 0 };

    /// `10.0.0.1:80` or `[fd00::1]:80`.
    #[inline(never)]
    pub fn of(addr: SocketAddr) -> Self {
        let (mut bytes, mut len) = ([0; BYTES], 0);
        match addr {
            SocketAddr::V4(v4) => {
                for octet in v4.ip().octets() {
                    let [a, b, c, digits] = OCTETS[usize::from(octet)];
                    // Writes three bytes and keeps `digits` of them: no branch per digit.
                    put(&mut bytes, len, [a, b, c]);
                    len += usize::from(digits);
                    put(&mut bytes, len, *b".");
                    len += 1;
                }
                put(&mut bytes, len - 1, *b":");
                let port = addr.port();
                for power in [10_000, 1_000, 100, 10, 1] {
                    if port >= power || power == 1 {
                        put(&mut bytes, len, [b'0' + (port / power % 10) as u8]);
                        len += 1;
                    }
                }
            }
            SocketAddr::V6(_) => {
                for byte in addr.to_string().bytes() {
                    put(&mut bytes, len, [byte]);
                    len += 1;
                }
            }
        }
        Self { bytes, len: len.min(BYTES) as u8 }
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len.into()).unwrap_or_default()
    }
}

#[inline(always)]
fn put<const N: usize>(bytes: &mut [u8; BYTES], at: usize, part: [u8; N]) {
    if let Some(room) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *room = part;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_matches_the_standard_library() {
        for text in ["10.1.23.255:8000", "0.0.0.0:1", "127.0.0.1:65535", "109.110.99.100:10", "[fd00::7]:443"] {
            check(text);
        }
        check("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535");
    }

    fn check(text: &str) {
        assert_eq!(AddrText::of(text.parse().unwrap()).as_bytes(), text.as_bytes());
    }
}
