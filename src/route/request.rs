//! Which tool a request is for, in path mode: `/<tool>/rest`.

/// What of a decoded, normalised path names the tool, and what its patterns are searched in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathRequest<'a> {
    /// The first segment; may be empty.
    pub tool: &'a [u8],
    /// What follows it, from its slash on; `/` when nothing does.
    pub rest: &'a [u8],
}

const ROOT: &[u8] = b"/";

/// Splits nginx's `$uri`. A path without a leading slash (only `*` and CONNECT have none) has no tool.
pub fn split_path(uri: &[u8]) -> PathRequest<'_> {
    let Some((b'/', path)) = uri.split_first() else {
        return PathRequest { tool: b"", rest: ROOT };
    };
    // Names are short: a plain loop beats the start-up of a vectorised search.
    match path.iter().position(|&byte| byte == b'/') {
        Some(slash) => {
            let (tool, rest) = path.split_at(slash);
            PathRequest { tool, rest }
        }
        None => PathRequest { tool: path, rest: ROOT },
    }
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
}
