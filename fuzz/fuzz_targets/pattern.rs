//! A tenant's pattern, and a path it is searched in: a literal that needs no automaton answers as the automaton does.
#![no_main]

use libfuzzer_sys::fuzz_target;
use urlproxy::route::{Matcher, Pattern, PatternCache, contains};

fuzz_target!(|input: (&str, &[u8])| {
    let (text, path) = input;
    // As every path does.
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
    assert_eq!(by_bytes, PatternCache::new(1 << 20).is_match(text, path), "{text:?} in {path:?}");
});
