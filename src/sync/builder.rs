//! The thread that parses and builds costly values, so that the companion never waits for them.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::prepare::{Prepared, build_fully, prepare};
use crate::registry::{Admission, RawRoutes};
use crate::route::{Automata, Matcher, RouteKey};
use crate::table::Record;

/// The thread's nice value: requests have priority.
const NICE: i32 = 19;
/// Cached results: a tool that changes its backends keeps its patterns.
const MAX_REMEMBERED: usize = 64;

/// A key and the value to build.
#[derive(Debug)]
pub(super) struct Job {
    pub key: Vec<u8>,
    pub record: RouteKey,
    pub value: Value,
    pub known: Known,
}

/// The regular expressions of a key's current record, in order, and their automata.
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

    /// The automata, if they belong to these texts and fit `bytes` bytes.
    pub fn automata(&self, texts: &[&str], bytes: usize) -> Option<Automata> {
        let are_same = !texts.is_empty() && self.texts == texts && self.automata.len() <= bytes;
        are_same.then(|| Automata::from_bytes(self.automata.clone()))
    }
}

/// A field of a hash and its value.
type Field = (Box<[u8]>, Box<[u8]>);

/// A Redis value.
#[derive(Debug)]
pub(super) enum Value {
    Hash(Vec<Field>),
    Set(Vec<Box<[u8]>>),
}

/// The result of a job.
#[derive(Debug)]
pub(super) struct Done {
    pub job: Job,
    /// `None` after a panic, which is a bug.
    pub prepared: Option<Prepared>,
    /// CPU time.
    pub cost: Duration,
}

/// Parses and builds one value after the other.
pub(super) struct Builder<'a> {
    pub admission: &'a Admission,
    /// Most bytes that a record may take.
    pub share: usize,
    is_stopped: &'a dyn Fn() -> bool,
    hasher: RandomState,
    /// Recent results by the hash of their texts, newest last.
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
    pub fn new(admission: &'a Admission, share: usize, is_stopped: &'a dyn Fn() -> bool) -> Self {
        Self { admission, share, is_stopped, hasher: RandomState::new(), known: VecDeque::new() }
    }

    /// Runs until the job queue is closed or `is_stopped` returns true.
    pub fn run(&mut self, jobs: &Receiver<Job>, results: &SyncSender<Done>) {
        // Affects this thread only. A failure only means a larger share of CPU time.
        let _ = rustix::process::nice(NICE);
        while let Ok(job) = jobs.recv() {
            let done = self.work(job);
            if (self.is_stopped)() || results.send(done).is_err() {
                return;
            }
        }
    }

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
        if self.known.len() >= MAX_REMEMBERED {
            self.known.pop_front();
        }
        self.known.push_back((digest, automata.clone()));
        automata
    }
}

/// CPU time of this thread.
pub(super) fn cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}
