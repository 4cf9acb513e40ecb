//! `drain`: creates or removes the drain file, and waits until nginx sees it.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, absolute};
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::ctl::admin_client::AdminClient;
use crate::ctl::api::Status;
use crate::ctl::console::Console;
use crate::ctl::options::DrainOptions;
use crate::ctl::outcome::{Answer, CtlError};
use crate::escape::escaped;

/// Time between two looks at the status.
const INTERVAL: Duration = Duration::from_millis(200);
/// The first status may take this long, however short the wait: without it, nothing can be said.
const FIRST_STATUS: Duration = Duration::from_secs(5);
/// Everybody may see that the proxy is out of service.
const MODE: u32 = 0o644;

/// Takes the proxy out of service, or back into service; negative if nginx does not say so in time.
pub async fn run(admin: &AdminClient, console: &mut Console, options: DrainOptions) -> Result<Answer, CtlError> {
    let DrainOptions { undo, file, wait } = options;
    // Only named by the operator: whoever answers in nginx's place must not choose a file that root removes.
    let file = absolute(&file).map_err(|error| CtlError::usage(format!("invalid drain file {file:?}: {error}")))?;
    let (what, changed) = if undo { ("removing", remove(&file)) } else { ("creating", create(&file)) };
    let action = changed.map_err(|error| {
        let expected = "expected its directory to exist, and to run on nginx's machine, as root";
        CtlError::failed(format!("{error} while {what} the drain file {file:?}, {expected}"))
    })?;
    let done = format!("{action} {}", file.display());
    let status = match wait_for(admin, !undo, wait).await {
        Ok(status) => status,
        Err(error) => {
            let error = error.unwrap_or_else(|| {
                CtlError::failed(format!("nginx did not answer within {:?}", wait.max(FIRST_STATUS)))
            });
            print(console, &file, action, None, Some(error.to_string()))?;
            console.note(done);
            return Err(error);
        }
    };
    let is_seen = status.draining == Some(!undo);
    let why = (!is_seen).then(|| why_unseen(&status, &file));
    print(console, &file, action, Some(&status), why.clone())?;
    if !console.is_json {
        let table = &status.table;
        let not_ready = status.not_ready_because.as_deref().map_or("200".to_owned(), |why| format!("503: {why}"));
        let text = match why {
            None => format!("{done}; /ready of table {table} answers {not_ready}"),
            Some(why) => format!("{done}, but /ready of table {table} answers {not_ready} after {wait:?}; {why}"),
        };
        console.line(escaped(text))?;
    }
    // Back in service only if nothing else is in the way.
    Ok(Answer::positive_if(is_seen && (!undo || status.ready == Some(true))))
}

fn print(
    console: &mut Console,
    file: &Path,
    action: &str,
    status: Option<&Status>,
    error: Option<String>,
) -> io::Result<()> {
    if !console.is_json {
        return Ok(());
    }
    console.json(&json!({
        "file": file.display().to_string(),
        "action": action,
        "ready": status.and_then(|status| status.ready),
        "draining": status.and_then(|status| status.draining),
        "not_ready_because": status.and_then(|status| status.not_ready_because.as_deref()),
        "error": error,
    }))
}

/// The last status within the time, or the first in which the proxy drains as wanted. The last error if nginx answered with
/// one, or no error if it gave no answer at all.
async fn wait_for(admin: &AdminClient, wanted: bool, time: Duration) -> Result<Status, Option<CtlError>> {
    let deadline = Instant::now() + time;
    let mut answer_by = deadline.max(Instant::now() + FIRST_STATUS);
    let mut last = Err(None);
    while let Ok(answer) = timeout_at(answer_by, admin.get_as::<Status>("api/status", &[])).await {
        answer_by = deadline;
        last = answer.map_err(|error| Some(error.into()));
        if last.as_ref().is_ok_and(|status| status.draining == Some(wanted)) {
            break;
        }
        let next = Instant::now() + INTERVAL;
        if next > deadline {
            break;
        }
        sleep_until(next).await;
    }
    last
}

/// Why nginx most likely does not see what was done to the file.
fn why_unseen(status: &Status, file: &Path) -> String {
    let table = &status.table;
    match (status.ready, &status.drain_file) {
        (None, _) => "the module in nginx is too old to know drain_file".into(),
        (Some(_), None) => {
            format!("urlproxy_table {table} has no drain_file, expected e.g. \"drain_file {};\"", file.display())
        }
        (Some(_), Some(named)) if Path::new(named) != file => {
            format!("urlproxy_table {table} has another drain_file, try --file {named}")
        }
        (Some(_), Some(_)) if status.draining.is_none() => "nginx cannot look for the file".into(),
        (Some(_), Some(_)) => "nginx may run on another machine, or in a container with its own directories".into(),
    }
}

/// Creates the file, unless anything has its name. Follows no link.
fn create(path: &Path) -> io::Result<&'static str> {
    match OpenOptions::new().write(true).create_new(true).mode(MODE).open(path) {
        // Whatever the umask.
        Ok(file) => file.set_permissions(Permissions::from_mode(MODE)).map(|()| "created"),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok("exists"),
        Err(error) => Err(error),
    }
}

/// Removes the file, or the link of its name.
fn remove(path: &Path) -> io::Result<&'static str> {
    match fs::remove_file(path) {
        Ok(()) => Ok("removed"),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok("absent"),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn file_is_created_and_removed_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out-of-service");
        assert_eq!(
            (remove(&path).unwrap(), create(&path).unwrap(), create(&path).unwrap()),
            ("absent", "created", "exists")
        );
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert_eq!((metadata.is_file(), metadata.permissions().mode() & 0o777, metadata.len()), (true, MODE, 0));
        assert_eq!((remove(&path).unwrap(), remove(&path).unwrap(), path.exists()), ("removed", "absent", false));
    }

    #[test]
    fn no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other, missing) = (dir.path().join("out"), dir.path().join("other"), dir.path().join("missing"));
        fs::write(&other, "x").unwrap();
        for target in [&other, &missing, &path] {
            symlink(target, &path).unwrap();
            assert_eq!(create(&path).unwrap(), "exists");
            assert!(!missing.exists());
            assert_eq!(remove(&path).unwrap(), "removed");
            assert_eq!(fs::read(&other).unwrap(), b"x");
        }
    }

    #[test]
    fn a_missing_directory_is_an_error_and_a_directory_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing/out");
        assert_eq!(create(&path).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(remove(&path).unwrap(), "absent");
        assert_eq!(create(dir.path()).unwrap(), "exists");
        assert!(remove(dir.path()).is_err() && dir.path().is_dir());
    }
}
