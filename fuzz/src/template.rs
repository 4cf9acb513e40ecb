//! A service.template of any text yields defaults or an error on one line.

use urlproxy::webservice::Template;

pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Template::parse(text) {
        Ok(template) => {
            let _ = template.remark();
        }
        Err(error) => assert!(error.len() < 1000 && !error.contains('\n')),
    }
}
