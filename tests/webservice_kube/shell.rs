//! Interactive shells: this test program runs itself as the client.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::{Value, json};
use urlproxy::web_type::SiteConfig;
use urlproxy::webservice::Tool;
use urlproxy::webservice::kubernetes::Kubernetes;

use crate::api_server::{ALWAYS, Attach, Fault, NAMESPACE};
use crate::site::{Site, running, service};
use crate::support::wait::wait_for;

/// Not a test: the client that the tests run. Its exit status is that of the shell, or 1 with the error.
#[test]
#[ignore = "run by the other tests"]
fn client() {
    let Some(home) = std::env::var_os("SHELL_HOME") else { return };
    let tool = Tool { name: "hello".into(), account: "tools.hello".into(), home: PathBuf::from(home), uid: 50_001 };
    let words = std::env::var("SHELL_COMMAND").unwrap_or_default();
    let command: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    let config = SiteConfig::parse("").expect("the defaults");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let outcome = runtime.block_on(async {
        let kubernetes = Kubernetes::connect(&tool, &config).await?;
        kubernetes.shell(&service("php8.2"), &command).await
    });
    std::process::exit(match outcome {
        Ok(status) => status.into(),
        Err(error) => {
            eprintln!("error: {error}");
            1
        }
    });
}

/// A running client.
struct Client {
    child: Child,
    output: Arc<Mutex<String>>,
}

fn collect(mut from: impl Read + Send + 'static, into: &Arc<Mutex<String>>) {
    let into = Arc::clone(into);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            into.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..len]));
        }
    });
}

fn command(site: &Site, words: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "shell::client", "--ignored", "--nocapture", "--quiet"]);
    command.env("SHELL_HOME", &site.tool.home).env("SHELL_COMMAND", words);
    command
}

impl Client {
    /// A client with pipes.
    fn start(site: &Site, words: &str) -> Self {
        let mut command = command(site, words);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a client");
        let output = Arc::default();
        collect(child.stdout.take().expect("a pipe"), &output);
        collect(child.stderr.take().expect("a pipe"), &output);
        Self { child, output }
    }

    /// A client with a terminal, and the terminal's other end.
    fn on_terminal(site: &Site) -> (Self, File, OwnedFd) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("a terminal");
        unlockpt(&master).expect("a terminal");
        let name = ptsname(&master, Vec::new()).expect("a name");
        let slave = rustix::fs::open(&*name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("a terminal");
        resize(&slave, 100, 40);
        let copy = || Stdio::from(slave.try_clone().expect("a terminal"));
        let child = command(site, "").stdin(copy()).stdout(copy()).stderr(copy()).spawn().expect("a client");
        let master = File::from(master);
        let output = Arc::default();
        collect(master.try_clone().expect("a terminal"), &output);
        (Self { child, output }, master, slave)
    }

    fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    #[track_caller]
    fn wait_for_output(&self, text: &str) {
        wait_for(&format!("{text:?} in the output"), || self.output().contains(text));
    }

    fn send(&mut self, text: &str) {
        self.child.stdin.as_mut().expect("a pipe").write_all(text.as_bytes()).expect("written");
    }

    fn signal(&self, name: &str) {
        let killed = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status();
        assert!(killed.is_ok_and(|status| status.success()), "kill -{name}");
    }

    #[track_caller]
    fn wait_for_end(&mut self) -> i32 {
        let mut status = None;
        wait_for("the end of the client", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        let status = status.expect("just found");
        status.code().unwrap_or_else(|| panic!("signal {:?}: {}", status.signal(), self.output()))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- output of the client\n{:.10000}", self.output());
        }
    }
}

fn resize(terminal: &OwnedFd, width: u16, height: u16) {
    tcsetwinsize(terminal, Winsize { ws_col: width, ws_row: height, ws_xpixel: 0, ws_ypixel: 0 }).expect("resized");
}

fn site() -> Site {
    let site = Site::new();
    site.api.set_new_pod(json!({"phase": "Running", "containerStatuses": [running(0)]}));
    site
}

