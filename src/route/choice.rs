//! Which of a route's backends is asked next.

use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};

use siphasher::sip::SipHasher13;

use super::{MAX_BACKENDS, Scheme};

/// What decides between a request's backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Round robin: how many requests had a turn before this one.
    Turn(usize),
    /// Affinity to a key, by its [`key_hash`].
    Key(u64),
}

/// The backend of `count` that is asked next: the first in `order` that was not tried in this request and that `admits` lets
/// in; else the first that was not tried. A single backend, or one of several that are all out, is asked all the same.
///
/// `tried` has a bit per backend. `weight` is a backend's affinity to the key, for [`Order::Key`]. `admits` is asked about one
/// backend after the other, until it says yes. `None` when all were tried.
pub fn choose(
    count: usize,
    order: Order,
    tried: u64,
    weight: impl Fn(usize) -> u64,
    admits: impl Fn(usize) -> bool,
) -> Option<usize> {
    if count == 1 {
        return (tried & 1 == 0).then_some(0);
    }
    let is_left = |at: usize| tried >> at & 1 == 0;
    match order {
        Order::Turn(turn) => {
            let by_turn = || (0..count).map(|step| nth(count, turn, step)).filter(|&at| is_left(at));
            by_turn().find(|&at| admits(at)).or_else(|| by_turn().next())
        }
        Order::Key(_) => {
            let count = count.min(MAX_BACKENDS);
            let mut weights = [0; MAX_BACKENDS];
            weights.iter_mut().take(count).enumerate().for_each(|(at, slot)| *slot = weight(at));
            let mut left = !tried;
            let best = |left: u64| {
                let weights = weights.iter().take(count).enumerate().filter(|&(at, _)| left >> at & 1 == 1);
                weights.max_by_key(|&(_, weight)| weight).map(|(at, _)| at)
            };
            let first = best(left)?;
            let mut at = first;
            while !admits(at) {
                left &= !(1 << at);
                match best(left) {
                    Some(next) => at = next,
                    None => return Some(first),
                }
            }
            Some(at)
        }
    }
}

/// The backend that is asked in this step of a turn. The others follow the turn's own in an order that moves on once a
/// round, so that they share evenly what one that is out leaves.
fn nth(count: usize, turn: usize, step: usize) -> usize {
    let own = turn % count;
    match step.checked_sub(1) {
        None => own,
        Some(step) => (own + 1 + (turn / count + step) % (count - 1)) % count,
    }
}

/// The hash of an affinity key. Not a secret: every proxy comes to the same one.
pub fn key_hash(key: &[u8]) -> u64 {
    SipHasher13::new().hash(key)
}

/// A number that is as good as drawn for each address and scheme, and drawn anew for each seed.
///
/// With a [`key_hash`] as seed, the backend with the highest number is the one for the key. When a backend goes or comes, only
/// the keys that were, or are now, its own move. Highest random weight: Thaler and Ravishankar, "Using name-based mappings to
/// increase hit rates", 1998.
#[inline]
pub fn draw_for_addr(seed: u64, scheme: Scheme, addr: SocketAddr) -> u64 {
    let how = u64::from(addr.port()) << 8 | scheme as u64;
    match addr.ip() {
        IpAddr::V4(ip) => scramble(seed ^ scramble(u64::from(u32::from(ip)) << 32 | how)),
        IpAddr::V6(ip) => {
            let ip = u128::from(ip);
            // The bit that no IPv4 address has here.
            let low = scramble(seed ^ scramble(ip as u64) ^ (how | 1 << 31));
            scramble(low ^ scramble((ip >> 64) as u64))
        }
    }
}

/// The same for a backend that is given by name.
pub fn draw_for_name(seed: u64, scheme: Scheme, name: &str, port: u16) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(seed, u64::from(port) << 8 | scheme as u64);
    hasher.write(name.as_bytes());
    hasher.finish()
}

