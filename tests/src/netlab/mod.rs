//! A laboratory of network namespaces: an Internet of public hosts, routers of every kind that
//! RFC 4787 names, and hosts behind them. Real kernels, real sockets, real processes.
//!
//! ```text
//!   s1  s2  s3 … stranger          public hosts: one interface, on one bridge
//!    └───┴───┴──┬───┘
//!             bridge ── wan router lan ── host          behind a router
//!                         └── 100.64.0.0/16 ── wan router lan ── host     behind two
//! ```
//!
//! Where there is a [`link::Link`], the outermost router, or the host where there is none, hangs on
//! a bridge of its own, and the link lies between that and the others.
//!
//! Nothing leaves the namespaces. They vanish with the [`Lab`], after a panic as well; a program
//! that may be interrupted calls [`namespace::remove_own`].

pub mod application;
pub mod beside_sim;
pub mod cells;
pub mod experiments;
pub mod faces;
pub mod link;
pub mod mapped;
pub mod namespace;
pub mod neighbours;
pub mod odd;
pub mod others;
pub mod peers;
pub mod plan;
pub mod program;
pub mod punched;
pub mod relayed;
pub mod results;
pub mod router_daemon;
pub mod rules;
pub mod sockets;
pub mod stories;
pub mod verify;
pub mod verify_link;
pub mod versus;

use link::{Conditions, Link};
use namespace::Namespace;
use neighbours::{Neighbours, Shore};
use portolan_core::Family;
use rules::{Kind, Router};
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// How long a cable may take to be in use, ours: the kernel puts off such news for a second at
/// most.
const SETTLES_WITHIN: Duration = Duration::from_secs(3);

/// The Internet, and how to put something on it. What is put on it is kept by whoever asked.
#[derive(Debug)]
pub struct Lab {
    /// What lies between the site of the node and the others, and who is on its sides. It goes
    /// first, since its devices are on the Internet.
    link: Option<(Link, Neighbours)>,
    /// The same of another site.
    other: Option<Link>,
    internet: Namespace,
}

/// A machine.
#[derive(Debug)]
pub struct Host {
    /// Its addresses, the first one being the one that it speaks from.
    pub ips: Vec<IpAddr>,
    /// Where it runs.
    pub space: Namespace,
}

/// A router with its networks.
#[derive(Debug)]
pub struct Gateway {
    /// Its external IPv4 address.
    pub outside: Ipv4Addr,
    /// Its address towards its hosts.
    pub inside: Ipv4Addr,
    /// Where it runs; its interfaces are called `wan` and `lan`.
    pub space: Namespace,
    /// Whom to tell of the hosts for which it answers across a link, and on which side it is.
    neighbours: Option<(Neighbours, Shore)>,
}

/// Why there can be no lab here, in words.
///
/// # Errors
/// If a tool is missing, or this is not root on Linux.
pub fn available() -> Result<(), String> {
    let needed = "the lab needs root on Linux, ip (iproute2), nft (nftables) and conntrack";
    let install = "tests/install-lab.sh installs the tools";
    for (tool, args) in [
        ("ip", &["netns", "list"][..]),
        ("nft", &["list", "ruleset"]),
        ("conntrack", &["--version"]),
    ] {
        match Command::new(tool).args(args).output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(format!("{needed}: {tool} says \"{said}\"; {install}"));
            }
            Err(error) => return Err(format!("{needed}: {tool}: {error}; {install}")),
        }
    }
    Namespace::new("try").map(drop).map_err(|error| format!("{needed}: {error}; {install}"))
}

impl Lab {
    /// An Internet with nobody on it, and what the way to the site of the node shall be like.
    ///
    /// # Errors
    /// If this is not root, or a tool is missing.
    pub fn new(conditions: Conditions) -> io::Result<Lab> {
        let internet = Namespace::new("internet")?;
        internet
            .ip("link add br0 type bridge forward_delay 0 mcast_snooping 0\nlink set br0 up")?;
        internet.sysctl("bridge/bridge-nf-call-iptables", "0")?;
        internet.sysctl("bridge/bridge-nf-call-ip6tables", "0")?;
        let link = if conditions.is_none() {
            None
        } else {
            Some((Link::new(&internet, link::ACCESS, conditions)?, Neighbours::default()))
        };
        Ok(Lab { link, other: None, internet })
    }

