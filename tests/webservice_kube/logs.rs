//! Logs of one and of several Pods, printed and followed.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::api_server::Fault;
use crate::site::{Site, ready, running};
use crate::support::wait::SOON;

/// An output that others can read; closed after so many lines.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<String>>, usize);

impl Page {
    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    async fn wait_for(&self, text: &str) {
        let found = async {
            while !self.text().contains(text) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(SOON, found).await.unwrap_or_else(|_| panic!("no {text:?} in {}", self.text()));
    }
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut text = self.0.lock().unwrap();
        if self.1 > 0 && text.lines().count() >= self.1 && text.ends_with('\n') {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        text.push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn printed(site: &Site, last: Option<u32>, escape: bool) -> Result<String, String> {
    let mut page = Page::default();
    let kubernetes = site.connect().await;
    let printed = kubernetes.logs(false, last, escape, &mut page).await;
    printed.map(|()| page.text()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn lines_of_all_pods_are_in_the_order_of_time() {
    let site = Site::new();
    assert_eq!(
        printed(&site, None, false).await.unwrap_err(),
        "no pod of the web service, so no logs; start it with: webservice start"
    );
    site.put_pod("hello-1", "now", &ready());
    site.put_pod("hello-2", "now", &ready());
    site.api.log("hello-1", &[("2026-01-01T00:00:01Z", "one".into()), ("2026-01-01T00:00:03.5Z", "three".into())]);
    site.api.log(
        "hello-2",
        &[("2026-01-01T00:00:02.123456789Z", "two".into()), ("2026-01-01T00:00:04Z", "four \x1b[31m".into())],
    );
    let want = "2026-01-01T00:00:01Z [hello-1] one
2026-01-01T00:00:02Z [hello-2] two
2026-01-01T00:00:03Z [hello-1] three
2026-01-01T00:00:04Z [hello-2] four \x1b[31m
";
    assert_eq!(printed(&site, None, false).await.unwrap(), want);
    assert_eq!(printed(&site, None, true).await.unwrap(), want.replace('\x1b', "\\u{1b}"));
    let last = "2026-01-01T00:00:03Z [hello-1] three\n2026-01-01T00:00:04Z [hello-2] four \x1b[31m\n";
    assert_eq!(printed(&site, Some(1), false).await.unwrap(), last);
    assert!(
        site.api
            .requests()
            .iter()
            .any(|request| request.contains("container=webservice") && request.contains("tailLines=1"))
    );
}

#[tokio::test]
async fn pods_without_a_log_are_skipped_unless_all_are() {
    let site = Site::new();
    site.put_pod("hello-1", "now", &ready());
    site.put_pod("hello-2", "now", &json!({"phase": "Pending"}));
    site.api.log("hello-1", &[("2026-01-01T00:00:01Z", "one".into())]);
    let waiting = "container \"webservice\" in pod \"hello-2\" is waiting to start: ContainerCreating";
    site.api.fail("GET", "/pods/hello-2/log", Fault::Status(400, waiting), 2);
    assert_eq!(printed(&site, None, false).await.unwrap(), "2026-01-01T00:00:01Z [hello-1] one\n");
    site.api.remove("pods", "hello-1");
    let error = printed(&site, None, false).await.unwrap_err();
    assert_eq!(error, format!("{waiting} (400) while reading the log of pod \"hello-2\""));
    site.api.fail("GET", "/pods/hello-2/log", Fault::Status(403, "pods/log is forbidden: User \"x\" cannot get it"), 1);
    let error = printed(&site, None, false).await.unwrap_err();
    assert!(error.ends_with("ask the operators for the rights of a tool in its namespace"), "{error}");
}

#[tokio::test]
async fn follow_survives_broken_streams_restarts_and_new_pods() {
    let site = Site::new();
    let container = |restarts| json!({"phase": "Running", "containerStatuses": [running(restarts)]});
    site.put_pod("hello-1", "now", &container(0));
    let line = |second: &'static str, text: &str| [(second, text.to_owned())];
    site.api.log("hello-1", &line("2026-01-01T00:00:00Z", "not the last"));
    site.api.log("hello-1", &line("2026-01-01T00:00:01.7Z", "first"));
    let page = Page(Arc::default(), 6);
    let kubernetes = site.connect().await;
    let mut output = page.clone();
    let follow = kubernetes.logs(true, Some(1), false, &mut output);
    let events = async {
        page.wait_for("first").await;
        site.api.log("hello-1", &line("2026-01-01T00:00:01.8Z", "second"));
        page.wait_for("second").await;
        site.api.cut_logs();
        site.api.log("hello-1", &line("2026-01-01T00:00:01.9Z", "after the cut"));
        page.wait_for("after the cut").await;
        // Another Pod replaces it.
        site.put_pod("hello-2", "now", &container(0));
        site.api.log("hello-2", &line("2026-01-01T00:00:02Z", "of another pod"));
        page.wait_for("of another pod").await;
        site.api.remove("pods", "hello-1");
        site.api.fail("GET", "/pods?", Fault::Status(500, "etcdserver: leader changed"), 1);
        site.api.log("hello-2", &line("2026-01-01T00:00:03Z", "after an outage"));
        page.wait_for("after an outage").await;
        site.api.log("hello-2", &line("2026-01-01T00:00:04Z", "sixth"));
        page.wait_for("sixth").await;
        // The output is closed: this line ends the command.
        site.api.log("hello-2", &line("2026-01-01T00:00:05Z", "seventh"));
    };
    let (followed, ()) = timeout(SOON, async { tokio::join!(follow, events) }).await.expect("in time");
    followed.unwrap();
    let text = page.text();
    let messages: Vec<_> = text.lines().filter_map(|line| line.split_once("] ")).map(|(_, message)| message).collect();
    assert_eq!(messages, ["first", "second", "after the cut", "of another pod", "after an outage", "sixth"]);
}
