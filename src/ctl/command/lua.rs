//! What the old `urlproxy.lua` did with an entry that the module treats differently.

use regex_syntax::ast::{self, AssertionKind, Ast, ClassSet, ClassSetItem, LiteralKind, SpecialLiteralKind};

use crate::route::{Matcher, Route, label_below};

/// A difference: the name of the finding, and a sentence.
pub type Difference = (&'static str, String);

/// Differences in the meaning of one pattern: the old stack used PCRE, the module the syntax of the `regex` crate.
pub fn pattern_differences(pattern: &str) -> Vec<Difference> {
    // A pattern that does not parse is refused, which is another finding.
    let Ok(ast) = ast::parse::Parser::new().parse(pattern) else { return Vec::new() };
    let mut found = Found::default();
    // The visitor has no errors.
    let _ = ast::visit(&ast, &mut found);
    let mut differences = Vec::new();
    if found.end {
        let text = "\"$\" matches at the very end only; in PCRE also before a line end (%0A) at the end of the path";
        differences.push(("end_anchor", text.into()));
    }
    if found.vertical_tab {
        let text = "\"\\v\" is the vertical tab; in PCRE any vertical white space";
        differences.push(("escape", text.into()));
    }
    if let Some(escape) = found.word_edge {
        let text = format!("\"{escape}\" is the edge of a word; in PCRE it is a character, or an error");
        differences.push(("escape", text));
    }
    if found.class_operator {
        let text = "\"[\", \"&&\", \"--\" or \"~~\" in a class makes a set operation; in PCRE they are characters";
        differences.push(("class", text.into()));
    }
    differences
}

#[derive(Default)]
struct Found {
    end: bool,
    vertical_tab: bool,
    word_edge: Option<&'static str>,
    class_operator: bool,
}

impl ast::Visitor for &mut Found {
    type Output = ();
    type Err = ();

    fn finish(self) -> Result<(), ()> {
        Ok(())
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), ()> {
        match ast {
            Ast::Assertion(assertion) => match assertion.kind {
                AssertionKind::EndLine => self.end = true,
                AssertionKind::WordBoundaryStartAngle => self.word_edge = Some("\\<"),
                AssertionKind::WordBoundaryEndAngle => self.word_edge = Some("\\>"),
                AssertionKind::WordBoundaryStart
                | AssertionKind::WordBoundaryEnd
                | AssertionKind::WordBoundaryStartHalf
                | AssertionKind::WordBoundaryEndHalf => self.word_edge = Some("\\b{...}"),
                _ => {}
            },
            Ast::Literal(literal) => {
                self.vertical_tab |= literal.kind == LiteralKind::Special(SpecialLiteralKind::VerticalTab);
            }
            Ast::ClassBracketed(class) => self.class_operator |= matches!(class.kind, ClassSet::BinaryOp(_)),
            _ => {}
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), ()> {
        match item {
            ClassSetItem::Bracketed(_) => self.class_operator = true,
            ClassSetItem::Literal(literal) => {
                self.vertical_tab |= literal.kind == LiteralKind::Special(SpecialLiteralKind::VerticalTab);
            }
            _ => {}
        }
        Ok(())
    }

    fn visit_class_set_binary_op_pre(&mut self, _: &ast::ClassSetBinaryOp) -> Result<(), ()> {
        self.class_operator = true;
        Ok(())
    }
}

/// The order of a tool's routes, if some path may match several of them. The old stack tried them in no defined order.
pub fn order_difference(routes: &[Route]) -> Option<Difference> {
    let overlaps = routes.iter().enumerate().any(|(at, route)| {
        routes.iter().skip(at + 1).any(|other| {
            let leads_elsewhere = route.backends != other.backends;
            leads_elsewhere && !are_disjoint(route, other)
        })
    });
    overlaps.then(|| {
        let order: Vec<_> = routes.iter().map(|route| route.pattern.as_str()).collect();
        let text = format!(
            "a path may match several patterns, which the old stack tried in no defined order; the order is now {}",
            order.join(" ")
        );
        ("order", text)
    })
}

/// Whether no path matches both routes, as far as that can be seen from literal patterns.
fn are_disjoint(one: &Route, other: &Route) -> bool {
    let (a, b) = (one.pattern.literal(), other.pattern.literal());
    match (one.pattern.matcher(), other.pattern.matcher()) {
        (Matcher::Prefix, Matcher::Prefix) => !a.starts_with(b) && !b.starts_with(a),
        (Matcher::Suffix, Matcher::Suffix) => !a.ends_with(b) && !b.ends_with(a),
        (Matcher::Exact, Matcher::Exact) => a != b,
        (Matcher::Exact, Matcher::Prefix) => !a.starts_with(b),
        (Matcher::Prefix, Matcher::Exact) => !b.starts_with(a),
        (Matcher::Exact, Matcher::Suffix) => !a.ends_with(b),
        (Matcher::Suffix, Matcher::Exact) => !b.ends_with(a),
        _ => false,
    }
}

/// A canonical host that is not the tool's own: the module redirects to `<tool>.<domain>`, whatever the value says.
pub fn redirect_difference(tool: &[u8], host: &[u8]) -> Option<Difference> {
    let host = String::from_utf8_lossy(host);
    let domain = host.split_once('.').map(|(_, domain)| domain.as_bytes());
    let is_own = domain.and_then(|domain| label_below(host.as_bytes(), domain)) == Some(tool);
    (!is_own).then(|| {
        let text = format!(
            "the redirect names the host {host:?}; the module redirects to {}.DOMAIN of urlproxy_canonical",
            String::from_utf8_lossy(tool)
        );
        ("redirect_host", text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Pattern, sort_routes};

    fn found(pattern: &str) -> Vec<&'static str> {
        pattern_differences(pattern).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn patterns_with_another_meaning_in_pcre_are_found() {
        for (pattern, want) in [
            (".*", &[][..]),
            ("^/api/[a-z0-9_-]+", &[]),
            ("\\.php$", &["end_anchor"]),
            ("a(b$|c)", &["end_anchor"]),
            ("\\$", &[]),
            ("\\v", &["escape"]),
            ("[\\v]", &["escape"]),
            ("\\<a", &["escape"]),
            ("\\b{start}a", &["escape"]),
            ("\\ba\\z", &[]),
            ("[a&&b]", &["class"]),
            ("[a[b]]", &["class"]),
            ("[x--y]", &["class"]),
            ("[[:alpha:]]", &[]),
            ("(", &[]),
        ] {
            assert_eq!(found(pattern), want, "{pattern}");
        }
    }

    fn order(routes: &[(&str, &str)]) -> Option<String> {
        let route = |&(pattern, url): &(&str, &str)| Route {
            pattern: Pattern::try_new(pattern).unwrap(),
            backends: vec![url.parse().unwrap()],
        };
        let mut routes: Vec<_> = routes.iter().map(route).collect();
        sort_routes(&mut routes);
        order_difference(&routes).map(|(_, text)| text)
    }

    #[test]
    fn order_matters_where_patterns_overlap_and_lead_elsewhere() {
        let (a, b) = ("http://10.0.0.1:1", "http://10.0.0.2:2");
        assert!(order(&[(".*", a), ("/api", b)]).unwrap().ends_with("now /api .*"));
        assert_eq!(order(&[(".*", a)]), None);
        assert_eq!(order(&[(".*", a), ("/api", a)]), None);
        assert_eq!(order(&[("^/a", a), ("^/b", b)]), None);
        assert_eq!(order(&[("^/a$", a), ("^/b", b), ("^/c$", b)]), None);
        assert!(order(&[("^/a", a), ("^/ab", b)]).is_some());
        assert!(order(&[("/a", a), ("/b", b)]).is_some());
    }

    #[test]
    fn redirects_lead_to_the_tools_own_host() {
        assert_eq!(redirect_difference(b"hello", b"hello.toolforge.org"), None);
        for host in [&b"other.toolforge.org"[..], b"hello", b"", b"\xff", b"x.hello.toolforge.org"] {
            assert_eq!(redirect_difference(b"hello", host).map(|(name, _)| name), Some("redirect_host"));
        }
    }
}
