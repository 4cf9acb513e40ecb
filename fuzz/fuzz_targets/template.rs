//! A service.template of any text yields defaults or an error on one line, never a crash.
#![no_main]

use libfuzzer_sys::fuzz_target;
use urlproxy::webservice::Template;

fuzz_target!(|text: &str| {
    match Template::parse(text) {
        Ok(template) => {
            let _ = template.remark();
        }
        Err(error) => assert!(error.len() < 1000 && !error.contains('\n')),
    }
});
