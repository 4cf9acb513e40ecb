//! All regular expressions of one tool, compiled into a table of bytes: built once, by the companion, and searched in place.
//!
//! A search costs one table lookup per byte of the path and automaton, whatever the patterns. A regex engine that builds
//! states lazily needs seconds for some patterns of 16 bytes on a path of 8,000.
//!
//! ```text
//! automata:   one after the other, to the end
//! automaton:  words u16, start u16, special u16, first u16, classes [u8; 256], words x u16
//! row:        found u8, at_end u8, then the next row for each byte class, as u16
//! ```
//! Integers are little-endian. A row (a DFA state) is identified by the index of its first word. Row 0 is dead: no match
//! follows. Rows up to `special` are dead or matching. `found` and `at_end` are the smallest number of a pattern that
//! matches at a row, and at a row where the path ends; [`NONE`] if there is none. `first` is the smallest number of all.
//! Patterns are numbered in matching order.

use std::collections::HashMap;
use std::ops::Range;

use regex_automata::Anchored;
use regex_automata::MatchKind;
use regex_automata::dfa::{Automaton as _, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::StateID;
use regex_automata::util::{start, syntax};

pub(super) const NEST_LIMIT: u32 = 50;
/// Most bytes of the automata of one tool, whatever the zone.
pub const MAX_AUTOMATA_BYTES: usize = 64 << 10;
/// Most bytes of an automaton of several patterns. Larger unions are split: patterns with states that multiply are small
/// separately.
const MAX_UNION_BYTES: usize = 16 << 10;
/// Limits of a quick build, for a few hundred microseconds: bytes of the automaton, and of its patterns.
const MAX_QUICK_BYTES: usize = 4 << 10;
const MAX_QUICK_TEXT: usize = 1 << 10;
/// Failed attempts per tool, each as costly as the size limits allow, before the remaining patterns are refused.
const MAX_FAILURES: usize = 16;
/// Bytes that the compiler may use per byte of the result: its rows are twice as wide and padded to a power of two.
const COMPILER_FACTOR: usize = 4;
/// Constant part of the compiler's limit.
const COMPILER_BYTES: usize = 4 << 10;
/// Bytes of the NFA, which grows with the patterns' texts and repetitions.
const NFA_BYTES: usize = 1 << 20;
const QUICK_NFA_BYTES: usize = 64 << 10;
/// Most rounds of merging equivalent rows.
const MERGE_ROUNDS: usize = 16;

/// No pattern.
const NONE: u8 = u8::MAX;
const HEADER_BYTES: usize = 8 + 256;

/// Limits for the automata of one tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutomataLimits {
    /// Most bytes in total.
    pub bytes: usize,
    /// Failed attempts left.
    failures: usize,
}

impl AutomataLimits {
    /// At most `bytes` bytes, and the default number of attempts.
    pub fn of_bytes(bytes: usize) -> Self {
        Self { bytes: bytes.min(MAX_AUTOMATA_BYTES), failures: MAX_FAILURES }
    }
}

/// Why a pattern was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooCostly {
    /// The pattern alone is too large.
    Alone,
    /// The patterns before it leave too little space.
    AfterOthers,
    /// The patterns before it used up all attempts.
    Effort,
}

/// The automata of one tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Automata {
    bytes: Vec<u8>,
    /// Refused patterns, by number, in order.
    refused: Vec<(usize, TooCostly)>,
}

impl Automata {
    /// Builds the automata of patterns, given in matching order. Earlier patterns get space first; a pattern that is too large
    /// is refused alone. Matches are numbered among the patterns that are not refused.
    ///
    /// `is_stopped` is called before each attempt; once it returns true, the remaining patterns are refused.
    pub fn build(patterns: &[&str], limits: AutomataLimits, is_stopped: &dyn Fn() -> bool) -> Self {
        let mut builder = Builder { patterns, limits, is_stopped, built: Self::default() };
        builder.place(0..patterns.len());
        let built = builder.built;
        if built.refused.iter().all(|(_, why)| *why == TooCostly::Alone) || is_stopped() {
            return built;
        }
        // Patterns with a common prefix are smaller together.
        let is_alone = |number: usize| built.refused.contains(&(number, TooCostly::Alone));
        let others: Vec<_> =
            patterns.iter().enumerate().filter(|(number, _)| !is_alone(*number)).map(|(_, text)| *text).collect();
        match compile(&others, 0, limits.bytes) {
            Some(bytes) => {
                let refused = built.refused.into_iter().filter(|(_, why)| *why == TooCostly::Alone).collect();
                Self { bytes, refused }
            }
            None => built,
        }
    }

