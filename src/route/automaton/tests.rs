use proptest::prelude::*;

use super::*;

const ALL: u8 = NONE;

fn build(patterns: &[&str]) -> Automata {
    Automata::build(patterns, AutomataLimits::of_bytes(MAX_AUTOMATA_BYTES), &|| false)
}

/// The first matching pattern according to the `regex` crate.
fn naive(patterns: &[&str], path: &[u8]) -> Option<u8> {
    let is_found =
        |pattern: &&str| regex::bytes::RegexBuilder::new(pattern).unicode(false).build().unwrap().is_match(path);
    patterns.iter().position(is_found).map(|number| number as u8)
}

#[test]
fn the_first_matching_pattern_is_found() {
    let patterns =
        ["^/v[0-9]+/(users|groups)$", r"\bfoo\b", "(?i)^/api", "/one|/two$", "^/x{2,3}$", "^/[^/]*$", r"^/\s\d$"];
    let automata = build(&patterns);
    assert!(automata.refused().is_empty());
    for path in [
        "/v1/users",
        "/v22/groups/",
        "/a-foo-b",
        "/food",
        "/API/x",
        "/x/two",
        "/two/x",
        "/xx",
        "/xxxx",
        "/ 1",
        "/",
        "/a\nb/",
        "/caf\u{e9}",
        "/foo/one",
        "/api/foo",
    ] {
        assert_eq!(find_first(automata.as_bytes(), path.as_bytes(), ALL), naive(&patterns, path.as_bytes()), "{path}");
    }
    // Matches at or after `below` do not count.
    assert_eq!(find_first(automata.as_bytes(), b"/a-foo-b", 1), None);
    assert_eq!(find_first(&[], b"/", ALL), None);
}

#[test]
fn usual_patterns_are_small() {
    for (patterns, want) in [
        (&["^/v[0-9]+/(users|groups)$"][..], 624),
        (&["/[0-9]+"], 320),
        (&["^/[a-z]+/api", "^/[a-z]+/static/.*", r"\.(php|cgi)$"], 992),
        // Matches nothing: only the two rows that each automaton has.
        (&["[a&&b]"], 272),
    ] {
        assert_eq!(build(patterns).as_bytes().len(), want, "{patterns:?}");
    }
}

#[test]
fn patterns_with_multiplying_states_are_split() {
    let texts: Vec<_> = ('a'..='h').map(|c| format!("/{c}.*{c}b")).collect();
    let patterns: Vec<_> = texts.iter().map(String::as_str).collect();
    let automata = Automata::build(&patterns, AutomataLimits::of_bytes(8 << 10), &|| false);
    assert_eq!(automata.refused(), []);
    for path in ["/a/hb", "/h/hb", "/c/e/cb/eb", "/e/c/eb/cb"] {
        assert_eq!(find_first(automata.as_bytes(), path.as_bytes(), ALL), naive(&patterns, path.as_bytes()), "{path}");
    }
}

#[test]
fn patterns_with_a_common_prefix_are_built_together() {
    let texts: Vec<_> = (0..32).map(|n| format!("^/{}{n:02}[0-9]", "x".repeat(1015))).collect();
    let patterns: Vec<_> = texts.iter().map(String::as_str).collect();
    let automata = Automata::build(&patterns, AutomataLimits::of_bytes(40 << 10), &|| false);
    assert_eq!(automata.refused(), [], "{} bytes", automata.as_bytes().len());
    let path = format!("/{}319", "x".repeat(1015));
    assert_eq!(find_first(automata.as_bytes(), path.as_bytes(), ALL), Some(31));
}

#[test]
fn too_large_patterns_are_refused_alone() {
    let patterns = ["^/a[0-9]", "(?:a|[ab]).{300}[cd]", "^/b[0-9]", "[0-9]{1000}{1000}", "^/c[0-9]"];
    let automata = build(&patterns);
    assert_eq!(automata.refused(), [(1, TooCostly::Alone), (3, TooCostly::Alone)]);
    for (path, want) in [("/a1", Some(0)), ("/b1", Some(1)), ("/c1", Some(2)), ("/d1", None)] {
        assert_eq!(find_first(automata.as_bytes(), path.as_bytes(), ALL), want, "{path}");
    }
}

