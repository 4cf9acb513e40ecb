//! Holds back a comparison that would withdraw a large part of all tools, redirects or domains: an emptied store looks the same as a large change.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

use super::journal::{Journal, Level};
use crate::registry::{AcceptFile, Accepted, GuardSettings, Names, key_of};
use crate::route::{Kind, RouteKey};
use crate::table::Writer;

/// What is to be done with what the source no longer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Withdraw,
    Hold,
    /// These go, all others are held.
    WithdrawOnly(Names),
}

/// The state of a hold is in the table's header, where the next companion finds it; here is only what can be lost.
#[derive(Debug)]
pub(super) struct WithdrawalGuard {
    settings: Option<GuardSettings>,
    /// Its state before the hold began accepts nothing.
    accept: Option<AcceptFile>,
}

/// What a comparison would take away of one kind: of the `live` records that were in the table before it the source lacks
/// `missing`.
#[derive(Clone, Copy, Debug)]
struct Loss {
    kind: Kind,
    missing: u64,
    live: u64,
}

impl WithdrawalGuard {
    /// A guard with these settings; without any it lets everything through.
    pub fn new(settings: Option<GuardSettings>) -> Self {
        let accept = settings.as_ref().map(|settings| AcceptFile::new(&settings.accept));
        Self { settings, accept }
    }

    /// Judges the outcome of one comparison: the source lacks `missing`, of so many that were `live` before it, by kind. A mass
    /// withdrawal of one kind, or of all together, holds back everything.
    pub fn judge(
        &mut self,
        writer: &mut Writer<'_>,
        missing: &[RouteKey],
        live: [u64; Kind::ALL.len()],
        journal: &Journal,
    ) -> Verdict {
        let losses = losses(missing, live);
        let missing_count = missing.len() as u64;
        let all = Loss { kind: Kind::Tool, missing: missing_count, live: live.iter().sum() };
        let header = writer.table().header();
        let (held, since, first) = (header.held(), header.held_since(), header.held_first());
        let Some(settings) = &self.settings else {
            if held > 0 {
                writer.note_held(0, None);
            }
            return Verdict::Withdraw;
        };
        let is_mass =
            losses.iter().chain([&all]).any(|loss| loss.missing > 0 && settings.is_mass(loss.missing, loss.live));
        if missing.is_empty() || held == 0 && !is_mass {
            if held > 0 {
                journal
                    .log(Level::Notice, format!("the source has everything again, held={held}; nothing was withdrawn"));
                writer.note_held(0, None);
            }
            return Verdict::Withdraw;
        }
        let now = monotonic_seconds();
        if held == 0 {
            self.accept = Some(AcceptFile::new(&settings.accept));
            let (hold, longest) = (settings.hold.as_secs(), settings.longest_hold().as_secs());
            let (lost, advice) = (describe(&losses), advise(&settings.accept));
            journal.log(
                Level::Warn,
                format!(
                    "the source lacks {lost}; they are served on for {hold} s, or {longest} s at most if the connection is \
                     lost meanwhile, unless they come back; {advice}"
                ),
            );
        }
        let (since, first) = (since.unwrap_or(now), first.unwrap_or(now));
        let accepted = self.accept.as_mut().and_then(|file| file.take(Instant::now()));
        let outcome = match accepted {
            Some(Ok(Accepted::All)) => "accepted by the operator".to_owned(),
            _ if now.saturating_sub(since) >= settings.hold.as_secs() => "held long enough".to_owned(),
            _ if now.saturating_sub(first) >= settings.longest_hold().as_secs() => {
                format!("held for {} s in all, connections lost meanwhile included", now.saturating_sub(first))
            }
            Some(Ok(Accepted::Only(names))) => {
                return only(writer, names, missing, since, &settings.accept, journal);
            }
            accepted => {
                if let Some(Err(error)) = accepted {
                    let path = settings.accept.display();
                    journal.log(Level::Warn, format!("{path} accepts nothing: {error}; everything is held on"));
                }
                writer.note_held(missing_count, Some(since));
                return Verdict::Hold;
            }
        };
        journal.log(Level::Warn, format!("withdrawing {} that the source lacks: {outcome}", describe(&losses)));
        writer.note_held(0, None);
        Verdict::Withdraw
    }

