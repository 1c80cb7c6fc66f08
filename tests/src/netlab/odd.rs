//! Peers that are not as they should be: liars, servers that cannot do their duty, and peers that
//! see everybody where nobody is.

use super::Host;
use super::cells::{Conclusion, PORT, Place, Site};
use super::faces::Trick;
use super::peers::{self, On, Server};
use super::rules::Layer;
use portolan_core::Family;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

/// So many of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Others {
    /// How many.
    pub count: u8,
    /// What is the matter with them.
    pub odd: Odd,
}

/// What is the matter with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Odd {
    /// An honest server on a host that hears no answer to what it dials.
    Deaf,
    /// A server that follows a script.
    Scripted(Trick),
    /// An honest server that sees all who come to it at addresses where nobody is, each another; all
    /// of them are in one network.
    Dazzled,
    /// An honest server on a host that no UDP reaches.
    NoUdp,
    /// An honest server on a host that no IPv6 reaches.
    NoIp6,
}

impl Others {
    /// Nobody.
    pub const NONE: Others = Others { count: 0, odd: Odd::Deaf };

    /// In a few words; none where there is nobody.
    pub fn name(self) -> String {
        let what = match self.odd {
            Odd::Deaf => "that cannot dial".into(),
            Odd::Scripted(trick) => trick.name(),
            Odd::Dazzled => "in one network that see wrong addresses".into(),
            Odd::NoUdp => "without UDP".into(),
            Odd::NoIp6 => "without IPv6".into(),
        };
        if self.count == 0 { String::new() } else { format!("{} {what}", self.count) }
    }

    /// What a node can conclude of a class that has only these to ask.
    pub fn leave(self, site: Site, (family, layer): (Family, Layer)) -> Conclusion {
        let open = site == Site::Open;
        match self.odd {
            Odd::NoUdp if open && layer == Layer::Tcp => Conclusion::PresumedOpen,
            Odd::NoIp6 if open && family == Family::Ip4 => Conclusion::PresumedOpen,
            Odd::Deaf | Odd::Scripted(_) | Odd::Dazzled | Odd::NoUdp | Odd::NoIp6 => {
                Conclusion::Unknown
            }
        }
    }

    /// Put them on the Internet.
    ///
    /// # Errors
    /// If a command fails.
    pub fn join(self, place: &mut Place) -> io::Result<()> {
        for number in 1..=self.count {
            let ip = match self.odd {
                Odd::Dazzled => Ipv4Addr::new(45, 50, 1, number),
                Odd::Deaf | Odd::Scripted(_) | Odd::NoUdp | Odd::NoIp6 => {
                    Ipv4Addr::new(44, 50 + number, 1, 1)
                }
            };
            let host = place.lab.public(&format!("o{number}"), &[ip.into()])?;
            host.space.nft(&self.rules(number))?;
            place.others.push(host);
        }
        if self.count == 0 { Ok(()) } else { place.lab.settle() }
    }

    fn rules(self, number: u8) -> String {
        let input = |rule: &str| {
            format!(
                "table inet portolan {{\n chain input {{\n type filter hook input priority \
                 filter;\n {rule}\n }}\n}}\n"
            )
        };
        match self.odd {
            Odd::Deaf => input("meta l4proto { tcp, udp } ct direction reply drop"),
            Odd::NoUdp => input("meta l4proto udp drop"),
            // The host has no such address; what it has no route to, it cannot dial.
            Odd::NoIp6 | Odd::Scripted(_) => String::new(),
            Odd::Dazzled => {
                let bogus = bogus(number);
                let rule = |layer: Layer| {
                    let layer = layer.name();
                    format!("{layer} dport {PORT} snat to {bogus}:{}\n", 7_000 + u16::from(number))
                };
                let [tcp, udp] = Layer::ALL.map(rule);
                format!(
                    "table ip portolan {{\n chain input {{\n type nat hook input priority 100;\n \
                     {tcp} {udp} }}\n}}\n"
                )
            }
        }
    }

    /// Start the programs.
    ///
    /// # Errors
    /// If one does not start.
    pub fn start(
        self,
        place: &Place,
        listen: &dyn Fn(IpAddr) -> Vec<String>,
        on: On,
    ) -> io::Result<Vec<Server>> {
        let start = |host: &Host| {
            let listen = listen(host.ip4().into());
            match self.odd {
                Odd::Scripted(trick) => {
                    let node = Layer::ALL.map(|layer| layer.address(place.outside.into(), PORT));
                    peers::follow(host, &listen, trick, &node)
                }
                Odd::Deaf | Odd::Dazzled | Odd::NoUdp | Odd::NoIp6 => {
                    peers::serve(host, &listen, &[], on)
                }
            }
        };
        place.others.iter().map(start).collect()
    }
}

/// Where the dazzled peer of this number sees those who come to it.
fn bogus(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(BOGUS[0], BOGUS[1], 0, number)
}

/// How the addresses begin that dazzled peers see.
pub const BOGUS: [u8; 2] = [45, 90];
