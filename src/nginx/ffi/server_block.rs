//! A server block of the configuration.
#![allow(unsafe_code)]

use nginx_sys::{ngx_http_conf_addr_t, ngx_http_conf_port_t, ngx_http_core_srv_conf_t, ngx_http_server_name_t};
use ngx::http::{HttpModuleMainConf, HttpModuleServerConf, NgxHttpCoreModule};

use super::parser::Parser;
use super::pool;

/// The identity of a server block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::nginx) struct ServerId(*const ngx_http_core_srv_conf_t);

/// The server block that is being read or merged.
pub(in crate::nginx) struct ServerBlock<'c> {
    /// The identity of the block.
    pub id: ServerId,
    /// Its names, each with whether it is a regular expression.
    pub names: Vec<(&'c [u8], bool)>,
    /// Its `merge_slashes`.
    pub merges_slashes: bool,
}

impl<'c> Parser<'c> {
    /// The enclosing server block.
    pub fn server(&self) -> Option<ServerBlock<'c>> {
        let server = NgxHttpCoreModule::server_conf(self.as_ref())?;
        // SAFETY: the names of a server are an array of this type, until the configuration has been read.
        let names = unsafe { server.server_names.as_slice::<ngx_http_server_name_t>() };
        // SAFETY: a name lives as long as the configuration.
        let names = names.iter().map(|name| (unsafe { pool::bytes(name.name) }, is_regex(name))).collect();
        Some(ServerBlock { id: ServerId(server), names, merges_slashes: server.merge_slashes != 0 })
    }

    /// The listening addresses of all servers. Call it after the http block is read.
    pub fn listeners(&self) -> Vec<Listener> {
        // SAFETY: nginx keeps the listening sockets in an array, or null, until it has read the configuration.
        let ports = NgxHttpCoreModule::main_conf(self.as_ref()).and_then(|core| unsafe { core.ports.as_ref() });
        // SAFETY: an array of this type.
        let ports = ports.map_or(&[][..], |ports| unsafe { ports.as_slice::<ngx_http_conf_port_t>() });
        // SAFETY: an array of this type.
        let addresses = ports.iter().flat_map(|port| unsafe { port.addrs.as_slice::<ngx_http_conf_addr_t>() });
        addresses.map(Listener::of).collect()
    }
}

/// A listening address and its servers.
pub(in crate::nginx) struct Listener {
    /// The server of requests for hosts that no server name matches.
    pub default_server: ServerId,
    /// `merge_slashes` of the default server, which applies to each request before its host is known.
    pub merges_slashes: bool,
    /// Whether clients use TLS: then SNI may choose the server before the request.
    pub has_tls: bool,
    servers: Vec<ServerId>,
}

impl Listener {
    fn of(address: &ngx_http_conf_addr_t) -> Self {
        // SAFETY: an array of this type.
        let servers = unsafe { address.servers.as_slice::<*const ngx_http_core_srv_conf_t>() };
        // SAFETY: a listening address has a default server, alive as long as the configuration.
        let default_server = unsafe { address.default_server.as_ref() };
        Self {
            default_server: ServerId(address.default_server),
            merges_slashes: default_server.is_none_or(|server| server.merge_slashes != 0),
            has_tls: address.opt.ssl() != 0,
            servers: servers.iter().copied().map(ServerId).collect(),
        }
    }

    /// Whether the server listens there.
    pub fn has(&self, server: ServerId) -> bool {
        self.servers.contains(&server)
    }
}

fn is_regex(name: &ngx_http_server_name_t) -> bool {
    #[cfg(ngx_feature = "pcre")]
    return !name.regex.is_null();
    #[cfg(not(ngx_feature = "pcre"))]
    return false;
}
