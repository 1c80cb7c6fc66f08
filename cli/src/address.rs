//! Multiaddrs as people type them: what is wrong with one is said beside the text itself.

use multiaddr::{Multiaddr, Protocol};
use portolan_core::{Addr, PeerId};
use portolan_runtime::AddressError;

/// A multiaddr that is of no use here. Says which one, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {problem}")]
pub struct BadAddress {
    /// The text that was given.
    pub text: String,
    /// What is wrong with it.
    pub problem: AddressProblem,
}

/// What is wrong with a text that should be a multiaddr.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressProblem {
    /// It does not parse at all.
    #[error("is not a multiaddr: {0}")]
    Malformed(String),
    /// It is a multiaddr, but of no use.
    #[error(transparent)]
    Useless(#[from] AddressError),
    /// A relay that is not named.
    #[error("must end with /p2p/PEER-ID: a relay is known by it")]
    Nameless,
}

/// Read the address of a peer to dial: IP or name, port and transport (or `/dnsaddr/NAME`), and
/// `/p2p/PEER-ID` at the end if only that peer will do.
///
/// # Errors
/// Names the text and what is wrong with it.
pub fn peer_address(text: &str) -> Result<Multiaddr, BadAddress> {
    read(text, direct).map(|(multiaddr, ())| multiaddr)
}

/// Read what can be dialled: the address of a peer, or one that leads through a relay
/// (`…/p2p/RELAY/p2p-circuit/p2p/PEER-ID`).
///
/// # Errors
/// Names the text and what is wrong with it.
pub fn dial_address(text: &str) -> Result<Multiaddr, BadAddress> {
    read(text, portolan_runtime::dial_address).map(|(multiaddr, ())| multiaddr)
}

/// Read the address of a relay: as that of a peer, with `/p2p/PEER-ID` at the end.
///
/// # Errors
/// Names the text and what is wrong with it.
pub fn relay_address(text: &str) -> Result<Multiaddr, BadAddress> {
    let (addr, ()) = read(text, direct)?;
    if matches!(addr.iter().last(), Some(Protocol::P2p(_))) {
        Ok(addr)
    } else {
        Err(BadAddress { text: text.to_owned(), problem: AddressProblem::Nameless })
    }
}

/// Read the address of a server behind a relay (`…/p2p/RELAY/p2p-circuit/p2p/PEER-ID`).
///
/// # Errors
/// Names the text and what is wrong with it.
pub fn distant_address(text: &str) -> Result<Multiaddr, BadAddress> {
    let meaning = |addr: &Multiaddr| match portolan_runtime::distant_server(addr) {
        // Whether it fits is seen when the name is resolved, and all the rest now.
        Err(AddressError::Named) => portolan_runtime::dial_address(addr),
        read => read.map(|_| ()),
    };
    read(text, meaning).map(|(multiaddr, ())| multiaddr)
}

/// What leads to a peer without a relay.
fn direct(addr: &Multiaddr) -> Result<(), AddressError> {
    let relayed = addr.iter().any(|part| matches!(part, Protocol::P2pCircuit));
    if relayed { Err(AddressError::Relayed) } else { portolan_runtime::dial_address(addr) }
}

/// Read an address that a node may have: IP, port and transport. Whose it is does not matter.
///
/// # Errors
/// Names the text and what is wrong with it.
pub fn plain_address(text: &str) -> Result<Addr, BadAddress> {
    read(text, portolan_runtime::destination).map(|(_, (addr, _))| addr)
}

/// Read an address to listen on. The IP may be a wildcard, the port may be zero.
///
/// # Errors
/// Names the text and what is wrong with it.
pub fn listen_address(text: &str) -> Result<Multiaddr, BadAddress> {
    read(text, portolan_runtime::listen_address).map(|(multiaddr, _)| multiaddr)
}

