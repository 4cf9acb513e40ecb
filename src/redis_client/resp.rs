//! An incremental decoder for RESP2 and RESP3 that does not trust announced lengths.
//!
//! Each value is parsed once, when it is complete, into a flat list of tokens. A complete reply is built from these and borrows
//! all strings from the buffer. So a large reply in small pieces costs no more than one in a single piece, and a header alone
//! allocates nothing.
//! The format: <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

mod buffer;
mod header;
mod parse_state;

use std::slice::Iter;

use buffer::Buffer;
pub(super) use header::MAX_REPLY_BYTES;
pub use header::RespError;
use header::Token;
use parse_state::ParseState;

/// One reply, borrowed from the decoder's buffer.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply<'a> {
    /// A simple string, a bulk string or a verbatim string without its format; also a double, a boolean or a big number in text
    /// form, which our commands never return.
    Text(&'a [u8]),
    /// A simple or blob error, such as `WRONGTYPE Operation against a key ...`.
    Error(&'a [u8]),
    /// A signed integer.
    Integer(i64),
    /// Null, in any of its three encodings.
    Null,
    /// An array or a set.
    Array(Vec<Reply<'a>>),
    /// A map, in the server's order.
    Map(Vec<(Reply<'a>, Reply<'a>)>),
    /// Out-of-band data, not a reply to a command.
    Push(Vec<Reply<'a>>),
}

/// Decodes replies from bytes in arbitrary pieces.
///
/// After an error the stream is unusable: the decoder repeats the error, and the connection must be dropped.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Buffer,
    parse_state: ParseState,
    error: Option<RespError>,
}

impl Decoder {
    /// A decoder with an empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Free buffer space for received bytes, at least 16 KiB. Follow with [`Decoder::filled`].
    pub fn space(&mut self) -> &mut [u8] {
        self.buffer.space()
    }

    /// Marks the first `length` bytes of [`Decoder::space`] as received.
    pub fn filled(&mut self, length: usize) {
        self.buffer.filled(length);
    }

    /// Number of received bytes that are not decoded yet.
    pub fn unread_bytes(&self) -> usize {
        self.buffer.unread().len()
    }

    /// The next complete reply, without attributes; `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`RespError`] for bytes that are not RESP and for replies that exceed a limit.
    pub fn next_reply(&mut self) -> Result<Option<Reply<'_>>, RespError> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        match self.parse_state.advance(self.buffer.unread()) {
            Ok(None) => Ok(None),
            Ok(Some(length)) => {
                let reply = build(self.buffer.consume(length), &mut self.parse_state.tokens().iter());
                self.parse_state.reset();
                Ok(Some(reply))
            }
            Err(error) => {
                self.error = Some(error.clone());
                Err(error)
            }
        }
    }
}

