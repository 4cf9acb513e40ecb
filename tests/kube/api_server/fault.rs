//! Scripted faults, and counts of requests.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// For [`super::ApiServer::fail`]: until [`super::ApiServer::recover`].
pub const ALWAYS: usize = usize::MAX;

/// Kinds of requests.
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

/// A fault instead of a response.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status, and the object that goes with it: 403, 410, 500 ...
    Status(u16),
    /// 429, with a Retry-After of so many seconds.
    Busy(u32),
    /// The response, after this delay.
    Slow(Duration),
    /// No response, on a connection that stays open.
    Hang,
    /// 200, and an empty body.
    Empty,
    /// The head of a response, and no body.
    Silent,
    /// 200, and a body that is not JSON.
    Garbage,
    /// Half of the response, then the end of the connection.
    Cut,
}

/// A fault of open watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// An ERROR event: 410, the resourceVersion is too old. Then the end.
    Gone,
    /// An ERROR event: 500. Then the end.
    Error,
    /// A line that is not JSON; the watch continues.
    Garbage,
    /// A line of JSON that is not an event; the watch continues.
    Nonsense,
    /// Half an event, then a normal end.
    HalfLine,
    /// The connection ends before the response.
    Cut,
    /// A normal end.
    End,
    /// Nothing more; the connection stays open.
    Silence,
}

#[derive(Default)]
pub struct Script {
    pub token: Option<String>,
    pub unauthorized: usize,
    pub unexpected: Vec<String>,
    /// Lists by a selector with this text fail.
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

    /// The fault for this request.
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
