//! Why readers are never misled: the argument, edge by edge, and the models that carry it out.
//!
//! # States
//!
//! A **slot** is empty or names a record: tag, first cell, low bits of its stamp. A **cell** is *free* (no slot names
//! it), *being written* (its record's stamp is 0), *ready* (its record's stamp is there, no slot names it yet) or
//! *named*. The writer takes each run of cells through `free -> being written -> ready -> named -> free`, and a slot
//! through `empty -> record -> record ... -> empty`. The step from ready to named, and the step from named to free, are
//! each one store of a slot; they are the only steps that a lookup's answer depends on. A tool stays in its slot until it
//! is withdrawn. An **overflow count** says how many tools with a home at or before that bucket live beyond it.
//!
//! There is one writer at a time. The lease orders writers: whatever a writer stored before it ended, however it
//! ended, its successor sees. So the writer's own loads, those of [`Writer::attach`](super::Writer::attach) included,
//! are Relaxed.
//!
//! # What a reader may return
//!
//! - `Found`: a record that some writer encoded for this very tool, whole, and that a slot named at some moment between
//!   the lookup's start and its end.
//! - `Absent`: the tool was in no slot at some such moment. Never for a tool that stays in the table, and never followed,
//!   in the same reader, by an older record of the tool.
//! - `Contended`: the slot changed during each of the tries. A try that fails has seen a newer slot than it began with, so
//!   that n changes cost at most n tries.
//!
//! # Edges
//!
//! Written as `writer's side / reader's side`. The order of the writer's stores around each is part of it.
//!
//! ## E1: who sees the slot sees the record
//!
//! `words, stamp, slot (Release) / slot (Acquire), stamp`. The slot comes last, so what it names is complete. Without the
//! Release or the Acquire the stamp would still keep a lookup from returning what is not there yet (E3), but it could
//! find the new slot and an old stamp at each of its tries, and give up for no reason.
//!
//! ## E2: who copied a word of a later record finds out
//!
//! `slot, stamp := 0, fence(Release), words / words, fence(Acquire), stamp and slot again`. Cells are written only when no
//! slot names them, so before their first word is stored the slot that did has changed. A reader that copied any such
//! word sees through the two fences both the changed slot and the zeroed stamp, or what came after them.
//!
//! Both are looked at again. The slot, because a cell may become the inside of a longer record: its first word is then a
//! tenant's text and no stamp, and may even be the old stamp still. The stamp, because the slot has only the lowest 20
//! bits of it: after exactly 2^20 records the same tool may be in the same cell again, and its slot's word is the
//! one that it was. The stamp's 64 bits are never used twice: the writer stores the highest in the header before it uses
//! it, so that a successor doesn't use it again either.
//!
//! ## E3: who sees a stamp sees that record's words, or later ones
//!
//! `words, stamp (Release) / stamp (Acquire), words`. E1 gives this for the record that the slot was stored for. For its
//! successor of 2^20 records later, under the same slot's word, only E3 does. It also makes a slot that is then found
//! unchanged the successor's: the slot has changed before that record was written (E2), so it was stored again since.
//!
//! ## E4: the way is open before the tool is there, and closed after it is gone
//!
//! `overflow + 1, slot (E1) / ` and `slot := 0, overflow - 1 (Release) / overflow, copy with E2's fence`. A lookup leaves
//! a bucket only if something overflowed it. Insertion counts first: who has seen the tool's record, by E1 or E3, sees
//! the count too, and coherence keeps it above zero for as long as the tool stays, whoever else comes and goes. That needs
//! no ordering of its own. Withdrawal counts last: who stopped at a zero and then comes upon the withdrawn record by
//! another way (a list, a count that rose again) sees in E2's second look that its slot is empty. That needs the
//! Release; the Acquire is the fence of that copy, so the count itself is loaded Relaxed.
//!
//! ## E5: who sees that the table is loaded sees its tools
//!
//! `slots, loaded := 1 (Release) / loaded (Acquire), lookup`. Whoever turns `Absent` into an answer asks first whether the
//! table is loaded, and only then looks.
//!
//! ## E6: a try that fails has seen a newer slot
//!
//! `slot, stamp := 0 (Release) / stamp (Acquire), slot of the next try`, and the same with E2's fence(Release) and a
//! fence(Acquire) where a try ends early because a length is none. Otherwise a lookup could begin each of its tries
//! with the old slot. The other failures have E3's or E2's Acquire side behind them already.
//!
//! # What a killed writer leaves
//!
//! A kill lands between two stores, and those before it are seen by the successor.
//!
//! - Before the slot's store: the old record or none, and cells that no slot names. Free, for the successor.
//! - After it: the new record or none, and the old one's cells. Free as well.
//! - Between a slot and an overflow count, on either way: the count is too high. Readers look further than they must;
//!   never less far. The successor counts anew, with E4's Release, as a withdrawal's end.
//! - Between the stamp's reservation and its use: a stamp that nobody ever uses.
//! - A line of counters assigned to a tool that is in no slot: it's the former owner's, as if it had been withdrawn.
//!
//! # The models
//!
//! They run the code itself on tables of one or two buckets with two slots each, under `loom`: `races.rs` one writer and
//! one reader per edge, `killed.rs` a writer killed after each of its stores, its successor, and a reader beside both.
//! Each ordering, fence, second look and order of stores named here is left out once, and the model must then fail:
//! see the calls of `fails`. The long search is complete, but for kills beyond a home, which it follows through five
//! preemptions. Not modelled: Redis's side, counters and the header's figures (each word stands for itself), failure
//! state (two words, argued in `health.rs`), the format of a zone (its magic word is stored before workers are forked), and
//! bigger loads than a few records, which `tests/module/writers_killed.rs` has.
//!
//! [`Table::is_current`](super::Table::is_current) has no edge: nothing is read on the strength of its answer. After `false`
//! the caller looks up anew, with E1; after `true` it goes on with what a lookup has copied, which was the record's at some
//! moment of the request.
//!
//! [`Header::age_seconds`](super::Header::age_seconds) has no edge: `in_step_at` is a figure that stands for itself, stored Relaxed at
//! most once a second, and no lookup depends on it. A reader may see it before it sees the slots stored just before it. That is
//! the time a store takes to another processor, far below the second in which the age is told.

#[cfg(all(test, loom))]
mod killed;
#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, loom))]
mod races;
