//! The pages of `urlproxy_admin` and `urlproxy_list`: what each one says. Independent of nginx.
//!
//! A [`page::Page`] is a response body made in short steps, so that a worker serves other requests in between. An
//! [`answer::Answer`] is a page with its status and headers; [`query`] reads the parameters of a request.

pub mod about;
pub mod answer;
pub mod backend_state;
pub mod changes;
pub mod dashboard;
pub mod explain;
pub mod hold;
pub mod json;
pub mod list;
pub mod metrics;
pub mod origin;
pub mod page;
pub mod place;
pub mod query;
pub mod readiness;
pub mod rejected;
pub mod request_host;
pub mod routes;
pub mod status;
pub mod summary;
#[cfg(test)]
mod testing;
pub mod tool;
pub mod tools;
pub mod why;
