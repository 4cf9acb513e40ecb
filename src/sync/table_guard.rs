//! The withdrawal guard of a table. Its hold is kept in the table's header, where the next companion finds it.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use super::journal::{Journal, Level};
use crate::clock;
use crate::registry::key_of;
use crate::route::{Kind, RouteKey};
use crate::table::{Header, Writer};
use crate::withdrawal_guard::{GuardEvent, GuardSettings, Hold, HoldEnd, Loss, Verdict, WithdrawalGuard};

/// Judges scans, keeps the hold in the header, and logs.
#[derive(Debug)]
pub(super) struct TableGuard(WithdrawalGuard);

/// The records that a scan would withdraw, by kind.
type Losses = [(Kind, Loss); Kind::ALL.len()];

impl TableGuard {
    /// A guard with these settings; without any it accepts every loss.
    pub fn new(settings: Option<GuardSettings>) -> Self {
        Self(WithdrawalGuard::new(settings))
    }

    /// Judges one scan: the source lacks the records `missing` of those that were `live` before, by kind. A mass withdrawal of
    /// one kind, or of all kinds together, holds all missing records.
    pub fn judge(
        &mut self,
        writer: &mut Writer<'_>,
        missing: &[RouteKey],
        live: [u64; Kind::ALL.len()],
        journal: &Journal,
    ) -> Verdict {
        let losses = losses(missing, live);
        let count = missing.len() as u64;
        let all = Loss { missing: count, live: live.iter().sum() };
        let now = Now::read();
        let before = writer.table().header().held();
        self.0.set_hold(now.hold_of(writer.table().header()));
        self.0.resume(now.instant);
        let every = losses.map(|(_, loss)| loss).into_iter().chain([all]).collect::<Vec<_>>();
        let (verdict, events) = self.0.judge(&every, missing.iter().map(key_of), now.instant);
        let mut held = count;
        for event in events {
            if let GuardEvent::Named { held: left, .. } = &event {
                held = *left;
            }
            self.log(&event, &losses, before, journal);
        }
        match self.0.hold() {
            Some(hold) => writer.note_held(held, hold.since.map(|since| now.seconds_at(since))),
            None => writer.note_held(0, None),
        }
        verdict
    }

    /// Whether a hold has expired or the operator has touched the accept file, so that a scan is due.
    pub fn is_over(&mut self, writer: &Writer<'_>) -> bool {
        let now = Now::read();
        self.0.set_hold(now.hold_of(writer.table().header()));
        self.0.is_over(now.instant)
    }

    /// Restarts the hold after the connection was lost or the source changed: earlier scans no longer count. The hold ends at
    /// the latest when its longest time since its first start has passed.
    pub fn restart(&self, writer: &mut Writer<'_>, journal: &Journal) {
        let now = Now::read();
        let header = writer.table().header();
        let Some(settings) = self.0.settings() else { return };
        let Some(hold) = now.hold_of(header).filter(|hold| hold.since.is_some()) else { return };
        let held = header.held();
        let left = settings.longest_hold().saturating_sub(now.instant.saturating_duration_since(hold.first)).as_secs();
        let text = format!("withdrawal guard: hold restarted; it ends in {left} s at the latest, held={held}");
        journal.log(Level::Notice, text);
        writer.note_held(held, None);
    }

    /// Logs an event; `before` records were held before it.
    fn log(&self, event: &GuardEvent, losses: &Losses, before: u64, journal: &Journal) {
        let Some(settings) = self.0.settings() else { return };
        let path = settings.accept.display();
        match event {
            GuardEvent::Recovered => {
                let text = format!("withdrawal guard: the source has all routes again; hold ended, held={before}");
                journal.log(Level::Notice, text);
            }
            GuardEvent::Began => {
                let (hold, longest) = (settings.hold.as_secs(), settings.longest_hold().as_secs());
                let (lost, advice) = (describe(losses), advise(&settings.accept));
                let text = format!(
                    "withdrawal guard: the source lacks {lost}; missing routes stay in service for {hold} s, at most {longest} s \
                     if the connection is lost meanwhile; {advice}"
                );
                journal.log(Level::Warn, text);
            }
            GuardEvent::Named { going, held, others } => {
                if !others.is_empty() {
                    let text = format!("withdrawal guard: {path} names routes that are not held; ignoring {others}");
                    journal.log(Level::Warn, text);
                }
                if *going > 0 {
                    let total = going + held;
                    let text = format!(
                        "withdrawal guard: withdrawing {going} of {total} missing entries, named in {path}; {held} stay held"
                    );
                    journal.log(Level::Warn, text);
                }
            }
            GuardEvent::NotAccepted(error) => {
                journal.log(
                    Level::Warn,
                    format!("withdrawal guard: invalid accept file {path}: {error}; the hold continues"),
                );
            }
            GuardEvent::Ended(end) => {
                let why = match end {
                    HoldEnd::Accepted => "accepted by the operator".to_owned(),
                    HoldEnd::Lasted => "the hold has expired".to_owned(),
                    HoldEnd::LastedInAll(time) => {
                        format!("held for {} s in all, lost connections included", time.as_secs())
                    }
                };
                let text = format!("withdrawal guard: withdrawing {}: {why}", describe(losses));
                journal.log(Level::Warn, text);
            }
        }
    }
}