    /// Builds one automaton of all patterns if that takes at most `bytes` bytes and little time.
    pub fn build_quickly(patterns: &[&str], bytes: usize) -> Option<Self> {
        if patterns.is_empty() {
            return Some(Self::default());
        }
        if patterns.iter().map(|pattern| pattern.len()).sum::<usize>() > MAX_QUICK_TEXT {
            return None;
        }
        Some(Self { bytes: compile(patterns, 0, bytes.min(MAX_QUICK_BYTES))?, refused: Vec::new() })
    }

    /// Automata from their encoded form.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { bytes, refused: Vec::new() }
    }

    /// The encoded form, as stored in a record.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The refused patterns, by number, in order.
    pub fn refused(&self) -> &[(usize, TooCostly)] {
        &self.refused
    }
}

/// The smallest number below `below` of a pattern that matches `path`; `None` if none matches. Total: any `automata` bytes
/// give an answer.
pub fn find_first(mut automata: &[u8], path: &[u8], below: u8) -> Option<u8> {
    let mut best = below;
    while let Some((automaton, rest)) = Automaton::split_off(automata) {
        best = automaton.search(path, best);
        automata = rest;
    }
    (best < below).then_some(best)
}

/// A view of one automaton.
struct Automaton<'a> {
    start: u16,
    special: u16,
    first: u8,
    classes: &'a [u8; 256],
    words: &'a [[u8; 2]],
}

impl<'a> Automaton<'a> {
    fn split_off(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&[w0, w1, s0, s1, p0, p1, first, _], bytes) = bytes.split_first_chunk()?;
        let (classes, bytes) = bytes.split_first_chunk()?;
        let (words, rest) = bytes.split_at_checked(2 * usize::from(u16::from_le_bytes([w0, w1])))?;
        let (words, _) = words.as_chunks();
        let (start, special) = (u16::from_le_bytes([s0, s1]), u16::from_le_bytes([p0, p1]));
        Some((Self { start, special, first, classes, words }, rest))
    }

    /// The smallest number of a matching pattern, or `best` if that is smaller.
    fn search(&self, path: &[u8], mut best: u8) -> u8 {
        if best <= self.first {
            return best;
        }
        let mut row = self.start;
        for &byte in path {
            let class = usize::from(self.classes[usize::from(byte)]);
            let Some(&next) = self.words.get(usize::from(row) + 1 + class) else { return best };
            row = u16::from_le_bytes(next);
            if row <= self.special {
                let Some(&[found, _]) = self.words.get(usize::from(row)).filter(|_| row > 0) else { return best };
                best = best.min(found);
                if best <= self.first {
                    return best;
                }
            }
        }
        self.words.get(usize::from(row)).map_or(best, |&[_, at_end]| best.min(at_end))
    }
}

struct Builder<'p> {
    patterns: &'p [&'p str],
    limits: AutomataLimits,
    is_stopped: &'p dyn Fn() -> bool,
    built: Automata,
}

impl Builder<'_> {
    /// Adds patterns in one automaton, or splits them.
    fn place(&mut self, range: Range<usize>) {
        let patterns = self.patterns.get(range.clone()).unwrap_or_default();
        if patterns.is_empty() {
            return;
        }
        if self.limits.failures == 0 || (self.is_stopped)() {
            return self.built.refused.extend(range.map(|number| (number, TooCostly::Effort)));
        }
        let is_single = patterns.len() == 1;
        let limit = if is_single { self.limits.bytes } else { self.limits.bytes.min(MAX_UNION_BYTES) };
        let room = self.limits.bytes.saturating_sub(self.built.bytes.len());
        let kept = range.start - self.built.refused.len();
        let compiled = compile(patterns, kept as u8, limit);
        let is_small_enough = compiled.is_some();
        match compiled.filter(|bytes| bytes.len() <= room) {
            Some(bytes) => self.built.bytes.extend(bytes),
            None => {
                self.limits.failures -= 1;
                if is_single {
                    let reason = if is_small_enough { TooCostly::AfterOthers } else { TooCostly::Alone };
                    return self.built.refused.push((range.start, reason));
                }
                let middle = range.start + patterns.len() / 2;
                self.place(range.start..middle);
                self.place(middle..range.end);
            }
        }
    }
}

