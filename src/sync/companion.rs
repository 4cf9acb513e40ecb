//! The companion's life: take the lease, connect, track, scan, follow; on any doubt drop the connection and begin again.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use redis::cmd;

use super::builder::{Builder, Done, Job};
use super::journal::{Journal, Level};
use super::lease::Lease;
use super::scan::{Changes, Follower, ScanError};
use super::snapshot::{self, Age, SnapshotError, SnapshotSettings};
use super::stop::{STEP, Stop, pause};
use super::table_guard::TableGuard;
use crate::backoff::Backoff;
use crate::clock;
use crate::redis_client::{Connection, ConnectionError, RedisUrl, Timeouts};
use crate::registry::{Admission, prefix_of};
use crate::route::Kind;
use crate::table::{Table, Writer};
use crate::withdrawal_guard::GuardSettings;

/// How often an idle connection is asked whether it lives.
const PING_INTERVAL: Duration = Duration::from_millis(500);
/// How often the lease is asked for while another process has it.
const LEASE_STEP: Duration = Duration::from_millis(10);
/// Between attempts at the source: the first wait is at most this ...
const FIRST_RETRY: Duration = Duration::from_millis(50);
/// ... and none is longer than this.
const LONGEST_RETRY: Duration = Duration::from_secs(1);
/// How long the first load may take over patterns that are costly to build; the companion builds the others.
const FIRST_BUILDS: Duration = Duration::from_millis(500);
/// How often the source is compared while a withdrawal is held back.
const WHILE_HELD: Duration = Duration::from_secs(5);

/// What the companion is to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the routes are.
    pub source: RedisUrl,
    /// A full comparison at least this often, whatever the pushes said.
    pub resync_interval: Duration,
    /// Which destinations are let through.
    pub admission: Admission,
    /// Where the routes are kept over a restart, if anywhere.
    pub snapshot: Option<SnapshotSettings>,
    /// When a comparison is not believed at once.
    pub withdrawal_guard: Option<GuardSettings>,
    /// Whether what is in the table came from another source.
    pub is_new_source: bool,
}

