//! The command and all its processes: one process group, which does not outlive this program.

use std::ffi::OsString;
use std::io;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use super::failure::HasExitStatus;
use super::status::{EX_OSERR, of_start_error};

/// Leads the group. When this program ends, however, its standard input does too, and it kills the group. It says when
/// signals to the group no longer end it.
const GROUP_LEADER: &str = r#"trap "" HUP INT QUIT TERM XCPU USR1 USR2; echo; read -r _; kill -KILL 0"#;

/// A running command.
#[derive(Debug)]
pub struct Job {
    command: Child,
    leader: Child,
    group: Pid,
    /// Closed with this program.
    _alive: ChildStdin,
}

/// Why a command does not run.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The leader could not be started.
    #[error("{0} while starting /bin/sh")]
    GroupLeader(io::Error),
    /// The command could not be started.
    #[error("{error} while starting {program:?}")]
    Command {
        /// Its name.
        program: OsString,
        /// Why.
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

/// The variables by which a command finds its port: `PORT`, and `TOOL_WEB_PORT`, as the old stack called it too.
pub fn port_variables(port: u16) -> [(&'static str, String); 2] {
    ["PORT", "TOOL_WEB_PORT"].map(|name| (name, port.to_string()))
}

impl Job {
    /// Starts the command, with the port in its environment.
    ///
    /// # Errors
    /// No such program, or none that can be run.
    pub async fn start(command: &[OsString], port: u16) -> Result<Self, JobError> {
        // It must not hold anything of the job's: neither its output, nor its directory.
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

    /// Waits for the command's end; may be given up and begun again.
    ///
    /// # Errors
    /// The system's.
    pub async fn ended(&mut self) -> io::Result<std::process::ExitStatus> {
        self.command.wait().await
    }

    /// Sends a signal to all its processes.
    pub fn signal(&self, signal: Signal) {
        // The group has its leader until `end`, so it is there, and it is ours.
        let _ = kill_process_group(self.group, signal);
    }

    /// Kills everything at once, the command also if it has left its group.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        // Fails when it has ended.
        let _ = self.command.start_kill();
    }

    /// Kills what the command has left behind.
    pub async fn end(mut self) {
        self.signal(Signal::KILL);
        let _ = self.leader.wait().await;
    }
}
