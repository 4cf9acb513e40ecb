//! Whose tools a daemon looks after: accounts are `<project>.<tool>`.

use std::fs;
use std::io;
use std::path::PathBuf;

/// Why there is no project.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// The file with its name.
    #[error("{error} while reading --project-file {path:?}; --project NAME gives the name itself")]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// No name that accounts can begin with.
    #[error("invalid project {0:?}, expected letters, digits, - and _, e.g. \"tools\"")]
    Name(String),
}

/// The project's name: the one that was given, else the first line of `file`.
///
/// # Errors
/// An unreadable file, a name with other characters than letters, digits, `-` and `_`.
pub fn resolve_project(given: Option<String>, file: PathBuf) -> Result<String, ProjectError> {
    let name = match given {
        Some(name) => name,
        None => {
            let text = fs::read_to_string(&file).map_err(|error| ProjectError::File { path: file, error })?;
            text.lines().next().unwrap_or_default().trim().to_owned()
        }
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if name.is_empty() || !name.bytes().all(allowed) { Err(ProjectError::Name(name)) } else { Ok(name) }
}
