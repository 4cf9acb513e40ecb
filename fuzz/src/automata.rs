//! Automata of several patterns: the first that matches is the one that the `regex` crate finds. Literal matchers agree with it, too.

use std::cell::RefCell;
use std::collections::HashMap;

use regex::bytes::{Regex, RegexBuilder};
use urlproxy::route::{Automata, AutomataLimits, Matcher, Pattern, contains, find_first};

/// Most patterns of one run: the rest of the bytes is the path.
const MAX_PATTERNS: usize = 4;
/// A quarter of a tool's limit, because patterns that are too costly take the most time.
const MAX_BYTES: usize = 16 << 10;

thread_local! {
    static MODELS: RefCell<HashMap<String, Option<Regex>>> = RefCell::default();
}

/// Patterns end with a newline, which no pattern contains.
pub fn check(bytes: &[u8]) {
    let mut parts: Vec<&[u8]> = bytes.splitn(MAX_PATTERNS + 1, |&byte| byte == b'\n').collect();
    let path = [b"/", parts.pop().unwrap_or_default()].concat();
    let (mut texts, mut models) = (Vec::new(), Vec::new());
    for text in parts.into_iter().filter_map(|text| std::str::from_utf8(text).ok()) {
        let Ok(pattern) = Pattern::analyze(text) else { continue };
        let Some(model) = compiled(text) else { continue };
        if pattern.matcher() == Matcher::Regex {
            texts.push(text);
            models.push(model);
        } else {
            assert_eq!(by_literal(&pattern, &path), model.is_match(&path), "{text:?} in {}", path.escape_ascii());
        }
    }
    let automata = Automata::build(&texts, AutomataLimits::of_bytes(MAX_BYTES), &|| false);
    let refused: Vec<_> = automata.refused().iter().map(|(number, _)| *number).collect();
    let kept = models.iter().enumerate().filter(|(number, _)| !refused.contains(number)).map(|(_, model)| model);
    let wanted = kept.clone().position(|model| model.is_match(&path)).and_then(|number| u8::try_from(number).ok());
    let count = u8::try_from(kept.count()).expect("a few patterns");
    for below in 0..=count {
        let found = find_first(automata.as_bytes(), &path, below);
        let wanted = wanted.filter(|&number| number < below);
        assert_eq!(found, wanted, "{texts:?} without {refused:?} in {}", path.escape_ascii());
    }
}

/// The pattern as the model reads it: searched in bytes, without Unicode.
fn compiled(text: &str) -> Option<Regex> {
    MODELS.with_borrow_mut(|models| {
        if models.len() > 2000 {
            models.clear();
        }
        let build = || RegexBuilder::new(text).unicode(false).nest_limit(50).size_limit(1 << 20).build().ok();
        models.entry(text.to_owned()).or_insert_with(build).clone()
    })
}

fn by_literal(pattern: &Pattern, path: &[u8]) -> bool {
    let literal = pattern.literal();
    match pattern.matcher() {
        Matcher::Any => true,
        Matcher::Contains => contains(path, literal),
        Matcher::Prefix => path.starts_with(literal),
        Matcher::Suffix => path.ends_with(literal),
        Matcher::Exact => path == literal,
        Matcher::Regex => unreachable!("has an automaton"),
    }
}
