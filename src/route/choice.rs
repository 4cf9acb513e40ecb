//! Which of a route's backends is asked next.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// Round robin from `turn` among `count` backends: the first that was neither tried in this request nor failed lately;
/// else the first that was not tried. A single backend, or all of them failed, is asked all the same.
///
/// `tried` has a bit per backend. `None` when all were tried.
pub fn choose(count: usize, turn: usize, tried: u64, is_failed: impl Fn(usize) -> bool) -> Option<usize> {
    if count == 1 {
        return (tried & 1 == 0).then_some(0);
    }
    let order = || (0..count).map(|step| (turn % count + step) % count).filter(|&at| tried >> at & 1 == 0);
    order().find(|&at| !is_failed(at)).or_else(|| order().next())
}

/// How much `backend` is the one for `key`: the highest of several is asked first. When one goes or comes, only the keys that
/// were, or are now, its own move. Every proxy comes to the same result.
///
/// Highest random weight: Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998.
pub fn affinity(key: &[u8], backend: &str) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(key);
    // No URL has a zero byte.
    hasher.write(&[0]);
    hasher.write(backend.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_go_round() {
        let chosen: Vec<_> = (0..5).map(|turn| choose(3, turn, 0, |_| false).unwrap()).collect();
        assert_eq!(chosen, [0, 1, 2, 0, 1]);
    }

    #[test]
    fn failed_ones_come_last_and_tried_ones_never() {
        for (turn, tried, failed, want) in [
            (0, 0b000, 0b001, Some(1)),
            (0, 0b010, 0b001, Some(2)),
            (0, 0b110, 0b001, Some(0)),
            (1, 0b000, 0b111, Some(1)),
            (0, 0b111, 0b000, None),
            (usize::MAX, 0, 0, Some(0)),
        ] {
            assert_eq!(choose(3, turn, tried, |at| failed >> at & 1 == 1), want, "{turn} {tried:b} {failed:b}");
        }
    }

    #[test]
    fn keys_are_spread_evenly_and_move_only_with_their_backend() {
        let backends: Vec<_> = (0..4).map(|i| format!("http://10.0.0.{i}:80")).collect();
        let best = |key: u32, backends: &[String]| {
            backends.iter().max_by_key(|backend| affinity(&key.to_be_bytes(), backend)).cloned()
        };
        let before: Vec<_> = (0..1000).map(|key| best(key, &backends)).collect();
        for backend in &backends {
            let count = before.iter().filter(|chosen| chosen.as_ref() == Some(backend)).count();
            assert!((200..300).contains(&count), "{backend}: {count}");
        }
        for (key, chosen) in (0..).zip(&before) {
            let now = best(key, &backends[1..]);
            assert!(now == *chosen || chosen.as_deref() == Some(&*backends[0]));
        }
    }

    #[test]
    fn a_single_backend_is_never_out() {
        assert_eq!(choose(1, 7, 0, |_| true), Some(0));
        assert_eq!(choose(1, 7, 1, |_| false), None);
        assert_eq!(choose(64, 63, !(1 << 62), |_| true), Some(62));
        assert_eq!(choose(0, 0, 0, |_| false), None);
    }
}
