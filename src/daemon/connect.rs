//! Connects to Redis from tokio with the `redis` crate.

use std::io;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo,
    RedisError, RedisResult, Value,
};
use tokio::task::spawn_blocking;

use super::tls::open_tls;
use crate::redis_client::{Endpoint, Reach, RedisUrl, Sentinels, ServerError, master_of};

/// Time for all Sentinels together to name the master.
const SENTINEL_TIMEOUT: Duration = Duration::from_secs(1);

/// A configuration without timeouts: callers set their own deadlines.
pub(super) fn no_timeouts() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None)
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
) -> RedisResult<MultiplexedConnection> {
    let settings = settings(url, protocol);
    let connected = match url.reach() {
        Reach::Direct(endpoint) => open(endpoint, settings, config).await,
        Reach::Sentinels(sentinels) => open_master(sentinels, settings, config).await,
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

async fn open_master(
    sentinels: &Sentinels,
    settings: RedisConnectionInfo,
    config: &AsyncConnectionConfig,
) -> RedisResult<MultiplexedConnection> {
    let queried = sentinels.clone();
    let master = spawn_blocking(move || master_of(&queried, Instant::now() + SENTINEL_TIMEOUT)).await;
    let master = master.map_err(io::Error::other)?.map_err(io::Error::other)?;
    let shown = master.to_string();
    let mut connection = open(&sentinels.endpoint(&master), settings, config).await?;
    let role: Vec<Value> = redis::cmd("ROLE").query_async(&mut connection).await?;
    if role.first() != Some(&Value::BulkString(b"master".to_vec())) {
        let text = format!("{shown} is a replica, expected the master {:?}", sentinels.master);
        return Err(io::Error::other(text).into());
    }
    Ok(connection)
}

async fn open(
    endpoint: &Endpoint,
    settings: RedisConnectionInfo,
    config: &AsyncConnectionConfig,
) -> RedisResult<MultiplexedConnection> {
    let address = match endpoint {
        Endpoint::Tcp { host, port } => ConnectionAddr::Tcp(host.clone(), *port),
        Endpoint::Unix(path) => ConnectionAddr::Unix(path.clone()),
        // The crate's own TLS reads the system's CA certificates inside the runtime, and accepts all or none of them.
        Endpoint::Tls { host, port, tls } => {
            let stream = open_tls(host, *port, tls).await?;
            let (connection, driver) =
                MultiplexedConnection::new_with_config(&settings, stream, config.clone()).await?;
            // The driver ends with the last clone of the connection.
            tokio::spawn(driver);
            return Ok(connection);
        }
    };
    let info = address.into_connection_info()?.set_redis_settings(settings);
    let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    Client::open(info)?.get_multiplexed_async_connection_with_config(config).await
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
