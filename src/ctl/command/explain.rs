//! `lookup` and `explain`: where a URL leads, and why.

use hyper::Uri;
use serde_json::Value;

use crate::clock;
use crate::ctl::admin_client::{AdminClient, AdminError};
use crate::ctl::api::{Decision, Explanation};
use crate::ctl::console::Console;
use crate::ctl::outcome::{Answer, CtlError};
use crate::ctl::text_table::{BAD, FAINT, GOOD, HEADING, WARN};
use crate::ctl::words::time;
use crate::escape::{Escaped, escaped};
use crate::text::span;

/// Prints the backends of the best matching location, one per line; negative if the proxy answers by itself.
pub async fn lookup(admin: &AdminClient, console: &mut Console, url: &str) -> Result<Answer, CtlError> {
    let (value, explanation) = ask(admin, url).await?;
    let best = explanation.decisions.first();
    let backends = best.map(|decision| &decision.backends[..]).unwrap_or_default();
    if console.is_json {
        let best = value.get("decisions").and_then(|decisions| decisions.get(0));
        console.json(best.unwrap_or(&Value::Null))?;
        return Ok(Answer::positive_if(!backends.is_empty()));
    }
    for backend in backends {
        console.line(escaped(&backend.url))?;
    }
    match best {
        None => console.note("no location uses this table"),
        Some(Decision { redirect: Some(target), .. }) => console.note(format_args!("redirected to {target}")),
        Some(decision) if backends.is_empty() => console.note(&decision.why),
        Some(_) => {}
    }
    Ok(Answer::positive_if(!backends.is_empty()))
}

/// Prints the decision of each location step by step; negative if the best matching one has no route.
pub async fn explain(admin: &AdminClient, console: &mut Console, url: &str) -> Result<Answer, CtlError> {
    let (value, explanation) = ask(admin, url).await?;
    let is_found = explanation.decisions.first().is_some_and(|decision| is_found(&decision.result));
    if console.is_json {
        console.json(&value)?;
        return Ok(Answer::positive_if(is_found));
    }
    if explanation.decisions.is_empty() {
        console.line("no location uses this table")?;
    }
    // Locations that do not match never see the request; without a matching one, the nearest is all there is.
    let may_match = |decision: &&Decision| ![decision.server_matches, decision.location_matches].contains(&Some(false));
    let shown = explanation.decisions.iter().take_while(may_match).count().max(1).min(explanation.decisions.len());
    for (index, decision) in explanation.decisions.iter().take(shown).enumerate() {
        if index > 0 {
            console.line("")?;
        }
        steps(decision).iter().try_for_each(|line| console.line(line))?;
    }
    let others = explanation.decisions.len() - shown + explanation.omitted;
    if others > 0 {
        console.note(format_args!("{others} more locations use this table; --json lists them"));
    }
    Ok(Answer::positive_if(is_found))
}

fn is_found(result: &str) -> bool {
    ["route", "default", "redirect"].contains(&result)
}

async fn ask(admin: &AdminClient, url: &str) -> Result<(Value, Explanation), CtlError> {
    let (host, uri) = split_url(url)?;
    let host = host.as_deref().map(|host| ("host", host));
    let parameters: Vec<_> = host.into_iter().chain([("uri", uri.as_str())]).collect();
    let path = "api/explain";
    let value = match admin.get(path, &parameters).await {
        // The request line is the operator's: nginx refuses it.
        Err(AdminError::Status { status: 400, error, .. }) => return Err(CtlError::usage(error)),
        Err(AdminError::Status { status: 414, .. }) => {
            return Err(CtlError::usage(format!("URL has {} bytes, expected fewer: nginx refuses it", url.len())));
        }
        value => value?,
    };
    let explanation = admin.read(path, value.clone())?;
    Ok((value, explanation))
}

/// The host of a URL, and its path with the query; a path alone has no host.
fn split_url(text: &str) -> Result<(Option<String>, String), CtlError> {
    let invalid = || {
        CtlError::usage(format!(
            "invalid URL {text:?}, expected e.g. \"https://tools.example.org/hello/\" or \"/hello/\""
        ))
    };
    if text.starts_with('/') {
        return Ok((None, text.to_owned()));
    }
    // Not parsed as a whole: the path may have bytes that nginx accepts and the parser of URLs does not.
    let (scheme, rest) = text.split_once("://").ok_or_else(invalid)?;
    let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let authority = format!("http://{host}/").parse::<Uri>().map_err(|_| invalid())?;
    let is_http = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    if !is_http || authority.host().is_none_or(str::is_empty) || host.contains('@') {
        return Err(invalid());
    }
    let path = path.split('#').next().unwrap_or_default();
    let slash = if path.starts_with('/') { "" } else { "/" };
    Ok((Some(host.to_owned()), format!("{slash}{path}")))
}