fn losses(missing: &[RouteKey], live: [u64; Kind::ALL.len()]) -> Losses {
    let mut live = live.into_iter();
    Kind::ALL.map(|kind| {
        let missing = missing.iter().filter(|record| record.kind() == kind).count() as u64;
        (kind, Loss { missing, live: live.next().unwrap_or(0) })
    })
}

/// `90 of 100 tools, 3 of 3 domains`: the kinds with missing records.
fn describe(losses: &Losses) -> String {
    let lost = losses.iter().filter(|(_, loss)| loss.missing > 0);
    let lost = lost.map(|(kind, loss)| format!("{} of {} {}", loss.missing, loss.live, kind.plural()));
    lost.collect::<Vec<_>>().join(", ")
}

/// How the operator accepts the withdrawal, or why the accept file cannot work.
fn advise(accept: &Path) -> String {
    let directory = accept.parent().unwrap_or(Path::new("/"));
    let shown = accept.display();
    let advice =
        || format!("touch {shown} to withdraw them now, or write names into it, one per line, to withdraw only those");
    match fs::metadata(directory).and_then(|_| fs::symlink_metadata(accept).map(drop)) {
        Err(error) if error.kind() == ErrorKind::NotFound && directory.is_dir() => advice(),
        Err(error) => format!("the accept file {shown} is unusable for the workers' user: {error}"),
        Ok(()) => advice(),
    }
}

/// One moment on two clocks.
#[derive(Clone, Copy)]
struct Now {
    instant: Instant,
    /// Seconds of the monotonic clock, which all processes share. Never 0.
    seconds: u64,
}

impl Now {
    fn read() -> Self {
        Self { instant: Instant::now(), seconds: clock::monotonic_seconds() }
    }

    /// The hold in a table's header.
    fn hold_of(self, header: &Header) -> Option<Hold> {
        let at = |seconds| {
            let ago = Duration::from_secs(self.seconds.saturating_sub(seconds));
            self.instant.checked_sub(ago).unwrap_or(self.instant)
        };
        let first = header.held_first().map_or(self.instant, at);
        (header.held() > 0).then(|| Hold { first, since: header.held_since().map(at) })
    }

    /// An instant as the header stores it.
    fn seconds_at(self, at: Instant) -> u64 {
        self.seconds.saturating_sub(self.instant.saturating_duration_since(at).as_secs()).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Pattern, Route};
    use crate::sync::JournalReader;
    use crate::table::{Capacity, OwnedTable};

    const CAPACITY: Capacity = Capacity { buckets: 100, cells: 1000, tools: 500, health: 1, ..Capacity::NONE };

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

    /// `count` records of a kind.
    fn some(kind: Kind, count: u64) -> Vec<RouteKey> {
        let parent = if kind == Kind::Domain { ".org" } else { "" };
        (0..count).map(|n| RouteKey::try_new(kind, format!("t{n}{parent}").as_bytes()).unwrap()).collect()
    }

    /// Judges a loss of tools.
    fn judge(guard: &mut TableGuard, writer: &mut Writer<'_>, missing: u64, live: u64, journal: &Journal) -> Verdict {
        guard.judge(writer, &some(Kind::Tool, missing), [live, 0, 0], journal)
    }

