//! webservice-runner, portgrabber and portreleaser, as users, proxies and Grid Engine see them.

mod command_line;
mod family;
mod grabbing;
pub mod job;
mod ports;
mod registering;
mod releasing;
mod renewing;
mod running;
mod withdrawing;
