//! A tenant's pattern: a regular expression that is searched in the path after the tool's name, which begins with `/`.
//!
//! Most patterns need no regular expression: `.*`, `/api`, `/api.*`, `^/v1/`, `\.php$` are recognized once, when the route is
//! published, and matched by comparing bytes.

use std::cmp::Ordering;

use regex_syntax::ast::{self, Ast};
use regex_syntax::hir::translate::TranslatorBuilder;
use regex_syntax::hir::{Hir, HirKind, Look};

use super::automaton::{Automata, AutomataLimits, MAX_AUTOMATA_BYTES, NEST_LIMIT};

/// Longest pattern, in bytes.
pub const MAX_PATTERN_LEN: usize = 1024;

/// How to match a pattern against a path. The literal is the pattern's text, unescaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Matcher {
    /// Matches every path: `.*`, the empty pattern, `/`, `^/.*` ...
    Any = 0,
    /// The path contains the literal.
    Contains = 1,
    /// The path begins with the literal.
    Prefix = 2,
    /// The path ends with the literal.
    Suffix = 3,
    /// The path equals the literal.
    Exact = 4,
    /// Needs an automaton.
    Regex = 5,
}

impl Matcher {
    /// The inverse of `as u8`.
    pub fn from_u8(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Any,
            1 => Self::Contains,
            2 => Self::Prefix,
            3 => Self::Suffix,
            4 => Self::Exact,
            5 => Self::Regex,
            _ => return None,
        })
    }
}

/// An analyzed pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    matcher: Matcher,
    literal: Box<[u8]>,
    /// Bytes of literal text in each match.
    literal_len: usize,
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Longer than [`MAX_PATTERN_LEN`].
    #[error("pattern has {0} bytes, expected at most {MAX_PATTERN_LEN}")]
    TooLong(usize),
    /// The automaton exceeds the limit, in bytes.
    #[error("pattern {0:?} needs too many states, expected at most {1} bytes of them")]
    TooLarge(String, usize),
    /// ASCII or Unicode control characters, which would reach headers and log lines.
    #[error("pattern {0:?} contains {1:?}, expected no control character; write \\n, \\t or \\x0A")]
    Control(String, char),
    /// Not a regular expression in the syntax of the `regex` crate, without Unicode.
    #[error("pattern {pattern:?} does not compile: {reason}")]
    Syntax {
        /// The pattern, shortened.
        pattern: String,
        /// The last line of the engine's message, which has the reason.
        reason: String,
    },
    /// `(?u)`, `(?iu:...)`: classes may then cover all of Unicode, and parsing takes seconds.
    #[error(
        "pattern {0:?} enables Unicode, which is not supported; paths are bytes, so write the characters themselves"
    )]
    Unicode(String),
    /// `a++`, `a*+`, `a?+`, `a{2}+`: possessive in PCRE, a repeated repetition here. It would silently mean something else.
    #[error("pattern {0:?} has a possessive repetition, which is not supported")]
    Possessive(String),
}

impl Pattern {
    /// `.*`, which matches every path.
    pub fn any() -> Self {
        Self { text: ".*".into(), matcher: Matcher::Any, literal: Box::default(), literal_len: 0 }
    }

    /// Analyzes a pattern, and compiles it to check its size if it needs an automaton.
    ///
    /// # Errors
    /// Those of [`Self::analyze`] and [`Self::check_size`].
    pub fn try_new(text: &str) -> Result<Self, PatternError> {
        let pattern = Self::analyze(text)?;
        pattern.check_size()?;
        Ok(pattern)
    }

