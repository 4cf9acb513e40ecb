//! Invalidation pushes of client-side tracking.

use std::collections::VecDeque;

use super::resp::Reply;

/// Most bytes of queued keys and their overhead; beyond that, all keys count as invalidated.
const MAX_QUEUED_BYTES: usize = 16 << 20;
/// Overhead per queued key.
const KEY_OVERHEAD_BYTES: usize = 32;

/// The content of an invalidation push.
///
/// <https://redis.io/docs/latest/develop/reference/client-side-caching/>
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invalidation {
    /// These keys were written, were deleted or have expired.
    Keys(Vec<Vec<u8>>),
    /// Any key may have changed: the database was flushed, or the queue overflowed. A full scan is due; keys are not known to
    /// be gone.
    All,
}

impl Invalidation {
    /// Parses a push; `None` for other kinds of pushes. An invalidation of unknown shape counts as [`Invalidation::All`].
    #[doc(hidden)]
    pub fn from_push(push: &[Reply<'_>]) -> Option<Self> {
        match push {
            // Redis 6.0.0 to 6.0.5 send an empty key instead of null; no tracked prefix matches it.
            [Reply::Text(b"invalidate"), Reply::Array(keys)] if !keys.contains(&Reply::Text(b"")) => {
                let keys = keys.iter().map(|key| if let Reply::Text(key) = key { Some(key.to_vec()) } else { None });
                Some(keys.collect::<Option<_>>().map_or(Self::All, Self::Keys))
            }
            [Reply::Text(b"invalidate"), ..] => Some(Self::All),
            _ => None,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Keys(keys) => keys.iter().map(|key| key.len() + KEY_OVERHEAD_BYTES).sum(),
            Self::All => KEY_OVERHEAD_BYTES,
        }
    }
}

/// A bounded queue of invalidations.
#[derive(Debug, Default)]
pub(super) struct Pushes {
    queue: VecDeque<Invalidation>,
    bytes: usize,
}

impl Pushes {
    /// Queues the invalidation in a push, if it is one.
    pub(super) fn note(&mut self, push: &[Reply<'_>]) {
        let Some(invalidation) = Invalidation::from_push(push) else { return };
        self.bytes += invalidation.bytes();
        // `All` covers all other invalidations.
        if self.bytes > MAX_QUEUED_BYTES || invalidation == Invalidation::All {
            self.queue.clear();
            self.bytes = KEY_OVERHEAD_BYTES;
            self.queue.push_back(Invalidation::All);
        } else if self.queue.front() != Some(&Invalidation::All) {
            self.queue.push_back(invalidation);
        } else {
            self.bytes = KEY_OVERHEAD_BYTES;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether the queue holds [`Invalidation::All`], and then nothing else.
    pub(super) fn is_flush_pending(&self) -> bool {
        self.queue.front() == Some(&Invalidation::All)
    }

    /// Takes the oldest.
    pub(super) fn take(&mut self) -> Option<Invalidation> {
        let taken = self.queue.pop_front()?;
        self.bytes = self.bytes.saturating_sub(taken.bytes());
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(keys: &[&'static [u8]]) -> [Reply<'static>; 2] {
        [Reply::Text(b"invalidate"), Reply::Array(keys.iter().map(|key| Reply::Text(key)).collect())]
    }

    #[test]
    fn pushes_invalidate_keys_or_everything() {
        let named = Invalidation::Keys(vec![b"prefix:a".to_vec(), b"prefix:b".to_vec()]);
        for (push, want) in [
            (&keys(&[b"prefix:a", b"prefix:b"])[..], Some(named)),
            (&[Reply::Text(b"invalidate"), Reply::Null], Some(Invalidation::All)),
            (&[Reply::Text(b"invalidate"), Reply::Array(vec![Reply::Integer(1)])], Some(Invalidation::All)),
            (&[Reply::Text(b"invalidate")], Some(Invalidation::All)),
            (&keys(&[b""]), Some(Invalidation::All)),
            (&[Reply::Text(b"message"), Reply::Text(b"channel"), Reply::Text(b"text")], None),
            (&[], None),
        ] {
            let mut pushes = Pushes::default();
            pushes.note(push);
            assert_eq!(pushes.take(), want, "{push:?}");
        }
    }

    #[test]
    fn all_replaces_other_invalidations() {
        let mut pushes = Pushes::default();
        pushes.note(&keys(&[b"a"]));
        pushes.note(&[Reply::Text(b"invalidate"), Reply::Null]);
        pushes.note(&keys(&[b"b"]));
        assert_eq!((pushes.take(), pushes.take(), pushes.bytes), (Some(Invalidation::All), None, 0));
    }

    #[test]
    fn an_overflowing_queue_becomes_all() {
        static KEY: [u8; 1 << 20] = [b'k'; 1 << 20];
        let mut pushes = Pushes::default();
        (0..15).for_each(|_| pushes.note(&keys(&[&KEY])));
        assert_eq!(pushes.queue.len(), 15);
        pushes.note(&keys(&[&KEY]));
        assert_eq!((pushes.take(), pushes.take(), pushes.bytes), (Some(Invalidation::All), None, 0));
        pushes.note(&keys(&[b"a"]));
        assert_eq!(pushes.take(), Some(Invalidation::Keys(vec![b"a".to_vec()])));
    }
}
