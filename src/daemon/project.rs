//! Whose tools a daemon looks after: accounts are `<project>.<tool>`.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap::Args;

/// What a command line says of the project.
#[derive(Debug, Args)]
pub struct ProjectOptions {
    /// Project of the tools: their accounts are NAME.<tool>
    #[arg(long, value_name = "NAME", conflicts_with = "project_file")]
    project: Option<String>,
    /// File whose first line is the project's name
    #[arg(long, value_name = "FILE", default_value = "/etc/wmcs-project")]
    project_file: PathBuf,
}

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

impl ProjectOptions {
    /// The project's name: the one that was given, else the first line of the file.
    ///
    /// # Errors
    /// An unreadable file, a name with other characters than letters, digits, `-` and `_`.
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
