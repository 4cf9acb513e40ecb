//! Checks the scripted API server with a real client.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::{Stream, TryStreamExt};
use k8s_openapi::api::core::v1::{ObjectReference, Service};
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::watcher;
use kube::{Api, Client, Config, ResourceExt};
use serde_json::json;
use tokio::time::timeout;

use crate::api_server::{ALWAYS, ApiServer, Break, Fault, Request, web_service};
use crate::support::wait::SOON;

const SELECTOR: &str = "tools.wmflabs.org/webservice=true";

fn client(server: &ApiServer) -> Client {
    client_with_token(server, None)
}

fn client_with_token(server: &ApiServer, token: Option<&str>) -> Client {
    let mut config = Config::new(server.url().parse().expect("a URL"));
    config.auth_info.token = token.map(|token| token.to_owned().into());
    config.default_retry = false;
    Client::try_from(config).expect("a client")
}

fn services(server: &ApiServer) -> Api<Service> {
    Api::all(client(server))
}

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

/// `ADDED name`, `BOOKMARK`, `ERROR 410` ...
async fn next(events: &mut (impl Stream<Item = kube::Result<WatchEvent<Service>>> + Unpin)) -> Option<String> {
    let event = timeout(SOON, events.try_next()).await.expect("in time");
    Some(match event {
        Err(_) => "failed".into(),
        Ok(event) => match event? {
            WatchEvent::Added(service) => format!("ADDED {}", service.name_any()),
            WatchEvent::Modified(service) => format!("MODIFIED {}", service.name_any()),
            WatchEvent::Deleted(service) => format!("DELETED {}", service.name_any()),
            WatchEvent::Bookmark(_) => "BOOKMARK".into(),
            WatchEvent::Error(status) => format!("ERROR {}", status.code),
        },
    })
}

#[tokio::test]
async fn pages_of_a_list_are_one_snapshot() {
    let server = ApiServer::start();
    for name in ["a", "b", "c", "d", "e"] {
        server.apply("tools", name, web_service("10.0.0.1", 80));
    }
    server.apply("tools", "other", json!({"spec": {}}));
    let params = ListParams::default().labels(SELECTOR).limit(2);
    let (mut names, mut token, mut versions) = (Vec::new(), None, Vec::new());
    loop {
        let params = ListParams { continue_token: token, ..params.clone() };
        let page = services(&server).list(&params).await.unwrap();
        versions.push(page.metadata.resource_version.clone().unwrap());
        names.extend(page.items.iter().map(ResourceExt::name_any));
        server.delete_silently("tools", names.last().unwrap());
        token = page.metadata.continue_.filter(|token| !token.is_empty());
        if token.is_none() {
            break;
        }
    }
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    assert!(versions.len() == 3 && versions.iter().all(|version| *version == versions[0]), "{versions:?}");
    assert_eq!((server.lists(), server.count(Request::NextPage)), (1, 2));

    server.set_page_size(1);
    let page = services(&server).list(&params).await.unwrap();
    assert_eq!(page.items.len(), 1);
    server.forget_history();
    let expired = ListParams { continue_token: page.metadata.continue_, ..params.clone() };
    assert_eq!(code(&services(&server).list(&expired).await.unwrap_err()), 410);
    server.fail(Request::NextPage, Fault::Status(500), 1);
    assert_eq!(code(&services(&server).list(&expired).await.unwrap_err()), 500);
}

#[tokio::test]
async fn watch_sends_everything_after_a_version() {
    let server = ApiServer::start();
    server.apply("tools", "a", web_service("10.0.0.1", 80));
    let list = services(&server).list(&ListParams::default()).await.unwrap();
    let version = list.metadata.resource_version.unwrap();
    server.apply("tools", "b", web_service("10.0.0.2", 80));
    let params = WatchParams::default().labels(SELECTOR).timeout(60);
    let events = services(&server).watch(&params, &version).await.unwrap();
    let mut events = pin!(events);
    assert_eq!(next(&mut events).await.unwrap(), "ADDED b");
    server.apply("tools", "b", web_service("10.0.0.3", 80));
    server.apply("tools", "b", json!({"spec": {}}));
    server.apply("tools", "b", json!({"spec": {"ports": []}}));
    server.bookmark();
    server.delete("tools", "a");
    for want in ["MODIFIED b", "DELETED b", "BOOKMARK", "DELETED a"] {
        assert_eq!(next(&mut events).await.unwrap(), want);
    }
    server.break_watches(Break::Gone);
    assert_eq!(next(&mut events).await.unwrap(), "ERROR 410");
    assert_eq!(next(&mut events).await, None);

    server.forget_history();
    let events = services(&server).watch(&params, &version).await.unwrap();
    assert_eq!(next(&mut pin!(events)).await.unwrap(), "ERROR 410");
    assert!(server.unexpected().is_empty());
}

