//! From a key's value to its record: at once when that is cheap, else when the key's turn in the slow lane comes.

use std::time::{Duration, Instant};

use super::builder::{Builder, Job, Known, Value, cpu_time};
use super::fit::{Prepared, prepare};
use super::rejected::{no_room, rejection};
use super::scan::{Follower, ScanError};
use super::slow_lane::Turn;
use crate::redis_client::Connection;
use crate::registry::{RawRoutes, Rejection, RejectionReason, parse_key};
use crate::route::{Automata, Kind, RouteKey};
use crate::table::{PublishError, Published};

/// More fields, or more bytes, are not read at once.
const QUICK_FIELDS: usize = 64;
const QUICK_BYTES: usize = 4 << 10;
/// What cost more than this, or is set aside in part, is not read again while it is the same.
const CHEAP: Duration = Duration::from_micros(100);

impl Follower<'_> {
    /// Makes a key's value its record, or has the key wait.
    pub(super) fn publish(&mut self, key: &[u8], record: &RouteKey, raw: &RawRoutes<'_>) {
        let (fields, bytes, is_plain) = weigh(raw);
        if is_plain {
            let prepared = prepare((key, record), raw, &self.admission, self.share(), &mut |_, _| None);
            return prepared.map_or((), |prepared| self.put_now(key, record, prepared));
        }
        let digest = self.recognised.digest(raw);
        if !self.is_turn && self.is_recognised(key, record, digest) {
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
        self.lane.charge(key, cost, false);
        match prepared {
            Some(prepared) => {
                let is_worth_it = cost > CHEAP || !prepared.rejected.is_empty();
                self.put_now(key, record, prepared);
                if is_worth_it {
                    self.recognise(key, record, digest);
                }
            }
            None => self.wait(key, !self.is_comparing),
        }
    }

    /// Bytes that a record may take.
    fn share(&self) -> usize {
        self.writer.table().record_limit()
    }

    /// Whether the value is the one that was read last, and its record is still there; it is then seen.
    fn is_recognised(&mut self, key: &[u8], record: &RouteKey, digest: u64) -> bool {
        let Some(has_record) = self.recognised.has_record(key, digest) else { return false };
        let is_same = self.writer.confirm(record.as_bytes()) == has_record;
        if is_same {
            self.lane.forget(key);
            self.met.insert(key.into());
        }
        is_same
    }

    fn recognise(&mut self, key: &[u8], record: &RouteKey, digest: u64) {
        // What found no room is tried again.
        if !self.wanting_room.contains(key) {
            let has_record = self.writer.confirm(record.as_bytes());
            self.recognised.note(key, digest, has_record);
        }
    }

    /// Has the key wait for its turn. It is seen, and keeps the record that it has; without one it has an empty record, so that its
    /// requests are asked to come again: a tool whose routes are being built is no missing tool.
    pub(super) fn wait(&mut self, key: &[u8], is_changed: bool) {
        self.met.insert(key.into());
        if !self.lane.enqueue(key, is_changed, Instant::now()) && is_changed {
            return self.withdraw(key, vec![rejection(key, RejectionReason::Waiting)]);
        }
        if let Some(Ok(record)) = parse_key(key)
            && !self.writer.confirm(record.as_bytes())
            // What gave no record when it was read last gives none again, unless it has changed.
            && (is_changed || !self.rejected.contains(key))
        {
            self.empty(&record);
        }
    }

    /// Leaves the key without routes, but known. Whether it had any, or was not there.
    fn empty(&mut self, record: &RouteKey) -> bool {
        matches!(self.writer.publish(record, &[]), Ok(Published::Inserted | Published::Replaced))
    }

    /// Whether the key has to wait in a comparison.
    pub(super) fn is_slow(&mut self, key: &[u8]) -> bool {
        let is_slow = self.lane.must_wait(key, Instant::now());
        if is_slow {
            self.wait(key, false);
        }
        is_slow
    }

    /// Hands the value to the builder; without one, as before there are workers, it is read here.
    fn submit(&mut self, job: Job) {
        if let Err(job) = self.lane.submit(job) {
            let admission = self.admission.clone();
            let done = Builder::new(&admission, self.share(), &|| false).work(job);
            self.lane.charge(&done.job.key, done.cost, true);
            self.finish(&done.job, done.prepared);
        }
    }

    /// Makes what the builder has read the key's record.
    fn finish(&mut self, job: &Job, prepared: Option<Prepared>) {
        let digest = self.recognised.digest(&job.value.as_raw());
        let prepared = prepared.unwrap_or_else(|| Prepared {
            rejected: vec![rejection(&job.key, RejectionReason::Unreadable)],
            ..Prepared::default()
        });
        self.put(&job.key, &job.record, prepared);
        self.recognise(&job.key, &job.record, digest);
    }

    /// Works the slow lane: publishes what is built, and hands on the next.
    pub(super) fn tend(&mut self, connection: &mut Connection<'_>) -> Result<(), ScanError> {
        while let Some(done) = self.lane.take_done() {
            self.finish(&done.job, done.prepared);
        }
        let now = Instant::now();
        for key in self.lane.overdue(now) {
            // Its address may be another tenant's by now.
            if let Some(Ok(record)) = parse_key(&key)
                && self.empty(&record)
            {
                self.changes.replaced += 1;
                self.recognised.forget(&key);
                self.set_aside(&key, vec![rejection(&key, RejectionReason::Waiting)]);
            }
        }
        if let Some(turn) = self.lane.next(now) {
            self.take_turn(connection, &turn)?;
        }
        let wanting = self.wanting_room.take(now);
        if !wanting.is_empty() {
            self.fetch(connection, &wanting)?;
        }
        Ok(())
    }

    /// Asks for the value of a key that has waited.
    fn take_turn(&mut self, connection: &mut Connection<'_>, turn: &Turn) -> Result<(), ScanError> {
        let begun = cpu_time();
        self.is_turn = true;
        let absent = self.fetch(connection, std::slice::from_ref(&turn.key));
        self.is_turn = false;
        // A large value costs the companion even where the builder has little to do.
        self.lane.charge(&turn.key, cpu_time().saturating_sub(begun), true);
        let is_absent = !absent.inspect_err(|_| self.lane.put_back(turn))?.is_empty();
        // After a flush, keys are absent because all are: that is for the comparison to judge.
        if is_absent && !turn.is_doubtful && !connection.is_flush_pending() {
            self.withdraw(&turn.key, Vec::new());
        }
        Ok(())
    }

    /// Works the slow lane here, until `deadline`.
    pub(super) fn finish_waiting(
        &mut self,
        connection: &mut Connection<'_>,
        deadline: Instant,
    ) -> Result<(), ScanError> {
        while let Some(turn) = self.lane.next(Instant::now()).filter(|_| Instant::now() < deadline) {
            self.take_turn(connection, &turn)?;
        }
        Ok(())
    }

    /// Makes what was read just now the key's record.
    fn put_now(&mut self, key: &[u8], record: &RouteKey, prepared: Prepared) {
        self.lane.forget(key);
        self.put(key, record, prepared);
    }

    fn put(&mut self, key: &[u8], record: &RouteKey, mut prepared: Prepared) {
        self.wanting_room.forget(key);
        self.recognised.forget(key);
        if prepared.routes.is_empty() && record.kind() != Kind::Redirect {
            return self.take_out(key, prepared.rejected);
        }
        match self.writer.publish_with(record, &prepared.routes, &prepared.automata) {
            Ok(Published::Inserted) => self.changes.inserted += 1,
            Ok(Published::Replaced) => {
                self.wanting_room.note_freed();
                self.changes.replaced += 1;
            }
            Ok(Published::Unchanged) => {}
            Err(error) => {
                if matches!(error, PublishError::Full { .. }) {
                    self.wanting_room.add(key);
                }
                prepared.rejected.push(no_room(key, &error));
            }
        }
        self.set_aside(key, prepared.rejected);
    }

    /// Takes what was read from the key out of the table, and what is about to be.
    pub(super) fn withdraw(&mut self, key: &[u8], rejected: Vec<Rejection>) {
        self.lane.forget(key);
        self.wanting_room.forget(key);
        self.recognised.forget(key);
        self.take_out(key, rejected);
    }

    /// Nothing ever was under a name that is none.
    fn take_out(&mut self, key: &[u8], rejected: Vec<Rejection>) {
        if let Some(Ok(record)) = parse_key(key)
            && self.writer.withdraw(record.as_bytes())
        {
            self.wanting_room.note_freed();
            self.changes.withdrawn += 1;
        }
        self.set_aside(key, rejected);
    }

    pub(super) fn set_aside(&mut self, key: &[u8], rejected: Vec<Rejection>) {
        if !rejected.is_empty() {
            self.met.insert(key.into());
        }
        self.rejected.replace(key, rejected);
    }
}

/// Fields, bytes, and whether it is certain that reading them costs next to nothing.
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
