//! What a Lease says, and what it is to say next.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;

use super::LeaseName;

/// What changes whenever its holder gives a sign of life. Its times are only compared with each other: they are of another
/// machine's clock.
#[derive(Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose it is; empty when nobody's.
    pub holder: String,
    /// How long its holder may be silent, if that is said.
    pub duration: Option<Duration>,
    renewed: Option<MicroTime>,
    version: Option<String>,
}

impl Record {
    pub fn of(lease: &Lease) -> Self {
        let spec = lease.spec.as_ref();
        let seconds = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|seconds| u64::try_from(seconds).ok());
        Self {
            holder: holder_of(lease).to_owned(),
            duration: seconds.filter(|&seconds| seconds > 0).map(Duration::from_secs),
            renewed: spec.and_then(|spec| spec.renew_time.clone()),
            version: lease.metadata.resource_version.clone(),
        }
    }
}

/// Whose it is; empty when nobody's.
pub fn holder_of(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

/// The Lease as its next holder, or the same again, writes it.
pub fn held_by(found: Option<Lease>, name: &LeaseName, identity: &str, duration: Duration, now: Timestamp) -> Lease {
    let created = || Lease {
        metadata: ObjectMeta {
            namespace: Some(name.namespace.clone()),
            name: Some(name.name.clone()),
            ..ObjectMeta::default()
        },
        spec: None,
    };
    let is_new = found.is_none();
    let mut lease = found.unwrap_or_else(created);
    let is_taken = holder_of(&lease) != identity;
    let spec = lease.spec.get_or_insert_default();
    if is_taken {
        let transitions = spec.lease_transitions.unwrap_or(0).max(0).saturating_add(i32::from(!is_new));
        spec.lease_transitions = Some(transitions);
        spec.acquire_time = Some(MicroTime(now));
        spec.holder_identity = Some(identity.to_owned());
    }
    // Rounded up: others must not take it sooner than we think.
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    spec.lease_duration_seconds = Some(i32::try_from(seconds.max(1)).unwrap_or(i32::MAX));
    spec.renew_time = Some(MicroTime(now));
    lease
}

/// The Lease as its holder leaves it.
pub fn freed(mut lease: Lease, now: Timestamp) -> Lease {
    let spec = lease.spec.get_or_insert_default();
    spec.holder_identity = Some(String::new());
    spec.renew_time = Some(MicroTime(now));
    lease
}
