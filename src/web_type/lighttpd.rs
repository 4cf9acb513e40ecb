//! The generated configuration of lighttpd: for ~/public_html, perhaps with PHP, then the tool's own ~/.lighttpd.conf.

use std::net::{Ipv6Addr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::home_file;
use super::invocation::Invocation;
use super::prepared_command::PrepareError;

/// The largest ~/.lighttpd.conf, in bytes.
const MAX_OWN_BYTES: usize = 1 << 20;

/// Interpreters of CGI programs by extension.
const CGI: [(&str, &str); 6] = [
    (".pl", "/usr/bin/perl"),
    (".py", "/usr/bin/python3"),
    (".pyc", "/usr/bin/python3"),
    (".rb", "/usr/bin/ruby"),
    (".sh", "/bin/sh"),
    (".cgi", ""),
];

/// Media types by extension.
const MEDIA_TYPES: &str = include_str!("media_types.txt");

/// The modules that tools may use without naming them in `server.modules`. All are in the package `lighttpd` itself.
const MODULES: [&str; 12] = [
    "mod_access",
    "mod_auth",
    "mod_authn_file",
    "mod_setenv",
    "mod_redirect",
    "mod_rewrite",
    "mod_alias",
    "mod_expire",
    "mod_accesslog",
    "mod_proxy",
    "mod_fastcgi",
    "mod_cgi",
];

/// Text that grows line by line. Paths in it need not be UTF-8.
struct Text(Vec<u8>);

/// The configuration for one start.
pub fn configuration(invocation: &Invocation<'_>, php: bool) -> Result<Vec<u8>, PrepareError> {
    let Invocation { home, port, .. } = *invocation;
    let own = home_file::read(&home.join(".lighttpd.conf"), MAX_OWN_BYTES)?;
    let own_text = own.as_deref().unwrap_or_default();
    let root = quoted(&home.join("public_html"))?;
    let mut text = Text(Vec::new());
    text.line("# Written by webservice-runner for each start: changes belong in ~/.lighttpd.conf.");
    text.list("server.modules", MODULES.map(|module| format!("{module:?}")));
    text.line(&format!("server.port = {port}\nserver.bind = \"0.0.0.0\""));
    if has_ipv6() {
        text.line(&format!("$SERVER[\"socket\"] == \"[::]:{port}\" {{ }}"));
    }
    text.setting("server.document-root", &root);
    text.line("index-file.names = ( \"index.php\", \"index.html\", \"index.htm\" )");
    text.line("server.follow-symlink = \"enable\"\nserver.max-connections = 300");
    text.line("url.access-deny = ( \"~\", \".inc\" )");
    if let Some(log) = invocation.error_log {
        let log = quoted(log)?;
        text.setting("server.errorlog", &log);
        text.setting("server.breakagelog", &log);
    }
    // lighttpd refuses a key that is there already. The tool's own value counts.
    let is_free = |key: &str| !contains(own_text, format!("\"{key}\"").as_bytes());
    let cgi = CGI.iter().filter(|(extension, _)| is_free(extension));
    text.list("cgi.assign", cgi.map(|(extension, program)| format!("{extension:?} => {program:?}")));
    text.line("# Never shown as text, also if nothing runs them.");
    text.line("static-file.exclude-extensions = ( \".php\", \".pl\", \".py\", \".pyc\", \".rb\", \".sh\", \".cgi\", \".fcgi\" )");
    text.list(
        "mimetype.assign",
        media_types()
            .filter(|(extension, _)| is_free(extension))
            .map(|(extension, media_type)| format!("{extension:?} => {media_type:?}")),
    );
    if php {
        text.php(invocation)?;
    }
    if let Some(own) = &own {
        let next = text.0.iter().filter(|&&byte| byte == b'\n').count() + 2;
        text.line(&format!("# ~/.lighttpd.conf; its line 1 is line {next} of this file."));
        text.bytes(own);
    }
    // After the tool's own aliases: lighttpd takes the first that fits.
    if !invocation.canonical {
        let mount = quoted(Path::new(&invocation.mount()))?;
        text.bytes(&[b"alias.url += ( ", &*mount, b" => ", &root, b" )"].concat());
    }
    Ok(text.0)
}

impl Text {
    fn line(&mut self, line: &str) {
        self.bytes(line.as_bytes());
    }

    fn bytes(&mut self, line: &[u8]) {
        self.0.extend_from_slice(line);
        if !line.ends_with(b"\n") {
            self.0.push(b'\n');
        }
    }

    fn setting(&mut self, key: &str, value: &[u8]) {
        self.bytes(&[key.as_bytes(), b" = ", value].concat());
    }

    fn list(&mut self, key: &str, elements: impl IntoIterator<Item = String>) {
        let elements: Vec<_> = elements.into_iter().map(|element| format!("  {element}")).collect();
        self.line(&format!("{key} = (\n{}\n)", elements.join(",\n")));
    }

    /// Two `php-cgi` with two children each. A script may send files of the tool's home by `X-Sendfile`.
    fn php(&mut self, invocation: &Invocation<'_>) -> Result<(), PrepareError> {
        let socket = quoted(&invocation.scratch.join("php.socket"))?;
        let home = quoted(&invocation.home.join(""))?;
        self.line("fastcgi.server = ( \".php\" => ((");
        self.line("  \"bin-path\" => \"/usr/bin/php-cgi\",");
        self.bytes(&[b"  \"socket\" => ", &*socket, b","].concat());
        self.line("  \"max-procs\" => 2,");
        self.line("  \"bin-environment\" => ( \"PHP_FCGI_CHILDREN\" => \"2\", \"PHP_FCGI_MAX_REQUESTS\" => \"500\" ),");
        self.line("  \"broken-scriptfilename\" => \"enable\",");
        self.line("  \"x-sendfile\" => \"enable\",");
        self.bytes(&[b"  \"x-sendfile-docroot\" => ( ", &*home, b" )"].concat());
        self.line(")) )");
        Ok(())
    }
}

/// A string of lighttpd's configuration. Only `\"` is special in it.
fn quoted(path: &Path) -> Result<Vec<u8>, PrepareError> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.ends_with(b"\\") || bytes.iter().any(u8::is_ascii_control) {
        return Err(PrepareError::Path(path.to_owned()));
    }
    let mut text = vec![b'"'];
    for &byte in bytes {
        text.extend_from_slice(if byte == b'"' { b"\\\"" } else { std::slice::from_ref(&byte) });
    }
    text.push(b'"');
    Ok(text)
}

/// Extensions and media types. The empty extension, last, is for all others.
fn media_types() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = MEDIA_TYPES.lines().filter_map(|line| line.split_once(": "));
    let all =
        lines.flat_map(|(media_type, extensions)| extensions.split(' ').map(move |extension| (extension, media_type)));
    all.chain([("", "application/octet-stream")])
}

/// Whether the system has IPv6 sockets: lighttpd does not start if it cannot listen.
fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok()
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}
