//! What an import changes: validates lines, and compares them with Redis.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::api::PatternBackends;
use super::arguments::{parse_backend, parse_canonical, parse_tool};
use super::export_line::ExportLine;
use super::redis_entries::{Entries, Entry};
use crate::registry::Origin;
use crate::route::{Backend, Domain, Kind, MAX_BACKENDS, MAX_ROUTES, Pattern, ToolName};

/// A validated line.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// Routes of a tool, one backend for each pattern.
    Tool {
        /// The tool.
        tool: ToolName,
        /// By pattern.
        routes: BTreeMap<String, WantedRoute>,
        /// Canonical hosts of patterns without a route.
        redirects: BTreeMap<String, String>,
        /// Patterns of invalid routes, which are neither written nor deleted, and what is invalid.
        invalid: BTreeMap<String, String>,
    },
    /// A tool whose backends serve every path, and its canonical hosts by pattern.
    Set(ToolName, Vec<Backend>, BTreeMap<String, String>),
    /// A domain.
    Domain(Domain, Vec<Backend>),
}

/// A route of a tool.
#[derive(Clone, Debug)]
pub struct WantedRoute {
    /// The analyzed pattern.
    pub pattern: Pattern,
    /// The backend.
    pub backend: Backend,
    /// The canonical host.
    pub canonical: Option<String>,
    /// Who registered it; `None` for the operator.
    pub origin: Option<Origin>,
}

/// A single write.
#[derive(Clone, Debug)]
pub enum Step {
    /// Set a route of a tool.
    Register(ToolName, Box<WantedRoute>),
    /// Set the canonical host of a pattern.
    Redirect(ToolName, String, String),
    /// The same, and delete the route of the pattern.
    OnlyRedirect(ToolName, String, String),
    /// Delete the canonical host of a pattern alone.
    Unredirect(ToolName, String),
    /// Delete a route of a tool.
    Delete(ToolName, String),
    /// Delete all routes of a tool, because its key changes its type.
    Clear(ToolName),
    /// Replace the routes of a tool by a set.
    Set(ToolName, Vec<Backend>),
    /// Replace the backends of a domain.
    Domain(Domain, Vec<Backend>),
}

/// A change, as it is printed.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// `tool` or `domain`.
    pub kind: &'static str,
    /// The tool or domain.
    pub name: String,
    /// The pattern.
    pub pattern: String,
    /// `add`, `change` or `remove`.
    pub action: &'static str,
    /// What Redis has.
    pub before: Option<String>,
    /// What it gets.
    pub after: Option<String>,
    /// Why Redis refused the change.
    pub error: Option<String>,
}

/// The changes of one line.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// In this order; a change may be absent for a step that only prepares others.
    pub steps: Vec<(Step, Option<Change>)>,
    /// Routes that are there already.
    pub unchanged: u64,
}

impl WantedRoute {
    fn try_new(route: &PatternBackends, canonical: Option<String>, origin: Option<Value>) -> Result<Self, String> {
        let pattern = Pattern::try_new(&route.pattern).map_err(|error| error.to_string())?;
        let [url] = &route.backends[..] else {
            let number = route.backends.len();
            return Err(format!("pattern {:?} has {number} backends, expected 1, or \"set\": true", route.pattern));
        };
        let backend = parse_backend(url)?;
        let origin = origin.map(serde_json::from_value).transpose();
        let origin = origin.map_err(|error| format!("origin of {:?}: {error}", route.pattern))?;
        Ok(Self { pattern, backend, canonical, origin })
    }
}

impl Wanted {
    /// Validates a line, by the rules of the module. An invalid route of a tool does not affect the others: see
    /// [`invalid`](Self::invalid).
    ///
    /// # Errors
    /// The invalid value, and what was expected.
    pub fn try_new(line: ExportLine) -> Result<Self, String> {
        match line.kind {
            Kind::Redirect => Err("invalid kind \"redirect\", expected \"tool\" or \"domain\"".into()),
            Kind::Domain => {
                let domain = Domain::try_new(line.name.as_bytes()).map_err(|error| error.to_string())?;
                if !line.redirect.is_empty() {
                    return Err(format!("domain {domain} has a redirect, expected one of a tool"));
                }
                Ok(Self::Domain(domain, backends_of_set(&line)?))
            }
            Kind::Tool => {
                let tool = parse_tool(&line.name)?;
                if line.set {
                    let backends = backends_of_set(&line)?;
                    let redirects = redirects_of(&tool, line.redirect)?;
                    return Ok(Self::Set(tool, backends, redirects));
                }
                Self::tool(tool, line)
            }
        }
    }

