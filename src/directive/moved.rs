//! `urlproxy_moved OLD URL;`, or `urlproxy_moved off;`

use super::location::LocationOptions;
use super::{Directive, DirectiveError};
use crate::route::{MovedDomain, MovedError};

/// `urlproxy_moved OLD URL;`, or `urlproxy_moved off;`
pub struct UrlproxyMoved;

const EXAMPLE: &str = "urlproxy_moved wmflabs.org https://wmcloud.org;";

impl Directive for UrlproxyMoved {
    const NAME: &'static str = "urlproxy_moved";
    type Conf = LocationOptions;

    fn apply(conf: &mut LocationOptions, args: &[&str]) -> Result<(), DirectiveError> {
        let other = |text: &str| Err(DirectiveError::Other(format!("\"{}\" {text}", Self::NAME)));
        let (old, new) = match args {
            ["off"] if conf.moved.is_none() => {
                conf.moved = Some(Vec::new());
                return Ok(());
            }
            ["off"] if conf.moved.as_ref().is_some_and(Vec::is_empty) => {
                return Err(DirectiveError::Duplicate(Self::NAME));
            }
            ["off"] => return other("has \"off\" beside another value, expected one of them"),
            [old, new] => (old, new),
            _ => {
                let takes = "a domain and the site that replaced it, or off";
                return Err(DirectiveError::Arguments { directive: Self::NAME, takes, example: EXAMPLE });
            }
        };
        let invalid = |what, value: &str| {
            Err(DirectiveError::Invalid { directive: Self::NAME, what, value: value.into(), example: EXAMPLE })
        };
        let added = match MovedDomain::try_new(old, new) {
            Ok(added) => added,
            Err(MovedError::Old(_) | MovedError::NoParent(_)) => return invalid("domain", old),
            Err(MovedError::New(_) | MovedError::Same(_)) => return invalid("new site", new),
        };
        let moved = match &mut conf.moved {
            Some(moved) if moved.is_empty() => return other("has \"off\" beside another value, expected one of them"),
            moved => moved.get_or_insert_default(),
        };
        if moved.iter().any(|other| other.old() == added.old()) {
            return other(&format!("names the domain \"{}\" twice, expected one site for each domain", added.old()));
        }
        // The longest domain that a host is below decides.
        let at = moved.partition_point(|other| other.old().as_str().len() >= added.old().as_str().len());
        moved.insert(at, added);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(lines: &[&[&str]]) -> Result<LocationOptions, String> {
        let mut conf = LocationOptions::default();
        lines.iter().try_for_each(|args| UrlproxyMoved::apply(&mut conf, args)).map_err(|error| error.to_string())?;
        Ok(conf)
    }

    fn location(conf: &LocationOptions, host: &str) -> Option<String> {
        let location = conf.moved_from(host.as_bytes())?.location(host.as_bytes(), b"/", b"/", b"")?;
        Some(String::from_utf8(location).unwrap())
    }

    const PAIRS: &[&[&str]] =
        &[&["a.org", "https://b.org"], &["deep.a.org", "http://c.org:81"], &["b.org", "https://c.org"]];

    #[test]
    fn longest_domain_decides() {
        for pairs in [PAIRS.to_vec(), PAIRS.iter().rev().copied().collect()] {
            let conf = applied(&pairs).unwrap();
            for (host, want) in [
                ("x.a.org", Some("https://x.b.org/")),
                ("x.deep.a.org", Some("http://x.c.org:81/")),
                ("deep.a.org", Some("http://c.org:81/")),
                ("x.b.org", Some("https://x.c.org/")),
                ("x.c.org", None),
            ] {
                assert_eq!(location(&conf, host).as_deref(), want, "{host}");
            }
        }
    }

    #[test]
    fn a_level_replaces_the_inherited_domains() {
        let above = applied(PAIRS).unwrap();
        let merged = |lines| {
            let mut conf = applied(lines).unwrap();
            conf.inherit(&above, false);
            ["x.a.org", "x.d.org"].map(|host| location(&conf, host))
        };
        assert_eq!(merged(&[]), [Some("https://x.b.org/".into()), None]);
        assert_eq!(merged(&[&["off"]]), [None, None]);
        assert_eq!(merged(&[&["d.org", "https://e.org"]]), [None, Some("https://x.e.org/".into())]);
    }

    #[test]
    fn invalid_values_are_named_with_an_example() {
        let example = r#"expected e.g. "urlproxy_moved wmflabs.org https://wmcloud.org;""#;
        for old in ["*.a.org", "10.0.0.1", "[::1]", "a..org", "https://a.org", "a.org/", ""] {
            let want = format!(r#""urlproxy_moved" invalid domain "{old}", {example}"#);
            assert_eq!(applied(&[&[old, "https://b.org"]]).err(), Some(want));
        }
        for new in
            ["b.org", "ftp://b.org", "https://b.org/", "https://10.0.0.1", "https://*.b.org", "https://a.org", "off"]
        {
            let want = format!(r#""urlproxy_moved" invalid new site "{new}", {example}"#);
            assert_eq!(applied(&[&["a.org", new]]).err(), Some(want));
        }
        let takes = r#""urlproxy_moved" takes a domain and the site that replaced it, or off, e.g. "urlproxy_moved wmflabs.org https://wmcloud.org;""#;
        for args in [&["a.org"][..], &["a.org", "https://b.org", "301"]] {
            assert_eq!(applied(&[args]).err().as_deref(), Some(takes));
        }
    }

    #[test]
    fn off_and_repeated_domains_are_refused() {
        let pair: &[&str] = &["a.org", "https://b.org"];
        let beside = r#""urlproxy_moved" has "off" beside another value, expected one of them"#;
        for lines in [[pair, &["off"]], [&["off"], pair]] {
            assert_eq!(applied(&lines).err().as_deref(), Some(beside), "{lines:?}");
        }
        assert_eq!(applied(&[&["off"], &["off"]]).err().as_deref(), Some(r#""urlproxy_moved" is duplicate"#));
        let twice = r#""urlproxy_moved" names the domain "a.org" twice, expected one site for each domain"#;
        assert_eq!(applied(&[pair, &["A.ORG.", "https://c.org"]]).err().as_deref(), Some(twice));
    }
}
