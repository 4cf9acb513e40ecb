//! The choice among a route's backends.

use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};

use siphasher::sip::SipHasher13;

use super::{MAX_BACKENDS, Scheme};

/// How to choose among a route's backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Round robin, with the number of earlier requests.
    Turn(usize),
    /// Affinity to a key, with its [`key_hash`].
    Key(u64),
}

/// The backend of `count` to try next: the first in `order` that this request has not tried and that `admits` accepts, or else
/// the first untried one. So a single backend is always used, and so is one of several that are all unavailable.
///
/// `tried` has a bit per backend. `weight` is a backend's affinity to the key, for [`Order::Key`]. `admits` is called for one
/// backend after the other until it returns true. `None` if all were tried.
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

/// The backend at `step` of a turn. The order after the turn's own backend rotates once per round, so that the others share
/// the load of an unavailable one evenly.
fn nth(count: usize, turn: usize, step: usize) -> usize {
    let own = turn % count;
    match step.checked_sub(1) {
        None => own,
        Some(step) => (own + 1 + (turn / count + step) % (count - 1)) % count,
    }
}

/// The hash of an affinity key; the same on every proxy.
pub fn key_hash(key: &[u8]) -> u64 {
    SipHasher13::new().hash(key)
}

/// A pseudorandom number per address and scheme, independent for each seed.
///
/// Rendezvous hashing: with a [`key_hash`] as seed, the backend with the highest number serves the key. When a backend comes or
/// goes, only its own keys move. Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998.
#[inline]
pub fn draw_for_addr(seed: u64, scheme: Scheme, addr: SocketAddr) -> u64 {
    let how = u64::from(addr.port()) << 8 | scheme as u64;
    match addr.ip() {
        IpAddr::V4(ip) => scramble(seed ^ scramble(u64::from(u32::from(ip)) << 32 | how)),
        IpAddr::V6(ip) => {
            let ip = u128::from(ip);
            // A bit that is never set for IPv4.
            let low = scramble(seed ^ scramble(ip as u64) ^ (how | 1 << 31));
            scramble(low ^ scramble((ip >> 64) as u64))
        }
    }
}

/// [`draw_for_addr`] for a backend with a DNS name.
pub fn draw_for_name(seed: u64, scheme: Scheme, name: &str, port: u16) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(seed, u64::from(port) << 8 | scheme as u64);
    hasher.write(name.as_bytes());
    hasher.finish()
}

/// The finalizer of SplitMix64: a bijection in which each bit of the result depends on all bits of the word.
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
    fn turns_rotate() {
        let chosen: Vec<_> = (0..5).map(|turn| by_turn(3, turn, 0, 0).unwrap()).collect();
        assert_eq!(chosen, [0, 1, 2, 0, 1]);
    }

    #[test]
    fn unavailable_backends_come_last_and_tried_ones_never() {
        for (turn, tried, failed, want) in [
            (0, 0b000, 0b001, Some(1)),
            (0, 0b010, 0b001, Some(2)),
            (0, 0b110, 0b001, Some(0)),
            (1, 0b000, 0b111, Some(1)),
            (1, 0b000, 0b010, Some(2)),
            (4, 0b000, 0b010, Some(0)),
            (0, 0b111, 0b000, None),
            (usize::MAX, 0b000, 0b000, Some(0)),
            (usize::MAX, 0b000, 0b001, Some(2)),
        ] {
            assert_eq!(by_turn(3, turn, tried, failed), want, "{turn} {tried:b} {failed:b}");
        }
    }

    #[test]
    fn load_of_an_unavailable_backend_is_shared_evenly() {
        let mut counts = [0; 4];
        (0..120).for_each(|turn| counts[by_turn(4, turn, 0, 0b0010).unwrap()] += 1);
        assert_eq!(counts, [40, 0, 40, 40]);
    }

    #[test]
    fn a_single_backend_is_always_used() {
        assert_eq!(by_turn(1, 7, 0, 1), Some(0));
        assert_eq!(by_turn(1, 7, 1, 0), None);
        assert_eq!(by_turn(64, 63, !(1 << 62), u64::MAX), Some(62));
        assert_eq!(by_turn(0, 0, 0, 0), None);
        assert_eq!(choose(0, Order::Key(0), 0, |_| 0, |_| true), None);
    }

    #[test]
    fn keys_use_the_highest_weight_then_the_next() {
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
    fn draws_depend_on_the_whole_backend_and_are_stable() {
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
        // All proxies must agree: these values must not change between releases.
        let seed = key_hash(b"session");
        assert_eq!(seed, 6_143_612_009_027_348_692);
        assert_eq!(draw_for_addr(seed, Scheme::Http, addrs[0]), 11_455_737_819_767_877_140);
        assert_eq!(draw_for_addr(seed, Scheme::Https, addrs[5]), 17_999_327_664_545_247_017);
        assert_eq!(draw_for_name(seed, Scheme::Https, "a", 81), 12_492_172_225_721_817_175);
    }
}
