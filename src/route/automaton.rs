//! All regular expressions of one tool as one table of bytes: built once, by the companion, and searched where it lies.
//!
//! A search costs one look-up per byte of the path and automaton, whatever the patterns. An engine that builds its states
//! as it goes needs seconds for some patterns of 16 bytes on a path of 8,000.
//!
//! ```text
//! automata:   one behind the other, until the bytes end
//! automaton:  words u16, start u16, special u16, first u16, classes [u8; 256], words x u16
//! row:        found u8, at_end u8, then the row that follows for each class of bytes, as u16
//! ```
//! Integers are little-endian. A row is named by the number of its first word. Row 0 is dead: nothing more is found from
//! there. Rows up to `special` are dead, or something has been found there. `found` and `at_end` are the smallest number
//! of a pattern that is found at a row, and at a row when the path ends; [`NONE`] without one. `first` is the smallest
//! number of all. The numbers count the patterns in the order in which they are tried.

use std::collections::HashMap;
use std::ops::Range;

use regex_automata::Anchored;
use regex_automata::MatchKind;
use regex_automata::dfa::{Automaton as _, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::StateID;
use regex_automata::util::{start, syntax};

pub(super) const NEST_LIMIT: u32 = 50;
/// Most bytes that the automata of one tool may take, whatever the zone.
pub const MAX_AUTOMATA_BYTES: usize = 64 << 10;
/// Most bytes of an automaton of several patterns. Those that would need more are split: patterns whose states multiply
/// are small one by one.
const MAX_UNION_BYTES: usize = 16 << 10;
/// Most bytes of an automaton that is built at once, and of the patterns in it: some hundred microseconds.
const MAX_QUICK_BYTES: usize = 4 << 10;
const MAX_QUICK_TEXT: usize = 1 << 10;
/// Automata of one tool that may turn out too large before the rest of its patterns is given up. Each costs what the
/// limits of its size let it cost.
const MAX_FAILURES: usize = 16;
/// Bytes that a compiler may take for each byte of the result: its rows are twice as wide and filled up to a power of two.
const COMPILER_FACTOR: usize = 4;
/// What the compiler takes besides.
const COMPILER_BYTES: usize = 4 << 10;
/// Bytes of the patterns' common form before that, which grows as their texts and repetitions do.
const NFA_BYTES: usize = 1 << 20;
const QUICK_NFA_BYTES: usize = 64 << 10;
/// Rounds in which rows that lead to the same rows are made one.
const MERGE_ROUNDS: usize = 16;

/// No pattern.
const NONE: u8 = u8::MAX;
const HEADER_BYTES: usize = 8 + 256;

/// What the automata of a tool may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutomataLimits {
    /// Bytes of all of them.
    pub bytes: usize,
    /// Attempts that may fail.
    failures: usize,
}

impl AutomataLimits {
    /// Everything that fits `bytes` bytes.
    pub fn of_bytes(bytes: usize) -> Self {
        Self { bytes: bytes.min(MAX_AUTOMATA_BYTES), failures: MAX_FAILURES }
    }
}

/// Why a pattern is in none of the automata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooCostly {
    /// It is too large by itself.
    Alone,
    /// Those that are tried before it have left too little room.
    AfterOthers,
    /// Those that are tried before it took all the attempts.
    Effort,
}

/// The automata of one tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Automata {
    bytes: Vec<u8>,
    /// Which of the patterns are in none of them, in order.
    refused: Vec<(usize, TooCostly)>,
}

impl Automata {
    /// Builds the automata of these patterns, which are in the order in which they are tried. Those that are tried first
    /// have the room first; what is too large is left out alone. The numbers are those of the patterns that are left.
    ///
    /// `is_stopped` is asked before each attempt; what is not built by then is left out.
    pub fn build(patterns: &[&str], limits: AutomataLimits, is_stopped: &dyn Fn() -> bool) -> Self {
        let mut builder = Builder { patterns, limits, is_stopped, built: Self::default() };
        builder.place(0..patterns.len());
        let built = builder.built;
        if built.refused.iter().all(|(_, why)| *why == TooCostly::Alone) || is_stopped() {
            return built;
        }
        // Patterns that begin alike are smaller together than one by one.
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

    /// Builds one automaton of all these patterns if that takes no more than `bytes` bytes and little time.
    pub fn build_quickly(patterns: &[&str], bytes: usize) -> Option<Self> {
        if patterns.is_empty() {
            return Some(Self::default());
        }
        if patterns.iter().map(|pattern| pattern.len()).sum::<usize>() > MAX_QUICK_TEXT {
            return None;
        }
        Some(Self { bytes: compile(patterns, 0, bytes.min(MAX_QUICK_BYTES))?, refused: Vec::new() })
    }

    /// Those of a record.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { bytes, refused: Vec::new() }
    }

    /// As a record has them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Which of the patterns are in none of them, and why, in order.
    pub fn refused(&self) -> &[(usize, TooCostly)] {
        &self.refused
    }
}

/// The smallest number below `below` of a pattern that these automata find in `path`; `None` when there is none. Any bytes
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

    /// The smallest number of a pattern that is found, or `best` if that is smaller.
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
    /// Adds these patterns, in one automaton or in several.
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

/// One automaton of these patterns, numbered from `first`; `None` when it would take more than `limit` bytes.
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

/// An automaton on its way from the compiler's form to ours: all rows, and for each the row that follows by class.
struct Rows {
    /// By byte.
    classes: Vec<u8>,
    width: usize,
    /// What is found at a row, and what when the path ends there.
    found: Vec<[u8; 2]>,
    next: Vec<u32>,
}

/// The row from which nothing more is found.
const DEAD: u32 = 0;
/// The row at which each path begins.
const START: u32 = 1;

impl Rows {
    /// All rows that a path can reach.
    fn walk(dfa: &dense::DFA<Vec<u32>>, first: u8) -> Option<Self> {
        let classes: Vec<u8> = (0..=u8::MAX).map(|byte| dfa.byte_classes().get(byte)).collect();
        // One byte of each class, by the number of its class: those are given in the order of the bytes.
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
                let number = if dfa.is_dead_state(next) || dfa.is_quit_state(next) {
                    DEAD
                } else {
                    *numbers.entry(next).or_insert_with(|| {
                        states.push(next);
                        states.len() as u32
                    })
                };
                rows.next.push(number);
            }
        }
        Some(rows)
    }

    /// Makes all rows dead from which nothing is found.
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

    /// Makes rows one that find the same and lead to the same rows.
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

    /// Puts other rows in the place of rows, wherever a row leads to them.
    fn rename(&mut self, name: impl Fn(u32) -> u32) {
        self.next.iter_mut().for_each(|next| *next = name(*next));
        // The start is named by nobody else.
        let start = name(START);
        if start != START {
            let (found, next) = (self.found.get(start as usize).copied(), self.row(start).to_vec());
            if let (Some(to), Some(found)) = (self.found.get_mut(START as usize), found) {
                *to = found;
            }
            let to = self.next.iter_mut().skip(START as usize * self.width).zip(next);
            to.for_each(|(to, next)| *to = next);
        }
    }

    fn row(&self, row: u32) -> &[u32] {
        self.next.get(row as usize * self.width..).and_then(|rest| rest.get(..self.width)).unwrap_or_default()
    }

    /// The bytes, if they are no more than `limit` and their rows can be named.
    fn encode(&self, first: u8, limit: usize) -> Option<Vec<u8>> {
        // The rows in use, those first at which something is found.
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
        // Classes that no row in use tells apart become one.
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
