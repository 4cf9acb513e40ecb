//! Connects to Redis from tokio with the `redis` crate.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::select_ok;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo, RedisError, RedisResult, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{debug, warn};

use super::master_watch::master_moved;
use super::tls::open_tls;
use crate::redis_client::{Address, Endpoint, Reach, RedisUrl, Sentinels, ServerError, master_of};

/// Time for all Sentinels together to name the master.
const SENTINEL_TIMEOUT: Duration = Duration::from_secs(1);

/// A configuration without timeouts: callers set their own deadlines.
pub(super) fn no_timeouts() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None)
}

/// An open connection. It closes with its last clone; with Sentinels, also when they name another master. Requests that have no
/// reply yet then fail, and so do all later ones.
#[derive(Clone, Debug)]
pub struct Connection {
    requests: MultiplexedConnection,
    driver: Arc<Driver>,
}

/// The task that sends requests and receives replies.
#[derive(Debug)]
struct Driver {
    task: JoinHandle<()>,
    /// Its sender is gone when the task has ended.
    is_open: watch::Receiver<()>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        // It would wait for outstanding replies, which a hanging server never sends.
        self.task.abort();
    }
}

impl Connection {
    /// For requests; a clone of it does not keep the connection open.
    pub fn requests(&mut self) -> &mut MultiplexedConnection {
        &mut self.requests
    }

    /// Waits until the connection is closed.
    pub async fn closed(&self) {
        let mut is_open = self.driver.is_open.clone();
        // Nothing is ever sent.
        while is_open.changed().await.is_ok() {}
    }

    /// Whether this is a clone of `other`.
    pub(super) fn is_clone_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.driver, &other.driver)
    }

    /// Logs in over a stream. With Sentinels, `found` is where they say the master is; the connection closes when they name another one.
    async fn start(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        found: Option<(&Sentinels, &Address)>,
        settings: &RedisConnectionInfo,
        config: &AsyncConnectionConfig,
    ) -> RedisResult<Self> {
        let (requests, driver) = MultiplexedConnection::new_with_config(settings, stream, config.clone()).await?;
        let found = found.map(|(sentinels, master)| (sentinels.clone(), master.clone()));
        let (open, is_open) = watch::channel(());
        let task = tokio::spawn(async move {
            let _open = open;
            match found {
                None => driver.await,
                Some((sentinels, from)) => tokio::select! {
                    () = driver => {}
                    to = master_moved(&sentinels, &from) => {
                        let master = sentinels.master;
                        warn!(%from, %to, master, "Sentinels name another master; closing the connection to the former one");
                    }
                },
            }
        });
        Ok(Self { requests, driver: Arc::new(Driver { task, is_open }) })
    }
}

/// Connects and logs in. With Sentinels, connects to the master that they name, if `ROLE` confirms that it is one.
///
/// # Errors
/// Redis is unreachable or refuses the login; no Sentinel knows the master; the named master is a replica. No error contains the
/// password.
pub(super) async fn connect(
    url: &RedisUrl,
    protocol: ProtocolVersion,
    config: &AsyncConnectionConfig,
) -> RedisResult<Connection> {
    let settings = settings(url, protocol);
    let connected = match url.reach() {
        Reach::Direct(endpoint) => open(endpoint, None, &settings, config).await,
        Reach::Sentinels(sentinels) => open_master(sentinels, &settings, config).await,
    };
    connected.map_err(|error| match url.credentials() {
        // A server that does not know HELLO quotes its arguments, the password among them.
        Some((_, password)) => redacted(error, password),
        None => error,
    })
}

fn redacted(error: RedisError, password: &str) -> RedisError {
    let text = error.to_string();
    if password.is_empty() || !text.contains(password) {
        return error;
    }
    io::Error::other(ServerError::without(text.as_bytes(), password.as_bytes())).into()
}

fn settings(url: &RedisUrl, protocol: ProtocolVersion) -> RedisConnectionInfo {
    let settings = RedisConnectionInfo::default().set_db(url.db().into()).set_protocol(protocol);
    let settings = settings.set_skip_set_lib_name();
    match url.credentials() {
        // For servers before version 6, which have no users, the crate retries without the user.
        Some((user, password)) => settings.set_username(user).set_password(password),
        None => settings,
    }
}

