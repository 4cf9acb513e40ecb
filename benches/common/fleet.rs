//! Companions in processes of their own. Their tables lie in memory that this process shares, so that it sees each change
//! without asking anybody.
#![allow(unsafe_code)]

use std::env;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio, id};
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use urlproxy::route::RouteKey;
use urlproxy::sync::{Journal, Settings, WriterLock, run};
use urlproxy::table::{Lookup, ResyncCause, Scratch, Table};

use crate::child;

/// Environment variable of a companion: its table's file, offset and length, the resync interval in seconds, and the source.
const COMPANION: &str = "URLPROXY_BENCH_COMPANION";
const PAGE: usize = 4096;

/// Ends with the value.
pub struct Fleet {
    _file: File,
    tables: Vec<Table<'static>>,
    children: Vec<Child>,
}

/// Counters of a fleet that only grow.
#[derive(Clone)]
pub struct Scans(Vec<[u64; ResyncCause::ALL.len()]>);

impl Fleet {
    /// Starts `count` companions, each with a table for `tools` tools.
    pub fn start(count: usize, tools: usize, source: &str, resync: Duration) -> Self {
        let bytes = (tools * 192 + (1 << 20)).next_multiple_of(PAGE);
        let file = memfd_create("bench", MemfdFlags::CLOEXEC).unwrap_or_else(|e| panic!("{e}"));
        ftruncate(&file, (count * bytes) as u64).unwrap_or_else(|e| panic!("{e}"));
        let file = File::from(file);
        let tables = (0..count).map(|number| {
            let memory = map(&file, number * bytes, bytes);
            // SAFETY: mapped just above for the rest of the process, zero, and written only through tables.
            unsafe { Table::format(memory, bytes, [1, 2]) }.unwrap_or_else(|e| panic!("{e}"))
        });
        let tables = tables.collect();
        let program = env::current_exe().unwrap_or_else(|e| panic!("{e}"));
        let children = (0..count).map(|number| {
            let path = format!("/proc/{}/fd/{}", id(), file.as_raw_fd());
            let order = format!("{path} {} {bytes} {} {source}", number * bytes, resync.as_secs());
            let mut command = Command::new(&program);
            command.env(COMPANION, order).stdin(Stdio::null()).stdout(Stdio::null());
            child::spawn(&mut command).unwrap_or_else(|e| panic!("{e}"))
        });
        let children = children.collect();
        Self { _file: file, tables, children }
    }

    /// Waits until all have loaded their tables; returns the time.
    pub fn loaded(&self) -> Duration {
        let begun = Instant::now();
        let limit = Duration::from_secs(300);
        while !self.tables.iter().all(|table| table.header().is_loaded()) {
            assert!(begun.elapsed() < limit, "the companions do not load their tables");
            std::thread::sleep(Duration::from_millis(1));
        }
        begun.elapsed()
    }

    /// The scans that each has completed.
    pub fn scans(&self) -> Scans {
        Scans(self.tables.iter().map(|table| table.source().read().resyncs).collect())
    }

    /// Whether each has completed a scan on a new connection since.
    pub fn has_reconnected_since(&self, before: &Scans) -> bool {
        let at = ResyncCause::Connect as usize;
        self.tables.iter().zip(&before.0).all(|(table, before)| table.source().read().resyncs[at] > before[at])
    }

    /// Waits until every table has the port as the tool's; false after 30 s.
    pub fn all_have(&self, key: &RouteKey, port: u16) -> bool {
        let begun = Instant::now();
        let mut scratch = Scratch::default();
        let mut has = |table: &Table<'_>| match table.lookup(key.as_bytes(), &mut scratch) {
            Lookup::Found(record) => {
                record.routes().next().and_then(|r| r.first_backend()).map(|b| b.port) == Some(port)
            }
            _ => false,
        };
        self.tables.iter().all(|table| {
            while !has(table) {
                if begun.elapsed() > Duration::from_secs(30) {
                    return false;
                }
                std::thread::sleep(Duration::from_micros(30));
            }
            true
        })
    }

    /// Memory of one companion in KiB, average: its own, and of the table.
    pub fn memory_kib(&self) -> (u64, u64) {
        let of = |child: &Child, name: &str| {
            let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        let sum = |name: &str| self.children.iter().map(|child| of(child, name)).sum::<u64>();
        let count = self.children.len().max(1) as u64;
        (sum("RssAnon:") / count, sum("RssShmem:") / count)
    }

    /// Time of all companions on a processor until now, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        let of = |child: &Child| {
            let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).into_iter().flatten().flatten();
            let times = tasks.filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok());
            times.filter_map(|times| times.split(' ').next()?.parse::<f64>().ok()).sum::<f64>() / 1e9
        };
        self.children.iter().map(of).sum()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
        }
        for child in &mut self.children {
            let _ = child.wait();
        }
    }
}

fn map(file: &File, offset: usize, bytes: usize) -> *mut u8 {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
    let start = unsafe { mmap(null_mut(), bytes, protection, MapFlags::SHARED, file, offset as u64) };
    start.unwrap_or_else(|e| panic!("{e}")).cast()
}

/// Runs a companion if this process is one, for the rest of its life.
pub fn run_if_companion() {
    let Ok(order) = env::var(COMPANION) else { return };
    let parts: Vec<&str> = order.splitn(5, ' ').collect();
    let [path, offset, bytes, resync, source] = parts.as_slice() else { panic!("{order}") };
    let number = |text: &str| text.parse::<usize>().unwrap_or_else(|e| panic!("{e}"));
    let file = File::options().read(true).write(true).open(path).unwrap_or_else(|e| panic!("{e}"));
    let memory = map(&file, number(offset), number(bytes));
    // SAFETY: mapped by `map` for the rest of the process and written only through tables.
    let table = unsafe { Table::attach(memory, number(bytes)) }.unwrap_or_else(|e| panic!("{e}"));
    let settings = Settings {
        resync_interval: Duration::from_secs(number(resync) as u64),
        ..Settings::new(source.parse().unwrap_or_else(|e| panic!("{e}")))
    };
    let lock = WriterLock::create("bench").unwrap_or_else(|e| panic!("{e}"));
    // Nobody reads it: the ring drops what does not fit.
    let (journal, _reader) = Journal::new(16);
    run(table, &settings, &lock, &journal, &|| false);
    std::process::exit(1);
}
