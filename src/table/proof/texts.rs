//! Texts of the statistics and of questions: edges E7 and E8, and the failures without them.

use std::sync::Arc;

use super::model::{fails, holds};
use crate::route::Kind;
use crate::table::atomic::{
    Edge::{E7, E8},
    Part::{Acquire, FenceAcquire, FenceRelease, Release},
    faulty::mend,
};
use crate::table::stats::{Label, Note, Notes, Question, Questions, Reply};

/// The text of a version: two words that must agree.
fn text(version: u8) -> String {
    char::from(b'0' + version).to_string().repeat(16)
}

fn is_whole(text: &[u8]) -> bool {
    text.iter().all(|byte| Some(byte) == text.first())
}

/// A note is rewritten while it is read.
fn note() {
    mend();
    let owned = Arc::new([Note::new()]);
    let reader = Arc::clone(&owned);
    Notes::new(&owned[..]).set_error(Some(&text(1)));
    let read = loom::thread::spawn(move || {
        if let Some(text) = Notes::new(&reader[..]).error() {
            assert!(text.len() == 16 && is_whole(text.as_bytes()), "torn: {text}");
        }
    });
    Notes::new(&owned[..]).set_error(Some(&text(2)));
    read.join().unwrap();
}

/// The label of a series is assigned to another tool while it is read.
fn label() {
    mend();
    let owned = Arc::new(Label::new());
    let reader = Arc::clone(&owned);
    owned.assign(1, 1, Kind::Tool, text(1).as_bytes());
    let read = loom::thread::spawn(move || {
        if let Some((_, view)) = reader.read() {
            assert!(view.name().len() == 16 && is_whole(view.name()), "torn: {view:?}");
        }
    });
    owned.assign(2, 2, Kind::Tool, text(2).as_bytes());
    read.join().unwrap();
}

/// A worker asks, gives up and asks anew, while the companion answers with what it was asked.
fn question() {
    mend();
    let owned = Arc::new([Question::new()]);
    let companion = Arc::clone(&owned);
    let answer = loom::thread::spawn(move || {
        for _ in 0..2 {
            let questions = Questions::new(&companion[..]);
            questions.open().for_each(|(ticket, name)| questions.answer(ticket, &name));
        }
    });
    let questions = Questions::new(&owned[..]);
    for version in 1..=2 {
        let ticket = questions.ask(text(version).as_bytes(), 0).unwrap();
        match questions.reply(ticket) {
            Reply::Answered(answer) => assert!(answer == text(version).as_bytes(), "torn: {answer:?}"),
            Reply::Pending => questions.forget(ticket),
            Reply::Lost => panic!("the only worker lost its question"),
        }
    }
    answer.join().unwrap();
}

#[test]
fn an_answer_is_to_its_own_question() {
    holds("question", question);
    for part in [Release(E8), Acquire(E8)] {
        fails("question", Some(part), "torn", question);
    }
}

#[test]
fn a_text_is_read_whole_or_not_at_all() {
    for (name, model) in [("note", note as fn()), ("label", label)] {
        holds(name, model);
        for part in [Release(E7), Acquire(E7), FenceRelease(E7), FenceAcquire(E7)] {
            fails(name, Some(part), "torn", model);
        }
    }
}
