//! Telling a tool's maintainers why their Service is no route: an Event beside it.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::desired::ServiceId;
use super::error::shown;
use super::service::Rejection;
use super::watch::WatchSettings;

/// More than so many that wait to be sent are only logged.
const WAITING: usize = 1000;
/// For one.
const DEADLINE: Duration = Duration::from_secs(5);

/// An Event that is to be sent.
#[derive(Debug)]
pub struct Notice {
    /// Which Service.
    pub id: ServiceId,
    /// The same, for the API server.
    pub uid: String,
    /// Why it is no route.
    pub rejection: Rejection,
}

/// Sends in the background, one after the other. Everything in it is in the log already.
pub fn send_events(settings: WatchSettings) -> mpsc::Sender<Notice> {
    let (sender, mut notices) = mpsc::channel::<Notice>(WAITING);
    tokio::spawn(async move {
        let mut recorder = None;
        let mut failing = false;
        while let Some(notice) = notices.recv().await {
            let published = publish(&settings, &mut recorder, &notice).await;
            match &published {
                Ok(()) => {}
                Err(error) if failing => debug!(%error, "no Event written"),
                Err(error) => warn!(%error, "no Event written; why Services are rejected is only in this log"),
            }
            failing = published.is_err();
            if failing {
                recorder = None;
            }
        }
    });
    sender
}

async fn publish(settings: &WatchSettings, recorder: &mut Option<Recorder>, notice: &Notice) -> Result<(), String> {
    let recorder = match recorder {
        Some(recorder) => recorder,
        None => {
            let client = settings.client().map_err(|error| shown(&error))?;
            let reporter = Reporter { controller: "kube2proxy".into(), instance: None };
            recorder.insert(Recorder::new(client, reporter))
        }
    };
    let (namespace, name) = notice.id.clone();
    let service = ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Service".into()),
        namespace: Some(namespace),
        name: Some(name),
        uid: Some(notice.uid.clone()).filter(|uid| !uid.is_empty()),
        ..ObjectReference::default()
    };
    let event = Event {
        type_: EventType::Warning,
        reason: notice.rejection.reason().into(),
        note: Some(format!("not routed: {}", notice.rejection)),
        action: "Routing".into(),
        secondary: None,
    };
    match timeout(DEADLINE, recorder.publish(&event, &service)).await {
        Ok(published) => published.map_err(|error| shown(&error)),
        Err(_) => Err(format!("no answer within {DEADLINE:?}")),
    }
}
