//! The command and its processes: one process group, which does not outlive this program.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use super::failure::HasExitStatus;
use super::status::{EX_OSERR, of_start_error};
use crate::web_type::PreparedCommand;

/// Leads the group. When this program ends for any reason, the shell's standard input ends too, and it kills the group. It
/// prints a line once it ignores the signals to the group.
///
/// With a scratch directory as `$1`, it first removes this, and kills all processes that have it in their environment: php-cgi leaves
/// the group. Twice, as a process may start another one meanwhile.
const GROUP_LEADER: &str = r#"
trap "" HUP INT QUIT TERM XCPU USR1 USR2; echo; read -r _
if [ -n "$1" ]; then
    for _ in 1 2; do
        grep -lszxF "URLPROXY_SCRATCH=$1" /proc/[0-9]*/environ | while IFS=/ read -r _ _ pid _; do kill -KILL "$pid"; done
    done
    rm -rf -- "$1"
fi
kill -KILL 0"#;
/// Variable with the scratch directory, in the environment of all processes of a command that has one.
const SCRATCH_VARIABLE: &str = "URLPROXY_SCRATCH";
/// Time for the group leader to end what has left the group.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// A running command.
#[derive(Debug)]
pub struct Job {
    command: Child,
    leader: Child,
    group: Pid,
    /// Closes when this program ends.
    alive: ChildStdin,
    has_scratch: bool,
}

/// Why a command was not started.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The group leader could not be started.
    #[error("{0} while starting /bin/sh")]
    GroupLeader(io::Error),
    /// The command could not be started.
    #[error("{error} while starting {program:?}")]
    Command {
        /// Name or path.
        program: OsString,
        /// The system's error.
        error: io::Error,
    },
}

impl HasExitStatus for JobError {
    fn status(&self) -> u8 {
        match self {
            Self::GroupLeader(_) => EX_OSERR,
            Self::Command { error, .. } => of_start_error(error),
        }
    }
}

/// The variables with the command's port: `PORT`, and `TOOL_WEB_PORT` as in the old stack.
pub fn port_variables(port: u16) -> [(&'static str, String); 2] {
    ["PORT", "TOOL_WEB_PORT"].map(|name| (name, port.to_string()))
}

impl Job {
    /// Starts the command, with the port in its environment. The directory `scratch` goes with the command's last process.
    pub async fn start(command: &PreparedCommand, port: u16, scratch: Option<&Path>) -> Result<Self, JobError> {
        // The leader must not hold the job's output or directory open.
        let mut leader = Command::new("/bin/sh");
        leader.args(["-c", GROUP_LEADER, "sh"]).args(scratch).env_clear().current_dir("/").process_group(0);
        leader.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut leader = leader.spawn().map_err(JobError::GroupLeader)?;
        let broken = || JobError::GroupLeader(io::ErrorKind::BrokenPipe.into());
        let alive = leader.stdin.take().ok_or_else(broken)?;
        let mut ready = String::new();
        let mut lines = BufReader::new(leader.stdout.take().ok_or_else(broken)?);
        lines.read_line(&mut ready).await.map_err(JobError::GroupLeader)?;
        let id = leader.id().and_then(|id| i32::try_from(id).ok()).filter(|_| !ready.is_empty()).ok_or_else(broken)?;
        let group = Pid::from_raw(id).ok_or_else(broken)?;

        let (program, args) = command.words.split_first().ok_or_else(broken)?;
        let directory = command.directory.as_ref();
        let mut command = Command::new(program);
        command.args(args).envs(port_variables(port)).process_group(id);
        command.envs(scratch.map(|path| (SCRATCH_VARIABLE, path)));
        if let Some(directory) = directory {
            command.current_dir(directory);
        }
        match command.spawn() {
            Ok(command) => Ok(Self { command, leader, group, alive, has_scratch: scratch.is_some() }),
            Err(error) => {
                drop(alive);
                let _ = leader.wait().await;
                Err(JobError::Command { program: program.clone(), error })
            }
        }
    }

    /// Waits for the command's end. Cancel safe.
    pub async fn ended(&mut self) -> io::Result<std::process::ExitStatus> {
        self.command.wait().await
    }

    /// Sends a signal to the whole group.
    pub fn signal(&self, signal: Signal) {
        // The leader lives until `end`, so the group id is not reused.
        let _ = kill_process_group(self.group, signal);
    }

    /// Kills the group, and the command if it has left the group.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        // Fails if the command has ended.
        let _ = self.command.start_kill();
    }

    /// Kills the processes that the command has left behind.
    pub async fn end(self) {
        let Self { mut leader, group, alive, has_scratch, .. } = self;
        drop(alive);
        if has_scratch && timeout(END_TIMEOUT, leader.wait()).await.is_ok() {
            return;
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = leader.wait().await;
    }
}
