//! What this host says of names: its DNS servers, and those names that it knows itself.

use hickory_proto::rr::Name;
use resolv_conf::ScopedIp;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Servers that are asked, number; resolv.conf(5): 3. When full, the others are left out.
pub(super) const SERVERS_MAX: usize = 3;
/// How much of a file of the system's is read, bytes; ours: lists of names that block
/// advertisements have some megabytes. When full, the rest is as if it were not there.
const FILE_MAX: u64 = 4 << 20;
/// The port of DNS servers (RFC 1035 §4.2).
const PORT: u16 = 53;

/// The DNS servers that `/etc/resolv.conf` names. It is read anew each time: a laptop moves.
/// Link-local servers on a named interface are left out.
pub(super) fn servers() -> Vec<SocketAddr> {
    servers_in(&read("/etc/resolv.conf"))
}

fn servers_in(text: &[u8]) -> Vec<SocketAddr> {
    // A line that makes no sense takes nothing away from the others.
    let (config, _) = resolv_conf::Config::parse_with_errors(text);
    let ip = |one: &ScopedIp| match one {
        ScopedIp::V4(ip) => Some(IpAddr::V4(*ip)),
        ScopedIp::V6(ip, None) => Some(IpAddr::V6(*ip)),
        ScopedIp::V6(_, Some(_)) => None,
    };
    let ips = config.nameservers.iter().filter_map(ip);
    ips.take(SERVERS_MAX).map(|ip| SocketAddr::new(ip, PORT)).collect()
}

/// The IPs that this host itself has for a name, in `/etc/hosts`; none if it is for DNS to know.
pub(super) fn known(name: &Name) -> Vec<IpAddr> {
    let found = known_in(&read("/etc/hosts"), name);
    // RFC 6761 §6.3: names below localhost. are never asked for.
    if found.is_empty() && is_localhost(name) {
        return vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
    }
    found
}

fn is_localhost(name: &Name) -> bool {
    name.iter().next_back().is_some_and(|label| label.eq_ignore_ascii_case(b"localhost"))
}

fn known_in(text: &[u8], name: &Name) -> Vec<IpAddr> {
    let text = String::from_utf8_lossy(text);
    let wanted = name.to_ascii();
    let wanted = wanted.trim_end_matches('.');
    let ip = |line: &str| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let ip: IpAddr = words.next()?.parse().ok()?;
        words.any(|word| word.trim_end_matches('.').eq_ignore_ascii_case(wanted)).then_some(ip)
    };
    let mut ips = Vec::new();
    for ip in text.lines().filter_map(ip) {
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    ips
}

/// A file of the system's; one that cannot be read is as good as an empty one.
fn read(path: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = File::open(path);
    let read = file.and_then(|file| file.take(FILE_MAX).read_to_end(&mut bytes));
    if let Err(error) = read {
        tracing::debug!(path, %error, "a file of the system's cannot be read");
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::address::name;
    use super::*;

    #[test]
    fn the_systems_servers_are_those_that_it_names() {
        let text = b"# a comment\nnonsense here\nnameserver 192.0.2.1\nsearch example.org\n\
            nameserver fe80::1%eth0\nnameserver 2001:db8::1\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n";
        let servers: Vec<String> = servers_in(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.3:53"]);
        assert!(servers_in(b"").is_empty());
    }

    #[test]
    fn a_name_may_be_known_to_the_host() {
        let text = b"127.0.0.1 localhost\n192.0.2.7\tbox.example box # the box\n\
            192.0.2.7 box.example\n2001:db8::7 Box.Example\nnonsense box.example\n";
        let known = |text: &[u8], of: &str| known_in(text, &name(of).expect("a name"));
        let ips: [IpAddr; 2] = ["192.0.2.7", "2001:db8::7"].map(|ip| ip.parse().expect("an IP"));
        assert_eq!(known(text, "box.example"), ips);
        assert_eq!(known(text, "box"), ips[..1]);
        assert!(known(text, "other.example").is_empty());
        assert!(known(text, "the").is_empty(), "comments name nothing");
        assert!(is_localhost(&name("a.LocalHost").expect("a name")));
        assert!(!is_localhost(&name("localhost.example").expect("a name")));
    }
}
