//! Any pattern and path: a literal matcher agrees with the automaton, and bytes that are not an automaton give an answer too.

use arbitrary::{Arbitrary, Unstructured};
use urlproxy::route::{Automata, AutomataLimits, MAX_AUTOMATA_BYTES, Matcher, Pattern, contains, find_first};

pub fn check(bytes: &[u8]) {
    let Ok((text, path)) = <(&str, &[u8])>::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let _ = find_first(text.as_bytes(), path, u8::MAX);
    // Every path begins with a slash.
    let path = &[b"/", path].concat()[..];
    let Ok(pattern) = Pattern::try_new(text) else { return };
    let literal = pattern.literal();
    let by_bytes = match pattern.matcher() {
        Matcher::Any => true,
        Matcher::Contains => contains(path, literal),
        Matcher::Prefix => path.starts_with(literal),
        Matcher::Suffix => path.ends_with(literal),
        Matcher::Exact => path == literal,
        Matcher::Regex => return,
    };
    let automata = Automata::build(&[text], AutomataLimits::of_bytes(MAX_AUTOMATA_BYTES), &|| false);
    if automata.refused().is_empty() {
        assert_eq!(by_bytes, find_first(automata.as_bytes(), path, 1).is_some(), "{text:?} in {path:?}");
    }
}