    /// An Internet with two sites, each across a link of its own.
    ///
    /// # Errors
    /// If this is not root, or a tool is missing.
    pub fn with_two_sites(conditions: Conditions) -> io::Result<Lab> {
        let lab = Lab::new(conditions)?;
        let other = Some(Link::new(&lab.internet, link::OTHER, conditions)?);
        Ok(Lab { other, ..lab })
    }

    /// What lies between the site of the node and the others.
    pub fn link(&self) -> Option<&Link> {
        self.link.as_ref().map(|(link, _)| link)
    }

    /// A public host. Its first addresses of each family are the ones that it speaks from.
    ///
    /// # Errors
    /// If a command fails.
    pub fn public(&self, label: &str, ips: &[IpAddr]) -> io::Result<Host> {
        let host = self.host("br0", label, ips)?;
        if let Some((_, neighbours)) = &self.link {
            neighbours.add(Shore::Far, (&host.space, "eth0"), ips)?;
        }
        Ok(host)
    }

    /// A public host at the site of the node, across the link from the others if there is one.
    ///
    /// # Errors
    /// If a command fails.
    pub fn open(&self, label: &str, ips: &[IpAddr]) -> io::Result<Host> {
        let host = self.host(self.site(), label, ips)?;
        if let Some((_, neighbours)) = &self.link {
            neighbours.add(Shore::Near, (&host.space, "eth0"), ips)?;
        }
        Ok(host)
    }

    /// Wait until everything on its bridges can be heard.
    ///
    /// # Errors
    /// If something cannot be in the end.
    pub fn settle(&self) -> io::Result<()> {
        settle(&self.internet, "br0")?;
        if self.link.is_some() {
            settle(&self.internet, link::ACCESS)?;
        }
        if self.other.is_some() { settle(&self.internet, link::OTHER) } else { Ok(()) }
    }

    /// The bridge into which the site of the node is plugged.
    fn site(&self) -> &'static str {
        if self.link.is_some() { link::ACCESS } else { "br0" }
    }

    fn host(&self, bridge: &str, label: &str, ips: &[IpAddr]) -> io::Result<Host> {
        let space = Namespace::new(label)?;
        plug((&self.internet, bridge), (&space, "eth0"), label)?;
        let mut commands = String::new();
        for ip in ips {
            commands += &address(*ip, "eth0", if ip.is_ipv4() { 32 } else { 128 });
        }
        commands += "link set eth0 up\n";
        if let Some(ip) = ips.iter().find(|ip| ip.is_ipv4()) {
            let _ = writeln!(commands, "route add default dev eth0 src {ip}");
        }
        if let Some(ip) = ips.iter().find(|ip| ip.is_ipv6()) {
            let _ = writeln!(commands, "route add ::/0 dev eth0 src {ip}");
        }
        space.ip(&commands)?;
        Ok(Host { ips: ips.to_vec(), space })
    }

    /// A router on the Internet.
    ///
    /// # Errors
    /// If a command fails.
    pub fn router(&self, outside: Ipv4Addr, router: &Router) -> io::Result<Gateway> {
        let inside = match router.kind {
            Kind::Firewall => Ipv4Addr::new(FIREWALLED, 200, 1, 1),
            Kind::Independent(_) | Kind::Dependent => Ipv4Addr::new(192, 168, 1, 1),
        };
        self.gateway(Shore::Near, (outside, inside), router)
    }

    /// A router at the other site, which translates.
    ///
    /// # Errors
    /// If a command fails.
    pub fn other_router(&self, outside: Ipv4Addr, router: &Router) -> io::Result<Gateway> {
        self.gateway(Shore::Other, (outside, Ipv4Addr::new(192, 168, 1, 1)), router)
    }

    /// A carrier's router, with a network for other routers behind it (RFC 6598).
    ///
    /// # Errors
    /// If a command fails.
    pub fn carrier(&self, outside: Ipv4Addr, router: &Router) -> io::Result<Gateway> {
        self.gateway(Shore::Near, (outside, Ipv4Addr::new(100, 64, 0, 1)), router)
    }

    /// The same at the other site.
    ///
    /// # Errors
    /// If a command fails.
    pub fn other_carrier(&self, outside: Ipv4Addr, router: &Router) -> io::Result<Gateway> {
        self.gateway(Shore::Other, (outside, Ipv4Addr::new(100, 64, 0, 1)), router)
    }

    fn gateway(
        &self,
        shore: Shore,
        (outside, inside): (Ipv4Addr, Ipv4Addr),
        router: &Router,
    ) -> io::Result<Gateway> {
        let space = Namespace::new("router")?;
        let bridge = match shore {
            Shore::Near => self.site(),
            Shore::Far => "br0",
            Shore::Other => link::OTHER,
        };
        plug((&self.internet, bridge), (&space, "wan"), "router")?;
        space.ip(&format!(
            "{}link set wan up\nroute add default dev wan\nroute add ::/0 dev wan\n",
            address(outside.into(), "wan", 32)
        ))?;
        let neighbours = self.link.as_ref().map(|(_, neighbours)| (neighbours.clone(), shore));
        if let Some((neighbours, shore)) = &neighbours {
            neighbours.add(*shore, (&space, "wan"), &[outside.into()])?;
        }
        let gateway = Gateway::set_up(space, (outside, inside), router)?;
        Ok(Gateway { neighbours, ..gateway })
    }
}

