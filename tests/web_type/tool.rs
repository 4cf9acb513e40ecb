//! A tool's account with a home, and its running web service.

use std::fs::{self, File, Permissions};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

use crate::support::daemon::Daemon;
use crate::support::http::get_with;
use crate::support::need::{need_program, need_root};
use crate::support::program::copy_program;
use crate::support::wait::wait_for;

/// The account's uid. All tools of these tests share it.
const UID: u32 = 50_001;

/// Runs a command with `$1` as /etc/passwd, as the user `$2`.
const AS_TOOL: &str = r#"
    mount --make-rprivate / && mount --bind "$1" /etc/passwd && uid=$2 && shift 2 &&
    exec env --default-signal=HUP setpriv --reuid=$uid --regid=$uid --clear-groups "$@""#;

/// The account `tools.hello`.
pub struct Tool {
    directory: TempDir,
    home: PathBuf,
}

/// A running webservice-runner.
pub struct Running {
    daemon: Daemon,
    port: u16,
}

/// What a program that has ended has printed.
#[derive(Debug)]
pub struct Ended {
    pub status: Option<i32>,
    pub out: String,
    pub error: String,
}

impl Tool {
    /// A tool with an empty home; `None` without root, which may be skipped.
    #[track_caller]
    pub fn create() -> Option<Self> {
        Self::with_home("home")
    }

    /// The same if these programs are installed.
    #[track_caller]
    pub fn with_programs(programs: &[&str]) -> Option<Self> {
        programs.iter().all(|program| need_program(program, "-v")).then(Self::create).flatten()
    }

    /// The same with this name of the home.
    #[track_caller]
    pub fn with_home(name: &str) -> Option<Self> {
        if !need_root() {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let tool = Self { home: directory.path().join(name), directory };
        tool.make_directory(&tool.home);
        tool.make_directory(&tool.temporary());
        copy_program(env!("CARGO_BIN_EXE_webservice-runner"), &tool.runner());
        let accounts = fs::read_to_string("/etc/passwd").unwrap();
        let home = tool.home.to_str().unwrap();
        fs::write(tool.passwd(), format!("{accounts}tools.hello:x:{UID}:{UID}::{home}:/bin/sh\n")).unwrap();
        Some(tool)
    }

    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The directory that is `TMPDIR`.
    pub fn temporary(&self) -> PathBuf {
        self.directory.path().join("tmp")
    }

    fn runner(&self) -> PathBuf {
        self.directory.path().join("webservice-runner")
    }

    fn passwd(&self) -> PathBuf {
        self.directory.path().join("passwd")
    }

    fn make_directory(&self, path: &Path) {
        fs::create_dir(path).unwrap();
        chown(path, Some(UID), Some(UID)).unwrap();
    }

    /// A path in the home. The directories before it exist, and belong to the tool.
    pub fn at(&self, path: &str) -> PathBuf {
        let whole = self.home.join(path);
        let missing: Vec<_> = whole.ancestors().skip(1).take_while(|parent| !parent.exists()).collect();
        missing.into_iter().rev().for_each(|parent| self.make_directory(parent));
        whole
    }

    /// Writes a file of the tool.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.at(path);
        fs::write(&path, content).unwrap();
        chown(&path, Some(UID), Some(UID)).unwrap();
    }

    /// Creates a FIFO of the tool.
    pub fn make_fifo(&self, path: &str) {
        let path = self.at(path);
        mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        chown(&path, Some(UID), Some(UID)).unwrap();
    }

    /// Creates a directory of the tool.
    pub fn mkdir(&self, path: &str) {
        self.make_directory(&self.at(path));
    }

    /// The content of a regular file in the home; empty without one.
    pub fn read(&self, path: &str) -> String {
        let path = self.home.join(path);
        // Reading a FIFO would wait for ever.
        let is_regular = fs::metadata(&path).is_ok_and(|found| found.is_file());
        let content = if is_regular { fs::read(&path).unwrap_or_default() } else { Vec::new() };
        String::from_utf8_lossy(&content).into_owned()
    }

