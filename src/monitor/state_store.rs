//! Stores the restart history, in a file or in Redis.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tracing::error;

use super::redis_state::RedisState;
use super::restart_history::RestartHistory;
use super::state_error::StateError;

/// A larger file is corrupt.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Stores the restart history.
pub enum StateStore {
    /// A file, replaced atomically.
    File {
        path: PathBuf,
        /// The lock file, locked as long as this lives; `None` if the store is read-only.
        lock: Option<File>,
    },
    /// Redis keys, writable for the holder of a lock.
    Redis(Box<RedisState>),
}

impl StateStore {
    /// Locks a file for this process.
    ///
    /// # Errors
    /// The lock file is inaccessible, or another monitor holds it.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let name = beside(path, ".lock");
        let locked = File::options().create(true).append(true).open(&name).and_then(|file| {
            flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
                rustix::io::Errno::WOULDBLOCK => io::Error::other("another webservicemonitor runs"),
                error => error.into(),
            })?;
            Ok(file)
        });
        let lock = locked.map_err(|error| StateError::File { doing: "locking", path: name, error })?;
        Ok(Self::File { path: path.to_owned(), lock: Some(lock) })
    }

    /// A file that is only read, without the lock.
    pub fn open_read_only(path: &Path) -> Self {
        Self::File { path: path.to_owned(), lock: None }
    }

    /// Acquires or keeps the lock. Returns whether the history that this monitor saved last is still the stored one.
    ///
    /// # Errors
    /// Another monitor holds the lock, or Redis fails.
    pub async fn acquire(&self) -> Result<bool, StateError> {
        match self {
            Self::File { .. } => Ok(true),
            Self::Redis(store) => store.acquire().await,
        }
    }

    /// Releases the lock for good.
    pub async fn release(&self) {
        if let Self::Redis(store) = self {
            store.release().await;
        }
    }

    /// Releases the lock until the next [`Self::acquire`]. False for a file, which no other monitor can take over.
    pub async fn step_down(&self) -> bool {
        match self {
            Self::File { .. } => false,
            Self::Redis(store) => {
                store.step_down().await;
                true
            }
        }
    }

    /// Loads the history: an empty one if none was ever stored, [`RestartHistory::lost`] if the stored one is corrupt.
    ///
    /// # Errors
    /// The file or Redis is unavailable.
    pub async fn load(&self, now: u64, window: Duration) -> Result<RestartHistory, StateError> {
        match self {
            Self::File { path, lock } => load_file(path, lock.is_some(), now, window),
            Self::Redis(store) => store.load(now, window).await,
        }
    }

    /// Saves the history. On return it survives a crash of this process, and a file also a crash of the machine.
    ///
    /// # Errors
    /// The file or Redis is unavailable, or the lock is lost; the history may be saved or not.
    pub async fn save(&self, history: &RestartHistory) -> Result<(), StateError> {
        match self {
            Self::File { path, .. } => save_file(path, history).map_err(|error| StateError::File {
                doing: "writing",
                path: path.clone(),
                error,
            }),
            Self::Redis(store) => store.save(history).await,
        }
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn load_file(path: &Path, may_move: bool, now: u64, window: Duration) -> Result<RestartHistory, StateError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(RestartHistory::default()),
        Err(error) => return Err(StateError::File { doing: "reading", path: path.to_owned(), error }),
        Ok(_) => {}
    }
    // Parsed as an object first: derived code accepts an array, too.
    let object: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_slice(&bytes);
    match object.and_then(|object| serde_json::from_value(object.into())) {
        Ok(history) => Ok(history),
        Err(reason) => {
            let aside = beside(path, ".corrupt");
            error!(state = %path.display(), error = %reason, moved_to = %aside.display(), window = ?window,
                "restart history is corrupt; nothing is restarted for one window, or until the accept file is touched");
            if may_move {
                let failed = |error| StateError::File { doing: "moving aside", path: path.to_owned(), error };
                fs::rename(path, &aside).map_err(failed)?;
            }
            Ok(RestartHistory::lost(now, window))
        }
    }
}

/// Writes and syncs a temporary file, then renames it.
fn save_file(path: &Path, history: &RestartHistory) -> io::Result<()> {
    let temporary = beside(path, ".new");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(history)?)?;
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
    async fn file_keeps_the_history() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let store = StateStore::open(&path).unwrap();
        assert_eq!(store.load(100, WINDOW).await.unwrap(), RestartHistory::default());
        let mut history = RestartHistory::default();
        history.record_start("hello", 100);
        history.record_notice("hello", "throttled", 100);
        history.rounds.jobs.accept(50);
        store.save(&history).await.unwrap();
        assert_eq!(store.load(100, WINDOW).await.unwrap(), history);
        assert!(StateStore::open(&path).is_err_and(|error| error.to_string().contains("another webservicemonitor")));
        drop(store);
        assert_eq!(StateStore::open(&path).unwrap().load(100, WINDOW).await.unwrap(), history);
    }

    #[tokio::test]
    async fn corrupt_file_is_moved_aside_and_suspends_for_a_window() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        for wrong in ["", "{", "[]", "{}", "{\"starts\":{\"a\":[-1]}}", "\u{0}"] {
            fs::write(&path, wrong).unwrap();
            let looked = StateStore::open_read_only(&path).load(100, WINDOW).await.unwrap();
            assert_eq!(looked.rounds.suspended_until, Some(3700), "{wrong:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), wrong, "read-only stores move nothing");
            let store = StateStore::open(&path).unwrap();
            assert_eq!(store.load(100, WINDOW).await.unwrap().rounds.suspended_until, Some(3700), "{wrong:?}");
            assert_eq!(fs::read_to_string(dir.path().join("state.corrupt")).unwrap(), wrong);
        }
    }

    #[tokio::test]
    async fn unreadable_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let store = StateStore::open_read_only(dir.path());
        assert!(store.load(100, WINDOW).await.is_err());
        assert!(store.save(&RestartHistory::default()).await.is_err());
    }
}
