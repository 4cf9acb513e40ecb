//! `import`: writes tools and domains from JSON lines to Redis.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use futures_util::StreamExt;
use futures_util::stream;
use serde::Serialize;
use serde_json::json;

use super::set::{WRONG_TYPE, operators_origin, refusal};
use crate::ctl::console::Console;
use crate::ctl::export_line::ExportLine;
use crate::ctl::import_plan::{Change, Plan, Step, Wanted};
use crate::ctl::options::ImportOptions;
use crate::ctl::outcome::{Answer, CtlError};
use crate::ctl::redis_entries::read_some;
use crate::ctl::text_table::{BAD, GOOD, WARN};
use crate::daemon::{Reading, Store, StoreError, is_wrong_type};
use crate::escape::escaped;
use crate::registry::{
    Ownership, Registration, delete_redirect, delete_route, delete_tool, register, replace_with_set, set_redirect,
    write_frontend,
};
use crate::route::{Backend, Kind};
use crate::text::{count, counted};

/// Longest line, in bytes.
const MAX_LINE: u64 = 1 << 20;
/// Tools and domains that are written at the same time.
const AT_ONCE: usize = 32;
/// Errors that are printed one by one.
const MAX_ERRORS: usize = 50;

/// Valid lines by their numbers.
type Lines = Vec<(usize, Wanted)>;

/// An invalid line, or an invalid route in a line.
#[derive(Debug, Serialize)]
struct Invalid {
    line: usize,
    error: String,
}

/// Writes the lines, or says what it would write; negative if Redis refused some of them, or something was left out.
pub async fn run(store: &Store, console: &mut Console, options: ImportOptions) -> Result<Answer, CtlError> {
    let (mut wanted, mut invalid) = read(&options.file)?;
    let mut names: Vec<_> = wanted.iter().map(|(_, wanted)| wanted.name()).collect();
    names.extend(wanted.iter().map(|(_, wanted)| (Kind::Redirect, wanted.name().1)));
    let present = read_some(store, &names).await?;
    let mut plans = Vec::new();
    for (line, wanted) in wanted.drain(..) {
        match wanted.plan(&present, options.replace) {
            Ok(plan) => plans.push(plan),
            Err(error) => invalid.push(Invalid { line, error }),
        }
    }
    invalid.sort_by_key(|invalid| invalid.line);
    if !invalid.is_empty() && !options.skip_invalid {
        for Invalid { line, error } in invalid.iter().take(MAX_ERRORS) {
            console.note(format_args!("line {line}: {error}"));
        }
        let errors = counted(invalid.len() as u64, "error");
        return Err(CtlError::usage(format!("{errors} in {:?}, nothing written; see --skip-invalid", options.file)));
    }
    let unchanged = plans.iter().map(|plan| plan.unchanged).sum();
    let changes = if options.dry_run {
        plans.into_iter().flat_map(|plan| plan.steps).filter_map(|(_, change)| change).collect()
    } else {
        let total = plans.len();
        let progress = console.progress("importing", Some(total as u64));
        let mut written = stream::iter(plans).map(|plan| write(store, plan)).buffered(AT_ONCE);
        let mut changes = Vec::new();
        while let Some(done) = written.next().await {
            if done.is_err() {
                let done = format!("{} of {}", count(progress.position()), counted(total as u64, "line"));
                progress
                    .suspend(|| console.note(format_args!("at least {done} written; import again to write the rest")));
            }
            changes.extend(done?);
            progress.inc(1);
        }
        progress.finish_and_clear();
        changes
    };
    report(console, &options, &changes, unchanged, &invalid)?;
    let is_refused = changes.iter().any(|change| change.error.is_some());
    Ok(Answer::positive_if(!is_refused && invalid.is_empty()))
}

/// Reads and validates all lines.
fn read(path: &Path) -> Result<(Lines, Vec<Invalid>), CtlError> {
    let failed = |error: io::Error| CtlError::failed(format!("{error} while reading {path:?}"));
    let mut input: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(path).map_err(failed)?))
    };
    let (mut wanted, mut invalid) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for number in 1.. {
        let mut line = Vec::new();
        input.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut line).map_err(failed)?;
        if line.is_empty() {
            break;
        }
        if line.len() as u64 > MAX_LINE {
            // The rest of the line cannot be told from the next one.
            return Err(CtlError::usage(format!("line {number} of {path:?} is longer than {MAX_LINE} bytes")));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let parsed = serde_json::from_slice::<ExportLine>(&line).map_err(|error| error.to_string());
        match parsed.and_then(Wanted::try_new) {
            Ok(line) if seen.insert(line.name()) => {
                invalid.extend(line.invalid().map(|error| Invalid { line: number, error: error.clone() }));
                wanted.push((number, line));
            }
            Ok(line) => {
                let name = String::from_utf8_lossy(&line.name().1).into_owned();
                invalid.push(Invalid { line: number, error: format!("{name:?} has a line already, expected one") });
            }
            Err(error) => invalid.push(Invalid { line: number, error }),
        }
    }
    Ok((wanted, invalid))
}

