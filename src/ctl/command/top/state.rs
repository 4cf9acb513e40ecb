//! What the screen shows, and what keys change.

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::Sample;
use crate::ctl::options::Sort;
use crate::text::must_escape;

/// Rows that a page key moves.
const PAGE: usize = 10;
/// Longest search text, in characters: a tool's name has at most 255 bytes.
const MAX_SEARCH: usize = 255;

/// The state of the screen.
#[derive(Debug)]
pub struct State {
    /// The order.
    pub sort: Sort,
    /// Only names that contain this text.
    pub search: String,
    /// Whether keys go to the search text.
    pub is_typing: bool,
    /// The selected row.
    pub selected: usize,
    /// The last sample.
    pub sample: Option<Sample>,
    /// Why there is no newer one.
    pub error: Option<String>,
}

/// What follows a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Nothing,
    /// The screen must be drawn again.
    Draw,
    /// The request has changed: ask again at once.
    Ask,
    /// The end.
    Quit,
}

impl State {
    /// Before the first sample.
    pub fn new(sort: Sort, search: &str) -> Self {
        Self { sort, search: search.to_owned(), is_typing: false, selected: 0, sample: None, error: None }
    }

    /// Takes a key, or a change of the screen's size.
    pub fn take(&mut self, event: &Event) -> Next {
        match event {
            Event::Key(key) if key.kind == KeyEventKind::Press => self.key(*key),
            Event::Resize(..) => Next::Draw,
            _ => Next::Nothing,
        }
    }

    fn key(&mut self, key: KeyEvent) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Next::Quit } else { Next::Nothing };
        }
        if self.is_typing { self.type_key(key.code) } else { self.command(key.code) }
    }

    fn type_key(&mut self, code: KeyCode) -> Next {
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.search.clear();
            }
            KeyCode::Backspace => _ = self.search.pop(),
            KeyCode::Char(c) if !must_escape(c) && self.search.chars().count() < MAX_SEARCH => self.search.push(c),
            _ => return Next::Nothing,
        }
        self.selected = 0;
        Next::Ask
    }

    fn command(&mut self, code: KeyCode) -> Next {
        let last = self.sample.as_ref().map_or(0, |sample| sample.tools.items.len().saturating_sub(1));
        match code {
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Char('r') => return self.sort_by(Sort::Rate),
            KeyCode::Char('e') => return self.sort_by(Sort::Errors),
            KeyCode::Char('l') => return self.sort_by(Sort::Latency),
            KeyCode::Char('n') => return self.sort_by(Sort::Name),
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Esc if !self.search.is_empty() => {
                self.search.clear();
                return Next::Ask;
            }
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.selected = (self.selected + 1).min(last),
            KeyCode::PageUp => self.selected = self.selected.saturating_sub(PAGE),
            KeyCode::PageDown => self.selected = (self.selected + PAGE).min(last),
            KeyCode::Home => self.selected = 0,
            KeyCode::End => self.selected = last,
            _ => return Next::Nothing,
        }
        Next::Draw
    }

    fn sort_by(&mut self, sort: Sort) -> Next {
        self.sort = sort;
        self.selected = 0;
        Next::Ask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(state: &mut State, code: KeyCode) -> Next {
        state.take(&Event::Key(code.into()))
    }

    #[test]
    fn keys_sort_search_and_quit() {
        let mut state = State::new(Sort::Rate, "");
        assert_eq!((press(&mut state, KeyCode::Char('e')), state.sort), (Next::Ask, Sort::Errors));
        assert_eq!(press(&mut state, KeyCode::Char('/')), Next::Draw);
        for c in "qr\u{202e}".chars() {
            press(&mut state, KeyCode::Char(c));
        }
        assert_eq!((state.search.as_str(), state.sort, state.is_typing), ("qr", Sort::Errors, true));
        press(&mut state, KeyCode::Backspace);
        press(&mut state, KeyCode::Enter);
        assert_eq!((state.search.as_str(), state.is_typing), ("q", false));
        assert_eq!((press(&mut state, KeyCode::Esc), state.search.as_str()), (Next::Ask, ""));
        assert_eq!(press(&mut state, KeyCode::Char('q')), Next::Quit);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        state.is_typing = true;
        assert_eq!(state.take(&Event::Key(interrupt)), Next::Quit);
    }
}
