//! What all clients of Kubernetes API servers share: errors in one line, the proxy on the way.

mod error;
mod proxy;
mod token;

pub use error::describe;
pub use proxy::{ProxyError, ProxyVariables, proxy_in};
pub use token::check_token;
