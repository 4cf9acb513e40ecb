//! What a tool's service.manifest says of its web service, and why a tool is not looked after.

use std::io;

use serde::Deserialize;
use serde_saphyr::{budget, options};

/// The largest manifest that is read, in bytes.
pub const MAX_MANIFEST_BYTES: usize = 64 * 1024;
/// Accounts below are the system's.
pub const MIN_UID: u32 = 50_000;
/// What a type or release may be long, in bytes.
const MAX_WORD_LEN: usize = 64;
/// The backend of manifests that name none.
const GRID: &str = "gridengine";

/// A web service that is wanted on the grid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its `web:`; its job is called `<web>-<tool>`.
    pub web: Word,
    /// The release that it is to run on, if it says one.
    pub release: Option<Word>,
}

/// Text of a tenant that can stand in a command line: `[a-z0-9][a-z0-9._+-]*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word(String);

/// Why a tool is not looked after.
#[derive(Debug, thiserror::Error)]
pub enum Skip {
    /// A directory's name that is no tool's.
    #[error("its directory's name is no tool's name")]
    Name,
    /// The directory or the manifest is a symbolic link.
    #[error("its {0} is a link")]
    Link(&'static str),
    /// A FIFO, a device, a directory.
    #[error("its manifest is no regular file")]
    NotRegular,
    /// Refused by the system.
    #[error("{0} while reading its manifest")]
    Unreadable(io::Error),
    /// An owner below [`MIN_UID`].
    #[error("its manifest belongs to uid {0}, expected at least {MIN_UID}")]
    SystemOwner(u32),
    /// The system knows no such user.
    #[error("there is no account {0:?}")]
    NoAccount(String),
    /// Somebody else's.
    #[error("its manifest belongs to uid {owner}, expected {account:?}, uid {uid}")]
    WrongOwner {
        /// Whose it is.
        owner: u32,
        /// Whose it should be.
        account: String,
        /// The same as a number.
        uid: u32,
    },
    /// Above [`MAX_MANIFEST_BYTES`].
    #[error("its manifest has more than {MAX_MANIFEST_BYTES} bytes")]
    TooLarge,
    /// No text.
    #[error("its manifest is not UTF-8")]
    NotUtf8,
    /// No YAML, or more of it than a manifest needs.
    #[error("its manifest is no YAML that a manifest may be: {0}")]
    Malformed(String),
    /// Without `web:`.
    #[error("its manifest wants no web service")]
    NoWeb,
    /// Kubernetes, or something else.
    #[error("its backend is {0:?}")]
    OtherBackend(String),
    /// For the monitor of another grid.
    #[error("its release is {0:?}")]
    OtherRelease(String),
    /// For any grid's monitor, so for none that looks after one.
    #[error("it names no release")]
    NoRelease,
    /// No type that can stand in a command line.
    #[error("web: {0:?} is no type, expected letters a-z, digits, . _ + and -, e.g. \"lighttpd\"")]
    InvalidType(String),
    /// The same of a release.
    #[error("release: {0:?} is no release, expected letters a-z, digits, . _ + and -, e.g. \"bookworm\"")]
    InvalidRelease(String),
}

/// What is read of a manifest. Everything else in it is somebody else's.
#[derive(Deserialize)]
struct Written {
    web: Option<String>,
    backend: Option<String>,
    distribution: Option<String>,
    release: Option<String>,
}

impl Word {
    /// Checks it; `None` when it is none.
    pub fn try_new(text: &str) -> Option<Self> {
        let first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let rest = |byte: u8| first(byte) || b"._+-".contains(&byte);
        let is_word = text.len() <= MAX_WORD_LEN && text.bytes().next().is_some_and(first) && text.bytes().all(rest);
        is_word.then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Skip {
    /// All values of [`Self::reason`].
    pub const REASONS: [&str; 16] = [
        "name",
        "link",
        "not_regular",
        "unreadable",
        "system_owner",
        "no_account",
        "wrong_owner",
        "too_large",
        "not_utf8",
        "malformed",
        "no_web",
        "other_backend",
        "other_release",
        "no_release",
        "invalid_type",
        "invalid_release",
    ];

    /// The same for a table and a metric.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Link(_) => "link",
            Self::NotRegular => "not_regular",
            Self::Unreadable(_) => "unreadable",
            Self::SystemOwner(_) => "system_owner",
            Self::NoAccount(_) => "no_account",
            Self::WrongOwner { .. } => "wrong_owner",
            Self::TooLarge => "too_large",
            Self::NotUtf8 => "not_utf8",
            Self::Malformed(_) => "malformed",
            Self::NoWeb => "no_web",
            Self::OtherBackend(_) => "other_backend",
            Self::OtherRelease(_) => "other_release",
            Self::NoRelease => "no_release",
            Self::InvalidType(_) => "invalid_type",
            Self::InvalidRelease(_) => "invalid_release",
        }
    }

