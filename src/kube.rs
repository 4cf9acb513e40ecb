//! The daemon that watches a Kubernetes cluster's Services and writes their routes to Redis.

pub mod lease;
