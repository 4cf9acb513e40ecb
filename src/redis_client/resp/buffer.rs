//! Received bytes that are not decoded yet: filled at the end, consumed at the start, shrunk after a large reply.

/// Least space for one read, in bytes.
const MIN_SPACE: usize = 16 << 10;
/// Initial and usual size of a buffer, in bytes.
const USUAL: usize = 64 << 10;
/// An empty buffer larger than this many bytes is freed: a companion lives as long as its nginx worker.
const KEEP: usize = 1 << 20;

/// A growable, contiguous queue of bytes.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    /// Fully initialized; `start..end` is in use.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// Received bytes that are not consumed.
    pub(super) fn unread(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// Consumes and returns the first `length` unread bytes.
    pub(super) fn consume(&mut self, length: usize) -> &[u8] {
        let from = self.start;
        self.start = from.saturating_add(length).min(self.end);
        self.bytes.get(from..self.start).unwrap_or_default()
    }

    /// Free space at the end, at least 16 KiB. Follow with [`Buffer::filled`].
    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > KEEP {
                self.bytes = Vec::new();
            }
        }
        if self.bytes.len() - self.end < MIN_SPACE && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.bytes.len() - self.end < MIN_SPACE {
            self.bytes.resize((self.bytes.len() * 2).max(USUAL), 0);
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// Marks the first `length` bytes of the space as received.
    pub(super) fn filled(&mut self, length: usize) {
        self.end = self.end.saturating_add(length).min(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(buffer: &mut Buffer, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let space = buffer.space();
            let n = bytes.len().min(space.len());
            let (now, later) = bytes.split_at(n);
            space[..n].copy_from_slice(now);
            buffer.filled(n);
            bytes = later;
        }
    }

    #[test]
    fn bytes_come_out_as_they_went_in() {
        let mut buffer = Buffer::default();
        let sent: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
        let mut got = Vec::new();
        for chunk in sent.chunks(70_001) {
            put(&mut buffer, chunk);
            let take = buffer.unread().len() * 2 / 3;
            got.extend_from_slice(buffer.consume(take));
        }
        got.extend_from_slice(buffer.consume(usize::MAX));
        assert!(got == sent);
    }

    #[test]
    fn large_buffers_are_freed() {
        let mut buffer = Buffer::default();
        put(&mut buffer, &vec![0; 3 * KEEP]);
        assert!(buffer.bytes.len() >= 3 * KEEP);
        buffer.consume(usize::MAX);
        buffer.space();
        assert_eq!(buffer.bytes.len(), USUAL);
    }
}
