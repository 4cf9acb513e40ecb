//! The companion's main loop: take the writer lock, connect, track, scan, apply pushes; reconnect after any error.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use redis::cmd;

use super::builder::{Builder, Done, Job};
use super::journal::{Journal, Level};
use super::scan::{Changes, Reconciler, ScanError};
use super::snapshot::{self, Age, SnapshotError, SnapshotSettings, SnapshotWriter};
use super::stop::{STOP_CHECK_INTERVAL, StopCheck, pause};
use super::table_guard::TableGuard;
use super::writer_lock::WriterLock;
use crate::backoff::Backoff;
use crate::clock;
use crate::redis_client::{Connection, ConnectionError, RedisUrl, Timeouts};
use crate::registry::{Admission, prefix_of};
use crate::route::Kind;
use crate::table::{Ranking, ResyncCause, Table, Writer};
use crate::withdrawal_guard::GuardSettings;

/// How often an idle connection is pinged.
const PING_INTERVAL: Duration = Duration::from_millis(500);
/// How often to retry the writer lock while another process holds it.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(10);
/// Backoff between connection attempts: the first wait is at most this ...
const FIRST_RETRY: Duration = Duration::from_millis(50);
/// ... and the longest this.
const LONGEST_RETRY: Duration = Duration::from_secs(1);
/// Time budget of the first load for costly patterns; the companion builds the rest.
const FIRST_LOAD_BUILD_BUDGET: Duration = Duration::from_millis(500);
/// How often tools are ranked by their requests.
const RANKING_INTERVAL: Duration = Duration::from_secs(2);
/// The resync interval while routes are held.
const HELD_RESYNC_INTERVAL: Duration = Duration::from_secs(5);

/// Configuration of one companion.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The Redis that holds the routes.
    pub source: RedisUrl,
    /// Longest time between two full scans.
    pub resync_interval: Duration,
    /// Backend addresses that routes may have.
    pub admission: Admission,
    /// The file that keeps routes across restarts.
    pub snapshot: Option<SnapshotSettings>,
    /// When a loss of routes is held.
    pub withdrawal_guard: Option<GuardSettings>,
    /// Most tools and domains with statistics of their own.
    pub metrics_tools: usize,
    /// Whether the table's routes came from another source.
    pub is_new_source: bool,
}

impl Settings {
    /// Defaults for a source: a resync every minute, any backend address, no snapshot, no guard.
    pub fn new(source: RedisUrl) -> Self {
        let resync_interval = Duration::from_secs(60);
        let admission = Admission::default();
        Self {
            source,
            resync_interval,
            admission,
            snapshot: None,
            withdrawal_guard: None,
            metrics_tools: 0,
            is_new_source: false,
        }
    }
}

/// Why a session with the source ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error(transparent)]
    Scan(#[from] ScanError),
}

/// Fills a fresh table: first from the snapshot, then from the source, retrying until `deadline`. Returns whether a scan of
/// the source completed; without one the snapshot's routes, if any, stay.
///
/// Only for a process that is certainly the only writer: the master, before it forks workers.
pub fn load_once(table: Table<'_>, settings: &Settings, deadline: Instant, journal: &Journal) -> bool {
    load_until(table, settings, deadline, journal, &|| false)
}

/// Like [`load_once`]; also gives up once `stop` returns true.
pub fn load_until(
    table: Table<'_>,
    settings: &Settings,
    deadline: Instant,
    journal: &Journal,
    stop: StopCheck<'_>,
) -> bool {
    let begun = Instant::now();
    let expired = || Instant::now() >= deadline || stop();
    let guard = TableGuard::new(settings.withdrawal_guard.clone());
    let mut reconciler = Reconciler::new(Writer::attach(table).0, settings.admission.clone(), guard);
    reconciler.change_log.is_silent = true;
    let restored = settings.snapshot.as_ref().and_then(|snapshot| restore(&mut reconciler, snapshot, journal));
    let mut backoff = Backoff::between(FIRST_RETRY, LONGEST_RETRY);
    let mut reason: Option<SessionError> = None;
    loop {
        let outcome = Connection::open(&settings.source, Timeouts::default(), &expired)
            .map_err(SessionError::from)
            .and_then(|mut connection| {
                compare(&mut reconciler, &mut connection, ResyncCause::Connect, journal)?;
                reconciler.finish_waiting(&mut connection, deadline.min(Instant::now() + FIRST_LOAD_BUILD_BUDGET))?;
                reconciler.writer.note_rejected(reconciler.rejected.count());
                reconciler.rejected.report(journal);
                Ok(reconciler.writer.table().header().live_tools())
            });
        match outcome {
            Ok(tools) => {
                journal.log(Level::Notice, format!("routes loaded, tools={tools} source={}", settings.source));
                return true;
            }
            Err(error) if expired() => {
                // The deadline interrupted this attempt; the error of an earlier one says more.
                let error = match reason.unwrap_or(error) {
                    SessionError::Connection(ConnectionError::Stopped) if stop() => "nginx is shutting down".into(),
                    SessionError::Connection(ConnectionError::Stopped) => {
                        format!("no answer within {:.1} s", begun.elapsed().as_secs_f64())
                    }
                    error => error.to_string(),
                };
                table.notes().set_error(Some(&error));
                table.source().set_connected(false, clock::unix_milliseconds());
                let source = &settings.source;
                let text = match restored {
                    Some(age) => {
                        format!(
                            "loading routes failed: {error}; serving the snapshot, source={source} age={}",
                            Age(age)
                        )
                    }
                    None => format!(
                        "loading routes failed: {error}; the table is incomplete until Redis answers, source={source}"
                    ),
                };
                journal.log(Level::Warn, text);
                return false;
            }
            Err(error) => {
                reason = Some(error);
                pause(backoff.next_delay(), &expired);
            }
        }
    }
}