/// The finalizer of SplitMix64: each bit of the result depends on all bits of the word, and no two words become the same.
#[inline(always)]
fn scramble(word: u64) -> u64 {
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_turn(count: usize, turn: usize, tried: u64, failed: u64) -> Option<usize> {
        choose(count, Order::Turn(turn), tried, |_| 0, |at| failed >> at & 1 == 0)
    }

    fn addrs(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn turns_go_round() {
        let chosen: Vec<_> = (0..5).map(|turn| by_turn(3, turn, 0, 0).unwrap()).collect();
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
            assert_eq!(by_turn(3, turn, tried, failed), want, "{turn} {tried:b} {failed:b}");
        }
    }

    #[test]
    fn what_one_that_is_out_leaves_is_shared_evenly() {
        let mut counts = [0; 4];
        (0..120).for_each(|turn| counts[by_turn(4, turn, 0, 0b0010).unwrap()] += 1);
        assert_eq!(counts, [40, 0, 40, 40]);
    }

    #[test]
    fn a_single_backend_is_never_out() {
        assert_eq!(by_turn(1, 7, 0, 1), Some(0));
        assert_eq!(by_turn(1, 7, 1, 0), None);
        assert_eq!(by_turn(64, 63, !(1 << 62), u64::MAX), Some(62));
        assert_eq!(by_turn(0, 0, 0, 0), None);
        assert_eq!(choose(0, Order::Key(0), 0, |_| 0, |_| true), None);
    }

    #[test]
    fn with_a_key_the_heaviest_is_asked_and_then_the_next() {
        let weights = [5, 9, 7, 1];
        let by_key = |tried, failed: u64| choose(4, Order::Key(1), tried, |at| weights[at], |at| failed >> at & 1 == 0);
        for (tried, failed, want) in [
            (0b0000, 0b0000, Some(1)),
            (0b0000, 0b0010, Some(2)),
            (0b0010, 0b0000, Some(2)),
            (0b0010, 0b0100, Some(0)),
            (0b0000, 0b1111, Some(1)),
            (0b0110, 0b1001, Some(0)),
            (0b1111, 0b0000, None),
        ] {
            assert_eq!(by_key(tried, failed), want, "{tried:b} {failed:b}");
        }
        let all = |tried| choose(64, Order::Key(1), tried, |at| at as u64, |_| false);
        assert_eq!((all(0), all(1 << 63), all(u64::MAX)), (Some(63), Some(62), None));
    }

    #[test]
    fn keys_are_spread_evenly_and_move_only_with_their_backend() {
        for backends in [
            addrs(&["10.0.0.0:80", "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]),
            addrs(&["10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3", "10.0.0.1:4"]),
            addrs(&["[fd00::1]:80", "[fd00::2]:80", "[fd00:1::1]:80", "[fd00::1]:81"]),
        ] {
            let best = |key: u32, backends: &[SocketAddr]| {
                let seed = key_hash(&key.to_be_bytes());
                backends.iter().copied().max_by_key(|addr| draw_for_addr(seed, Scheme::Http, *addr))
            };
            let before: Vec<_> = (0..1000).map(|key| best(key, &backends)).collect();
            for backend in &backends {
                let count = before.iter().filter(|chosen| chosen.as_ref() == Some(backend)).count();
                assert!((200..300).contains(&count), "{backend}: {count}");
            }
            for (key, chosen) in (0..).zip(&before) {
                let now = best(key, &backends[1..]);
                assert!(now == *chosen || *chosen == Some(backends[0]));
            }
        }
    }

    #[test]
    fn all_that_tells_backends_apart_counts_and_all_proxies_agree() {
        let addrs =
            addrs(&["10.0.0.1:80", "10.0.0.1:81", "10.0.0.2:80", "[::10.0.0.1]:80", "[fd00::1]:80", "[fd00:1::1]:80"]);
        let mut drawn: Vec<_> = [Scheme::Http, Scheme::Https]
            .into_iter()
            .flat_map(|scheme| addrs.iter().map(move |addr| draw_for_addr(7, scheme, *addr)))
            .chain([draw_for_name(7, Scheme::Http, "a", 80), draw_for_name(7, Scheme::Https, "a", 80)])
            .chain([draw_for_name(7, Scheme::Http, "a", 81), draw_for_name(7, Scheme::Http, "b", 80)])
            .collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 2 * addrs.len() + 4);
        // What another machine computes: the values must not change from one release to the next.
        let seed = key_hash(b"session");
        let one = draw_for_addr(seed, Scheme::Http, addrs[0]);
        assert_eq!((seed, one), (6_143_612_009_027_348_692, 11_455_737_819_767_877_140));
    }
}
