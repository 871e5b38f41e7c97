//! Which network addresses a source may have: global ones of other machines, and those that a superuser allowed. A request from inside a
//! database server must not reach what the server alone can reach.

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use std::net::IpAddr;
use std::sync::OnceLock;

/// Ranges that are not global, after IANA's special-purpose registries (RFC 6890 and its updates), and addresses of clouds that look global but
/// are the machine's host.
const NOT_GLOBAL: [&str; 32] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    // Azure's host, which hands out what a machine is configured with.
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/96",
    // IPv4-translated (RFC 2765): a translator makes IPv4 of it.
    "::ffff:0:0:0/96",
    "64:ff9b:1::/48",
    "100::/64",
    "100:0:0:1::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
    "::1/128",
    "::/128",
];

/// Whether an address is reachable by anyone.
pub fn is_global(address: IpAddr) -> bool {
    static RANGES: OnceLock<Vec<IpNet>> = OnceLock::new();
    let ranges = RANGES.get_or_init(|| NOT_GLOBAL.iter().filter_map(|range| range.parse().ok()).collect());
    !ranges.iter().any(|range| range.contains(&address) || range.contains(&embedded(address)))
}

/// Whether an address is one of this machine's interfaces.
fn is_own(address: IpAddr) -> bool {
    let ip = |storage: SockaddrStorage| {
        let v4 = storage.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    let address = embedded(address);
    // Where the interfaces cannot be told, no address is known to be another machine's.
    getifaddrs().map_or(true, |mut interfaces| interfaces.any(|interface| interface.address.and_then(ip) == Some(address)))
}

/// The IPv4 address that an IPv6 address stands for (mapped, translated, or NAT64's well-known prefix).
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    if let [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] = v6.segments() {
        return IpAddr::V4(((u32::from(high) << 16) | u32::from(low)).into());
    }
    address.to_canonical()
}

/// The setting `bulk.allowed_hosts`: hosts and addresses that need not be global. Entries are parted by commas: a host name, an
/// address or a CIDR range, each with an optional port (`[::1]:9000` for IPv6), or `*` for all.
#[derive(Debug, Clone, Default)]
pub struct Allowed(Vec<AllowedHost>);

#[derive(Debug, Clone)]
struct AllowedHost {
    target: Target,
    port: Option<u16>,
}

#[derive(Debug, Clone)]
enum Target {
    Any,
    Range(IpNet),
    Host(String),
}

impl Allowed {
    /// Reads `bulk.allowed_hosts`: names, addresses and CIDR ranges between commas, each perhaps with a port; `*` for all.
    pub fn parse(setting: &str) -> Allowed {
        Allowed(setting.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(AllowedHost::parse).collect())
    }

    /// Whether a connection to `address`, asked for as `host`, may be made.
    pub fn permits(&self, host: &str, address: IpAddr, port: u16) -> bool {
        is_global(address) && !is_own(address) || self.0.iter().any(|entry| entry.matches(host, address, port))
    }
}

impl AllowedHost {
    fn parse(text: &str) -> AllowedHost {
        if let Some(target) = Target::range(text) {
            return AllowedHost { target, port: None };
        }
        let (name, port) = match text.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse().ok()?))) {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let target = if name == "*" { Target::Any } else { Target::range(name).unwrap_or_else(|| Target::Host(name.to_ascii_lowercase())) };
        AllowedHost { target, port }
    }

    fn matches(&self, host: &str, address: IpAddr, port: u16) -> bool {
        self.port.is_none_or(|allowed| allowed == port)
            && match &self.target {
                Target::Any => true,
                Target::Range(range) => range.contains(&address) || range.contains(&embedded(address)),
                Target::Host(name) => name.eq_ignore_ascii_case(host),
            }
    }
}

impl Target {
    fn range(text: &str) -> Option<Target> {
        let text = text.trim_start_matches('[').trim_end_matches(']');
        let range = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
        Some(Target::Range(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_global_addresses_are_global() {
        for address in ["8.8.8.8", "1.1.1.1", "2606:4700::1", "172.32.0.1", "64:ff9b::808:808"] {
            assert!(is_global(address.parse().unwrap()), "{address}");
        }
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "224.0.0.1",
            "::127.0.0.1",
            "168.63.129.16",
            "::ffff:168.63.129.16",
            "::ffff:0:127.0.0.1",
            "::ffff:0:8.8.8.8",
            "100:0:0:1::1",
            "100.100.100.200",
            "192.0.0.192",
        ] {
            assert!(!is_global(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn addresses_of_an_interface_are_the_machines_own() {
        assert!(is_own("127.0.0.1".parse().unwrap()) && is_own("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!is_own("93.184.216.34".parse().unwrap()));
    }

    #[test]
    fn the_setting_opens_what_it_names() {
        let permits = |setting: &str, host: &str, address: &str| Allowed::parse(setting).permits(host, address.parse().unwrap(), 9000);
        assert!(permits("", "example.org", "93.184.216.34"));
        assert!(!permits("", "localhost", "127.0.0.1"));
        for setting in ["127.0.0.1", "127.0.0.0/8", "localhost", "a, LOCALHOST ,b", "*", "127.0.0.1:9000", "localhost:9000", "*:9000"] {
            assert!(permits(setting, "localhost", "127.0.0.1"), "{setting}");
        }
        for setting in ["10.0.0.0/8", "local", "127.0.0.1:80", "localhost:80", "*:80", "[::1]"] {
            assert!(!permits(setting, "localhost", "127.0.0.1"), "{setting}");
        }
        assert!(permits("[::1]:9000", "x", "::1"));
        assert!(permits("::1", "x", "::1"));
        assert!(permits("127.0.0.1", "x", "::ffff:127.0.0.1"));
    }
}
