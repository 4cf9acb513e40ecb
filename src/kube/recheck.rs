//! Which tools are looked at again because their Services have changed, or somebody else has written their routes, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::route::ToolName;

/// Many writes at once are looked at together.
const SOON: Duration = Duration::from_millis(20);
/// A tool is not looked at more often: whoever fights for its routes, or changes its Service without end, does not do so at the
/// cost of others.
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
    /// A tool's Service has changed.
    pub fn note_now(&mut self, tool: ToolName, now: Instant) {
        self.note(tool, now);
    }

    /// Somebody has written a tool's routes.
    pub fn note_soon(&mut self, tool: ToolName, now: Instant) {
        self.note(tool, now + SOON);
    }

    fn note(&mut self, tool: ToolName, earliest: Instant) {
        let at = self.recent.get(&tool).map_or(earliest, |&last| earliest.max(last + AGAIN));
        let due = self.due.entry(tool).or_insert(at);
        *due = at.min(*due);
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
        rechecks.note_soon(tool(b"a"), now);
        rechecks.note_soon(tool(b"a"), now + SOON / 2);
        assert_eq!((rechecks.next_at(), rechecks.take(now)), (Some(now + SOON), vec![]));
        let looked_at = now + SOON;
        assert_eq!(rechecks.take(looked_at), [tool(b"a")]);
        rechecks.note_soon(tool(b"a"), looked_at);
        rechecks.note_soon(tool(b"b"), looked_at);
        assert_eq!(rechecks.take(looked_at + SOON), [tool(b"b")], "another tool does not wait");
        assert_eq!(rechecks.next_at(), Some(looked_at + AGAIN));
        assert_eq!(rechecks.take(looked_at + AGAIN), [tool(b"a")]);
        rechecks.note_soon(tool(b"a"), looked_at);
        rechecks.clear();
        assert_eq!(rechecks.next_at(), None);
    }

    #[test]
    fn a_change_of_its_service_does_not_wait_but_for_the_last() {
        let tool = |name: &[u8]| ToolName::try_new(name).unwrap();
        let now = Instant::now();
        let mut rechecks = Rechecks::default();
        rechecks.note_soon(tool(b"a"), now);
        rechecks.note_now(tool(b"a"), now);
        assert_eq!(rechecks.take(now), [tool(b"a")]);
        rechecks.note_now(tool(b"a"), now);
        assert_eq!((rechecks.take(now + SOON), rechecks.next_at()), (vec![], Some(now + AGAIN)));
        rechecks.note_now(tool(b"b"), now);
        assert_eq!(rechecks.take(now), [tool(b"b")], "another tool does not wait");
        assert_eq!(rechecks.take(now + AGAIN), [tool(b"a")]);
    }
}
