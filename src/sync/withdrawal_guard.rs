//! Holds back a comparison that would withdraw a large part of all tools, redirects or domains: an emptied store looks the same as a large change.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::SystemTime;

use rustix::time::{ClockId, clock_gettime};

use super::journal::{Journal, Level};
use crate::registry::{GuardSettings, touched_at};
use crate::route::Kind;
use crate::table::Writer;

/// What a comparison would take away of one kind: of the `live` records that were in the table before it the source lacks
/// `missing`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loss {
    pub kind: Kind,
    pub missing: u64,
    pub live: u64,
}

/// What is to be done with what the source no longer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Withdraw,
    Hold,
}

/// The state of a hold is in the table's header, where the next companion finds it; here is only what can be lost.
#[derive(Debug)]
pub(super) struct WithdrawalGuard {
    settings: Option<GuardSettings>,
    /// When the file was last touched before the hold began.
    touched_before: Option<SystemTime>,
}

impl WithdrawalGuard {
    /// A guard with these settings; without any it lets everything through.
    pub fn new(settings: Option<GuardSettings>) -> Self {
        let touched_before = settings.as_ref().and_then(|settings| touched_at(&settings.accept));
        Self { settings, touched_before }
    }

    /// Judges the outcome of one comparison. A mass withdrawal of one kind, or of all together, holds back everything.
    pub fn judge(&mut self, writer: &mut Writer<'_>, losses: &[Loss], journal: &Journal) -> Verdict {
        let missing: u64 = losses.iter().map(|loss| loss.missing).sum();
        let all = Loss { kind: Kind::Tool, missing, live: losses.iter().map(|loss| loss.live).sum() };
        let header = writer.table().header();
        let (held, since) = (header.held(), header.held_since());
        let Some(settings) = &self.settings else {
            if held > 0 {
                writer.note_held(0, None);
            }
            return Verdict::Withdraw;
        };
        let is_mass =
            losses.iter().chain([&all]).any(|loss| loss.missing > 0 && settings.is_mass(loss.missing, loss.live));
        if missing == 0 || held == 0 && !is_mass {
            if held > 0 {
                journal
                    .log(Level::Notice, format!("the source has everything again, held={held}; nothing was withdrawn"));
                writer.note_held(0, None);
            }
            return Verdict::Withdraw;
        }
        let now = monotonic_seconds();
        if held == 0 {
            self.touched_before = touched_at(&settings.accept);
            let seconds = settings.hold.as_secs();
            let advice = advise(&settings.accept);
            journal.log(
                Level::Warn,
                format!(
                    "the source lacks {}; they are served on for {seconds} s unless they come back, \
                     {advice}",
                    describe(losses)
                ),
            );
        }
        let since = since.unwrap_or(now);
        let outcome = if self.is_accepted() {
            "accepted by the operator"
        } else if now.saturating_sub(since) >= settings.hold.as_secs() {
            "held long enough"
        } else {
            writer.note_held(missing, Some(since));
            return Verdict::Hold;
        };
        journal.log(Level::Warn, format!("withdrawing {} that the source lacks: {outcome}", describe(losses)));
        writer.note_held(0, None);
        Verdict::Withdraw
    }

    /// Whether a hold has come to its end, so that a comparison should not wait.
    pub fn is_over(&self, writer: &Writer<'_>) -> bool {
        let header = writer.table().header();
        let Some(settings) = self.settings.as_ref().filter(|_| header.held() > 0) else { return false };
        let expired = |since: u64| monotonic_seconds().saturating_sub(since) >= settings.hold.as_secs();
        header.held_since().is_some_and(expired) || self.is_accepted()
    }

    /// The connection was lost, or the source is another: what was said before counts no more, the hold begins anew.
    pub fn restart(&self, writer: &mut Writer<'_>, journal: &Journal) {
        let header = writer.table().header();
        if header.held_since().is_some() {
            let held = header.held();
            journal.log(Level::Notice, format!("the time for which {held} withdrawals are held begins anew"));
            writer.note_held(held, None);
        }
    }

    fn is_accepted(&self) -> bool {
        let touched = self.settings.as_ref().and_then(|settings| touched_at(&settings.accept));
        touched.is_some() && touched != self.touched_before
    }
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
    match fs::metadata(directory).and_then(|_| fs::symlink_metadata(accept).map(drop)) {
        Err(error) if error.kind() == ErrorKind::NotFound && directory.is_dir() => {
            format!("touch {shown} to withdraw them now")
        }
        Err(error) => format!("{shown} could accept that, but: {error} for the workers' user"),
        Ok(()) => format!("touch {shown} to withdraw them now"),
    }
}