/// Builds the next value from the tokens of a complete reply `bytes`. Recursion is bounded by the nesting limit.
fn build<'a>(bytes: &'a [u8], tokens: &mut Iter<'_, Token>) -> Reply<'a> {
    let text = |at: u32, length: u32| bytes.get(at as usize..(at + length) as usize).unwrap_or_default();
    loop {
        return match tokens.next().copied().unwrap_or(Token::Null) {
            Token::Text { at, length } => Reply::Text(text(at, length)),
            Token::Error { at, length } => Reply::Error(text(at, length)),
            Token::Integer(n) => Reply::Integer(n),
            Token::Null => Reply::Null,
            Token::Array(n) => Reply::Array((0..n).map(|_| build(bytes, tokens)).collect()),
            Token::Push(n) => Reply::Push((0..n).map(|_| build(bytes, tokens)).collect()),
            Token::Map(n) => Reply::Map((0..n / 2).map(|_| (build(bytes, tokens), build(bytes, tokens))).collect()),
            Token::Attribute(n) => {
                (0..n).for_each(|_| drop(build(bytes, tokens)));
                continue;
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustix::time::{ClockId, clock_gettime};

    use super::header::{MAX_BULK_BYTES, MAX_ELEMENTS, MAX_NESTING};
    use super::*;

    /// A reply with owned strings, to encode and compare.
    #[derive(Debug, Clone)]
    enum Value {
        Line(String),
        Bulk(Vec<u8>),
        Verbatim(Vec<u8>),
        Error(String),
        BlobError(Vec<u8>),
        Integer(i64),
        Double(f64),
        Boolean(bool),
        BigNumber(u128),
        Null(&'static str),
        Array(char, Vec<Value>),
        Map(Vec<(Value, Value)>),
        /// An attribute and its value.
        Annotated(Box<Value>, Box<Value>),
    }

    impl Value {
        fn encode(&self, out: &mut Vec<u8>) {
            let mut bulk = |kind: char, format: &str, text: &[u8]| {
                out.extend(format!("{kind}{}\r\n{format}", format.len() + text.len()).bytes());
                out.extend(text);
                out.extend(b"\r\n");
            };
            match self {
                Self::Bulk(text) => bulk('$', "", text),
                Self::Verbatim(text) => bulk('=', "txt:", text),
                Self::BlobError(text) => bulk('!', "", text),
                Self::Line(text) => out.extend(format!("+{text}\r\n").bytes()),
                Self::Error(text) => out.extend(format!("-{text}\r\n").bytes()),
                Self::Integer(n) => out.extend(format!(":{n}\r\n").bytes()),
                Self::Double(n) => out.extend(format!(",{n}\r\n").bytes()),
                Self::Boolean(b) => out.extend(if *b { b"#t\r\n" } else { b"#f\r\n" }),
                Self::BigNumber(n) => out.extend(format!("({n}\r\n").bytes()),
                Self::Null(spelling) => out.extend(spelling.bytes()),
                Self::Array(kind, values) => {
                    out.extend(format!("{kind}{}\r\n", values.len()).bytes());
                    values.iter().for_each(|value| value.encode(out));
                }
                Self::Map(pairs) => {
                    out.extend(format!("%{}\r\n", pairs.len()).bytes());
                    pairs.iter().for_each(|(key, value)| (key.encode(out), value.encode(out)).1);
                }
                Self::Annotated(about, value) => {
                    out.extend(b"|1\r\n+about\r\n");
                    about.encode(out);
                    value.encode(out);
                }
            }
        }

        /// Compares with a decoded reply.
        fn is(&self, reply: &Reply<'_>) -> bool {
            match (self, reply) {
                (Self::Line(want), Reply::Text(got)) | (Self::Error(want), Reply::Error(got)) => {
                    want.as_bytes() == *got
                }
                (Self::Bulk(want) | Self::Verbatim(want), Reply::Text(got)) => want == got,
                (Self::BlobError(want), Reply::Error(got)) => want == got,
                (Self::BigNumber(want), Reply::Text(got)) => want.to_string().as_bytes() == *got,
                (Self::Double(want), Reply::Text(got)) => want.to_string().as_bytes() == *got,
                (Self::Boolean(want), Reply::Text(got)) => *got == if *want { b"t" } else { b"f" },
                (Self::Integer(want), Reply::Integer(got)) => want == got,
                (Self::Null(_), Reply::Null) => true,
                (Self::Array('>', want), Reply::Push(got)) | (Self::Array('*' | '~', want), Reply::Array(got)) => {
                    want.len() == got.len() && want.iter().zip(got).all(|(want, got)| want.is(got))
                }
                (Self::Map(want), Reply::Map(got)) => {
                    want.len() == got.len() && want.iter().zip(got).all(|(w, g)| w.0.is(&g.0) && w.1.is(&g.1))
                }
                (Self::Annotated(_, value), reply) => value.is(reply),
                _ => false,
            }
        }
    }

    fn values() -> impl Strategy<Value = Vec<Value>> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..40);
        let leaf = prop_oneof![
            "[ -~]{0,20}".prop_map(Value::Line),
            bytes().prop_map(Value::Bulk),
            bytes().prop_map(Value::Verbatim),
            "[A-Z]{1,9} [ -~]{0,20}".prop_map(Value::Error),
            bytes().prop_map(Value::BlobError),
            any::<i64>().prop_map(Value::Integer),
            prop::num::f64::NORMAL.prop_map(Value::Double),
            Just(Value::Double(f64::INFINITY)),
            any::<bool>().prop_map(Value::Boolean),
            any::<u128>().prop_map(Value::BigNumber),
            prop::sample::select(vec!["_\r\n", "$-1\r\n", "*-1\r\n"]).prop_map(Value::Null),
        ];
        let tree = leaf.prop_recursive(3, 40, 6, |inner| {
            let list = || prop::collection::vec(inner.clone(), 0..6);
            let pairs = prop::collection::vec((inner.clone(), inner.clone()), 0..4);
            prop_oneof![
                (prop::sample::select(vec!['*', '~']), list()).prop_map(|(kind, values)| Value::Array(kind, values)),
                pairs.prop_map(Value::Map),
                (inner.clone(), inner.clone()).prop_map(|(about, of)| Value::Annotated(Box::new(about), Box::new(of))),
            ]
        });
        let push = prop::collection::vec(tree.clone(), 0..4).prop_map(|values| Value::Array('>', values));
        prop::collection::vec(prop_oneof![4 => tree, 1 => push], 0..8)
    }

    fn feed(decoder: &mut Decoder, bytes: &[u8]) {
        for bytes in bytes.chunks(16 << 10) {
            decoder.space()[..bytes.len()].copy_from_slice(bytes);
            decoder.filled(bytes.len());
        }
    }

    /// Whether `bytes` are a complete reply.
    fn decode(bytes: &[u8]) -> Result<bool, RespError> {
        let mut decoder = Decoder::new();
        feed(&mut decoder, bytes);
        Ok(decoder.next_reply()?.is_some())
    }

    proptest! {
        #[test]
        fn replies_decode_from_any_pieces(values in values(), cuts in prop::collection::vec(1..50_usize, 1..20)) {
            let mut bytes = Vec::new();
            values.iter().for_each(|value| value.encode(&mut bytes));
            let (mut decoder, mut want, mut rest) = (Decoder::new(), values.iter(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                let (piece, later) = rest.split_at(rest.len().min(*cut));
                feed(&mut decoder, piece);
                rest = later;
                while let Some(reply) = decoder.next_reply().expect("what was encoded is valid") {
                    prop_assert!(want.next().is_some_and(|value| value.is(&reply)), "{reply:?}");
                }
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!((want.count(), decoder.unread_bytes()), (0, 0));
        }

        #[test]
        fn no_bytes_panic(pieces in prop::collection::vec("[-+:$*_%~>,#(=!|0-9a-z\r\n]{0,12}(\r\n)?", 0..20)) {
            let mut decoder = Decoder::new();
            for piece in pieces {
                feed(&mut decoder, piece.as_bytes());
                while let Ok(Some(_)) = decoder.next_reply() {}
            }
        }

        #[test]
        fn flipped_bytes_never_panic(values in values(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = vec![b'_'];
            values.iter().for_each(|value| value.encode(&mut bytes));
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let mut decoder = Decoder::new();
            feed(&mut decoder, &bytes);
            while let Ok(Some(_)) = decoder.next_reply() {}
        }
    }

    #[test]
    fn large_replies_are_parsed_once() {
        let mut bytes = b"*200000\r\n".to_vec();
        (0..200_000).for_each(|i| bytes.extend(format!("${}\r\n{i}\r\n", i.to_string().len()).bytes()));
        let mut decoder = Decoder::new();
        let used = || clock_gettime(ClockId::ThreadCPUTime).tv_sec;
        let begun = used();
        for (i, byte) in bytes.iter().enumerate() {
            feed(&mut decoder, &[*byte]);
            let reply = decoder.next_reply().expect("valid");
            assert_eq!(reply.is_some(), i + 1 == bytes.len());
        }
        // Linear work takes a fraction of a second unoptimized; parsing from the start for each byte, days.
        assert!(used() - begun < 30);
    }

    #[test]
    fn huge_announced_lengths_are_refused_without_allocating() {
        let mut decoder = Decoder::new();
        feed(&mut decoder, b"$536870912\r\n");
        assert_eq!(decoder.next_reply(), Err(RespError::BulkTooLong(512 << 20)));
        assert!(decoder.space().len() < 100 << 10);
        assert_eq!(decoder.next_reply(), Err(RespError::BulkTooLong(512 << 20)), "the error stays");
    }

    #[test]
    fn limits_are_exact() {
        let nested = |depth| format!("{}:1\r\n", "*1\r\n".repeat(depth));
        assert!(decode(nested(MAX_NESTING).as_bytes()) == Ok(true));
        assert_eq!(decode(nested(MAX_NESTING + 1).as_bytes()), Err(RespError::TooDeep));

        let bulk = |n: usize| [format!("${n}\r\n").as_bytes(), &vec![b'x'; n], b"\r\n"].concat();
        assert!(decode(&bulk(MAX_BULK_BYTES)) == Ok(true));
        assert_eq!(decode(&bulk(MAX_BULK_BYTES + 1)), Err(RespError::BulkTooLong(1 + (1 << 20))));

        let split = |n: u32| {
            format!(
                "*2\r\n*{}\r\n{}*{}\r\n{}",
                n / 2,
                "_\r\n".repeat(n as usize / 2),
                n / 2,
                "_\r\n".repeat(n as usize / 2)
            )
        };
        assert!(decode(split(MAX_ELEMENTS - 2).as_bytes()) == Ok(true));
        assert_eq!(decode(split(MAX_ELEMENTS).as_bytes()), Err(RespError::TooManyElements(1_000_002)));

        // 63 bulks of 1 MiB and their headers leave less than one MiB of the 64.
        let big = bulk(MAX_BULK_BYTES).repeat(63);
        assert!(decode(&[b"*63\r\n", &big[..]].concat()) == Ok(true));
        assert_eq!(decode(&[b"*64\r\n", &big[..], b"$1048576\r\n"].concat()), Err(RespError::ReplyTooLong));
    }

    #[test]
    fn endless_attributes_are_refused() {
        let attributes = |n: u32| format!("{}+OK\r\n", "|0\r\n".repeat(n as usize));
        assert_eq!(decode(attributes(MAX_ELEMENTS).as_bytes()), Ok(true));
        assert_eq!(decode(attributes(MAX_ELEMENTS + 1).as_bytes()), Err(RespError::TooManyElements(1_000_001)));
    }

    #[test]
    fn nested_pushes_are_refused() {
        assert_eq!(decode(b"*1\r\n>1\r\n+x\r\n"), Err(RespError::NestedPush));
        assert_eq!(decode(b"|1\r\n+x\r\n>0\r\n"), Err(RespError::NestedPush));
    }
}
