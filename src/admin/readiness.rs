//! Whether the proxy should get requests: what `/ready` answers, and why.

use std::fs::symlink_metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::answer::Answer;
use crate::table::Header;

/// What makes a proxy unready besides a table that was never loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadyLimits {
    /// Maximum time since the table was last in step with its source.
    pub max_age: Option<Duration>,
    /// The file that takes the proxy out of service while it exists.
    pub drain_file: Option<PathBuf>,
}

/// Why a proxy should not get requests.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// The table was never loaded.
    #[error("the table was never loaded")]
    NeverLoaded,
    /// The table is too old.
    #[error("the routes were last verified {age} s ago, more than ready_max_age {} s", .max_age.as_secs_f64())]
    Old {
        /// Seconds since the table was last in step.
        age: u64,
        /// The limit.
        max_age: Duration,
    },
    /// An operator takes the proxy out of service.
    #[error("draining, because {} exists", .0.display())]
    Draining(PathBuf),
    /// Nobody knows whether an operator takes the proxy out of service.
    #[error("{error} while looking for drain_file {}", .path.display())]
    UnknownDrain {
        /// The file.
        path: PathBuf,
        /// Why it cannot be seen.
        error: io::Error,
    },
}

/// The reasons why a proxy should not get requests; none if it should.
#[derive(Debug)]
pub struct Readiness(Vec<NotReady>);

impl Readiness {
    /// Looks at the table, and for the drain file; `now` in Unix milliseconds.
    pub fn of(limits: &ReadyLimits, header: &Header, now: u64) -> Self {
        let ReadyLimits { max_age, drain_file } = limits;
        let unloaded = (!header.is_loaded()).then_some(NotReady::NeverLoaded);
        let age = header.age_seconds(now / 1000).filter(|_| unloaded.is_none());
        let old = age.zip(*max_age).filter(|&(age, max_age)| Duration::from_secs(age) > max_age);
        let old = old.map(|(age, max_age)| NotReady::Old { age, max_age });
        let drain = drain_file.as_deref().and_then(look_for);
        Self(unloaded.into_iter().chain(old).chain(drain).collect())
    }

