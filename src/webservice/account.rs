//! Finds the tool of the account that runs the command.

use std::path::{Path, PathBuf};

use rustix::process::getuid;
use uzers::get_user_by_uid;
use uzers::os::unix::UserExt;

use super::service::Tool;
use crate::daemon::{ProjectError, ProjectOptions};
use crate::tenant::MIN_UID;

/// Why the user is not a tool.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The project is unknown.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// The uid has no account.
    #[error("uid {0} has no account; webservice runs as a tool's account: `become TOOL`, then `webservice` again")]
    NoAccount(u32),
    /// The user is a person, a system account, or a tool of another project.
    #[error(
        "you are {account:?} (uid {uid}), but webservice runs as a tool's account, {project}.TOOL with a uid of at least \
         {MIN_UID}: `become TOOL`, then `webservice` again"
    )]
    NotATool {
        /// The account's name.
        account: String,
        /// Its uid.
        uid: u32,
        /// The project.
        project: String,
    },
    /// The home is missing, or something else.
    #[error("the home {home:?} of {account:?} is not an accessible directory: {reason}; ask an administrator")]
    NoHome {
        /// The account's name.
        account: String,
        /// Its home.
        home: PathBuf,
        /// The system's error.
        reason: String,
    },
}

/// The tool of the account that runs this process.
///
/// # Errors
/// See [`AccountError`].
pub fn current_tool(project: ProjectOptions) -> Result<Tool, AccountError> {
    let uid = getuid().as_raw();
    let user = get_user_by_uid(uid).ok_or(AccountError::NoAccount(uid))?;
    let account = user.name().to_string_lossy().into_owned();
    let project = match project.resolve() {
        Ok(project) => project,
        // A machine without the file serves the project of its accounts.
        Err(ProjectError::File { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => {
            account.split('.').next().unwrap_or_default().to_owned()
        }
        Err(error) => return Err(error.into()),
    };
    let name = tool_name(&account, &project).filter(|_| uid >= MIN_UID).map(str::to_owned);
    let Some(name) = name else { return Err(AccountError::NotATool { account, uid, project }) };
    let home = user.home_dir().to_owned();
    if let Err(reason) = check_home(&home) {
        return Err(AccountError::NoHome { account, home, reason });
    }
    Ok(Tool { name, account, home, uid })
}

/// The tool's name, which becomes a part of the job's name.
fn tool_name<'a>(account: &'a str, project: &str) -> Option<&'a str> {
    let name = account.strip_prefix(project)?.strip_prefix('.')?;
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_name = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric()) && name.bytes().all(is_inner);
    is_name.then_some(name)
}

fn check_home(home: &Path) -> Result<(), String> {
    match std::fs::metadata(home) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err("it is not a directory".into()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_of_tools_have_the_project_before_the_name() {
        for (account, want) in [
            ("tools.hello", Some("hello")),
            ("tools.a.b-c_d", Some("a.b-c_d")),
            ("tools.Hello2", Some("Hello2")),
            ("tools.", None),
            ("tools", None),
            ("toolsbeta.hello", None),
            ("hello", None),
            ("root", None),
            ("tools.-x", None),
            ("tools.a b", None),
            ("tools.a/b", None),
        ] {
            assert_eq!(tool_name(account, "tools"), want, "{account}");
        }
    }
}