    /// Whether a hold has come to its end, or the operator accepts some of it, so that a comparison should not wait.
    pub fn is_over(&mut self, writer: &Writer<'_>) -> bool {
        let header = writer.table().header();
        let Some(settings) = self.settings.as_ref().filter(|_| header.held() > 0) else { return false };
        let lasts = |since: Option<u64>| since.map_or(0, |since| monotonic_seconds().saturating_sub(since));
        lasts(header.held_since()) >= settings.hold.as_secs()
            || lasts(header.held_first()) >= settings.longest_hold().as_secs()
            || self.accept.as_mut().is_some_and(|file| file.is_ready(Instant::now()))
    }

    /// The connection was lost, or the source is another: what was said before counts no more, the hold begins anew. It ends at
    /// the latest when its longest time since it first began has passed.
    pub fn restart(&self, writer: &mut Writer<'_>, journal: &Journal) {
        let header = writer.table().header();
        let Some(settings) = self.settings.as_ref().filter(|_| header.held_since().is_some()) else { return };
        let (held, first) = (header.held(), header.held_first());
        let past = first.map_or(0, |first| monotonic_seconds().saturating_sub(first));
        let left = settings.longest_hold().as_secs().saturating_sub(past);
        journal.log(
            Level::Notice,
            format!("the time for which {held} withdrawals are held begins anew; it ends in {left} s at the latest"),
        );
        writer.note_held(held, None);
    }
}

/// By kind.
fn losses(missing: &[RouteKey], live: [u64; Kind::ALL.len()]) -> Vec<Loss> {
    let loss = |(kind, live)| {
        let missing = missing.iter().filter(|record| record.kind() == kind).count() as u64;
        Loss { kind, missing, live }
    };
    Kind::ALL.into_iter().zip(live).map(loss).collect()
}

/// The operator names what may go.
fn only(
    writer: &mut Writer<'_>,
    names: Names,
    missing: &[RouteKey],
    since: u64,
    accept: &Path,
    journal: &Journal,
) -> Verdict {
    let keys: Vec<Vec<u8>> = missing.iter().map(key_of).collect();
    let others = names.beyond(keys.iter().map(Vec::as_slice));
    let path = accept.display();
    if !others.is_empty() {
        journal.log(Level::Warn, format!("{path} names what is not held back: {others}; that stays as it is"));
    }
    let going = keys.iter().filter(|key| names.contains(key)).count() as u64;
    let left = (missing.len() as u64).saturating_sub(going);
    if going > 0 {
        let total = missing.len();
        let text = format!(
            "withdrawing {going} of {total} records that the source lacks: named in {path}; {left} are held on"
        );
        journal.log(Level::Warn, text);
    }
    writer.note_held(left, Some(since).filter(|_| left > 0));
    Verdict::WithdrawOnly(names)
}

/// `90 of 100 tools, 3 of 3 domains`: the kinds of which something is missing.
fn describe(losses: &[Loss]) -> String {
    let lost = losses.iter().filter(|loss| loss.missing > 0);
    lost.map(|loss| format!("{} of {} {}", loss.missing, loss.live, loss.kind.plural())).collect::<Vec<_>>().join(", ")
}

/// How the operator lets the withdrawal through; says so if that cannot work.
fn advise(accept: &Path) -> String {
    let directory = accept.parent().unwrap_or(Path::new("/"));
    let shown = accept.display();
    let advice =
        || format!("touch {shown} to withdraw them now, or write names into it, one a line, to withdraw those alone");
    match fs::metadata(directory).and_then(|_| fs::symlink_metadata(accept).map(drop)) {
        Err(error) if error.kind() == ErrorKind::NotFound && directory.is_dir() => advice(),
        Err(error) => format!("{shown} could accept that, but: {error} for the workers' user"),
        Ok(()) => advice(),
    }
}

