//! Parses one value's header in RESP2 or RESP3, and enforces the limits.

use memchr::memchr;
use thiserror::Error;

/// The longest bulk string, blob error or verbatim string, in bytes.
pub(in crate::redis_client) const MAX_BULK_BYTES: usize = 1 << 20;
/// Most elements in one aggregate and in one reply; a map's keys and values count one each, as do attributes.
pub(in crate::redis_client) const MAX_ELEMENTS: u32 = 1_000_000;
/// Deepest nesting of aggregates.
pub(in crate::redis_client) const MAX_NESTING: usize = 8;
/// The longest reply, in encoded bytes.
pub(in crate::redis_client) const MAX_REPLY_BYTES: usize = 64 << 20;
/// The longest line: a header, a simple string or a simple error, in bytes without its CRLF.
pub(in crate::redis_client) const MAX_LINE_BYTES: usize = 16 << 10;

/// Why a stream of replies is unusable. Drop the connection: later bytes cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RespError {
    /// The first byte of a value is not a type of RESP2 or RESP3.
    #[error("unknown reply type {:?}", char::from(*.0))]
    UnknownType(u8),
    /// An invalid length, integer or null.
    #[error("malformed {what} {text:?}")]
    Malformed {
        /// What was expected.
        what: &'static str,
        /// The text found, escaped and shortened.
        text: String,
    },
    /// A bulk string without a line end after its announced length.
    #[error("bulk string of {0} bytes is not followed by a line end")]
    Unterminated(usize),
    /// A bulk string with an announced length above the limit, in bytes.
    #[error("bulk string of {0} bytes, at most {MAX_BULK_BYTES} are accepted")]
    BulkTooLong(u64),
    /// More announced elements in total than the limit.
    #[error("reply of {0} elements, at most {MAX_ELEMENTS} are accepted")]
    TooManyElements(u64),
    /// Aggregates nested too deeply.
    #[error("reply nested deeper than {MAX_NESTING} levels")]
    TooDeep,
    /// A reply above the size limit.
    #[error("reply of more than {MAX_REPLY_BYTES} bytes")]
    ReplyTooLong,
    /// A line above the length limit.
    #[error("line of more than {MAX_LINE_BYTES} bytes")]
    LineTooLong,
    /// A push inside another reply, which RESP3 forbids (specification, "Push type").
    #[error("push inside a reply")]
    NestedPush,
}

/// One value without its elements. Positions and lengths are in bytes from the start of the reply.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Token {
    Text {
        at: u32,
        length: u32,
    },
    Error {
        at: u32,
        length: u32,
    },
    Integer(i64),
    Null,
    /// Number of values that follow.
    Array(u32),
    /// Number of values that follow, keys and values in turn.
    Map(u32),
    /// Number of values that follow.
    Push(u32),
    /// Number of values that follow, before the value that they describe.
    Attribute(u32),
}

/// The result of parsing at one position of a reply.
#[derive(Debug, PartialEq)]
pub(super) enum Parsed {
    /// A token, and the position of the next one.
    Token(Token, usize),
    /// Incomplete: the reply is at least this many bytes long.
    Unfinished(usize),
}

/// Parses the token at `at` of the reply that `bytes` begins with.
///
/// Checks announced lengths against the limits before waiting or allocating.
#[inline]
pub(super) fn read(bytes: &[u8], at: usize) -> Result<Parsed, RespError> {
    let Some((&kind, rest)) = bytes.get(at..).and_then(<[u8]>::split_first) else {
        return Ok(Parsed::Unfinished(at + 1));
    };
    // Refuse garbage at its first byte, not at its line end.
    if !b"$*%~>|=!+-:_#,(".contains(&kind) {
        return Err(RespError::UnknownType(kind));
    }
    let Some(line) = line(rest)? else { return Ok(Parsed::Unfinished(bytes.len() + 1)) };
    let next = at + line.len() + 3;
    if next > MAX_REPLY_BYTES {
        return Err(RespError::ReplyTooLong);
    }
    // Both fit: positions are below MAX_REPLY_BYTES.
    let here = (at + 1) as u32;
    let length = line.len() as u32;
    let token = match kind {
        b'$' | b'*' if line == b"-1" => Token::Null,
        b'$' | b'!' | b'=' => return bulk(bytes, kind, self::length(line)?, next),
        b'*' | b'~' => Token::Array(elements(line, 1)?),
        b'>' => Token::Push(elements(line, 1)?),
        b'%' => Token::Map(elements(line, 2)?),
        b'|' => Token::Attribute(elements(line, 2)?),
        b'+' | b',' | b'#' | b'(' => Token::Text { at: here, length },
        b'-' => Token::Error { at: here, length },
        b':' => Token::Integer(integer(line)?),
        b'_' if line.is_empty() => Token::Null,
        _ => return Err(malformed("null", line)),
    };
    Ok(Parsed::Token(token, next))
}

