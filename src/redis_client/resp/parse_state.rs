//! The parse state of an incomplete reply, so that no byte is parsed twice.

use super::header::{self, MAX_ELEMENTS, MAX_NESTING, Parsed, RespError, Token};

/// The parse state of the first reply in the buffer.
#[derive(Debug, Default)]
pub(super) struct ParseState {
    /// Position of the next value, in bytes from the start of the reply.
    at: usize,
    /// Least number of bytes to continue with.
    needed: usize,
    /// Values announced so far.
    elements: u32,
    /// Missing values per open aggregate, outermost first. The first entry is the reply itself.
    open: Vec<u32>,
    tokens: Vec<Token>,
}

impl ParseState {
    /// Capacity for tokens that is kept between replies.
    const KEEP: usize = 4096;

    /// Begins the next reply.
    pub(super) fn reset(&mut self) {
        (self.at, self.needed, self.elements) = (0, 0, 0);
        self.open.clear();
        self.tokens.clear();
        if self.tokens.capacity() > Self::KEEP {
            self.tokens.shrink_to(Self::KEEP);
        }
    }

    /// The tokens so far; those of a complete reply after [`ParseState::advance`] has returned its length.
    pub(super) fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// Parses further; `bytes` begins with the reply. Returns the reply's length once it is complete.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<Option<usize>, RespError> {
        if bytes.len() < self.needed {
            return Ok(None);
        }
        if self.open.is_empty() {
            self.open.push(1);
        }
        loop {
            match header::read(bytes, self.at)? {
                Parsed::Unfinished(needed) => {
                    self.needed = needed;
                    return Ok(None);
                }
                Parsed::Token(token, next) => {
                    self.tokens.push(token);
                    self.at = next;
                    if self.count(token)? {
                        return Ok(Some(next));
                    }
                }
            }
        }
    }

    /// Counts one value; true if it completes the reply.
    #[inline]
    fn count(&mut self, token: Token) -> Result<bool, RespError> {
        if let Some(left) = self.open.last_mut()
            && !matches!(token, Token::Attribute(_))
        {
            *left = left.saturating_sub(1);
        }
        if let Token::Array(n) | Token::Map(n) | Token::Push(n) | Token::Attribute(n) = token {
            if matches!(token, Token::Push(_)) && self.open.len() > 1 {
                return Err(RespError::NestedPush);
            }
            if self.open.len() > MAX_NESTING {
                return Err(RespError::TooDeep);
            }
            self.elements += n + u32::from(matches!(token, Token::Attribute(_)));
            if self.elements > MAX_ELEMENTS {
                return Err(RespError::TooManyElements(self.elements.into()));
            }
            self.open.push(n);
        }
        while self.open.last() == Some(&0) {
            self.open.pop();
        }
        Ok(self.open.is_empty())
    }
}
