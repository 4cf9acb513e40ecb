//! A package.json: a script is found only in an object that has it; any other bytes give a reason on one line.

use std::path::Path;

use serde_json::Value;
use urlproxy::web_type::find_script;

pub fn check(bytes: &[u8]) {
    match find_script(bytes, Path::new("/data/project/hello/package.json"), "start") {
        Ok(()) => {
            let json: Value =
                serde_json::from_slice(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)).expect("JSON");
            let script = json.as_object().and_then(|package| package["scripts"]["start"].as_str());
            assert!(script.is_some_and(|script| !script.is_empty()), "{json}");
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.len() < 1000 && !text.contains(char::is_control), "{text:?}");
        }
    }
}