/// Compiles patterns into one automaton, numbered from `first`; `None` if it would exceed `limit` bytes.
fn compile(patterns: &[&str], first: u8, limit: usize) -> Option<Vec<u8>> {
    let compiler_limit = Some(limit * COMPILER_FACTOR + COMPILER_BYTES);
    let nfa_limit = if limit > MAX_QUICK_BYTES { NFA_BYTES } else { QUICK_NFA_BYTES };
    let config = dense::Config::new()
        .match_kind(MatchKind::All)
        .start_kind(StartKind::Unanchored)
        .accelerate(false)
        .specialize_start_states(false)
        .determinize_size_limit(compiler_limit)
        .dfa_size_limit(compiler_limit);
    let dfa = dense::Builder::new()
        .configure(config)
        .thompson(thompson::Config::new().utf8(false).nfa_size_limit(Some(nfa_limit)))
        .syntax(syntax::Config::new().unicode(false).utf8(false).nest_limit(NEST_LIMIT))
        .build_many(patterns)
        .ok()?;
    let mut rows = Rows::walk(&dfa, first)?;
    rows.drop_useless();
    rows.merge();
    rows.encode(first, limit)
}

/// An automaton between the compiler's form and ours: all rows with their transitions.
struct Rows {
    /// The class of each byte.
    classes: Vec<u8>,
    width: usize,
    /// The match at each row, and at its end of path.
    found: Vec<[u8; 2]>,
    next: Vec<u32>,
}

/// The row without further matches.
const DEAD: u32 = 0;
/// The initial row.
const START: u32 = 1;

impl Rows {
    /// Collects all reachable rows. The compiler's own dead state becomes a row without a match.
    fn walk(dfa: &dense::DFA<Vec<u32>>, first: u8) -> Option<Self> {
        let classes: Vec<u8> = (0..=u8::MAX).map(|byte| dfa.byte_classes().get(byte)).collect();
        // One byte of each class, by class number: classes are numbered in the order of their bytes.
        let mut bytes = Vec::new();
        for (byte, &class) in (0..=u8::MAX).zip(&classes) {
            if usize::from(class) == bytes.len() {
                bytes.push(byte);
            }
        }
        let found = |state: StateID| {
            let matches = if dfa.is_match_state(state) { dfa.match_len(state) } else { 0 };
            let smallest = (0..matches).map(|index| dfa.match_pattern(state, index).as_usize()).min();
            smallest.map_or(NONE, |number| first.saturating_add(u8::try_from(number).unwrap_or(NONE)))
        };
        let start = dfa.start_state(&start::Config::new().anchored(Anchored::No)).ok()?;
        let mut rows = Self { classes, width: bytes.len(), found: vec![[NONE; 2]], next: vec![DEAD; bytes.len()] };
        let mut numbers = HashMap::from([(start, START)]);
        let mut states = vec![start];
        let mut at = 0;
        while let Some(&state) = states.get(at) {
            at += 1;
            rows.found.push([found(state), found(dfa.next_eoi_state(state))]);
            for &byte in &bytes {
                let next = dfa.next_state(state, byte);
                rows.next.push(*numbers.entry(next).or_insert_with(|| {
                    states.push(next);
                    states.len() as u32
                }));
            }
        }
        Some(rows)
    }