/// Seconds since the machine was started: the same clock for all processes, and nobody sets it. Never 0.
fn monotonic_seconds() -> u64 {
    u64::try_from(clock_gettime(ClockId::Monotonic).tv_sec).unwrap_or(0) + 1
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::route::{Pattern, Route};
    use crate::sync::JournalReader;
    use crate::table::{Capacity, OwnedTable};

    const CAPACITY: Capacity = Capacity { buckets: 100, cells: 1000, tools: 500, health: 1 };

    fn table(tools: u64) -> OwnedTable {
        let owned = OwnedTable::new(CAPACITY);
        let (mut writer, _) = Writer::attach(owned.table());
        let route = Route { pattern: Pattern::any(), backends: vec!["http://10.0.0.1:1".parse().unwrap()] };
        for n in 0..tools {
            let name = RouteKey::try_new(Kind::Tool, format!("t{n}").as_bytes()).unwrap();
            writer.publish(&name, std::slice::from_ref(&route)).unwrap();
        }
        owned
    }

    /// So many records of a kind, by number.
    fn some(kind: Kind, count: u64) -> Vec<RouteKey> {
        let parent = if kind == Kind::Domain { ".org" } else { "" };
        (0..count).map(|n| RouteKey::try_new(kind, format!("t{n}{parent}").as_bytes()).unwrap()).collect()
    }

    /// Judges a loss of tools.
    fn judge(
        guard: &mut WithdrawalGuard,
        writer: &mut Writer<'_>,
        missing: u64,
        live: u64,
        journal: &Journal,
    ) -> Verdict {
        guard.judge(writer, &some(Kind::Tool, missing), [live, 0, 0], journal)
    }

    /// Whether the file is taken for complete, after a moment.
    fn becomes_over(guard: &mut WithdrawalGuard, writer: &Writer<'_>) -> bool {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !guard.is_over(writer) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        guard.is_over(writer)
    }

    fn settings(dir: &Path, hold: Duration) -> Option<GuardSettings> {
        Some(GuardSettings { percent: 50, floor: 20, hold, accept: dir.join("accept") })
    }

    fn lines(reader: &JournalReader) -> Vec<String> {
        std::iter::from_fn(|| reader.next_entry()).map(|entry| entry.text).collect()
    }

    #[test]
    fn more_than_the_share_of_a_site_that_is_large_enough_is_held() {
        let dir = tempfile::tempdir().unwrap();
        for (live, missing, want) in [
            (19, 19, Verdict::Withdraw),
            (20, 20, Verdict::Hold),
            (20, 11, Verdict::Hold),
            (20, 10, Verdict::Withdraw),
            (100, 50, Verdict::Withdraw),
            (100, 51, Verdict::Hold),
            (100, 1, Verdict::Withdraw),
            (0, 0, Verdict::Withdraw),
        ] {
            let owned = table(live);
            let mut writer = Writer::attach(owned.table()).0;
            let (journal, _reader) = Journal::new(9);
            let mut guard = WithdrawalGuard::new(settings(dir.path(), Duration::from_secs(60)));
            assert_eq!(judge(&mut guard, &mut writer, missing, live, &journal), want, "{missing} of {live}");
            assert_eq!(owned.table().header().held(), if want == Verdict::Hold { missing } else { 0 });
            let mut off = WithdrawalGuard::new(None);
            assert_eq!(judge(&mut off, &mut writer, missing, live, &journal), Verdict::Withdraw);
            assert_eq!(owned.table().header().held(), 0, "no guard, no hold");
        }
    }

    #[test]
    fn the_loss_of_one_kind_holds_everything_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let owned = table(100);
        let mut writer = Writer::attach(owned.table()).0;
        let (journal, reader) = Journal::new(9);
        let lost = |tools, redirects, domains| {
            [some(Kind::Tool, tools), some(Kind::Redirect, redirects), some(Kind::Domain, domains)].concat()
        };
        let guard = || WithdrawalGuard::new(settings(dir.path(), Duration::from_secs(60)));
        assert_eq!(guard().judge(&mut writer, &lost(1, 0, 20), [1000, 0, 40], &journal), Verdict::Withdraw);
        // Neither is large enough by itself.
        assert_eq!(guard().judge(&mut writer, &lost(15, 15, 0), [15, 15, 0], &journal), Verdict::Hold);
        writer.note_held(0, None);
        assert_eq!(guard().judge(&mut writer, &lost(1, 0, 21), [1000, 0, 40], &journal), Verdict::Hold);
        assert_eq!(owned.table().header().held(), 22);
        let said = lines(&reader);
        assert!(said[0].starts_with("the source lacks 15 of 15 tools, 15 of 15 redirects; they"), "{said:?}");
        assert!(said[1].starts_with("the source lacks 1 of 1000 tools, 21 of 40 domains; they"), "{said:?}");
    }

    #[test]
    fn at_100_percent_only_the_loss_of_everything_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let owned = table(100);
        let mut writer = Writer::attach(owned.table()).0;
        let (journal, reader) = Journal::new(9);
        let whole = settings(dir.path(), Duration::from_secs(60)).map(|s| GuardSettings { percent: 100, ..s });
        let mut guard = WithdrawalGuard::new(whole);
        assert_eq!(judge(&mut guard, &mut writer, 99, 100, &journal), Verdict::Withdraw);
        assert_eq!(judge(&mut guard, &mut writer, 100, 100, &journal), Verdict::Hold);
        let advice = format!(
            "touch {}/accept to withdraw them now, or write names into it, one a line, to withdraw those alone",
            dir.path().display()
        );
        assert!(lines(&reader)[0].ends_with(&advice));
    }

    #[test]
    fn advice_that_cannot_work_says_so() {
        let advice = advise(Path::new("/nonexistent/tools.accept"));
        assert!(advice.starts_with("/nonexistent/tools.accept could accept that, but: No such file"), "{advice}");
    }

    #[test]
    fn a_hold_ends_when_its_time_is_over_and_not_when_some_have_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let owned = table(100);
        let mut writer = Writer::attach(owned.table()).0;
        let (journal, reader) = Journal::new(9);
        let mut guard = WithdrawalGuard::new(settings(dir.path(), Duration::from_secs(60)));
        assert_eq!(judge(&mut guard, &mut writer, 90, 100, &journal), Verdict::Hold);
        // A small remainder would not have been held by itself.
        assert_eq!(judge(&mut guard, &mut writer, 3, 100, &journal), Verdict::Hold);
        assert!(!guard.is_over(&writer));
        let since = owned.table().header().held_since().unwrap();
        // Another companion, later.
        writer.note_held(3, Some(since.saturating_sub(60).max(1)));
        let mut guard = WithdrawalGuard::new(settings(dir.path(), Duration::from_secs(60)));
        assert!(guard.is_over(&writer) || since < 60);
        assert_eq!(judge(&mut guard, &mut writer, 3, 100, &journal), Verdict::Withdraw);
        assert_eq!(owned.table().header().held(), 0);
        let said = lines(&reader);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with("the source lacks 90 of 100 tools; they are served on for 60 s"), "{said:?}");
        assert!(said[1].starts_with("withdrawing 3 of 100 tools"), "{said:?}");
    }

    #[test]
    fn a_lost_connection_begins_the_hold_anew_and_a_recovered_source_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let owned = table(100);
        let mut writer = Writer::attach(owned.table()).0;
        let (journal, reader) = Journal::new(9);
        let mut guard = WithdrawalGuard::new(settings(dir.path(), Duration::from_secs(60)));
        judge(&mut guard, &mut writer, 90, 100, &journal);
        writer.note_held(90, Some(1));
        guard.restart(&mut writer, &journal);
        assert_eq!(judge(&mut guard, &mut writer, 90, 100, &journal), Verdict::Hold);
        assert_eq!(judge(&mut guard, &mut writer, 0, 100, &journal), Verdict::Withdraw);
        assert_eq!(owned.table().header().held(), 0);
        assert_eq!(lines(&reader).last().unwrap(), "the source has everything again, held=90; nothing was withdrawn");
    }

    #[test]
    fn a_hold_that_begins_anew_ends_after_twice_its_time_in_all() {
        let dir = tempfile::tempdir().unwrap();
        let owned = table(100);
        let mut writer = Writer::attach(owned.table()).0;
        let (journal, reader) = Journal::new(9);
        let hold = Duration::from_secs(60);
        let mut guard = WithdrawalGuard::new(settings(dir.path(), hold));
        assert_eq!(judge(&mut guard, &mut writer, 90, 100, &journal), Verdict::Hold);
        // Some time ago, and several lost connections and companions since.
        let first = |writer: &mut Writer<'_>, ago: u64| {
            writer.note_held(0, None);
            writer.note_held(90, Some(monotonic_seconds().saturating_sub(ago).max(1)));
        };
        for ago in [100, 119] {
            first(&mut writer, ago);
            for _ in 0..3 {
                guard = WithdrawalGuard::new(settings(dir.path(), hold));
                guard.restart(&mut writer, &journal);
                assert!(monotonic_seconds() < ago || !guard.is_over(&writer), "{ago}");
                assert_eq!(owned.table().header().held(), 90);
            }
        }
        // A machine must have run for so long.
        while monotonic_seconds() <= 121 {
            std::thread::sleep(Duration::from_millis(100));
        }
        first(&mut writer, 120);
        guard.restart(&mut writer, &journal);
        assert_eq!(owned.table().header().held_since(), None);
        assert!(guard.is_over(&writer));
        assert_eq!(judge(&mut guard, &mut writer, 90, 100, &journal), Verdict::Withdraw);
        assert_eq!((owned.table().header().held(), owned.table().header().held_first()), (0, None));
        let said = lines(&reader);
        assert!(said[0].contains("on for 60 s, or 120 s at most if the connection is lost meanwhile"), "{said:?}");
        assert!(
            said[1].starts_with("the time for which 90 withdrawals are held begins anew; it ends in 20 s"),
            "{said:?}"
        );
        assert!(said.last().unwrap().contains("that the source lacks: held for 120 s in all"), "{said:?}");
        // The next one has all its time.
        assert_eq!(judge(&mut guard, &mut writer, 90, 100, &journal), Verdict::Hold);
        guard.restart(&mut writer, &journal);
        assert!(!guard.is_over(&writer));
    }

    #[test]
    fn names_in_the_file_accept_those_alone() {
        let dir = tempfile::tempdir().unwrap();
        let owned = table(100);
        let mut writer = Writer::attach(owned.table()).0;
        let (journal, reader) = Journal::new(9);
        let accept = dir.path().join("accept");
        let mut guard = WithdrawalGuard::new(settings(dir.path(), Duration::from_secs(60)));
        assert_eq!(judge(&mut guard, &mut writer, 90, 100, &journal), Verdict::Hold);
        fs::write(&accept, "# these\nt1\nprefix:t2\nredirect:t1\nt95\n").unwrap();
        assert!(becomes_over(&mut guard, &writer));
        let verdict = judge(&mut guard, &mut writer, 90, 100, &journal);
        let Verdict::WithdrawOnly(names) = verdict else { panic!("{verdict:?}") };
        assert!(names.contains(b"prefix:t1") && names.contains(b"prefix:t2") && !names.contains(b"prefix:t3"));
        assert_eq!(owned.table().header().held(), 88);
        assert!(!guard.is_over(&writer), "taken once");
        fs::write(&accept, "# none\n").unwrap();
        assert!(becomes_over(&mut guard, &writer));
        assert_eq!(judge(&mut guard, &mut writer, 88, 98, &journal), Verdict::Hold);
        let (said, path) = (lines(&reader), accept.display());
        assert_eq!(
            said[1..],
            [
                format!("{path} names what is not held back: \"prefix:t95\", \"redirect:t1\"; that stays as it is"),
                format!("withdrawing 2 of 90 records that the source lacks: named in {path}; 88 are held on"),
                format!(
                    "{path} accepts nothing: it has comments but no names, expected names, one a line, or an empty file to \
                     accept everything; everything is held on"
                ),
            ]
        );
        // The last ones.
        fs::write(&accept, "t0\nt1").unwrap();
        assert!(becomes_over(&mut guard, &writer));
        assert!(matches!(judge(&mut guard, &mut writer, 2, 10, &journal), Verdict::WithdrawOnly(_)));
        assert_eq!((owned.table().header().held(), owned.table().header().held_first()), (0, None));
    }

    #[test]
    fn touching_the_file_accepts_one_withdrawal() {
        let dir = tempfile::tempdir().unwrap();
        let owned = table(100);
        let mut writer = Writer::attach(owned.table()).0;
        let (journal, _reader) = Journal::new(9);
        let accept = dir.path().join("accept");
        // A file that was there before accepts nothing.
        fs::write(&accept, "").unwrap();
        let mut guard = WithdrawalGuard::new(settings(dir.path(), Duration::from_secs(60)));
        assert_eq!(judge(&mut guard, &mut writer, 90, 100, &journal), Verdict::Hold);
        assert!(!guard.is_over(&writer));
        let later = SystemTime::now() + Duration::from_secs(3);
        fs::File::options().write(true).open(&accept).unwrap().set_modified(later).unwrap();
        assert!(becomes_over(&mut guard, &writer));
        assert_eq!(judge(&mut guard, &mut writer, 90, 100, &journal), Verdict::Withdraw);
        assert_eq!(judge(&mut guard, &mut writer, 90, 100, &journal), Verdict::Hold, "the next one is held again");
    }
}