impl Settings {
    /// A source, compared every minute; any destination, no snapshot, no guard.
    pub fn new(source: RedisUrl) -> Self {
        let resync_interval = Duration::from_secs(60);
        let admission = Admission::default();
        Self { source, resync_interval, admission, snapshot: None, withdrawal_guard: None, is_new_source: false }
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

/// Fills a fresh table: from the snapshot, then from the source, trying until `deadline`. `true` when it could be compared
/// with the source; if not, it is loaded all the same when there was a snapshot.
///
/// For the one process that can be the only writer: the master, before it has workers.
pub fn load_once(table: Table<'_>, settings: &Settings, deadline: Instant, journal: &Journal) -> bool {
    load_unless(table, settings, deadline, journal, &|| false)
}

/// The same, trying only until `stop` says so.
pub fn load_unless(
    table: Table<'_>,
    settings: &Settings,
    deadline: Instant,
    journal: &Journal,
    stop: Stop<'_>,
) -> bool {
    let begun = Instant::now();
    let expired = || Instant::now() >= deadline || stop();
    let guard = TableGuard::new(settings.withdrawal_guard.clone());
    let mut follower = Follower::new(Writer::attach(table).0, settings.admission.clone(), guard);
    let restored = settings.snapshot.as_ref().and_then(|snapshot| restore(&mut follower, snapshot, journal));
    let mut backoff = Backoff::between(FIRST_RETRY, LONGEST_RETRY);
    let mut reason: Option<SessionError> = None;
    loop {
        let outcome = Connection::open(&settings.source, Timeouts::default(), &expired)
            .map_err(SessionError::from)
            .and_then(|mut connection| {
                compare(&mut follower, &mut connection, journal)?;
                follower.finish_waiting(&mut connection, deadline.min(Instant::now() + FIRST_BUILDS))?;
                follower.writer.note_rejected(follower.rejected.count());
                follower.rejected.report(journal);
                Ok(follower.writer.table().header().live_tools())
            });
        match outcome {
            Ok(tools) => {
                journal.log(Level::Notice, format!("routes loaded, tools={tools} source={}", settings.source));
                return true;
            }
            Err(error) if expired() => {
                // The deadline broke this attempt off; an earlier one may know more.
                let error = match reason.unwrap_or(error) {
                    SessionError::Connection(ConnectionError::Stopped) if stop() => "nginx is to end".into(),
                    SessionError::Connection(ConnectionError::Stopped) => {
                        format!("no answer within {:.1} s", begun.elapsed().as_secs_f64())
                    }
                    error => error.to_string(),
                };
                let meanwhile = match restored {
                    Some(age) => format!("; serving those of the snapshot, age={}", Age(age)),
                    None => String::new(),
                };
                journal
                    .log(Level::Warn, format!("{error} while loading routes, source={}{meanwhile}", settings.source));
                return false;
            }
            Err(error) => {
                reason = Some(error);
                pause(backoff.next_delay(), &expired);
            }
        }
    }
}

/// Puts the snapshot's routes into the table, if it is good; returns its age.
fn restore(follower: &mut Follower<'_>, settings: &SnapshotSettings, journal: &Journal) -> Option<Duration> {
    let path = settings.path.display();
    match snapshot::read(settings, follower.writer.table()) {
        Ok((snapshot, age)) => {
            let tools = snapshot.restore(&mut follower.writer, &follower.admission, &mut follower.rejected);
            journal.log(Level::Notice, format!("snapshot read, tools={tools} age={} path={path}", Age(age)));
            Some(age)
        }
        Err(error) => {
            // At the very first start there is none.
            let level = if matches!(error, SnapshotError::Missing) { Level::Notice } else { Level::Error };
            journal.log(level, format!("snapshot not used: {error}, path={path}"));
            None
        }
    }
}

/// Keeps the table in step with the source until `stop` says so. Does nothing while another process has the lease.
pub fn run(table: Table<'_>, settings: &Settings, lease: &Lease, journal: &Journal, stop: Stop<'_>) {
    if !wait_for_lease(lease, journal, stop) {
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
            journal.log(Level::Error, format!("{error} while starting to build patterns; the companion builds them"));
        }
        let lane = builder.is_ok().then_some((jobs, results));
        let keeper = settings.snapshot.as_ref().and_then(|snapshot| {
            let keep = || snapshot::keep(table, snapshot, journal, &is_over);
            let thread = std::thread::Builder::new().name("urlproxy-snap".into()).spawn_scoped(scope, keep);
            let failed = |error| journal.log(Level::Error, format!("{error} while starting to keep the snapshot"));
            thread.map_err(failed).ok()
        });
        let outcome = catch_unwind(AssertUnwindSafe(|| follow_source(table, settings, journal, stop, lane)));
        // Before the last snapshot: whoever comes next need not wait for a disk.
        if let Err(error) = lease.release() {
            journal.log(Level::Error, format!("{error} while releasing the writer lease"));
        }
        is_over.store(true, Relaxed);
        keeper.inspect(|keeper| keeper.thread().unpark());
        outcome.unwrap_or_else(|panic| resume_unwind(panic));
    });
}

/// The holder of the lease at work.
fn follow_source(
    table: Table<'_>,
    settings: &Settings,
    journal: &Journal,
    stop: Stop<'_>,
    builder: Option<(SyncSender<Job>, Receiver<Done>)>,
) {
    let (writer, found) = Writer::attach(table);
    journal.log(Level::Notice, format!("following {}, tools={}", settings.source, found.tools));
    if found.damaged > 0 {
        journal.log(Level::Error, format!("{} damaged slots were emptied", found.damaged));
    }
    let guard = TableGuard::new(settings.withdrawal_guard.clone());
    let mut follower = Follower::new(writer, settings.admission.clone(), guard);
    if let Some((jobs, results)) = builder {
        follower.lane.set_builder(jobs, results);
    }
    if settings.is_new_source {
        follower.guard.restart(&mut follower.writer, journal);
    }
    let mut backoff = Backoff::between(FIRST_RETRY, LONGEST_RETRY);
    let mut outage = Outage::default();
    while !stop() {
        let error = match session(&mut follower, settings, journal, stop, &mut || {
            backoff.reset();
            outage.end(journal, &settings.source);
        }) {
            Ok(()) => break,
            Err(_) if stop() => break,
            Err(error) => error,
        };
        outage.note(journal, &settings.source, &error);
        follower.guard.restart(&mut follower.writer, journal);
        pause(backoff.next_delay(), stop);
    }
}

