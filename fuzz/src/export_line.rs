//! Lines of an export: any JSON is a tool or domain as the module would serve it, or is refused with a reason.

use urlproxy::ctl::{ExportLine, Wanted};
use urlproxy::route::MAX_ROUTES;

pub fn check(bytes: &[u8]) {
    let Ok(line) = serde_json::from_slice::<ExportLine>(bytes) else { return };
    let written = serde_json::to_vec(&line).expect("it was read");
    assert_eq!(serde_json::from_slice::<ExportLine>(&written).expect("it was written"), line);
    let name = line.name.clone();
    match Wanted::try_new(line) {
        Ok(wanted) => {
            assert_eq!(wanted.name().1, name.as_bytes());
            if let Wanted::Tool { routes, invalid, .. } = &wanted {
                assert!(routes.len() + invalid.len() <= MAX_ROUTES);
                assert!(
                    routes.iter().all(|(text, route)| route.pattern.as_str() == text && !invalid.contains_key(text))
                );
            }
        }
        Err(error) => assert!(!error.is_empty()),
    }
}
