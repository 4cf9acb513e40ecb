//! Text of a bounded length, put together on the stack: `core::fmt` costs more than the whole lookup.

use std::net::SocketAddr;

/// `https://`, the longest DNS name, and a port.
const BYTES: usize = 8 + 253 + 6;

/// Bytes that are appended until there is no room.
pub(super) struct ShortText {
    bytes: [u8; BYTES],
    len: usize,
}

impl Default for ShortText {
    fn default() -> Self {
        Self { bytes: [0; BYTES], len: 0 }
    }
}

impl ShortText {
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Appends what fits.
    pub fn push(&mut self, part: &[u8]) {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        self.len += part.len().min(room.len());
        room.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
    }

    /// `10.0.0.1:80`, `[fd00::1]:80`
    pub fn push_addr(&mut self, addr: SocketAddr) {
        match addr {
            SocketAddr::V4(v4) => {
                for (at, octet) in v4.ip().octets().into_iter().enumerate() {
                    if at > 0 {
                        self.push_byte(b'.');
                    }
                    self.push_decimal(octet.into());
                }
                self.push_byte(b':');
                self.push_decimal(addr.port());
            }
            SocketAddr::V6(_) => self.push(addr.to_string().as_bytes()),
        }
    }

    /// `host:80`
    pub fn push_name(&mut self, name: &str, port: u16) {
        self.push(name.as_bytes());
        self.push_byte(b':');
        self.push_decimal(port);
    }

    fn push_byte(&mut self, byte: u8) {
        if let Some(to) = self.bytes.get_mut(self.len) {
            *to = byte;
            self.len += 1;
        }
    }

    fn push_decimal(&mut self, number: u16) {
        let mut power = match number {
            0..10 => 1,
            10..100 => 10,
            100..1_000 => 100,
            1_000..10_000 => 1_000,
            _ => 10_000,
        };
        while power > 0 {
            self.push_byte(b'0' + (number / power % 10) as u8);
            power /= 10;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_the_standard_library_writes_them() {
        for text in ["10.1.23.255:8000", "0.0.0.0:1", "127.0.0.1:65535", "[fd00::7]:443"] {
            let mut short = ShortText::default();
            short.push_addr(text.parse().unwrap());
            assert_eq!(short.as_bytes(), text.as_bytes());
        }
        let mut short = ShortText::default();
        short.push_name("exec-1", 90);
        assert_eq!(short.as_bytes(), b"exec-1:90");
    }

    #[test]
    fn what_does_not_fit_is_cut() {
        let mut short = ShortText::default();
        short.push(&[b'x'; BYTES - 1]);
        short.push_name("yz", 1);
        assert_eq!((short.as_bytes().len(), short.as_bytes().last()), (BYTES, Some(&b'y')));
    }
}