    /// Analyzes a pattern without checking the size of its automaton.
    ///
    /// # Errors
    /// Every [`PatternError`] but [`PatternError::TooLarge`]. Look-around and backreferences are [`PatternError::Syntax`].
    pub fn analyze(text: &str) -> Result<Self, PatternError> {
        if text == ".*" {
            return Ok(Self::any());
        }
        if matches!(text, ".+" | "^.+") {
            return Ok(Self { text: text.into(), ..Self::any() });
        }
        if text.len() > MAX_PATTERN_LEN {
            return Err(PatternError::TooLong(text.len()));
        }
        if let Some(found) = text.chars().find(|c| c.is_control()) {
            return Err(PatternError::Control(shortened(text), found));
        }
        let syntax = |error: regex_syntax::Error| PatternError::Syntax {
            pattern: shortened(text),
            reason: error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        };
        let ast = ast::parse::ParserBuilder::new().nest_limit(NEST_LIMIT).build().parse(text);
        let ast = ast.map_err(|error| syntax(error.into()))?;
        ast::visit(&ast, FindUnsupported).map_err(|error| error(shortened(text)))?;
        let hir = TranslatorBuilder::new().unicode(false).utf8(false).build().translate(text, &ast);
        let hir = hir.map_err(|error| syntax(error.into()))?;
        let (matcher, literal) = classify(&hir);
        Ok(Self { text: text.into(), matcher, literal: literal.into(), literal_len: literal_len(&hir) })
    }

    /// Checks that the pattern alone fits the limits of the largest zone.
    ///
    /// # Errors
    /// [`PatternError::TooLarge`].
    pub fn check_size(&self) -> Result<(), PatternError> {
        if self.matcher == Matcher::Regex {
            let limits = AutomataLimits::of_bytes(MAX_AUTOMATA_BYTES);
            if !Automata::build(&[&self.text], limits, &|| false).refused().is_empty() {
                return Err(self.too_large(limits.bytes));
            }
        }
        Ok(())
    }

    /// The error for a pattern whose automaton exceeds `limit` bytes.
    pub fn too_large(&self, limit: usize) -> PatternError {
        PatternError::TooLarge(shortened(&self.text), limit)
    }

    /// The pattern as the tenant wrote it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How to match the pattern.
    pub fn matcher(&self) -> Matcher {
        self.matcher
    }

    /// The text that [`Matcher`] compares; empty for `Any` and `Regex`.
    pub fn literal(&self) -> &[u8] {
        &self.literal
    }

    /// Matching order: `Less` if `self` comes before `other`.
    pub fn cmp_precedence(&self, other: &Self) -> Ordering {
        let any = |p: &Self| p.matcher == Matcher::Any;
        any(self)
            .cmp(&any(other))
            .then_with(|| if any(self) { Ordering::Equal } else { other.literal_len.cmp(&self.literal_len) })
            .then_with(|| self.text.cmp(&other.text))
    }
}

/// Whether `haystack` contains `needle`.
pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(haystack, needle).is_some()
}

fn shortened(text: &str) -> String {
    text.chars().take(120).collect()
}

/// Stops at the first flag that enables Unicode, and at the first possessive repetition.
struct FindUnsupported;

impl ast::Visitor for FindUnsupported {
    type Output = ();
    type Err = fn(String) -> PatternError;

    fn finish(self) -> Result<(), Self::Err> {
        Ok(())
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), Self::Err> {
        let flags = match ast {
            Ast::Flags(set) => Some(&set.flags),
            Ast::Group(group) => group.flags(),
            // `a*+` is parsed as `(?:a*)+`.
            Ast::Repetition(outer)
                if outer.op.kind == ast::RepetitionKind::OneOrMore && matches!(*outer.ast, Ast::Repetition(_)) =>
            {
                return Err(PatternError::Possessive);
            }
            _ => None,
        };
        let is_on = flags.and_then(|flags| flags.flag_state(ast::Flag::Unicode)) == Some(true);
        if is_on { Err(PatternError::Unicode) } else { Ok(()) }
    }
}

/// Flattens concatenations and groups into pieces.
fn pieces<'h>(hir: &'h Hir, into: &mut Vec<&'h Hir>) {
    match hir.kind() {
        HirKind::Concat(parts) => parts.iter().for_each(|part| pieces(part, into)),
        HirKind::Capture(group) => pieces(&group.sub, into),
        HirKind::Empty => {}
        _ => into.push(hir),
    }
}

