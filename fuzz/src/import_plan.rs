//! Plans of an import, against any routes in Redis: a plan reports what it changes of a tool, keeps what is invalid in the file, and then
//! nothing is left to do.
//!
//! The first line is one of an export. The others are a letter and words: `h PATTERN URL` and `s URL` are the hash or set of its routes,
//! `r PATTERN HOST` its redirects, `w` a key of a wrong type; `k` keeps other routes.

use std::collections::{BTreeMap, BTreeSet};

use urlproxy::ctl::{Entries, Entry, ExportLine, Plan, Step, Wanted};
use urlproxy::route::{Backend, Kind};

type Fields = BTreeMap<Vec<u8>, Vec<u8>>;

pub fn check(bytes: &[u8]) {
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let Ok(line) = serde_json::from_slice::<ExportLine>(lines.next().unwrap_or_default()) else { return };
    let Ok(wanted) = Wanted::try_new(line) else { return };
    let (kind, name) = wanted.name();
    let (routes, redirects) = ((kind, name.clone()), (Kind::Redirect, name));
    let (mut entries, mut replaces) = (Entries::new(), true);
    for line in lines {
        let mut words = line.splitn(3, |&byte| byte == b' ');
        let word = words.next().unwrap_or_default();
        let [first, second] = std::array::from_fn(|_| words.next().unwrap_or_default().to_vec());
        match word {
            b"h" => _ = hash(&mut entries, &routes).insert(first, second),
            b"r" => _ = hash(&mut entries, &redirects).insert(first, second),
            b"s" => match entries.entry(routes.clone()).or_insert(Entry::Set(BTreeSet::new())) {
                Entry::Set(members) => _ = members.insert(first),
                entry => *entry = Entry::Set(BTreeSet::from([first])),
            },
            b"w" => _ = entries.insert(routes.clone(), Entry::WrongType),
            b"k" => replaces = false,
            _ => {}
        }
    }
    let Ok(plan) = wanted.plan(&entries, replaces) else { return };
    let mut reported = Fields::new();
    for change in plan.steps.iter().filter_map(|(_, change)| change.as_ref()) {
        reported.insert(change.pattern.clone().into(), change.after.clone().unwrap_or_default().into());
    }
    let before = shown(&entries, &routes, &redirects);
    carry_out(plan, &mut entries, &routes, &redirects);
    let after = shown(&entries, &routes, &redirects);
    if let Wanted::Tool { invalid, .. } = &wanted {
        for (pattern, value) in &before {
            let is_certain = after.get(pattern) == Some(value) || !invalid.contains_key(pattern);
            assert!(is_certain, "{pattern:?} of an invalid route has changed");
        }
        for pattern in before.keys().chain(after.keys()) {
            let [before, after] = [&before, &after].map(|all| all.get(pattern));
            let name = pattern.as_bytes();
            assert!(
                before == after || reported.contains_key(name),
                "{pattern:?}: {before:?} became {after:?}, unreported"
            );
            let as_reported = reported.get(name).is_none_or(|text| text == after.map_or("", String::as_str).as_bytes());
            assert!(as_reported, "{pattern:?} became {after:?}, reported was {:?}", reported.get(name));
        }
    }
    let rest = wanted.plan(&entries, replaces).expect("all keys have their type now");
    let left: Vec<_> = rest.steps.iter().map(|(_, change)| change).collect();
    assert!(left.is_empty(), "{left:?} is left in {entries:?}");
}

/// By pattern, what a change of a tool's hash should show. A key of another type has the pattern `.*`.
fn shown(entries: &Entries, routes: &(Kind, Vec<u8>), redirects: &(Kind, Vec<u8>)) -> BTreeMap<String, String> {
    let mut shown = BTreeMap::<String, String>::new();
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    let normal = |url: &Vec<u8>| text(url).parse::<Backend>().map_or_else(|_| text(url), |backend| backend.to_string());
    match entries.get(routes) {
        None => {}
        Some(Entry::Hash(fields)) => {
            let known =
                fields.iter().filter_map(|(pattern, url)| Some((String::from_utf8(pattern.clone()).ok()?, url)));
            shown.extend(known.map(|(pattern, url)| (pattern, normal(url))));
        }
        Some(Entry::Set(_) | Entry::WrongType | Entry::TooLarge(_)) => {
            _ = shown.insert(".*".into(), "another type".into())
        }
    }
    if let Some(Entry::Hash(hosts)) = entries.get(redirects) {
        for (pattern, host) in hosts {
            let Ok(pattern) = String::from_utf8(pattern.clone()) else { continue };
            let all = shown.entry(pattern).or_default();
            *all = format!("{all} redirect {}", text(host)).trim_start().to_owned();
        }
    }
    shown
}

fn hash<'e>(entries: &'e mut Entries, key: &(Kind, Vec<u8>)) -> &'e mut Fields {
    let entry = entries.entry(key.clone()).or_insert(Entry::Hash(Fields::new()));
    if !matches!(entry, Entry::Hash(_)) {
        *entry = Entry::Hash(Fields::new());
    }
    let Entry::Hash(fields) = entry else { unreachable!("it was just made one") };
    fields
}

/// What the commands and scripts of the registry do.
fn carry_out(plan: Plan, entries: &mut Entries, routes: &(Kind, Vec<u8>), redirects: &(Kind, Vec<u8>)) {
    let members =
        |backends: Vec<Backend>| Entry::Set(backends.iter().map(|backend| backend.to_string().into()).collect());
    for (step, _) in plan.steps {
        match step {
            Step::Register(_, route) => {
                assert!(!matches!(entries.get(routes), Some(Entry::Set(_) | Entry::WrongType)), "Redis would refuse");
                let pattern = route.pattern.as_str().as_bytes().to_vec();
                hash(entries, routes).insert(pattern.clone(), route.backend.to_string().into());
                match route.canonical {
                    Some(host) => _ = hash(entries, redirects).insert(pattern, host.into()),
                    None => _ = hash(entries, redirects).remove(&pattern),
                }
            }
            Step::Redirect(_, pattern, host) => _ = hash(entries, redirects).insert(pattern.into(), host.into()),
            Step::OnlyRedirect(_, pattern, host) => {
                if let Some(Entry::Hash(fields)) = entries.get_mut(routes) {
                    fields.remove(pattern.as_bytes());
                }
                hash(entries, redirects).insert(pattern.into(), host.into());
            }
            Step::Unredirect(_, pattern) => _ = hash(entries, redirects).remove(pattern.as_bytes()),
            Step::Delete(_, pattern) => {
                if let Some(Entry::Hash(fields)) = entries.get_mut(routes) {
                    fields.remove(pattern.as_bytes());
                }
                hash(entries, redirects).remove(pattern.as_bytes());
            }
            Step::Clear(_) => {
                entries.remove(routes);
                entries.remove(redirects);
            }
            Step::Set(_, backends) | Step::Domain(_, backends) => _ = entries.insert(routes.clone(), members(backends)),
        }
    }
}
