//! Which tools are looked at again because their Services have changed, or somebody else has written their routes, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::route::ToolName;

/// Many writes at once are looked at together.
const SOON: Duration = Duration::from_millis(20);
/// A tool is not looked at more often for one of the two reasons: whoever fights for its routes, or changes its Service without
/// end, does not do so at the cost of others.
const AGAIN: Duration = Duration::from_millis(500);
/// Those whose routes were written again are looked at together: each write of this kube2proxy itself is heard of, as if it were
/// another's.
const TOGETHER: Duration = Duration::from_millis(250);

/// At most one entry for each tool that has Services.
#[derive(Debug)]
pub struct Rechecks {
    due: BTreeMap<ToolName, Due>,
    /// When each was looked at last for a change of its Service, if that was not long ago.
    recently_changed: BTreeMap<ToolName, Instant>,
    /// The same for whatever reason.
    recent: BTreeMap<ToolName, Instant>,
    next: Option<Instant>,
    /// Times to look at several together are counted from here.
    begun: Instant,
}

#[derive(Debug)]
struct Due {
    at: Instant,
    has_changed: bool,
}

/// What is to be looked at.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Tools whose Services have changed.
    pub changed: Vec<ToolName>,
    /// Tools whose routes somebody has written.
    pub written: Vec<ToolName>,
}

impl Rechecks {
    /// Nothing is due.
    pub fn new(now: Instant) -> Self {
        let (due, recently_changed, recent) = Default::default();
        Self { due, recently_changed, recent, next: None, begun: now }
    }

    /// A tool's Service has changed.
    pub fn note_changed(&mut self, tool: ToolName, now: Instant) {
        let at = self.recently_changed.get(&tool).map_or(now, |&last| now.max(last + AGAIN));
        self.note(tool, at, true);
    }

    /// Somebody has written a tool's routes.
    pub fn note_written(&mut self, tool: ToolName, now: Instant) {
        let soon = now + SOON;
        let at = self.recent.get(&tool).map_or(soon, |&last| self.together(soon.max(last + AGAIN)));
        self.note(tool, at, false);
    }

    fn note(&mut self, tool: ToolName, at: Instant, has_changed: bool) {
        let due = self.due.entry(tool).or_insert(Due { at, has_changed });
        due.at = at.min(due.at);
        due.has_changed |= has_changed;
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// The same for all that would be due within some time.
    fn together(&self, at: Instant) -> Instant {
        let passed = at.saturating_duration_since(self.begun).as_millis().div_ceil(TOGETHER.as_millis());
        self.begun + TOGETHER * u32::try_from(passed).unwrap_or(u32::MAX)
    }

    /// When there is something to [`take`](Self::take).
    pub fn next_at(&self) -> Option<Instant> {
        self.next
    }

    /// The tools to look at now.
    pub fn take(&mut self, now: Instant) -> Taken {
        let mut taken = Taken::default();
        if self.next.is_none_or(|next| now < next) {
            return taken;
        }
        for recent in [&mut self.recently_changed, &mut self.recent] {
            recent.retain(|_, &mut last| now < last + AGAIN);
        }
        for (tool, due) in self.due.extract_if(.., |_, due| due.at <= now) {
            self.recent.insert(tool.clone(), now);
            if due.has_changed {
                self.recently_changed.insert(tool.clone(), now);
                taken.changed.push(tool);
            } else {
                taken.written.push(tool);
            }
        }
        self.next = self.due.values().map(|due| due.at).min();
        taken
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

    fn tool(name: &[u8]) -> ToolName {
        ToolName::try_new(name).unwrap()
    }

    fn changed(tools: &[ToolName]) -> Taken {
        Taken { changed: tools.to_vec(), ..Taken::default() }
    }

    fn written(tools: &[ToolName]) -> Taken {
        Taken { written: tools.to_vec(), ..Taken::default() }
    }

    #[test]
    fn a_tool_is_looked_at_soon_and_then_not_too_often() {
        let now = Instant::now();
        let mut rechecks = Rechecks::new(now);
        assert_eq!((rechecks.next_at(), rechecks.take(now)), (None, Taken::default()));
        rechecks.note_written(tool(b"a"), now);
        rechecks.note_written(tool(b"a"), now + SOON / 2);
        assert_eq!((rechecks.next_at(), rechecks.take(now)), (Some(now + SOON), Taken::default()));
        let looked_at = now + SOON;
        assert_eq!(rechecks.take(looked_at), written(&[tool(b"a")]));
        rechecks.note_written(tool(b"a"), looked_at);
        rechecks.note_written(tool(b"b"), looked_at);
        assert_eq!(rechecks.take(looked_at + SOON), written(&[tool(b"b")]), "another tool does not wait");
        let again = rechecks.next_at().unwrap();
        assert!((AGAIN..AGAIN + TOGETHER).contains(&(again - looked_at)), "{:?}", again - looked_at);
        assert_eq!(rechecks.take(again), written(&[tool(b"a")]));
        rechecks.note_written(tool(b"a"), again);
        rechecks.clear();
        assert_eq!(rechecks.next_at(), None);
    }

    #[test]
    fn a_change_of_its_service_does_not_wait_but_for_the_last() {
        let now = Instant::now();
        let mut rechecks = Rechecks::new(now);
        rechecks.note_written(tool(b"a"), now);
        rechecks.note_changed(tool(b"a"), now);
        assert_eq!(rechecks.take(now), changed(&[tool(b"a")]));
        rechecks.note_changed(tool(b"a"), now);
        assert_eq!((rechecks.take(now + SOON), rechecks.next_at()), (Taken::default(), Some(now + AGAIN)));
        rechecks.note_changed(tool(b"b"), now);
        assert_eq!(rechecks.take(now), changed(&[tool(b"b")]), "another tool does not wait");
        assert_eq!(rechecks.take(now + AGAIN), changed(&[tool(b"a")]));
    }

    #[test]
    fn a_change_does_not_wait_for_what_was_looked_at_because_it_was_written() {
        let now = Instant::now();
        let mut rechecks = Rechecks::new(now);
        rechecks.note_written(tool(b"a"), now);
        let looked_at = now + SOON;
        assert_eq!(rechecks.take(looked_at), written(&[tool(b"a")]));
        rechecks.note_written(tool(b"a"), looked_at);
        rechecks.note_changed(tool(b"a"), looked_at);
        assert_eq!((rechecks.take(looked_at), rechecks.next_at()), (changed(&[tool(b"a")]), None));
    }

    #[test]
    fn tools_that_were_looked_at_one_by_one_are_looked_at_again_together() {
        let now = Instant::now();
        let mut rechecks = Rechecks::new(now);
        let mut tools = Vec::new();
        for number in 0..10 {
            let (tool, at) = (tool(format!("{number}").as_bytes()), now + Duration::from_millis(1 + number));
            rechecks.note_changed(tool.clone(), at);
            assert_eq!(rechecks.take(at), changed(std::slice::from_ref(&tool)));
            rechecks.note_written(tool.clone(), at);
            tools.push(tool);
        }
        let at = rechecks.next_at().unwrap();
        assert_eq!((rechecks.take(at), rechecks.next_at()), (written(&tools), None));
    }
}
