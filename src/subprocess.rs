//! Runs a program that may hang, fail, or print without end.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;

/// The most of standard error that is kept, in bytes.
const MAX_STDERR_BYTES: usize = 4096;
/// The wait, after the program has exited, for child processes that still hold its output open.
const PIPE_GRACE: Duration = Duration::from_millis(500);

/// Why a program failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The program is missing or not executable.
    #[error("{error} while starting {program:?}")]
    NotStarted {
        /// The program's path.
        program: String,
        /// The system's error.
        error: io::Error,
    },
    /// The program reached its time limit.
    #[error("{program:?} timed out after {after:?} and was killed")]
    TimedOut {
        /// The program's path.
        program: String,
        /// The time limit.
        after: Duration,
    },
    /// The output exceeds the limit.
    #[error("{program:?} printed more than {max_len} bytes")]
    TooLong {
        /// The program's path.
        program: String,
        /// The limit, in bytes.
        max_len: usize,
    },
    /// The program exited with another status than 0.
    #[error("{program:?} failed with {status}: {output}")]
    Failed {
        /// The program's path.
        program: String,
        /// The exit status or signal.
        status: ExitStatus,
        /// The end of its output, on one line.
        output: String,
    },
}

/// A process group with all its descendants, killed when dropped, unless disarmed.
struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // A login may have started sessions of its own.
            let below = descendants(group);
            // The group may be gone already.
            let _ = kill_process_group(group, Signal::KILL);
            for pid in below {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// All descendants of a process, except orphans.
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

/// Runs a command to its end, in a process group of its own, and returns its standard output.
///
/// # Errors
/// It could not be started, took longer than `limit`, printed more than `max_len` bytes, or exited with another status than 0.
pub async fn run(command: Command, limit: Duration, max_len: usize) -> Result<Vec<u8>, CommandError> {
    let mut printed = Vec::new();
    run_with_input(command, b"", limit, max_len, &mut printed).await.map(|()| printed)
}

/// Like [`run`], with `input` on standard input. `printed` has the output also after an error.
pub async fn run_with_input(
    mut command: Command,
    input: &[u8],
    limit: Duration,
    max_len: usize,
    printed: &mut Vec<u8>,
) -> Result<(), CommandError> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let not_started = |error| CommandError::NotStarted { program: program.clone(), error };
    let mut child = command.spawn().map_err(not_started)?;
    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let group = ProcessGroup(pid);
    let mut errors = Vec::new();
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read it exits, or fails with an error of its own.
            let _ = stdin.write_all(input).await;
        }
    };
    let status = {
        let read = async {
            tokio::join!(
                feed,
                read_capped(stdout, printed, max_len),
                read_capped(stderr, &mut errors, MAX_STDERR_BYTES)
            )
        };
        tokio::pin!(read);
        let ended = timeout(limit, async {
            tokio::select! {
                _ = &mut read => child.wait().await,
                status = child.wait() => {
                    let _ = timeout(PIPE_GRACE, &mut read).await;
                    status
                }
            }
        });
        ended.await
    };
    let Ok(status) = status else {
        drop(group);
        // Reaps it, unless a hanging file system keeps even a killed process.
        let _ = timeout(PIPE_GRACE, child.wait()).await;
        return Err(CommandError::TimedOut { program, after: limit });
    };
    let status = status.map_err(not_started)?;
    group.disarm();
    if !status.success() {
        let shown = if errors.is_empty() { &*printed } else { &errors };
        return Err(CommandError::Failed { program, status, output: on_one_line(shown) });
    }
    if printed.len() > max_len {
        return Err(CommandError::TooLong { program, max_len });
    }
    Ok(())
}

/// Reads a stream to its end, and keeps at most `max_len` + 1 bytes.
async fn read_capped(stream: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>, max_len: usize) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        let free = (max_len + 1).saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..read.min(free)]);
    }
}

/// The end of a program's output as one line, without control characters.
pub fn on_one_line(output: &[u8]) -> String {
    const MAX_CHARS: usize = 300;
    let text = String::from_utf8_lossy(output);
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    let skip = line.chars().count().saturating_sub(MAX_CHARS);
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
    async fn input_comes_through_a_pipe() {
        let long = vec![b'x'; 200_000];
        let mut printed = Vec::new();
        let minute = Duration::from_secs(60);
        run_with_input(shell("cat; echo no >&2; exit 1"), &long, minute, 1 << 20, &mut printed).await.unwrap_err();
        assert_eq!(printed, long, "the output is kept after a failure");
        assert!(run(shell("read -r line"), minute, 10).await.is_err(), "no input reads as the end of file");
        run_with_input(shell("exit 0"), &long, minute, 10, &mut Vec::new()).await.unwrap();
    }

    #[tokio::test]
    async fn each_failure_has_its_error() {
        let second = Duration::from_secs(20);
        assert_eq!(run(shell("echo a; echo b >&2"), second, 100).await.unwrap(), b"a\n");
        let failed = run(shell("echo no; printf 'a\\n\\033b' >&2; exit 3"), second, 100).await.unwrap_err();
        assert_eq!(failed.to_string(), "\"sh\" failed with exit status: 3: a b");
        let failed = run(shell("echo only; exit 3"), second, 100).await.unwrap_err();
        assert!(failed.to_string().ends_with(": only"), "{failed}");
        let long = run(shell("yes | head -c 101"), second, 100).await.unwrap_err();
        assert!(matches!(long, CommandError::TooLong { max_len: 100, .. }), "{long}");
        let failed = run(shell("yes | head -c 101; exit 3"), second, 100).await.unwrap_err();
        assert!(failed.to_string().contains("exit status: 3"), "the exit status comes before the length: {failed}");
        assert_eq!(run(shell("yes | head -c 100"), second, 100).await.unwrap().len(), 100);
        let none = run(Command::new("/nowhere/qstat"), second, 100).await.unwrap_err();
        assert!(matches!(none, CommandError::NotStarted { .. }), "{none}");
    }

    #[tokio::test]
    async fn hanging_command_is_killed_with_all_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        // Two grandchildren hold the only write ends, one in a session of its own: when both are gone, the read ends.
        let mut command =
            shell("for run in '' setsid; do $run sh -c 'exec 3>\"$0\"; exec sleep 1000' \"$FIFO\" & done; wait");
        command.env("FIFO", &fifo);
        let reader = tokio::task::spawn_blocking(move || std::fs::read(fifo));
        let late = run(command, Duration::from_millis(300), 100).await.unwrap_err();
        assert!(matches!(late, CommandError::TimedOut { .. }), "{late}");
        timeout(Duration::from_secs(60), reader).await.expect("the grandchild is gone").unwrap().unwrap();
    }

    #[tokio::test]
    async fn orphaned_children_are_not_waited_for() {
        // Waiting for the child would time out.
        let printed = run(shell("sleep 1000 & echo $!"), Duration::from_secs(60), 100).await.unwrap();
        let pid: i32 = String::from_utf8(printed).unwrap().trim().parse().unwrap();
        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }
}
