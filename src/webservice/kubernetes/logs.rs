//! The logs of a web service's Pods: all of them in the order of time, or as they are written.

use std::collections::HashMap;
use std::io::{self, Write};
use std::pin::Pin;
use std::time::Duration;

use futures_util::AsyncBufRead;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::LogParams;
use kube::{Resource, ResourceExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::api::Api;
use super::api_error::ApiError;
use super::error::KubernetesError;
use super::log_line::{LogLine, LogReader};
use super::objects::CONTAINER;
use super::pod_state::has_ended;
use super::rollout;

/// Pods that are read, the newest; evicted Pods may pile up.
const MAX_PODS: usize = 50;
/// Between two lists of the Pods, while following.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Without anything more of a log that is not followed.
const SILENCE: Duration = Duration::from_secs(30);
/// Lines that wait for the output.
const QUEUE_LEN: usize = 256;

/// Which logs, and how they are printed.
#[derive(Clone, Copy)]
pub struct Logs<'a> {
    /// The API server.
    pub api: &'a Api,
    /// The tool's namespace.
    pub namespace: &'a str,
    /// The tool.
    pub tool: &'a str,
    /// Only so many lines of each Pod.
    pub last: Option<u32>,
    /// Whether the output is a terminal.
    pub escape: bool,
}

type Stream = Pin<Box<dyn AsyncBufRead + Send>>;

/// The log of one Pod, with its next line.
struct PodLog {
    pod: String,
    reader: LogReader<Stream>,
    next: LogLine,
}

impl PodLog {
    /// `None` at the end.
    async fn begin(pod: String, stream: Stream) -> io::Result<Option<Self>> {
        let mut reader = LogReader::new(stream);
        Ok(next_line(&mut reader).await?.map(|next| Self { pod, reader, next }))
    }
}

async fn next_line(reader: &mut LogReader<Stream>) -> io::Result<Option<LogLine>> {
    let silent = || io::Error::new(io::ErrorKind::TimedOut, format!("nothing more within {} s", SILENCE.as_secs()));
    timeout(SILENCE, reader.next()).await.unwrap_or_else(|_| Err(silent()))
}

