//! A watch: one line for each past change, then for each new one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::answer::status_object;
use super::cluster::{Entry, Selector};
use super::fault::Break;

/// Answers with a body that lasts for the requested time.
pub fn watch(shared: &Arc<Shared>, selector: Selector, version: u64, timeout: Duration, bookmarks: bool) -> Response {
    // Subscribed first, so that no change is missed in between.
    let changes = shared.changed.subscribe();
    let cluster = &shared.lock().cluster;
    let watching = Watching {
        open: Open::new(shared),
        changes,
        selector,
        bookmarks,
        position: cluster.position_after(version),
        opened_at: cluster.position(),
        until: Instant::now() + timeout,
    };
    let lines = stream::unfold(Some(watching), |watching| async { next_line(watching?).await });
    ([(CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response()
}

struct Watching {
    open: Open,
    changes: Receiver<()>,
    selector: Selector,
    bookmarks: bool,
    /// The position in the history; `None` if it is too old.
    position: Option<usize>,
    /// Faults of open watches count from here.
    opened_at: usize,
    until: Instant,
}

/// The next action.
enum Next {
    Line(Value),
    Break(Break),
    Wait,
}

/// A chunk to send, and the watch if it continues.
type Sent = (io::Result<Bytes>, Option<Watching>);

async fn next_line(mut watching: Watching) -> Option<Sent> {
    loop {
        let next = watching.advance();
        return match next {
            Next::Line(line) => Some((Ok(format!("{line}\n").into()), Some(watching))),
            Next::Break(how) => broken(watching, how).await,
            Next::Wait => tokio::select! {
                // `open` holds the sender, so it outlives the watch.
                _ = watching.changes.changed() => continue,
                () = sleep_until(watching.until) => None,
            },
        };
    }
}

async fn broken(watching: Watching, how: Break) -> Option<Sent> {
    let half: &[u8] = br#"{"type":"ADDED","object":{"kind":"Service","metadata":{"na"#;
    match how {
        Break::Gone => Some((Ok(error_line(410)), None)),
        Break::Error => Some((Ok(error_line(500)), None)),
        Break::Garbage => Some((Ok(Bytes::from_static(b"<html>It works!</html>\n")), Some(watching))),
        Break::Nonsense => Some((Ok(Bytes::from_static(b"{\"type\":\"ADDED\",\"object\":7}\n")), Some(watching))),
        Break::HalfLine => Some((Ok(Bytes::from_static(half)), None)),
        Break::Cut => Some((Err(io::Error::other("cut")), None)),
        Break::End => None,
        Break::Silence => std::future::pending().await,
    }
}

fn error_line(code: u16) -> Bytes {
    let event = json!({"type": "ERROR", "object": status_object(code, json!({}))});
    format!("{event}\n").into()
}

impl Watching {
    /// Advances in the history to the next entry for this watch.
    fn advance(&mut self) -> Next {
        let state = self.open.0.lock();
        let Some(position) = &mut self.position else { return Next::Break(Break::Gone) };
        for (version, entry) in state.cluster.history_from(*position) {
            let is_new = *position >= self.opened_at;
            *position += 1;
            match entry {
                Entry::Change { before, after } => {
                    if let Some(line) = selected_change(&self.selector, before.as_ref(), after.as_ref(), *version) {
                        return Next::Line(line);
                    }
                }
                Entry::Bookmark if self.bookmarks && is_new => {
                    let metadata = json!({"resourceVersion": version.to_string()});
                    let object = json!({"kind": "Service", "apiVersion": "v1", "metadata": metadata});
                    return Next::Line(json!({"type": "BOOKMARK", "object": object}));
                }
                Entry::Break(how) if is_new => return Next::Break(*how),
                Entry::Bookmark | Entry::Break(_) => {}
            }
        }
        Next::Wait
    }
}

/// A change as a watch with this selector sees it.
fn selected_change(selector: &Selector, before: Option<&Value>, after: Option<&Value>, version: u64) -> Option<Value> {
    let before = before.filter(|service| selector.selects(service));
    let after = after.filter(|service| selector.selects(service));
    let (kind, object) = match (before, after) {
        (None, Some(after)) => ("ADDED", after.clone()),
        (Some(_), Some(after)) => ("MODIFIED", after.clone()),
        (Some(before), None) => {
            // The last state, with the resourceVersion of the deletion.
            let mut last = before.clone();
            last["metadata"]["resourceVersion"] = json!(version.to_string());
            ("DELETED", last)
        }
        (None, None) => return None,
    };
    Some(json!({"type": kind, "object": object}))
}

/// Counts the watches that are open.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.open_watches.fetch_add(1, Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open_watches.fetch_sub(1, Relaxed);
    }
}
