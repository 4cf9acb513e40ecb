//! An interactive shell in a Pod of its own, which is deleted afterwards in any case.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::api::{AttachParams, LogParams};
use kube::client::Connection;
use rustix::stdio::stdin;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use super::api::Api;
use super::api_error::ApiError;
use super::attached::{End, Output, Streams, relay};
use super::error::KubernetesError;
use super::objects::{self, CONTAINER};
use super::pod_state::{has_ended, judge, phase};
use super::terminal::{self, RawTerminal, Size};
use super::workload::Workload;
use super::{labels, log_line};
use crate::clock;
use crate::webservice::{Console, State};

/// The shell without a command.
const SHELL: [&str; 2] = ["/bin/bash", "-il"];
/// For the Pod to start; its image may have to be fetched.
const START: Duration = Duration::from_secs(120);
/// Between two looks at the Pod.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// For the exit status, after the connection has ended.
const STATUS: Duration = Duration::from_secs(10);
/// Before v5 of the protocol, an end of the input is that of the connection.
const LATE_OUTPUT: &str =
    "The input has ended. This API server is older than Kubernetes 1.30, and sends no output after that";
/// The number of this signal, which writing to nobody causes.
const SIGPIPE: u8 = 13;
/// For output that its reader does not take.
const DRAIN: Duration = Duration::from_secs(5);
/// Names that are tried if two shells start within a second.
const NAMES: u64 = 10;
/// Pieces of input or output that wait.
const QUEUE_LEN: usize = 64;
/// The largest piece of input, in bytes.
const INPUT_LEN: usize = 4096;

/// Runs the command, or a shell without one. Returns its exit status, or 128 + N after signal N.
///
/// # Errors
/// The Pod does not start, its connection is lost, or it cannot be deleted.
pub async fn run(
    api: &Api,
    namespace: &str,
    home: &str,
    workload: &Workload,
    command: &[String],
) -> Result<u8, KubernetesError> {
    // First: from here on, these signals no longer kill the process.
    let mut signals = Signals::new().map_err(io_error("watching for signals"))?;
    delete_finished(api, namespace).await?;
    let has_terminal = terminal::is_there();
    let command: Vec<String> = if command.is_empty() { SHELL.map(str::to_owned).to_vec() } else { command.to_vec() };
    let build = |name: &str| objects::shell(name, home, workload, &command, has_terminal);
    let session = Session { api, namespace, name: create(api, namespace, build).await?, has_terminal };
    let outcome = tokio::select! {
        outcome = session.run() => outcome,
        number = signals.next() => Ok(128 + number),
    };
    let remains = |error| KubernetesError::ShellRemains {
        error: Box::new(error),
        namespace: namespace.to_owned(),
        pod: session.name.clone(),
    };
    let deleted = session.delete().await.map_err(remains);
    let status = outcome?;
    deleted?;
    Ok(status)
}

/// Creates the Pod under a free name. If that fails without an answer, it is deleted, in case it is there.
async fn create(api: &Api, namespace: &str, build: impl Fn(&str) -> Pod) -> Result<String, ApiError> {
    let mut number = clock::unix_seconds();
    let last = number + NAMES;
    loop {
        let name = format!("shell-{number}");
        match api.create(namespace, &build(&name)).await {
            Ok(_) => return Ok(name),
            Err(error) if error.is_conflict() && number < last => number += 1,
            Err(error) => {
                if error.is_ambiguous() {
                    // The first error is the one to report; the Pod ends by itself, as nothing is attached.
                    let _ = delete_named(api, namespace, &name).await;
                }
                return Err(error);
            }
        }
    }
}

async fn delete_named(api: &Api, namespace: &str, name: &str) -> Result<(), ApiError> {
    let meta = kube::api::ObjectMeta { name: Some(name.to_owned()), ..kube::api::ObjectMeta::default() };
    api.delete::<Pod>(namespace, &meta).await
}

/// Deletes the Pods of shells that have ended, and whose clients were killed before they could.
async fn delete_finished(api: &Api, namespace: &str) -> Result<(), ApiError> {
    for pod in api.list::<Pod>(namespace, &labels::shell_selector()).await? {
        if has_ended(&pod) && pod.metadata.deletion_timestamp.is_none() {
            api.delete::<Pod>(namespace, &pod.metadata).await?;
        }
    }
    Ok(())
}

