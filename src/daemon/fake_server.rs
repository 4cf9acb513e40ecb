//! A server for tests that sends one fixed reply to every command.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// The bytes that each connection sent, in the order of the connections.
pub(super) type Received = Arc<Mutex<Vec<Vec<u8>>>>;

/// Starts the server; returns its port and what it receives. Each read counts as one command.
pub(super) async fn start(reply: &'static str) -> (u16, Received) {
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
                while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                    all.lock()[index].extend(&bytes[..count]);
                    if stream.write_all(reply.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (port, received)
}
