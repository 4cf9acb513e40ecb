//! Password files.

use std::fs;
use std::io;
use std::path::Path;

/// The password on the file's first line; `None` if that is empty.
///
/// # Errors
/// Those of reading the file; [`io::ErrorKind::InvalidData`] if it is not UTF-8.
pub fn read_password_file(path: &Path) -> io::Result<Option<String>> {
    let text = fs::read_to_string(path)?;
    Ok(text.lines().next().filter(|line| !line.is_empty()).map(str::to_owned))
}