    /// Whether the tool's maintainer made a mistake, in a file that is certainly theirs.
    pub fn is_maintainers(&self) -> bool {
        use Skip::{InvalidRelease, InvalidType, Malformed, NotUtf8, TooLarge};
        matches!(self, TooLarge | NotUtf8 | Malformed(_) | InvalidType(_) | InvalidRelease(_))
    }
}

/// Reads a manifest's content. With `distribution`, its release, or without one its distribution, or without either
/// `default_release`, must be that one.
///
/// # Errors
/// No manifest, or none of a web service on this grid.
pub fn parse_manifest(
    content: &[u8],
    distribution: Option<&Word>,
    default_release: Option<&Word>,
) -> Result<Manifest, Skip> {
    if content.len() > MAX_MANIFEST_BYTES {
        return Err(Skip::TooLarge);
    }
    let text = std::str::from_utf8(content).map_err(|_| Skip::NotUtf8)?;
    let Some(written) = read_yaml(text)? else { return Err(Skip::NoWeb) };
    let web = written.web.filter(|web| !web.is_empty()).ok_or(Skip::NoWeb)?;
    if let Some(backend) = written.backend.filter(|backend| backend != GRID) {
        return Err(Skip::OtherBackend(shorten(&backend)));
    }
    // What it says more exactly counts.
    let named = written.release.as_deref().or(written.distribution.as_deref()).or(default_release.map(Word::as_str));
    match (distribution, named) {
        (Some(ours), Some(theirs)) if ours.as_str() != theirs => return Err(Skip::OtherRelease(shorten(theirs))),
        (Some(_), None) => return Err(Skip::NoRelease),
        _ => {}
    }
    let release = match named {
        Some(name) => Some(Word::try_new(name).ok_or_else(|| Skip::InvalidRelease(shorten(name)))?),
        None => None,
    };
    let web = Word::try_new(&web).ok_or_else(|| Skip::InvalidType(shorten(&web)))?;
    Ok(Manifest { web, release })
}

/// `None` is an empty document. No manifest needs an anchor, and without them nothing in it can grow.
fn read_yaml(text: &str) -> Result<Option<Written>, Skip> {
    let options = options! {
        budget: budget! {
            max_anchors: 0,
            max_aliases: 0,
            max_documents: 1,
            max_depth: 16,
            max_events: 10_000,
            max_nodes: 10_000,
            max_merge_keys: 0,
        },
        with_snippet: false,
    };
    let read = serde_saphyr::from_str_with_options(text, options);
    read.map_err(|error: serde_saphyr::Error| Skip::Malformed(shorten(error.to_string().trim())))
}

/// One line for people, whatever a tenant wrote.
fn shorten(text: &str) -> String {
    const MOST: usize = 120;
    let line = text.lines().next().unwrap_or_default();
    let mut shortened: String = line.chars().take(MOST).collect();
    if shortened.len() < line.len() {
        shortened.push('…');
    }
    shortened
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<(String, Option<String>), &'static str> {
        let bookworm = Word::try_new("bookworm").unwrap();
        let manifest = parse_manifest(text.as_bytes(), Some(&bookworm), None).map_err(|skip| skip.reason())?;
        Ok((manifest.web.0, manifest.release.map(|release| release.0)))
    }

