//! `check`: entries in Redis that the module refuses, or treats differently from the old Lua.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;

use super::lua::{order_difference, pattern_differences, redirect_difference};
use crate::ctl::console::Console;
use crate::ctl::options::CheckOptions;
use crate::ctl::outcome::{Answer, CtlError};
use crate::ctl::redis_entries::{Entries, Entry, read_all};
use crate::ctl::text_table::{BAD, Cell, TextTable, WARN};
use crate::daemon::Store;
use crate::registry::{Admission, prefix_of};
use crate::route::{Kind, RouteKey};
use crate::sync::admit_into_zone;
use crate::table::Capacity;
use crate::text::{count, counted};

/// What the module does with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Effect {
    /// Does not serve it.
    Refused,
    /// Serves it, but not as the old Lua did.
    Differs,
}

/// One thing to look at.
#[derive(Debug, Serialize)]
struct Finding {
    effect: Effect,
    /// One word, for `--ignore`.
    finding: &'static str,
    key: String,
    kind: &'static str,
    name: String,
    pattern: Option<String>,
    text: String,
}

/// Prints findings; negative if there are any.
pub async fn run(store: &Store, console: &mut Console, options: CheckOptions) -> Result<Answer, CtlError> {
    let progress = console.progress("keys read", None);
    let entries = read_all(store, |keys| progress.inc(keys)).await?;
    progress.finish_and_clear();
    let admission = Admission { networks: options.allow_backend, own_sockets: vec![] };
    let zone = Capacity::of_bytes(options.zone).map_err(CtlError::usage)?;
    let progress = console.progress("checking", Some(entries.len() as u64));
    let mut findings = Vec::new();
    for ((kind, name), entry) in &entries {
        check(*kind, name, entry, &admission, zone, &mut findings);
        progress.inc(1);
    }
    progress.finish_and_clear();
    findings.retain(|finding| !options.ignore.iter().any(|ignored| ignored == finding.finding));
    findings.sort_by(|a, b| (a.effect, a.finding, &a.key).cmp(&(b.effect, b.finding, &b.key)));
    if console.is_json {
        console.json(&json!({"keys": entries.len(), "findings": findings}))?;
    } else {
        print(console, &entries, &findings)?;
    }
    Ok(Answer::positive_if(findings.is_empty()))
}

fn print(console: &mut Console, entries: &Entries, findings: &[Finding]) -> Result<(), CtlError> {
    let mut table = TextTable::new(&["EFFECT", "FINDING", "KEY", "PATTERN", "WHY"]);
    let mut sums = BTreeMap::<_, u64>::new();
    for finding in findings {
        let (word, style) = match finding.effect {
            Effect::Refused => ("refused", BAD),
            Effect::Differs => ("differs", WARN),
        };
        let pattern = finding.pattern.as_deref().unwrap_or("-");
        let rest = [finding.finding, &finding.key, pattern, &finding.text].map(Cell::text);
        table.add([Cell::text(word).styled(style)].into_iter().chain(rest));
        *sums.entry((word, finding.finding)).or_default() += 1;
    }
    if !table.is_empty() {
        console.table(&table)?;
        console.line("")?;
    }
    let keys = counted(entries.len() as u64, "key");
    if sums.is_empty() {
        console.line(format_args!("{keys} checked, no findings"))?;
    } else {
        let sums: Vec<_> =
            sums.iter().map(|((effect, finding), sum)| format!("{effect} {finding}: {}", count(*sum))).collect();
        console.line(format_args!("{keys} checked; {}", sums.join(", ")))?;
    }
    Ok(())
}

fn check(kind: Kind, name: &[u8], entry: &Entry, admission: &Admission, zone: Capacity, findings: &mut Vec<Finding>) {
    let key = [prefix_of(kind).as_bytes(), name].concat();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut add = |effect, finding, pattern: Option<&[u8]>, why: String| {
        let (key, name, pattern) = (text(&key), text(name), pattern.map(text));
        findings.push(Finding { effect, finding, key, kind: kind.as_str(), name, pattern, text: why });
    };
    let record = match RouteKey::try_new(kind, name) {
        Ok(record) => record,
        Err(error) => return add(Effect::Refused, "name", None, error.to_string()),
    };
    match (kind, entry) {
        (_, Entry::TooLarge(fields)) => {
            let why = format!("the key has {} fields or members, of which the module reads 256", count(*fields));
            return add(Effect::Refused, "too_large", None, why);
        }
        (Kind::Redirect, Entry::Hash(hosts)) => {
            for (pattern, host) in hosts {
                if let Some((finding, why)) = redirect_difference(name, host) {
                    add(Effect::Differs, finding, Some(pattern), why);
                }
            }
            return;
        }
        (Kind::Tool, Entry::Set(_)) => {
            let why = "the key is a set, whose backends serve every path; the old stack failed on it";
            add(Effect::Differs, "set", None, why.into());
        }
        (Kind::Tool, Entry::Hash(_)) | (Kind::Domain, Entry::Set(_)) => {}
        (kind, _) => {
            let expected = if kind == Kind::Domain { "a set" } else { "a hash" };
            return add(Effect::Refused, "wrong_type", None, format!("the key has another type, expected {expected}"));
        }
    }
    let Some(raw) = entry.as_raw() else { return };
    let admitted = admit_into_zone(&key, &record, &raw, admission, zone);
    for rejection in &admitted.rejected {
        add(Effect::Refused, rejection.reason.label(), rejection.pattern.as_deref(), rejection.reason.to_string());
    }
    if kind == Kind::Tool {
        for route in &admitted.routes {
            let pattern = route.pattern.as_str();
            for (finding, why) in pattern_differences(pattern) {
                add(Effect::Differs, finding, Some(pattern.as_bytes()), why);
            }
        }
        if let Some((finding, why)) = order_difference(&admitted.routes) {
            add(Effect::Differs, finding, None, why);
        }
    }
}
