//! The document at a bootstrap URL: what it says, and what of it is believed. `docs/bootstrap.md` has the
//! format.

use crate::node;
use multiaddr::Multiaddr;
use portolan_core::{IpScope, NodeState, PeerId, ip_scope};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The longest document, bytes: 64 peers with all that may be said of them take a quarter of it. When
/// full, the document is not read.
pub const DOCUMENT_BYTES_MAX: usize = 256 << 10;
/// Peers that are taken of one document, number. When full, the others are left out, and counted.
pub const LISTED_PEERS_MAX: usize = 64;
/// Addresses that are taken of one peer, number; ours: two of each family and transport. When full, the
/// others are left out.
pub const LISTED_ADDRS_MAX: usize = 8;
/// The longest version that is shown, characters; ours. When full, the rest is cut off.
const VERSION_MAX: usize = 64;
/// What a document says that it is.
const FORMAT: &str = "portolan-bootstrap/1";

/// The document, as it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Document {
    /// Always `portolan-bootstrap/1`.
    pub format: String,
    /// The peer id of the server that wrote it, if it is one itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_by: Option<String>,
    /// The peers, in the order in which to try those that are equal.
    pub peers: Vec<Listed>,
}

/// A peer in a document, as it is written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Listed {
    /// Its addresses as multiaddrs, each with `/p2p/` and its peer id at the end, best first.
    pub addrs: Vec<String>,
    /// What program it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How long it has been running, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_s: Option<u64>,
    /// How busy it is, 0 (idle) to 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<u16>,
    /// Its own verdict, proved by others: `public`, `limited`, `private` or `unknown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachability: Option<String>,
    /// How long ago whoever wrote the document last dialled it with success, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialled_s_ago: Option<u64>,
    /// A round trip between the two, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<u64>,
}

impl Document {
    /// A document that lists these peers.
    #[must_use]
    pub fn new(served_by: Option<PeerId>, peers: Vec<Listed>) -> Document {
        let served_by = served_by.map(|peer| peer.to_string());
        Document { format: FORMAT.into(), served_by, peers }
    }
}

/// A peer that a list names, as far as it is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListedPeer {
    /// Who it is.
    pub peer: PeerId,
    /// Where it is; each address ends with its peer id, and can be dialled.
    pub addrs: Vec<Multiaddr>,
    /// What program it says it runs: printable ASCII.
    pub version: Option<String>,
    /// How long it says it has been running, seconds.
    pub uptime_s: Option<u64>,
    /// How busy it says it is, 0 to 1,000.
    pub load: Option<u16>,
    /// What it says of its own reachability, if it says something that is known.
    pub reachability: Option<NodeState>,
    /// How long ago the server of the list last dialled it with success, seconds.
    pub dialled_s_ago: Option<u64>,
}

/// What a document says, as far as it is believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct List {
    /// The peer that served it, if it said so.
    pub served_by: Option<PeerId>,
    /// The peers, in the order of the document, each once.
    pub peers: Vec<ListedPeer>,
    /// Peers that were left out: too many, or without an address of use.
    pub left_out: usize,
    /// Private addresses that were dropped.
    pub private: usize,
}

/// Why a document is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// It is longer than any list.
    #[error("is longer than {max} bytes")]
    TooLong {
        /// How long it may be.
        max: usize,
    },
    /// It is not JSON, or not of this form.
    #[error("is no bootstrap document: {0}")]
    Junk(String),
    /// It is of another format.
    #[error("is of the format {0:?}, not {FORMAT:?}")]
    Format(String),
    /// It names nobody who can be dialled.
    #[error("names no peer that can be dialled{}", why(*.private))]
    Nobody {
        /// Private addresses that were dropped.
        private: usize,
    },
}

fn why(private: usize) -> String {
    if private == 0 {
        String::new()
    } else {
        format!(" ({private} private addresses were dropped)")
    }
}

