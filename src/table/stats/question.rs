//! Questions of workers to the companion, which alone has a connection to the source: who registered a tool's routes?
//!
//! A question goes through `free -> being asked -> asked -> answered -> free`. A worker that dies leaves its question; it is
//! asked anew after [`STALE_MILLISECONDS`], or freed by the next companion.

use crate::table::atomic::{AtomicU64, Edge, Ordering::Relaxed, acquire, release};

const NAME_WORDS: usize = 32;
const ANSWER_WORDS: usize = 220;
/// Longest answer, in bytes.
pub const ANSWER_BYTES: usize = ANSWER_WORDS * 8;
/// Time after which a question that was not taken back is free.
const STALE_MILLISECONDS: u64 = 10_000;

const FREE: u64 = 0;
const BEING_ASKED: u64 = 1;
const ASKED: u64 = 2;
const ANSWERED: u64 = 3;
const PHASES: u64 = 4;

/// 32 lines for one question and its answer.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Question {
    /// `number * 4 + phase`.
    state: AtomicU64,
    /// Unix milliseconds.
    at: AtomicU64,
    name_bytes: AtomicU64,
    answer_bytes: AtomicU64,
    name: [AtomicU64; NAME_WORDS],
    answer: [AtomicU64; ANSWER_WORDS],
}

/// A question that a worker has asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    index: usize,
    number: u64,
}

impl Ticket {
    /// The state of the question in a phase.
    fn state(self, phase: u64) -> u64 {
        self.number * PHASES + phase
    }
}

/// What became of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// No answer yet.
    Pending,
    /// The answer.
    Answered(Vec<u8>),
    /// It was dropped.
    Lost,
}

/// All questions of a table.
#[derive(Clone, Copy, Debug)]
pub struct Questions<'a> {
    questions: &'a [Question],
}

impl Question {
    pub(in crate::table) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            state: zero(),
            at: zero(),
            name_bytes: zero(),
            answer_bytes: zero(),
            name: std::array::from_fn(|_| zero()),
            answer: std::array::from_fn(|_| zero()),
        }
    }

    /// Whether whoever asked it has had the time to take it back.
    fn is_stale(&self, now: u64) -> bool {
        now.abs_diff(self.at.load(Relaxed)) > STALE_MILLISECONDS
    }

    /// Moves the question from one state to another; `false` if it has another state by now.
    fn advance(&self, from: u64, to: u64) -> bool {
        self.state.compare_exchange(from, to, release(Edge::E8), Relaxed).is_ok()
    }
}

fn write(words: &[AtomicU64], length: &AtomicU64, text: &[u8]) {
    let text = text.get(..words.len() * 8).unwrap_or(text);
    length.store(text.len() as u64, Relaxed);
    for (word, bytes) in words.iter().zip(text.chunks(8)) {
        let mut whole = [0; 8];
        whole.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        word.store(u64::from_ne_bytes(whole), Relaxed); // edge E8
    }
}

fn read(words: &[AtomicU64], length: &AtomicU64) -> Vec<u8> {
    let length = usize::try_from(length.load(Relaxed)).unwrap_or(0).min(words.len() * 8);
    let words = words.iter().take(length.div_ceil(8));
    let mut text: Vec<u8> = words.flat_map(|word| word.load(Relaxed).to_ne_bytes()).collect(); // edge E8
    text.truncate(length);
    text
}

impl<'a> Questions<'a> {
    pub(in crate::table) fn new(questions: &'a [Question]) -> Self {
        Self { questions }
    }

    pub(in crate::table) fn len(self) -> usize {
        self.questions.len()
    }

    /// Asks about a tool, at this time in Unix milliseconds. `None` if too many questions are open.
    pub fn ask(self, name: &[u8], now: u64) -> Option<Ticket> {
        let (question, ticket) = self.claim(now)?;
        question.at.store(now, Relaxed);
        write(&question.name, &question.name_bytes, name);
        question.advance(ticket.state(BEING_ASKED), ticket.state(ASKED)).then_some(ticket)
    }

    /// Takes a free question, to ask it.
    fn claim(self, now: u64) -> Option<(&'a Question, Ticket)> {
        self.questions.iter().enumerate().find_map(|(index, question)| {
            let state = question.state.load(acquire(Edge::E8));
            let is_free = match state % PHASES {
                FREE => true,
                ASKED | ANSWERED => question.is_stale(now),
                _ => false,
            };
            let ticket = Ticket { index, number: (state / PHASES).wrapping_add(1) % (u64::MAX / PHASES) };
            (is_free && question.advance(state, ticket.state(BEING_ASKED))).then_some((question, ticket))
        })
    }

