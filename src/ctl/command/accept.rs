//! `accept-withdrawal`: writes the accept file of the withdrawal guard, and waits for its effect.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::ctl::admin_client::AdminClient;
use crate::ctl::api::{Held, Status};
use crate::ctl::console::Console;
use crate::ctl::outcome::{Answer, CtlError};
use crate::registry::{parse_key, routes_key, split_key};
use crate::text::counted;
use crate::withdrawal_guard::ACCEPT_DIRECTORY;

/// Time between two looks at the hold.
const INTERVAL: Duration = Duration::from_millis(200);
/// The workers' user must be able to read the file.
const MODE: u32 = 0o644;

/// Ends the hold, for all records or for the named ones; negative without a hold, or if it does not end in time.
pub async fn run(
    admin: &AdminClient,
    console: &mut Console,
    tools: &[String],
    file: Option<PathBuf>,
    timeout: Duration,
) -> Result<Answer, CtlError> {
    let content = content_of(tools)?;
    let Some(held) = held(admin).await? else {
        if console.is_json {
            console.json(&json!({"held": 0, "accepted": 0, "remaining": 0}))?;
        } else {
            console.line("no removal is held back")?;
        }
        return Ok(Answer::Negative);
    };
    let file = match file {
        Some(file) => file,
        None => usual_file(held.accept_file)?,
    };
    replace(&file, &content).map_err(|error| {
        let expected = "expected its directory to exist, and to run on nginx's machine, as root";
        CtlError::failed(format!("{error} while writing the accept file {file:?}, {expected}"))
    })?;
    let deadline = Instant::now() + timeout;
    let mut remaining = held.records;
    // An accept file without names ends the hold; one with names removes these from it.
    let is_over = |remaining: u64| remaining == 0 || !tools.is_empty() && remaining < held.records;
    while !is_over(remaining) && Instant::now() < deadline {
        tokio::time::sleep(INTERVAL).await;
        remaining = self::held(admin).await?.map_or(0, |held| held.records);
    }
    let accepted = held.records.saturating_sub(remaining);
    if console.is_json {
        console.json(&json!({"held": held.records, "accepted": accepted, "remaining": remaining}))?;
    } else if is_over(remaining) {
        let rest = if remaining > 0 { format!("; {} still held", counted(remaining, "record")) } else { String::new() };
        console.line(format_args!("accepted: {} no longer held{rest}", counted(accepted, "record")))?;
    } else {
        let records = counted(remaining, "record");
        console.line(format_args!("{records} still held after {timeout:?}; nginx's error log says why"))?;
    }
    Ok(Answer::positive_if(is_over(remaining)))
}

/// The accept file that nginx names, if it is one of the default files. Any other is for the operator to name: whoever answers in
/// nginx's place must not choose a file that root replaces.
fn usual_file(named: Option<String>) -> Result<PathBuf, CtlError> {
    let file = PathBuf::from(named.ok_or_else(|| CtlError::failed("nginx names no accept file"))?);
    let is_usual = file.parent() == Some(Path::new(ACCEPT_DIRECTORY)) && file.extension() == Some(OsStr::new("accept"));
    if is_usual {
        return Ok(file);
    }
    let text =
        format!("nginx names the accept file {file:?}, outside {ACCEPT_DIRECTORY}; if that is right, add --file");
    Err(CtlError::failed(text))
}

async fn held(admin: &AdminClient) -> Result<Option<Held>, CtlError> {
    let status: Status = admin.get_as("api/status", &[]).await?;
    Ok(status.held.filter(|held| held.records > 0))
}

/// One key per line; nothing for everything.
fn content_of(tools: &[String]) -> Result<Vec<u8>, CtlError> {
    let mut content = Vec::new();
    for tool in tools {
        let key =
            if split_key(tool.as_bytes()).is_some() { tool.clone().into_bytes() } else { routes_key(tool.as_bytes()) };
        // Lines of the file are trimmed.
        let is_one_line = !key.contains(&b'\n') && key.trim_ascii() == key;
        if !is_one_line || !matches!(parse_key(&key), Some(Ok(_))) {
            let expected = "expected e.g. \"hello\", \"redirect:hello\" or \"frontend:www.example.org\"";
            return Err(CtlError::usage(format!("invalid tool {tool:?}, {expected}")));
        }
        content.extend(key);
        content.push(b'\n');
    }
    Ok(content)
}

/// Replaces the file at once: nginx never sees a part of the names. Follows no link.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary = name.to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(temporary);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&temporary)?;
        // Whatever the umask.
        file.set_permissions(Permissions::from_mode(MODE))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn names_become_keys() {
        let content = |tools: &[&str]| {
            let tools: Vec<String> = tools.iter().map(|&tool| tool.to_owned()).collect();
            content_of(&tools).map(|content| String::from_utf8(content).unwrap()).map_err(|error| error.to_string())
        };
        assert_eq!(content(&[]).unwrap(), "");
        assert_eq!(content(&["hello", "#x", "redirect:a"]).unwrap(), "prefix:hello\nprefix:#x\nredirect:a\n");
        for bad in ["a/b", "a\nb", "a ", "frontend:A.b", "redirect:a b"] {
            assert!(content(&[bad]).unwrap_err().contains("expected e.g. \"hello\""), "{bad}");
        }
    }

    #[test]
    fn only_default_files_are_taken_from_the_answer() {
        let file = |named: &str| usual_file(Some(named.to_owned())).map_err(|error| error.to_string());
        assert_eq!(file("/run/urlproxy/tools.accept").unwrap(), Path::new("/run/urlproxy/tools.accept"));
        for named in
            ["/etc/passwd", "/etc/x.accept", "/run/urlproxy/x/a.accept", "/run/urlproxy/../x.accept", "x.accept", ""]
        {
            assert!(file(named).unwrap_err().ends_with("add --file"), "{named}");
        }
        assert!(usual_file(None).is_err());
    }

    #[test]
    fn a_link_is_replaced_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("accept"), dir.path().join("other"));
        fs::write(&other, "x").unwrap();
        symlink(&other, &file).unwrap();
        replace(&file, b"prefix:a\n").unwrap();
        assert_eq!((fs::read(&file).unwrap(), fs::read(&other).unwrap()), (b"prefix:a\n".to_vec(), b"x".to_vec()));
        let metadata = fs::symlink_metadata(&file).unwrap();
        assert_eq!((metadata.is_file(), metadata.permissions().mode() & 0o777), (true, MODE));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        assert!(replace(&dir.path().join("missing/accept"), b"").is_err());
    }
}