fn classify(hir: &Hir) -> (Matcher, Vec<u8>) {
    let mut parts = Vec::new();
    pieces(hir, &mut parts);
    let mut parts = parts.as_slice();
    let optional = |part: &Hir| matches!(part.kind(), HirKind::Repetition(r) if r.min == 0);
    // The search is unanchored, so optional pieces at either end do not matter.
    while let [first, rest @ ..] = parts
        && optional(first)
    {
        parts = rest;
    }
    while let [rest @ .., last] = parts
        && optional(last)
    {
        parts = rest;
    }
    let look = |part: &&Hir, look| matches!(part.kind(), HirKind::Look(l) if *l == look);
    let start = parts.first().is_some_and(|p| look(p, Look::Start));
    if start {
        parts = parts.get(1..).unwrap_or_default();
    }
    let end = parts.last().is_some_and(|p| look(p, Look::End));
    if end {
        parts = parts.get(..parts.len() - 1).unwrap_or_default();
    }
    let mut literal = Vec::new();
    for part in parts {
        let HirKind::Literal(text) = part.kind() else { return (Matcher::Regex, Vec::new()) };
        literal.extend_from_slice(&text.0);
    }
    // The path always begins with a slash.
    let always = literal.is_empty() || literal == b"/";
    match (start, end) {
        (_, false) if always => (Matcher::Any, Vec::new()),
        (false, true) if literal.is_empty() => (Matcher::Any, Vec::new()),
        (false, false) => (Matcher::Contains, literal),
        (true, false) => (Matcher::Prefix, literal),
        (false, true) => (Matcher::Suffix, literal),
        (true, true) => (Matcher::Exact, literal),
    }
}