    fn tool(tool: ToolName, line: ExportLine) -> Result<Self, String> {
        let ExportLine { routes, redirect, mut origin, .. } = line;
        let mut redirect = redirects_of(&tool, redirect)?;
        if routes.len() > MAX_ROUTES {
            return Err(format!("tool {tool:?} has {} patterns, expected at most {MAX_ROUTES}", routes.len()));
        }
        let (mut wanted, mut invalid) = (BTreeMap::new(), BTreeMap::new());
        for route in routes {
            let pattern = route.pattern.clone();
            if wanted.contains_key(&pattern) || invalid.contains_key(&pattern) {
                return Err(format!("pattern {pattern:?} occurs twice"));
            }
            let (canonical, origin) = (redirect.remove(&pattern), origin.remove(&pattern));
            match WantedRoute::try_new(&route, canonical, origin) {
                Ok(route) => _ = wanted.insert(pattern, route),
                Err(error) => _ = invalid.insert(pattern, error),
            }
        }
        Ok(Self::Tool { tool, routes: wanted, redirects: redirect, invalid })
    }

    /// What is invalid in routes of the line.
    pub fn invalid(&self) -> impl Iterator<Item = &String> {
        let invalid = match self {
            Self::Tool { invalid, .. } => Some(invalid.values()),
            Self::Set(..) | Self::Domain(..) => None,
        };
        invalid.into_iter().flatten()
    }

    /// The kind and the name.
    pub fn name(&self) -> (Kind, Vec<u8>) {
        match self {
            Self::Tool { tool, .. } | Self::Set(tool, ..) => (Kind::Tool, tool.as_bytes().to_vec()),
            Self::Domain(domain, _) => (Kind::Domain, domain.as_str().as_bytes().to_vec()),
        }
    }

    /// Compares with what Redis has. With `replaces`, routes of the same tool or domain that the line does not have are deleted.
    ///
    /// # Errors
    /// The key in Redis has another type, and must not be replaced.
    pub fn plan(&self, entries: &Entries, replaces: bool) -> Result<Plan, String> {
        let find = |kind| entries.get(&(kind, self.name().1));
        match self {
            Self::Tool { tool, routes, redirects, invalid } => {
                let mut plan = Plan::default();
                let none = BTreeMap::new();
                let other;
                let before = match find(Kind::Tool) {
                    None => &none,
                    Some(Entry::Hash(fields)) => fields,
                    Some(entry) => {
                        may_replace(tool.as_str(), entry, replaces)?;
                        if !invalid.is_empty() {
                            let what = what_is(entry);
                            return Err(format!(
                                "the key of {tool:?} in Redis is {what}, and stays until all routes are valid"
                            ));
                        }
                        plan.steps.push((Step::Clear(tool.clone()), None));
                        other = BTreeMap::from([(b".*".to_vec(), shown_routes(entry).into_bytes())]);
                        &other
                    }
                };
                let hosts = hosts_of(find(Kind::Redirect))?;
                plan.tool(tool, routes, redirects, invalid, (before, hosts.unwrap_or(&none)), replaces);
                Ok(plan)
            }
            Self::Set(tool, backends, redirects) => {
                let step = |all| Step::Set(tool.clone(), all);
                let mut plan = Plan::set(("tool", tool.as_str()), backends, find(Kind::Tool), replaces, step)?;
                let none = BTreeMap::new();
                let hosts = hosts_of(find(Kind::Redirect))?;
                plan.redirects(tool, redirects, hosts.unwrap_or(&none), replaces);
                Ok(plan)
            }
            Self::Domain(domain, backends) => {
                let step = |all| Step::Domain(domain.clone(), all);
                Plan::set(("domain", domain.as_str()), backends, find(Kind::Domain), replaces, step)
            }
        }
    }
}