/// A created Pod.
struct Session<'a> {
    api: &'a Api,
    namespace: &'a str,
    name: String,
    has_terminal: bool,
}

impl Session<'_> {
    async fn run(&self) -> Result<u8, KubernetesError> {
        if self.wait_until_started().await?.is_some() {
            // Too quick to attach to.
            self.print_log().await?;
            return self.exit_status("it has ended").await;
        }
        let connection = match self.connect().await {
            Ok(connection) => connection,
            // It may have ended meanwhile.
            Err(error) => return exit_code(&self.pod().await?).map(status_of).ok_or(error.into()),
        };
        match self.relay(connection).await? {
            Ok(End::Far) => self.exit_status("the connection was closed").await,
            Ok(End::Input) => {
                Console::new().say(LATE_OUTPUT);
                self.wait_until_ended().await
            }
            // As for any program whose output nobody reads.
            Ok(End::Output) => Ok(128 + SIGPIPE),
            Err(lost) => self.exit_status(&lost).await,
        }
    }

    /// Waits until the container runs. Returns its exit status if it has ended already.
    async fn wait_until_started(&self) -> Result<Option<i32>, KubernetesError> {
        let deadline = Instant::now() + START;
        let mut wait = Console::new().wait(&format!("Starting pod {}", self.name));
        loop {
            let pod = wait.during(self.pod()).await?;
            if let Some(status) = exit_code(&pod) {
                return Ok(Some(status));
            }
            if phase(&pod) == "Running" {
                return Ok(None);
            }
            let reason = match judge(&pod) {
                State::Failed { reason } => return Err(KubernetesError::ShellFailed(reason)),
                state => state.reason().unwrap_or_default().to_owned(),
            };
            if Instant::now() + POLL_INTERVAL > deadline {
                return Err(KubernetesError::ShellTooLate { seconds: START.as_secs(), reason });
            }
            wait.set_reason(&reason);
            wait.during(sleep(POLL_INTERVAL)).await;
        }
    }

    async fn pod(&self) -> Result<Pod, KubernetesError> {
        let pod = self.api.get(self.namespace, &self.name).await?;
        pod.ok_or_else(|| KubernetesError::ShellLost(format!("pod {} was deleted", self.name)))
    }

    async fn connect(&self) -> Result<Connection, ApiError> {
        let params = AttachParams::default().container(CONTAINER).stdin(true).stdout(true);
        let params = params.stderr(!self.has_terminal).tty(self.has_terminal);
        let request = kube::core::Request::new(Pod::url_path(&(), Some(self.namespace)));
        let doing = format!("attaching to pod {:?}", self.name);
        self.api.connect(&doing, request.attach(&self.name, &params)).await
    }

    /// Copies until the connection ends; the inner error says why it was lost.
    async fn relay(&self, connection: Connection) -> Result<Result<End, String>, KubernetesError> {
        let raw = self.has_terminal.then(RawTerminal::enter).transpose().map_err(io_error("changing the terminal"))?;
        let (output, printer) = print_output();
        let streams = Streams { input: read_input(), sizes: self.watch_size(), output };
        let relayed = relay(connection, streams).await;
        // What is still in the queue.
        let _ = timeout(DRAIN, printer).await;
        drop(raw);
        Ok(relayed)
    }

    /// The sizes of the terminal, now and after each change. The first differs from the next: the shell may have printed its prompt
    /// before, and prints it again after a change.
    fn watch_size(&self) -> mpsc::Receiver<Size> {
        let (sender, sizes) = mpsc::channel(QUEUE_LEN);
        if !self.has_terminal {
            return sizes;
        }
        tokio::spawn(async move {
            let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
            if let Some(Size { width, height }) = terminal::size() {
                let larger = Size { width: width.saturating_add(1), height: height.saturating_add(1) };
                let _ = sender.send(larger).await;
            }
            loop {
                if let Some(size) = terminal::size()
                    && sender.send(size).await.is_err()
                {
                    return;
                }
                tokio::select! {
                    _ = changes.recv() => {}
                    () = sender.closed() => return,
                }
            }
        });
        sizes
    }

    /// The exit status of the container; if it has none within [`STATUS`], the connection was lost for this reason.
    async fn exit_status(&self, lost: &str) -> Result<u8, KubernetesError> {
        let deadline = Instant::now() + STATUS;
        loop {
            if let Some(status) = exit_code(&self.pod().await?) {
                return Ok(status_of(status));
            }
            if Instant::now() > deadline {
                return Err(KubernetesError::ShellLost(lost.to_owned()));
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// The exit status of a container that is left to itself.
    async fn wait_until_ended(&self) -> Result<u8, KubernetesError> {
        loop {
            if let Some(code) = exit_code(&self.pod().await?) {
                return Ok(status_of(code));
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    async fn print_log(&self) -> Result<(), KubernetesError> {
        let params = LogParams { container: Some(CONTAINER.into()), ..LogParams::default() };
        let request = kube::core::Request::new(Pod::url_path(&(), Some(self.namespace)));
        let doing = format!("reading the output of pod {:?}", self.name);
        let stream = self.api.stream(&doing, request.logs(&self.name, &params)).await?;
        let copied = log_line::copy(stream, &mut io::stdout()).await;
        copied.map_err(io_error("printing the output"))
    }

    async fn delete(&self) -> Result<(), ApiError> {
        delete_named(self.api, self.namespace, &self.name).await
    }
}

fn io_error(doing: &'static str) -> impl Fn(io::Error) -> KubernetesError {
    move |error| KubernetesError::Io { error, doing }
}

fn status_of(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// The exit status of the container, if it has ended.
fn exit_code(pod: &Pod) -> Option<i32> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    Some(containers.iter().find(|status| status.name == CONTAINER)?.state.as_ref()?.terminated.as_ref()?.exit_code)
}

/// Reads standard input in a thread of its own, which ends with the process: a terminal must not become non-blocking, as other
/// processes share it.
fn read_input() -> mpsc::Receiver<Vec<u8>> {
    let (sender, input) = mpsc::channel(QUEUE_LEN);
    thread::spawn(move || {
        let mut buffer = [0; INPUT_LEN];
        loop {
            match rustix::io::read(stdin(), &mut buffer) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(0) | Err(_) => return,
                Ok(len) => {
                    if sender.blocking_send(buffer[..len].to_vec()).is_err() {
                        return;
                    }
                }
            }
        }
    });
    input
}

/// Prints output off the runtime's threads, so that a reader that waits delays nothing else.
fn print_output() -> (mpsc::Sender<Output>, tokio::task::JoinHandle<()>) {
    let (sender, mut output) = mpsc::channel(QUEUE_LEN);
    let printer = spawn_blocking(move || {
        while let Some(piece) = output.blocking_recv() {
            let printed = match piece {
                Output::Stdout(bytes) => io::stdout().write_all(&bytes).and_then(|()| io::stdout().flush()),
                Output::Stderr(bytes) => io::stderr().write_all(&bytes),
            };
            if printed.is_err() {
                return;
            }
        }
    });
    (sender, printer)
}

/// The signals that end the shell.
struct Signals([(u8, Signal); 4]);

impl Signals {
    fn new() -> io::Result<Self> {
        let watch = |kind: SignalKind| -> io::Result<(u8, Signal)> {
            Ok((u8::try_from(kind.as_raw_value()).unwrap_or_default(), signal(kind)?))
        };
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()];
        let [interrupt, terminate, hangup, quit] = kinds.map(watch);
        Ok(Self([interrupt?, terminate?, hangup?, quit?]))
    }

    /// The number of the next signal.
    async fn next(&mut self) -> u8 {
        let [interrupt, terminate, hangup, quit] = &mut self.0;
        tokio::select! {
            _ = interrupt.1.recv() => interrupt.0,
            _ = terminate.1.recv() => terminate.0,
            _ = hangup.1.recv() => hangup.0,
            _ = quit.1.recv() => quit.0,
        }
    }
}
