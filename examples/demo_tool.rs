//! A small web tool: the backend of the demo and the tests. It echoes each request in its response.
//!
//! `demo_tool --name NAME [--listen 127.0.0.1:0] [--port-file FILE]`
//!
//! ```text
//! tool: hello
//! method: POST
//! uri: /hello/a%2Fb?x=1          as received, not decoded
//! host: tools.example.org
//! peer: 127.0.0.1:40312          an equal peer means a reused connection
//! body: 3 bytes sum 294          the sum of the bytes; in Perl unpack("%32C*", $body)
//! header accept: */*             all headers, sorted
//! ```
//!
//! Query parameters change the response: `status=404`, `header_bytes=N` (a header `x-padding` of N bytes), `body_bytes=N` (a
//! body of N times `x` instead of the echo), `delay_ms=N`. A WebSocket handshake is accepted on any path, and every message is
//! echoed. The HTTP library itself answers 400 to a target with a raw `<`, `>`, backtick or invalid UTF-8, and drops the part
//! after a raw `#`.

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header, request};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

const MAX_REQUEST_BODY_BYTES: usize = 64 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match serve_until_sigterm(std::env::args().skip(1)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo_tool: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve_until_sigterm(mut args: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let (mut name, mut listen, mut port_file) = (None, SocketAddr::from(([127, 0, 0, 1], 0)), None);
    while let Some(option) = args.next() {
        let value = args.next().ok_or_else(|| format!("{option} needs a value"))?;
        match option.as_str() {
            "--name" => name = Some(HeaderValue::try_from(value)?),
            "--listen" => listen = value.parse()?,
            "--port-file" => port_file = Some(PathBuf::from(value)),
            _ => return Err(format!("unknown option {option}").into()),
        }
    }
    let tool = Router::new().fallback(answer).with_state(name.ok_or("--name NAME is missing")?);

    let mut terminate = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind(listen).await.map_err(|error| format!("{error} while listening on {listen}"))?;
    let address = listener.local_addr()?;
    if let Some(file) = port_file {
        publish_port(&file, address.port()).map_err(|error| format!("{error} while writing {file:?}"))?;
    }
    println!("listening on http://{address}");
    tokio::select! {
        served = axum::serve(listener, tool.into_make_service_with_connect_info::<SocketAddr>()) => Ok(served?),
        _ = terminate.recv() => Ok(()),
    }
}

/// Renames the file into place, so that a reader never sees a partial number.
fn publish_port(file: &Path, port: u16) -> std::io::Result<()> {
    let unfinished = file.with_extension("unfinished");
    std::fs::write(&unfinished, format!("{port}\n"))?;
    std::fs::rename(unfinished, file)
}

async fn answer(
    State(name): State<HeaderValue>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    handshake: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    request: Request,
) -> Response {
    let (request, body) = request.into_parts();
    let mut response = match handshake {
        Ok(handshake) => handshake.on_upgrade(echo),
        Err(rejection) if requests_websocket(&request) => rejection.into_response(),
        Err(_) => match to_bytes(body, MAX_REQUEST_BODY_BYTES).await {
            Ok(body) => respond(request.uri.query().unwrap_or_default(), facts(&name, peer, &request, &body))
                .await
                .unwrap_or_else(|invalid| (StatusCode::BAD_REQUEST, invalid).into_response()),
            Err(error) => (StatusCode::BAD_REQUEST, format!("{error} while reading the body\n")).into_response(),
        },
    };
    response.headers_mut().insert("x-tool", name);
    response
}

fn requests_websocket(request: &request::Parts) -> bool {
    request.headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        let echoed = matches!(message, Message::Text(_) | Message::Binary(_));
        if echoed && socket.send(message).await.is_err() {
            break;
        }
    }
}

fn facts(name: &HeaderValue, peer: SocketAddr, request: &request::Parts, body: &[u8]) -> String {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let (name, method, uri) = (text(name), &request.method, &request.uri);
    let host = request.headers.get(header::HOST).map(text).unwrap_or_default();
    let (length, sum) = (body.len(), body.iter().fold(0u32, |sum, &byte| sum.wrapping_add(byte.into())));
    let mut headers: Vec<_> = request.headers.iter().map(|(k, v)| format!("header {k}: {}\n", text(v))).collect();
    headers.sort();
    let arrived = format!("method: {method}\nuri: {uri}\nhost: {host}\npeer: {peer}\nbody: {length} bytes sum {sum}");
    format!("tool: {name}\n{arrived}\n{}", headers.concat())
}

/// Builds the response that the query requests; the error names an invalid parameter.
async fn respond(query: &str, facts: String) -> Result<Response, String> {
    let (mut status, mut delay, mut padding, mut body) = (StatusCode::OK, Duration::ZERO, None, facts);
    for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let invalid = || format!("invalid {key}={value}\n");
        match key {
            "status" => status = value.parse().map_err(|_| invalid())?,
            "delay_ms" => delay = Duration::from_millis(value.parse().map_err(|_| invalid())?),
            "header_bytes" => padding = Some("x".repeat(value.parse().map_err(|_| invalid())?)),
            "body_bytes" => body = "x".repeat(value.parse().map_err(|_| invalid())?),
            _ => {}
        }
    }
    tokio::time::sleep(delay).await;
    Ok((status, padding.map(|padding| [("x-padding", padding)]), body).into_response())
}