    /// Whether the proxy should get requests.
    pub fn is_ready(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the drain file exists. `None` if unknown.
    pub fn is_draining(&self) -> Option<bool> {
        let is_unknown = self.0.iter().any(|reason| matches!(reason, NotReady::UnknownDrain { .. }));
        let is_draining = || self.0.iter().any(|reason| matches!(reason, NotReady::Draining(_)));
        (!is_unknown).then(is_draining)
    }

    /// Why the proxy should not get requests.
    pub fn why_not(&self) -> Option<String> {
        joined(self.0.iter())
    }

    /// The same, except that the table was never loaded.
    pub fn why_not_though_loaded(&self) -> Option<String> {
        joined(self.0.iter().filter(|reason| !matches!(reason, NotReady::NeverLoaded)))
    }

    /// The answer of `/ready`.
    pub fn answer(&self) -> Answer {
        match self.why_not() {
            None => Answer::text("ready\n"),
            Some(why) => Answer::text(format!("not ready: {why}\n")).with_status(503).with_header("Retry-After", "1"),
        }
    }
}

fn joined<'r>(reasons: impl Iterator<Item = &'r NotReady>) -> Option<String> {
    let reasons: Vec<_> = reasons.map(ToString::to_string).collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// Whatever has the name counts, also a link that leads nowhere; nothing is opened. Only a missing name means that the proxy does
/// not drain: any other error would hide the operator's wish.
fn look_for(path: &Path) -> Option<NotReady> {
    match symlink_metadata(path) {
        Ok(_) => Some(NotReady::Draining(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(NotReady::UnknownDrain { path: path.to_owned(), error }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, create_dir};
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;
    use crate::admin::about::About;
    use crate::admin::testing::{TestTable, about, body};

    const NOW: u64 = 1_790_000_000;

    fn with(max_age: Option<Duration>, drain_file: Option<&Path>) -> About {
        let ready_limits = ReadyLimits { max_age, drain_file: drain_file.map(Path::to_owned) };
        About { ready_limits, ..about(NOW * 1000) }
    }

    fn ready(about: &About, table: &TestTable) -> (u16, String) {
        let answer = about.readiness(table.table().header()).answer();
        assert_eq!(answer.status == 503, answer.headers.iter().any(|(name, _)| *name == "Retry-After"));
        (answer.status, body(table, answer.page))
    }

    #[test]
    fn a_table_is_ready_once_loaded_and_until_it_is_too_old() {
        let limit = with(Some(Duration::from_secs(600)), None);
        let table = TestTable::new(10);
        let never = (503, "not ready: the table was never loaded\n".to_owned());
        assert_eq!((ready(&with(None, None), &table), ready(&limit, &table)), (never.clone(), never));
        for (age, want) in [(0, 200), (599, 200), (600, 200), (601, 503), (700, 503)] {
            table.mark_synced(NOW - age);
            assert_eq!(ready(&with(None, None), &table), (200, "ready\n".into()), "{age}");
            assert_eq!(ready(&limit, &table).0, want, "{age}");
        }
        let want = "not ready: the routes were last verified 700 s ago, more than ready_max_age 600 s\n";
        assert_eq!(ready(&limit, &table).1, want);
        table.mark_restored(NOW - 3600);
        assert_eq!(ready(&limit, &table).0, 503, "the snapshot's age counts");
        // Half a second must not become 0.
        table.mark_synced(NOW - 2);
        let (status, text) = ready(&with(Some(Duration::from_millis(1500)), None), &table);
        assert!(status == 503 && text.ends_with("2 s ago, more than ready_max_age 1.5 s\n"), "{text}");
    }

    #[test]
    fn whatever_has_the_name_of_the_drain_file_drains() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out-of-service");
        let table = TestTable::new(10);
        table.mark_synced(NOW);
        let about = with(None, Some(&path));
        assert_eq!(ready(&about, &table), (200, "ready\n".into()));
        let draining = (503, format!("not ready: draining, because {} exists\n", path.display()));
        let make: [(&str, &dyn Fn()); 6] = [
            ("file", &|| fs::write(&path, "").unwrap()),
            ("directory", &|| create_dir(&path).unwrap()),
            // Opening it would wait for a writer.
            ("FIFO", &|| mkfifoat(CWD, &path, Mode::from_raw_mode(0o600)).unwrap()),
            ("link", &|| symlink("/", &path).unwrap()),
            ("link to nothing", &|| symlink("/does/not/exist", &path).unwrap()),
            ("link to itself", &|| symlink(&path, &path).unwrap()),
        ];
        for (what, make) in make {
            make();
            assert_eq!(ready(&about, &table), draining, "{what}");
            assert_eq!(about.readiness(table.table().header()).is_draining(), Some(true), "{what}");
            if what == "directory" {
                fs::remove_dir(&path).unwrap()
            } else {
                fs::remove_file(&path).unwrap()
            }
            assert_eq!(ready(&about, &table).0, 200, "without the {what}");
        }
        assert_eq!(ready(&with(None, Some(Path::new("/does/not/exist"))), &table).0, 200, "no directory");
    }

    #[test]
    fn a_drain_file_that_cannot_be_seen_is_no_ready_proxy() {
        let dir = tempfile::tempdir().unwrap();
        let table = TestTable::new(10);
        table.mark_synced(NOW);
        let link = dir.path().join("loop");
        symlink(&link, &link).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let long = "x".repeat(300);
        for (path, want) in [
            ("loop/out", "Too many levels of symbolic links"),
            ("file/out", "Not a directory"),
            (long.as_str(), "File name too long"),
        ] {
            let path = dir.path().join(path);
            let about = with(None, Some(&path));
            let (status, text) = ready(&about, &table);
            let readiness = about.readiness(table.table().header());
            assert_eq!((status, readiness.is_draining(), readiness.is_ready()), (503, None, false), "{want}");
            assert!(text.starts_with(&format!("not ready: {want} (os error ")), "{text}");
            assert!(text.ends_with(&format!(" while looking for drain_file {}\n", path.display())), "{text}");
        }
    }

    #[test]
    fn all_reasons_are_named() {
        let about = with(Some(Duration::from_secs(1)), Some(Path::new("/")));
        let table = TestTable::new(10);
        assert_eq!(ready(&about, &table).1, "not ready: the table was never loaded; draining, because / exists\n");
        let readiness = about.readiness(table.table().header());
        assert_eq!(readiness.why_not_though_loaded().as_deref(), Some("draining, because / exists"));
        table.mark_synced(NOW - 9);
        let want = "not ready: the routes were last verified 9 s ago, more than ready_max_age 1 s; draining, because / exists\n";
        assert_eq!(ready(&about, &table).1, want);
    }
}
