//! The account that this program runs as: its home, where the tool's server runs, as in the old stack, and the tool's name.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use tracing::warn;
use uzers::get_user_by_uid;
use uzers::os::unix::UserExt;

use crate::daemon::PROJECT_FILE;

/// The account of the effective user.
#[derive(Debug)]
pub struct OwnAccount {
    uid: u32,
    /// `<project>.<tool>`; `None` without an account, as in a container.
    name: Option<String>,
    /// In a container the directory `HOME`, if it belongs to the user.
    home: Option<PathBuf>,
}

impl OwnAccount {
    /// Asks the system.
    pub fn current() -> Self {
        let uid = geteuid().as_raw();
        match get_user_by_uid(uid) {
            Some(user) => {
                let name = user.name().to_string_lossy().into_owned();
                Self { uid, name: Some(name), home: Some(user.home_dir().to_owned()) }
            }
            None => {
                let is_own =
                    |home: &PathBuf| fs::metadata(home).is_ok_and(|found| found.is_dir() && found.uid() == uid);
                let home = env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
                Self { uid, name: None, home: home.filter(is_own) }
            }
        }
    }

    /// The home, or else the working directory.
    pub fn home(&self) -> PathBuf {
        self.home.clone().unwrap_or_else(here)
    }

    /// The tool's name: of the account, or else of the home.
    pub fn tool(&self) -> String {
        let project = fs::read_to_string(PROJECT_FILE).unwrap_or_default();
        let project = project.lines().next().unwrap_or_default().trim();
        match &self.name {
            Some(name) => tool_of(name, project).to_owned(),
            None => self.home().file_name().unwrap_or_default().to_string_lossy().into_owned(),
        }
    }

    /// Changes to the home, for this process and the command. On failure stays where it is, and logs that.
    pub fn enter_home(&self) {
        let Some(home) = &self.home else {
            warn!("uid {} has no account, so no home; running the command in {:?}", self.uid, here());
            return;
        };
        if let Err(error) = env::set_current_dir(home) {
            warn!("{error} while changing to the home {home:?}; running the command in {:?}", here());
        }
    }
}

fn here() -> PathBuf {
    env::current_dir().unwrap_or_else(|_| Path::new("/").to_owned())
}

/// The tool of the account `<project>.<tool>`. Without a project, the text after the first dot; without a dot, all of it.
fn tool_of<'a>(account: &'a str, project: &str) -> &'a str {
    let of_project =
        account.strip_prefix(project).filter(|_| !project.is_empty()).and_then(|rest| rest.strip_prefix('.'));
    of_project.or_else(|| account.split_once('.').map(|(_, tool)| tool)).unwrap_or(account)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tool_is_what_follows_the_project() {
        for (account, project, want) in [
            ("tools.hello", "tools", "hello"),
            ("tools.hello", "", "hello"),
            ("tools.hello.world", "tools", "hello.world"),
            ("my.project.hello", "my.project", "hello"),
            ("toolsbeta.hello", "tools", "hello"),
            ("alice", "tools", "alice"),
            ("tools", "tools", "tools"),
        ] {
            assert_eq!(tool_of(account, project), want, "{account} {project}");
        }
    }
}
