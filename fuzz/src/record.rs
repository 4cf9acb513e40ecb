//! The decoder of records in shared memory: any bytes give bounded answers, and whatever is selected is one of the routes.

use urlproxy::table::Record;

pub fn check(bytes: &[u8]) {
    let Some((&path_len, rest)) = bytes.split_first() else { return };
    let (path, bytes) = rest.split_at(rest.len().min(path_len.into()));
    let record = Record::new(bytes, 0);
    assert!(record.key().len() <= 255 && record.byte_len() == bytes.len());
    let routes: Vec<_> = record.routes().collect();
    assert!(routes.len() as u64 <= record.route_count());
    let mut used = 0;
    for route in &routes {
        let backends: Vec<_> = route.backends().collect();
        assert!(backends.len() <= route.backend_count);
        assert_eq!(route.first_backend().as_ref(), backends.first());
        for backend in backends {
            let _ = (backend.to_string(), backend.socket_addr());
        }
        used += route.pattern.len();
    }
    assert!(used <= bytes.len() + 2, "patterns overlap");
    assert!(record.automata().len() <= bytes.len());
    if let Some(route) = record.select(path) {
        assert!(routes.iter().any(|other| (other.matcher, other.pattern) == (route.matcher, route.pattern)));
    }
    assert!(record.tried(path).count() <= routes.len());
    let _ = record.plain();
}
