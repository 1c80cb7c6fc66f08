//! What stands for what: a first reading finds everything that must go, and a key decides what
//! comes in its place.

use super::ips::{self, Ips};
use crate::words::checkpoint::Exchange;
use crate::{PeerId, PublicKey};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use libp2p_identity::ed25519;
use siphasher::sip::SipHasher24;

/// Characters of the shortest and the longest peer id that is looked for in a text, number: a
/// SHA-256 in base 58 begins with `Qm` and has 46, an Ed25519 key has 52, a secp256k1 key 53; an
/// id holds a key of 42 bytes at most, which takes 60 with what stands before it.
const ID_CHARS: core::ops::RangeInclusive<usize> = 46..=60;
/// Characters of the longest text of an IP with its port, number: `[…]:65535` around an IPv6
/// address that ends in an IPv4 one.
const SOCKET_CHARS_MAX: usize = 53;

/// Goes through a record in place of the reader: everything that may identify somebody is handed
/// in, and what comes back is written.
pub(super) trait Retell: Exchange {
    /// A DNS name.
    fn host(&mut self, name: &str) -> String;
    /// A text that somebody chose.
    fn text(&mut self, text: &str) -> String;
}

/// The first reading: everything stays, and is written down.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    ips: BTreeSet<IpAddr>,
    peers: BTreeSet<PeerId>,
}

impl Exchange for Found {
    fn ip(&mut self, ip: IpAddr) -> IpAddr {
        self.ips.insert(ip);
        ip
    }

    fn peer(&mut self, peer: PeerId) -> PeerId {
        self.peers.insert(peer);
        peer
    }

    fn key(&mut self, key: &PublicKey) -> PublicKey {
        self.peers.insert(key.to_peer_id());
        key.clone()
    }
}

impl Retell for Found {
    fn host(&mut self, name: &str) -> String {
        name.into()
    }

    fn text(&mut self, text: &str) -> String {
        text.into()
    }
}

/// What a keyed hash is taken for: equal inputs for two purposes have unrelated outputs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    Ip4 = 4,
    Ip6 = 6,
    Key = 1,
    Host = 2,
}

/// Chance that depends on nothing but its key and what it is asked.
#[derive(Clone, Copy)]
pub(super) struct Salt([u8; 16]);

impl Salt {
    pub(super) fn new(salt: [u8; 16]) -> Salt {
        Salt(salt)
    }

    pub(super) fn word(&self, purpose: Purpose, of: &[u8]) -> u64 {
        let mut bytes = Vec::with_capacity(1 + of.len());
        bytes.push(purpose as u8);
        bytes.extend_from_slice(of);
        SipHasher24::new_with_key(&self.0).hash(&bytes)
    }
}

/// The second reading: one thing comes in the place of another.
pub(super) struct Others {
    salt: Salt,
    ips: Ips,
    peers: BTreeMap<PeerId, PublicKey>,
    /// Stands for a peer that the first reading has not seen, of which there is none.
    nobody: PublicKey,
}

impl Others {
    pub(super) fn new(salt: [u8; 16], found: Found) -> Others {
        let salt = Salt::new(salt);
        let mut keys = Keys { salt, number: 0 };
        let nobody = keys.next();
        let mut fresh = BTreeMap::new();
        while fresh.len() < found.peers.len() {
            let key = keys.next();
            fresh.insert(key.to_peer_id(), key);
        }
        // The lowest stands for the lowest: core goes through peers in their order.
        let peers = found.peers.into_iter().zip(fresh.into_values()).collect();
        Others { salt, ips: Ips::new(&salt, &found.ips), peers, nobody }
    }

    /// What stands for one word of a text: for an address or a peer of the record that it is.
    fn word(&self, word: &str) -> Option<String> {
        if ID_CHARS.contains(&word.len())
            && let Ok(peer) = word.parse::<PeerId>()
        {
            return self.peers.get(&peer).map(|key| key.to_peer_id().to_string());
        }
        if word.len() > SOCKET_CHARS_MAX {
            return None;
        }
        if let Ok(ip) = word.parse::<IpAddr>() {
            return self.known_ip(ip).map(|ip| ip.to_string());
        }
        if let Some(inner) = word.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let ip = inner.parse::<IpAddr>().ok()?;
            return self.known_ip(ip).map(|ip| format!("[{ip}]"));
        }
        let socket = word.parse::<SocketAddr>().ok()?;
        self.known_ip(socket.ip()).map(|ip| SocketAddr::new(ip, socket.port()).to_string())
    }

    /// What stands for an IP of the record, however it is written.
    fn known_ip(&self, ip: IpAddr) -> Option<IpAddr> {
        self.ips.get(ip).or_else(|| self.ips.get(ip.to_canonical()))
    }
}

/// Public keys to which nobody has the private one: bytes that happen to be a point of the curve.
struct Keys {
    salt: Salt,
    number: u64,
}

impl Keys {
    fn next(&mut self) -> PublicKey {
        // Every second number gives one.
        loop {
            self.number = self.number.wrapping_add(1);
            if let Ok(key) = ed25519::PublicKey::try_from_bytes(&self.bytes()) {
                return key.into();
            }
        }
    }