fn shells(site: &Site) -> Vec<String> {
    site.api.names().into_iter().filter(|name| name.starts_with("pods/shell-")).collect()
}

#[track_caller]
fn wait_for_shell(site: &Site) -> Value {
    wait_for("a pod", || !shells(site).is_empty());
    site.api.get("pods", shells(site)[0].trim_start_matches("pods/"))
}

#[test]
fn pipes_are_copied_and_the_exit_status_is_the_shells() {
    let site = site();
    let mut client = Client::start(&site, "");
    client.wait_for_output("attached");
    let pod = wait_for_shell(&site);
    let name = pod["metadata"]["name"].as_str().unwrap();
    let labels = json!({
        "toolforge": "tool", "name": name,
        "app.kubernetes.io/component": "shell", "app.kubernetes.io/managed-by": "webservice",
    });
    assert_eq!(pod["metadata"]["labels"], labels);
    assert_eq!(
        (&pod["spec"]["restartPolicy"], &pod["spec"]["activeDeadlineSeconds"]),
        (&json!("Never"), &json!(86_400))
    );
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["image"], "registry.example.org/php");
    assert_eq!(container["command"], json!(["/bin/bash", "-il"]));
    assert_eq!(container["workingDir"], site.tool.home.to_str().unwrap());
    assert_eq!(
        (&container["stdin"], &container["stdinOnce"], &container["tty"]),
        (&json!(true), &json!(true), &json!(false))
    );
    client.send("wîki\n");
    client.wait_for_output("wîki");
    client.send("exit 3\n");
    assert_eq!(client.wait_for_end(), 3);
    assert!(client.output().contains("bye"), "standard error too");
    assert_eq!(shells(&site), [""; 0]);
    assert_eq!(site.api.input(), "wîki\nexit 3\n");
}

#[test]
fn end_of_input_is_the_shells() {
    let site = site();
    site.api.set_attach(Attach::EchoV5);
    let mut client = Client::start(&site, "cat -n");
    client.wait_for_output("attached");
    assert_eq!(wait_for_shell(&site)["spec"]["containers"][0]["command"], json!(["cat", "-n"]));
    client.send("last words");
    drop(client.child.stdin.take());
    assert_eq!(client.wait_for_end(), 0);
    assert!(client.output().contains("last words"));
    assert_eq!(shells(&site), [""; 0]);
}

#[test]
fn output_is_taken_while_input_waits() {
    let site = site();
    site.api.set_attach(Attach::Burst);
    let mut client = Client::start(&site, "burst");
    client.wait_for_output("attached");
    let mut stdin = client.child.stdin.take().unwrap();
    let writer = thread::spawn(move || stdin.write_all(&vec![b'x'; 24 << 20]).is_ok());
    assert_eq!(client.wait_for_end(), 0);
    assert!(writer.join().unwrap());
    assert_eq!(site.api.input().len(), 24 << 20);
    wait_for("all output", || client.output().matches('.').count() >= 32 << 20);
}

#[test]
fn end_of_input_at_an_old_server_waits_for_output() {
    let site = site();
    let mut client = Client::start(&site, "");
    client.wait_for_output("attached");
    client.send("slow words");
    drop(client.child.stdin.take());
    assert_eq!(client.wait_for_end(), 6);
    assert!(client.output().contains("slow words"), "before the connection was closed");
    assert!(client.output().contains("sends no output after that"), "{}", client.output());
    assert_eq!(shells(&site), [""; 0]);
}

