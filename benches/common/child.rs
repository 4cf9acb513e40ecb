//! Programs that end with the bench, also when it is killed.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::process::{Signal, set_parent_process_death_signal};

/// Starts it. It also ends with the thread that calls this.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    // SAFETY: between fork and exec this makes one system call, and touches no memory.
    unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) };
    command.spawn()
}
