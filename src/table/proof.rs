//! Why readers never return wrong data: the argument, edge by edge, and the models that check it.
//!
//! # States
//!
//! A **slot** is empty or points to a record: tag, first cell, low bits of its stamp. A **cell** is *free* (no slot points to
//! it), *being written* (its record's stamp is 0), *ready* (its record's stamp is stored, no slot points to it yet) or *live*.
//! The writer takes each run of cells through `free -> being written -> ready -> live -> free`, and a slot through
//! `empty -> record -> record ... -> empty`. The steps from ready to live and from live to free are one store of a slot each;
//! a lookup's answer depends on these steps only. A tool stays in its slot until it is withdrawn. An **overflow count** is the
//! number of tools with a home at or before that bucket that are stored after it.
//!
//! There is one writer at a time. The writer lock orders writers: a writer sees all stores of its predecessor, however that
//! ended. So the writer's own loads, including those of [`Writer::attach`](super::Writer::attach), are Relaxed.
//!
//! # What a reader may return
//!
//! - `Found`: a complete record that a writer encoded for this very tool, and to which a slot pointed at some moment during
//!   the lookup.
//! - `Absent`: no slot pointed to the tool at some moment during the lookup. Never for a tool that stays in the table, and
//!   never followed, in the same reader, by an older record of the tool.
//! - `Contended`: the slot changed during each try. A failed try has seen a newer slot than it began with, so n changes cost
//!   at most n tries.
//!
//! # Edges
//!
//! Written as `writer's side / reader's side`. The order of the writer's stores is part of each edge.
//!
//! ## E1: a reader that sees the slot sees the record
//!
//! `words, stamp, slot (Release) / slot (Acquire), stamp`. The slot is stored last, so its record is complete. Without the
//! Release or the Acquire, the stamp would still prevent an incomplete result (E3), but a lookup could find the new slot and
//! an old stamp in each try, and give up needlessly.
//!
//! ## E2: a reader that copied a word of a later record notices
//!
//! `slot, stamp := 0, fence(Release), words / words, fence(Acquire), stamp and slot again`. Cells are written only while no
//! slot points to them, so their former slot has changed before their first word is stored. Through the two fences, a reader
//! that copied such a word sees the changed slot and the zeroed stamp, or later values.
//!
//! The reader rechecks both. The slot, because a cell may become the inside of a longer record: its first word is then a
//! tenant's text instead of a stamp, and may even equal the old stamp. The stamp, because the slot has only its lowest 20
//! bits: after exactly 2^20 records the same tool may be in the same cell again, with the same word in its slot. The 64 bits
//! of a stamp are unique: the writer stores the highest stamp in the header before using it, so its successor does not reuse
//! it.
//!
//! ## E3: a reader that sees a stamp sees that record's words, or later ones
//!
//! `words, stamp (Release) / stamp (Acquire), words`. For the record that the slot was stored for, E1 ensures this. For the
//! record 2^20 later, under the same slot word, only E3 does. E3 also implies that a slot then found unchanged belongs to the
//! later record: the slot changed before that record was written (E2), so it was stored again since.
//!
//! ## E4: the probe path opens before the tool appears and closes after it is gone
//!
//! `overflow + 1, slot (E1) / ` and `slot := 0, overflow - 1 (Release) / overflow, copy with E2's fence`. A lookup leaves a
//! bucket only if a key has overflowed it. Insertion counts first: a reader that has seen the tool's record, by E1 or E3, also
//! sees the count, and coherence keeps it above zero while the tool stays, whichever others come and go. That needs no
//! ordering of its own. Withdrawal counts last: a reader that stopped at a zero and later finds the withdrawn record on another
//! path (a list, a count that rose again) sees in E2's recheck that its slot is empty. That needs the Release; the Acquire is
//! the fence of that copy, so the count itself is loaded Relaxed.
//!
//! ## E5: a reader that sees a loaded table sees its tools
//!
//! `slots, loaded := 1 (Release) / loaded (Acquire), lookup`. Before turning `Absent` into an answer, a caller checks that the
//! table is loaded, and only then looks up.
//!
//! ## E6: a failed try has seen a newer slot
//!
//! `slot, stamp := 0 (Release) / stamp (Acquire), slot of the next try`, and the same with E2's fence(Release) and a
//! fence(Acquire) where a try ends early at an invalid length. Otherwise a lookup could begin each try with the old slot. All
//! other failures come after E3's or E2's Acquire side.
//!
//! ## E7: a reader of a statistic's text sees one text
//!
//! `stamp := odd, fence(Release), words, stamp := even (Release) / stamp (Acquire), words, fence(Acquire), stamp again`, for
//! [`Note`](super::stats::Note); for [`Series`](super::stats::Series) the owner is the stamp, and 0 stands for odd. No lookup
//! depends on these; a reader that finds a changed stamp skips the text. The same tool may get its series again: its name is
//! the same then, and its counts are figures.
//!
//! ## E8: whoever sees the state of a question sees its words
//!
//! `words, state (Release) / state (Acquire), words`, for [`Question`](super::stats::Question), in both directions. Each change
//! of state is a compare-and-exchange, and only one side may write in each state.
//!
//! # What a killed writer leaves
//!
//! A kill falls between two stores; the successor sees those before it.
//!
//! - Before the slot's store: the old record or none, and cells without a slot, which are free for the successor.
//! - After it: the new record or none, and the old record's cells, which are free as well.
//! - Between a slot and an overflow count, in either order: the count is too high. Readers probe further than necessary,
//!   never less far. The successor recounts, with E4's Release, as at the end of a withdrawal.
//! - Between a stamp's reservation and its use: an unused stamp.
//! - A counter line assigned to a tool without a slot: it stays that tool's, as if the tool had been withdrawn.
//! - A note or a series that is half written: it reads as absent until it is written again.
//!
//! # The models
//!
//! They run the code itself under `loom`, on tables of one or two buckets with two slots each: `races.rs` one writer and one
//! reader per edge, `killed.rs` a writer killed after each of its stores, its successor, and a reader beside both. Each
//! ordering, fence, recheck and order of stores above is left out once, and the model must then fail: see the calls of
//! `fails`. The full search is exhaustive, except for kills beyond a home bucket, which it follows through five preemptions.
//! Not modeled: Redis, counters, statistics without text and the header's figures (independent words), health state (two words, argued in
//! `health.rs`), the formatting of a zone (its magic word is stored before workers are forked), and more than a few records,
//! which `tests/module/writers_killed.rs` covers.
//!
//! [`Table::is_current`](super::Table::is_current) has no edge: no read relies on its answer. After `false` the caller looks up
//! again, with E1; after `true` it keeps using its copy, which was the record at some moment of the request.
//!
//! [`Header::age_seconds`](super::Header::age_seconds) has no edge: `in_step_at` is an independent figure, stored Relaxed at most
//! once a second, and no lookup depends on it. A reader may see it before the slots stored just before it, by the time that a
//! store takes to another processor: far less than the second in which ages are counted.

#[cfg(all(test, loom))]
mod killed;
#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, loom))]
mod races;
#[cfg(all(test, loom))]
mod texts;
