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

    /// The default servers of all listening sockets. Call it after the http block is read.
    pub fn default_servers(&self) -> Vec<ServerId> {
        // SAFETY: nginx keeps the listening sockets in an array, or null, until it has read the configuration.
        let ports = NgxHttpCoreModule::main_conf(self.as_ref()).and_then(|core| unsafe { core.ports.as_ref() });
        // SAFETY: an array of this type.
        let ports = ports.map_or(&[][..], |ports| unsafe { ports.as_slice::<ngx_http_conf_port_t>() });
        // SAFETY: an array of this type.
        let addresses = ports.iter().flat_map(|port| unsafe { port.addrs.as_slice::<ngx_http_conf_addr_t>() });
        addresses.map(|address| ServerId(address.default_server)).collect()
    }
}

fn is_regex(name: &ngx_http_server_name_t) -> bool {
    #[cfg(ngx_feature = "pcre")]
    return !name.regex.is_null();
    #[cfg(not(ngx_feature = "pcre"))]
    return false;
}