    /// Waits until the accept file counts as complete.
    fn becomes_over(guard: &mut TableGuard, writer: &Writer<'_>) -> bool {
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
    fn mass_loss_of_one_kind_holds_all_kinds_and_is_logged() {
        let dir = tempfile::tempdir().unwrap();
        let owned = table(100);
        let mut writer = Writer::attach(owned.table()).0;
        let (journal, reader) = Journal::new(9);
        let lost = |tools, redirects, domains| {
            [some(Kind::Tool, tools), some(Kind::Redirect, redirects), some(Kind::Domain, domains)].concat()
        };
        let guard = || TableGuard::new(settings(dir.path(), Duration::from_secs(60)));
        assert_eq!(guard().judge(&mut writer, &lost(1, 0, 20), [1000, 0, 40], &journal), Verdict::Withdraw);
        // Neither kind alone reaches the floor.
        assert_eq!(guard().judge(&mut writer, &lost(15, 15, 0), [15, 15, 0], &journal), Verdict::Hold);
        writer.note_held(0, None);
        assert_eq!(guard().judge(&mut writer, &lost(1, 0, 21), [1000, 0, 40], &journal), Verdict::Hold);
        assert_eq!(owned.table().header().held(), 22);
        let said = lines(&reader);
        assert!(
            said[0].starts_with("withdrawal guard: the source lacks 15 of 15 tools, 15 of 15 redirects; missing"),
            "{said:?}"
        );
        assert!(
            said[1].starts_with("withdrawal guard: the source lacks 1 of 1000 tools, 21 of 40 domains; missing"),
            "{said:?}"
        );
    }

    #[test]
    fn an_unusable_accept_file_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("accept");
        let text = "to withdraw them now, or write names into it, one per line, to withdraw only those";
        assert_eq!(advise(&file), format!("touch {} {text}", file.display()));
        let advice = advise(Path::new("/nonexistent/tools.accept"));
        assert!(
            advice.ends_with(
                "/nonexistent/tools.accept is unusable for the workers' user: No such file or directory (os error 2)"
            ),
            "{advice}"
        );
    }