/// Read a document. Private addresses are dropped unless `allow_private`: in a public list they lead
/// into somebody else's network, or one's own.
///
/// # Errors
/// If there is no list in it, or nobody on the list can be dialled.
pub fn read(bytes: &[u8], allow_private: bool) -> Result<List, DocumentError> {
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(DocumentError::TooLong { max: DOCUMENT_BYTES_MAX });
    }
    let junk = |error: serde_json::Error| DocumentError::Junk(plain(&error.to_string(), 200));
    let document: Document = serde_json::from_slice(bytes).map_err(junk)?;
    if document.format != FORMAT {
        return Err(DocumentError::Format(plain(&document.format, VERSION_MAX)));
    }
    let served_by = document.served_by.and_then(|peer| peer.parse().ok());
    let mut list = List { served_by, ..List::default() };
    let mut places: BTreeMap<PeerId, usize> = BTreeMap::new();
    for listed in document.peers {
        let Some(read) = peer(listed, allow_private, &mut list.private) else {
            list.left_out += 1;
            continue;
        };
        // A peer that is listed twice is one, as it was listed first.
        if let Some(known) = places.get(&read.peer).and_then(|at| list.peers.get_mut(*at)) {
            let new = read.addrs.into_iter().filter(|addr| !known.addrs.contains(addr));
            let new: Vec<_> = new.collect();
            known.addrs.extend(new);
            known.addrs.truncate(LISTED_ADDRS_MAX);
        } else if list.peers.len() >= LISTED_PEERS_MAX {
            list.left_out += 1;
        } else {
            places.insert(read.peer, list.peers.len());
            list.peers.push(read);
        }
    }
    if list.peers.is_empty() {
        return Err(DocumentError::Nobody { private: list.private });
    }
    Ok(list)
}

/// What is believed of one peer; nothing if it has no address of use.
fn peer(listed: Listed, allow_private: bool, private: &mut usize) -> Option<ListedPeer> {
    let mut peer = None;
    let mut addrs: Vec<Multiaddr> = Vec::new();
    for text in &listed.addrs {
        let Ok(addr) = text.parse::<Multiaddr>() else { continue };
        let Ok((at, Some(id))) = node::destination(&addr) else { continue };
        if ip_scope(at.ip) != IpScope::Global && !allow_private {
            *private += 1;
        } else if *peer.get_or_insert(id) == id && !addrs.contains(&addr) {
            addrs.push(addr);
        }
    }
    addrs.truncate(LISTED_ADDRS_MAX);
    let states = [NodeState::Public, NodeState::Limited, NodeState::Private, NodeState::Unknown];
    let said = |state: &NodeState| listed.reachability.as_deref() == Some(state.name());
    Some(ListedPeer {
        peer: peer?,
        addrs,
        version: listed.version.map(|text| plain(&text, VERSION_MAX)),
        uptime_s: listed.uptime_s,
        load: listed.load.map(|load| load.min(1_000)),
        reachability: states.into_iter().find(said),
        dialled_s_ago: listed.dialled_s_ago,
    })
}

/// A text of somebody else's, fit to be shown.
fn plain(text: &str, max: usize) -> String {
    let fits = |c: &char| c.is_ascii_graphic() || *c == ' ';
    text.chars().filter(fits).take(max).collect()
}

impl ListedPeer {
    /// The peer as it is written into a document.
    #[must_use]
    pub fn listed(&self) -> Listed {
        Listed {
            addrs: self.addrs.iter().map(ToString::to_string).collect(),
            version: self.version.clone(),
            uptime_s: self.uptime_s,
            load: self.load,
            reachability: self.reachability.map(|state| state.name().into()),
            dialled_s_ago: self.dialled_s_ago,
            rtt_ms: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    const OTHER: &str = "12D3KooWGjMvSZ5rGzPxRpyZNsg6qrfeQfN8QrVEJ9CWLHVbqgFK";

    fn of(peers: &str) -> Result<List, DocumentError> {
        let text = format!(r#"{{"format": "{FORMAT}", "peers": [{peers}]}}"#);
        read(text.as_bytes(), false)
    }

    #[test]
    fn what_is_of_use_is_taken_and_the_rest_is_ignored() {
        let list = of(&format!(
            r#"{{"addrs": ["/ip4/44.0.0.1/tcp/1/p2p/{PEER}", "/ip4/44.0.0.1/udp/1/quic-v1/p2p/{PEER}",
                 "/ip4/192.168.0.1/tcp/1/p2p/{PEER}", "/ip4/127.0.0.1/tcp/1/p2p/{PEER}",
                 "/dns4/example.org/tcp/1/p2p/{PEER}", "/ip4/44.0.0.2/tcp/1", "nonsense",
                 "/ip4/44.0.0.2/tcp/1/p2p/{OTHER}",
                 "/ip4/44.0.0.2/tcp/1/p2p/{OTHER}/p2p-circuit/p2p/{PEER}"],
                "version": "x\u001b[31m/1", "load": 2000, "reachability": "public", "new": {{}}}},
               {{"addrs": []}}, {{"addrs": ["/ip4/44.0.0.9/tcp/1/p2p/{PEER}"]}}"#
        ))
        .expect("a list");
        let [peer] = list.peers.as_slice() else { panic!("{list:?}") };
        let addrs: Vec<String> = peer.addrs.iter().map(ToString::to_string).collect();
        let wanted = ["44.0.0.1/tcp/1", "44.0.0.1/udp/1/quic-v1", "44.0.0.9/tcp/1"];
        assert_eq!(addrs, wanted.map(|addr| format!("/ip4/{addr}/p2p/{PEER}")));
        assert_eq!(peer.version.as_deref(), Some("x[31m/1"));
        assert_eq!((peer.load, peer.reachability), (Some(1_000), Some(NodeState::Public)));
        assert_eq!((list.left_out, list.private), (1, 2));
    }