/// Begins anew if the Sentinels name another master meanwhile.
async fn open_master(
    sentinels: &Sentinels,
    settings: &RedisConnectionInfo,
    config: &AsyncConnectionConfig,
) -> RedisResult<Connection> {
    loop {
        let queried = sentinels.clone();
        let master = spawn_blocking(move || master_of(&queried, Instant::now() + SENTINEL_TIMEOUT)).await;
        let master = master.map_err(io::Error::other)?.map_err(io::Error::other)?;
        tokio::select! {
            opened = open_confirmed(sentinels, &master, settings, config) => return opened,
            to = master_moved(sentinels, &master) => {
                debug!(from = %master, %to, "Sentinels name another master; connecting to that one");
            }
        }
    }
}

/// Connects to a master that confirms to be one.
async fn open_confirmed(
    sentinels: &Sentinels,
    master: &Address,
    settings: &RedisConnectionInfo,
    config: &AsyncConnectionConfig,
) -> RedisResult<Connection> {
    let mut connection = open(&sentinels.endpoint(master), Some((sentinels, master)), settings, config).await?;
    let role: Vec<Value> = redis::cmd("ROLE").query_async(connection.requests()).await?;
    if role.first() != Some(&Value::BulkString(b"master".to_vec())) {
        let text = format!("{master} is a replica, expected the master {:?}", sentinels.master);
        return Err(io::Error::other(text).into());
    }
    Ok(connection)
}

/// `found` is the master according to Sentinels.
async fn open(
    endpoint: &Endpoint,
    found: Option<(&Sentinels, &Address)>,
    settings: &RedisConnectionInfo,
    config: &AsyncConnectionConfig,
) -> RedisResult<Connection> {
    match endpoint {
        Endpoint::Tcp { host, port } => Connection::start(open_tcp(host, *port).await?, found, settings, config).await,
        Endpoint::Unix(path) => Connection::start(UnixStream::connect(path).await?, found, settings, config).await,
        // The crate's own TLS reads the system's CA certificates inside the runtime, and accepts all or none of them.
        Endpoint::Tls { host, port, tls } => {
            Connection::start(open_tls(host, *port, tls).await?, found, settings, config).await
        }
    }
}

/// Connects to the first address of the host that accepts.
async fn open_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let attempts: Vec<_> =
        lookup_host((host, port)).await?.map(|address| Box::pin(TcpStream::connect(address))).collect();
    if attempts.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("no address of host {host:?}")));
    }
    let (stream, _) = select_ok(attempts).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::super::fake_server;
    use super::*;

    async fn error_of(url: &str, protocol: ProtocolVersion) -> String {
        let connected = connect(&url.parse().unwrap(), protocol, &no_timeouts()).await;
        format!("{0} {0:?}", connected.err().unwrap())
    }

    #[tokio::test]
    async fn errors_contain_no_password() {
        let quoting = "-ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'me' 's3cr\u{e9}t'\r\n";
        let (port, _) = fake_server::start(quoting).await;
        let error = error_of(&format!("redis://me:s3cr%C3%A9t@127.0.0.1:{port}"), ProtocolVersion::RESP3).await;
        assert!(error.contains("unknown command 'HELLO'") && error.contains("'me' '***'"), "{error}");
        assert!(!error.contains("s3cr"), "{error}");
    }

    #[tokio::test]
    async fn login_names_the_user_unless_the_server_has_no_users() {
        for (url, commands) in [
            ("redis://default@127.0.0.1", &["AUTH$7default$0"][..]),
            ("redis://me:pw@127.0.0.1", &["AUTH$2me$2pw"]),
            ("redis://:pw@127.0.0.1", &["AUTH$7default$2pw", "AUTH$2pw"]),
        ] {
            let (port, received) = fake_server::start("-ERR wrong number of arguments for 'auth' command\r\n").await;
            let _ = connect(&format!("{url}:{port}").parse().unwrap(), ProtocolVersion::RESP2, &no_timeouts()).await;
            let received = received
                .lock()
                .iter()
                .map(|bytes| String::from_utf8_lossy(bytes).replace("\r\n", ""))
                .collect::<String>();
            for command in commands {
                assert!(received.contains(command), "{url}: {received}");
            }
        }
    }
}