type Fields = BTreeMap<Vec<u8>, Vec<u8>>;

impl Plan {
    fn tool(
        &mut self,
        tool: &ToolName,
        routes: &BTreeMap<String, WantedRoute>,
        redirects: &BTreeMap<String, String>,
        invalid: &BTreeMap<String, String>,
        (before, hosts): (&Fields, &Fields),
        replaces: bool,
    ) {
        let text = |fields: &Fields, pattern: &str| {
            fields.get(pattern.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned())
        };
        let shown = |pattern: &str| match (text(before, pattern).map(normal), text(hosts, pattern)) {
            (url, Some(host)) => Some(format!("{} redirect {host}", url.unwrap_or_default()).trim_start().to_owned()),
            (url, None) => url,
        };
        // All is written again then: the tool's redirects go with its routes.
        let is_cleared = !self.steps.is_empty();
        let mut add = |pattern: &str, after: Option<String>, step: Step| {
            let before = shown(pattern);
            if before == after && !is_cleared {
                self.unchanged += 1;
                return;
            }
            let action = match (&before, &after) {
                (None, _) => "add",
                (Some(_), Some(_)) => "change",
                (Some(_), None) => "remove",
            };
            let (name, pattern) = (tool.as_str().to_owned(), pattern.to_owned());
            let change = Change { kind: "tool", name, pattern, action, before, after, error: None };
            self.steps.push((step, Some(change)));
        };
        let patterns: BTreeSet<_> = before.keys().chain(hosts.keys()).collect();
        for pattern in patterns.into_iter().filter(|_| replaces) {
            // A pattern that is not UTF-8 cannot be in the file.
            let Ok(pattern) = std::str::from_utf8(pattern) else { continue };
            let is_named =
                routes.contains_key(pattern) || redirects.contains_key(pattern) || invalid.contains_key(pattern);
            if !is_named {
                add(pattern, None, Step::Delete(tool.clone(), pattern.to_owned()));
            }
        }
        for (pattern, route) in routes {
            let redirect = route.canonical.as_ref().map(|host| format!(" redirect {host}")).unwrap_or_default();
            let after = format!("{}{redirect}", route.backend);
            add(pattern, Some(after), Step::Register(tool.clone(), Box::new(route.clone())));
        }
        for (pattern, host) in redirects {
            let url = text(before, pattern).filter(|_| !replaces).map(normal);
            let after = format!("{} redirect {host}", url.unwrap_or_default()).trim_start().to_owned();
            let has_route = before.contains_key(pattern.as_bytes()) && !is_cleared;
            let step = if replaces && has_route { Step::OnlyRedirect } else { Step::Redirect };
            add(pattern, Some(after), step(tool.clone(), pattern.clone(), host.clone()));
        }
    }

    /// The redirects of a set, whose backends stay.
    fn redirects(&mut self, tool: &ToolName, redirects: &BTreeMap<String, String>, hosts: &Fields, replaces: bool) {
        let mut add = |pattern: &str, action, before: Option<String>, after: Option<&String>, step| {
            let [before, after] = [before.as_ref(), after].map(|host| host.map(|host| format!("redirect {host}")));
            let (name, pattern) = (tool.as_str().to_owned(), pattern.to_owned());
            self.steps.push((step, Some(Change { kind: "tool", name, pattern, action, before, after, error: None })));
        };
        let text = |host: &Vec<u8>| String::from_utf8_lossy(host).into_owned();
        for (pattern, host) in hosts.iter().filter(|_| replaces) {
            // A pattern that is not UTF-8 cannot be in the file.
            let Ok(pattern) = std::str::from_utf8(pattern) else { continue };
            if !redirects.contains_key(pattern) {
                add(pattern, "remove", Some(text(host)), None, Step::Unredirect(tool.clone(), pattern.to_owned()));
            }
        }
        for (pattern, host) in redirects {
            let before = hosts.get(pattern.as_bytes()).map(text);
            if before.as_ref() == Some(host) {
                continue;
            }
            let action = if before.is_some() { "change" } else { "add" };
            add(pattern, action, before, Some(host), Step::Redirect(tool.clone(), pattern.clone(), host.clone()));
        }
    }

