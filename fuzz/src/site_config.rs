//! The site's configuration: any text gives types with commands that have a program, or an error without a crash.

use std::ffi::OsString;
use std::path::Path;

use urlproxy::web_type::{Invocation, SiteConfig};

pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(config) = SiteConfig::parse(text) else { return };
    let _ = config.url_of("hello");
    let extra = [OsString::from("/data/project/hello/server")];
    for web_type in config.types() {
        assert!(web_type.names().all(|name| web_type.is_called(name) && config.web_type(name).is_some()));
        let invocation = Invocation {
            tool: "hello",
            home: Path::new("/nonexistent/hello"),
            port: 8000,
            canonical: false,
            error_log: None,
            scratch: Path::new("/nonexistent/scratch"),
            extra: &extra,
        };
        if let Ok(command) = web_type.command(&invocation) {
            assert!(!command.words.is_empty());
        }
    }
}
