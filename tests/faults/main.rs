//! Fault injection on real processes under counted traffic: no request may fail.
//!
//! `cargo test --test faults NAME` runs the faults with NAME in their name. `make soak` runs faults at random for an hour.

#[path = "../support/mod.rs"]
mod support;

mod churn;
mod clock;
mod hostile;
mod proxy;
mod record;
mod report;
mod runner;
mod site;
mod soak;
mod source;
mod start;
mod table;
mod traffic;
mod wire;
mod workers;

use std::process::ExitCode;

use runner::{ALONE, Arguments, Fault};

/// A fault by the path of its function.
macro_rules! fault {
    ($($path:ident)::+) => {
        Fault::new(concat!($("::", stringify!($path)),+), $($path)::+)
    };
}

/// Longest first. `slots`: the fault needs more than its share of the machine, or all of it to measure latencies.
const FAULTS: &[Fault] = &[
    fault!(table::a_thousand_changes_per_second).slots(2),
    fault!(hostile::patterns::in_requests).slots(ALONE),
    fault!(hostile::patterns::in_registrations).slots(ALONE),
    fault!(hostile::zone::filled_by_tools_at_their_limits).slots(2),
    fault!(hostile::zone::small_one_filled_by_tools_at_their_limits).slots(2),
    fault!(hostile::backends::that_never_answer).slots(ALONE),
    fault!(hostile::backends::that_are_anothers).slots(2),
    fault!(hostile::backends::that_lead_back_by_name).slots(2),
    fault!(source::stopped_for_30_seconds),
    fault!(workers::reloaded_100_times).slots(2),
    fault!(workers::companion_killed_while_publishing).slots(2),
    fault!(table::full_and_one_more),
    fault!(wire::half_open),
    fault!(wire::garbage),
    fault!(wire::half_gigabyte_announced),
    fault!(wire::byte_by_byte),
    fault!(source::killed),
    fault!(source::restarted_empty),
    fault!(source::restarted_with_other_data),
    fault!(source::flushed),
    fault!(source::swapped_with_other_data),
    fault!(source::swapped_with_empty),
    fault!(source::loading),
    fault!(source::out_of_clients),
    fault!(source::access_revoked),
    fault!(source::failed_over_by_sentinel),
    fault!(workers::killed),
    fault!(workers::reload_refused),
    fault!(workers::zone_grown_without_redis),
    fault!(workers::zone_shrunk_without_redis),
    fault!(workers::table_renamed_without_redis),
    fault!(workers::zone_shrunk_too_far),
    fault!(workers::binary_upgraded),
    fault!(workers::binary_upgraded_without_redis),
    fault!(start::without_redis),
    fault!(start::without_redis_from_snapshot),
    fault!(start::disk_full_for_the_snapshot),
    fault!(table::one_route_too_many),
    fault!(clock::stepped_a_day_forward_and_back),
];

fn main() -> ExitCode {
    match std::env::var("URLPROXY_SOAK") {
        Ok(minutes) => soak::run(&minutes),
        Err(_) => runner::run(FAULTS, &Arguments::parse()),
    }
}