    fn set(
        (kind, name): (&'static str, &str),
        backends: &[Backend],
        entry: Option<&Entry>,
        replaces: bool,
        step: impl FnOnce(Vec<Backend>) -> Step,
    ) -> Result<Self, String> {
        let present = match entry {
            None => BTreeSet::new(),
            Some(Entry::Set(members)) => texts_of(members),
            Some(entry) => {
                may_replace(name, entry, replaces)?;
                BTreeSet::new()
            }
        };
        let mut all: BTreeSet<Backend> = backends.iter().cloned().collect();
        if !replaces {
            // Members that are no backends are not served, and need not stay.
            all.extend(present.iter().filter_map(|url| url.parse::<Backend>().ok()));
        }
        if all.len() > MAX_BACKENDS {
            return Err(format!("{kind} {name:?} would have {} backends, expected at most {MAX_BACKENDS}", all.len()));
        }
        let wanted: BTreeSet<String> = all.iter().map(Backend::to_string).collect();
        if matches!(entry, Some(Entry::Set(_))) && wanted == present {
            return Ok(Self { steps: vec![], unchanged: 1 });
        }
        let change = Change {
            kind,
            name: name.to_owned(),
            pattern: ".*".into(),
            action: if entry.is_some() { "change" } else { "add" },
            before: entry.map(shown_routes),
            after: Some(joined(&wanted)),
            error: None,
        };
        Ok(Self { steps: vec![(step(all.into_iter().collect()), Some(change))], unchanged: 0 })
    }
}

/// The canonical hosts by pattern.
fn redirects_of(tool: &ToolName, redirect: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, String> {
    let host = |(pattern, host): (String, String)| {
        Pattern::try_new(&pattern).map_err(|error| error.to_string())?;
        Ok((pattern, parse_canonical(tool, &host)?.as_str().to_owned()))
    };
    redirect.into_iter().map(host).collect()
}

/// The canonical hosts that Redis has; an error if the key cannot be written to.
fn hosts_of(entry: Option<&Entry>) -> Result<Option<&Fields>, String> {
    match entry {
        None => Ok(None),
        Some(Entry::Hash(hosts)) => Ok(Some(hosts)),
        Some(_) => Err("the tool's redirects in Redis are no small hash, delete the tool first".into()),
    }
}

fn may_replace(name: &str, entry: &Entry, replaces: bool) -> Result<(), String> {
    let what = what_is(entry);
    if replaces { Ok(()) } else { Err(format!("the key of {name:?} in Redis is {what}; --replace replaces it")) }
}

fn what_is(entry: &Entry) -> &'static str {
    match entry {
        Entry::Hash(_) => "a hash",
        Entry::Set(_) => "a set",
        Entry::TooLarge(_) => "very large",
        Entry::WrongType => "of a wrong type",
    }
}

/// The backends of a set, or what the key is.
fn shown_routes(entry: &Entry) -> String {
    match entry {
        Entry::Set(members) => joined(&texts_of(members)),
        _ => format!("({})", what_is(entry)),
    }
}

/// A set's members, backends in their normal form.
fn texts_of(members: &BTreeSet<Vec<u8>>) -> BTreeSet<String> {
    members.iter().map(|url| normal(String::from_utf8_lossy(url).into_owned())).collect()
}

fn joined(urls: &BTreeSet<String>) -> String {
    urls.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// The URL in its normal form, or other text unchanged.
fn normal(url: String) -> String {
    url.parse::<Backend>().map_or(url, |backend| backend.to_string())
}

fn backends_of_set(line: &ExportLine) -> Result<Vec<Backend>, String> {
    let [route] = &line.routes[..] else {
        return Err(format!("{:?} has {} routes, expected one with all backends", line.name, line.routes.len()));
    };
    if route.pattern != ".*" {
        return Err(format!("pattern {:?} in a set, expected \".*\"", route.pattern));
    }
    if !(1..=MAX_BACKENDS).contains(&route.backends.len()) {
        return Err(format!("{:?} has {} backends, expected 1 to {MAX_BACKENDS}", line.name, route.backends.len()));
    }
    route.backends.iter().map(|url| parse_backend(url)).collect()
}
