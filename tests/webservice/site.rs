//! The real webservice at a site of its own: a tool with an account and a home, a scripted grid, a scripted list of a proxy.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use tempfile::TempDir;

use crate::support::need::need_root;
use crate::support::program::write_program;

/// Runs a command as the user `$2` with the file `$1` as `/etc/passwd`. `$3` is the program, which is in a directory that the tool
/// cannot enter.
const AS_TOOL: &str = r#"mount --make-rprivate / && mount --bind "$1/passwd" /etc/passwd && mount --bind "$3" "$1/bin/webservice" \
&& { [ ! -e "$1/mounts" ] || . "$1/mounts"; } && uid=$2 && dir=$1 && shift 3 && cd / \
&& exec setpriv --reuid="$uid" --regid="$uid" --clear-groups timeout 120 "$@""#;
/// The tool's uid.
pub const UID: u32 = 50_001;

/// One job in the scripted grid is a file: its name and its state, then the arguments of qsub, each with a NUL behind it.
const QSUB: &str = r#"
if [ -e "$DIR/grid/qsub.sh" ]; then . "$DIR/grid/qsub.sh"; fi
n=1
until mkdir "$DIR/grid/number-$n" 2>/dev/null; do n=$((n + 1)); done
name=
previous=
for word; do
    [ "$previous" = -N ] && name=$word
    previous=$word
done
printf '%s\0' "$@" > "$DIR/grid/args-$n"
echo "$name" > "$DIR/grid/new-$n"
cat "$DIR/grid/state" >> "$DIR/grid/new-$n"
date -u +%Y-%m-%dT%H:%M:%S >> "$DIR/grid/new-$n"
mv "$DIR/grid/new-$n" "$DIR/grid/job-$n"
echo "submitted $name" >> "$DIR/grid/log"
echo "$n"
"#;
const QSTAT: &str = r#"
if [ -e "$DIR/grid/qstat.sh" ]; then . "$DIR/grid/qstat.sh"; fi
if [ "$1 $2 $3" = "-explain E -j" ]; then cat "$DIR/grid/explanation" 2>/dev/null; exit 0; fi
[ "$*" = "-u tools.hello -xml" ] || { echo "unexpected: $*" >&2; exit 1; }
echo "<?xml version='1.0'?><job_info><queue_info>"
for job in "$DIR"/grid/job-*; do
    { read -r name; read -r state; read -r start; } < "$job" 2>/dev/null || continue
    echo "<job_list><JB_job_number>${job##*-}</JB_job_number><JB_name>$name</JB_name><JB_owner>tools.hello</JB_owner>"
    echo "<state>$state</state><JAT_start_time>$start</JAT_start_time></job_list>"
done
echo "</queue_info></job_info>"
"#;
const QDEL: &str = r#"
if [ -e "$DIR/grid/qdel.sh" ]; then . "$DIR/grid/qdel.sh"; fi
echo "deleted $1" >> "$DIR/grid/log"
for job in "$DIR"/grid/job-*; do
    { read -r name; } < "$job" 2>/dev/null || continue
    if [ "$name" = "$1" ]; then rm -f "$job"; found=1; fi
done
[ "$found" ] || { echo "denied: job \"$1\" does not exist"; exit 1; }
"#;

/// A site of its own. It needs root, to act as the tool.
pub struct Site {
    dir: TempDir,
    list: SocketAddr,
    body: Arc<Mutex<String>>,
    project: String,
    account: String,
    uid: u32,
}

/// The result of a command.
#[derive(Debug)]
pub struct Ended {
    pub status: i32,
    /// Standard output.
    pub answer: String,
    /// Standard error.
    pub messages: String,
}

