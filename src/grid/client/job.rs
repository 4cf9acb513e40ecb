//! The command and its processes: one process group, which does not outlive this program.

use std::ffi::OsString;
use std::io;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use super::failure::HasExitStatus;
use super::status::{EX_OSERR, of_start_error};

/// Leads the group. When this program ends for any reason, the shell's standard input ends too, and it kills the group. It
/// prints a line once it ignores the signals to the group.
const GROUP_LEADER: &str = r#"trap "" HUP INT QUIT TERM XCPU USR1 USR2; echo; read -r _; kill -KILL 0"#;

/// A running command.
#[derive(Debug)]
pub struct Job {
    command: Child,
    leader: Child,
    group: Pid,
    /// Closes when this program ends.
    _alive: ChildStdin,
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
    /// Starts the command, with the port in its environment.
    pub async fn start(command: &[OsString], port: u16) -> Result<Self, JobError> {
        // The leader must not hold the job's output or directory open.
        let mut leader = Command::new("/bin/sh");
        leader.args(["-c", GROUP_LEADER]).env_clear().current_dir("/").process_group(0);
        leader.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut leader = leader.spawn().map_err(JobError::GroupLeader)?;
        let broken = || JobError::GroupLeader(io::ErrorKind::BrokenPipe.into());
        let alive = leader.stdin.take().ok_or_else(broken)?;
        let mut ready = String::new();
        let mut lines = BufReader::new(leader.stdout.take().ok_or_else(broken)?);
        lines.read_line(&mut ready).await.map_err(JobError::GroupLeader)?;
        let id = leader.id().and_then(|id| i32::try_from(id).ok()).filter(|_| !ready.is_empty()).ok_or_else(broken)?;
        let group = Pid::from_raw(id).ok_or_else(broken)?;

        let (program, args) = command.split_first().ok_or_else(broken)?;
        let mut command = Command::new(program);
        command.args(args).envs(port_variables(port)).process_group(id);
        match command.spawn() {
            Ok(command) => Ok(Self { command, leader, group, _alive: alive }),
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
    pub async fn end(mut self) {
        self.signal(Signal::KILL);
        let _ = self.leader.wait().await;
    }
}
