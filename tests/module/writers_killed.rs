//! Kills hundreds of writers of a shared table at any instruction, while readers check every record.
//!
//! Each tool goes through numbered versions, and its record is computed from the numbers of tool and version. A log in
//! shared memory has the version that a writer has begun and the one it has finished. So a reader knows the oldest and newest
//! version that a lookup may return, and each byte of it.
#![allow(unsafe_code)]

use std::env;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio, id};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::process::{Signal, set_parent_process_death_signal};
use siphasher::sip::SipHasher13;
use urlproxy::route::{Backend, Host, Kind, Pattern, Route, RouteKey, Scheme};
use urlproxy::table::{HostView, Lookup, PublishError, Record, Scratch, Table, Writer};

use crate::support::wait::SOON;

/// Environment variable of a writer: the path of the memory.
const MEMORY: &str = "URLPROXY_TEST_MEMORY";
/// Environment variable: number of writers to kill, for a long run.
const KILLS: &str = "URLPROXY_KILLS";
const SHORT_RUN: u64 = 500;

const LOG_BYTES: usize = 4096;
/// A small table with room for each change: a change without room would withdraw the tool.
const TABLE_BYTES: usize = 48 << 10;
const HASH_KEY: [u64; 2] = [1, 2];
/// Tools that are replaced but never withdrawn; as many others come and go. All records fill half of the table.
const STAYING: usize = 30;
const TOOLS: usize = 2 * STAYING;
const READERS: u64 = 2;

/// The writers' progress, in shared memory.
#[repr(C)]
struct SharedLog {
    /// The process that has attached, and how long that took.
    attached: AtomicU64,
    attach_nanoseconds: AtomicU64,
    /// States that a successor found and no predecessor may leave.
    faults: AtomicU64,
    changes: AtomicU64,
    refused: AtomicU64,
    tools: [Progress; TOOLS],
}

#[repr(C)]
struct Progress {
    begun: AtomicU64,
    done: AtomicU64,
}

const _: () = assert!(size_of::<SharedLog>() <= LOG_BYTES);

/// The log and the start of the table's memory, mapped from the file for the rest of the process.
fn map(file: &File) -> (&'static SharedLog, *mut u8) {
    let (bytes, protection) = (LOG_BYTES + TABLE_BYTES, ProtFlags::READ | ProtFlags::WRITE);
    // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
    let start = unsafe { mmap(null_mut(), bytes, protection, MapFlags::SHARED, file, 0) }.unwrap();
    // SAFETY: mapped just above, for good and page-aligned; any bytes are valid atomic words.
    let log = unsafe { &*start.cast::<SharedLog>() };
    (log, start.cast::<u8>().wrapping_add(LOG_BYTES))
}

/// SplitMix64, the source of all pseudorandom numbers here.
fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Names with hashes in the lowest eighth: they share a few home buckets, which overflow.
fn names() -> Vec<RouteKey> {
    let hasher = SipHasher13::new_with_keys(HASH_KEY[0], HASH_KEY[1]);
    let all = (0..).map(|n| format!("t{n}"));
    let near = all.filter(|name| hasher.hash(name.as_bytes()) >> 61 == 0);
    near.take(TOOLS).map(|name| RouteKey::try_new(Kind::Tool, name.as_bytes()).unwrap()).collect()
}

/// Patterns of 7 to 182 bytes, each with its own letter and length; records have one to ten cells.
fn texts() -> Vec<String> {
    ('a'..='z').zip(1..).map(|(letter, n)| letter.to_string().repeat(7 * n)).collect()
}

/// Whether a version of a tool has a record; every third version of a tool that comes and goes is an absence.
fn is_present(tool: usize, version: u64) -> bool {
    version > 0 && (tool < STAYING || !version.is_multiple_of(3))
}

/// For each route of a version: its number, the index of its pattern and the number of its backends.
fn shape(tool: usize, version: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let seed = mix(version << 8 | tool as u64);
    (0..1 + seed % 3).map(move |n| (n, (seed >> (8 + 8 * n)) as usize % 26, 1 + (seed >> (40 + 8 * n)) as usize % 3))
}

/// A backend's address is the version; its port is a checksum of tool, version, route and backend.
fn endpoint(tool: usize, version: u64, route: u64, backend: usize) -> (Ipv4Addr, u16) {
    let sum = mix(mix(version << 8 | tool as u64) ^ route << 8 ^ backend as u64);
    (Ipv4Addr::from_bits(version as u32), sum as u16 | 1)
}

fn routes(tool: usize, version: u64, patterns: &[Pattern]) -> Vec<Route> {
    let backend = |route, n| {
        let (ip, port) = endpoint(tool, version, route, n);
        Backend { scheme: Scheme::Http, host: Host::V4(ip), port }
    };
    shape(tool, version)
        .map(|(route, text, backends)| Route {
            pattern: patterns[text].clone(),
            backends: (0..backends).map(|n| backend(route, n)).collect(),
        })
        .collect()
}