#[test]
fn the_last_patterns_are_refused_when_space_runs_out() {
    let texts: Vec<_> = (0..8).map(|n| format!("^/{n}([ab]*a[ab]{{6}})$")).collect();
    let patterns: Vec<_> = texts.iter().map(String::as_str).collect();
    let one = build(&patterns[..1]).as_bytes().len();
    let limits = AutomataLimits::of_bytes(3 * one + one / 2);
    let automata = Automata::build(&patterns, limits, &|| false);
    let left_out: Vec<_> = (3..8).map(|number| (number, TooCostly::AfterOthers)).collect();
    assert_eq!(automata.refused(), left_out);
    assert!(automata.as_bytes().len() <= limits.bytes);
    assert_eq!(find_first(automata.as_bytes(), b"/2aaaaaaa", ALL), Some(2));
}

#[test]
fn the_number_of_attempts_is_bounded() {
    let texts: Vec<_> = (0..32).map(|n| format!("(?:a|[ab]).{{30{}}}[cd]x{n}", n % 10)).collect();
    let patterns: Vec<_> = texts.iter().map(String::as_str).collect();
    let calls = std::cell::Cell::new(0);
    let automata = Automata::build(&patterns, AutomataLimits::of_bytes(MAX_AUTOMATA_BYTES), &|| {
        calls.set(calls.get() + 1);
        false
    });
    assert_eq!(automata.refused().len(), 32);
    assert_eq!(automata.refused().last(), Some(&(31, TooCostly::Effort)));
    assert_eq!(calls.get(), MAX_FAILURES + 1);
    let stopped = Automata::build(&["[0-9]"], AutomataLimits::of_bytes(MAX_AUTOMATA_BYTES), &|| true);
    assert_eq!(stopped.refused(), [(0, TooCostly::Effort)]);
}

#[test]
fn quick_builds_equal_full_builds_or_fail() {
    let patterns = ["^/v[0-9]+/(users|groups)$", r"\bfoo\b"];
    assert_eq!(Automata::build_quickly(&patterns, 8 << 10), Some(build(&patterns)));
    assert_eq!(Automata::build_quickly(&["[ab]*a[ab]{11}$"], 8 << 10), None);
    assert_eq!(Automata::build_quickly(&[], 0), Some(Automata::default()));
    // The limit is exact.
    for patterns in [&["/[a]"][..], &patterns] {
        let bytes = build(patterns).as_bytes().len();
        assert_eq!(Automata::build_quickly(patterns, bytes), Some(build(patterns)));
        assert_eq!(Automata::build_quickly(patterns, bytes - 1), None);
    }
    let long = |bytes: usize| format!("/[{}]", "a".repeat(bytes - 3));
    let quick = |text: String| Automata::build_quickly(&[&text], 8 << 10);
    assert_eq!(quick(long(MAX_QUICK_TEXT)), Some(build(&["/[a]"])));
    assert_eq!(quick(long(MAX_QUICK_TEXT + 1)), None);
    let stored = build(&patterns);
    assert_eq!(Automata::from_bytes(stored.as_bytes().to_vec()), stored);
}

#[test]
fn the_dead_row_ends_a_search() {
    let automata = build(&["^/a[0-9]$", "[a&&b]"]);
    assert_eq!(find_first(automata.as_bytes(), &[b'/'; 100_000], ALL), None);
    // An anchored pattern needs few rows: `/`, `a`, a digit, the end, dead.
    let (automaton, rest) = Automaton::split_off(automata.as_bytes()).unwrap();
    assert!(rest.is_empty() && automaton.words.len() <= 40, "{}", automaton.words.len());
}