fn read<T>(
    text: &str,
    meaning: impl FnOnce(&Multiaddr) -> Result<T, AddressError>,
) -> Result<(Multiaddr, T), BadAddress> {
    let fault = |problem| BadAddress { text: text.to_owned(), problem };
    let addr: Multiaddr =
        with_plain_peer_ids(text).parse().map_err(|error| fault(malformed(text, &error)))?;
    let meaning = meaning(&addr).map_err(|error| fault(error.into()))?;
    Ok((addr, meaning))
}

/// The end of a peer id: its beginning is the same for all keys of a type.
pub(crate) fn short(peer: &str) -> String {
    let start = peer.char_indices().rev().nth(7).map_or(0, |(at, _)| at);
    format!("…{}", &peer[start..])
}

/// The text with every peer id that is written as a CID in its base58btc form, the only one that
/// the parser of multiaddrs reads. What is no CID stays as it is.
fn with_plain_peer_ids(text: &str) -> String {
    let mut names_peer = false;
    let plain = |part: &str| {
        let peer = if names_peer { peer_of_cid(part) } else { None };
        names_peer = matches!(part, "p2p" | "ipfs");
        peer.map_or_else(|| part.to_owned(), |peer| peer.to_base58())
    };
    text.split('/').map(plain).collect::<Vec<_>>().join("/")
}

/// The peer id in a CID. peer-ids §String representation: CIDs start with 1 (the version), have the
/// multicodec libp2p-key (0x72), and MUST be understood.
fn peer_of_cid(text: &str) -> Option<PeerId> {
    let (_, bytes) = multibase::decode(text).ok()?;
    PeerId::from_bytes(bytes.strip_prefix(&[0x01, 0x72])?).ok()
}

/// The parser's own words, and what people most often get wrong.
fn malformed(text: &str, error: &multiaddr::Error) -> AddressProblem {
    let hint = if text.starts_with('/') { "" } else { " (it begins with a slash: /ip4/…)" };
    AddressProblem::Malformed(format!("{error}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both forms of one peer id, as the specification of peer ids has them.
    #[test]
    fn peer_ids_are_read_in_both_forms() {
        let plain = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N";
        for text in ["bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe", plain] {
            for name in ["p2p", "ipfs"] {
                let addr = peer_address(&format!("/ip4/192.0.2.1/tcp/1/{name}/{text}"));
                let addr = addr.expect("a good address").to_string();
                assert_eq!(addr, format!("/ip4/192.0.2.1/tcp/1/p2p/{plain}"));
            }
        }
        peer_address("/ip4/192.0.2.1/tcp/1/p2p/bafybeigdyrzt").expect_err("a CID of no key");
    }

    #[test]
    fn what_is_wrong_is_named_beside_the_text() {
        for (text, problem) in [
            ("192.0.2.1:4001", "begins with a slash"),
            ("/ip4/192.0.2.300/tcp/1", "not a multiaddr"),
            ("/ip4/192.0.2.1/tcp/1/p2p/nobody", "not a multiaddr"),
            ("/dns4/example.org", "go on with /tcp/PORT"),
            ("/dns4/a..b/tcp/1", "cannot be looked up"),
            ("/ip4/192.0.2.1/tcp/1/ws", "/ws after the port"),
            ("/ip4/192.0.2.1/tcp/0", "port 0"),
        ] {
            let error = peer_address(text).expect_err("it is of no use").to_string();
            assert!(error.contains(text) && error.contains(problem), "{error}");
        }
        listen_address("/ip4/0.0.0.0/tcp/0").expect("a good address");
        for text in ["/dns/example.org/tcp/1", "/dnsaddr/example.org"] {
            peer_address(text).expect("a name will do");
            listen_address(text).expect_err("nobody listens on a name");
            plain_address(text).expect_err("no address has a name");
        }
        let nameless = relay_address("/ip4/192.0.2.1/tcp/1").expect_err("it has no name");
        assert_eq!(nameless.problem, AddressProblem::Nameless);
        let circuit = dial_address("/ip4/192.0.2.1/tcp/1/p2p-circuit").expect_err("to nobody");
        assert!(circuit.to_string().contains("/p2p-circuit"), "{circuit}");
    }
}