impl Site {
    /// A site with the tool `hello`, which has a `public_html`; `None` without root, if the test may be skipped.
    #[track_caller]
    pub fn new() -> Option<Self> {
        if !need_root() {
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("others may look in");
        let body = Arc::new(Mutex::new(String::new()));
        let list = serve(Arc::clone(&body));
        let (project, account) = ("tools".to_owned(), "tools.hello".to_owned());
        let site = Self { dir, list, body, project, account, uid: UID };
        for name in ["home", "bin", "grid", "memory"] {
            fs::create_dir(site.path(name)).expect("a directory");
        }
        site.own(&site.path("home"));
        site.own(&site.path("grid"));
        fs::create_dir(site.home("public_html")).expect("a directory");
        fs::write(site.path("bin/webservice"), "").expect("a mount point");
        for (name, script) in [("qsub", QSUB), ("qstat", QSTAT), ("qdel", QDEL)] {
            site.script(&format!("bin/{name}"), script);
        }
        site.configure("");
        site.set_state("r");
        fs::write(site.path("grid/log"), "").expect("written");
        fs::set_permissions(site.path("grid/log"), fs::Permissions::from_mode(0o666)).expect("anybody writes");
        site.set_list(&[]);
        Some(site)
    }

    /// Lets another user run the commands.
    pub fn become_user(&mut self, account: &str, uid: u32) {
        (self.account, self.uid) = (account.into(), uid);
    }

    /// The path of a file of the test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The path of a file in the tool's home.
    pub fn home(&self, name: &str) -> PathBuf {
        self.path("home").join(name)
    }

    /// Makes the tool the owner of a file.
    pub fn own(&self, file: &Path) {
        std::os::unix::fs::lchown(file, Some(UID), Some(UID)).expect("root can");
    }

    /// Writes a file in the tool's home.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.home(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(&path, content).expect("written");
        self.own(&path);
    }

