//! The thread that reads and builds what is costly, so that the companion never waits for it.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::fit::{Prepared, build_fully, prepare};
use crate::registry::{Admission, RawRoutes};
use crate::route::{Automata, Matcher, RouteKey};
use crate::table::Record;

/// How far the thread stands back when there is too little processor time for all.
const NICE: i32 = 19;
/// Results that are kept: a tool that changes its backends has the patterns that it had.
const REMEMBERED: usize = 64;

/// A key whose value is to be read and built.
#[derive(Debug)]
pub(super) struct Job {
    pub key: Vec<u8>,
    pub record: RouteKey,
    pub value: Value,
    pub known: Known,
}

/// What a key's record has already: the texts of its regular expressions, in order, and their automata.
#[derive(Debug, Default)]
pub(super) struct Known {
    texts: Vec<String>,
    automata: Vec<u8>,
}

impl Known {
    pub fn of(record: &Record<'_>) -> Self {
        let regexes = record.routes().filter(|route| route.matcher == Matcher::Regex);
        let texts = regexes.map(|route| String::from_utf8_lossy(route.pattern).into_owned()).collect();
        Self { texts, automata: record.automata().to_vec() }
    }

    /// The automata, if they are those of these texts and no more than `bytes` bytes.
    pub fn automata(&self, texts: &[&str], bytes: usize) -> Option<Automata> {
        let are_same = !texts.is_empty() && self.texts == texts && self.automata.len() <= bytes;
        are_same.then(|| Automata::from_bytes(self.automata.clone()))
    }
}

/// A field of a hash, and what it says.
type Field = (Box<[u8]>, Box<[u8]>);

/// A value of the store.
#[derive(Debug)]
pub(super) enum Value {
    Hash(Vec<Field>),
    Set(Vec<Box<[u8]>>),
}

/// What came of a job.
#[derive(Debug)]
pub(super) struct Done {
    pub job: Job,
    /// `None` when it could not be read: that is a fault of this program.
    pub prepared: Option<Prepared>,
    /// Processor time.
    pub cost: Duration,
}

/// Reads and builds, one value after the other.
pub(super) struct Builder<'a> {
    pub admission: &'a Admission,
    /// Bytes that a record may take.
    pub share: usize,
    is_stopped: &'a dyn Fn() -> bool,
    hasher: RandomState,
    /// The latest, by their texts; the newest is last.
    known: VecDeque<(u64, Automata)>,
}

impl Value {
    pub fn of(raw: &RawRoutes<'_>) -> Self {
        match raw {
            RawRoutes::Hash(fields) => Self::Hash(fields.iter().map(|&(f, v)| (f.into(), v.into())).collect()),
            RawRoutes::Set(members) => Self::Set(members.iter().map(|&member| member.into()).collect()),
        }
    }

    pub fn as_raw(&self) -> RawRoutes<'_> {
        match self {
            Self::Hash(fields) => RawRoutes::Hash(fields.iter().map(|(f, v)| (&**f, &**v)).collect()),
            Self::Set(members) => RawRoutes::Set(members.iter().map(|member| &**member).collect()),
        }
    }
}

impl<'a> Builder<'a> {
    /// A builder that gives up when `is_stopped`.
    pub fn new(admission: &'a Admission, share: usize, is_stopped: &'a dyn Fn() -> bool) -> Self {
        Self { admission, share, is_stopped, hasher: RandomState::new(), known: VecDeque::new() }
    }

    /// Works until nobody has a job any more, or it is stopped.
    pub fn run(&mut self, jobs: &Receiver<Job>, results: &SyncSender<Done>) {
        // Of this thread alone. Without it the thread only takes more of the processor than it should.
        let _ = rustix::process::nice(NICE);
        while let Ok(job) = jobs.recv() {
            let done = self.work(job);
            if (self.is_stopped)() || results.send(done).is_err() {
                return;
            }
        }
    }

    /// Does one job.
    pub fn work(&mut self, job: Job) -> Done {
        let begun = cpu_time();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let (admission, share) = (self.admission, self.share);
            let mut build =
                |texts: &[&str], bytes| job.known.automata(texts, bytes).or_else(|| Some(self.build(texts, bytes)));
            prepare((&job.key, &job.record), &job.value.as_raw(), admission, share, &mut build)
        }));
        Done { prepared: outcome.ok().flatten(), job, cost: cpu_time().saturating_sub(begun) }
    }

    fn build(&mut self, texts: &[&str], bytes: usize) -> Automata {
        let digest = self.hasher.hash_one((texts, bytes));
        let known = self.known.iter().position(|(known, _)| *known == digest);
        let (_, automata) = match known.and_then(|at| self.known.remove(at)) {
            Some(known) => known,
            None => (digest, build_fully(texts, bytes, self.is_stopped)),
        };
        if self.known.len() >= REMEMBERED {
            self.known.pop_front();
        }
        self.known.push_back((digest, automata.clone()));
        automata
    }
}

/// Processor time of this thread.
pub(super) fn cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}
