//! Password files.

use std::io;
use std::path::Path;

use super::bounded_file::read_bounded;

/// The password on the file's first line; `None` if that is empty.
///
/// # Errors
/// Those of reading the file; [`io::ErrorKind::InvalidData`] if it is not UTF-8.
pub fn read_password_file(path: &Path) -> io::Result<Option<String>> {
    let text = io::read_to_string(&read_bounded(path)?[..])?;
    Ok(first_line(&text).map(str::to_owned))
}

/// The first line, unless it is empty.
pub(super) fn first_line(text: &str) -> Option<&str> {
    text.lines().next().filter(|line| !line.is_empty())
}
