//! Who plays: a fixed cast of peers, the same as a story's by the same names.

use libp2p_identity::{Keypair, PublicKey};
use portolan_core::{Addr, Family, PeerId, Transport};
use std::fmt;
use std::net::IpAddr;
use std::sync::LazyLock;

/// The name of the node that everything is about.
pub const NODE: &str = "Node";

/// Name, IPv4 and IPv6 address of everybody. `S1` and `S4` share a /24, and so do `C1` and `C2`;
/// `X1` and `X2` are the identities under which servers dial back.
const CAST: [(&str, &str, &str); 14] = [
    ("S1", "44.0.1.1", "2600:1::1"),
    ("S2", "44.0.2.1", "2600:2::1"),
    ("S3", "44.0.3.1", "2600:3::1"),
    ("S4", "44.0.1.9", "2600:1::9"),
    ("S5", "44.0.5.1", "2600:5::1"),
    ("S6", "44.0.6.1", "2600:6::1"),
    ("C1", "55.0.0.7", "2600:70::7"),
    ("C2", "55.0.0.8", "2600:70::8"),
    ("C3", "55.0.3.7", "2600:73::7"),
    ("C4", "55.0.4.7", "2600:74::7"),
    ("X1", "77.0.1.1", "2600:a1::1"),
    ("X2", "77.0.2.1", "2600:a2::1"),
    ("Y1", "88.0.1.1", "2600:b1::1"),
    ("Y2", "88.0.2.1", "2600:b2::1"),
];

static IDS: LazyLock<Vec<PeerId>> =
    LazyLock::new(|| CAST.iter().map(|(name, ..)| public_key(name).to_peer_id()).collect());

/// The key of whoever goes by `name`: the seed is the name itself, as in stories.
pub(super) fn public_key(name: &str) -> PublicKey {
    let mut seed = [0; 32];
    seed.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    Keypair::ed25519_from_bytes(seed).expect("any 32 bytes are an ed25519 seed").public()
}

/// One of the cast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer(usize);

impl Peer {
    /// The server with this number, from 1 to 6.
    ///
    /// # Panics
    /// There is no such server.
    pub fn server(number: usize) -> Peer {
        Peer::numbered('S', number)
    }

    /// The requester with this number, from 1 to 4.
    ///
    /// # Panics
    /// There is no such requester.
    pub fn client(number: usize) -> Peer {
        Peer::numbered('C', number)
    }

    /// The identity under which somebody dials back, 1 or 2.
    ///
    /// # Panics
    /// There is no such identity.
    pub fn back(number: usize) -> Peer {
        Peer::numbered('X', number)
    }

    /// A peer that comes in by itself, 1 or 2.
    ///
    /// # Panics
    /// There is no such peer.
    pub fn stranger(number: usize) -> Peer {
        Peer::numbered('Y', number)
    }

    fn numbered(letter: char, number: usize) -> Peer {
        let name = format!("{letter}{number}");
        let at = CAST.iter().position(|(one, ..)| *one == name);
        Peer(at.unwrap_or_else(|| panic!("{name} is not of the cast")))
    }

    /// Whose id this is.
    pub fn of(id: PeerId) -> Option<Peer> {
        IDS.iter().position(|one| *one == id).map(Peer)
    }

    /// The name in stories.
    pub fn name(self) -> &'static str {
        CAST[self.0].0
    }

    /// The identity.
    pub fn id(self) -> PeerId {
        IDS[self.0]
    }

    /// Where it is, in this family.
    pub fn ip(self, family: Family) -> IpAddr {
        let (_, ip4, ip6) = CAST[self.0];
        let text = if family == Family::Ip4 { ip4 } else { ip6 };
        text.parse().expect("the cast lives at plain addresses")
    }

    /// An address from which it never speaks by itself: another network of its own.
    pub fn other_ip(self, family: Family) -> IpAddr {
        match self.ip(family) {
            IpAddr::V4(ip) => {
                let [_, b, c, d] = ip.octets();
                IpAddr::from([45, b, c, d])
            }
            IpAddr::V6(ip) => {
                let mut segments = ip.segments();
                segments[0] = 0x2601;
                IpAddr::from(segments)
            }
        }
    }

    /// Where it listens.
    pub fn addr(self, family: Family, transport: Transport) -> Addr {
        Addr::new(self.ip(family), 4001, transport)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
