//! Reads the web service in a tool's service.manifest, or says why the tool is skipped.

use std::io;

use serde::Deserialize;

use crate::tenant::{MAX_MANIFEST_BYTES, MIN_UID, SafeWord, parse_yaml, shorten};

/// The default backend.
const GRID: &str = "gridengine";

/// A wanted web service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The type, from `web:`. The job is named `<web>-<tool>`.
    pub web: SafeWord,
    /// The release to run on, if given.
    pub release: Option<SafeWord>,
}

/// Why a tool is skipped.
#[derive(Debug, thiserror::Error)]
pub enum SkipReason {
    /// The directory cannot belong to a tool.
    #[error("the directory's name is not a tool name")]
    Name,
    /// The directory or the manifest is a symbolic link.
    #[error("the {0} is a symbolic link")]
    Link(&'static str),
    /// The manifest is a FIFO, a device, a directory ...
    #[error("the manifest is not a regular file")]
    NotRegular,
    /// The system refuses to read the manifest.
    #[error("{0} while reading the manifest")]
    Unreadable(io::Error),
    /// The owner is below [`MIN_UID`].
    #[error("the manifest belongs to uid {0}, expected at least {MIN_UID}")]
    SystemOwner(u32),
    /// The tool has no account.
    #[error("there is no account {0:?}")]
    NoAccount(String),
    /// The owner is not the tool's account.
    #[error("the manifest belongs to uid {owner}, expected {account:?}, uid {uid}")]
    WrongOwner {
        /// The file's owner.
        owner: u32,
        /// The tool's account.
        account: String,
        /// The account's uid.
        uid: u32,
    },
    /// The manifest exceeds [`MAX_MANIFEST_BYTES`].
    #[error("the manifest has more than {MAX_MANIFEST_BYTES} bytes")]
    TooLarge,
    /// The manifest is binary.
    #[error("the manifest is not UTF-8")]
    NotUtf8,
    /// The manifest is not YAML, or uses anchors, several documents, deep nesting ...
    #[error("unsupported or invalid YAML in the manifest: {0}")]
    Malformed(String),
    /// The manifest lacks `web:`.
    #[error("the manifest names no web service")]
    NoWeb,
    /// The web service runs on Kubernetes, or another backend.
    #[error("the backend is {0:?}")]
    OtherBackend(String),
    /// The web service runs on another grid.
    #[error("the release is {0:?}")]
    OtherRelease(String),
    /// The manifest names no release, and the monitor has no default.
    #[error("the manifest names no release")]
    NoRelease,
    /// The type is not a [`SafeWord`].
    #[error("invalid web: {0:?}, expected letters a-z, digits, . _ + and -, e.g. \"lighttpd\"")]
    InvalidType(String),
    /// The release is not a [`SafeWord`].
    #[error("invalid release: {0:?}, expected letters a-z, digits, . _ + and -, e.g. \"bookworm\"")]
    InvalidRelease(String),
}

/// The fields of a manifest that the monitor reads.
#[derive(Deserialize)]
struct RawManifest {
    web: Option<String>,
    backend: Option<String>,
    distribution: Option<String>,
    release: Option<String>,
}

impl SkipReason {
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

    /// The metric's label.
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

    /// Whether the maintainer made a mistake, in a file that certainly belongs to the tool.
    pub fn is_maintainer_mistake(&self) -> bool {
        use SkipReason::{InvalidRelease, InvalidType, Malformed, NotUtf8, TooLarge};
        matches!(self, TooLarge | NotUtf8 | Malformed(_) | InvalidType(_) | InvalidRelease(_))
    }
}

/// Reads a manifest. If `distribution` is given, it must equal the manifest's `release`, else its `distribution`, else
/// `default_release`.
pub fn parse_manifest(
    content: &[u8],
    distribution: Option<&SafeWord>,
    default_release: Option<&SafeWord>,
) -> Result<Manifest, SkipReason> {
    if content.len() > MAX_MANIFEST_BYTES {
        return Err(SkipReason::TooLarge);
    }
    let text = std::str::from_utf8(content).map_err(|_| SkipReason::NotUtf8)?;
    let written: Option<RawManifest> = parse_yaml(text).map_err(SkipReason::Malformed)?;
    let Some(written) = written else { return Err(SkipReason::NoWeb) };
    let web = written.web.filter(|web| !web.is_empty()).ok_or(SkipReason::NoWeb)?;
    if let Some(backend) = written.backend.filter(|backend| backend != GRID) {
        return Err(SkipReason::OtherBackend(shorten(&backend)));
    }
    // The more specific field counts.
    let named =
        written.release.as_deref().or(written.distribution.as_deref()).or(default_release.map(SafeWord::as_str));
    match (distribution, named) {
        (Some(ours), Some(theirs)) if ours.as_str() != theirs => return Err(SkipReason::OtherRelease(shorten(theirs))),
        (Some(_), None) => return Err(SkipReason::NoRelease),
        _ => {}
    }
    let release = match named {
        Some(name) => Some(SafeWord::try_new(name).ok_or_else(|| SkipReason::InvalidRelease(shorten(name)))?),
        None => None,
    };
    let web = SafeWord::try_new(&web).ok_or_else(|| SkipReason::InvalidType(shorten(&web)))?;
    Ok(Manifest { web, release })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<(String, Option<String>), &'static str> {
        let bookworm = SafeWord::try_new("bookworm").unwrap();
        let manifest = parse_manifest(text.as_bytes(), Some(&bookworm), None).map_err(|skip| skip.reason())?;
        Ok((manifest.web.to_string(), manifest.release.map(|release| release.to_string())))
    }

    fn wants(web: &str, release: Option<&str>) -> Result<(String, Option<String>), &'static str> {
        Ok((web.into(), release.map(str::to_owned)))
    }

    #[test]
    fn wanted_web_services_are_read() {
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
    fn skipped_manifests_have_a_reason() {
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
    fn default_release_is_for_manifests_without_one() {
        let word = |text| SafeWord::try_new(text).unwrap();
        for (text, ours, default, want) in [
            ("web: a", Some("bookworm"), "bookworm", Ok(Some("bookworm"))),
            ("web: a", Some("bookworm"), "buster", Err("other_release")),
            ("web: a", None, "buster", Ok(Some("buster"))),
            ("web: a\nrelease: bookworm", Some("bookworm"), "buster", Ok(Some("bookworm"))),
            ("web: a\ndistribution: debian", Some("bookworm"), "bookworm", Err("other_release")),
        ] {
            let manifest = parse_manifest(text.as_bytes(), ours.map(word).as_ref(), Some(&word(default)));
            let release = manifest.map(|manifest| manifest.release.map(|release| release.to_string()));
            assert_eq!(
                release.map_err(|skip| skip.reason()),
                want.map(|name| name.map(str::to_owned)),
                "{text:?} {ours:?}"
            );
        }
    }

    #[test]
    fn limits_are_inclusive() {
        let padded = |len: usize| format!("web: a\nrelease: bookworm\n#{}", "x".repeat(len - 26));
        assert!(parsed(&padded(MAX_MANIFEST_BYTES)).is_ok());
        assert_eq!(parsed(&padded(MAX_MANIFEST_BYTES + 1)), Err("too_large"));
        assert!(SafeWord::try_new(&"a".repeat(64)).is_some());
        assert!(SafeWord::try_new(&"a".repeat(65)).is_none());
        assert!(SafeWord::try_new("").is_none());
    }

    #[test]
    fn expanding_documents_are_refused() {
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
