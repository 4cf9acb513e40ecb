//! Short texts from the companion to all workers: the current error, rejected routes, and the latest changes.
//!
//! A note is read like a record: copied, then rechecked. A note that changes meanwhile reads as absent; the next read has it.

use crate::route::Kind;
use crate::table::atomic::{AtomicU64, Edge, Ordering::Relaxed, acquire, fence_acquire, fence_release, release};

const WORDS: usize = 64;
const TEXT_WORDS: usize = WORDS - 5;
/// Longest text of a note.
const TEXT_BYTES: usize = TEXT_WORDS * 8;

/// Eight lines for a name, a detail and a text.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Note {
    /// Odd while the note is being written; 0 if it never was.
    stamp: AtomicU64,
    /// Unix milliseconds.
    at: AtomicU64,
    /// The number of a change.
    number: AtomicU64,
    /// Bytes of name, detail and text, 16 bits each.
    lengths: AtomicU64,
    /// `count 32 | has_detail 8 | kind 8 | tag 8 | is_used 8`.
    meta: AtomicU64,
    text: [AtomicU64; TEXT_WORDS],
}

/// What a note says, before the meaning of its fields is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Content {
    at: u64,
    number: u64,
    tag: u8,
    kind: u8,
    count: u32,
    name: Vec<u8>,
    /// A pattern or a backend.
    detail: Option<Vec<u8>>,
    text: Vec<u8>,
}

/// A rejected route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedNote {
    /// The kind of record.
    pub kind: Kind,
    /// The name of the tool or domain; not checked, so any bytes.
    pub name: Vec<u8>,
    /// The pattern, or its beginning; `None` if the whole key is rejected.
    pub pattern: Option<Vec<u8>>,
    /// An index of [`REASONS`](super::REASONS).
    pub reason: u8,
    /// Why, in words.
    pub text: String,
}

/// What happened to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Added = 0,
    /// Its routes changed.
    Changed = 1,
    /// It was withdrawn.
    Removed = 2,
}

impl ChangeKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
        }
    }
}

/// A change of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its number; each change has the next one.
    pub number: u64,
    /// When, in Unix milliseconds.
    pub at: u64,
    /// What happened.
    pub change: ChangeKind,
    /// The kind of record.
    pub kind: Kind,
    /// The name of the tool or domain.
    pub name: Vec<u8>,
    /// Number of routes since then.
    pub routes: u32,
    /// The first backend, or nothing.
    pub backend: String,
}

/// All notes of a table. The first is the error, then come the rejected routes and the ring of changes.
#[derive(Clone, Copy, Debug)]
pub struct Notes<'a> {
    notes: &'a [Note],
}

