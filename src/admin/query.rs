//! The parameters of a request: `?name=value&...`, percent-encoded.

use super::answer::ApiError;
use crate::route::decode_one;

/// Most characters of a client's text that an error message repeats.
const MAX_SHOWN: usize = 100;

/// The decoded parameters of a request. Each is known to the page and given at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(&'static str, Vec<u8>)>);

impl Query {
    /// Decodes a query without its question mark, as `application/x-www-form-urlencoded`: `+` is a space. `known` are the
    /// page's parameters.
    ///
    /// # Errors
    /// An unknown or repeated parameter, or an incomplete percent-encoding.
    pub fn parse(args: &[u8], known: &[&'static str]) -> Result<Self, ApiError> {
        let mut parameters: Vec<(&'static str, Vec<u8>)> = Vec::new();
        for pair in args.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()) {
            let mut parts = pair.splitn(2, |&byte| byte == b'=').map(decode);
            let name = parts.next().unwrap_or(Some(Vec::new()));
            let value = parts.next().unwrap_or(Some(Vec::new()));
            let (Some(name), Some(value)) = (name, value) else {
                let text = format!("invalid parameter {}, expected percent-encoding, e.g. \"%20\"", shown(pair));
                return Err(ApiError::BadRequest(text));
            };
            let Some(name) = known.iter().copied().find(|known| known.as_bytes() == name) else {
                let expected = match known {
                    [] => "no parameters".to_owned(),
                    known => format!("one of {}", known.join(", ")),
                };
                return Err(ApiError::BadRequest(format!("unknown parameter {}, expected {expected}", shown(&name))));
            };
            if parameters.iter().any(|(other, _)| *other == name) {
                return Err(ApiError::BadRequest(format!("repeated parameter \"{name}\", expected one \"{name}=\"")));
            }
            parameters.push((name, value));
        }
        Ok(Self(parameters))
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_slice())
    }

    /// A whole number from 1 on.
    ///
    /// # Errors
    /// Anything else.
    pub fn positive(&self, name: &str, max: usize) -> Result<Option<usize>, ApiError> {
        let expected = if max == usize::MAX { "a number from 1 on".to_owned() } else { format!("1 to {max}") };
        self.parsed(name, &expected, |value| value.parse().ok().filter(|number| (1..=max).contains(number)))
    }

    /// One of several words.
    ///
    /// # Errors
    /// Any other word.
    pub fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, ApiError> {
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        self.parsed(name, &format!("one of {}", words.join(", ")), |value| {
            choices.iter().find(|(word, _)| *word == value).map(|(_, choice)| *choice)
        })
    }

    /// A value that `parse` accepts; `expected` describes it.
    ///
    /// # Errors
    /// Any other value.
    pub fn parsed<T>(
        &self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let parsed = std::str::from_utf8(value).ok().and_then(parse);
        parsed
            .map(Some)
            .ok_or_else(|| ApiError::BadRequest(format!("invalid {name} {}, expected {expected}", shown(value))))
    }
}

/// A client's text in quotes, for an error message.
pub fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut start: String = text.chars().take(MAX_SHOWN).collect();
    if start.len() < text.len() {
        start.push_str("...");
    }
    format!("\"{start}\"")
}

fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some(&first) = rest.first() {
        let (byte, after) = decode_one(rest)?;
        bytes.push(if first == b'+' { b' ' } else { byte });
        rest = after;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["tool", "limit", "kind"];

    fn parsed(args: &str) -> Result<Query, String> {
        Query::parse(args.as_bytes(), KNOWN).map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_decoded() {
        for (args, want) in [
            ("tool=hello", &b"hello"[..]),
            ("tool=", b""),
            ("tool", b""),
            ("&tool=a&", b"a"),
            ("tool=a%2Bb+c%20d", b"a+b c d"),
            ("tool=a=b", b"a=b"),
            ("%74ool=%ff%26", b"\xff&"),
        ] {
            assert_eq!(parsed(args).unwrap().get("tool"), Some(want), "{args}");
        }
        assert_eq!(parsed("").unwrap().get("tool"), None);
    }

    #[test]
    fn errors_name_the_value_and_what_was_expected() {
        for (args, want) in [
            ("tol=x", r#"unknown parameter "tol", expected one of tool, limit, kind"#),
            ("tool=a&tool=b", r#"repeated parameter "tool", expected one "tool=""#),
            ("tool=%2", r#"invalid parameter "tool=%2", expected percent-encoding, e.g. "%20""#),
            ("%zz", r#"invalid parameter "%zz", expected percent-encoding, e.g. "%20""#),
        ] {
            assert_eq!(parsed(args).unwrap_err(), want, "{args}");
        }
        assert_eq!(
            Query::parse(b"x=1", &[]).unwrap_err().to_string(),
            r#"unknown parameter "x", expected no parameters"#
        );
        let long = parsed(&"x".repeat(5000)).unwrap_err();
        assert!(long.len() < 200 && long.contains("xxx...\""), "{long}");
    }

    #[test]
    fn numbers_and_choices_are_checked() {
        let limit = |args: &str| parsed(args).unwrap().positive("limit", 1000).map_err(|error| error.to_string());
        assert_eq!((limit(""), limit("limit=7"), limit("limit=1000")), (Ok(None), Ok(Some(7)), Ok(Some(1000))));
        for bad in ["0", "1001", "", "-1", "x", "1e3", "99999999999999999999999"] {
            assert_eq!(
                limit(&format!("limit={bad}")),
                Err(format!(r#"invalid limit "{bad}", expected 1 to 1000"#)),
                "{bad}"
            );
        }
        let kind = |args: &str| parsed(args).unwrap().choice("kind", &[("a", 1), ("b", 2)]);
        assert_eq!((kind("").unwrap(), kind("kind=b").unwrap()), (None, Some(2)));
        assert_eq!(kind("kind=c").unwrap_err().to_string(), r#"invalid kind "c", expected one of a, b"#);
    }
}
