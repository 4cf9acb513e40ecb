//! Durations and sizes in directives.

pub(super) use crate::units::{parse_duration, parse_size};