impl Note {
    pub(in crate::table) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            stamp: zero(),
            at: zero(),
            number: zero(),
            lengths: zero(),
            meta: zero(),
            text: std::array::from_fn(|_| zero()),
        }
    }

    /// Writes the note. Only for the one companion.
    fn write(&self, content: &Content) {
        let mut text = Vec::with_capacity(TEXT_BYTES);
        let detail = content.detail.as_deref().unwrap_or_default();
        let mut lengths = 0u64;
        for (at, part) in [&content.name, detail, &content.text].into_iter().enumerate() {
            // The reader knows from the sum of the lengths what has not fitted.
            let part = part.get(..TEXT_BYTES).unwrap_or(part);
            text.extend_from_slice(part);
            lengths |= (part.len() as u64) << (16 * at);
        }
        // A killed writer may have left an odd stamp.
        let stamp = self.stamp.load(Relaxed) | 1;
        self.stamp.store(stamp, Relaxed);
        fence_release(Edge::E7);
        self.at.store(content.at, Relaxed);
        self.number.store(content.number, Relaxed);
        self.lengths.store(lengths, Relaxed);
        let [c0, c1, c2, c3] = content.count.to_le_bytes();
        let meta = u64::from_le_bytes([1, content.tag, content.kind, content.detail.is_some().into(), c0, c1, c2, c3]);
        self.meta.store(meta, Relaxed);
        for (word, bytes) in self.text.iter().zip(text.chunks(8)) {
            let mut whole = [0; 8];
            whole.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            word.store(u64::from_ne_bytes(whole), Relaxed); // edge E7
        }
        self.stamp.store(stamp + 1, release(Edge::E7));
    }

    /// Empties the note. Only for the one companion.
    fn clear(&self) {
        if self.meta.load(Relaxed) != 0 {
            self.meta.store(0, Relaxed);
        }
    }

    /// The note; `None` if it is empty or being written.
    fn read(&self) -> Option<Content> {
        let stamp = self.stamp.load(acquire(Edge::E7));
        if stamp == 0 || stamp & 1 == 1 {
            return None;
        }
        let (at, number) = (self.at.load(Relaxed), self.number.load(Relaxed));
        let (lengths, meta) = (self.lengths.load(Relaxed), self.meta.load(Relaxed));
        let length = |at: u32| usize::from((lengths >> (16 * at)) as u16);
        let total = (length(0) + length(1) + length(2)).min(TEXT_BYTES);
        let words = self.text.iter().take(total.div_ceil(8));
        let mut text: Vec<u8> = words.flat_map(|word| word.load(Relaxed).to_ne_bytes()).collect(); // edge E7
        fence_acquire(Edge::E7);
        if meta == 0 || self.stamp.load(Relaxed) != stamp {
            return None;
        }
        text.truncate(total);
        let rest = text.split_off((length(0) + length(1)).min(total));
        let detail = text.split_off(length(0).min(text.len()));
        let [_, tag, kind, has_detail, count @ ..] = meta.to_le_bytes();
        Some(Content {
            at,
            number,
            tag,
            kind,
            count: u32::from_le_bytes(count),
            name: text,
            detail: (has_detail != 0).then_some(detail),
            text: rest,
        })
    }
}

fn kind_of(number: u8) -> Option<Kind> {
    Kind::ALL.into_iter().find(|&kind| kind as u8 == number)
}

impl<'a> Notes<'a> {
    pub(in crate::table) fn new(notes: &'a [Note]) -> Self {
        Self { notes }
    }

    pub(in crate::table) fn len(self) -> usize {
        self.notes.len()
    }

    /// The rejected routes' notes and the ring of changes.
    fn parts(self) -> (&'a [Note], &'a [Note]) {
        let (_, rest) = self.notes.split_at_checked(1).unwrap_or((&[], &[]));
        rest.split_at_checked(rest.len() / 2).unwrap_or((&[], &[]))
    }

    /// Why the source cannot be followed.
    pub fn error(self) -> Option<String> {
        let content = self.notes.first()?.read()?;
        Some(String::from_utf8_lossy(&content.text).into_owned())
    }

    /// Sets or clears the error. Only for the one companion.
    pub fn set_error(self, text: Option<&str>) {
        let Some(note) = self.notes.first() else { return };
        match text {
            Some(text) => note.write(&Content { text: text.as_bytes().to_vec(), ..Content::default() }),
            None => note.clear(),
        }
    }

    /// Most rejected routes that are kept.
    pub fn rejected_capacity(self) -> usize {
        self.parts().0.len()
    }

