//! An HTTP proxy that tunnels (CONNECT), with names of its own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write, copy};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Listens on a port of 127.0.0.1 until the test ends.
pub struct ProxyServer {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    names: BTreeMap<String, String>,
    targets: Vec<String>,
}

impl ProxyServer {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Mutex::new(Shared::default()));
        let server = Self { address, shared: Arc::clone(&shared) };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || tunnel(client, &shared));
            }
        });
        server
    }

    /// `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Resolves a name to this address.
    pub fn name(&self, name: &str, address: &str) {
        self.shared.lock().unwrap().names.insert(name.into(), address.into());
    }

    /// The hosts and ports that clients requested tunnels to.
    pub fn targets(&self) -> Vec<String> {
        self.shared.lock().unwrap().targets.clone()
    }
}

fn tunnel(mut client: TcpStream, shared: &Mutex<Shared>) -> Option<()> {
    let mut lines = BufReader::new(client.try_clone().ok()?).lines();
    let request = lines.next()?.ok()?;
    let target = request.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned();
    while !lines.next()?.ok()?.is_empty() {}
    let address = {
        let mut shared = shared.lock().unwrap();
        shared.targets.push(target.clone());
        let name = target.rsplit_once(':').map_or(&*target, |(name, _)| name);
        shared.names.get(name).cloned().unwrap_or_else(|| target.clone())
    };
    let mut server = TcpStream::connect(address).ok()?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
    let (mut from, mut to) = (server.try_clone().ok()?, client.try_clone().ok()?);
    thread::spawn(move || {
        let _ = copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
    let _ = copy(&mut client, &mut server);
    let _ = server.shutdown(Shutdown::Both);
    Some(())
}
