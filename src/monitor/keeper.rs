//! Where the memory is kept: a file, or Redis.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tracing::error;

use super::keeper_error::KeeperError;
use super::memory::Memory;
use super::redis_keeper::RedisKeeper;

/// A file that is larger is none of ours.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Keeps it.
pub enum Keeper {
    /// In a file, replaced as a whole. The other one is locked for as long as this lives.
    File {
        /// Which one.
        path: PathBuf,
        /// `None` is for one that only looks.
        lock: Option<File>,
    },
    /// In Redis, for the holder of a lock.
    Redis(Box<RedisKeeper>),
}

impl Keeper {
    /// A file, for this process alone.
    ///
    /// # Errors
    /// The file system's; another monitor has it.
    pub fn open(path: &Path) -> Result<Self, KeeperError> {
        let name = beside(path, ".lock");
        let locked = File::options().create(true).append(true).open(&name).and_then(|file| {
            flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
                rustix::io::Errno::WOULDBLOCK => io::Error::other("another webservicemonitor runs"),
                error => error.into(),
            })?;
            Ok(file)
        });
        let lock = locked.map_err(|error| KeeperError::File { doing: "locking", path: name, error })?;
        Ok(Self::File { path: path.to_owned(), lock: Some(lock) })
    }

    /// A file that is only read.
    pub fn look_at(path: &Path) -> Self {
        Self::File { path: path.to_owned(), lock: None }
    }

    /// Makes sure that this monitor alone goes by it: whether what it has saved last is still what is kept.
    ///
    /// # Errors
    /// Another has it; it cannot be asked for.
    pub async fn claim(&self) -> Result<bool, KeeperError> {
        match self {
            Self::File { .. } => Ok(true),
            Self::Redis(keeper) => keeper.claim().await,
        }
    }

    /// Lets another monitor have it at once.
    pub async fn release(&self) {
        if let Self::Redis(keeper) = self {
            keeper.release().await;
        }
    }

    /// Lets another monitor have it until it is claimed again; false where there can be no other.
    pub async fn stand_down(&self) -> bool {
        match self {
            Self::File { .. } => false,
            Self::Redis(keeper) => {
                keeper.stand_down().await;
                true
            }
        }
    }

    /// What is kept: empty when there never was anything, [`Memory::lost`] when it cannot be understood.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn load(&self, now: u64, window: Duration) -> Result<Memory, KeeperError> {
        match self {
            Self::File { path, lock } => load_file(path, lock.is_some(), now, window),
            Self::Redis(keeper) => keeper.load(now, window).await,
        }
    }

    /// Keeps it; on return it survives a crash of this process, and a file a crash of the machine.
    ///
    /// # Errors
    /// It may not be kept.
    pub async fn save(&self, memory: &Memory) -> Result<(), KeeperError> {
        match self {
            Self::File { path, .. } => save_file(path, memory).map_err(|error| KeeperError::File {
                doing: "writing",
                path: path.clone(),
                error,
            }),
            Self::Redis(keeper) => keeper.save(memory).await,
        }
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn load_file(path: &Path, may_move: bool, now: u64, window: Duration) -> Result<Memory, KeeperError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Memory::default()),
        Err(error) => return Err(KeeperError::File { doing: "reading", path: path.to_owned(), error }),
        Ok(_) => {}
    }
    // An object: derived code takes an array, too.
    let object: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_slice(&bytes);
    match object.and_then(|object| serde_json::from_value(object.into())) {
        Ok(memory) => Ok(memory),
        Err(reason) => {
            let aside = beside(path, ".corrupt");
            error!(state = %path.display(), %reason, aside = %aside.display(), hold = ?window,
                "the restarts until now are not known: nothing is restarted for one window");
            if may_move {
                let failed = |error| KeeperError::File { doing: "moving aside", path: path.to_owned(), error };
                fs::rename(path, &aside).map_err(failed)?;
            }
            Ok(Memory::lost(now, window))
        }
    }
}

/// A temporary file, on the disk, then the old one's name.
fn save_file(path: &Path, memory: &Memory) -> io::Result<()> {
    let temporary = beside(path, ".new");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(memory)?)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_file_keeps_it_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let keeper = Keeper::open(&path).unwrap();
        assert_eq!(keeper.load(100, WINDOW).await.unwrap(), Memory::default());
        let mut memory = Memory::default();
        memory.note_start("hello", 100);
        memory.is_news("hello", "throttled", 100);
        memory.rounds.jobs.accept(50);
        keeper.save(&memory).await.unwrap();
        assert_eq!(keeper.load(100, WINDOW).await.unwrap(), memory);
        assert!(Keeper::open(&path).is_err_and(|error| error.to_string().contains("another webservicemonitor")));
        drop(keeper);
        assert_eq!(Keeper::open(&path).unwrap().load(100, WINDOW).await.unwrap(), memory);
    }

    #[tokio::test]
    async fn a_corrupt_file_is_moved_aside_and_holds_for_a_window() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        for wrong in ["", "{", "[]", "{}", "{\"starts\":{\"a\":[-1]}}", "\u{0}"] {
            fs::write(&path, wrong).unwrap();
            let looked = Keeper::look_at(&path).load(100, WINDOW).await.unwrap();
            assert_eq!(looked.rounds.held_until, Some(3700), "{wrong:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), wrong, "only looked at");
            let keeper = Keeper::open(&path).unwrap();
            assert_eq!(keeper.load(100, WINDOW).await.unwrap().rounds.held_until, Some(3700), "{wrong:?}");
            assert_eq!(fs::read_to_string(dir.path().join("state.corrupt")).unwrap(), wrong);
        }
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_no_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = Keeper::look_at(dir.path());
        assert!(keeper.load(100, WINDOW).await.is_err());
        assert!(keeper.save(&Memory::default()).await.is_err());
    }
}
