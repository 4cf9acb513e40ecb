//! Which tools are looked at again because somebody else has written their routes, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::route::ToolName;

/// Many writes at once are looked at together.
const SOON: Duration = Duration::from_millis(20);
/// A tool is not looked at more often: whoever fights for its routes does not do so at the cost of others.
const AGAIN: Duration = Duration::from_millis(500);

/// At most one entry for each tool that has Services.
#[derive(Debug, Default)]
pub struct Rechecks {
    due: BTreeMap<ToolName, Instant>,
    /// When each was looked at last, if that was not long ago.
    recent: BTreeMap<ToolName, Instant>,
    next: Option<Instant>,
}

impl Rechecks {
    /// Somebody has written a tool's routes.
    pub fn note(&mut self, tool: ToolName, now: Instant) {
        let soon = now + SOON;
        let at = self.recent.get(&tool).map_or(soon, |&last| soon.max(last + AGAIN));
        self.due.entry(tool).or_insert(at);
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// When there is something to [`take`](Self::take).
    pub fn next_at(&self) -> Option<Instant> {
        self.next
    }

    /// The tools to look at now.
    pub fn take(&mut self, now: Instant) -> Vec<ToolName> {
        if self.next.is_none_or(|next| now < next) {
            return Vec::new();
        }
        self.recent.retain(|_, &mut last| now < last + AGAIN);
        let tools: Vec<ToolName> = self.due.extract_if(.., |_, &mut at| at <= now).map(|(tool, _)| tool).collect();
        self.recent.extend(tools.iter().map(|tool| (tool.clone(), now)));
        self.next = self.due.values().min().copied();
        tools
    }

    /// Everything will be looked at.
    pub fn clear(&mut self) {
        self.due.clear();
        self.next = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_looked_at_soon_and_then_not_too_often() {
        let tool = |name: &[u8]| ToolName::try_new(name).unwrap();
        let now = Instant::now();
        let mut rechecks = Rechecks::default();
        assert_eq!((rechecks.next_at(), rechecks.take(now)), (None, vec![]));
        rechecks.note(tool(b"a"), now);
        rechecks.note(tool(b"a"), now + SOON / 2);
        assert_eq!((rechecks.next_at(), rechecks.take(now)), (Some(now + SOON), vec![]));
        let looked_at = now + SOON;
        assert_eq!(rechecks.take(looked_at), [tool(b"a")]);
        rechecks.note(tool(b"a"), looked_at);
        rechecks.note(tool(b"b"), looked_at);
        assert_eq!(rechecks.take(looked_at + SOON), [tool(b"b")], "another tool does not wait");
        assert_eq!(rechecks.next_at(), Some(looked_at + AGAIN));
        assert_eq!(rechecks.take(looked_at + AGAIN), [tool(b"a")]);
        rechecks.note(tool(b"a"), looked_at);
        rechecks.clear();
        assert_eq!(rechecks.next_at(), None);
    }
}
