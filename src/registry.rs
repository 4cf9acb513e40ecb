//! The Redis schema: key names, reading and writing routes. All access to Redis goes through here.
//!
//! | key | type | meaning |
//! | --- | --- | --- |
//! | `prefix:<tool>` | hash, or set | pattern to backend URL; a set of backend URLs serves every path |
//! | `redirect:<tool>` | hash | pattern to canonical host; presence asks for a redirect |
//! | `frontend:<domain>` | set | backend URLs of a whole host; `*.<parent>` is every host with one more label |
//! | `k8s_services` | set | the ledger, kube2proxy's routes: `namespace/name/route` |
//! | `k8s_lock` | string | `<fencing number> <identity>`: the kube2proxy that may write, until it expires |
//! | `k8s_lock_number` | string | the last fencing number |
//! | `k8s_writer` | string | the lock of an earlier version: while it exists no newer kube2proxy writes |
//! | `origin:<tool>` | hash | pattern to JSON: who registered the route. Readers may ignore it |
//! | `addresses` | hash | `host:port` to the tool that is routed there. Readers may ignore it |
//!
//! At most one tool is routed to an address: the one last proven to own it. Writers enforce this in the script that sets a
//! route.

mod address;
mod admission;
mod cluster;
mod frontend;
mod lock;
mod operator;
mod origin;
mod read;
mod schema;
mod script;
mod tracking;
mod write;

pub use address::{index_address, unindex_address};
pub use admission::{Admission, NotAllowed, address_towards, is_special};
pub use cluster::{Applied, CLUSTER, Claim, ClaimOutcome, Registered, SERVICES_KEY, ToolChanges, apply};
pub use frontend::{compare_frontend, frontend_key, frontend_of, scan_frontends, write_frontend};
pub use lock::{LOCK_KEY, LockReply, OLD_LOCK_KEY, beat_lock, release_lock};
pub use operator::{OPERATOR, Replaced, delete_redirect, delete_route, delete_tool, replace_with_set, set_redirect};
pub use origin::{GRID, GridRoute, Origin, Registrant, grid_routes};
pub use read::{Admitted, RawRoutes, Rejection, RejectionReason, admit};
pub use schema::{
    ADDRESSES_KEY, DOMAINS_PREFIX, FOLLOWED_GLOB, ORIGIN_PREFIX, REDIRECTS_PREFIX, ROUTES_PREFIX, key_of, origin_key,
    parse_key, prefix_of, redirects_key, routes_key, split_key,
};
pub use script::Call;
pub use tracking::track_keys;
pub use write::{
    Ownership, Registration, Withdrawal, register, renew, unregister_if_from, unregister_url, withdraw_if_unchanged,
};