impl Logs<'_> {
    /// Prints the lines of all Pods, in the order of their times.
    ///
    /// # Errors
    /// There is no Pod, none has a log, the API server does not answer, or the output cannot be written.
    pub async fn print(self, output: &mut impl Write) -> Result<(), KubernetesError> {
        let pods = self.pods().await?;
        let mut logs = Vec::new();
        let mut refused = None;
        for pod in &pods {
            let stream = open(self.api, self.namespace, &pod.name_any(), None, self.last, false).await;
            let stream = match stream {
                Ok(stream) => stream,
                // The container has not started yet, or the Pod or its node is gone.
                Err(error) if error.is_bad_request() || error.is_not_found() || has_ended(pod) => {
                    refused = Some(error);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            logs.extend(PodLog::begin(pod.name_any(), stream).await.map_err(reading)?);
        }
        if let (Some(error), true) = (refused, logs.is_empty()) {
            return Err(error.into());
        }
        let written =
            |outcome: io::Result<()>| outcome.map_err(|error| KubernetesError::Io { error, doing: "printing" });
        while let Some(at) = (0..logs.len()).min_by_key(|&at| logs[at].next.time) {
            let log = &mut logs[at];
            match log.next.print(&log.pod, self.escape, output) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                printed => written(printed)?,
            }
            match next_line(&mut log.reader).await.map_err(reading)? {
                Some(line) => log.next = line,
                None => drop(logs.remove(at)),
            }
        }
        written(output.flush())
    }

    /// Prints lines as they are written, also by Pods that are created later, until the output is closed.
    ///
    /// # Errors
    /// There is no Pod at first, the API server refuses, or the output cannot be written.
    pub async fn follow(self, output: &mut impl Write) -> Result<(), KubernetesError> {
        let (sender, mut events) = mpsc::channel(QUEUE_LEN);
        let first = self.pods().await?;
        let mut follower = Follower::new(self.api.clone(), self.namespace.to_owned(), self.last, sender.clone());
        follower.follow_all(&first);
        // Pods that come later are new: all of their lines.
        follower.last = None;
        follower.tasks.spawn(watch_pods(self.api.clone(), self.namespace.to_owned(), self.tool.to_owned(), sender));
        while let Some(event) = events.recv().await {
            match event {
                Event::Pods(pods) => follower.follow_all(&pods),
                Event::Unreachable(error) if error.is_forbidden() => return Err(error.into()),
                Event::Unreachable(_) => follower.was_unreachable = true,
                Event::Ended { uid, generation } => follower.ended(&uid, generation),
                Event::Line { uid, pod, line } => {
                    follower.note_time(&uid, line.time);
                    match line.print(&pod, self.escape, output).and_then(|()| output.flush()) {
                        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                        Err(error) => return Err(KubernetesError::Io { error, doing: "printing" }),
                        Ok(()) => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// The newest Pods of the web service.
    async fn pods(self) -> Result<Vec<Pod>, KubernetesError> {
        let pods = newest(rollout::pods(self.api, self.namespace, self.tool, None).await?);
        if pods.is_empty() { Err(KubernetesError::NoPods) } else { Ok(pods) }
    }
}

fn reading(error: io::Error) -> KubernetesError {
    KubernetesError::Io { error, doing: "reading a log from the API server" }
}

fn newest(mut pods: Vec<Pod>) -> Vec<Pod> {
    pods.sort_by_key(|pod| std::cmp::Reverse(pod.metadata.creation_timestamp.as_ref().map(|time| time.0)));
    pods.truncate(MAX_PODS);
    pods
}

async fn open(
    api: &Api,
    namespace: &str,
    pod: &str,
    since: Option<Timestamp>,
    last: Option<u32>,
    follow: bool,
) -> Result<Stream, ApiError> {
    // The kube crate rounds to seconds, also up.
    let since_time = since.and_then(|time| Timestamp::from_second(time.as_second()).ok());
    let params = LogParams {
        container: Some(CONTAINER.into()),
        follow,
        since_time,
        tail_lines: last.map(i64::from),
        timestamps: true,
        ..LogParams::default()
    };
    let request = kube::core::Request::new(Pod::url_path(&(), Some(namespace)));
    let doing = format!("reading the log of pod {pod:?}");
    Ok(Box::pin(api.stream(&doing, request.logs(pod, &params)).await?))
}

/// What the tasks report.
enum Event {
    Pods(Vec<Pod>),
    Unreachable(ApiError),
    Line { uid: String, pod: String, line: LogLine },
    Ended { uid: String, generation: u64 },
}

async fn watch_pods(api: Api, namespace: String, tool: String, sender: mpsc::Sender<Event>) {
    loop {
        sleep(POLL_INTERVAL).await;
        let event = match rollout::pods(&api, &namespace, &tool, None).await {
            Ok(pods) => Event::Pods(newest(pods)),
            Err(error) => Event::Unreachable(error),
        };
        if sender.send(event).await.is_err() {
            return;
        }
    }
}

/// One stream per Pod.
struct Follower {
    api: Api,
    namespace: String,
    last: Option<u32>,
    sender: mpsc::Sender<Event>,
    tasks: JoinSet<()>,
    by_uid: HashMap<String, Followed>,
    /// Streams that broke meanwhile may look as if they only had nothing to say.
    was_unreachable: bool,
    generation: u64,
}

/// What is known of a Pod.
struct Followed {
    /// The stream, if one is open.
    stream: Option<(u64, tokio::task::AbortHandle)>,
    /// The restarts of the container that the stream is, or was, of.
    restarts: i32,
    /// The time of the last line.
    last_time: Option<Timestamp>,
}

impl Follower {
    fn new(api: Api, namespace: String, last: Option<u32>, sender: mpsc::Sender<Event>) -> Self {
        let (tasks, by_uid) = (JoinSet::new(), HashMap::new());
        Self { api, namespace, last, sender, tasks, by_uid, was_unreachable: false, generation: 0 }
    }

    fn follow_all(&mut self, pods: &[Pod]) {
        self.by_uid.retain(|uid, _| pods.iter().any(|pod| pod.metadata.uid.as_ref() == Some(uid)));
        if std::mem::take(&mut self.was_unreachable) {
            for followed in self.by_uid.values_mut() {
                if let Some((_, task)) = followed.stream.take() {
                    task.abort();
                }
            }
        }
        // Tasks that have ended.
        while self.tasks.try_join_next().is_some() {}
        for pod in pods {
            self.follow(pod);
        }
    }

    fn follow(&mut self, pod: &Pod) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        let Some(container) = container(pod) else { return };
        let state = container.state.clone().unwrap_or_default();
        let has_log = state.running.is_some() || state.terminated.is_some() || container.restart_count > 0;
        let restarts = container.restart_count;
        let before = self.by_uid.get(&uid);
        let is_due = match before {
            None => has_log,
            Some(Followed { stream: Some(_), .. }) => false,
            Some(followed) => followed.restarts != restarts || state.running.is_some(),
        };
        if !is_due {
            return;
        }
        let since = before.and_then(|followed| followed.last_time);
        self.generation += 1;
        let task = self.tasks.spawn(send_lines(
            (self.api.clone(), self.namespace.clone()),
            (uid.clone(), pod.name_any(), self.generation),
            since,
            self.last.filter(|_| before.is_none()),
            self.sender.clone(),
        ));
        let stream = Some((self.generation, task));
        self.by_uid.insert(uid, Followed { stream, restarts, last_time: since });
    }

    fn ended(&mut self, uid: &str, generation: u64) {
        if let Some(followed) = self.by_uid.get_mut(uid)
            && followed.stream.as_ref().is_some_and(|(current, _)| *current == generation)
        {
            followed.stream = None;
        }
    }

    /// A stream that continues begins after the last line.
    fn note_time(&mut self, uid: &str, time: Timestamp) {
        if let Some(followed) = self.by_uid.get_mut(uid) {
            followed.last_time = followed.last_time.max(Some(time));
        }
    }
}

fn container(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.iter().find(|status| status.name == CONTAINER)
}

/// Sends the lines that are newer than `since`, and then that the stream has ended.
async fn send_lines(
    (api, namespace): (Api, String),
    (uid, pod, generation): (String, String, u64),
    since: Option<Timestamp>,
    last: Option<u32>,
    sender: mpsc::Sender<Event>,
) {
    if let Ok(stream) = open(&api, &namespace, &pod, since, last, true).await {
        let mut reader = LogReader::new(stream);
        while let Ok(Some(line)) = reader.next().await {
            // The stream begins with the second of `since`.
            if since.is_some_and(|since| line.time <= since) {
                continue;
            }
            let event = Event::Line { uid: uid.clone(), pod: pod.clone(), line };
            if sender.send(event).await.is_err() {
                return;
            }
        }
    }
    let _ = sender.send(Event::Ended { uid, generation }).await;
}