/// A bulk string of `length` bytes at `at`.
fn bulk(bytes: &[u8], kind: u8, length: u64, at: usize) -> Result<Parsed, RespError> {
    let bulk = usize::try_from(length).ok().filter(|&l| l <= MAX_BULK_BYTES).ok_or(RespError::BulkTooLong(length))?;
    let next = at + bulk + 2;
    if next > MAX_REPLY_BYTES {
        return Err(RespError::ReplyTooLong);
    }
    let Some(end) = bytes.get(at + bulk..next) else { return Ok(Parsed::Unfinished(next)) };
    if end != b"\r\n" {
        return Err(RespError::Unterminated(bulk));
    }
    // A verbatim string begins with three letters of format and a colon.
    let format = if kind == b'=' { bulk.min(4) } else { 0 };
    let (at, length) = ((at + format) as u32, (bulk - format) as u32);
    Ok(Parsed::Token(if kind == b'!' { Token::Error { at, length } } else { Token::Text { at, length } }, next))
}

/// The line at the start of `bytes`, without its CRLF; `None` if it is incomplete.
#[inline]
fn line(bytes: &[u8]) -> Result<Option<&[u8]>, RespError> {
    // Most lines are a few digits.
    let short = bytes.iter().take(8).position(|&byte| byte == b'\r');
    let Some(end) = short.or_else(|| memchr(b'\r', bytes)) else {
        return if bytes.len() > MAX_LINE_BYTES { Err(RespError::LineTooLong) } else { Ok(None) };
    };
    if end > MAX_LINE_BYTES {
        return Err(RespError::LineTooLong);
    }
    let (line, rest) = bytes.split_at(end);
    match rest.get(1) {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) => Err(malformed("line end after", line)),
    }
}

/// The number of values after an aggregate's header, with `each` values per announced element.
#[inline]
fn elements(line: &[u8], each: u64) -> Result<u32, RespError> {
    let elements = length(line)?.saturating_mul(each);
    u32::try_from(elements).ok().filter(|&n| n <= MAX_ELEMENTS).ok_or(RespError::TooManyElements(elements))
}

/// A length in decimal digits; this also refuses the streamed types of RESP3 (`?`).
#[inline]
fn length(line: &[u8]) -> Result<u64, RespError> {
    let mut length = 0_u64;
    for byte in line {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(malformed("length", line));
        }
        length = length.saturating_mul(10).saturating_add(u64::from(digit));
    }
    if line.is_empty() { Err(malformed("length", line)) } else { Ok(length) }
}

fn integer(line: &[u8]) -> Result<i64, RespError> {
    str::from_utf8(line).ok().and_then(|text| text.parse().ok()).ok_or_else(|| malformed("integer", line))
}

#[cold]
fn malformed(what: &'static str, line: &[u8]) -> RespError {
    let shown = line.get(..32).unwrap_or(line);
    RespError::Malformed { what, text: shown.escape_ascii().to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_at_the_header() {
        for (line, want) in [
            ("$1048576", Ok(Parsed::Unfinished(10 + MAX_BULK_BYTES + 2))),
            ("$1048577", Err(RespError::BulkTooLong(1_048_577))),
            ("$536870912", Err(RespError::BulkTooLong(536_870_912))),
            ("=1048577", Err(RespError::BulkTooLong(1_048_577))),
            ("!99999999999999999999999", Err(RespError::BulkTooLong(u64::MAX))),
            ("*1000000", Ok(Parsed::Token(Token::Array(MAX_ELEMENTS), 10))),
            ("*1000001", Err(RespError::TooManyElements(1_000_001))),
            ("%500000", Ok(Parsed::Token(Token::Map(MAX_ELEMENTS), 9))),
            ("%500001", Err(RespError::TooManyElements(1_000_002))),
            ("|500001", Err(RespError::TooManyElements(1_000_002))),
        ] {
            assert_eq!(read(format!("{line}\r\n").as_bytes(), 0), want, "{line}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        for bytes in [
            "HTTP/1.1 400 Bad Request",
            "\0",
            "\r\n",
            "$\r\n",
            "$-2\r\n",
            "$+1\r\n",
            "$?\r\n",
            "*?\r\n",
            "%-1\r\n",
            ":\r\n",
            ":1x\r\n",
            ":9223372036854775808\r\n",
            "_x\r\n",
            "+OK\rX",
            ";4\r\n",
            "$3\r\nabcdef",
        ] {
            assert!(read(bytes.as_bytes(), 0).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut bytes = vec![b'+'];
        bytes.resize(1 + MAX_LINE_BYTES, b'x');
        assert_eq!(read(&bytes, 0), Ok(Parsed::Unfinished(2 + MAX_LINE_BYTES)));
        bytes.push(b'x');
        assert_eq!(read(&bytes, 0), Err(RespError::LineTooLong));
        bytes.truncate(1 + MAX_LINE_BYTES);
        bytes.extend_from_slice(b"\r\n");
        assert!(matches!(read(&bytes, 0), Ok(Parsed::Token(..))));
    }
}
