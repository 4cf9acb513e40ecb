//! Who may write: a lock that the kernel takes back the moment its holder is gone, however it went.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;

use rustix::fs::{FlockOperation, MemfdFlags, fcntl_lock, memfd_create};
use rustix::io::{Errno, pread, pwrite};

/// The right to write one table, which one process at a time may hold.
///
/// A POSIX record lock (`F_SETLK`) on the whole of an anonymous file. The master makes the file once and its workers
/// inherit the descriptor by fork; the lock itself belongs to the process that took it, is not inherited, outlasts
/// SIGSTOP and is dropped when that process ends. (Not `flock` or an open file description lock: forks share those.)
///
/// Closing *any* descriptor of the file in the holding process drops the lock, even one opened for a moment through
/// `/proc/self/fd`. So the file is opened once and never closed: dropping a `Lease` leaks its descriptor and releases
/// nothing. Threads of one process are not kept apart.
///
/// The file itself says which generation of workers is the newest to have asked for the lease, so that a holder whose
/// own event loop is too busy to learn of a reload gives way.
#[derive(Debug)]
pub struct Lease {
    file: ManuallyDrop<OwnedFd>,
}

impl Lease {
    /// Makes a new lease that nobody holds; `name` shows in `/proc/<pid>/fd`. Call it in the master, before fork.
    ///
    /// # Errors
    /// Those of memfd_create(2), in practice only a lack of descriptors.
    pub fn create(name: &str) -> io::Result<Self> {
        Ok(Self::of(memfd_create(name, MemfdFlags::CLOEXEC)?))
    }

    fn of(file: OwnedFd) -> Self {
        Self { file: ManuallyDrop::new(file) }
    }

    /// Takes the lease without waiting; true when this process holds it now, also when it did before.
    ///
    /// # Errors
    /// Those of fcntl(2) other than the lock being held elsewhere, in practice only `ENOLCK`.
    pub fn try_acquire(&self) -> io::Result<bool> {
        match fcntl_lock(&*self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Tells all holders of the lease, now and later, that a generation wants it. Older ones find themselves superseded.
    /// Generations count up, and one process at a time calls this for each.
    ///
    /// # Errors
    /// Those of pwrite(2), in practice only a lack of memory.
    pub fn announce(&self, generation: u64) -> io::Result<()> {
        if self.newest() < generation {
            pwrite(&*self.file, &generation.to_ne_bytes(), 0)?;
        }
        Ok(())
    }

    /// Whether a newer generation wants the lease.
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

    /// Gives the lease back; nothing happens when this process does not hold it.
    ///
    /// # Errors
    /// Those of fcntl(2), none in practice.
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
    const FILE: &str = "URLPROXY_TEST_LEASE";

    /// Another process that holds the lease, or says that it cannot. Killed when dropped.
    struct Holder(Child);

    impl Holder {
        /// Runs this test binary again, for the one "test" below that takes the lease.
        fn start(lease: &Lease) -> (Self, String) {
            let mut child = Command::new(env::current_exe().unwrap())
                .args(["--exact", "sync::lease::tests::holder", "--ignored", "--nocapture"])
                .env(FILE, format!("/proc/{}/fd/{}", id(), lease.file.as_raw_fd()))
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
        let lease = Lease::of(File::options().read(true).write(true).open(path).unwrap().into());
        println!("acquired: {}", lease.try_acquire().unwrap());
        // Until the parent kills this process or ends itself.
        let _ = io::stdin().read(&mut [0]);
    }

    #[test]
    fn one_process_holds_it_until_it_is_killed() {
        let lease = Lease::create("lease").unwrap();
        let (holder, acquired) = Holder::start(&lease);
        assert_eq!(acquired, "true");
        assert!(!lease.try_acquire().unwrap(), "busy while held");
        let stopped = Command::new("kill").args(["-STOP", &holder.0.id().to_string()]).status().unwrap();
        assert!(stopped.success() && !lease.try_acquire().unwrap(), "busy while the holder is stopped");
        drop(holder);
        assert!(lease.try_acquire().unwrap(), "free once the holder is gone");
        assert_eq!(Holder::start(&lease).1, "false", "busy for others");
    }

    #[test]
    fn released_it_is_free_for_others() {
        let lease = Lease::create("lease").unwrap();
        assert!(lease.try_acquire().unwrap());
        assert!(lease.try_acquire().unwrap(), "again");
        lease.release().unwrap();
        assert_eq!(Holder::start(&lease).1, "true");
        lease.release().unwrap();
    }

    #[test]
    fn the_newest_generation_supersedes_all_others() {
        let lease = Lease::create("lease").unwrap();
        assert!(!lease.is_superseded(0), "nobody has asked yet");
        lease.announce(2).unwrap();
        assert!(lease.is_superseded(1) && !lease.is_superseded(2) && !lease.is_superseded(3));
        lease.announce(1).unwrap();
        assert!(lease.is_superseded(1), "a worker of an old generation takes nothing back");
    }

    #[test]
    fn leases_are_apart() {
        let (one, other) = (Lease::create("lease").unwrap(), Lease::create("lease").unwrap());
        let _holder = Holder::start(&one);
        assert!(!one.try_acquire().unwrap());
        assert!(other.try_acquire().unwrap());
    }
}
