//! Tests of urlproxyctl.