/// Makes the changes of one tool or domain, one after the other.
async fn write(store: &Store, plan: Plan) -> Result<Vec<Change>, CtlError> {
    let mut changes = Vec::new();
    for (step, change) in plan.steps {
        let error = match take(store, step).await {
            // The key has changed its type since it was read.
            Err(CtlError::Store(StoreError::Redis(error))) if is_wrong_type(&error) => Some(WRONG_TYPE.to_owned()),
            taken => taken?,
        };
        changes.extend(change.map(|change| Change { error, ..change }));
    }
    Ok(changes)
}

/// Makes one change; returns why Redis refused it.
async fn take(store: &Store, step: Step) -> Result<Option<String>, CtlError> {
    match step {
        Step::Register(tool, route) => {
            let origin = route.origin.unwrap_or_else(|| operators_origin(&route.backend));
            let canonical = route.canonical.as_deref();
            let call = register(&tool, &route.pattern, &route.backend, canonical, &origin, Ownership::Unproven);
            let outcome = store.commit(&call.map_err(CtlError::failed)?).await?;
            return Ok(match outcome {
                Registration::Done { .. } => None,
                Registration::AddressHeld(other) => Some(format!("tool {other:?} is routed to this backend")),
                outcome => Some(refusal(&outcome)),
            });
        }
        Step::Redirect(tool, pattern, host) => {
            store.commit(&Reading::<_, i64>::new(set_redirect(&tool, &pattern, &host))).await?;
        }
        Step::OnlyRedirect(tool, pattern, host) => {
            store.commit(&delete_route(&tool, &pattern)).await?;
            store.commit(&Reading::<_, i64>::new(set_redirect(&tool, &pattern, &host))).await?;
        }
        Step::Unredirect(tool, pattern) => {
            store.commit(&Reading::<_, i64>::new(delete_redirect(&tool, &pattern))).await?;
        }
        Step::Delete(tool, pattern) => _ = store.commit(&delete_route(&tool, &pattern)).await?,
        Step::Clear(tool) => _ = store.commit(&delete_tool(&tool)).await?,
        Step::Set(tool, backends) => _ = store.commit(&replace_with_set(&tool, &backends)).await?,
        Step::Domain(domain, backends) => {
            let mut transaction = redis::pipe();
            transaction.atomic();
            let urls: Vec<String> = backends.iter().map(Backend::to_string).collect();
            write_frontend(&mut transaction, domain.as_str(), &urls);
            store.commit(&Reading::<_, ()>::new(transaction)).await?;
        }
    }
    Ok(None)
}

fn report(
    console: &mut Console,
    options: &ImportOptions,
    changes: &[Change],
    unchanged: u64,
    invalid: &[Invalid],
) -> Result<(), CtlError> {
    let number = |action| changes.iter().filter(|change| change.action == action && change.error.is_none()).count();
    let (added, changed, removed) = (number("add"), number("change"), number("remove"));
    let refused = changes.iter().filter(|change| change.error.is_some()).count();
    if console.is_json {
        console.json(&json!({
            "dry_run": options.dry_run, "added": added, "changed": changed, "removed": removed, "unchanged": unchanged,
            "refused": refused, "skipped": invalid, "changes": changes,
        }))?;
        return Ok(());
    }
    for Change { kind, name, pattern, action, before, after, error } in changes {
        let (style, mark) = match (error, *action) {
            (Some(_), _) => (BAD, "!"),
            (None, "add") => (GOOD, "+"),
            (None, "remove") => (BAD, "-"),
            (None, _) => (WARN, "~"),
        };
        let values = [before, after].into_iter().flatten().cloned().collect::<Vec<_>>().join(" -> ");
        let error = error.as_ref().map(|error| format!(": refused, {error}")).unwrap_or_default();
        let text = escaped(format!("{mark} {kind} {name} {pattern} {values}{error}"));
        console.line(format_args!("{style}{text}{style:#}"))?;
    }
    for Invalid { line, error } in invalid {
        console.line(escaped(format!("! line {line}: {error}")))?;
    }
    let sums = [(added, "added"), (changed, "changed"), (removed, "removed")];
    let sums = sums.map(|(number, word)| format!("{} {word}", count(number as u64))).join(", ");
    let prefix = if options.dry_run { "dry run, would be: " } else { "" };
    let rest = [(refused, "refused"), (invalid.len(), "left out as invalid")];
    let rest = rest.iter().filter(|(number, _)| *number > 0).map(|(number, word)| format!(", {number} {word}"));
    console.line(format_args!("{prefix}{sums}, {} unchanged{}", count(unchanged), rest.collect::<String>()))?;
    Ok(())
}