/// Times of builds and searches: `cargo test --release -- --ignored --nocapture heaviest`.
#[test]
#[ignore = "a measurement"]
fn heaviest() {
    use rustix::time::{ClockId, clock_gettime};
    use std::time::{Duration, Instant};
    let cpu_time = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let heavy = |n: usize| format!("x{n:02}[ab]*a[ab]{{11}}$");
    let cases: [(&str, Vec<String>); 10] = [
        ("one digit class", vec!["^/v[0-9]+".into()]),
        ("30 of a kind", (0..30).map(|n| format!("^/{n}-[0-9]+-7$")).collect()),
        ("one [ab]*a[ab]{11}$", vec!["[ab]*a[ab]{11}$".into()]),
        ("one [ab]*a[ab]{9}$", vec!["[ab]*a[ab]{9}$".into()]),
        ("32 [ab]*a[ab]{11}$", (0..32).map(heavy).collect()),
        ("32 [ab]*a[ab]{5}$", (0..32).map(|n| format!("x{n:02}[ab]*a[ab]{{5}}$")).collect()),
        ("32 (?:a{0,60}){40}[0-9]n", (0..32).map(|n| format!("(?:a{{0,60}}){{40}}[0-9]{n}")).collect()),
        (
            "32 of many classes",
            (0..32).map(|n| format!("{}[0-9a-f]{{30}}{n}", "[^abcdefghijk0-7]{20}.{5}|".repeat(20))).collect(),
        ),
        ("32 dots", (0..32).map(|n| format!("a.{{{}}}b", 300 + n)).collect()),
        ("32 (?i) words", (0..32).map(|n| format!("(?i)(foo|bar|baz){n}.*(quux|x[0-9]*)$")).collect()),
    ];
    for (what, texts) in cases {
        let patterns: Vec<_> = texts.iter().map(String::as_str).collect();
        for bytes in [9 << 10, 64 << 10] {
            let begun = cpu_time();
            let automata = Automata::build(&patterns, AutomataLimits::of_bytes(bytes), &|| false);
            let built = cpu_time() - begun;
            let begun = cpu_time();
            let quick = Automata::build_quickly(&patterns, bytes).is_some();
            let quickly = cpu_time() - begun;
            let path = [b"/".as_slice(), &[b'a'; 8000]].concat();
            let begun = Instant::now();
            std::hint::black_box(find_first(std::hint::black_box(automata.as_bytes()), &path, ALL));
            println!(
                "{what:<26} limit {bytes:>6}: {:>6} bytes, {:>2} of {} refused, built {built:?}, quick {quick} {quickly:?}, 8000 bytes searched in {:?}",
                automata.as_bytes().len(),
                automata.refused().len(),
                patterns.len(),
                begun.elapsed()
            );
        }
    }
}

/// Patterns as tenants write them, and patterns with multiplying states.
fn pattern() -> impl Strategy<Value = String> {
    "[\\^]?(/|[ab]|[\\[][ab][\\]]|\\.|\\.\\*|a\\+|[(]a[|]b[)]|b[?]|\\\\b|[(]ab[)][*]|a[{]1,3[}]){1,6}[$]?"
}

proptest! {
    #[test]
    fn answers_equal_those_of_single_patterns(
        texts in proptest::collection::vec(pattern(), 1..8),
        paths in proptest::collection::vec("/[/ab.\n]{0,12}", 1..8),
        limit in 300usize..4000,
        below in 0u8..10,
    ) {
        let patterns: Vec<_> = texts.iter().map(String::as_str).filter(|p| regex::bytes::RegexBuilder::new(p).unicode(false).build().is_ok()).collect();
        let automata = Automata::build(&patterns, AutomataLimits::of_bytes(limit), &|| false);
        prop_assert!(automata.as_bytes().len() <= limit);
        let left: Vec<_> = (0..patterns.len()).filter(|n| automata.refused().iter().all(|(r, _)| r != n)).map(|n| patterns[n]).collect();
        for path in &paths {
            let want = naive(&left, path.as_bytes());
            prop_assert_eq!(find_first(automata.as_bytes(), path.as_bytes(), ALL), want);
            prop_assert_eq!(find_first(automata.as_bytes(), path.as_bytes(), below), want.filter(|&n| n < below));
        }
    }

    #[test]
    fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..2000), path in "/.{0,20}") {
        let _ = find_first(&bytes, path.as_bytes(), ALL);
    }

    #[test]
    fn damaged_automata_give_an_answer(
        damage in proptest::collection::vec((0usize..2000, any::<u8>()), 0..20),
        path in "/[a-z0-9]{0,20}",
    ) {
        let mut bytes = build(&["^/v[0-9]+/(users|groups)$", "/a.*b"]).as_bytes().to_vec();
        let len = bytes.len();
        damage.iter().for_each(|&(at, byte)| bytes[at % len] = byte);
        let _ = find_first(&bytes, path.as_bytes(), ALL);
    }
}
