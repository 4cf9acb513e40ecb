//! Certificates and keys for the tests, created with the openssl program.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

const SCRIPT: &str = r"set -e; cd $1; exec 2>openssl.log
ec='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
openssl req -x509 $ec -keyout ca.key -out ca.pem -days 2 -subj /CN=ca
openssl req $ec -keyout key.pem -out csr.pem -subj /CN=client
openssl x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out version1.pem
printf 'subjectAltName=IP:127.0.0.1\n' >ext
openssl x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -days 2 -extfile ext -out cert.pem
openssl pkcs8 -topk8 -in key.pem -passout pass:x -out encrypted.pem
openssl ec -in key.pem -aes128 -passout pass:x -out encrypted_old.pem
grep -v END key.pem >broken.pem
tr -d '\n' <key.pem >one_line.pem";

/// A directory with `ca.pem`, `cert.pem`, `key.pem`, and unusable keys.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = Command::new("sh").args(["-c", SCRIPT, "sh"]).arg(dir.path()).status().unwrap();
        assert!(made.success(), "{}", fs::read_to_string(dir.path().join("openssl.log")).unwrap_or_default());
        Self(dir)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// A part of the key, which nothing may show.
    pub(crate) fn secret(&self) -> String {
        fs::read_to_string(self.path("key.pem")).unwrap().lines().nth(1).unwrap()[30..60].to_owned()
    }
}
