//! Limits on the probes that registrations make at once, so that servers which keep a probe waiting delay nobody else's.
//!
//! A registration over a limit is not kept waiting: it goes on as one whose server is not known.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::route::ToolName;

/// Probes for one tool.
const MAX_PER_TOOL: usize = 8;
/// Probes at one host for clients of other hosts. Those of its own clients are limited by their connections.
const MAX_FROM_ELSEWHERE: usize = 32;

/// Which probes are under way.
#[derive(Debug, Default)]
pub struct ProbeLimiter {
    under_way: Arc<Mutex<HashMap<Key, usize>>>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq)]
enum Key {
    Tool(ToolName),
    Host(IpAddr),
}

impl Key {
    fn limit(&self) -> usize {
        match self {
            Self::Tool(_) => MAX_PER_TOOL,
            Self::Host(_) => MAX_FROM_ELSEWHERE,
        }
    }
}

/// One probe, over when dropped.
#[derive(Debug)]
pub struct UnderWay {
    keys: Vec<Key>,
    under_way: Arc<Mutex<HashMap<Key, usize>>>,
}

impl ProbeLimiter {
    /// Begins a probe for a tool at `elsewhere`, if that is not its client's own host; `None` when there are too many.
    pub fn begin(&self, tool: &ToolName, elsewhere: Option<IpAddr>) -> Option<UnderWay> {
        let keys: Vec<Key> = [Key::Tool(tool.clone())].into_iter().chain(elsewhere.map(Key::Host)).collect();
        let mut under_way = self.under_way.lock();
        if keys.iter().any(|key| under_way.get(key).is_some_and(|&probes| probes >= key.limit())) {
            return None;
        }
        for key in &keys {
            *under_way.entry(key.clone()).or_default() += 1;
        }
        Some(UnderWay { keys, under_way: Arc::clone(&self.under_way) })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut under_way = self.under_way.lock();
        for key in &self.keys {
            if let Some(probes) = under_way.get_mut(key) {
                *probes -= 1;
                if *probes == 0 {
                    under_way.remove(key);
                }
            }
        }
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
        assert!(limiter.under_way.lock().is_empty());
    }
}
