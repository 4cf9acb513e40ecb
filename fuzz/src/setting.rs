//! Values of options and directives: any text is a value that is within its bounds, or an error that names what is expected.

use urlproxy::ctl::AdminUrl;
use urlproxy::daemon::{parse_duration as parse_option, parse_guard};
use urlproxy::kube::NamespaceTemplate;
use urlproxy::monitor::{ManifestGlob, StartCommand, VariableName};
use urlproxy::route::{MovedDomain, Site};
use urlproxy::tenant::SafeWord;
use urlproxy::units::{parse_duration, parse_size};
use urlproxy::web_type::BackendName;
use urlproxy::withdrawal_guard::GuardOption;

pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(duration) = parse_duration(text) {
        let milliseconds = duration.as_millis();
        assert_eq!(parse_duration(&format!("{milliseconds}ms")).unwrap_or(duration), duration, "{text}");
    }
    if let Some(size) = parse_size(text) {
        assert_eq!(parse_size(&size.to_string()), Some(size), "{text}");
    }
    let with_example = |error: String| assert!(error.contains("expected"), "{text:?}: {error}");
    if let Err(error) = parse_option(text) {
        with_example(error);
    }
    match text.parse::<GuardOption>() {
        Ok(GuardOption::On { percent, accept, .. }) => {
            assert!((1..=100).contains(&percent) && accept.is_none_or(|path| path.is_absolute()));
        }
        Ok(GuardOption::Off) => assert_eq!(text.trim(), "off"),
        Err(error) => with_example(error.to_string()),
    }
    if let Err(error) = parse_guard(text, "kube2proxy") {
        with_example(error);
    }
    if let Ok(url) = text.parse::<AdminUrl>() {
        assert_eq!(url.to_string().parse().as_ref(), Ok(&url));
    }
    if let Ok(site) = text.parse::<Site>() {
        assert!(!site.domain().is_wildcard() && !site.domain().is_address(), "{text}");
        let _ = MovedDomain::try_new("wmflabs.org", text);
    }
    if let Ok(name) = VariableName::parse(text) {
        assert!(!name.to_string().starts_with("URLPROXY_"));
    }
    if let Ok(command) = StartCommand::parse(text) {
        let _ = (command.has_begin_marker(), command.needs_release());
    }
    if let Ok(glob) = ManifestGlob::parse(text) {
        assert!(glob.directory().is_absolute() && glob.home("tool").starts_with(glob.directory()));
    }
    if let Err(error) = NamespaceTemplate::parse(text) {
        with_example(error);
    }
    if let Ok(name) = text.parse::<BackendName>() {
        assert_eq!(name.as_str().parse().as_ref(), Ok(&name));
    }
    if let Some(word) = SafeWord::try_new(text) {
        assert!(word.as_str().bytes().all(|byte| byte.is_ascii_graphic()) && !text.starts_with('-'));
    }
}