/// Seconds since the machine was started: the same clock for all processes, and nobody sets it. Never 0.
fn monotonic_seconds() -> u64 {
    u64::try_from(clock_gettime(ClockId::Monotonic).tv_sec).unwrap_or(0) + 1
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::route::{Pattern, Route, RouteKey};
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

    fn tools(missing: u64, live: u64) -> [Loss; 1] {
        [Loss { kind: Kind::Tool, missing, live }]
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
            assert_eq!(guard.judge(&mut writer, &tools(missing, live), &journal), want, "{missing} of {live}");
            assert_eq!(owned.table().header().held(), if want == Verdict::Hold { missing } else { 0 });
            let mut off = WithdrawalGuard::new(None);
            assert_eq!(off.judge(&mut writer, &tools(missing, live), &journal), Verdict::Withdraw);
            assert_eq!(owned.table().header().held(), 0, "no guard, no hold");
        }
    }

    #[test]
    fn the_loss_of_one_kind_holds_everything_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let owned = table(100);
        let mut writer = Writer::attach(owned.table()).0;
        let (journal, reader) = Journal::new(9);
        let loss = |kind, missing, live| Loss { kind, missing, live };
        let (few, many) = (loss(Kind::Tool, 1, 1000), loss(Kind::Domain, 21, 40));
        let guard = || WithdrawalGuard::new(settings(dir.path(), Duration::from_secs(60)));
        assert_eq!(guard().judge(&mut writer, &[few, loss(Kind::Domain, 20, 40)], &journal), Verdict::Withdraw);
        // Neither is large enough by itself.
        let halves = [loss(Kind::Tool, 15, 15), loss(Kind::Redirect, 15, 15)];
        assert_eq!(guard().judge(&mut writer, &halves, &journal), Verdict::Hold);
        writer.note_held(0, None);
        assert_eq!(guard().judge(&mut writer, &[few, many], &journal), Verdict::Hold);
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
        assert_eq!(guard.judge(&mut writer, &tools(99, 100), &journal), Verdict::Withdraw);
        assert_eq!(guard.judge(&mut writer, &tools(100, 100), &journal), Verdict::Hold);
        assert!(lines(&reader)[0].ends_with(&format!("touch {}/accept to withdraw them now", dir.path().display())));
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
        assert_eq!(guard.judge(&mut writer, &tools(90, 100), &journal), Verdict::Hold);
        // A small remainder would not have been held by itself.
        assert_eq!(guard.judge(&mut writer, &tools(3, 100), &journal), Verdict::Hold);
        assert!(!guard.is_over(&writer));
        let since = owned.table().header().held_since().unwrap();
        // Another companion, later.
        writer.note_held(3, Some(since.saturating_sub(60).max(1)));
        let mut guard = WithdrawalGuard::new(settings(dir.path(), Duration::from_secs(60)));
        assert!(guard.is_over(&writer) || since < 60);
        assert_eq!(guard.judge(&mut writer, &tools(3, 100), &journal), Verdict::Withdraw);
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
        guard.judge(&mut writer, &tools(90, 100), &journal);
        writer.note_held(90, Some(1));
        guard.restart(&mut writer, &journal);
        assert_eq!(guard.judge(&mut writer, &tools(90, 100), &journal), Verdict::Hold);
        assert_eq!(guard.judge(&mut writer, &tools(0, 100), &journal), Verdict::Withdraw);
        assert_eq!(owned.table().header().held(), 0);
        assert_eq!(lines(&reader).last().unwrap(), "the source has everything again, held=90; nothing was withdrawn");
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
        assert_eq!(guard.judge(&mut writer, &tools(90, 100), &journal), Verdict::Hold);
        assert!(!guard.is_over(&writer));
        let later = SystemTime::now() + Duration::from_secs(3);
        fs::File::options().write(true).open(&accept).unwrap().set_modified(later).unwrap();
        assert!(guard.is_over(&writer));
        assert_eq!(guard.judge(&mut writer, &tools(90, 100), &journal), Verdict::Withdraw);
        assert_eq!(guard.judge(&mut writer, &tools(90, 100), &journal), Verdict::Hold, "the next one is held again");
    }
}
