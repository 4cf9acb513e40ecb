//! Sends maintainers an Event about each of their Services that is rejected.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::desired::ServiceId;
use super::service::ServiceRejection;
use super::watch::WatchSettings;
use crate::kube_client::describe;

/// Events that can wait; more are only logged.
const QUEUE_LEN: usize = 1000;
/// For one request.
const DEADLINE: Duration = Duration::from_secs(5);

/// An Event to send.
#[derive(Debug)]
pub struct RejectionEvent {
    /// The Service.
    pub id: ServiceId,
    /// The Service's `metadata.uid`.
    pub uid: String,
    /// The Event's reason and note.
    pub rejection: ServiceRejection,
}

/// Sends in the background, one after the other. The log has all of it already.
pub fn send_events(settings: WatchSettings) -> mpsc::Sender<RejectionEvent> {
    let (sender, mut events) = mpsc::channel::<RejectionEvent>(QUEUE_LEN);
    tokio::spawn(async move {
        let mut recorder = None;
        let mut failing = false;
        while let Some(event) = events.recv().await {
            let published = publish(&settings, &mut recorder, &event).await;
            match &published {
                Ok(()) => {}
                Err(error) if failing => debug!(%error, "Kubernetes Event not written"),
                Err(error) => {
                    warn!(%error, "Kubernetes Event not written; only this log says why Services are rejected")
                }
            }
            failing = published.is_err();
            if failing {
                recorder = None;
            }
        }
    });
    sender
}

async fn publish(
    settings: &WatchSettings,
    recorder: &mut Option<Recorder>,
    event: &RejectionEvent,
) -> Result<(), String> {
    let recorder = match recorder {
        Some(recorder) => recorder,
        None => {
            let client = settings.client().map_err(|error| describe(&error))?;
            let reporter = Reporter { controller: "kube2proxy".into(), instance: None };
            recorder.insert(Recorder::new(client, reporter))
        }
    };
    let (namespace, name) = event.id.clone();
    let service = ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Service".into()),
        namespace: Some(namespace),
        name: Some(name),
        uid: Some(event.uid.clone()).filter(|uid| !uid.is_empty()),
        ..ObjectReference::default()
    };
    let event = Event {
        type_: EventType::Warning,
        reason: event.rejection.reason().into(),
        note: Some(format!("not routed: {}", event.rejection)),
        action: "Routing".into(),
        secondary: None,
    };
    match timeout(DEADLINE, recorder.publish(&event, &service)).await {
        Ok(published) => published.map_err(|error| describe(&error)),
        Err(_) => Err(format!("no answer within {DEADLINE:?}")),
    }
}
