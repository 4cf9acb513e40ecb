//! The list of images in a ConfigMap, and quantities in it: any text gives images or an error on few lines.

use urlproxy::web_type::Quantity;
use urlproxy::webservice::kubernetes::{Images, Resources};

pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(images) = Images::parse(text) {
        for name in images.names() {
            assert!(images.find(name).is_some());
        }
    }
    let first = text.lines().next().unwrap_or_default();
    if let Ok(quantity) = Quantity::parse(first) {
        let written = quantity.to_string();
        assert_eq!(Quantity::parse(&written), Ok(quantity), "{first} {written}");
    }
    if let Ok(resources) = Resources::defaults(first, first) {
        let second = text.lines().nth(1);
        for resources in [resources.with_memory(first, second), resources.with_cpu(first, second)].into_iter().flatten()
        {
            let requirements = resources.to_requirements();
            let (limits, requests) = (requirements.limits.expect("limits"), requirements.requests.expect("requests"));
            for (name, limit) in limits {
                let (limit, request) = (Quantity::parse(&limit.0), Quantity::parse(&requests[&name].0));
                assert!(request.expect("a quantity") <= limit.expect("a quantity"), "{text:?}: {name}");
            }
        }
    }
}
