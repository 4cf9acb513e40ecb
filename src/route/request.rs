//! Splits a path in path mode: `/<tool>/rest`.

/// The tool's name and the rest of a decoded, normalized path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathRequest<'a> {
    /// The first segment; may be empty.
    pub tool: &'a [u8],
    /// The path after the tool, from its slash on; `/` if there is none.
    pub rest: &'a [u8],
}

const ROOT: &[u8] = b"/";

/// Splits nginx's `$uri`. A path without a leading slash (`*`, CONNECT) has no tool.
#[inline(always)]
pub fn split_path(uri: &[u8]) -> PathRequest<'_> {
    let Some((b'/', path)) = uri.split_first() else {
        return PathRequest { tool: b"", rest: ROOT };
    };
    match find_slash(path) {
        Some(slash) => {
            let (tool, rest) = path.split_at(slash);
            PathRequest { tool, rest }
        }
        None => PathRequest { tool: path, rest: ROOT },
    }
}

/// Finds the first slash, word by word: names are too short for a vectorized search to pay off.
#[inline(always)]
fn find_slash(path: &[u8]) -> Option<usize> {
    let Some(last) = path.last_chunk() else { return path.iter().position(|&byte| byte == b'/') };
    let (words, _) = path.as_chunks();
    let found = words.iter().enumerate().find_map(|(at, word)| Some(8 * at + slash_in(word)?));
    // The remaining bytes are within the last eight.
    found.or_else(|| Some(path.len() - 8 + slash_in(last)?))
}

/// The index of the first slash in a word: of the lowest zero byte after XOR with slashes. Borrows make false positives only
/// above the first zero byte.
#[inline(always)]
fn slash_in(word: &[u8; 8]) -> Option<usize> {
    const LOWEST: u64 = u64::from_le_bytes([0x01; 8]);
    const HIGHEST: u64 = LOWEST << 7;
    let bytes = u64::from_le_bytes(*word) ^ (LOWEST * b'/' as u64);
    let zeroes = bytes.wrapping_sub(LOWEST) & !bytes & HIGHEST;
    (zeroes != 0).then_some(zeroes.trailing_zeros() as usize / 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_segment_is_the_tool() {
        for (uri, tool, rest) in [
            ("/", "", "/"),
            ("/hello", "hello", "/"),
            ("/hello/", "hello", "/"),
            ("/hello/a/b", "hello", "/a/b"),
            ("//x", "", "/x"),
            ("", "", "/"),
            ("*", "", "/"),
            ("/a\nb/\u{e9}", "a\nb", "/\u{e9}"),
        ] {
            let want = PathRequest { tool: tool.as_bytes(), rest: rest.as_bytes() };
            assert_eq!(split_path(uri.as_bytes()), want, "{uri:?}");
        }
    }

    #[test]
    fn the_first_slash_is_found_at_any_position() {
        for byte in [b'a', b'.', b'0', 0, 0x80, 0xaf, 0xff] {
            for len in 0..40 {
                let mut path = vec![byte; len];
                assert_eq!(find_slash(&path), None, "{byte} {len}");
                for at in (0..len).rev() {
                    path[at] = b'/';
                    assert_eq!(find_slash(&path), Some(at), "{byte} {len}");
                }
            }
        }
    }
}
