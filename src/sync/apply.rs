//! Turns a key's value into its record: at once if that is cheap, else through the build queue.

use std::time::{Duration, Instant};

use super::build_queue::Turn;
use super::builder::{Builder, Job, Known, Value, cpu_time};
use super::prepare::{Prepared, prepare};
use super::rejected::{rejection, table_full};
use super::scan::{Reconciler, ScanError};
use crate::redis_client::Connection;
use crate::registry::{RawRoutes, Rejection, RejectionReason, parse_key};
use crate::route::{Automata, Kind, RouteKey};
use crate::table::{ChangeKind, PublishError, Published};

/// Larger values go through the build queue.
const QUICK_FIELDS: usize = 64;
const QUICK_BYTES: usize = 4 << 10;
/// An unchanged value that cost more than this, or has rejected routes, is not parsed again.
const CHEAP: Duration = Duration::from_micros(100);

impl Reconciler<'_> {
    /// Publishes a key's value as its record, or enqueues the key.
    pub(super) fn publish(&mut self, key: &[u8], record: &RouteKey, raw: &RawRoutes<'_>) {
        let (fields, bytes, is_plain) = weigh(raw);
        if is_plain {
            let prepared = prepare((key, record), raw, &self.admission, self.share(), &mut |_, _| None);
            return prepared.map_or((), |prepared| self.put_now(key, record, prepared));
        }
        let digest = self.digests.digest(raw);
        if !self.is_turn && self.is_unchanged(key, record, digest) {
            return;
        }
        if !self.is_turn && (fields > QUICK_FIELDS || bytes > QUICK_BYTES) {
            return self.wait(key, !self.is_comparing);
        }
        let begun = cpu_time();
        let known = self.writer.record(record.as_bytes()).map(|record| Known::of(&record)).unwrap_or_default();
        if self.is_turn {
            return self.submit(Job { key: key.to_vec(), record: record.clone(), value: Value::of(raw), known });
        }
        let mut build =
            |texts: &[&str], bytes| known.automata(texts, bytes).or_else(|| Automata::build_quickly(texts, bytes));
        let prepared = prepare((key, record), raw, &self.admission, self.share(), &mut build);
        let cost = cpu_time().saturating_sub(begun);
        self.build_queue.charge(key, cost, false);
        match prepared {
            Some(prepared) => {
                let is_worth_caching = cost > CHEAP || !prepared.rejected.is_empty();
                self.put_now(key, record, prepared);
                if is_worth_caching {
                    self.remember(key, record, digest);
                }
            }
            None => self.wait(key, !self.is_comparing),
        }
    }

    /// Most bytes that one record may take.
    fn share(&self) -> usize {
        self.writer.table().record_limit()
    }

    /// Whether the value is the one parsed last, and its record is still in the table; marks the record as seen.
    fn is_unchanged(&mut self, key: &[u8], record: &RouteKey, digest: u64) -> bool {
        let Some(has_record) = self.digests.has_record(key, digest) else { return false };
        let is_same = self.writer.confirm(record.as_bytes()) == has_record;
        if is_same {
            self.build_queue.forget(key);
            self.found_keys.insert(key.into());
        }
        is_same
    }

    fn remember(&mut self, key: &[u8], record: &RouteKey, digest: u64) {
        // Keys that found the table full are retried.
        if !self.deferred.contains(key) {
            let has_record = self.writer.confirm(record.as_bytes());
            self.digests.note(key, digest, has_record);
        }
    }

    /// Enqueues the key. Until its turn it keeps its record, or gets an empty one: requests for a tool that is being built
    /// receive 503 with `Retry-After` instead of a miss.
    pub(super) fn wait(&mut self, key: &[u8], is_changed: bool) {
        self.found_keys.insert(key.into());
        if !self.build_queue.enqueue(key, is_changed, Instant::now()) && is_changed {
            return self.withdraw(key, vec![rejection(key, RejectionReason::Waiting)]);
        }
        if let Some(Ok(record)) = parse_key(key)
            && !self.writer.confirm(record.as_bytes())
            // A value that gave no record gives none again unless it changes.
            && (is_changed || !self.rejected.contains(key))
        {
            self.empty(&record);
        }
    }

    /// Publishes an empty record: the key is known but has no routes. Returns whether this changed anything.
    fn empty(&mut self, record: &RouteKey) -> bool {
        let is_changed = matches!(self.writer.publish(record, &[]), Ok(Published::Inserted | Published::Replaced));
        if is_changed {
            self.change_log.note(self.writer.table(), record, ChangeKind::Changed, &[]);
        }
        is_changed
    }

    /// Whether a scan must enqueue the key instead of fetching it; enqueues it then.
    pub(super) fn is_slow(&mut self, key: &[u8]) -> bool {
        let is_slow = self.build_queue.must_wait(key, Instant::now());
        if is_slow {
            self.wait(key, false);
        }
        is_slow
    }

    /// Hands the value to the builder thread; without one (during the first load, or if the thread could not start) builds it here.
    fn submit(&mut self, job: Job) {
        if let Err(job) = self.build_queue.submit(job) {
            let admission = self.admission.clone();
            let done = Builder::new(&admission, self.share(), &|| false).work(job);
            self.build_queue.charge(&done.job.key, done.cost, true);
            self.finish(&done.job, done.prepared);
        }
    }

    /// Publishes the builder's result.
    fn finish(&mut self, job: &Job, prepared: Option<Prepared>) {
        let digest = self.digests.digest(&job.value.as_raw());
        let prepared = prepared.unwrap_or_else(|| Prepared {
            rejected: vec![rejection(&job.key, RejectionReason::Unreadable)],
            ..Prepared::default()
        });
        self.put(&job.key, &job.record, prepared);
        self.remember(&job.key, &job.record, digest);
        if let Some(changed) = self.build_queue.turn_changed() {
            self.note_propagated(1, changed.elapsed());
        }
    }

    /// Publishes finished builds, retries deferred keys, empties overdue records and starts the next build.
    pub(super) fn run_build_queue(&mut self, connection: &mut Connection<'_>) -> Result<(), ScanError> {
        while let Some(done) = self.build_queue.take_done() {
            self.finish(&done.job, done.prepared);
        }
        let now = Instant::now();
        for key in self.build_queue.overdue(now) {
            // The old backend's address may belong to another tenant by now.
            if let Some(Ok(record)) = parse_key(&key)
                && self.empty(&record)
            {
                self.changes.replaced += 1;
                self.digests.forget(&key);
                self.note_rejections(&key, vec![rejection(&key, RejectionReason::Waiting)]);
            }
        }
        if let Some(turn) = self.build_queue.next(now) {
            self.take_turn(connection, &turn)?;
        }
        let wanting = self.deferred.take(now);
        if !wanting.is_empty() {
            self.fetch(connection, &wanting)?;
        }
        Ok(())
    }

    /// Fetches the value of a key whose turn has come.
    fn take_turn(&mut self, connection: &mut Connection<'_>, turn: &Turn) -> Result<(), ScanError> {
        let begun = cpu_time();
        self.is_turn = true;
        let absent = self.fetch(connection, std::slice::from_ref(&turn.key));
        self.is_turn = false;
        // Receiving a large value costs the companion, even if building it is cheap.
        self.build_queue.charge(&turn.key, cpu_time().saturating_sub(begun), true);
        let is_absent = !absent.inspect_err(|_| self.build_queue.put_back(turn))?.is_empty();
        // After a flush all keys are absent; the guard judges that after the next scan.
        if is_absent && !turn.is_doubtful && !connection.is_flush_pending() {
            self.withdraw(&turn.key, Vec::new());
        }
        Ok(())
    }

    /// Builds queued keys on this thread until `deadline`.
    pub(super) fn finish_waiting(
        &mut self,
        connection: &mut Connection<'_>,
        deadline: Instant,
    ) -> Result<(), ScanError> {
        while let Some(turn) = self.build_queue.next(Instant::now()).filter(|_| Instant::now() < deadline) {
            self.take_turn(connection, &turn)?;
        }
        Ok(())
    }

    /// Publishes a value that was parsed at once; a queued build of the key is obsolete.
    fn put_now(&mut self, key: &[u8], record: &RouteKey, prepared: Prepared) {
        self.build_queue.forget(key);
        self.put(key, record, prepared);
    }

    fn put(&mut self, key: &[u8], record: &RouteKey, mut prepared: Prepared) {
        self.deferred.forget(key);
        self.digests.forget(key);
        if prepared.routes.is_empty() && record.kind() != Kind::Redirect {
            return self.remove(key, prepared.rejected);
        }
        let table = self.writer.table();
        match self.writer.publish_with(record, &prepared.routes, &prepared.automata) {
            Ok(Published::Inserted) => {
                self.changes.inserted += 1;
                self.change_log.note(table, record, ChangeKind::Added, &prepared.routes);
            }
            Ok(Published::Replaced) => {
                self.deferred.note_freed();
                self.changes.replaced += 1;
                self.change_log.note(table, record, ChangeKind::Changed, &prepared.routes);
            }
            Ok(Published::Unchanged) => {}
            Err(error) => {
                if matches!(error, PublishError::TableFull { .. }) {
                    self.deferred.add(key);
                }
                prepared.rejected.push(table_full(key, &error));
            }
        }
        self.note_rejections(key, prepared.rejected);
    }

    /// Removes the key's record and cancels its queued build.
    pub(super) fn withdraw(&mut self, key: &[u8], rejected: Vec<Rejection>) {
        self.build_queue.forget(key);
        self.deferred.forget(key);
        self.digests.forget(key);
        self.remove(key, rejected);
    }

    fn remove(&mut self, key: &[u8], rejected: Vec<Rejection>) {
        if let Some(Ok(record)) = parse_key(key)
            && self.writer.withdraw(record.as_bytes())
        {
            self.deferred.note_freed();
            self.changes.withdrawn += 1;
            self.change_log.note(self.writer.table(), &record, ChangeKind::Removed, &[]);
        }
        self.note_rejections(key, rejected);
    }

    pub(super) fn note_rejections(&mut self, key: &[u8], rejected: Vec<Rejection>) {
        if !rejected.is_empty() {
            self.found_keys.insert(key.into());
        }
        self.rejected.replace(key, rejected);
    }
}

/// Number of fields, number of bytes, and whether the value is trivially cheap to parse.
fn weigh(raw: &RawRoutes<'_>) -> (usize, usize, bool) {
    match raw {
        RawRoutes::Hash(fields) => {
            let bytes = fields.iter().map(|(field, value)| field.len() + value.len()).sum();
            let is_plain = matches!(fields.as_slice(), [] | [(b".*", _)]);
            (fields.len(), bytes, is_plain)
        }
        RawRoutes::Set(members) => (members.len(), members.iter().map(|member| member.len()).sum(), members.len() <= 4),
    }
}