impl Gateway {
    /// A home router in the network of a carrier's.
    ///
    /// # Errors
    /// If a command fails.
    pub fn nested(&self, outside: Ipv4Addr, router: &Router) -> io::Result<Gateway> {
        let space = Namespace::new("inner")?;
        plug((&self.space, "lan"), (&space, "wan"), "inner")?;
        space.ip(&format!(
            "{}link set wan up\nroute add default via {}\n",
            address(outside.into(), "wan", 16),
            self.inside
        ))?;
        Gateway::set_up(space, (outside, Ipv4Addr::new(192, 168, 1, 1)), router)
    }

    /// A host behind the router, in its network; the last byte of its address is given. Where the
    /// router has an IPv6 network, the host has an address in it that ends alike.
    ///
    /// # Errors
    /// If a command fails.
    pub fn host(&self, label: &str, last: u8) -> io::Result<Host> {
        let space = Namespace::new(label)?;
        plug((&self.space, "lan"), (&space, "eth0"), label)?;
        let [a, b, c, _] = self.inside.octets();
        let ip = Ipv4Addr::new(a, b, c, last);
        let ip6 = lan6(self.outside, last);
        space.ip(&format!(
            "{}{}link set eth0 up\nroute add default via {}\nroute add ::/0 via {}\n",
            address(ip.into(), "eth0", 24),
            address(ip6.into(), "eth0", 64),
            self.inside,
            lan6(self.outside, 1),
        ))?;
        self.space.ip(&format!("neigh add proxy {ip6} dev wan\n"))?;
        if let Some((neighbours, shore)) = &self.neighbours {
            // Its IPv4 address is one of the Internet behind a firewall only.
            let answered =
                if a == FIREWALLED { vec![ip.into(), ip6.into()] } else { vec![ip6.into()] };
            neighbours.add(*shore, (&self.space, "wan"), &answered)?;
        }
        Ok(Host { ips: vec![ip.into(), ip6.into()], space })
    }

    /// Wait until everything in its network can be heard.
    ///
    /// # Errors
    /// If something cannot be in the end.
    pub fn settle(&self) -> io::Result<()> {
        settle(&self.space, "lan")
    }

    /// Load other rules, and forget every flow.
    ///
    /// # Errors
    /// If a command fails.
    pub fn load(&self, router: &Router) -> io::Result<()> {
        let ip6 = if router.open_ip6 { "" } else { FIREWALL6 };
        self.space.nft(&format!("flush ruleset\n{}{ip6}", router.rules()))
    }

