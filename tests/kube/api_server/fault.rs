//! What a test scripts: which requests meet what, and how often each has come.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// For [`super::ApiServer::fail`]: until told otherwise.
pub const ALWAYS: usize = usize::MAX;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Request {
    /// The first page of a list of Services.
    List,
    /// Each further page of it.
    NextPage,
    /// A watch of Services.
    Watch,
    /// POST or PATCH of an Event.
    Event,
    /// Anything else.
    Other,
}

/// What a request meets instead of its answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status, and the object that goes with it: 403, 410, 500 ...
    Status(u16),
    /// 429, with a Retry-After of so many seconds.
    Busy(u32),
    /// The answer, but so late.
    Slow(Duration),
    /// Nothing at all, on a connection that stays open.
    Hang,
    /// 200, and the end of the answer at once.
    Empty,
    /// The head of an answer, and never more.
    Silent,
    /// 200, and no JSON.
    Garbage,
    /// The first half of the answer, and then the connection ends.
    Cut,
}

/// What becomes of open watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// An ERROR event: 410, the resourceVersion is too old. Then the end.
    Gone,
    /// An ERROR event: 500. Then the end.
    Error,
    /// A line that is no JSON; the watch goes on.
    Garbage,
    /// A line that is JSON, but no event; the watch goes on.
    Nonsense,
    /// Half an event, then the end in order.
    HalfLine,
    /// The connection ends before the answer does.
    Cut,
    /// The end in order.
    End,
    /// Nothing more, ever; the connection stays open.
    Silence,
}

#[derive(Default)]
pub struct Script {
    pub token: Option<String>,
    pub unauthorized: usize,
    pub unexpected: Vec<String>,
    /// Lists whose selector has this text fail.
    pub failing_selector: Option<String>,
    faults: BTreeMap<Request, VecDeque<(Fault, usize)>>,
    counts: BTreeMap<Request, usize>,
}

impl Script {
    pub fn add(&mut self, request: Request, fault: Fault, times: usize) {
        if times > 0 {
            self.faults.entry(request).or_default().push_back((fault, times));
        }
    }

    pub fn clear(&mut self) {
        self.faults.clear();
        self.failing_selector = None;
    }

    pub fn count(&self, request: Request) -> usize {
        self.counts.get(&request).copied().unwrap_or(0)
    }

    pub fn note(&mut self, request: Request) {
        *self.counts.entry(request).or_default() += 1;
    }

    /// What this request meets.
    pub fn next_fault(&mut self, request: Request) -> Option<Fault> {
        let faults = self.faults.get_mut(&request)?;
        let (fault, times) = faults.front_mut()?;
        let next = fault.clone();
        if *times != ALWAYS {
            *times -= 1;
        }
        if *times == 0 {
            faults.pop_front();
        }
        Some(next)
    }
}