    fn wants(web: &str, release: Option<&str>) -> Result<(String, Option<String>), &'static str> {
        Ok((web.into(), release.map(str::to_owned)))
    }

    #[test]
    fn what_is_wanted_is_read() {
        let whole =
            "# by hand\nbackend: gridengine\ndistribution: debian\nrelease: bookworm\nversion: 2\nweb: lighttpd\n";
        for (text, want) in [
            ("web: lighttpd\nrelease: bookworm", wants("lighttpd", Some("bookworm"))),
            (whole, wants("lighttpd", Some("bookworm"))),
            ("{web: generic, distribution: bookworm}", wants("generic", Some("bookworm"))),
            ("web: python3.11\nextra:\n  - [1, {a: b}]\nrelease: bookworm", wants("python3.11", Some("bookworm"))),
            ("web: \"uwsgi-plain\"\nrelease: ~\ndistribution: bookworm", wants("uwsgi-plain", Some("bookworm"))),
            ("{web: 3, release: bookworm}", wants("3", Some("bookworm"))),
        ] {
            assert_eq!(parsed(text), want, "{text:?}");
        }
    }

    #[test]
    fn what_is_not_has_a_reason() {
        for (text, reason) in [
            ("", "no_web"),
            ("# nothing\n", "no_web"),
            ("version: 2\n", "no_web"),
            ("web:\n", "no_web"),
            ("web: lighttpd\nbackend: kubernetes\n", "other_backend"),
            ("web: lighttpd\nrelease: buster\n", "other_release"),
            ("web: lighttpd\ndistribution: ubuntu\n", "other_release"),
            ("web: lighttpd\nrelease: jessie\ndistribution: bookworm\n", "other_release"),
            ("web: lighttpd\n", "no_release"),
            ("web: [lighttpd]\n", "malformed"),
            ("lighttpd\n", "malformed"),
            ("- web: lighttpd\n", "malformed"),
            ("web: lighttpd\nweb: generic\n", "malformed"),
            ("web: lighttpd\n---\nweb: generic\n", "malformed"),
            ("web: &a lighttpd\n", "malformed"),
            ("web: {", "malformed"),
            ("web: -rf\nrelease: bookworm", "invalid_type"),
            ("web: 'a b'\nrelease: bookworm", "invalid_type"),
            ("web: \"a\\nb\"\nrelease: bookworm", "invalid_type"),
            ("web: $(reboot)\nrelease: bookworm", "invalid_type"),
            ("web: Lighttpd\nrelease: bookworm", "invalid_type"),
        ] {
            assert_eq!(parsed(text), Err(reason), "{text:?}");
        }
        let odd = parse_manifest(b"web: a\nrelease: '-x'\n", None, None);
        assert_eq!(odd.unwrap_err().reason(), "invalid_release");
        assert_eq!(parse_manifest(b"web: \xff", None, None).unwrap_err().reason(), "not_utf8");
    }

    #[test]
    fn the_default_release_is_for_manifests_without_one() {
        let word = |text| Word::try_new(text).unwrap();
        for (text, ours, default, want) in [
            ("web: a", Some("bookworm"), "bookworm", Ok(Some("bookworm"))),
            ("web: a", Some("bookworm"), "buster", Err("other_release")),
            ("web: a", None, "buster", Ok(Some("buster"))),
            ("web: a\nrelease: bookworm", Some("bookworm"), "buster", Ok(Some("bookworm"))),
            ("web: a\ndistribution: debian", Some("bookworm"), "bookworm", Err("other_release")),
        ] {
            let manifest = parse_manifest(text.as_bytes(), ours.map(word).as_ref(), Some(&word(default)));
            let release = manifest.map(|manifest| manifest.release.map(|release| release.0));
            assert_eq!(
                release.map_err(|skip| skip.reason()),
                want.map(|name| name.map(str::to_owned)),
                "{text:?} {ours:?}"
            );
        }
    }

    #[test]
    fn the_limits_hold_and_one_more_does_not() {
        let padded = |len: usize| format!("web: a\nrelease: bookworm\n#{}", "x".repeat(len - 26));
        assert!(parsed(&padded(MAX_MANIFEST_BYTES)).is_ok());
        assert_eq!(parsed(&padded(MAX_MANIFEST_BYTES + 1)), Err("too_large"));
        assert!(Word::try_new(&"a".repeat(64)).is_some());
        assert!(Word::try_new(&"a".repeat(65)).is_none());
        assert!(Word::try_new("").is_none());
    }

    #[test]
    fn a_bomb_costs_nothing() {
        let anchors: String = ('b'..='z').zip('a'..).fold("a: &a [x,x,x,x,x,x,x,x,x]\n".into(), |text, (new, old)| {
            format!("{text}{new}: &{new} [{}]\n", vec![format!("*{old}"); 9].join(","))
        });
        let nested = format!("web: {}", "[".repeat(30_000));
        let many = format!("web: a\nx: [{}]", "1,".repeat(30_000));
        for bomb in [anchors, nested, many] {
            assert_eq!(parsed(&bomb), Err("malformed"), "{}", &bomb[..40]);
        }
    }
}