/// A decision in words, one line for each step.
pub fn steps(decision: &Decision) -> Vec<String> {
    let Decision { server, location, mode, domain, .. } = decision;
    let mut lines = Vec::new();
    let mut step = |name: &str, text: String| lines.push(format!("{FAINT}{name:<10}{FAINT:#} {text}"));
    let names = if server.is_empty() { "without a name".into() } else { server.join(" ") };
    let note = match (decision.server_matches, decision.location_matches) {
        (Some(false), _) => ", which does not match the host",
        (_, Some(false)) => ", which does not match the path",
        (None, _) | (_, None) => ", which may match",
        (Some(true), Some(true)) => "",
    };
    let domain = domain.as_ref().map(|domain| format!(" {domain}")).unwrap_or_default();
    step("location", format!("{} of server {}{note}", Escaped(location), Escaped(names)));
    step("mode", escaped(format!("{mode}{domain}")));
    if let Some(normalized) = &decision.normalized {
        let parts = [
            ("host", &normalized.host),
            ("path", &normalized.path),
            ("tool", &normalized.tool),
            ("rest", &normalized.rest),
        ];
        let parts = parts.into_iter().filter_map(|(name, value)| Some(format!("{name} {:?}", value.as_ref()?)));
        step("request", escaped(parts.collect::<Vec<_>>().join(", ")));
    }
    for tried in &decision.patterns {
        let (style, outcome) = if tried.matched { (GOOD, "matches") } else { (FAINT, "does not match") };
        let record = tried.record.as_deref().map(|record| format!(" of {record:?}")).unwrap_or_default();
        let tested = tried.tested.as_deref().map(|tested| format!(" {tested:?}")).unwrap_or_default();
        let text = escaped(format!("{}{record} {outcome}{tested}", tried.pattern));
        step("pattern", format!("{style}{text}{style:#}"));
    }
    let style = if is_found(&decision.result) { GOOD } else { BAD };
    let result = format!("{}: {}", decision.result, decision.why);
    step("result", format!("{HEADING}{style}{}{style:#}", escaped(result)));
    if let Some(status) = decision.status {
        let target = decision.redirect.as_ref().map(|target| format!(" to {target}")).unwrap_or_default();
        step("answer", escaped(format!("{status}{target}")));
    }
    for backend in &decision.backends {
        let (style, health) = match (backend.health.as_deref(), backend.until) {
            (Some("unavailable"), Some(until)) => {
                let left = span((until - clock::unix_time().as_secs_f64()) as u64);
                (WARN, format!(", unavailable for {left} after failures"))
            }
            (Some("unavailable"), None) => (WARN, ", unavailable after failures".into()),
            (Some("up"), _) => (GOOD, ", up".into()),
            _ => (GOOD, String::new()),
        };
        step("backend", format!("{style}{}{style:#}", escaped(format!("{}{health}", backend.url))));
    }
    if let Some(origin) = decision.origin.as_ref().and_then(Value::as_object) {
        let text = |name| origin.get(name).and_then(Value::as_str).unwrap_or("?");
        let since = origin.get("since").and_then(Value::as_f64).map(|at| format!(", since {}", time(at)));
        let origin = format!("{} for {} from {}", text("source"), text("owner"), text("host"));
        step("origin", escaped(format!("{origin}{}", since.unwrap_or_default())));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split_into_host_and_uri() {
        for (url, want) in [
            ("https://tools.example.org/hello/x?y=1", (Some("tools.example.org"), "/hello/x?y=1")),
            ("HTTP://h:8080", (Some("h:8080"), "/")),
            ("http://h?x=1#y", (Some("h"), "/?x=1")),
            ("http://[::1]:80/%2e%2e/\"<>", (Some("[::1]:80"), "/%2e%2e/\"<>")),
            ("/hello/ü x", (None, "/hello/ü x")),
        ] {
            let (host, uri) = split_url(url).unwrap();
            assert_eq!((host.as_deref(), uri.as_str()), want, "{url}");
        }
        for url in
            ["", "hello", "ftp://h/", "http://", "http:///x", "http://u@h/", "http://a b/", "tools.example.org/x"]
        {
            assert!(split_url(url).unwrap_err().to_string().contains("expected e.g."), "{url}");
        }
    }

    #[test]
    fn steps_are_escaped() {
        let decision = serde_json::json!({
            "server": ["a\u{1b}"], "location": "/\u{202e}", "mode": "path", "result": "route", "why": "\u{9b}",
            "patterns": [{"record": "\u{7f}", "pattern": "\u{1b}[31m", "tested": "/\n", "matched": true}],
            "backends": [{"url": "http://h:1", "health": "unavailable", "until": 1.0}],
            "origin": {"source": "\u{1b}", "owner": "o", "host": "h", "since": 1},
        });
        let lines = steps(&serde_json::from_value(decision).unwrap());
        for line in lines {
            let plain = anstream::adapter::strip_str(&line).to_string();
            assert!(!plain.chars().any(crate::text::must_escape), "{line:?}");
        }
    }
}