/// Restores the snapshot's routes; returns the snapshot's age, or `None` if it is unusable.
fn restore(reconciler: &mut Reconciler<'_>, settings: &SnapshotSettings, journal: &Journal) -> Option<Duration> {
    let path = settings.path.display();
    match snapshot::read(settings, reconciler.writer.table()) {
        Ok((snapshot, age)) => {
            let tools = snapshot.restore(&mut reconciler.writer, &reconciler.admission, &mut reconciler.rejected);
            journal.log(Level::Notice, format!("snapshot restored, tools={tools} age={} path={path}", Age(age)));
            Some(age)
        }
        Err(error) => {
            // The first start of all has no snapshot yet.
            let level = if matches!(error, SnapshotError::Missing) { Level::Notice } else { Level::Error };
            journal.log(level, format!("snapshot ignored: {error}, path={path}"));
            None
        }
    }
}

/// Keeps the table in step with the source until `stop` returns true. Waits while another process holds the writer lock.
pub fn run(table: Table<'_>, settings: &Settings, lock: &WriterLock, journal: &Journal, stop: StopCheck<'_>) {
    if !wait_for_lock(lock, journal, stop) {
        return;
    }
    let is_over = AtomicBool::new(false);
    let ends = || stop() || is_over.load(Relaxed);
    std::thread::scope(|scope| {
        let (jobs, queue) = sync_channel(1);
        let (sender, results) = sync_channel(1);
        let build = || {
            let (queue, sender) = (queue, sender);
            Builder::new(&settings.admission, table.record_limit(), &ends).run(&queue, &sender);
        };
        let builder = std::thread::Builder::new().name("urlproxy-build".into()).spawn_scoped(scope, build);
        if let Err(error) = &builder {
            let text =
                format!("cannot start the pattern builder thread: {error}; the companion builds patterns itself");
            journal.log(Level::Error, text);
        }
        let build_queue = builder.is_ok().then_some((jobs, results));
        let snapshot_writer = settings.snapshot.as_ref().and_then(|snapshot| {
            let write = || SnapshotWriter::new(table, snapshot, journal).run(&is_over);
            let thread = std::thread::Builder::new().name("urlproxy-snap".into()).spawn_scoped(scope, write);
            let failed = |error| {
                let text = format!("cannot start the snapshot thread: {error}; no snapshot is written");
                journal.log(Level::Error, text);
            };
            thread.map_err(failed).ok()
        });
        let rank = || rank(table, settings.metrics_tools, &is_over);
        let ranker = std::thread::Builder::new().name("urlproxy-rank".into()).spawn_scoped(scope, rank);
        let failed = |error| {
            journal.log(Level::Error, format!("cannot start the statistics thread: {error}; no tool has metrics"));
        };
        let ranker = ranker.map_err(failed).ok();
        let outcome = catch_unwind(AssertUnwindSafe(|| follow_source(table, settings, journal, stop, build_queue)));
        // Before the last snapshot: the next companion need not wait for the disk.
        if let Err(error) = lock.release() {
            let text = format!(
                "cannot release the writer lock: {error}; after a reload, routes are not updated until this worker exits"
            );
            journal.log(Level::Error, text);
        }
        is_over.store(true, Relaxed);
        [snapshot_writer, ranker].into_iter().flatten().for_each(|thread| thread.thread().unpark());
        outcome.unwrap_or_else(|panic| resume_unwind(panic));
    });
}

