//! The tools to compare with Redis again, and when: their Services changed, or another writer changed their routes.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::route::ToolName;

/// Delay after a write by others, which collects several writes.
const COALESCE_DELAY: Duration = Duration::from_millis(20);
/// The shortest time between two comparisons of a tool for the same reason: a writer that fights for its routes, or a Service
/// that changes continuously, must not cost other tools anything.
const MIN_INTERVAL: Duration = Duration::from_millis(500);
/// Repeated comparisons after writes share these times: each write of this kube2proxy comes back as an invalidation too.
const BATCH_INTERVAL: Duration = Duration::from_millis(250);

/// At most one entry for each tool with Services.
#[derive(Debug)]
pub struct RecheckQueue {
    due: BTreeMap<ToolName, Due>,
    /// The last comparison of each tool after a change of its Service, if recent.
    recently_changed: BTreeMap<ToolName, Instant>,
    /// The last comparison of each tool for either reason, if recent.
    recent: BTreeMap<ToolName, Instant>,
    next: Option<Instant>,
    /// The start of the batch times.
    epoch: Instant,
}

#[derive(Debug)]
struct Due {
    at: Instant,
    has_changed: bool,
}

/// Tools to compare now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DueTools {
    /// Tools with changed Services.
    pub changed: Vec<ToolName>,
    /// Tools with routes that another writer changed.
    pub written: Vec<ToolName>,
}

impl RecheckQueue {
    /// An empty queue.
    pub fn new(now: Instant) -> Self {
        let (due, recently_changed, recent) = Default::default();
        Self { due, recently_changed, recent, next: None, epoch: now }
    }

    /// Queues a tool because its Service changed.
    pub fn note_changed(&mut self, tool: ToolName, now: Instant) {
        let at = self.recently_changed.get(&tool).map_or(now, |&last| now.max(last + MIN_INTERVAL));
        self.note(tool, at, true);
    }

    /// Queues a tool because another writer may have changed its routes.
    pub fn note_written(&mut self, tool: ToolName, now: Instant) {
        let soon = now + COALESCE_DELAY;
        let at = self.recent.get(&tool).map_or(soon, |&last| self.batch_time(soon.max(last + MIN_INTERVAL)));
        self.note(tool, at, false);
    }

    fn note(&mut self, tool: ToolName, at: Instant, has_changed: bool) {
        let due = self.due.entry(tool).or_insert(Due { at, has_changed });
        due.at = at.min(due.at);
        due.has_changed |= has_changed;
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// The next batch time not before `at`.
    fn batch_time(&self, at: Instant) -> Instant {
        let passed = at.saturating_duration_since(self.epoch).as_millis().div_ceil(BATCH_INTERVAL.as_millis());
        self.epoch + BATCH_INTERVAL * u32::try_from(passed).unwrap_or(u32::MAX)
    }

    /// When [`take`](Self::take) returns the next tool.
    pub fn next_at(&self) -> Option<Instant> {
        self.next
    }

    /// Removes and returns the tools that are due.
    pub fn take(&mut self, now: Instant) -> DueTools {
        let mut due_now = DueTools::default();
        if self.next.is_none_or(|next| now < next) {
            return due_now;
        }
        for recent in [&mut self.recently_changed, &mut self.recent] {
            recent.retain(|_, &mut last| now < last + MIN_INTERVAL);
        }
        for (tool, due) in self.due.extract_if(.., |_, due| due.at <= now) {
            self.recent.insert(tool.clone(), now);
            if due.has_changed {
                self.recently_changed.insert(tool.clone(), now);
                due_now.changed.push(tool);
            } else {
                due_now.written.push(tool);
            }
        }
        self.next = self.due.values().map(|due| due.at).min();
        due_now
    }

    /// Empties the queue, before everything is compared.
    pub fn clear(&mut self) {
        self.due.clear();
        self.next = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &[u8]) -> ToolName {
        ToolName::try_new(name).unwrap()
    }

    fn changed(tools: &[ToolName]) -> DueTools {
        DueTools { changed: tools.to_vec(), ..DueTools::default() }
    }

    fn written(tools: &[ToolName]) -> DueTools {
        DueTools { written: tools.to_vec(), ..DueTools::default() }
    }

    #[test]
    fn written_tool_is_due_soon_and_then_at_intervals() {
        let now = Instant::now();
        let mut queue = RecheckQueue::new(now);
        assert_eq!((queue.next_at(), queue.take(now)), (None, DueTools::default()));
        queue.note_written(tool(b"a"), now);
        queue.note_written(tool(b"a"), now + COALESCE_DELAY / 2);
        assert_eq!((queue.next_at(), queue.take(now)), (Some(now + COALESCE_DELAY), DueTools::default()));
        let compared_at = now + COALESCE_DELAY;
        assert_eq!(queue.take(compared_at), written(&[tool(b"a")]));
        queue.note_written(tool(b"a"), compared_at);
        queue.note_written(tool(b"b"), compared_at);
        assert_eq!(queue.take(compared_at + COALESCE_DELAY), written(&[tool(b"b")]), "another tool does not wait");
        let again = queue.next_at().unwrap();
        assert!(
            (MIN_INTERVAL..MIN_INTERVAL + BATCH_INTERVAL).contains(&(again - compared_at)),
            "{:?}",
            again - compared_at
        );
        assert_eq!(queue.take(again), written(&[tool(b"a")]));
        queue.note_written(tool(b"a"), again);
        queue.clear();
        assert_eq!(queue.next_at(), None);
    }

    #[test]
    fn service_change_waits_only_for_the_last_service_change() {
        let now = Instant::now();
        let mut queue = RecheckQueue::new(now);
        queue.note_written(tool(b"a"), now);
        queue.note_changed(tool(b"a"), now);
        assert_eq!(queue.take(now), changed(&[tool(b"a")]));
        queue.note_changed(tool(b"a"), now);
        assert_eq!(
            (queue.take(now + COALESCE_DELAY), queue.next_at()),
            (DueTools::default(), Some(now + MIN_INTERVAL))
        );
        queue.note_changed(tool(b"b"), now);
        assert_eq!(queue.take(now), changed(&[tool(b"b")]), "another tool does not wait");
        assert_eq!(queue.take(now + MIN_INTERVAL), changed(&[tool(b"a")]));
    }

    #[test]
    fn service_change_does_not_wait_for_the_last_write() {
        let now = Instant::now();
        let mut queue = RecheckQueue::new(now);
        queue.note_written(tool(b"a"), now);
        let compared_at = now + COALESCE_DELAY;
        assert_eq!(queue.take(compared_at), written(&[tool(b"a")]));
        queue.note_written(tool(b"a"), compared_at);
        queue.note_changed(tool(b"a"), compared_at);
        assert_eq!((queue.take(compared_at), queue.next_at()), (changed(&[tool(b"a")]), None));
    }

    #[test]
    fn repeated_comparisons_share_a_batch() {
        let now = Instant::now();
        let mut queue = RecheckQueue::new(now);
        let mut tools = Vec::new();
        for number in 0..10 {
            let (tool, at) = (tool(format!("{number}").as_bytes()), now + Duration::from_millis(1 + number));
            queue.note_changed(tool.clone(), at);
            assert_eq!(queue.take(at), changed(std::slice::from_ref(&tool)));
            queue.note_written(tool.clone(), at);
            tools.push(tool);
        }
        let at = queue.next_at().unwrap();
        assert_eq!((queue.take(at), queue.next_at()), (written(&tools), None));
    }
}
