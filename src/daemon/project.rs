//! The project of the grid: tool accounts are `<project>.<tool>`.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap::Args;

/// The file with the project's name in its first line.
pub const PROJECT_FILE: &str = "/etc/wmcs-project";

/// Options that name the project.
#[derive(Clone, Debug, Args)]
pub struct ProjectOptions {
    /// Project of the tool accounts NAME.TOOL
    #[arg(long, value_name = "NAME", conflicts_with = "project_file")]
    project: Option<String>,
    /// File whose first line is the project's name
    #[arg(long, value_name = "FILE", default_value = PROJECT_FILE)]
    project_file: PathBuf,
}

/// Why the project is unknown.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// The file with the name cannot be read.
    #[error("{error} while reading --project-file {path:?}; --project NAME gives the name itself")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The name cannot be the prefix of an account name.
    #[error("invalid project {0:?}, expected letters, digits, - and _, e.g. \"tools\"")]
    Name(String),
}

impl ProjectOptions {
    /// The project's name: `--project`, or else the first line of `--project-file`.
    ///
    /// # Errors
    /// The file is unreadable, or the name has characters other than letters, digits, `-` and `_`.
    pub fn resolve(self) -> Result<String, ProjectError> {
        let name = match self.project {
            Some(name) => name,
            None => {
                let read = fs::read_to_string(&self.project_file);
                let text = read.map_err(|error| ProjectError::File { path: self.project_file, error })?;
                text.lines().next().unwrap_or_default().trim().to_owned()
            }
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if name.is_empty() || !name.bytes().all(allowed) { Err(ProjectError::Name(name)) } else { Ok(name) }
    }
}
