//! Runs urlproxyctl.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::fake_admin::FakeAdmin;
use crate::support::redis::RedisServer;

/// The built program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_urlproxyctl");

/// What a run printed.
#[derive(Debug)]
pub struct Run {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// The output as JSON. Panics if it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Panics unless the program ended with this status.
    #[track_caller]
    pub fn expect(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        assert!(!must_escape(&self.stdout) && !must_escape(&self.stderr), "{self:?}");
        self
    }
}

/// Whether a terminal would act on a part of the text.
pub fn must_escape(text: &str) -> bool {
    text.chars().any(|c| c.is_control() && c != '\n' || ('\u{202a}'..='\u{202e}').contains(&c))
}

/// A command with these arguments, without variables of the machine.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(args).stdin(Stdio::null());
    for variable in ["URLPROXY_REDIS", "URLPROXYCTL_ADMIN", "NO_COLOR", "CLICOLOR_FORCE", "SUDO_USER"] {
        command.env_remove(variable);
    }
    command
}

/// Runs the program with these arguments.
pub fn ctl(args: &[&str]) -> Run {
    finish(&mut command(args))
}

/// Runs a command to its end.
pub fn finish(command: &mut Command) -> Run {
    let output = command.output().expect("urlproxyctl runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Run {
        status: output.status.code().expect("an exit status"),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// Runs the program against an admin API.
pub fn ask(admin: &FakeAdmin, args: &[&str]) -> Run {
    finish(command(args).env("URLPROXYCTL_ADMIN", admin.url()))
}

/// Runs the program against Redis.
pub fn change(redis: &RedisServer, args: &[&str]) -> Run {
    finish(command(args).env("URLPROXY_REDIS", redis.url()))
}

/// Runs the program against both.
pub fn compare(redis: &RedisServer, admin: &FakeAdmin, args: &[&str]) -> Run {
    finish(command(args).env("URLPROXY_REDIS", redis.url()).env("URLPROXYCTL_ADMIN", admin.url()))
}

/// The names of an object's fields, sorted.
#[track_caller]
pub fn fields(value: &Value) -> Vec<&str> {
    let mut names: Vec<_> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}