    fn bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (index, word) in (0..).zip(bytes.chunks_exact_mut(8)) {
            let of = [self.number, index].map(u64::to_le_bytes);
            word.copy_from_slice(&self.salt.word(Purpose::Key, of.as_flattened()).to_le_bytes());
        }
        bytes
    }
}

impl Exchange for Others {
    fn ip(&mut self, ip: IpAddr) -> IpAddr {
        self.ips.get(ip).unwrap_or(ips::nowhere(ip))
    }

    fn peer(&mut self, peer: PeerId) -> PeerId {
        self.peers.get(&peer).unwrap_or(&self.nobody).to_peer_id()
    }

    fn key(&mut self, key: &PublicKey) -> PublicKey {
        self.peers.get(&key.to_peer_id()).unwrap_or(&self.nobody).clone()
    }
}

impl Retell for Others {
    fn host(&mut self, name: &str) -> String {
        // RFC 6761 §6.4: no name under `invalid` ever exists.
        format!("h{:016x}.invalid", self.salt.word(Purpose::Host, name.as_bytes()))
    }

    fn text(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '[' | ']');
        for part in text.split_inclusive(|c| !is_word(c)) {
            let word = part.trim_end_matches(|c| !is_word(c));
            match self.word(word) {
                Some(other) => out.push_str(&other),
                None => out.push_str(word),
            }
            out.push_str(&part[word.len()..]);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p_identity::Keypair;

    fn key(seed: u8) -> PublicKey {
        Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes are a key").public()
    }

    /// A key of the kind whose peer id is the longest to write.
    fn longest() -> PublicKey {
        use libp2p_identity::secp256k1::{Keypair, SecretKey};
        let secret = SecretKey::try_from_bytes([1; 32]).expect("32 bytes are a key");
        PublicKey::from(Keypair::from(secret).public().clone())
    }

    fn others(salt: u8) -> Others {
        let mut found = Found::default();
        (0..50).for_each(|seed| drop(found.key(&key(seed))));
        found.key(&longest());
        found.ip(IpAddr::from([44, 1, 2, 3]));
        found.ip(IpAddr::from([0x2600, 1, 2, 3, 4, 5, 6, 7]));
        Others::new([salt; 16], found)
    }

    #[test]
    fn peers_keep_their_order_and_nothing_else() {
        let (mut first, mut second) = (others(1), others(2));
        let all: BTreeSet<PeerId> = (0..50).map(|seed| key(seed).to_peer_id()).collect();
        let fresh: Vec<PeerId> = all.iter().map(|peer| first.peer(*peer)).collect();
        assert!(fresh.is_sorted_by(|a, b| a < b), "each stands for one, in their order");
        for (peer, fresh) in all.iter().zip(&fresh) {
            assert!(!all.contains(fresh));
            assert_ne!(second.peer(*peer), *fresh, "another salt, another peer");
        }
        for seed in 0..50 {
            let key = key(seed);
            assert_eq!(first.key(&key).to_peer_id(), first.peer(key.to_peer_id()));
        }
        let stranger = key(99);
        assert!(!fresh.contains(&first.peer(stranger.to_peer_id())));
        assert_ne!(first.key(&stranger), stranger);
    }

    #[test]
    fn names_are_others_and_texts_keep_all_but_whom_the_record_knows() {
        let mut others = others(1);
        let peer = key(3).to_peer_id();
        let other = others.peer(peer);
        let long = longest().to_peer_id();
        assert_eq!(long.to_string().len(), 53);
        let four = others.ip(IpAddr::from([44, 1, 2, 3]));
        let six = others.ip(IpAddr::from([0x2600, 1, 2, 3, 4, 5, 6, 7]));
        for (text, told) in [
            (format!("/x/{peer}"), format!("/x/{other}")),
            (format!("{peer}"), format!("{other}")),
            ("44.1.2.3".into(), format!("{four}")),
            ("at 44.1.2.3:80, [2600:1:2:3:4:5:6:7]:9".into(), format!("at {four}:80, [{six}]:9")),
            ("a/2600:1:2:3:4:5:6:7/b".into(), format!("a/{six}/b")),
            ("[2600:1:2:3:4:5:6:7] [44.1.2.3]".into(), format!("[{six}] [{four}]")),
            ("::ffff:44.1.2.3".into(), format!("{four}")),
            (format!("/x/{long}"), format!("/x/{}", others.peer(long))),
            ("kubo/0.39.0 (44.1.2.4) \u{2026}".into(), "kubo/0.39.0 (44.1.2.4) \u{2026}".into()),
            ("/ipfs/id/1.0.0".into(), "/ipfs/id/1.0.0".into()),
            (String::new(), String::new()),
        ] {
            assert_eq!(others.text(&text), told);
        }
        assert_eq!(others.host("a.example"), others.host("a.example"));
        assert_ne!(others.host("a.example"), others.host("b.example"));
    }
}
