//! Keys and values of routes in Redis: any hash or set yields valid routes within the limits, and a reason for each other field.

use std::collections::HashMap;

use arbitrary::{Arbitrary, Unstructured};
use urlproxy::registry::{Admission, RawRoutes, Registered, grid_routes, key_of, parse_key, split_key};
use urlproxy::route::{Backend, MAX_BACKENDS, MAX_ROUTES, ToolName};
use urlproxy::sync::admit_into_zone;
use urlproxy::table::Capacity;

/// Pattern, and what comes after `http://` if it is not the whole value.
type Field<'a> = (&'a [u8], Option<&'a [u8]>, &'a [u8]);

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    key: &'a [u8],
    is_set: bool,
    is_limited: bool,
    fields: Vec<Field<'a>>,
    origins: Vec<(u8, &'a [u8])>,
    member: &'a str,
}

pub fn check(bytes: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let zone = Capacity::of_bytes(1 << 20).expect("a size");
    let networks = if input.is_limited { vec!["10.0.0.0/8".parse().expect("a network")] } else { Vec::new() };
    let admission = Admission { networks, own_sockets: vec!["10.0.0.9:80".parse().expect("an address")] };
    let fields: Vec<(Vec<u8>, Vec<u8>)> = input
        .fields
        .iter()
        .map(|(pattern, host, url)| {
            let url = host.map_or_else(|| url.to_vec(), |host| [b"http://", host].concat());
            (pattern.to_vec(), url)
        })
        .collect();
    let raw = if input.is_set {
        RawRoutes::Set(fields.iter().map(|(_, url)| &url[..]).collect())
    } else {
        RawRoutes::Hash(fields.iter().map(|(pattern, url)| (&pattern[..], &url[..])).collect())
    };
    for key in [input.key, &[b"prefix:", input.key].concat(), &[b"frontend:", input.key].concat()] {
        let Some(Ok(record)) = parse_key(key) else { continue };
        assert_eq!(key_of(&record), key);
        assert_eq!(split_key(key).map(|(kind, _)| kind), Some(record.kind()));
        let admitted = admit_into_zone(key, &record, &raw, &admission, zone);
        assert!(admitted.routes.len() <= MAX_ROUTES);
        for route in &admitted.routes {
            assert!((1..=MAX_BACKENDS).contains(&route.backends.len()));
            for backend in &route.backends {
                assert_eq!(admission.check(backend), Ok(()));
                let is_written =
                    |url: &[u8]| std::str::from_utf8(url).is_ok_and(|url| url.parse().as_ref() == Ok(backend));
                assert!(fields.iter().any(|(_, url)| is_written(url)), "{backend} is in no field");
            }
        }
        for rejection in &admitted.rejected {
            let text = rejection.to_string();
            assert!(text.len() < 8000 && !text.contains(|c: char| c.is_control()), "{text:?}");
        }
    }
    check_origins(&input, &fields);
    if let Some(registered) = Registered::parse(input.member) {
        assert_eq!(registered.to_string(), input.member);
    }
}

fn check_origins(input: &Input<'_>, fields: &[(Vec<u8>, Vec<u8>)]) {
    let routes: HashMap<_, _> = fields.iter().cloned().collect();
    let pattern_of = |number: &u8| fields.get(usize::from(*number)).map(|(pattern, _)| pattern.clone());
    let origins =
        input.origins.iter().filter_map(|(number, text)| Some((pattern_of(number)?, text.to_vec()))).collect();
    let tool = ToolName::try_new(b"hello").expect("a name");
    for route in grid_routes(&tool, routes.clone(), &origins, |pattern| pattern.contains("k8s")) {
        assert_eq!(routes.get(route.pattern.as_bytes()).map(Vec::as_slice), Some(route.url.as_bytes()));
        assert_eq!(route.url.parse::<Backend>().as_ref(), Ok(&route.backend));
    }
}
