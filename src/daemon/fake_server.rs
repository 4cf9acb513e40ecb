//! A server for tests that sends one fixed reply to every command.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::sleep;

/// The bytes that each connection sent, in the order of the connections.
pub(super) type Received = Arc<Mutex<Vec<Vec<u8>>>>;

/// Starts the server; returns its port and what it receives. Each read counts as one command.
pub(super) async fn start(reply: &'static str) -> (u16, Received) {
    start_slow(reply, Duration::ZERO).await
}

/// The same; the first reply of each connection comes after this time.
pub(super) async fn start_slow(reply: &'static str, first: Duration) -> (u16, Received) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let received = Received::default();
    let all = Arc::clone(&received);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let all = Arc::clone(&all);
            let index = {
                let mut all = all.lock();
                all.push(vec![]);
                all.len() - 1
            };
            tokio::spawn(async move {
                let mut bytes = [0; 1024];
                let mut delay = first;
                while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                    all.lock()[index].extend(&bytes[..count]);
                    sleep(std::mem::take(&mut delay)).await;
                    if stream.write_all(reply.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (port, received)
}
