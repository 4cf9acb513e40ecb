//! Runs a companion on a private table while a test changes its source.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use urlproxy::sync::{Entry, Journal, JournalReader, Settings, WriterLock, run};
use urlproxy::table::{Capacity, OwnedTable, Scratch, Table};

pub const CAPACITY: Capacity = Capacity { buckets: 512, cells: 8192, tools: 2048, health: 1, ..Capacity::NONE };

pub fn settings(url: &str) -> Settings {
    Settings::new(url.parse().unwrap())
}

/// All routes: `key pattern` to `backend backend ...`; a redirect's key to an empty text.
pub fn routes(table: Table<'_>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    table.for_each(&mut Scratch::default(), |record| {
        if record.routes().next().is_none() {
            all.insert(record.key().escape_ascii().to_string(), String::new());
        }
        for route in record.routes() {
            let key = format!("{} {}", record.key().escape_ascii(), route.pattern.escape_ascii());
            let backends: Vec<_> = route.backends().map(|b| b.to_string()).collect();
            all.insert(key, backends.join(" "));
        }
    });
    all
}

pub fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

pub fn lines(reader: &JournalReader) -> Vec<Entry> {
    std::iter::from_fn(|| reader.next_entry()).collect()
}

/// Whether a record lock is held on this process's memory file with that name.
pub fn is_locked(name: &str) -> bool {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten().map(|entry| entry.path());
    let is_it = |path: &PathBuf| std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().contains(name));
    let inode = std::fs::metadata(open.into_iter().find(is_it).expect("the file")).unwrap().ino();
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    locks.lines().any(|line| line.split(' ').any(|word| word.ends_with(&format!(":{inode}"))))
}

/// Runs a companion during `test`; returns its log lines.
pub fn following(settings: &Settings, test: impl FnOnce(Table<'_>)) -> Vec<Entry> {
    following_in(&OwnedTable::new(CAPACITY), settings, test)
}

/// Like [`following`], with an existing table.
pub fn following_in(owned: &OwnedTable, settings: &Settings, test: impl FnOnce(Table<'_>)) -> Vec<Entry> {
    let (journal, reader) = Journal::new(1000);
    let lock = WriterLock::create("test").unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| run(owned.table(), settings, &lock, &journal, &|| stop.load(Relaxed)));
        let guard = StopOnDrop(&stop);
        test(owned.table());
        drop(guard);
    });
    lines(&reader)
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
