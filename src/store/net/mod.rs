//! The network: the one HTTP client (`client`), whose `checked_resolver` asks `ip_policy` about each address that it connects to, a redirect's too;
//! how it is configured, and objects of web servers.

pub mod checked_end;
pub mod checked_resolver;
pub mod client;
pub mod client_config;
pub mod connector;
pub mod http;
pub mod ip_policy;
pub mod proxy_tls;