/// Ranks tools by their requests until `is_over`.
fn rank(table: Table<'_>, limit: usize, is_over: &AtomicBool) {
    let mut ranking = Ranking::new(table, limit);
    let mut ranked_at = Instant::now();
    while !is_over.load(Relaxed) {
        std::thread::park_timeout(RANKING_INTERVAL.saturating_sub(ranked_at.elapsed()));
        if ranked_at.elapsed() >= RANKING_INTERVAL {
            ranking.update(ranked_at.elapsed());
            ranked_at = Instant::now();
        }
    }
}

/// Connects, follows the source and reconnects until `stop`; the caller holds the writer lock.
fn follow_source(
    table: Table<'_>,
    settings: &Settings,
    journal: &Journal,
    stop: StopCheck<'_>,
    builder: Option<(SyncSender<Job>, Receiver<Done>)>,
) {
    let (writer, found) = Writer::attach(table);
    journal.log(
        Level::Notice,
        format!("companion started; following routes, source={} tools={}", settings.source, found.tools),
    );
    if found.damaged > 0 {
        journal.log(
            Level::Error,
            format!("damaged slots cleared; the next scan restores their routes, slots={}", found.damaged),
        );
    }
    table.questions().reset(clock::unix_milliseconds());
    let guard = TableGuard::new(settings.withdrawal_guard.clone());
    let mut reconciler = Reconciler::new(writer, settings.admission.clone(), guard);
    if let Some((jobs, results)) = builder {
        reconciler.build_queue.set_builder(jobs, results);
    }
    if settings.is_new_source {
        reconciler.guard.restart(&mut reconciler.writer, journal);
    }
    reconciler.change_log.is_silent = !table.header().is_loaded();
    let mut backoff = Backoff::between(FIRST_RETRY, LONGEST_RETRY);
    let mut outage = Outage::default();
    while !stop() {
        let error = match session(&mut reconciler, settings, journal, stop, &mut || {
            backoff.reset();
            outage.end(journal, &settings.source);
            table.source().set_connected(true, clock::unix_milliseconds());
            table.notes().set_error(None);
        }) {
            Ok(()) => break,
            Err(_) if stop() => break,
            Err(error) => error,
        };
        outage.note(journal, &settings.source, &error);
        table.source().set_connected(false, clock::unix_milliseconds());
        table.source().note_failure();
        table.notes().set_error(Some(&error.to_string()));
        reconciler.guard.restart(&mut reconciler.writer, journal);
        pause(backoff.next_delay(), stop);
    }
}

fn wait_for_lock(lock: &WriterLock, journal: &Journal, stop: StopCheck<'_>) -> bool {
    let mut is_logged = false;
    while !stop() {
        match lock.try_acquire() {
            Ok(true) => return true,
            Ok(false) => {}
            Err(error) if is_logged => drop(error),
            Err(error) => {
                journal.log(Level::Error, format!("cannot take the writer lock: {error}; retrying"));
                is_logged = true;
            }
        }
        std::thread::sleep(LOCK_RETRY_INTERVAL);
    }
    false
}

/// Follows the source over one connection until `stop`. Calls `ready` when the first scan is done.
fn session(
    reconciler: &mut Reconciler<'_>,
    settings: &Settings,
    journal: &Journal,
    stop: StopCheck<'_>,
    ready: &mut dyn FnMut(),
) -> Result<(), SessionError> {
    let mut connection = Connection::open(&settings.source, Timeouts::default(), stop)?;
    // Before the scan, so that changes during the scan arrive as pushes.
    track(&mut connection)?;
    reconciler.build_queue.restart();
    reconciler.is_in_step = false;
    let changes = compare(reconciler, &mut connection, ResyncCause::Connect, journal)?;
    reconciler.change_log.is_silent = false;
    ready();
    journal.log(Level::Info, format!("in step, {} source={}", describe(changes), settings.source));
    let next = |changes: Changes| {
        let wait = match changes {
            Changes { is_flushed: true, .. } => Duration::ZERO,
            // Held routes that return arrive as pushes; a resync updates the number of those still held.
            Changes { held: 1.., .. } => settings.resync_interval.min(HELD_RESYNC_INTERVAL),
            _ => spread(settings.resync_interval, fastrand::f64()),
        };
        Instant::now() + wait
    };
    let mut resync_at = next(changes);
    let mut is_flushed = changes.is_flushed;
    let mut ping_at = Instant::now() + PING_INTERVAL;
    // The source has answered a ping, but pushes that came before the answer are not applied yet.
    let mut is_ping_answered = false;
    while !stop() {
        let now = Instant::now();
        let is_hold_over = reconciler.guard.is_over(&reconciler.writer);
        if now >= resync_at || is_hold_over {
            let cause = match () {
                () if is_hold_over => ResyncCause::Guard,
                () if is_flushed => ResyncCause::Flush,
                () => ResyncCause::Interval,
            };
            let changes = compare(reconciler, &mut connection, cause, journal)?;
            journal.log(Level::Info, format!("resync done, {}", describe(changes)));
            resync_at = next(changes);
            is_flushed = changes.is_flushed;
        }
        if now >= ping_at {
            connection.ping()?;
            is_ping_answered = true;
            ping_at = Instant::now() + PING_INTERVAL;
        }
        let next_poll = reconciler.build_queue.next_poll(now).unwrap_or(resync_at);
        connection.wait_push((now + STOP_CHECK_INTERVAL).min(ping_at).min(resync_at).min(next_poll))?;
        reconciler.pushed_at = Instant::now();
        if !follow(reconciler, &mut connection, journal)? {
            resync_at = Instant::now();
            is_flushed = true;
        } else if std::mem::take(&mut is_ping_answered) {
            reconciler.note_in_step();
        }
        reconciler.answer_questions(&mut connection)?;
        reconciler.try_oversized(&settings.source, stop, journal);
    }
    Ok(())
}