    /// Looks for the answer, and frees the question once there is one.
    pub fn reply(self, ticket: Ticket) -> Reply {
        let Some(question) = self.questions.get(ticket.index) else { return Reply::Lost };
        let (state, answered) = (question.state.load(acquire(Edge::E8)), ticket.state(ANSWERED));
        if state == ticket.state(ASKED) {
            return Reply::Pending;
        }
        if state != answered {
            return Reply::Lost;
        }
        let answer = read(&question.answer, &question.answer_bytes);
        if question.advance(answered, ticket.state(FREE)) { Reply::Answered(answer) } else { Reply::Lost }
    }

    /// Gives a question up.
    pub fn forget(self, ticket: Ticket) {
        if let Some(question) = self.questions.get(ticket.index) {
            for phase in [ASKED, ANSWERED] {
                question.advance(ticket.state(phase), ticket.state(FREE));
            }
        }
    }

    /// The open questions, and the tools that they are about. Only for the one companion.
    pub fn open(self) -> impl Iterator<Item = (Ticket, Vec<u8>)> + use<'a> {
        self.questions.iter().enumerate().filter_map(|(index, question)| {
            let state = question.state.load(acquire(Edge::E8));
            let ticket = Ticket { index, number: state / PHASES };
            (state % PHASES == ASKED).then(|| (ticket, read(&question.name, &question.name_bytes)))
        })
    }

    /// Answers an open question. Only for the one companion.
    pub fn answer(self, ticket: Ticket, text: &[u8]) {
        let Some(question) = self.questions.get(ticket.index) else { return };
        write(&question.answer, &question.answer_bytes, text);
        question.advance(ticket.state(ASKED), ticket.state(ANSWERED));
    }

    /// Frees questions that a killed worker was asking. Only for a new companion.
    pub fn reset(self, now: u64) {
        for question in self.questions {
            let state = question.state.load(Relaxed);
            if state % PHASES == BEING_ASKED && question.is_stale(now) {
                question.advance(state, state - BEING_ASKED);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000_000;

    fn questions(count: usize) -> Vec<Question> {
        std::iter::repeat_with(Question::new).take(count).collect()
    }

    #[test]
    fn a_question_is_answered_once_and_freed() {
        let owned = questions(1);
        let questions = Questions::new(&owned);
        let ticket = questions.ask("w\u{ef}ki".as_bytes(), NOW).unwrap();
        assert_eq!((questions.reply(ticket), questions.ask(b"b", NOW)), (Reply::Pending, None));
        let open: Vec<_> = questions.open().collect();
        assert_eq!(open, [(ticket, "w\u{ef}ki".as_bytes().to_vec())]);
        questions.answer(ticket, &[b'x'; ANSWER_BYTES + 1]);
        assert_eq!(questions.open().count(), 0);
        assert_eq!(questions.reply(ticket), Reply::Answered(vec![b'x'; ANSWER_BYTES]));
        assert_eq!(questions.reply(ticket), Reply::Lost);
        let next = questions.ask(b"b", NOW).unwrap();
        questions.answer(ticket, b"late");
        assert_eq!(questions.reply(next), Reply::Pending, "the answer to the question before");
        questions.forget(next);
        assert!(questions.ask(b"c", NOW).is_some());
    }

    #[test]
    fn abandoned_questions_become_free() {
        let owned = questions(1);
        let questions = Questions::new(&owned);
        let first = questions.ask(b"a", NOW).unwrap();
        assert_eq!(questions.ask(b"b", NOW + STALE_MILLISECONDS), None);
        let second = questions.ask(b"b", NOW + STALE_MILLISECONDS + 1).unwrap();
        assert_eq!(questions.reply(first), Reply::Lost);
        questions.forget(second);
        // Killed while it asked.
        let now = NOW + 2 * STALE_MILLISECONDS + 2;
        assert!(questions.claim(now).is_some());
        assert_eq!((questions.ask(b"c", now + STALE_MILLISECONDS), questions.open().next()), (None, None));
        questions.reset(now - STALE_MILLISECONDS);
        assert_eq!(questions.ask(b"c", now), None, "perhaps it is still asking");
        questions.reset(now);
        assert_eq!(questions.open().next(), None, "the question is free");
        let third = questions.ask(b"c", now).unwrap();
        // Only the next question takes the place of one that was asked.
        questions.reset(now + 2 * STALE_MILLISECONDS);
        assert_eq!(questions.reply(third), Reply::Pending);
        questions.answer(third, b"answer");
        questions.forget(third);
        assert!(questions.ask(b"d", now).is_some());
    }

    #[test]
    fn tickets_are_never_the_same() {
        let owned = questions(2);
        let questions = Questions::new(&owned);
        let mut tickets = Vec::new();
        for _ in 0..100 {
            let ticket = questions.ask(b"a", NOW).unwrap();
            assert!(!tickets.contains(&ticket));
            tickets.push(ticket);
            questions.forget(ticket);
        }
    }
}
