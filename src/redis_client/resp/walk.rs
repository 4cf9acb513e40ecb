//! How far a reply that is still coming in has been read, so that no byte of it is read twice.

use super::header::{self, MAX_ELEMENTS, MAX_NESTING, RespError, Step, Token};

/// How far the reply at the front of the buffer has been read.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Where the next value begins, in bytes from the start of the reply.
    at: usize,
    /// Nothing new can be learnt before that many bytes are here.
    needed: usize,
    /// Values announced so far.
    elements: u32,
    /// Values still to come, for each aggregate that is open, outermost first. The bottom entry is the reply itself.
    open: Vec<u32>,
    /// What was read.
    tokens: Vec<Token>,
}

impl Walk {
    /// As many tokens are kept allocated from one reply to the next.
    const KEEP: usize = 4096;

    /// Gets ready for the next reply.
    pub(super) fn reset(&mut self) {
        (self.at, self.needed, self.elements) = (0, 0, 0);
        self.open.clear();
        self.tokens.clear();
        if self.tokens.capacity() > Self::KEEP {
            self.tokens.shrink_to(Self::KEEP);
        }
    }

    /// What was read; a whole reply once [`Walk::advance`] says so.
    pub(super) fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// Goes on as far as `bytes`, the reply from its start, allows: its length once it has ended.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<Option<usize>, RespError> {
        if bytes.len() < self.needed {
            return Ok(None);
        }
        if self.open.is_empty() {
            self.open.push(1);
        }
        loop {
            match header::read(bytes, self.at)? {
                Step::Unfinished(needed) => {
                    self.needed = needed;
                    return Ok(None);
                }
                Step::Token(token, next) => {
                    self.tokens.push(token);
                    self.at = next;
                    if self.book(token)? {
                        return Ok(Some(next));
                    }
                }
            }
        }
    }

    /// Books one value as come; true when the reply is complete with it.
    #[inline]
    fn book(&mut self, token: Token) -> Result<bool, RespError> {
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
