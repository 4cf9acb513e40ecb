//! SipHash-1-3, inlined into the lookup: the crate's is 50% slower for keys as short as tool names.
//!
//! J.-P. Aumasson and D. J. Bernstein, "SipHash: a fast short-input PRF", 2012; with one round per word and three final
//! rounds, as in Rust's own hash maps.

/// The keyed hash of `bytes`.
#[inline(always)]
pub(super) fn siphash13(k0: u64, k1: u64, bytes: &[u8]) -> u64 {
    let mut state = State {
        v0: k0 ^ 0x736f_6d65_7073_6575,
        v1: k1 ^ 0x646f_7261_6e64_6f6d,
        v2: k0 ^ 0x6c79_6765_6e65_7261,
        v3: k1 ^ 0x7465_6462_7974_6573,
    };
    let (words, rest) = bytes.as_chunks();
    words.iter().for_each(|word| state.take(u64::from_le_bytes(*word)));
    state.take((bytes.len() as u64) << 56 | short_word(rest));
    state.v2 ^= 0xff;
    (0..3).for_each(|_| state.round());
    state.v0 ^ state.v1 ^ state.v2 ^ state.v3
}

struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    #[inline(always)]
    fn take(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }

    #[inline(always)]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32).wrapping_add(self.v3);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v2 = self.v2.rotate_left(32);
    }
}

/// Up to seven bytes as a little-endian word, by overlapping loads instead of a loop.
#[inline(always)]
fn short_word(bytes: &[u8]) -> u64 {
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let [first, last] = [first, last].map(|four| u64::from(u32::from_le_bytes(*four)));
        return first | last << (8 * (bytes.len() - 4));
    }
    match *bytes {
        [] => 0,
        [a] => u64::from_le_bytes([a, 0, 0, 0, 0, 0, 0, 0]),
        [a, b] => u64::from_le_bytes([a, b, 0, 0, 0, 0, 0, 0]),
        [a, b, c, ..] => u64::from_le_bytes([a, b, c, 0, 0, 0, 0, 0]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use siphasher::sip::SipHasher13;

    #[test]
    fn hashes_equal_those_of_the_crate_at_every_length() {
        let bytes: Vec<u8> = (0..64u8).map(|byte| byte.wrapping_mul(197) ^ 0x85).collect();
        for (k0, k1) in [(0, 0), (0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908), (u64::MAX, 1)] {
            for len in 0..=bytes.len() {
                let want = SipHasher13::new_with_keys(k0, k1).hash(&bytes[..len]);
                assert_eq!(siphash13(k0, k1, &bytes[..len]), want, "{len} bytes");
            }
        }
    }
}