    /// The rejected routes that are kept.
    pub fn rejected(self) -> impl Iterator<Item = RejectedNote> + use<'a> {
        let notes = self.parts().0.iter().filter_map(Note::read);
        notes.filter_map(|content| {
            Some(RejectedNote {
                kind: kind_of(content.kind)?,
                name: content.name,
                pattern: content.detail,
                reason: content.tag,
                text: String::from_utf8_lossy(&content.text).into_owned(),
            })
        })
    }

    /// Sets the rejected route at an index below [`Self::rejected_capacity`]. Only for the one companion.
    pub fn set_rejected(self, index: usize, rejected: Option<&RejectedNote>) {
        let Some(note) = self.parts().0.get(index) else { return };
        let Some(rejected) = rejected else { return note.clear() };
        note.write(&Content {
            tag: rejected.reason,
            kind: rejected.kind as u8,
            name: rejected.name.clone(),
            detail: rejected.pattern.clone(),
            text: rejected.text.clone().into_bytes(),
            ..Content::default()
        });
    }

    /// Number of changes that are kept.
    pub fn changes_capacity(self) -> u64 {
        self.parts().1.len() as u64
    }

    fn of_change(self, number: u64) -> Option<&'a Note> {
        let ring = self.parts().1;
        ring.get(usize::try_from(number.checked_rem(ring.len() as u64)?).ok()?)
    }

    /// The change with this number, if it is still kept.
    pub fn change(self, number: u64) -> Option<Change> {
        let content = self.of_change(number)?.read().filter(|content| content.number == number)?;
        let backend = content.detail.unwrap_or_default();
        Some(Change {
            number,
            at: content.at,
            change: match content.tag {
                0 => ChangeKind::Added,
                1 => ChangeKind::Changed,
                _ => ChangeKind::Removed,
            },
            kind: kind_of(content.kind)?,
            name: content.name,
            routes: content.count,
            backend: String::from_utf8_lossy(&backend).into_owned(),
        })
    }

    /// Adds a change. Only for the one companion, with the next number.
    pub fn add_change(self, change: &Change) {
        let Some(note) = self.of_change(change.number) else { return };
        note.write(&Content {
            at: change.at,
            number: change.number,
            tag: change.change as u8,
            kind: change.kind as u8,
            count: change.routes,
            name: change.name.clone(),
            detail: Some(change.backend.clone().into_bytes()),
            ..Content::default()
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn notes(count: usize) -> Vec<Note> {
        std::iter::repeat_with(Note::new).take(count).collect()
    }

    #[test]
    fn error_is_set_and_cleared() {
        let owned = notes(1);
        let notes = Notes::new(&owned);
        assert_eq!(notes.error(), None);
        notes.set_error(Some("connection refused"));
        assert_eq!(notes.error().as_deref(), Some("connection refused"));
        notes.set_error(Some(&"x".repeat(1000)));
        assert_eq!(notes.error(), Some("x".repeat(TEXT_BYTES)));
        notes.set_error(None);
        assert_eq!(notes.error(), None);
    }

    #[test]
    fn rejected_routes_round_trip() {
        let owned = notes(5);
        let notes = Notes::new(&owned);
        assert_eq!((notes.rejected_capacity(), notes.changes_capacity()), (2, 2));
        let whole =
            RejectedNote { kind: Kind::Domain, name: b"a.org".to_vec(), pattern: None, reason: 3, text: "no".into() };
        let field = RejectedNote {
            kind: Kind::Tool,
            name: vec![b'n'; 255],
            pattern: Some(vec![b'p'; 120]),
            reason: 1,
            text: "t".repeat(500),
        };
        notes.set_rejected(0, Some(&whole));
        notes.set_rejected(1, Some(&field));
        notes.set_rejected(2, Some(&field));
        let shown = RejectedNote { text: "t".repeat(TEXT_BYTES - 255 - 120), ..field };
        assert_eq!(notes.rejected().collect::<Vec<_>>(), [whole, shown.clone()]);
        // Longer than the note's length of a text can be.
        let endless = RejectedNote { text: "t".repeat(1 << 16), ..shown.clone() };
        notes.set_rejected(0, Some(&endless));
        assert_eq!(notes.rejected().collect::<Vec<_>>(), [shown.clone(), shown.clone()]);
        notes.set_rejected(0, None);
        assert_eq!(notes.rejected().collect::<Vec<_>>(), [shown]);
    }

    #[test]
    fn ring_keeps_the_latest_changes() {
        let owned = notes(7);
        let notes = Notes::new(&owned);
        let change = |number| Change {
            number,
            at: 1_790_000_000_123,
            change: [ChangeKind::Added, ChangeKind::Changed, ChangeKind::Removed][number as usize % 3],
            kind: Kind::Redirect,
            name: b"hello".to_vec(),
            routes: 2,
            backend: "http://10.0.0.1:80".into(),
        };
        (1..=5).for_each(|number| notes.add_change(&change(number)));
        assert_eq!((0..7).filter_map(|number| notes.change(number)).collect::<Vec<_>>(), [3, 4, 5].map(change));
    }

    #[test]
    fn a_note_left_half_written_is_absent_and_can_be_written_again() {
        let owned = notes(1);
        let notes = Notes::new(&owned);
        notes.set_error(Some("first"));
        owned[0].stamp.fetch_add(1, Relaxed);
        assert_eq!(notes.error(), None);
        notes.set_error(Some("second"));
        assert_eq!(notes.error().as_deref(), Some("second"));
    }
}
