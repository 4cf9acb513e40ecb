//! The configuration: directives as written, and settings after all levels are merged.

pub(super) mod checks;
mod directive;
pub(super) mod location;
pub(super) mod main;
pub(super) mod networks;
pub(super) mod pages;
pub(super) mod routed;
pub(super) mod table;
pub(super) mod upstream;

use super::ffi::module::{Configuration, Module};

impl Configuration for Module {
    type Main = main::MainConf;
    type Location = location::LocationConf;
}