/// The version of a record; `None` if any byte differs.
fn verify(tool: usize, name: &RouteKey, texts: &[String], record: Record<'_>) -> Option<u64> {
    let HostView::Ip(IpAddr::V4(ip)) = record.routes().next()?.first_backend()?.host else { return None };
    let version = u64::from(ip.to_bits());
    let mut read = record.routes();
    let is_whole = record.key() == name.as_bytes()
        && is_present(tool, version)
        && shape(tool, version).all(|(number, text, backends)| {
            let want = (0..backends).map(|n| endpoint(tool, version, number, n));
            read.next().is_some_and(|route| {
                route.pattern == texts[text].as_bytes()
                    && route
                        .backends()
                        .map(|b| (b.host, b.port))
                        .eq(want.map(|(ip, port)| (HostView::Ip(ip.into()), port)))
            })
        })
        && read.next().is_none();
    is_whole.then_some(version)
}

/// A process that writes until it is killed; dropping it kills it.
struct Victim(Child);

impl Victim {
    /// Runs this test binary again, for the one "test" below that writes.
    fn start(file: &File) -> Self {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "writers_killed::writer", "--ignored", "--nocapture"])
            .env(MEMORY, format!("/proc/{}/fd/{}", id(), file.as_raw_fd()))
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    /// How long it took to attach.
    fn wait_until_attached(&mut self, log: &SharedLog) -> Duration {
        let deadline = Instant::now() + SOON;
        while log.attached.load(SeqCst) != u64::from(self.0.id()) {
            assert!(Instant::now() < deadline && self.0.try_wait().unwrap().is_none(), "no writer attached");
            sleep(Duration::from_micros(50));
        }
        Duration::from_nanos(log.attach_nanoseconds.load(SeqCst))
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
#[ignore = "the child process of the other test"]
fn writer() {
    let path = env::var(MEMORY).unwrap();
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let (log, memory) = map(&File::options().read(true).write(true).open(path).unwrap());
    let (names, texts) = (names(), texts());
    let patterns: Vec<_> = texts.iter().map(|text| Pattern::try_new(text).unwrap()).collect();
    // SAFETY: mapped by `map` for the rest of the process, aligned to pages, written only through tables.
    let table = unsafe { Table::attach(memory, TABLE_BYTES) }.unwrap();
    let start = Instant::now();
    let (mut writer, found) = Writer::attach(table);
    log.attach_nanoseconds.store(start.elapsed().as_nanos() as u64, SeqCst);
    let mut tools = 0;
    let mut is_sound = found.damaged == 0;
    for (tool, progress) in log.tools.iter().enumerate() {
        let (done, begun) = (progress.done.load(SeqCst), progress.begun.load(SeqCst));
        let left = match table.lookup(names[tool].as_bytes(), &mut Scratch::default()) {
            Lookup::Found(record) => verify(tool, &names[tool], &texts, record),
            _ => (done..=begun).find(|&version| !is_present(tool, version)),
        };
        let left = left.filter(|left| (done..=begun).contains(left));
        is_sound &= left.is_some();
        progress.done.store(left.unwrap_or(begun), SeqCst);
        progress.begun.store(left.unwrap_or(begun), SeqCst);
        tools += u64::from(left.is_some_and(|left| is_present(tool, left)));
    }
    if !is_sound || found.tools != tools {
        eprintln!("a successor found {found:?}, and {tools} tools as the log has them");
        log.faults.fetch_add(1, SeqCst);
    }
    log.attached.store(id().into(), SeqCst);
    for turn in u64::from(id()) << 32.. {
        let tool = mix(turn) as usize % TOOLS;
        let (name, progress) = (&names[tool], &log.tools[tool]);
        let version = progress.done.load(SeqCst) + 1;
        let routes = routes(tool, version, &patterns);
        progress.begun.store(version, SeqCst);
        if is_present(tool, version) {
            match writer.publish(name, &routes) {
                Ok(_) => {}
                // New, and only the reserve is left: retried later.
                Err(PublishError::TableFull { .. }) => {
                    progress.begun.store(version - 1, SeqCst);
                    log.refused.fetch_add(1, Relaxed);
                    continue;
                }
                Err(error) => panic!("{error}"),
            }
        } else {
            writer.withdraw(name.as_bytes());
        }
        progress.done.store(version, SeqCst);
        log.changes.fetch_add(1, Relaxed);
    }
}

/// What a reader saw.
#[derive(Debug, Default)]
struct Observations {
    reads: u64,
    listings: u64,
    contended: u64,
    /// Records with bytes of another record.
    torn: u64,
    /// Absent tools that were present all the time.
    lost: u64,
    /// Versions older than a finished or seen one, or newer than the begun one.
    stale: u64,
}

fn read_until(stop: &AtomicBool, log: &SharedLog, table: Table<'_>, seed: u64) -> Observations {
    let (names, texts) = (names(), texts());
    let mut scratch = Scratch::default();
    let mut seen = Observations::default();
    let mut newest = [0; TOOLS];
    for turn in seed << 32.. {
        if stop.load(Relaxed) {
            break;
        }
        let tool = mix(turn) as usize % TOOLS;
        let (name, progress) = (&names[tool], &log.tools[tool]);
        let oldest = progress.done.load(SeqCst);
        let version = match table.lookup(name.as_bytes(), &mut scratch) {
            Lookup::Found(record) => Some(verify(tool, name, &texts, record)),
            Lookup::Absent => None,
            Lookup::Contended => {
                seen.contended += 1;
                continue;
            }
        };
        let may_be = oldest..=progress.begun.load(SeqCst);
        seen.reads += 1;
        match version {
            Some(None) => seen.torn += 1,
            Some(Some(version)) if !may_be.contains(&version) || version < newest[tool] => seen.stale += 1,
            Some(Some(version)) => newest[tool] = version,
            None if !may_be.clone().any(|version| !is_present(tool, version)) => seen.lost += 1,
            None => {}
        }
        if turn % 1024 == 0 {
            let mut listed = 0;
            table.for_each(&mut scratch, |record| {
                let tool = names.iter().position(|name| name.as_bytes() == record.key());
                match tool.and_then(|tool| Some((tool, verify(tool, &names[tool], &texts, record)?))) {
                    Some((tool, version)) if version < newest[tool] => seen.stale += 1,
                    Some((tool, _)) => listed += usize::from(tool < STAYING),
                    None => seen.torn += 1,
                }
            });
            seen.listings += 1;
            seen.lost += u64::from(listed < STAYING);
        }
    }
    seen
}

#[test]
fn readers_see_complete_current_records_despite_killed_writers() {
    let kills = env::var(KILLS).map_or(SHORT_RUN, |kills| kills.parse().unwrap());
    let file = File::from(memfd_create("table", MemfdFlags::CLOEXEC).unwrap());
    ftruncate(&file, (LOG_BYTES + TABLE_BYTES) as u64).unwrap();
    let (log, memory) = map(&file);
    // SAFETY: mapped by `map` from a new file, hence zero, for the rest of the process; only tables write to it.
    let table = unsafe { Table::format(memory, TABLE_BYTES, HASH_KEY) }.unwrap();
    let (names, texts) = (names(), texts());
    let patterns: Vec<_> = texts.iter().map(|text| Pattern::try_new(text).unwrap()).collect();
    let mut writer = Writer::attach(table).0;
    for (tool, name) in names.iter().enumerate().take(STAYING) {
        writer.publish(name, &routes(tool, 1, &patterns)).unwrap();
        log.tools[tool].begun.store(1, SeqCst);
        log.tools[tool].done.store(1, SeqCst);
    }
    drop(writer);

    let stop = AtomicBool::new(false);
    let (mut attach, mut in_the_middle) = (Vec::new(), 0);
    let seed = u64::from(id());
    let seen = thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|n| {
                scope.spawn({
                    let stop = &stop;
                    move || read_until(stop, log, table, n)
                })
            })
            .collect();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for kill in 0..kills {
                let mut victim = Victim::start(&file);
                let delay = mix(seed << 32 | kill);
                // One in eight may be killed while it attaches.
                if kill % 8 == 7 {
                    sleep(Duration::from_micros(delay % 8_000));
                    continue;
                }
                attach.push(victim.wait_until_attached(log));
                sleep(Duration::from_micros(delay % 3_000));
                drop(victim);
                let is_busy = |tool: &Progress| tool.done.load(SeqCst) != tool.begun.load(SeqCst);
                in_the_middle += u64::from(log.tools.iter().any(is_busy));
            }
        }));
        stop.store(true, SeqCst);
        let seen: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        outcome.map(|()| seen)
    });
    let seen = seen.unwrap_or_else(|payload| std::panic::resume_unwind(payload));
    let sum = |of: fn(&Observations) -> u64| seen.iter().map(of).sum::<u64>();
    let (reads, listings, contended) = (sum(|s| s.reads), sum(|s| s.listings), sum(|s| s.contended));
    let (torn, lost, stale) = (sum(|s| s.torn), sum(|s| s.lost), sum(|s| s.stale));
    let (changes, refused) = (log.changes.load(SeqCst), log.refused.load(SeqCst));
    attach.sort_unstable();
    println!(
        "kills={kills} in_the_middle={in_the_middle} changes={changes} refused={refused} reads={reads} \
         listings={listings} contended={contended} torn={torn} lost={lost} stale={stale} attach_p50={:?} attach_max={:?}",
        attach[attach.len() / 2],
        attach[attach.len() - 1],
    );
    assert_eq!((torn, lost, stale), (0, 0, 0), "torn, lost, stale");
    assert_eq!(log.faults.load(SeqCst), 0, "faults that successors found");
    // The test has tested something.
    assert!(
        in_the_middle > kills / 10
            && changes > kills
            && reads > changes
            && refused < changes
            && contended * 1000 < reads
    );
}
