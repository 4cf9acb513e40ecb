//! The pages of `urlproxy_admin` and `urlproxy_list`: what each one says. Independent of nginx.
//!
//! A [`page::Page`] is a response body made in short steps, so that a worker serves other requests in between. An
//! [`answer::Answer`] is a page with its status and headers; [`query`] reads the parameters of a request.

pub mod answer;
pub mod explain;
pub mod json;
pub mod list;
pub mod page;
pub mod place;
pub mod query;
pub mod request_host;
pub mod routes;
#[cfg(test)]
mod testing;
pub mod why;
