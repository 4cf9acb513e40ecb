//! The streams of an attached container: standard input, output and errors as channels of one WebSocket connection.
//!
//! Protocols `v4.channel.k8s.io` and `v5.channel.k8s.io`: the first byte of a binary message is the channel.

use std::cell::Cell;
use std::time::Duration;

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use kube::client::Connection;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use super::api::one_line;
use super::terminal::Size;

/// Between two pings, which keep an idle connection open.
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// A server that has answered pings before, and does not any more, is gone.
const SILENCE: Duration = Duration::from_secs(60);

/// Before v5, the end of the input ends the connection: after this time without more output, which would be lost.
const QUIET: Duration = Duration::from_secs(2);

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
/// Ends a channel; since v5.
const CLOSE: u8 = 255;

/// A piece of the container's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Of standard output, or of the terminal.
    Stdout(Bytes),
    /// Of standard error.
    Stderr(Bytes),
}

/// What has ended the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The container, or the server.
    Far,
    /// The end of the input. The container may still run.
    Input,
    /// The end of the output's reader.
    Output,
}

/// The near ends of the streams.
pub struct Streams {
    /// Standard input; its end is the container's end of file.
    pub input: mpsc::Receiver<Vec<u8>>,
    /// Sizes of the terminal.
    pub sizes: mpsc::Receiver<Size>,
    /// Output.
    pub output: mpsc::Sender<Output>,
}

/// What each direction tells the other.
struct Life {
    /// When the server last showed that it is there.
    heard_at: Cell<Instant>,
    answers_pings: Cell<bool>,
    /// When the connection is closed for the end of the input.
    close_at: Cell<Option<Instant>>,
}

/// Copies until the container, the server or the reader of the output ends.
///
/// # Errors
/// One line: the connection is lost, or the server reports a failure.
pub async fn relay(connection: Connection, streams: Streams) -> Result<End, String> {
    let can_close = connection.supports_stream_close();
    let (sender, receiver) = connection.into_stream().split();
    let Streams { input, sizes, output } = streams;
    let life = Life { heard_at: Cell::new(Instant::now()), answers_pings: Cell::new(false), close_at: Cell::new(None) };
    // Each on its own: a container that waits until its output is taken takes no input meanwhile.
    tokio::select! {
        end = receive(receiver, output, &life) => end,
        end = send(sender, (input, sizes), can_close, &life) => end,
    }
}

async fn receive<R>(mut receiver: R, output: mpsc::Sender<Output>, life: &Life) -> Result<End, String>
where
    R: Stream<Item = Result<Message, Error>> + Unpin,
{
    loop {
        let received = receiver.next().await;
        life.heard_at.set(Instant::now());
        let message = match received {
            None | Some(Ok(Message::Close(_))) => return Ok(End::Far),
            Some(Err(error)) => return Err(one_line(&error.to_string())),
            Some(Ok(message)) => message,
        };
        let Message::Binary(bytes) = message else {
            life.answers_pings.set(life.answers_pings.get() || message.is_pong());
            continue;
        };
        let piece = match bytes.first() {
            Some(&STDOUT) => Output::Stdout(bytes.slice(1..)),
            Some(&STDERR) => Output::Stderr(bytes.slice(1..)),
            Some(&STATUS) => match failure(&bytes[1..]) {
                Some(failure) => return Err(failure),
                None => continue,
            },
            _ => continue,
        };
        life.close_at.set(life.close_at.get().map(|_| Instant::now() + QUIET));
        if output.send(piece).await.is_err() {
            return Ok(End::Output);
        }
    }
}

async fn send<S>(
    mut sender: S,
    (mut input, mut sizes): (mpsc::Receiver<Vec<u8>>, mpsc::Receiver<Size>),
    can_close: bool,
    life: &Life,
) -> Result<End, String>
where
    S: Sink<Message, Error = Error> + Unpin,
{
    let mut pings = interval(PING_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut has_input, mut has_sizes) = (true, true);
    loop {
        let close_at = life.close_at.get();
        let message = tokio::select! {
            bytes = input.recv(), if has_input => match bytes {
                Some(bytes) => framed(STDIN, &bytes),
                None => {
                    has_input = false;
                    if !can_close {
                        life.close_at.set(Some(Instant::now() + QUIET));
                        continue;
                    }
                    Message::binary(vec![CLOSE, STDIN])
                }
            },
            () = sleep_until(close_at.unwrap_or_else(Instant::now)), if close_at.is_some() => {
                // Output may have come since.
                if life.close_at.get() > close_at {
                    continue;
                }
                // The server may have closed it already.
                let _ = sender.send(Message::Close(None)).await;
                return Ok(End::Input);
            }
            size = sizes.recv(), if has_sizes => {
                let Some(size) = size else { has_sizes = false; continue };
                framed(RESIZE, json!({"Width": size.width, "Height": size.height}).to_string().as_bytes())
            }
            _ = pings.tick() => {
                if life.answers_pings.get() && life.heard_at.get().elapsed() > SILENCE {
                    return Err(format!("no answer for {} s", SILENCE.as_secs()));
                }
                Message::Ping(Bytes::new())
            }
        };
        let (begun, is_ping) = (Instant::now(), message.is_ping());
        match sender.send(message).await {
            // Failures show in what is received.
            Err(error) if !is_ping => return Err(one_line(&error.to_string())),
            // The container took no input, and so the server no pings.
            Ok(()) if begun.elapsed() > PING_INTERVAL => life.heard_at.set(Instant::now()),
            _ => {}
        }
    }
}

fn framed(channel: u8, bytes: &[u8]) -> Message {
    let mut message = Vec::with_capacity(bytes.len() + 1);
    message.push(channel);
    message.extend_from_slice(bytes);
    Message::binary(message)
}

/// The server's message, unless it reports a success, or the exit status of the command.
pub fn failure(status: &[u8]) -> Option<String> {
    let status: kube::core::Status = serde_json::from_slice(status).ok()?;
    (status.is_failure() && status.reason != "NonZeroExitCode").then(|| one_line(&status.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_of_the_server_are_failures() {
        for (status, want) in [
            (r#"{"status":"Success"}"#, None),
            (r#"{"status":"Failure","reason":"NonZeroExitCode","message":"exit code 3"}"#, None),
            (
                r#"{"status":"Failure","reason":"InternalError","message":"dial tcp:\n refused"}"#,
                Some("dial tcp: refused"),
            ),
            ("garbage", None),
            ("", None),
        ] {
            assert_eq!(failure(status.as_bytes()).as_deref(), want, "{status}");
        }
    }
}
