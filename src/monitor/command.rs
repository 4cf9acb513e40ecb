//! Runs a program that may hang, fail, or never stop talking.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;

/// What is kept of standard error, in bytes.
const MAX_COMPLAINT: usize = 4096;
/// For what a program has left behind that still holds its output, once it has ended.
const LINGER: Duration = Duration::from_millis(500);

/// Why a program has not done what it should.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// No such program, or not for us.
    #[error("{error} while starting {program:?}")]
    NotStarted {
        /// Which one.
        program: String,
        /// Why.
        error: io::Error,
    },
    /// It was killed.
    #[error("{program:?} had not ended after {after:?}: killed")]
    TimedOut {
        /// Which one.
        program: String,
        /// What it was given.
        after: Duration,
    },
    /// Nothing it says is believed.
    #[error("{program:?} printed more than {most} bytes")]
    TooLong {
        /// Which one.
        program: String,
        /// What is read of it.
        most: usize,
    },
    /// By its own account.
    #[error("{program:?} ended with {status}: {output}")]
    Failed {
        /// Which one.
        program: String,
        /// With what.
        status: ExitStatus,
        /// The end of what it said, on one line.
        output: String,
    },
}

/// A process group and everything below it, killed when dropped before it was let go.
struct Group(Option<Pid>);

impl Group {
    fn let_go(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // A login may have begun sessions of its own.
            let below = descendants(group);
            // Gone already: just as well.
            let _ = kill_process_group(group, Signal::KILL);
            for pid in below {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// All processes that descend from one, as far as they still have their parents.
fn descendants(ancestor: Pid) -> Vec<Pid> {
    let mut found = vec![ancestor];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        next += 1;
        let Ok(threads) = std::fs::read_dir(format!("/proc/{parent}/task")) else { continue };
        for thread in threads.flatten() {
            let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            found.extend(children.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)));
        }
    }
    found.split_off(1)
}

/// Runs it to its end, in a process group of its own, and returns what it printed.
///
/// # Errors
/// It could not be started, took longer than `limit`, printed more than `most` bytes, or ended with another status than 0.
pub async fn run(command: Command, limit: Duration, most: usize) -> Result<Vec<u8>, CommandError> {
    let mut printed = Vec::new();
    converse(command, b"", limit, most, &mut printed).await.map(|()| printed)
}

/// The same; it finds `input` on its standard input, and what it has printed is in `printed` whatever becomes of it.
///
/// # Errors
/// Those of [`run`].
pub async fn converse(
    mut command: Command,
    input: &[u8],
    limit: Duration,
    most: usize,
    printed: &mut Vec<u8>,
) -> Result<(), CommandError> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let not_started = |error| CommandError::NotStarted { program: program.clone(), error };
    let mut child = command.spawn().map_err(not_started)?;
    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let group = Group(pid);
    let mut complaint = Vec::new();
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // One that does not read it has ended, or will say so.
            let _ = stdin.write_all(input).await;
        }
    };
    let status = {
        let read =
            async { tokio::join!(feed, keep(stdout, printed, most), keep(stderr, &mut complaint, MAX_COMPLAINT)) };
        tokio::pin!(read);
        let ended = timeout(limit, async {
            tokio::select! {
                _ = &mut read => child.wait().await,
                status = child.wait() => {
                    let _ = timeout(LINGER, &mut read).await;
                    status
                }
            }
        });
        ended.await
    };
    let Ok(status) = status else {
        drop(group);
        // Reaped, unless even that does not end it: a process in a file system that hangs.
        let _ = timeout(LINGER, child.wait()).await;
        return Err(CommandError::TimedOut { program, after: limit });
    };
    let status = status.map_err(not_started)?;
    group.let_go();
    if !status.success() {
        let said = if complaint.is_empty() { &*printed } else { &complaint };
        return Err(CommandError::Failed { program, status, output: on_one_line(said) });
    }
    if printed.len() > most {
        return Err(CommandError::TooLong { program, most });
    }
    Ok(())
}

/// Reads all, and keeps one byte more than `most` at the most.
async fn keep(stream: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>, most: usize) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        let room = (most + 1).saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..read.min(room)]);
    }
}

/// The end of a program's output for a line of a log: no control characters.
pub fn on_one_line(output: &[u8]) -> String {
    const MOST: usize = 300;
    let text = String::from_utf8_lossy(output);
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    let skip = line.chars().count().saturating_sub(MOST);
    line.chars().skip(skip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn what_it_is_to_read_comes_through_a_pipe() {
        let long = vec![b'x'; 200_000];
        let mut printed = Vec::new();
        let minute = Duration::from_secs(60);
        converse(shell("cat; echo no >&2; exit 1"), &long, minute, 1 << 20, &mut printed).await.unwrap_err();
        assert_eq!(printed, long, "what it printed is there although it failed");
        assert!(run(shell("read -r line"), minute, 10).await.is_err(), "nothing to read is an end");
        converse(shell("exit 0"), &long, minute, 10, &mut Vec::new()).await.unwrap();
    }

    #[tokio::test]
    async fn each_end_is_told_apart() {
        let second = Duration::from_secs(20);
        assert_eq!(run(shell("echo a; echo b >&2"), second, 100).await.unwrap(), b"a\n");
        let failed = run(shell("echo no; printf 'a\\n\\033b' >&2; exit 3"), second, 100).await.unwrap_err();
        assert_eq!(failed.to_string(), "\"sh\" ended with exit status: 3: a b");
        let failed = run(shell("echo only; exit 3"), second, 100).await.unwrap_err();
        assert!(failed.to_string().ends_with(": only"), "{failed}");
        let long = run(shell("yes | head -c 101"), second, 100).await.unwrap_err();
        assert!(matches!(long, CommandError::TooLong { most: 100, .. }), "{long}");
        let failed = run(shell("yes | head -c 101; exit 3"), second, 100).await.unwrap_err();
        assert!(failed.to_string().contains("exit status: 3"), "who says much may have failed all the same: {failed}");
        assert_eq!(run(shell("yes | head -c 100"), second, 100).await.unwrap().len(), 100);
        let none = run(Command::new("/nowhere/qstat"), second, 100).await.unwrap_err();
        assert!(matches!(none, CommandError::NotStarted { .. }), "{none}");
    }

    #[tokio::test]
    async fn what_hangs_is_killed_with_all_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        // Two grandchildren hold the only writing ends, one in a session of its own: when these are closed, both are gone.
        let mut command =
            shell("for run in '' setsid; do $run sh -c 'exec 3>\"$0\"; exec sleep 1000' \"$FIFO\" & done; wait");
        command.env("FIFO", &fifo);
        let reader = tokio::task::spawn_blocking(move || std::fs::read(fifo));
        let late = run(command, Duration::from_millis(300), 100).await.unwrap_err();
        assert!(matches!(late, CommandError::TimedOut { .. }), "{late}");
        timeout(Duration::from_secs(60), reader).await.expect("the grandchild is gone").unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_is_left_behind_is_not_waited_for() {
        // Else it would have timed out.
        let printed = run(shell("sleep 1000 & echo $!"), Duration::from_secs(60), 100).await.unwrap();
        let pid: i32 = String::from_utf8(printed).unwrap().trim().parse().unwrap();
        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }
}