    /// Replaces rows without a reachable match by the dead row.
    fn drop_useless(&mut self) {
        let mut before = vec![Vec::new(); self.found.len()];
        for (row, next) in (0u32..).zip(self.next.chunks(self.width)) {
            for &next in next {
                if let Some(before) = before.get_mut(next as usize).filter(|before| before.last() != Some(&row)) {
                    before.push(row);
                }
            }
        }
        let mut is_useful: Vec<bool> = self.found.iter().map(|found| *found != [NONE; 2]).collect();
        let mut open: Vec<u32> = (0u32..).zip(&is_useful).filter(|(_, useful)| **useful).map(|(row, _)| row).collect();
        while let Some(row) = open.pop() {
            for &before in before.get(row as usize).into_iter().flatten() {
                if let Some(useful) = is_useful.get_mut(before as usize).filter(|useful| !**useful) {
                    *useful = true;
                    open.push(before);
                }
            }
        }
        self.rename(|row| if is_useful.get(row as usize) == Some(&true) { row } else { DEAD });
    }

    /// Merges rows with the same matches and transitions.
    fn merge(&mut self) {
        for _ in 0..MERGE_ROUNDS {
            let mut known: HashMap<([u8; 2], &[u32]), u32> = HashMap::new();
            let rows = (0u32..).zip(self.found.iter().copied().zip(self.next.chunks(self.width)));
            let names: Vec<u32> = rows.map(|(row, same)| *known.entry(same).or_insert(row)).collect();
            if (0u32..).zip(&names).all(|(row, name)| row == *name) {
                return;
            }
            self.rename(|row| names.get(row as usize).copied().unwrap_or(row));
        }
    }

    /// Redirects all transitions. The initial row keeps its number: it is the first with its content, unless it is as dead as the dead
    /// row.
    fn rename(&mut self, name: impl Fn(u32) -> u32) {
        self.next.iter_mut().for_each(|next| *next = name(*next));
    }

    fn row(&self, row: u32) -> &[u32] {
        self.next.get(row as usize * self.width..).and_then(|rest| rest.get(..self.width)).unwrap_or_default()
    }

    /// Encodes the automaton if it fits `limit` bytes and 16-bit row numbers.
    fn encode(&self, first: u8, limit: usize) -> Option<Vec<u8>> {
        // Collect the rows in use, matching rows first.
        let mut is_used = vec![false; self.found.len()];
        let mut used = vec![START];
        let mut at = 0;
        while let Some(&row) = used.get(at) {
            at += 1;
            for &next in self.row(row) {
                if let Some(seen) = is_used.get_mut(next as usize).filter(|seen| !**seen) {
                    *seen = true;
                    if next != DEAD && next != START {
                        used.push(next);
                    }
                }
            }
        }
        let found = |row: u32| self.found.get(row as usize).copied().unwrap_or([NONE; 2]);
        let (mut order, others): (Vec<u32>, Vec<u32>) = used.iter().partition(|&&row| found(row)[0] != NONE);
        order.insert(0, DEAD);
        let special = order.len() - 1;
        order.extend(others);
        // Merge byte classes that no row in use distinguishes.
        let mut columns: HashMap<Vec<u32>, usize> = HashMap::new();
        let mut kept = Vec::new();
        let classes: Vec<usize> = (0..self.width)
            .map(|class| {
                let column = used.iter().map(|&row| self.row(row).get(class).copied().unwrap_or(DEAD)).collect();
                let number = columns.len();
                *columns.entry(column).or_insert_with(|| {
                    kept.push(class);
                    number
                })
            })
            .collect();
        let stride = 1 + kept.len();
        let words = u16::try_from(order.len() * stride).ok()?;
        if HEADER_BYTES + 2 * usize::from(words) > limit {
            return None;
        }
        let mut names = vec![0u16; self.found.len()];
        for (place, &row) in order.iter().enumerate() {
            *names.get_mut(row as usize)? = u16::try_from(place * stride).ok()?;
        }
        let name = |row: u32| names.get(row as usize).copied().unwrap_or(0);
        let mut bytes = Vec::with_capacity(HEADER_BYTES + 2 * usize::from(words));
        for word in [words, name(START), u16::try_from(special * stride).ok()?, first.into()] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        for &class in &self.classes {
            bytes.push(u8::try_from(*classes.get(usize::from(class))?).ok()?);
        }
        for &row in &order {
            bytes.extend_from_slice(&found(row));
            for &class in &kept {
                bytes.extend_from_slice(&name(*self.row(row).get(class)?).to_le_bytes());
            }
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests;
