//! `top`, in a terminal and in a pipe.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::{Value, json};

use crate::fake_admin::FakeAdmin;
use crate::program::{ask, command};
use crate::support::wait::wait_for;

/// A program on a terminal of 100 columns and 24 rows.
pub struct Pty {
    child: Child,
    master: File,
    slave: File,
    printed: Arc<Mutex<String>>,
}

impl Pty {
    /// Starts the command on a new terminal.
    pub fn start(mut command: Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave: File = rustix::fs::open(&*name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap().into();
        tcsetwinsize(&slave, Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let stdio = || Stdio::from(slave.try_clone().unwrap());
        command.env("TERM", "xterm-256color").stdin(stdio()).stdout(stdio()).stderr(stdio());
        let child = command.spawn().unwrap();
        let master = File::from(master);
        let printed = Arc::<Mutex<String>>::default();
        let (mut from, to) = (master.try_clone().unwrap(), Arc::clone(&printed));
        thread::spawn(move || {
            let mut bytes = [0; 65536];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                to.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Self { child, master, slave, printed }
    }

    /// Everything printed until now.
    fn printed(&self) -> String {
        self.printed.lock().unwrap().clone()
    }

    /// The text without escape sequences and white space: a screen is drawn in pieces.
    fn dense(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string().split_whitespace().collect()
    }

    /// Waits for this text, whatever the white space in it.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        wait_for(text, || Self::dense(&self.printed()).contains(&Self::dense(text)));
    }

    /// Types.
    pub fn write(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Waits for the end of the program, and returns its status.
    #[track_caller]
    pub fn wait_for_end(&mut self) -> Option<i32> {
        let mut status = None;
        wait_for("the end of the program", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }

    /// Panics unless the terminal is as it was before the program.
    #[track_caller]
    fn expect_restored(&self) {
        wait_for("the first screen", || self.printed().contains("\u{1b}[?1049l"));
        let modes = tcgetattr(&self.slave).unwrap().local_modes;
        assert!(modes.contains(LocalModes::ECHO | LocalModes::ICANON), "{modes:?}");
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- terminal\n{:?}", self.printed());
        }
    }
}

fn tools(names: &[&str]) -> Value {
    let tool = |name: &&str| {
        json!({"name": name, "backends": 2, "unavailable": 1, "backend": "http://10.0.0.1:8000", "requests": [0, 90, 0, 0, 10],
               "bytes": 1, "milliseconds": 99, "rate": 12.34, "error_rate": 1.234, "mean_milliseconds": 49.6,
               "rejected": 0})
    };
    json!({"table": "tools", "now": 1.0, "matching": names.len(), "items": names.iter().map(tool).collect::<Vec<_>>()})
}

fn top(admin: &FakeAdmin) -> Pty {
    let mut top = command(&["top"]);
    top.env("URLPROXYCTL_ADMIN", admin.url());
    Pty::start(top)
}

#[test]
fn screen_follows_nginx_and_keys() {
    let admin = FakeAdmin::start();
    admin.set("/api/tools", tools(&["first", "evil\u{1b}[2J\u{202e}"]));
    let mut pty = top(&admin);
    pty.wait_for("In step with Redis: 2 tools, last change 2 s ago.");
    pty.wait_for("first");
    pty.wait_for("12.3 10.0 % 50 100 2, 1 down http://10.0.0.1:8000");
    pty.wait_for("evil\\u{1b}[2J\\u{2");
    // New tools come without a key.
    admin.set("/api/tools", tools(&["second"]));
    pty.wait_for("second");
    let asked = |part: &str| wait_for(part, || admin.asked().iter().any(|target| target.contains(part)));
    pty.write("e");
    asked("/api/tools?sort=errors");
    pty.write("/ab c");
    asked("search=ab%20c");
    pty.wait_for("Enter keeps it");
    pty.write("\r");
    pty.write("n");
    asked("sort=name");
    // nginx is away: the screen says so, and stays.
    admin.fail("/api/tools", 503, json!({"error": "the table was never loaded"}));
    pty.wait_for("answers 503: the table was never loaded");
    pty.write("q");
    assert_eq!(pty.wait_for_end(), Some(0));
    pty.expect_restored();
}

#[test]
fn signals_restore_the_terminal() {
    let admin = FakeAdmin::start();
    admin.set("/api/tools", tools(&["first"]));
    for signal in ["TERM", "HUP", "INT"] {
        let mut pty = top(&admin);
        pty.wait_for("first");
        let status = Command::new("kill").args([format!("-{signal}"), pty.child.id().to_string()]).status();
        assert!(status.unwrap().success());
        assert_eq!(pty.wait_for_end(), Some(0), "{signal}");
        pty.expect_restored();
    }
}

#[test]
fn control_c_quits() {
    let admin = FakeAdmin::start();
    admin.set("/api/tools", tools(&["first"]));
    let mut pty = top(&admin);
    pty.wait_for("first");
    pty.write("\u{3}");
    assert_eq!(pty.wait_for_end(), Some(0));
    pty.expect_restored();
}

#[test]
fn pipe_gets_one_table_per_interval() {
    let admin = FakeAdmin::start();
    admin.set("/api/tools", tools(&["first", "evil\u{1b}[2J"]));
    let run = ask(
        &admin,
        &["top", "--count", "2", "--interval", "10ms", "--sort", "latency", "--search", "x", "--limit", "7"],
    )
    .expect(0);
    assert_eq!(run.stdout.matches("In step with Redis").count(), 2);
    assert!(
        run.stdout.contains("evil\\u{1b}[2J   12.3  10.0 %       50       100  2, 1 down  http://10.0.0.1:8000\n"),
        "{run:?}"
    );
    assert!(
        admin.asked().iter().any(|target| target == "/api/tools?sort=latency&limit=7&search=x"),
        "{:?}",
        admin.asked()
    );
    let run = ask(&admin, &["top", "--count", "2", "--interval", "10ms", "--json"]).expect(0);
    let lines: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, [tools(&["first", "evil\u{1b}[2J"]), tools(&["first", "evil\u{1b}[2J"])]);
}

#[test]
fn color_is_for_terminals_without_no_color() {
    let admin = FakeAdmin::start();
    for (no_color, has_color) in [(None, true), (Some("1"), false)] {
        let mut status = command(&["status"]);
        status.env("URLPROXYCTL_ADMIN", admin.url());
        status.envs(no_color.map(|value| ("NO_COLOR", value)));
        let mut pty = Pty::start(status);
        pty.wait_for("In step with Redis");
        pty.wait_for_end();
        assert_eq!(pty.printed().contains('\u{1b}'), has_color, "{:?}", pty.printed());
    }
}