    #[test]
    fn a_hold_ends_when_it_expires_not_when_some_routes_return() {
        let dir = tempfile::tempdir().unwrap();
        let owned = table(100);
        let mut writer = Writer::attach(owned.table()).0;
        let (journal, reader) = Journal::new(9);
        let mut guard = TableGuard::new(settings(dir.path(), Duration::from_secs(60)));
        assert_eq!(judge(&mut guard, &mut writer, 90, 100, &journal), Verdict::Hold);
        // Such a small loss alone would not begin a hold.
        assert_eq!(judge(&mut guard, &mut writer, 3, 100, &journal), Verdict::Hold);
        assert!(!guard.is_over(&writer));
        let since = owned.table().header().held_since().unwrap();
        // Another companion, later.
        writer.note_held(3, Some(since.saturating_sub(60).max(1)));
        let mut guard = TableGuard::new(settings(dir.path(), Duration::from_secs(60)));
        assert!(guard.is_over(&writer) || since < 60);
        assert_eq!(judge(&mut guard, &mut writer, 3, 100, &journal), Verdict::Withdraw);
        assert_eq!(owned.table().header().held(), 0);
        // And one without a guard.
        writer.note_held(3, Some(since));
        assert_eq!(judge(&mut TableGuard::new(None), &mut writer, 90, 100, &journal), Verdict::Withdraw);
        assert_eq!(owned.table().header().held(), 0);
        let said = lines(&reader);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0].starts_with(
                "withdrawal guard: the source lacks 90 of 100 tools; missing routes stay in service for 60 s"
            ),
            "{said:?}"
        );
        assert!(said[1].starts_with("withdrawal guard: withdrawing 3 of 100 tools"), "{said:?}");
    }

    #[test]
    fn a_lost_connection_restarts_the_hold_and_a_recovered_source_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let owned = table(100);
        let mut writer = Writer::attach(owned.table()).0;
        let (journal, reader) = Journal::new(9);
        let mut guard = TableGuard::new(settings(dir.path(), Duration::from_secs(60)));
        judge(&mut guard, &mut writer, 90, 100, &journal);
        writer.note_held(90, Some(1));
        guard.restart(&mut writer, &journal);
        assert_eq!(judge(&mut guard, &mut writer, 90, 100, &journal), Verdict::Hold);
        assert_eq!(judge(&mut guard, &mut writer, 0, 100, &journal), Verdict::Withdraw);
        assert_eq!(owned.table().header().held(), 0);
        assert_eq!(
            lines(&reader).last().unwrap(),
            "withdrawal guard: the source has all routes again; hold ended, held=90"
        );
    }

    #[test]
    fn a_restarted_hold_ends_after_twice_its_time_in_all() {
        let dir = tempfile::tempdir().unwrap();
        let owned = table(100);
        let mut writer = Writer::attach(owned.table()).0;
        let (journal, reader) = Journal::new(9);
        let hold = Duration::from_secs(60);
        let mut guard = TableGuard::new(settings(dir.path(), hold));
        assert_eq!(judge(&mut guard, &mut writer, 90, 100, &journal), Verdict::Hold);
        // The hold began `ago` seconds ago; connections and companions were lost since.
        let first = |writer: &mut Writer<'_>, ago: u64| {
            writer.note_held(0, None);
            writer.note_held(90, Some(Now::read().seconds.saturating_sub(ago).max(1)));
        };
        for ago in [100, 119] {
            first(&mut writer, ago);
            for _ in 0..3 {
                guard = TableGuard::new(settings(dir.path(), hold));
                guard.restart(&mut writer, &journal);
                assert!(Now::read().seconds < ago || !guard.is_over(&writer), "{ago}");
                assert_eq!(owned.table().header().held(), 90);
            }
        }
        // The machine's uptime must exceed the hold.
        while Now::read().seconds <= 121 {
            std::thread::sleep(Duration::from_millis(100));
        }
        first(&mut writer, 120);
        guard.restart(&mut writer, &journal);
        assert_eq!(owned.table().header().held_since(), None);
        assert!(!guard.is_over(&writer), "with the next comparison");
        assert_eq!(judge(&mut guard, &mut writer, 90, 100, &journal), Verdict::Withdraw);
        assert_eq!((owned.table().header().held(), owned.table().header().held_first()), (0, None));
        let said = lines(&reader);
        assert!(said[0].contains("in service for 60 s, at most 120 s if the connection is lost meanwhile"), "{said:?}");
        assert!(said[1].starts_with("withdrawal guard: hold restarted; it ends in 20 s"), "{said:?}");
        assert!(said.last().unwrap().contains("of 100 tools: held for 120 s in all"), "{said:?}");
        // The next hold has its full time.
        assert_eq!(judge(&mut guard, &mut writer, 90, 100, &journal), Verdict::Hold);
        guard.restart(&mut writer, &journal);
        assert!(!guard.is_over(&writer));
    }

    #[test]
    fn names_in_the_accept_file_accept_only_those() {
        let dir = tempfile::tempdir().unwrap();
        let owned = table(100);
        let mut writer = Writer::attach(owned.table()).0;
        let (journal, reader) = Journal::new(9);
        let accept = dir.path().join("accept");
        let mut guard = TableGuard::new(settings(dir.path(), Duration::from_secs(60)));
        assert_eq!(judge(&mut guard, &mut writer, 90, 100, &journal), Verdict::Hold);
        fs::write(&accept, "# these\nt1\nprefix:t2\nredirect:t1\nt95\n").unwrap();
        assert!(becomes_over(&mut guard, &writer));
        let verdict = judge(&mut guard, &mut writer, 90, 100, &journal);
        let Verdict::WithdrawOnly(names) = verdict else { panic!("{verdict:?}") };
        assert!(names.contains(b"prefix:t1") && names.contains(b"prefix:t2") && !names.contains(b"prefix:t3"));
        assert_eq!(owned.table().header().held(), 88);
        assert!(!guard.is_over(&writer), "the file counts once");
        fs::write(&accept, "# none\n").unwrap();
        assert!(becomes_over(&mut guard, &writer));
        assert_eq!(judge(&mut guard, &mut writer, 88, 98, &journal), Verdict::Hold);
        let (said, path) = (lines(&reader), accept.display());
        assert_eq!(
            said[1..],
            [
                format!(
                    "withdrawal guard: {path} names routes that are not held; ignoring \"prefix:t95\", \"redirect:t1\""
                ),
                format!("withdrawal guard: withdrawing 2 of 90 missing entries, named in {path}; 88 stay held"),
                format!(
                    "withdrawal guard: invalid accept file {path}: file has comments but no names, expected one name per line, or an \
                     empty file to accept everything; the hold continues"
                ),
            ]
        );
        fs::write(&accept, "t99\n").unwrap();
        assert!(becomes_over(&mut guard, &writer));
        assert!(matches!(judge(&mut guard, &mut writer, 88, 98, &journal), Verdict::WithdrawOnly(_)));
        let only = format!("withdrawal guard: {path} names routes that are not held; ignoring \"prefix:t99\"");
        assert_eq!((lines(&reader), owned.table().header().held()), (vec![only], 88));
        // The last ones.
        fs::write(&accept, "t0\nt1").unwrap();
        assert!(becomes_over(&mut guard, &writer));
        assert!(matches!(judge(&mut guard, &mut writer, 2, 10, &journal), Verdict::WithdrawOnly(_)));
        assert_eq!((owned.table().header().held(), owned.table().header().held_first()), (0, None));
    }
}