    /// The command line of webservice-runner as the tool's account.
    pub fn command(&self, args: &[&str]) -> Vec<String> {
        let uid = UID.to_string();
        let (passwd, runner) = (self.passwd(), self.runner());
        let words =
            ["unshare", "--mount", "sh", "-c", AS_TOOL, "sh", passwd.to_str().unwrap(), &uid, runner.to_str().unwrap()];
        words.iter().chain(args).map(|word| (*word).to_owned()).collect()
    }

    /// Runs webservice-runner to its end.
    pub fn run(&self, args: &[&str]) -> Ended {
        let command = self.command(args);
        let mut program = Command::new(&command[0]);
        program.args(&command[1..]).stdin(Stdio::null()).env("TMPDIR", self.temporary()).current_dir("/");
        let output = program.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ended { status: output.status.code(), out: text(output.stdout), error: text(output.stderr) }
    }

    /// Starts webservice-runner without waiting for anything.
    pub fn spawn(&self, args: &[&str]) -> Daemon {
        let temporary = self.temporary();
        let command = self.command(args);
        let command: Vec<_> = command.iter().map(String::as_str).collect();
        Daemon::start(&command, &[("TMPDIR", temporary.to_str().unwrap())])
    }

    /// Starts a web service, and waits until it listens.
    #[track_caller]
    pub fn start(&self, args: &[&str]) -> Running {
        // The port of an earlier start stands in the log.
        let log = self.home.join("error.log");
        if fs::symlink_metadata(&log).is_ok_and(|found| found.is_file()) {
            File::options().write(true).truncate(true).open(log).unwrap();
        }
        let daemon = self.spawn(args);
        let port = self.port(&daemon);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        wait_for(&format!("a listener on port {port}"), || {
            assert!(!self.log(&daemon).contains("INFO command ended"), "{}", self.log(&daemon));
            TcpStream::connect(address).is_ok()
        });
        Running { daemon, port }
    }

    /// What has been logged, wherever.
    pub fn log(&self, daemon: &Daemon) -> String {
        daemon.log() + &self.read("error.log")
    }

    #[track_caller]
    fn port(&self, daemon: &Daemon) -> u16 {
        let mut port = None;
        wait_for("the start", || {
            let log = self.log(daemon);
            assert!(!log.contains("ERROR"), "{log}");
            let line = log.lines().rev().find(|line| line.contains("INFO started"));
            port = line.and_then(|line| line.rsplit_once(" on port ")?.1.trim().parse().ok());
            port.is_some()
        });
        port.unwrap()
    }

    /// The processes of this name that belong to the tool's web services.
    pub fn processes_named(&self, name: &str) -> Vec<u32> {
        let is_named =
            |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
        self.processes().into_iter().filter(is_named).collect()
    }

    /// Processes whose environment has this tool's `TMPDIR`, and so belong to its web services.
    fn processes(&self) -> Vec<u32> {
        let variable = format!("TMPDIR={}", self.temporary().display());
        let has_it = |pid: &u32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|text| text == variable.as_bytes())
        };
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(has_it).collect()
    }

    /// Waits until nothing is left of the web service.
    #[track_caller]
    pub fn wait_for_nothing_left(&self) {
        // The supervisor of a `Daemon` has the environment, too.
        wait_for("the end of all processes", || self.processes().len() == self.processes_named("sh").len());
        wait_for("the removal of temporary files", || fs::read_dir(self.temporary()).unwrap().count() == 0);
    }
}

impl Running {
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// GETs a path; returns status and body.
    #[track_caller]
    pub fn get(&self, path: &str) -> (u16, String) {
        let (head, body) = self.get_with(path, "");
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
    }

    /// GETs a path with further header lines; returns head and body.
    #[track_caller]
    pub fn get_with(&self, path: &str, headers: &str) -> (String, String) {
        get_with(self.address(), path, headers)
    }
}

impl Deref for Running {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}