    /// The content of a file in the tool's home; empty if there is none.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.home(name)).unwrap_or_default()
    }

    /// The lines of the manifest behind its comment.
    pub fn manifest(&self) -> Vec<String> {
        let text = self.read("service.manifest");
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    /// Writes the site's configuration. Without more, the grid is the default.
    pub fn configure(&self, more: &str) {
        let default = if more.contains("default_backend") { "" } else { "default_backend: gridengine\n" };
        let grid = if more.contains("gridengine:\n") { "" } else { "gridengine:\n" };
        let list =
            if more.contains("list_url") { String::new() } else { format!("list_url: http://{}/list\n", self.list) };
        let text = format!("{default}{list}{more}\n{grid}  memory_directory: {:?}\n", self.path("memory"));
        fs::write(self.path("webservice.yaml"), text).expect("written");
    }

    /// Sets the state of jobs that are submitted.
    pub fn set_state(&self, letters: &str) {
        fs::write(self.path("grid/state"), format!("{letters}\n")).expect("written");
    }

    /// Sets the state of the jobs that there are.
    pub fn set_job_state(&self, letters: &str) {
        for file in self.jobs() {
            let text = fs::read_to_string(&file).expect("a job");
            let mut lines: Vec<_> = text.lines().collect();
            lines[1] = letters;
            fs::write(file, lines.join("\n") + "\n").expect("written");
        }
    }

    /// Puts a job into the grid.
    pub fn add_job(&self, name: &str, state: &str, start: &str) {
        let number = 9000 + self.jobs().len();
        let file = self.path(&format!("grid/job-{number}"));
        fs::write(&file, format!("{name}\n{state}\n{start}\n")).expect("written");
        self.own(&file);
    }

    /// The files of the jobs that there are.
    pub fn jobs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("grid")).expect("the grid").map(|entry| entry.expect("an entry").path());
        let is_job = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("job-"));
        let mut jobs: Vec<_> = entries.filter(is_job).collect();
        jobs.sort();
        jobs
    }

    /// The names of the jobs that there are.
    pub fn job_names(&self) -> Vec<String> {
        let name = |file: &PathBuf| {
            let text = fs::read_to_string(file).expect("a job");
            text.lines().next().unwrap_or_default().to_owned()
        };
        self.jobs().iter().map(name).collect()
    }

    /// The arguments of the last qsub.
    pub fn submitted(&self) -> Vec<String> {
        let last = (1..).take_while(|n| self.path(&format!("grid/args-{n}")).exists()).last().expect("a submission");
        let bytes = fs::read(self.path(&format!("grid/args-{last}"))).expect("arguments");
        let words: Vec<_> =
            bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        words[..words.len() - 1].to_vec()
    }

    /// What the grid was asked to do: `submitted NAME`, `deleted NAME`.
    pub fn grid_log(&self) -> Vec<String> {
        fs::read_to_string(self.path("grid/log")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Forgets [`Self::grid_log`].
    pub fn forget_grid_log(&self) {
        fs::write(self.path("grid/log"), "").expect("written");
    }

    /// Lets a program of the grid run these lines first.
    pub fn hook(&self, program: &str, lines: &str) {
        fs::write(self.path(&format!("grid/{program}.sh")), lines).expect("written");
    }

    /// Lets commands run these lines as root in their mount namespace first, with the test's directory in `$1`.
    pub fn mounts(&self, lines: &str) {
        fs::write(self.path("mounts"), lines).expect("written");
    }

    /// Sets the tools on the proxy's list.
    pub fn set_list(&self, tools: &[&str]) {
        let entries: Vec<_> = tools.iter().map(|tool| format!("\"{tool}\":{{\"status\":\"active\"}}")).collect();
        *self.body.lock().unwrap() = format!("{{{}}}", entries.join(","));
    }

    fn script(&self, name: &str, body: &str) {
        write_program(&self.path(name), &format!("#!/bin/sh\nDIR={}\n{body}\n", self.dir.path().display()));
    }

    /// The command with these arguments. The site's configuration is relative to the directory of the command, `/`.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.as_tool();
        command.arg(self.path("bin/webservice")).args(["--project", &self.project, "--config"]);
        command.arg(self.path("webservice.yaml").strip_prefix("/").expect("absolute")).args(args);
        command
    }

    /// Runs the command with these arguments, and then prints a file in the home.
    pub fn run_and_print(&self, args: &[&str], file: &str) -> Ended {
        let mut command = self.as_tool();
        command.args(["sh", "-c", r#"file=$1; shift; "$@" && cat "$file""#, "sh"]).arg(self.home(file));
        command.arg(self.path("bin/webservice")).args(["--project", &self.project, "--config"]);
        command.arg(self.path("webservice.yaml")).args(args);
        Ended::of(command.output().expect("unshare runs"))
    }

    /// Runs the command with these arguments on a terminal: its answer and its messages are one.
    pub fn run_on_terminal(&self, args: &[&str]) -> Ended {
        let program = self.path("bin/webservice").display().to_string();
        let config = self.path("webservice.yaml").display().to_string();
        let words = [&[&*program, "--project", &self.project, "--config", &config], args].concat();
        let mut command = self.as_tool();
        command.args(["script", "-qec", &words.join(" "), "/dev/null"]);
        Ended::of(command.output().expect("unshare runs"))
    }

    /// A command without its program, run as the tool.
    fn as_tool(&self) -> Command {
        let home = if self.account == "tools.hello" { self.path("home") } else { "/".into() };
        let (account, uid) = (&self.account, self.uid);
        let accounts = fs::read_to_string("/etc/passwd").expect("accounts");
        let line = format!("{account}:x:{uid}:{uid}::{}:/bin/sh\n", home.display());
        // Commands that run already have the former file as /etc/passwd, so it stays complete.
        fs::write(self.path("passwd.new"), accounts + &line).expect("written");
        fs::rename(self.path("passwd.new"), self.path("passwd")).expect("renamed");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", AS_TOOL, "sh"]).arg(self.dir.path()).arg(self.uid.to_string());
        command.arg(env!("CARGO_BIN_EXE_webservice"));
        command.env("PATH", format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", self.path("bin").display()));
        command.stdin(Stdio::null());
        command
    }

    /// Runs the command with these arguments.
    pub fn run(&self, args: &[&str]) -> Ended {
        Ended::of(self.command(args).output().expect("unshare runs"))
    }

    /// Begins to run the command with these arguments.
    pub fn begin(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("unshare runs")
    }
}

impl Ended {
    pub fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { status: output.status.code().unwrap_or(-1), answer: text(output.stdout), messages: text(output.stderr) }
    }

    /// The command's success.
    #[track_caller]
    pub fn succeeds(self) -> Self {
        assert_eq!(self.status, 0, "{self:?}");
        self
    }

    /// The command's failure, with these words in its messages.
    #[track_caller]
    pub fn fails(self, words: &str) -> Self {
        assert_eq!(self.status, 1, "{self:?}");
        assert!(self.messages.contains(words), "no {words:?} in {self:?}");
        self
    }

    /// The messages without progress: dots of waiting.
    pub fn lines(&self) -> Vec<&str> {
        self.messages.lines().map(|line| line.trim_end_matches('.')).collect()
    }
}

/// Waits for a command that was begun.
pub fn child_output(child: &mut Child) -> Output {
    let read = |stream: Option<&mut dyn Read>| {
        let mut bytes = Vec::new();
        stream.expect("a pipe").read_to_end(&mut bytes).expect("read");
        bytes
    };
    let stdout = read(child.stdout.as_mut().map(|stream| stream as &mut dyn Read));
    let stderr = read(child.stderr.as_mut().map(|stream| stream as &mut dyn Read));
    Output { status: child.wait().expect("the end"), stdout, stderr }
}

/// Serves the list.
fn serve(body: Arc<Mutex<String>>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (mut request, mut byte) = (Vec::new(), [0]);
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                request.push(byte[0]);
            }
            let body = body.lock().unwrap().clone();
            let head = format!("HTTP/1.1 200 OK\r\nAge: 0\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all((head + &body).as_bytes());
        }
    });
    address
}