#[tokio::test]
async fn watch_ends_at_its_timeout_or_as_scripted() {
    let server = ApiServer::start();
    let params = WatchParams::default().timeout(1);
    let begun = Instant::now();
    let events = services(&server).watch(&params, "1000").await.unwrap();
    assert_eq!(next(&mut pin!(events)).await, None);
    assert!(begun.elapsed() >= Duration::from_secs(1));

    let params = WatchParams::default().timeout(60);
    for (how, want) in [
        (Break::Error, Some("ERROR 500")),
        (Break::Garbage, Some("failed")),
        (Break::Nonsense, Some("failed")),
        // To this client these are normal ends.
        (Break::HalfLine, None),
        (Break::Cut, None),
        (Break::End, None),
    ] {
        let events = services(&server).watch(&params, "1000").await.unwrap();
        let mut events = pin!(events);
        server.break_watches(how);
        assert_eq!(next(&mut events).await.as_deref(), want, "{how:?}");
    }

    let events = services(&server).watch(&params, "1000").await.unwrap();
    let mut events = pin!(events);
    server.break_watches(Break::Silence);
    server.apply("tools", "a", web_service("10.0.0.1", 80));
    assert!(timeout(Duration::from_millis(200), next(&mut events)).await.is_err());
}

#[tokio::test]
async fn disconnected_client_closes_its_watch() {
    let server = ApiServer::start();
    for silent in [false, true] {
        let events = services(&server).watch(&WatchParams::default().timeout(60), "1000").await.unwrap();
        if silent {
            server.break_watches(Break::Silence);
        }
        assert_eq!(server.open_watches(), 1);
        drop(events);
        let gone = async {
            while server.open_watches() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(SOON, gone).await.expect("in time");
    }
}

#[tokio::test]
async fn events_are_recorded_with_their_patches() {
    let server = ApiServer::start();
    let recorder = Recorder::new(client(&server), Reporter { controller: "kube2proxy".into(), instance: None });
    let event = Event {
        type_: EventType::Warning,
        reason: "Headless".into(),
        note: Some("not routed".into()),
        action: "Routing".into(),
        secondary: None,
    };
    let service = ObjectReference {
        kind: Some("Service".into()),
        namespace: Some("tool-a".into()),
        name: Some("a".into()),
        ..ObjectReference::default()
    };
    recorder.publish(&event, &service).await.unwrap();
    recorder.publish(&event, &service).await.unwrap();
    assert_eq!(server.reasons("tool-a", "a"), ["Headless"]);
    assert_eq!(server.events()[0]["series"]["count"], 2);
    assert_eq!(server.count(Request::Event), 2);
    assert!(server.unexpected().is_empty());
}

#[tokio::test]
async fn faults_occur_in_order_and_as_often_as_scripted() {
    let server = ApiServer::start();
    server.apply("tools", "a", web_service("10.0.0.1", 80));
    server.fail(Request::List, Fault::Status(403), 2);
    server.fail(Request::List, Fault::Busy(7), 1);
    server.fail(Request::List, Fault::Garbage, 1);
    server.fail(Request::List, Fault::Cut, 1);
    server.fail(Request::List, Fault::Slow(Duration::from_millis(50)), 1);
    server.fail(Request::Watch, Fault::Empty, 1);
    let events = services(&server).watch(&WatchParams::default(), "1000").await.unwrap();
    assert_eq!(next(&mut pin!(events)).await, None, "ended at once");
    let list = async || services(&server).list(&ListParams::default()).await;
    for want in [403, 403] {
        assert_eq!(code(&list().await.unwrap_err()), want);
    }
    let kube::Error::Api(busy) = list().await.unwrap_err() else { panic!("a status") };
    assert_eq!((busy.code, busy.details.map(|details| details.retry_after_seconds)), (429, Some(7)));
    assert!(matches!(list().await, Err(kube::Error::SerdeError(_))), "garbage");
    assert!(matches!(list().await, Err(error) if code(&error) == 0), "cut");
    let begun = Instant::now();
    assert_eq!(list().await.unwrap().items.len(), 1);
    assert!(begun.elapsed() >= Duration::from_millis(50));

    for fault in [Fault::Hang, Fault::Silent] {
        server.fail(Request::List, fault, ALWAYS);
        for _ in 0..2 {
            let before = server.lists();
            let mut unanswered = pin!(list());
            while server.lists() == before {
                assert!(timeout(Duration::from_millis(10), &mut unanswered).await.is_err());
            }
            assert!(timeout(Duration::from_millis(200), unanswered).await.is_err());
        }
        server.recover();
    }
    assert_eq!(list().await.unwrap().items.len(), 1);
    assert_eq!(server.lists(), 11);
}

#[tokio::test]
async fn wrong_tokens_are_refused() {
    let server = ApiServer::start();
    server.require_token(Some("old"));
    let list = async |token| {
        let services: Api<Service> = Api::all(client_with_token(&server, token));
        services.list(&ListParams::default()).await.map_err(|error| code(&error))
    };
    assert!(list(Some("old")).await.is_ok());
    assert_eq!(list(None).await.unwrap_err(), 401);
    server.require_token(Some("new"));
    assert_eq!(list(Some("old")).await.unwrap_err(), 401);
    assert!(list(Some("new")).await.is_ok());
    assert_eq!(server.unauthorized(), 2);
}

#[tokio::test]
async fn stopped_server_refuses_and_keeps_its_content() {
    let mut server = ApiServer::start();
    server.apply("tools", "a", web_service("10.0.0.1", 80));
    let events = services(&server).watch(&WatchParams::default().timeout(60), "1001").await.unwrap();
    assert_eq!(server.open_watches(), 1);
    server.stop();
    assert_eq!(server.open_watches(), 0);
    assert_eq!(next(&mut pin!(events)).await, None);
    let list = async || services(&server).list(&ListParams::default()).await;
    assert_eq!(code(&list().await.unwrap_err()), 0);
    server.apply("tools", "b", web_service("10.0.0.2", 80));
    server.start_again();
    let list = async || services(&server).list(&ListParams::default()).await;
    assert_eq!(list().await.unwrap().items.len(), 2);
}

#[tokio::test]
async fn kube_watcher_works_with_it() {
    let server = ApiServer::start();
    server.set_page_size(3);
    for index in 0..10 {
        server.apply("tools", &format!("tool-{index}"), web_service("10.0.0.1", 80));
    }
    let events = watcher::watcher(services(&server), watcher::Config::default().labels(SELECTOR).timeout(60));
    let mut events = pin!(events);
    let mut next = async || match timeout(SOON, events.try_next()).await.expect("in time").unwrap().unwrap() {
        watcher::Event::Init => "init".to_owned(),
        watcher::Event::InitApply(service) => format!("listed {}", service.name_any()),
        watcher::Event::InitDone => "done".into(),
        watcher::Event::Apply(service) => format!("applied {}", service.name_any()),
        watcher::Event::Delete(service) => format!("deleted {}", service.name_any()),
    };
    assert_eq!(next().await, "init");
    for index in 0..10 {
        assert_eq!(next().await, format!("listed tool-{index}"));
    }
    assert_eq!(next().await, "done");
    let change = async {
        while server.open_watches() == 0 {
            tokio::task::yield_now().await;
        }
        server.apply("tools", "more", web_service("10.0.0.2", 80));
        server.delete("tools", "more");
    };
    let ((), first) = tokio::join!(change, next());
    assert_eq!(first, "applied more");
    assert_eq!(next().await, "deleted more");
}
