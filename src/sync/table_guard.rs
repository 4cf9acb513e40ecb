//! The guard of a table against mass withdrawal: its hold is kept in the table's header, where the next companion finds it.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::journal::{Journal, Level};
use crate::registry::key_of;
use crate::route::{Kind, RouteKey};
use crate::table::{Header, Writer};
use crate::withdrawal_guard::{GuardEvent, GuardSettings, Hold, HoldEnd, Loss, Verdict, WithdrawalGuard};

/// Judges comparisons, keeps the hold in the header, and logs.
#[derive(Debug)]
pub(super) struct TableGuard(WithdrawalGuard);

/// What a comparison would take away, by kind.
type Losses = [(Kind, Loss); Kind::ALL.len()];

impl TableGuard {
    /// A guard with these settings; without any it lets everything through.
    pub fn new(settings: Option<GuardSettings>) -> Self {
        Self(WithdrawalGuard::new(settings))
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

    /// Whether a hold has come to its end, or the operator accepts some of it, so that a comparison should not wait.
    pub fn is_over(&mut self, writer: &Writer<'_>) -> bool {
        let now = Now::read();
        self.0.set_hold(now.hold_of(writer.table().header()));
        self.0.is_over(now.instant)
    }

    /// The connection was lost, or the source is another: what was said before counts no more, the hold begins anew. It ends at
    /// the latest when its longest time since it first began has passed.
    pub fn restart(&self, writer: &mut Writer<'_>, journal: &Journal) {
        let now = Now::read();
        let header = writer.table().header();
        let Some(settings) = self.0.settings() else { return };
        let Some(hold) = now.hold_of(header).filter(|hold| hold.since.is_some()) else { return };
        let held = header.held();
        let left = settings.longest_hold().saturating_sub(now.instant.saturating_duration_since(hold.first)).as_secs();
        journal.log(
            Level::Notice,
            format!("the time for which {held} withdrawals are held begins anew; it ends in {left} s at the latest"),
        );
        writer.note_held(held, None);
    }

    /// Says what the judge found; so many were held `before`.
    fn log(&self, event: &GuardEvent, losses: &Losses, before: u64, journal: &Journal) {
        let Some(settings) = self.0.settings() else { return };
        let path = settings.accept.display();
        match event {
            GuardEvent::Recovered => journal
                .log(Level::Notice, format!("the source has everything again, held={before}; nothing was withdrawn")),
            GuardEvent::Began => {
                let (hold, longest) = (settings.hold.as_secs(), settings.longest_hold().as_secs());
                let (lost, advice) = (describe(losses), advise(&settings.accept));
                let text = format!(
                    "the source lacks {lost}; they are served on for {hold} s, or {longest} s at most if the connection is \
                     lost meanwhile, unless they come back; {advice}"
                );
                journal.log(Level::Warn, text);
            }
            GuardEvent::Named { going, held, others } => {
                if !others.is_empty() {
                    let text = format!("{path} names what is not held back: {others}; that stays as it is");
                    journal.log(Level::Warn, text);
                }
                if *going > 0 {
                    let total = going + held;
                    let text = format!(
                        "withdrawing {going} of {total} records that the source lacks: named in {path}; {held} are held on"
                    );
                    journal.log(Level::Warn, text);
                }
            }
            GuardEvent::NotAccepted(error) => {
                journal.log(Level::Warn, format!("{path} accepts nothing: {error}; everything is held on"));
            }
            GuardEvent::Ended(end) => {
                let why = match end {
                    HoldEnd::Accepted => "accepted by the operator".to_owned(),
                    HoldEnd::Lasted => "held long enough".to_owned(),
                    HoldEnd::LastedInAll(time) => {
                        format!("held for {} s in all, connections lost meanwhile included", time.as_secs())
                    }
                };
                let text = format!("withdrawing {} that the source lacks: {why}", describe(losses));
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

/// `90 of 100 tools, 3 of 3 domains`: the kinds of which something is missing.
fn describe(losses: &Losses) -> String {
    let lost = losses.iter().filter(|(_, loss)| loss.missing > 0);
    let lost = lost.map(|(kind, loss)| format!("{} of {} {}", loss.missing, loss.live, kind.plural()));
    lost.collect::<Vec<_>>().join(", ")
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

/// One moment by two clocks.
#[derive(Clone, Copy)]
struct Now {
    instant: Instant,
    /// Since the machine was started: the same for all processes, and cannot be set. Never 0.
    seconds: u64,
}

impl Now {
    fn read() -> Self {
        let seconds = u64::try_from(clock_gettime(ClockId::Monotonic).tv_sec).unwrap_or(0) + 1;
        Self { instant: Instant::now(), seconds }
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

    /// An instant as the header has it.
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
    fn judge(guard: &mut TableGuard, writer: &mut Writer<'_>, missing: u64, live: u64, journal: &Journal) -> Verdict {
        guard.judge(writer, &some(Kind::Tool, missing), [live, 0, 0], journal)
    }

    /// Whether the file is taken for complete, after a moment.
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
    fn the_loss_of_one_kind_holds_everything_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let owned = table(100);
        let mut writer = Writer::attach(owned.table()).0;
        let (journal, reader) = Journal::new(9);
        let lost = |tools, redirects, domains| {
            [some(Kind::Tool, tools), some(Kind::Redirect, redirects), some(Kind::Domain, domains)].concat()
        };
        let guard = || TableGuard::new(settings(dir.path(), Duration::from_secs(60)));
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
    fn advice_that_cannot_work_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("accept");
        let text = "to withdraw them now, or write names into it, one a line, to withdraw those alone";
        assert_eq!(advise(&file), format!("touch {} {text}", file.display()));
        let advice = advise(Path::new("/nonexistent/tools.accept"));
        assert!(advice.starts_with("/nonexistent/tools.accept could accept that, but: No such file"), "{advice}");
    }

    #[test]
    fn a_hold_ends_when_its_time_is_over_and_not_when_some_have_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let owned = table(100);
        let mut writer = Writer::attach(owned.table()).0;
        let (journal, reader) = Journal::new(9);
        let mut guard = TableGuard::new(settings(dir.path(), Duration::from_secs(60)));
        assert_eq!(judge(&mut guard, &mut writer, 90, 100, &journal), Verdict::Hold);
        // A small remainder would not have been held by itself.
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
        assert!(said[0].starts_with("the source lacks 90 of 100 tools; they are served on for 60 s"), "{said:?}");
        assert!(said[1].starts_with("withdrawing 3 of 100 tools"), "{said:?}");
    }

    #[test]
    fn a_lost_connection_begins_the_hold_anew_and_a_recovered_source_ends_it() {
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
        assert_eq!(lines(&reader).last().unwrap(), "the source has everything again, held=90; nothing was withdrawn");
    }

    #[test]
    fn a_hold_that_begins_anew_ends_after_twice_its_time_in_all() {
        let dir = tempfile::tempdir().unwrap();
        let owned = table(100);
        let mut writer = Writer::attach(owned.table()).0;
        let (journal, reader) = Journal::new(9);
        let hold = Duration::from_secs(60);
        let mut guard = TableGuard::new(settings(dir.path(), hold));
        assert_eq!(judge(&mut guard, &mut writer, 90, 100, &journal), Verdict::Hold);
        // Some time ago, and several lost connections and companions since.
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
        // A machine must have run for so long.
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
        let mut guard = TableGuard::new(settings(dir.path(), Duration::from_secs(60)));
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
                    "{path} accepts nothing: file has comments but no names, expected one name per line, or an empty file to \
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
}