#[test]
fn terminal_is_raw_meanwhile_and_follows_its_size() {
    let site = site();
    let (mut client, mut terminal, slave) = Client::on_terminal(&site);
    let before = tcgetattr(&slave).unwrap();
    client.wait_for_output("attached");
    assert_eq!(wait_for_shell(&site)["spec"]["containers"][0]["tty"], json!(true));
    wait_for("a raw terminal", || !tcgetattr(&slave).unwrap().local_modes.contains(LocalModes::ISIG));
    wait_for("two sizes", || site.api.sizes().len() >= 2);
    // The first makes the shell print its prompt again.
    assert_eq!(site.api.sizes(), [r#"{"Height":41,"Width":101}"#, r#"{"Height":40,"Width":100}"#]);
    resize(&slave, 80, 24);
    client.signal("WINCH");
    wait_for("a third size", || site.api.sizes().len() >= 3);
    assert_eq!(site.api.sizes()[2], r#"{"Height":24,"Width":80}"#);
    // Ctrl-C, Ctrl-Z and Ctrl-S are the shell's.
    terminal.write_all(b"\x03\x1a\x13").unwrap();
    wait_for("control characters", || site.api.input().ends_with("\x03\x1a\x13"));
    terminal.write_all(b"exit 7\r").unwrap();
    assert_eq!(client.wait_for_end(), 7);
    let after = tcgetattr(&slave).unwrap();
    assert_eq!((after.local_modes, after.input_modes), (before.local_modes, before.input_modes));
    assert_eq!(shells(&site), [""; 0]);
}

#[test]
fn signals_end_the_shell_and_its_pod() {
    for (name, want) in [("INT", 130), ("TERM", 143), ("HUP", 129), ("QUIT", 131)] {
        let site = site();
        let (mut client, _terminal, slave) = Client::on_terminal(&site);
        client.wait_for_output("attached");
        wait_for("a raw terminal", || !tcgetattr(&slave).unwrap().local_modes.contains(LocalModes::ISIG));
        client.signal(name);
        assert_eq!(client.wait_for_end(), want, "{name}");
        assert!(tcgetattr(&slave).unwrap().local_modes.contains(LocalModes::ISIG), "{name}: the terminal is restored");
        assert_eq!(shells(&site), [""; 0], "{name}");
    }
}

#[test]
fn signals_end_the_wait_for_the_pod() {
    let site = site();
    let condition =
        json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"});
    site.api.set_new_pod(json!({"phase": "Pending", "conditions": [condition]}));
    let mut client = Client::start(&site, "");
    wait_for_shell(&site);
    client.signal("INT");
    assert_eq!(client.wait_for_end(), 130);
    assert_eq!(shells(&site), [""; 0]);
}

#[test]
fn reader_that_has_stopped_does_not_delay_signals() {
    let site = site();
    site.api.set_attach(Attach::Deaf);
    let mut child =
        command(&site, "").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("a stream", || site.api.count("GET", "/attach") > 0);
    thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none());
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    // Nobody reads its output.
    wait_for("the end", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_eq!(shells(&site), [""; 0]);
}

#[test]
fn reader_that_has_gone_ends_the_shell() {
    let site = site();
    site.api.set_attach(Attach::Deaf);
    let mut child =
        command(&site, "").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("a stream", || site.api.count("GET", "/attach") > 0);
    drop(child.stdout.take());
    wait_for("the end", || child.try_wait().unwrap().is_some());
    // Not 1, as for a connection that was given up.
    assert_eq!(child.wait().unwrap().code(), Some(141));
    assert_eq!(shells(&site), [""; 0]);
}

#[test]
fn failures_say_why_and_leave_no_pod() {
    let waiting = |reason: &str, message: &str| {
        let mut container = running(0);
        container["state"] = json!({"waiting": {"reason": reason, "message": message}});
        json!({"phase": "Pending", "containerStatuses": [container]})
    };
    let site = site();
    site.api.set_new_pod(waiting("ImagePullBackOff", "Back-off pulling image"));
    let mut client = Client::start(&site, "");
    assert_eq!(client.wait_for_end(), 1);
    client.wait_for_output("error: the shell does not start: pod shell-");
    client.wait_for_output("ImagePullBackOff: Back-off pulling image");
    assert_eq!(shells(&site), [""; 0]);

    let quota = "pods \"shell\" is forbidden: exceeded quota: tool-hello";
    site.api.fail("POST", "/pods", Fault::Status(403, quota), 1);
    let mut client = Client::start(&site, "");
    assert_eq!(client.wait_for_end(), 1);
    client.wait_for_output("exceeded quota: tool-hello (403) while creating Pod");

    site.api.set_new_pod(json!({"phase": "Running", "containerStatuses": [running(0)]}));
    for (attach, want) in [
        (Attach::Lose, "error: connection to the shell lost: "),
        (Attach::Fail, "dial tcp 10.0.0.1:10250: connection refused"),
    ] {
        site.api.set_attach(attach);
        let mut client = Client::start(&site, "");
        assert_eq!(client.wait_for_end(), 1, "{attach:?}");
        client.wait_for_output(want);
        assert_eq!(shells(&site), [""; 0], "{attach:?}");
    }
    site.api.fail("GET", "/attach", Fault::Status(403, "pods/attach is forbidden: User \"x\" cannot create it"), 1);
    let mut client = Client::start(&site, "");
    assert_eq!(client.wait_for_end(), 1);
    client.wait_for_output("ask the operators for the rights of a tool");
    assert_eq!(shells(&site), [""; 0]);
}

#[test]
fn pod_whose_creation_got_no_answer_is_deleted() {
    let site = site();
    site.api.fail("POST", "/pods", Fault::DoneBut(504), 1);
    let mut client = Client::start(&site, "");
    assert_eq!(client.wait_for_end(), 1);
    client.wait_for_output("(504) while creating Pod");
    assert_eq!(shells(&site), [""; 0]);
}

#[test]
fn pod_that_remains_is_named_and_goes_with_the_next_shell() {
    let site = site();
    site.api.fail(
        "DELETE",
        "/pods/shell-",
        Fault::Status(403, "pods is forbidden: User \"x\" cannot delete it"),
        ALWAYS,
    );
    let mut client = Client::start(&site, "");
    client.wait_for_output("attached");
    client.send("exit 0\n");
    assert_eq!(client.wait_for_end(), 1);
    client.wait_for_output("it ends by itself, or delete it with: kubectl delete pod -n tool-hello shell-");
    let left = wait_for_shell(&site)["metadata"]["uid"].clone();
    site.api.recover();
    // Another one that still runs stays.
    let labels = json!({"app.kubernetes.io/component": "shell", "app.kubernetes.io/managed-by": "webservice"});
    site.api.put(
        "pods",
        NAMESPACE,
        json!({"metadata": {"name": "shell-0", "labels": labels}, "status": {"phase": "Running"}}),
    );
    let mut client = Client::start(&site, "");
    client.wait_for_output("attached");
    let names = shells(&site);
    let uids: Vec<_> =
        names.iter().map(|name| site.api.get("pods", &name["pods/".len()..])["metadata"]["uid"].clone()).collect();
    assert!(uids.len() == 2 && !uids.contains(&left), "{names:?}");
    client.send("exit 0\n");
    assert_eq!(client.wait_for_end(), 0);
    assert_eq!(shells(&site), ["pods/shell-0"]);
}

#[test]
fn command_that_has_ended_before_it_is_attached_to_has_its_output() {
    let site = site();
    let mut container = running(0);
    container["state"] = json!({"terminated": {"exitCode": 5, "reason": "Error"}});
    site.api.set_new_pod(json!({"phase": "Failed", "containerStatuses": [container]}));
    site.api.fail("GET", "/log", Fault::Garbage, 1);
    let mut client = Client::start(&site, "quick");
    assert_eq!(client.wait_for_end(), 5);
    client.wait_for_output("It works!");
    assert_eq!(shells(&site), [""; 0]);
}

#[test]
fn shells_of_the_same_second_have_different_names() {
    let site = site();
    site.api.fail("POST", "/pods", Fault::Status(409, "pods \"shell\" already exists"), 2);
    let mut client = Client::start(&site, "");
    client.wait_for_output("attached");
    client.send("exit 0\n");
    assert_eq!(client.wait_for_end(), 0);
    assert_eq!(site.api.count("POST", "/pods"), 3);
}
