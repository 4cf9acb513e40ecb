//! An admin API with scripted responses, for states that a real nginx does not enter on demand.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

/// Responses by path: status and body.
type Pages = Arc<Mutex<HashMap<String, (u16, Value)>>>;

/// The server. It ends with the test program.
pub struct FakeAdmin {
    address: SocketAddr,
    pages: Pages,
    /// Requested targets, oldest first.
    asked: Arc<Mutex<Vec<String>>>,
}

impl FakeAdmin {
    /// Starts a server that is in step, with an empty table.
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (pages, asked) = (Pages::default(), Arc::<Mutex<Vec<String>>>::default());
        let (served, log) = (Arc::clone(&pages), Arc::clone(&asked));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let target =
                    lines.next().and_then(|line| line.split(' ').nth(1).map(str::to_owned)).unwrap_or_default();
                lines.find(String::is_empty);
                log.lock().unwrap().push(target.clone());
                let path = target.split('?').next().unwrap().to_owned();
                let missing = || (404, json!({"error": format!("unknown path {path}")}));
                let (status, body) = served.lock().unwrap().get(&path).cloned().unwrap_or_else(missing);
                let body = body.to_string();
                let head =
                    format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = (&stream).write_all(format!("{head}{body}").as_bytes());
            }
        });
        let admin = Self { address, pages, asked };
        admin.set("/api/status", status());
        admin.set("/api/routes", json!({"table": "tools", "generation": 1, "items": [], "next": null}));
        admin.set("/api/rejected", json!({"table": "tools", "total": 0, "items": []}));
        admin
    }

    /// Sets the response to a path.
    pub fn set(&self, path: &str, body: Value) {
        self.fail(path, 200, body);
    }

    /// Sets the response to a path, with a status.
    pub fn fail(&self, path: &str, status: u16, body: Value) {
        self.pages.lock().unwrap().insert(path.to_owned(), (status, body));
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// The requests until now.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// The status of a table in step.
pub fn status() -> Value {
    json!({
        "table": "tools", "now": 1790000000.5,
        "summary": {"state": "in_step", "text": "In step with Redis: 2 tools, last change 2 s ago."},
        "counts": {"tools": 2, "redirects": 0, "domains": 0, "routes": 2},
        "capacity": {"records": 87000, "memory_bytes": 9746432, "memory_used_bytes": 192768, "largest_free_bytes": 9500000},
        "generation": 12345, "age_seconds": 0, "last_change_at": 1789999998.1,
        "source": {"url": "redis://127.0.0.1:6379/0", "connected": true, "since": 1789990000.0, "error": null,
                   "last_push_at": null, "last_resync_at": 1789999990.5, "resyncs": {"connect": 1}},
        "held": null, "snapshot": null, "rejected": {"routes": 0, "by_reason": {}},
    })
}

/// The status while a removal is held.
pub fn status_held(records: u64, accept_file: &str) -> Value {
    let mut status = status();
    status["summary"] = json!({"state": "held", "text": "Removal held back."});
    status["held"] =
        json!({"records": records, "since": 1789999990.0, "ends_at": 1790000110.0, "accept_file": accept_file});
    status
}