/// Least number of literal bytes in a match of `hir`.
fn literal_len(hir: &Hir) -> usize {
    match hir.kind() {
        HirKind::Literal(text) => text.0.len(),
        HirKind::Concat(parts) => parts.iter().map(literal_len).fold(0, usize::saturating_add),
        HirKind::Alternation(branches) => branches.iter().map(literal_len).min().unwrap_or(0),
        HirKind::Capture(group) => literal_len(&group.sub),
        HirKind::Repetition(r) => (r.min as usize).saturating_mul(literal_len(&r.sub)),
        HirKind::Empty | HirKind::Class(_) | HirKind::Look(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::find_first;
    use proptest::prelude::*;

    fn found(pattern: &Pattern, rest: &[u8]) -> bool {
        match pattern.matcher() {
            Matcher::Any => true,
            Matcher::Contains => contains(rest, pattern.literal()),
            Matcher::Prefix => rest.starts_with(pattern.literal()),
            Matcher::Suffix => rest.ends_with(pattern.literal()),
            Matcher::Exact => rest == pattern.literal(),
            Matcher::Regex => {
                let automata = Automata::build_quickly(&[pattern.as_str()], MAX_AUTOMATA_BYTES).unwrap();
                find_first(automata.as_bytes(), rest, 1).is_some()
            }
        }
    }

    #[test]
    fn matchers_are_recognized() {
        use Matcher::*;
        for (pattern, matcher, literal) in [
            (".*", Any, ""),
            ("", Any, ""),
            ("^", Any, ""),
            ("$", Any, ""),
            (".*$", Any, ""),
            ("^.*", Any, ""),
            ("^/.*", Any, ""),
            ("/", Any, ""),
            ("(.*)", Any, ""),
            (".+", Any, ""),
            ("^.+", Any, ""),
            ("/p.*", Contains, "/p"),
            (".*foo.*", Contains, "foo"),
            ("^/p(.*)", Prefix, "/p"),
            (r"\.php$", Suffix, ".php"),
            ("^/$", Exact, "/"),
            ("^/a/b$", Exact, "/a/b"),
            ("/$", Suffix, "/"),
            ("/(a)b", Contains, "/ab"),
            ("/a|/b", Regex, ""),
            ("[0-9]", Regex, ""),
            ("^.*$", Regex, ""),
            ("/a.*b", Regex, ""),
            ("(?i)/a", Regex, ""),
        ] {
            let parsed = Pattern::try_new(pattern).unwrap();
            assert_eq!((parsed.matcher(), parsed.literal()), (matcher, literal.as_bytes()), "{pattern}");
            assert_eq!(parsed.as_str(), pattern);
        }
    }

    #[test]
    fn unsupported_patterns_are_refused_with_a_reason() {
        let long = "a".repeat(MAX_PATTERN_LEN + 1);
        let deep = "(".repeat(51) + "[0-9]" + &")".repeat(51);
        for (pattern, want) in [
            ("(", "unclosed group"),
            ("a(?=b)", "look-around"),
            (r"(a)\1", "backreferences"),
            (r"\Qa\E", "unrecognized escape"),
            (r"\Z", "unrecognized escape"),
            (r"\h", "unrecognized escape"),
            ("a++", "possessive"),
            ("a*+", "possessive"),
            ("a?+", "possessive"),
            ("a{2}+", "possessive"),
            ("a+?+", "possessive"),
            ("(?x)a* +", "possessive"),
            (r"(?u)\w", "enables Unicode"),
            (r"(/(?:a|(?iu:[\x{0}-\x{10ffff}]))+)", "enables Unicode"),
            ("[0-9]{1000}{1000}", "too many states"),
            ("a.{3273}b", "too many states"),
            ("(?:a|[ab]).{300}[cd]", "too many states"),
            ("/a\r\nX-Evil: 1", r"contains '\r', expected no control character"),
            ("\u{85}", r"contains '\u{85}'"),
            ("/\u{7f}", r"contains '\u{7f}'"),
            ("/\0", r"contains '\0'"),
            (&long, "1025 bytes"),
            (&deep, "nest"),
        ] {
            let error = Pattern::try_new(pattern).unwrap_err().to_string();
            assert!(error.contains(want), "{pattern:.30}: {error}");
        }
    }

    #[test]
    fn other_flags_are_accepted() {
        for pattern in ["(?i)u", "(?imsU-u:[a-z])u+", "(?x) [?u] (?-u)a"] {
            assert_eq!(Pattern::try_new(pattern).map(|p| p.matcher()), Ok(Matcher::Regex), "{pattern}");
        }
    }

    #[test]
    fn plus_after_other_text_is_not_possessive() {
        for pattern in [
            r"/a\r\n\x0A",
            "/w\u{a0}\u{ee}",
            "[*]+",
            r"\*+",
            r"\x{2F}+",
            "[]*]+",
            "[^]?]+a",
            "[*+]",
            "[[:alpha:]*+]",
            "[a[b]*+]",
            "(?x)a # *+",
            "(?:a)+",
            "(a*)+",
            "a+b+",
        ] {
            assert!(Pattern::try_new(pattern).is_ok(), "{pattern}");
        }
        assert!(Pattern::try_new(&"a".repeat(MAX_PATTERN_LEN)).is_ok());
    }

    #[test]
    fn searches_are_unanchored_and_dollar_is_the_very_end() {
        for (pattern, rest, want) in [
            ("foo", "/a/foo/b", true),
            ("^foo", "/foo", false),
            (r"\.php$", "/a.php", true),
            (r"\.php$", "/a.php\n", false),
            ("^/[^/]+$", "/caf\u{e9}", true),
            ("/a.b", "/a\nb", false),
        ] {
            assert_eq!(found(&Pattern::try_new(pattern).unwrap(), rest.as_bytes()), want, "{pattern} in {rest:?}");
        }
    }

    proptest! {
        #[test]
        fn shortcuts_agree_with_the_engine(
            pattern in r"[\^]?(\.\*)?[/ab.()|*?$+]{0,6}(\.\*)?[$]?",
            rest in "/[/ab.\n]{0,8}",
        ) {
            if let Ok(parsed) = Pattern::try_new(&pattern) {
                let engine = regex::bytes::RegexBuilder::new(&pattern).unicode(false).build().unwrap();
                prop_assert_eq!(found(&parsed, rest.as_bytes()), engine.is_match(rest.as_bytes()));
            }
        }

        #[test]
        fn no_text_panics(pattern in ".{0,40}") {
            let _ = Pattern::try_new(&pattern);
        }
    }
}
