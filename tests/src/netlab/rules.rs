//! Routers by RFC 4787 and 5382, as rules of nftables.
//!
//! Linux itself maps a host's port to the same external port for everybody (`masquerade`), or to
//! a random one for each destination (`masquerade fully-random`), and always filters by address
//! and port. What lets in more is told here what was mapped: behind the translation a chain writes
//! each mapping into two maps, one for later flows from the same endpoint and one for whoever comes
//! in; where addresses are filtered, a set holds who was written to from which external port.

use portolan_sim::net::{Dependence, Refusal};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddrV4};
use std::time::Duration;

/// What a router does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// It lets nothing in that was not asked for, and translates nothing.
    Firewall,
    /// Endpoint-independent mapping.
    Independent(Dependence),
    /// Address-and-port-dependent mapping and filtering, with random ports.
    Dependent,
}

impl Kind {
    /// Mapping × filtering, or `firewall`.
    pub fn name(self) -> String {
        match self {
            Kind::Firewall => "firewall".into(),
            Kind::Independent(filtering) => format!("EI×{}", filtering.name().to_uppercase()),
            Kind::Dependent => "APD×APD".into(),
        }
    }
}

/// A protocol of the transport layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// TCP.
    Tcp,
    /// UDP, and QUIC on it.
    Udp,
}

impl Layer {
    /// Both.
    pub const ALL: [Layer; 2] = [Layer::Tcp, Layer::Udp];

    /// An address to listen on or to dial, as a multiaddr.
    pub fn address(self, ip: IpAddr, port: u16) -> String {
        let family = if ip.is_ipv4() { "ip4" } else { "ip6" };
        match self {
            Layer::Tcp => format!("/{family}/{ip}/tcp/{port}"),
            Layer::Udp => format!("/{family}/{ip}/udp/{port}/quic-v1"),
        }
    }

    /// As nftables calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Layer::Tcp => "tcp",
            Layer::Udp => "udp",
        }
    }
}

/// A router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Router {
    /// What it does.
    pub kind: Kind,
    /// What it does with what nobody asked for.
    pub refusal: Refusal,
    /// How long a UDP mapping lasts after the last packet from inside.
    pub udp_idle: Duration,
    /// How long a TCP connection on which nothing goes on is remembered.
    pub tcp_idle: Duration,
    /// What it lets nobody speak.
    pub blocked: Option<Layer>,
    /// Whether its IPv6 network is open to everybody, instead of behind a stateful firewall.
    pub open_ip6: bool,
    /// Ports that the operator has forwarded: the external one and where it leads.
    pub forwards: Vec<(u16, SocketAddrV4)>,
}

impl Router {
    /// A router that forwards and blocks nothing, with the time-outs that RFC 4787 §4.3 recommends and
    /// RFC 5382 §5 demands.
    pub fn new(kind: Kind, refusal: Refusal) -> Router {
        let udp_idle = Duration::from_secs(300);
        let tcp_idle = Duration::from_secs(7_440);
        let forwards = Vec::new();
        Router { kind, refusal, udp_idle, tcp_idle, blocked: None, open_ip6: false, forwards }
    }

    /// Its rules for IPv4. The interfaces are called `wan` and `lan`.
    pub fn rules(&self) -> String {
        let mut text = "table ip portolan {\n".to_owned();
        if self.filtering().is_some() {
            Layer::ALL.iter().for_each(|layer| self.maps(&mut text, *layer));
        }
        text += "chain prerouting {\n type nat hook prerouting priority dstnat;\n";
        for (port, to) in &self.forwards {
            for layer in Layer::ALL {
                text += &forward(layer, *port, *to);
            }
        }
        if let Some(filtering) = self.filtering() {
            for layer in Layer::ALL.map(Layer::name) {
                let met = match filtering {
                    Dependence::Independent => String::new(),
                    Dependence::Address | Dependence::AddressAndPort => {
                        format!("ip saddr . {layer} dport @met_{layer}")
                    }
                };
                let _ = writeln!(
                    text,
                    " iifname wan meta l4proto {layer} {met} dnat ip addr . port to \
                     {layer} dport map @in_{layer}"
                );
            }
        }
        text += "}\nchain postrouting {\n type nat hook postrouting priority srcnat;\n";
        text += &self.translation();
        text += "}\n";
        if self.filtering().is_some() {
            text += "chain learn {\n type filter hook postrouting priority srcnat + 10;\n";
            for layer in Layer::ALL.map(Layer::name) {
                let _ = writeln!(
                    text,
                    " oifname wan ct direction original meta l4proto {layer} jump learn_{layer}"
                );
            }
            text += "}\n";
        }
        text += &self.filter();
        text += "}\n";
        text
    }

    /// Who gets in where the kernel alone would let nobody in.
    fn filtering(&self) -> Option<Dependence> {
        match self.kind {
            Kind::Independent(Dependence::AddressAndPort) | Kind::Firewall | Kind::Dependent => {
                None
            }
            Kind::Independent(filtering) => Some(filtering),
        }
    }

    /// What is remembered of the mappings of a layer, and the chain that writes it.
    fn maps(&self, text: &mut String, layer: Layer) {
        let (idle, layer) = (self.udp_idle.as_secs(), layer.name());
        let flags = format!("flags dynamic,timeout; timeout {idle}s; size 65535;");
        let endpoint = "ipv4_addr . inet_service";
        let original = "ct original ip saddr . ct original proto-src";
        let update = format!(" meta l4proto {layer} update");
        let _ = writeln!(
            text,
            "map out_{layer} {{ type {endpoint} : {endpoint}; {flags} }}\n\
             map in_{layer} {{ type inet_service : {endpoint}; {flags} }}\n\
             set met_{layer} {{ type {endpoint}; {flags} }}\n\
             chain learn_{layer} {{\n\
             {update} @out_{layer} {{ {original} : ip saddr . {layer} sport }}\n\
             {update} @in_{layer} {{ {layer} sport : {original} }}\n\
             {update} @met_{layer} {{ ip daddr . {layer} sport }}\n\
             }}"
        );
    }

    fn translation(&self) -> String {
        let mut text = String::new();
        if self.filtering().is_some() {
            for layer in Layer::ALL.map(Layer::name) {
                let _ = writeln!(
                    text,
                    " oifname wan meta l4proto {layer} snat ip addr . port to \
                     ip saddr . {layer} sport map @out_{layer}"
                );
            }
        }
        match self.kind {
            Kind::Firewall => {}
            Kind::Independent(_) => text += " oifname wan masquerade\n",
            Kind::Dependent => text += " oifname wan masquerade fully-random\n",
        }
        text
    }

    /// What goes through and what is said to the router itself.
    fn filter(&self) -> String {
        let refusal = match self.refusal {
            Refusal::Silent => " iifname wan drop\n",
            Refusal::Reject => {
                " iifname wan meta l4proto tcp reject with tcp reset\n iifname wan reject\n"
            }
        };
        let blocked = self.blocked.map_or(String::new(), |layer| {
            format!(" iifname lan meta l4proto {} drop\n", layer.name())
        });
        format!(
            "chain forward {{\n type filter hook forward priority filter; policy drop;\n{blocked} \
             ct state established,related accept\n iifname lan accept\n ct status dnat accept\n\
             {refusal}}}\n\
             chain input {{\n type filter hook input priority filter;\n \
             ct state established,related accept\n meta l4proto icmp accept\n{refusal}}}\n"
        )
    }
}

/// The rule for a forwarded port.
fn forward(layer: Layer, port: u16, to: SocketAddrV4) -> String {
    format!(" iifname wan {} dport {port} dnat to {to}\n", layer.name())
}
