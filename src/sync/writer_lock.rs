//! The writer lock: at most one process writes a table, and the kernel releases the lock when that process ends.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;

use rustix::fs::{FlockOperation, MemfdFlags, fcntl_lock, memfd_create};
use rustix::io::{Errno, pread, pwrite};

/// The right to write one table, held by at most one process.
///
/// A POSIX record lock (`F_SETLK`) on an anonymous file. The master creates the file once and its workers inherit the
/// descriptor by fork; the lock belongs to the process that took it, is not inherited, survives SIGSTOP and is released
/// when that process ends. (Not `flock` or an open file description lock: forks share those.)
///
/// Closing *any* descriptor of the file in the holding process releases the lock, even one opened briefly through
/// `/proc/self/fd`. Therefore the file is opened once and never closed: dropping a `WriterLock` leaks its descriptor and
/// releases nothing. The lock does not exclude threads of one process from each other.
///
/// The file's content is the newest worker generation that has requested the lock, so that a holder yields after a reload
/// even if its own event loop is too busy to notice the reload.
#[derive(Debug)]
pub struct WriterLock {
    file: ManuallyDrop<OwnedFd>,
}

impl WriterLock {
    /// Creates a free lock; `name` appears in `/proc/<pid>/fd`. Call this in the master, before fork.
    ///
    /// # Errors
    /// Those of memfd_create(2); in practice only a lack of descriptors.
    pub fn create(name: &str) -> io::Result<Self> {
        Ok(Self::of(memfd_create(name, MemfdFlags::CLOEXEC)?))
    }

    fn of(file: OwnedFd) -> Self {
        Self { file: ManuallyDrop::new(file) }
    }

    /// Tries to take the lock without waiting; true if this process holds it afterwards.
    ///
    /// # Errors
    /// Those of fcntl(2), except for a lock held elsewhere; in practice only `ENOLCK`.
    pub fn try_acquire(&self) -> io::Result<bool> {
        match fcntl_lock(&*self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Announces that a worker generation requests the lock; older generations are superseded. Generations count up, and
    /// one process at a time announces.
    ///
    /// # Errors
    /// Those of pwrite(2); in practice only a lack of memory.
    pub fn announce(&self, generation: u64) -> io::Result<()> {
        if self.newest() < generation {
            pwrite(&*self.file, &generation.to_ne_bytes(), 0)?;
        }
        Ok(())
    }

    /// Whether a newer generation has requested the lock.
    pub fn is_superseded(&self, generation: u64) -> bool {
        self.newest() > generation
    }

    fn newest(&self) -> u64 {
        let mut bytes = [0; 8];
        match pread(&*self.file, &mut bytes, 0) {
            Ok(8) => u64::from_ne_bytes(bytes),
            _ => 0,
        }
    }

    /// Releases the lock; no effect if this process does not hold it.
    ///
    /// # Errors
    /// Those of fcntl(2); none in practice.
    pub fn release(&self) -> io::Result<()> {
        Ok(fcntl_lock(&*self.file, FlockOperation::NonBlockingUnlock)?)
    }
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs::File;
    use std::io::{BufRead, BufReader, Read};
    use std::os::fd::AsRawFd;
    use std::process::{Child, Command, Stdio, id};

    use super::*;

    /// Set in a child: the path of the file to lock.
    const FILE: &str = "URLPROXY_TEST_LOCK";

    /// Another process that tries to take the lock and reports the outcome. Killed when dropped.
    struct Holder(Child);

    impl Holder {
        /// Runs this test binary again, for the one "test" below that takes the lock.
        fn start(lock: &WriterLock) -> (Self, String) {
            let mut child = Command::new(env::current_exe().unwrap())
                .args(["--exact", "sync::writer_lock::tests::holder", "--ignored", "--nocapture"])
                .env(FILE, format!("/proc/{}/fd/{}", id(), lock.file.as_raw_fd()))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
            let answer = lines.filter_map(|line| Some(line.split_once("acquired: ")?.1.to_owned())).next();
            (Self(child), answer.unwrap_or_default())
        }
    }

    impl Drop for Holder {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    #[test]
    #[ignore = "the child process of other tests"]
    fn holder() {
        let path = env::var(FILE).unwrap();
        let lock = WriterLock::of(File::options().read(true).write(true).open(path).unwrap().into());
        println!("acquired: {}", lock.try_acquire().unwrap());
        // Blocks until the parent kills this process or ends.
        let _ = io::stdin().read(&mut [0]);
    }

    #[test]
    fn one_process_holds_the_lock_until_it_is_killed() {
        let lock = WriterLock::create("lock").unwrap();
        let (holder, acquired) = Holder::start(&lock);
        assert_eq!(acquired, "true");
        assert!(!lock.try_acquire().unwrap(), "busy while held");
        let stopped = Command::new("kill").args(["-STOP", &holder.0.id().to_string()]).status().unwrap();
        assert!(stopped.success() && !lock.try_acquire().unwrap(), "busy while the holder is stopped");
        drop(holder);
        assert!(lock.try_acquire().unwrap(), "free once the holder is gone");
        assert_eq!(Holder::start(&lock).1, "false", "busy for others");
    }

    #[test]
    fn a_released_lock_is_free_for_others() {
        let lock = WriterLock::create("lock").unwrap();
        assert!(lock.try_acquire().unwrap());
        assert!(lock.try_acquire().unwrap(), "again");
        lock.release().unwrap();
        assert_eq!(Holder::start(&lock).1, "true");
        lock.release().unwrap();
    }

    #[test]
    fn the_newest_generation_supersedes_all_others() {
        let lock = WriterLock::create("lock").unwrap();
        assert!(!lock.is_superseded(0), "no generation has requested it yet");
        lock.announce(2).unwrap();
        assert!(lock.is_superseded(1) && !lock.is_superseded(2) && !lock.is_superseded(3));
        lock.announce(1).unwrap();
        assert!(lock.is_superseded(1), "an older generation does not undo a newer request");
    }

    #[test]
    fn locks_are_independent() {
        let (one, other) = (WriterLock::create("lock").unwrap(), WriterLock::create("lock").unwrap());
        let _holder = Holder::start(&one);
        assert!(!one.try_acquire().unwrap());
        assert!(other.try_acquire().unwrap());
    }
}
