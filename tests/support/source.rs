//! The kind of source in the URLs that tests give to daemons.

use std::sync::LazyLock;

/// Variable with the kind of source: `redis` (the default), `rediss`, `sentinel` or `sentinels`.
const SOURCE: &str = "URLPROXY_TEST_SOURCE";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Redis,
    /// With a private CA; the server wants a client certificate.
    Rediss,
    Sentinel,
    /// TLS as with `Rediss`, also to the Sentinel.
    Sentinels,
}

impl Source {
    /// The kind that this test run is for.
    pub fn of_tests() -> Self {
        static OF_TESTS: LazyLock<Source> = LazyLock::new(|| match std::env::var(SOURCE).as_deref() {
            Err(_) | Ok("" | "redis") => Source::Redis,
            Ok("rediss") => Source::Rediss,
            Ok("sentinel") => Source::Sentinel,
            Ok("sentinels") => Source::Sentinels,
            Ok(other) => panic!("{SOURCE}={other:?}, expected redis, rediss, sentinel or sentinels"),
        });
        *OF_TESTS
    }

    pub fn scheme(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Rediss => "rediss",
            Self::Sentinel => "sentinel",
            Self::Sentinels => "sentinels",
        }
    }

    pub fn is_tls(self) -> bool {
        matches!(self, Self::Rediss | Self::Sentinels)
    }

    pub fn has_sentinels(self) -> bool {
        matches!(self, Self::Sentinel | Self::Sentinels)
    }
}
