//! Programs that a test writes and then runs. Another process writes them: while a file is open for writing here, another thread
//! may start a child, which has the descriptor until it executes something, and the file cannot be executed then (ETXTBSY).

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes an executable file.
pub fn write_program(path: &Path, text: &str) {
    let mut writer = Command::new("sh");
    writer.args(["-c", r#"cat >"$1" && chmod 755 "$1""#, "sh"]).arg(path).stdin(Stdio::piped());
    let mut writer = writer.spawn().expect("sh");
    writer.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("written");
    assert!(writer.wait().expect("sh ends").success(), "{path:?} is not written");
}

/// Copies a program, so that any user can run it.
pub fn copy_program(from: impl AsRef<Path>, to: &Path) {
    let from = from.as_ref();
    let copied = Command::new("install").args(["-m", "755"]).args([from, to]).status().expect("install");
    assert!(copied.success(), "{from:?} is not copied");
}