/// A time from three quarters of the interval to all of it, by a number from 0 to 1: proxies that start together, or lose their
/// connections together, do not compare everything together for ever.
fn spread(interval: Duration, random: f64) -> Duration {
    interval.mul_f64(0.75 + random / 4.0)
}

fn track(connection: &mut Connection<'_>) -> Result<(), SessionError> {
    let mut command = cmd("CLIENT");
    command.arg("TRACKING").arg("ON").arg("BCAST");
    Kind::ALL.map(prefix_of).iter().for_each(|prefix| _ = command.arg("PREFIX").arg(prefix));
    Ok(connection.ask(&command.get_packed_command(), |_| ())?)
}

/// Runs a full scan and records it in the table's header.
fn compare(
    reconciler: &mut Reconciler<'_>,
    connection: &mut Connection<'_>,
    cause: ResyncCause,
    journal: &Journal,
) -> Result<Changes, SessionError> {
    connection.check_role()?;
    let changes = reconciler.scan(connection, journal)?;
    reconciler.is_in_step = !changes.is_flushed;
    reconciler.writer.mark_synced(clock::unix_seconds(), reconciler.rejected.count(), &reconciler.known());
    reconciler.rejected.report(journal);
    let table = reconciler.writer.table();
    reconciler.rejected.show(table);
    table.source().note_resync(cause, clock::unix_milliseconds());
    Ok(changes)
}

/// Applies received pushes; `false` when a flush requires a full scan.
fn follow(
    reconciler: &mut Reconciler<'_>,
    connection: &mut Connection<'_>,
    journal: &Journal,
) -> Result<bool, SessionError> {
    let is_complete = reconciler.catch_up(connection)?;
    reconciler.writer.note_rejected(reconciler.rejected.count());
    reconciler.rejected.report(journal);
    reconciler.rejected.show(reconciler.writer.table());
    reconciler.change_log.flush(&mut reconciler.writer);
    Ok(is_complete)
}

fn describe(changes: Changes) -> String {
    let Changes { tools, inserted, replaced, withdrawn, held, .. } = changes;
    format!("tools={tools} inserted={inserted} replaced={replaced} withdrawn={withdrawn} held={held}")
}

/// Logs the beginning and the end of an outage; errors in between are details (level info).
#[derive(Default)]
struct Outage {
    since: Option<Instant>,
    attempts: u32,
}

impl Outage {
    fn note(&mut self, journal: &Journal, source: &RedisUrl, error: &SessionError) {
        let level = if self.since.is_none() { Level::Warn } else { Level::Info };
        self.since.get_or_insert_with(Instant::now);
        self.attempts += 1;
        journal.log(level, format!("following routes failed: {error}; keeping existing routes, source={source}"));
    }

    fn end(&mut self, journal: &Journal, source: &RedisUrl) {
        if let Some(since) = self.since.take() {
            let (seconds, attempts) = (since.elapsed().as_secs_f32(), self.attempts);
            journal
                .log(Level::Notice, format!("in step again after {seconds:.1} s, attempts={attempts} source={source}"));
            self.attempts = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resyncs_are_spread_over_the_last_quarter_of_the_interval() {
        let minute = Duration::from_secs(60);
        assert_eq!([0.0, 0.5, 1.0].map(|random| spread(minute, random).as_millis()), [45_000, 52_500, 60_000]);
    }
}
