//! Limits on the probes that registrations make at once, so that servers which keep a probe waiting delay nobody else's.
//!
//! A registration over a limit is not kept waiting: it goes on as one whose server is not known.

use std::net::IpAddr;

use crate::daemon::{ConcurrencyLimiter, ConcurrencyPermit};
use crate::route::ToolName;

/// Probes for one tool.
const MAX_PER_TOOL: usize = 8;
/// Probes at one host for clients of other hosts. Those of its own clients are limited by their connections.
const MAX_FROM_ELSEWHERE: usize = 32;

/// Which probes are under way.
#[derive(Debug, Default)]
pub struct ProbeLimiter {
    of_tool: ConcurrencyLimiter<ToolName>,
    at_host: ConcurrencyLimiter<IpAddr>,
}

/// One probe, over when dropped.
#[derive(Debug)]
pub struct ProbePermit {
    _of_tool: ConcurrencyPermit<ToolName>,
    _at_host: Option<ConcurrencyPermit<IpAddr>>,
}

impl ProbeLimiter {
    /// Begins a probe for a tool at `elsewhere`, if that is not its client's own host; `None` when there are too many.
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
    fn slow_servers_of_one_tool_delay_no_other_and_those_of_other_hosts_no_host() {
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
