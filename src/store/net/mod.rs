//! The network: the one HTTP client, which checks the address it connects to, how it is configured, and objects of web servers.

pub mod client;
pub mod client_config;
pub mod connector;
pub mod http;
pub mod ip_policy;
pub mod proxy_tls;
