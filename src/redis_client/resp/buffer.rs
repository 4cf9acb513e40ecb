//! Bytes received and not yet decoded: filled at the end, consumed at the start, given back when a big reply is gone.

/// The room offered for one read, at least, in bytes.
const MIN_ROOM: usize = 16 << 10;
/// The size a buffer starts with and returns to, in bytes.
const USUAL: usize = 64 << 10;
/// An empty buffer larger than this is given back, in bytes: the companion lives as long as its nginx worker.
const KEEP: usize = 1 << 20;

/// A growable queue of bytes in one piece.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    /// Initialised throughout; what counts is `start..end`.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// What was received and not consumed.
    pub(super) fn unread(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// Takes the first `length` unread bytes off the queue; they stay readable through the returned slice.
    pub(super) fn consume(&mut self, length: usize) -> &[u8] {
        let from = self.start;
        self.start = from.saturating_add(length).min(self.end);
        self.bytes.get(from..self.start).unwrap_or_default()
    }

    /// Free room at the end, at least 16 KiB of it. Follow with [`Buffer::filled`].
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > KEEP {
                self.bytes = Vec::new();
            }
        }
        if self.bytes.len() - self.end < MIN_ROOM && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.bytes.len() - self.end < MIN_ROOM {
            self.bytes.resize((self.bytes.len() * 2).max(USUAL), 0);
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// Says that the first `length` bytes of the room were written.
    pub(super) fn filled(&mut self, length: usize) {
        self.end = self.end.saturating_add(length).min(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(buffer: &mut Buffer, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = buffer.room();
            let n = bytes.len().min(room.len());
            let (now, later) = bytes.split_at(n);
            room[..n].copy_from_slice(now);
            buffer.filled(n);
            bytes = later;
        }
    }

    #[test]
    fn what_goes_in_comes_out() {
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
    fn memory_is_given_back() {
        let mut buffer = Buffer::default();
        put(&mut buffer, &vec![0; 3 * KEEP]);
        assert!(buffer.bytes.len() >= 3 * KEEP);
        buffer.consume(usize::MAX);
        buffer.room();
        assert_eq!(buffer.bytes.len(), USUAL);
    }
}
