//! Limits on concurrent probes of registrations, so that servers which keep a probe waiting delay no other tool.
//!
//! A registration over a limit does not wait: its server's owner counts as unknown.

use std::net::IpAddr;

use crate::daemon::{ConcurrencyLimiter, ConcurrencyPermit};
use crate::route::ToolName;

/// Probes for one tool.
const MAX_PER_TOOL: usize = 8;
/// Probes of one host for clients of other hosts. Connection limits bound those for its own clients.
const MAX_FROM_ELSEWHERE: usize = 32;

/// Counts running probes.
#[derive(Debug, Default)]
pub struct ProbeLimiter {
    of_tool: ConcurrencyLimiter<ToolName>,
    at_host: ConcurrencyLimiter<IpAddr>,
}

/// One running probe, until dropped.
#[derive(Debug)]
pub struct ProbePermit {
    _of_tool: ConcurrencyPermit<ToolName>,
    _at_host: Option<ConcurrencyPermit<IpAddr>>,
}

impl ProbeLimiter {
    /// Begins a probe for a tool; `elsewhere` is the probed host unless it is the client's own. `None` over a limit.
    pub fn begin(&self, tool: &ToolName, elsewhere: Option<IpAddr>) -> Option<ProbePermit> {
        let of_tool = self.of_tool.try_acquire(tool.clone(), MAX_PER_TOOL)?;
        let at_host = match elsewhere {
            Some(host) => Some(self.at_host.try_acquire(host, MAX_FROM_ELSEWHERE)?),
            None => None,
        };
        Some(ProbePermit { _of_tool: of_tool, _at_host: at_host })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_limited_per_tool_and_per_host() {
        let limiter = ProbeLimiter::default();
        let tool = |number: usize| ToolName::try_new(format!("tool-{number}").as_bytes()).unwrap();
        let at = |last| Some(IpAddr::from([10, 0, 0, last]));
        let slow: Vec<_> = (0..MAX_PER_TOOL).map(|_| limiter.begin(&tool(0), at(1)).unwrap()).collect();
        assert!(limiter.begin(&tool(0), at(2)).is_none() && limiter.begin(&tool(0), None).is_none());
        let others: Vec<_> =
            (MAX_PER_TOOL..MAX_FROM_ELSEWHERE).map(|number| limiter.begin(&tool(number), at(1)).unwrap()).collect();
        assert!(limiter.begin(&tool(1), at(1)).is_none());
        assert!(limiter.begin(&tool(1), at(2)).is_some() && limiter.begin(&tool(1), None).is_some());
        drop(slow);
        assert!(limiter.begin(&tool(0), at(1)).is_some());
        drop(others);
        assert!(limiter.of_tool.is_idle() && limiter.at_host.is_idle());
    }
}
