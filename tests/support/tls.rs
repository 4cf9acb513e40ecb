//! Certificates of private CAs, created with the openssl program.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::port::free_port;
use crate::support::redis::RedisServer;

/// Creates a private CA, `ca.pem`, and a certificate of it for `name`, `cert.pem` and `key.pem`.
pub fn certify(dir: &Path, name: &str) {
    let script = format!(
        r#"set -e; cd "$1"; exec 2>openssl.log
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out csr.pem -subj /CN=redis
        printf 'subjectAltName=%s\n' '{name}' >ext
        openssl x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out cert.pem"#
    );
    let made = Command::new("sh").args(["-c", &script, "sh"]).arg(dir).status().unwrap();
    let log = || std::fs::read_to_string(dir.join("openssl.log")).unwrap_or_default();
    assert!(made.success(), "openssl failed: {}", log());
}

/// Starts a server with a TLS port, a certificate for `name`, and the password `pw`.
pub fn tls_server(name: &str, extra_args: &[&str]) -> (RedisServer, tempfile::TempDir, u16) {
    let dir = tempfile::tempdir().unwrap();
    certify(dir.path(), name);
    let file = |name: &str| dir.path().join(name).display().to_string();
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port().to_string();
    let (cert, key, ca) = (file("cert.pem"), file("key.pem"), file("ca.pem"));
    let args = [
        &["--tls-port", &port, "--tls-cert-file", &cert, "--tls-key-file", &key][..],
        &["--tls-ca-cert-file", &ca, "--tls-auth-clients", "no", "--requirepass", "pw"],
        extra_args,
    ];
    let server = RedisServer::start(&args.concat());
    (server, dir, port.parse().unwrap())
}

/// A private CA with one certificate, for servers and clients alike.
pub struct Pki(tempfile::TempDir);

impl Pki {
    /// With a certificate for `127.0.0.1`.
    pub fn new() -> Self {
        Self::of("IP:127.0.0.1")
    }

    /// With a certificate for `name`.
    pub fn of(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        certify(dir.path(), name);
        Self(dir)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn path(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }

    /// The parameters of a client's URL: `ca=...&cert=...&key=...`.
    pub fn parameters(&self) -> String {
        format!("ca={}&cert={}&key={}", self.path("ca.pem"), self.path("cert.pem"), self.path("key.pem"))
    }

    /// Starts a server or a Sentinel without plain TCP, which accepts only clients with a certificate of this CA; returns its port.
    pub fn start(&self, configuration: Option<&str>, extra_args: &[&str]) -> (RedisServer, u16) {
        let port = free_port();
        let text = port.to_string();
        let (ca, cert, key) = (self.path("ca.pem"), self.path("cert.pem"), self.path("key.pem"));
        let args = [
            &["--port", "0", "--tls-port", &text, "--tls-cert-file", &cert, "--tls-key-file", &key][..],
            &["--tls-ca-cert-file", &ca, "--tls-auth-clients", "yes", "--tls-replication", "yes"],
            extra_args,
        ];
        (RedisServer::start_with(configuration, &args.concat()), port)
    }
}

/// A server's arguments for a TLS port that only clients with a certificate of the CA in this directory may use.
pub fn tls_args(dir: &Path, port: u16) -> Vec<String> {
    let file = |name: &str| dir.join(name).display().to_string();
    let (port, cert, key, ca) = (port.to_string(), file("cert.pem"), file("key.pem"), file("ca.pem"));
    let args = ["--tls-port", &port, "--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
    args.map(str::to_owned).to_vec()
}
