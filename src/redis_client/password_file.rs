//! A password in a file of its own.

use std::fs;
use std::io;
use std::path::Path;

/// The password on the file's first line; `None` when there is none.
///
/// # Errors
/// The file cannot be read, or is not text.
pub fn read_password_file(path: &Path) -> io::Result<Option<String>> {
    let text = fs::read_to_string(path)?;
    Ok(text.lines().next().filter(|line| !line.is_empty()).map(str::to_owned))
}