    #[test]
    fn private_addresses_are_for_labs() {
        let peers = format!(r#"{{"addrs": ["/ip4/10.0.0.1/tcp/1/p2p/{PEER}"]}}"#);
        assert_eq!(of(&peers), Err(DocumentError::Nobody { private: 1 }));
        let text = format!(r#"{{"format": "{FORMAT}", "peers": [{peers}]}}"#);
        assert_eq!(read(text.as_bytes(), true).expect("a list").peers.len(), 1);
    }

    #[test]
    fn junk_is_named() {
        for junk in ["", "[]", "{}", "<html>", r#"{"peers": []}"#, r#"{"format": 1, "peers": []}"#]
        {
            let error = read(junk.as_bytes(), true).expect_err("junk");
            assert!(matches!(error, DocumentError::Junk(_)), "{error}");
        }
        let error = read(br#"{"format": "other/1", "peers": []}"#, true);
        assert_eq!(error, Err(DocumentError::Format("other/1".into())));
        let deep = "[".repeat(100_000);
        read(deep.as_bytes(), true).expect_err("it is too deep");
        let long = vec![b' '; DOCUMENT_BYTES_MAX + 1];
        assert!(matches!(read(&long, true), Err(DocumentError::TooLong { .. })));
        assert_eq!(of(""), Err(DocumentError::Nobody { private: 0 }));
    }

    #[test]
    fn a_list_is_cut_and_the_cut_is_counted() {
        let peer = |_| {
            let addr = |port| format!(r#""/ip4/44.0.0.1/tcp/{port}/p2p/{{}}""#);
            let addrs: Vec<String> = (1..=12).map(addr).collect();
            let id = PeerId::random().to_string();
            format!(r#"{{"addrs": [{}]}}"#, addrs.join(",").replace("{}", &id))
        };
        let peers: Vec<String> = (0..70).map(peer).collect();
        let list = of(&peers.join(",")).expect("a list");
        assert_eq!((list.peers.len(), list.left_out), (LISTED_PEERS_MAX, 6));
        assert!(list.peers.iter().all(|peer| peer.addrs.len() == LISTED_ADDRS_MAX));
    }

    #[test]
    fn what_was_read_is_written_as_it_was() {
        let listed = Listed {
            addrs: vec![format!("/ip4/44.0.0.1/tcp/1/p2p/{PEER}")],
            version: Some("portolan/1".into()),
            uptime_s: Some(7),
            load: Some(12),
            reachability: Some("public".into()),
            dialled_s_ago: Some(3),
            rtt_ms: None,
        };
        let document = Document::new(PEER.parse().ok(), vec![listed.clone()]);
        let text = serde_json::to_vec(&document).expect("JSON");
        let list = read(&text, false).expect("a list");
        assert_eq!(list.served_by, PEER.parse().ok());
        assert_eq!(list.peers.iter().map(ListedPeer::listed).collect::<Vec<_>>(), [listed]);
    }
}
