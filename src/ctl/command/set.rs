//! `set`: one route of a tool.

use serde_json::json;

use crate::clock;
use crate::ctl::arguments::{parse_backend, parse_canonical, parse_tool};
use crate::ctl::console::Console;
use crate::ctl::options::SetOptions;
use crate::ctl::outcome::{Answer, CtlError};
use crate::daemon::{Store, StoreError, is_wrong_type};
use crate::escape::escaped;
use crate::registry::{OPERATOR, Origin, Ownership, Registration, register};
use crate::route::{Backend, Domain, MAX_ROUTES, Pattern};

/// Why a route cannot be written to a key.
pub const WRONG_TYPE: &str =
    "the tool's routes or redirects in Redis are no hash; urlproxyctl delete TOOL removes them";

/// Writes the route; negative if Redis has a reason to refuse it.
pub async fn run(store: &Store, console: &mut Console, options: SetOptions) -> Result<Answer, CtlError> {
    let tool = parse_tool(&options.tool).map_err(CtlError::Usage)?;
    let pattern = Pattern::try_new(&options.pattern).map_err(CtlError::usage)?;
    let backend = parse_backend(&options.url).map_err(CtlError::Usage)?;
    let canonical = options.canonical.as_deref().map(|host| parse_canonical(&tool, host)).transpose();
    let canonical = canonical.map_err(CtlError::Usage)?;
    let canonical = canonical.as_ref().map(Domain::as_str);
    let ownership = if options.evict { Ownership::Proven } else { Ownership::Unproven };
    let origin = operators_origin(&backend);
    let call = register(&tool, &pattern, &backend, canonical, &origin, ownership).map_err(CtlError::failed)?;
    let outcome = match store.commit(&call).await {
        Err(StoreError::Redis(error)) if is_wrong_type(&error) => Err(WRONG_TYPE.to_owned()),
        outcome => Ok(outcome?),
    };
    let (is_set, text) = match &outcome {
        Ok(Registration::Done { evicted, is_new }) => {
            let verb = if *is_new { "set" } else { "unchanged" };
            let evicted = evicted.as_ref().map(|other| format!("; tool {other:?} lost its route to this backend"));
            (true, format!("{verb}: {} {} {backend}{}", tool, pattern.as_str(), evicted.unwrap_or_default()))
        }
        Ok(refused) => (false, format!("refused: {}", refusal(refused))),
        Err(error) => (false, format!("refused: {error}")),
    };
    if console.is_json {
        let (result, evicted) = match &outcome {
            Ok(Registration::Done { evicted, is_new: true }) => ("set", evicted.as_deref()),
            Ok(Registration::Done { evicted, is_new: false }) => ("unchanged", evicted.as_deref()),
            _ => ("refused", None),
        };
        let error = (!is_set).then(|| outcome.as_ref().map_or_else(String::clone, refusal));
        let (tool, pattern, backend) = (tool.as_str(), pattern.as_str(), backend.to_string());
        console.json(&json!({
            "tool": tool, "pattern": pattern, "backend": backend, "canonical": canonical,
            "result": result, "evicted": evicted, "error": error,
        }))?;
    } else {
        console.line(escaped(text))?;
    }
    Ok(Answer::positive_if(is_set))
}

/// Why a registration was refused.
pub fn refusal(outcome: &Registration) -> String {
    match outcome {
        Registration::TooManyPatterns => format!("the tool already has {MAX_ROUTES} patterns"),
        Registration::AddressHeld(other) => {
            format!("tool {other:?} is routed to this backend; --evict removes its route")
        }
        Registration::Superseded | Registration::Done { .. } => "the route has changed meanwhile".into(),
    }
}

/// The origin of a route that the calling user writes.
pub fn operators_origin(backend: &Backend) -> Origin {
    Origin {
        source: OPERATOR.to_owned(),
        owner: crate::daemon::calling_user(),
        host: backend.host.to_string(),
        since: clock::unix_seconds(),
        destination: None,
    }
}
