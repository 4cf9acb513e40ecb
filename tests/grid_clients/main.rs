//! webservice-runner, portgrabber and portreleaser as their users, the proxies and Grid Engine see them.

#[path = "../common/listener.rs"]
mod listener;
#[path = "../common/need.rs"]
mod need;
#[path = "../common/port.rs"]
mod port;
#[path = "../common/proxy.rs"]
mod proxy;
#[path = "../common/redis.rs"]
mod redis_server;

mod command_line;
mod family;
mod grabbing;
mod job;
mod ports;
mod registering;
mod releasing;
mod renewing;
mod running;
mod withdrawing;
