//! A daemon that is measured, and a line of what was.
#![allow(dead_code, reason = "each bench uses its part of this")]

use std::fs;
use std::process::{Child, Command, Stdio};

use crate::child;

/// Ends with the value.
pub struct Process(Child);

impl Process {
    /// Starts it; what it logs is thrown away.
    #[allow(dead_code, reason = "not every bench can do without the log")]
    pub fn start(program: &str, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        Self(child::spawn(command.args(args).stderr(Stdio::null())).unwrap_or_else(|e| panic!("{e}")))
    }

    /// One that runs.
    pub fn of(child: Child) -> Self {
        Self(child)
    }

    /// What is in memory for it alone.
    pub fn memory_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    }
}

impl Process {
    /// Time on a processor until now, in seconds, in steps of 10 ms.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap_or_default();
        // Behind the name, which may have spaces: user and system time are the 12th and 13th.
        let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
        fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