fn wait_for_lease(lease: &Lease, journal: &Journal, stop: Stop<'_>) -> bool {
    let mut said = false;
    while !stop() {
        match lease.try_acquire() {
            Ok(true) => return true,
            Ok(false) => {}
            Err(error) if said => drop(error),
            Err(error) => {
                journal.log(Level::Error, format!("{error} while taking the writer lease"));
                said = true;
            }
        }
        std::thread::sleep(LEASE_STEP);
    }
    false
}

/// One connection's life. Returns when asked to stop; `ready` is called once the table is in step.
fn session(
    follower: &mut Follower<'_>,
    settings: &Settings,
    journal: &Journal,
    stop: Stop<'_>,
    ready: &mut dyn FnMut(),
) -> Result<(), SessionError> {
    let mut connection = Connection::open(&settings.source, Timeouts::default(), stop)?;
    // Before the scan: what changes during it must not be missed.
    track(&mut connection)?;
    follower.lane.restart();
    follower.is_in_step = false;
    let changes = compare(follower, &mut connection, journal)?;
    ready();
    journal.log(Level::Info, format!("{} source={}", describe(changes), settings.source));
    let next = |changes: Changes| {
        let wait = match changes {
            Changes { is_flushed: true, .. } => Duration::ZERO,
            // What comes back meanwhile comes as pushes; this tells how much is still held.
            Changes { held: 1.., .. } => settings.resync_interval.min(WHILE_HELD),
            _ => settings.resync_interval,
        };
        Instant::now() + wait
    };
    let mut resync_at = next(changes);
    let mut ping_at = Instant::now() + PING_INTERVAL;
    // Since the last beat the source has answered; what it had pushed before is not applied yet.
    let mut is_beating = false;
    while !stop() {
        let now = Instant::now();
        if now >= resync_at || follower.guard.is_over(&follower.writer) {
            let changes = compare(follower, &mut connection, journal)?;
            journal.log(Level::Info, format!("{} at the regular comparison", describe(changes)));
            resync_at = next(changes);
        }
        if now >= ping_at {
            connection.ping()?;
            is_beating = true;
            ping_at = Instant::now() + PING_INTERVAL;
        }
        let look_at = follower.lane.look_at(now).unwrap_or(resync_at);
        connection.wait_push((now + STEP).min(ping_at).min(resync_at).min(look_at))?;
        if !follow(follower, &mut connection, journal)? {
            resync_at = Instant::now();
        } else if std::mem::take(&mut is_beating) {
            follower.note_in_step();
        }
        follower.try_oversized(&settings.source, stop, journal);
    }
    Ok(())
}

fn track(connection: &mut Connection<'_>) -> Result<(), SessionError> {
    let mut command = cmd("CLIENT");
    command.arg("TRACKING").arg("ON").arg("BCAST");
    Kind::ALL.map(prefix_of).iter().for_each(|prefix| _ = command.arg("PREFIX").arg(prefix));
    Ok(connection.ask(&command.get_packed_command(), |_| ())?)
}

/// A full comparison, booked in the table's header.
fn compare(
    follower: &mut Follower<'_>,
    connection: &mut Connection<'_>,
    journal: &Journal,
) -> Result<Changes, SessionError> {
    connection.check_role()?;
    let changes = follower.scan(connection, journal)?;
    follower.is_in_step = !changes.is_flushed;
    follower.writer.mark_synced(clock::unix_seconds(), follower.rejected.count(), &follower.known());
    follower.rejected.report(journal);
    Ok(changes)
}

/// Applies the pushes that have come; `false` when one of them asks for a full comparison.
fn follow(
    follower: &mut Follower<'_>,
    connection: &mut Connection<'_>,
    journal: &Journal,
) -> Result<bool, SessionError> {
    let is_whole = follower.catch_up(connection)?;
    follower.writer.note_rejected(follower.rejected.count());
    follower.rejected.report(journal);
    Ok(is_whole)
}

fn describe(changes: Changes) -> String {
    let Changes { tools, inserted, replaced, withdrawn, held, .. } = changes;
    format!("in step, tools={tools} inserted={inserted} replaced={replaced} withdrawn={withdrawn} held={held}")
}

/// One line when an outage begins, one when it ends; what comes between is detail.
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
        journal.log(level, format!("{error} while following routes, source={source}; the table serves on"));
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