    fn set_up(
        space: Namespace,
        (outside, inside): (Ipv4Addr, Ipv4Addr),
        router: &Router,
    ) -> io::Result<Gateway> {
        space.ip(&format!(
            "link add lan type bridge forward_delay 0 mcast_snooping 0\nlink set lan up\n{}{}",
            address(inside.into(), "lan", if inside.octets()[0] == 100 { 16 } else { 24 }),
            address(lan6(outside, 1).into(), "lan", 64),
        ))?;
        let idle = router.udp_idle.as_secs().to_string();
        let tcp_idle = router.tcp_idle.as_secs().to_string();
        for (key, value) in [
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/wan/proxy_ndp", "1"),
            // Who answers for others waits for up to a second, unless told not to.
            ("ipv4/neigh/wan/proxy_delay", "0"),
            ("ipv6/neigh/wan/proxy_delay", "0"),
            ("bridge/bridge-nf-call-iptables", "0"),
            ("bridge/bridge-nf-call-ip6tables", "0"),
            ("netfilter/nf_conntrack_udp_timeout", &idle),
            ("netfilter/nf_conntrack_udp_timeout_stream", &idle),
            ("netfilter/nf_conntrack_tcp_timeout_established", &tcp_idle),
        ] {
            space.sysctl(key, value)?;
        }
        if router.kind == Kind::Firewall {
            // Its hosts have addresses of the Internet, for which it answers there.
            space.sysctl("ipv4/conf/wan/proxy_arp", "1")?;
        }
        let gateway = Gateway { outside, inside, space, neighbours: None };
        gateway.load(router)?;
        Ok(gateway)
    }
}

impl Host {
    /// Its first address of a family, if it has one.
    pub fn ip(&self, family: Family) -> Option<IpAddr> {
        self.ips.iter().copied().find(|ip| Family::of(*ip) == family)
    }

    /// Its first IPv4 address.
    ///
    /// # Panics
    /// If it has none.
    pub fn ip4(&self) -> Ipv4Addr {
        let ip4 = self.ips.iter().find_map(|ip| match ip {
            IpAddr::V4(ip) => Some(*ip),
            IpAddr::V6(_) => None,
        });
        ip4.expect("every host of the lab has an IPv4 address")
    }
}

/// How the network behind a router that does not translate begins.
const FIREWALLED: u8 = 44;

/// An address in the network behind a router; routers whose addresses end alike have the same.
fn lan6(outside: Ipv4Addr, last: u8) -> Ipv6Addr {
    let [.., number] = outside.octets();
    Ipv6Addr::new(0x2600, 0x200, number.into(), 0, 0, 0, 0, last.into())
}

/// A stateful firewall, as home routers have it (RFC 6092).
const FIREWALL6: &str = "table ip6 portolan {\n\
    chain forward {\n type filter hook forward priority filter; policy drop;\n \
    ct state established,related accept\n iifname lan accept\n meta l4proto icmpv6 accept\n}\n}\n";

fn address(ip: IpAddr, interface: &str, prefix: u8) -> String {
    let tail = if ip.is_ipv6() { " nodad" } else { "" };
    format!("addr add {ip}/{prefix} dev {interface}{tail}\n")
}

/// Lay a cable from a bridge to a new interface of a namespace.
fn plug(
    (at, bridge): (&Namespace, &str),
    (space, interface): (&Namespace, &str),
    label: &str,
) -> io::Result<()> {
    // At most fifteen bytes, and unique on its bridge.
    let number = number(space);
    let label: String = label.chars().take(15 - number.len() - 1).collect();
    let port = format!("{label}-{number}");
    at.ip(&format!(
        "link add {port} type veth peer name {interface} address {} netns {}\n\
         link set {port} master {bridge} up\n",
        mac(space),
        space.name()
    ))
}

/// Wait until every cable of a bridge is in use. The kernel learns a moment later than we that a
/// far end is up, and until then the bridge drops what is to go there.
fn settle(space: &Namespace, bridge: &str) -> io::Result<()> {
    let started = Instant::now();
    loop {
        let ports = space.output("ip", &["-br", "link", "show", "master", bridge])?;
        let down = |port: &str| {
            let state = port.split_whitespace().nth(1);
            state.is_some_and(|state| state.ends_with("DOWN"))
        };
        if !ports.lines().any(down) {
            return Ok(());
        }
        if started.elapsed() > SETTLES_WITHIN {
            return Err(io::Error::other(format!("of {bridge} something is down:\n{ports}")));
        }
        // sleep: between two looks at what the kernel tells nobody.
        thread::sleep(Duration::from_millis(2));
    }
}

/// The number of a namespace, one of a kind in this process.
fn number(space: &Namespace) -> &str {
    space.name().split('-').nth(2).unwrap_or_default()
}

/// The address on its cable of the one interface of a namespace that [`plug`] has made there.
fn mac(space: &Namespace) -> String {
    let [.., a, b, c, d] = number(space).parse::<u64>().unwrap_or_default().to_be_bytes();
    // Locally administered, and nobody's.
    format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}
