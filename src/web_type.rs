//! The types of web service, and the site's configuration, which says what they are.
//!
//! `site_config` is the operator's file with `site_sections` in it; `web_type` is one of its types, `type_set` all of them, first the
//! built-in ones (`builtin.yaml`). A type has `need`s in the tool's home (`home_path`, `npm_script`, read by `home_file`) and a
//! `command_template`; with an `invocation` it becomes a `prepared_command`, for some types with a configuration for `lighttpd`.
//! `value` checks single values of the file; `backend_name`, `arguments` and Kubernetes' `quantity` are kinds of them.

mod arguments;
mod backend_name;
mod command_template;
mod definition;
mod home_file;
mod home_path;
mod invocation;
mod lighttpd;
mod need;
mod npm_script;
mod prepared_command;
mod quantity;
mod site_config;
mod site_sections;
mod type_set;
mod value;

pub use arguments::Arguments;
pub use backend_name::{BackendName, BackendNameError};
pub use definition::WebType;
pub use home_file::HomeFileError;
pub use invocation::Invocation;
pub use need::NeedError;
pub use npm_script::ScriptError;
// Reached by the fuzz targets too.
#[doc(hidden)]
pub use npm_script::find_in as find_script;
pub use prepared_command::{PrepareError, PreparedCommand};
pub use quantity::{ONE, Quantity, QuantityError};
pub use site_config::{SiteConfig, SiteConfigError};
pub use site_sections::{GridConfig, ImageConfigMap, KubernetesConfig};
pub use value::is_grid_memory;
