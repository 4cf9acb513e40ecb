//! `export`: all tools and domains in Redis, as JSON lines.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::ctl::api::PatternBackends;
use crate::ctl::console::Console;
use crate::ctl::export_line::ExportLine;
use crate::ctl::outcome::{Answer, CtlError};
use crate::ctl::redis_entries::{Entries, Entry, read_all, read_origins};
use crate::daemon::Store;
use crate::escape::line_json;
use crate::registry::Origin;
use crate::route::Kind;
use crate::text::counted;

/// Tools whose origins are read at once.
const BATCH: usize = 500;

/// Prints the lines; negative if some keys cannot be exported.
pub async fn run(store: &Store, console: &mut Console, output: Option<&Path>) -> Result<Answer, CtlError> {
    let progress = console.progress("keys read", None);
    let entries = read_all(store, |keys| progress.inc(keys)).await?;
    progress.finish_and_clear();
    let names: BTreeSet<(Kind, &[u8])> = entries.keys().map(|(kind, name)| (owner_of(*kind), &name[..])).collect();
    let names: Vec<_> = names.into_iter().collect();
    let progress = console.progress("exporting", Some(names.len() as u64));
    let mut file = output.map(Replacement::create).transpose()?;
    let (mut exported, mut skipped) = (0, 0);
    for batch in names.chunks(BATCH) {
        let tools: Vec<&[u8]> = batch.iter().map(|(_, name)| *name).collect();
        for ((kind, name), origins) in batch.iter().zip(read_origins(store, &tools).await?) {
            let Some(line) = line(&entries, *kind, name, origins) else {
                skipped += 1;
                let key = String::from_utf8_lossy(name);
                progress.suspend(|| console.note(format_args!("not exported, see urlproxyctl check: {key}")));
                continue;
            };
            match &mut file {
                Some(file) => file.write(line_json(&line).as_bytes())?,
                None => console.json_line(&line)?,
            }
            exported += 1;
        }
        progress.inc(batch.len() as u64);
    }
    progress.finish_and_clear();
    if let Some(file) = file {
        file.finish()?;
    }
    if output.is_some() {
        console.note(format_args!("{} exported", counted(exported, "line")));
    }
    Ok(Answer::positive_if(skipped == 0))
}

/// A redirect is part of its tool's line.
fn owner_of(kind: Kind) -> Kind {
    if kind == Kind::Redirect { Kind::Tool } else { kind }
}

/// The line of a tool or domain; `None` for keys of the wrong type, and for text that is not UTF-8.
fn line(entries: &Entries, kind: Kind, name: &[u8], origins: BTreeMap<Vec<u8>, Vec<u8>>) -> Option<ExportLine> {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    let find = |kind| entries.get(&(kind, name.to_vec()));
    let (set, routes) = match find(kind) {
        None => (false, vec![]),
        Some(Entry::Hash(fields)) if kind == Kind::Tool => {
            let route = |(pattern, url): (&Vec<u8>, &Vec<u8>)| {
                Some(PatternBackends { pattern: text(pattern)?, backends: vec![text(url)?] })
            };
            (false, fields.iter().map(route).collect::<Option<_>>()?)
        }
        Some(Entry::Set(members)) => {
            let backends = members.iter().map(|url| text(url)).collect::<Option<_>>()?;
            (true, vec![PatternBackends { pattern: ".*".into(), backends }])
        }
        Some(_) => return None,
    };
    let redirect = match find(Kind::Redirect).filter(|_| kind == Kind::Tool) {
        None => BTreeMap::new(),
        Some(Entry::Hash(hosts)) => {
            hosts.iter().map(|(pattern, host)| Some((text(pattern)?, text(host)?))).collect::<Option<_>>()?
        }
        Some(_) => return None,
    };
    // An origin is information only: an unreadable one is left out.
    let origin = origins.iter().filter(|_| kind == Kind::Tool);
    let origin = origin.filter_map(|(pattern, origin)| {
        let origin: Origin = serde_json::from_slice(origin).ok()?;
        Some((text(pattern)?, serde_json::to_value(origin).ok()?))
    });
    Some(ExportLine { kind, name: text(name)?, set, routes, redirect, origin: origin.collect() })
}

/// A file that replaces another one when it is complete.
struct Replacement {
    file: std::io::BufWriter<File>,
    temporary: PathBuf,
    path: PathBuf,
}

impl Replacement {
    fn create(path: &Path) -> Result<Self, CtlError> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let file = File::create(&temporary)
            .map_err(|error| CtlError::failed(format!("{error} while creating {temporary:?} (--output)")))?;
        Ok(Self { file: std::io::BufWriter::new(file), temporary, path: path.to_owned() })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CtlError> {
        self.file.write_all(bytes).map_err(|error| self.failed(&error))
    }

    fn finish(mut self) -> Result<(), CtlError> {
        let written = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        written.and_then(|()| fs::rename(&self.temporary, &self.path)).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &std::io::Error) -> CtlError {
        CtlError::failed(format!("{error} while writing {:?} (--output)", self.path))
    }
}
