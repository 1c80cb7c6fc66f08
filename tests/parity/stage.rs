//! Where a story is played: a node on one of the runtimes, and peers around it.

use crate::peer::{Line, Peer};
use crate::record::Record;
use crate::told::{Known, Told};
use crate::wire::Wire;
use portolan_core::wire::multiaddr::to_multiaddr;
use portolan_core::{Addr, Config, Protocol, Transport};
use portolan_runtime::{DialError, Limits, Node, identity};
use portolan_tests::lab::{Lab, soon, until};
use portolan_tests::portolan_peer::on_one_host;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// One node and what is known of those around it.
pub(crate) struct Stage<L: Lab> {
    lab: L,
    /// Over what everybody talks.
    pub(crate) transport: Transport,
    /// Where the node and its peers listen, unless the story says otherwise.
    pub(crate) ip: IpAddr,
    node: Option<Node<L::Runtime>>,
    record: Record,
    known: Known,
    /// How many facts of a kind the story has awaited.
    awaited: BTreeMap<&'static str, usize>,
    expected: Option<(usize, &'static [&'static str])>,
    unexpected: &'static [&'static str],
}

/// Core asks who a peer is and does no more by itself.
pub(crate) fn config() -> Config {
    let mut config = on_one_host();
    config.ping_interval = None;
    config
}

impl<L: Lab> Stage<L> {
    pub(crate) fn new(transport: Transport) -> Stage<L> {
        Stage {
            lab: L::open(),
            transport,
            ip: Ipv4Addr::LOCALHOST.into(),
            node: None,
            record: Record::new(),
            known: Known::default(),
            awaited: BTreeMap::new(),
            expected: None,
            unexpected: &[],
        }
    }

    /// The node.
    pub(crate) fn node(&self) -> &Node<L::Runtime> {
        self.node.as_ref().expect("the story has started it")
    }

    /// Start the node; it listens nowhere yet.
    pub(crate) async fn start(&mut self, config: Config, limits: Limits) {
        let keypair = identity::generate();
        self.known.peer(keypair.public().to_peer_id(), "Node");
        let builder = Node::builder(self.lab.runtime(), keypair);
        let builder = self.record.of(builder.config(config).limits(limits));
        self.node = Some(builder.start().await.expect("it opens nothing yet"));
    }

    /// Start the node as most stories need it, listening on [`Stage::ip`].
    pub(crate) async fn start_listening(&mut self) -> Addr {
        self.start(config(), Limits::default()).await;
        self.listen(self.ip).await
    }

    /// Have the node listen on one more address.
    pub(crate) async fn listen(&self, ip: IpAddr) -> Addr {
        let addr = to_multiaddr(Addr::new(ip, 0, self.transport), None);
        let bound = soon(self.node().listen(addr)).await.expect("a free port");
        portolan_tests::portolan_peer::to_addr(&bound)
    }

    /// A peer with a name, which listens on `ip`.
    pub(crate) fn peer_at(&mut self, name: &str, ip: IpAddr) -> Peer {
        let peer = Peer::start(ip, self.transport);
        self.known.peer(peer.id(), name);
        self.known.peer(peer.dial_back_id(), &format!("{name}-dial-back"));
        self.known.port(peer.at, name);
        peer
    }

    /// A peer that listens where everybody does.
    pub(crate) fn peer(&mut self, name: &str) -> Peer {
        self.peer_at(name, self.ip)
    }

    /// A peer with a name whom nobody can reach.
    pub(crate) async fn unreachable(&mut self, name: &str) -> Peer {
        let peer = Peer::unreachable(self.ip, self.transport).await;
        self.known.port(peer.at, name);
        peer
    }

    /// A wire to `to` that can be cut.
    pub(crate) async fn wire(&mut self, name: &str, to: Addr) -> Wire {
        let wire = Wire::to(to).await;
        self.known.port(wire.at(), name);
        wire
    }

    /// Have the node dial, and give the other side of the connection.
    pub(crate) async fn dial(&self, peer: &Peer) -> Line {
        self.dial_at(peer, peer.at).await
    }

    /// Have the node dial a peer at another address than its own.
    pub(crate) async fn dial_at(&self, peer: &Peer, at: Addr) -> Line {
        let dial = self.node().dial(to_multiaddr(at, Some(peer.id())));
        let (dialled, line) = futures::join!(soon(dial), peer.arrival());
        dialled.expect("the peer listens");
        line
    }

    /// Wait until core was told as many facts more whose text begins like this.
    pub(crate) async fn until_told(&mut self, beginning: &'static str, more: usize) {
        let count = self.awaited.entry(beginning).or_default();
        *count += more;
        let count = *count;
        until(async || self.record.count(beginning) >= count).await;
    }

    /// Have the node dial in vain; what it says of that is compared.
    pub(crate) async fn dial_nobody(&mut self) {
        let nobody = Peer::unreachable(self.ip, self.transport).await;
        let error = soon(self.node().dial(to_multiaddr(nobody.at, Some(nobody.id())))).await;
        let DialError::Failed { error, .. } = error.expect_err("nobody listens") else {
            panic!("it can be dialled");
        };
        self.known.notes.push(format!("dialling nobody: {:?}", error.failure()));
    }

    /// Answer all that the node asks on a new connection.
    pub(crate) async fn introduce(&mut self, line: &Line, protocols: &[Protocol]) {
        line.describe(protocols).await;
        self.until_told("finished >identify", 1).await;
        if line.is_pinged() {
            line.echo().await;
            self.until_told("finished >ping", 1).await;
        }
    }

    /// Close a connection from the other side.
    pub(crate) async fn close(&mut self, line: Line) {
        line.close().await;
        self.until_told("disconnected", 1).await;
    }

    /// Shut the node down. The story still holds its connections, so that each ends by that.
    pub(crate) async fn shutdown(&mut self) {
        soon(self.node().shutdown()).await;
        self.node = None;
    }

    /// What the story must have led to: so many connections, and lines with these parts.
    pub(crate) fn expect(&mut self, conns: usize, parts: &'static [&'static str]) {
        self.expected = Some((conns, parts));
    }

    /// What it must not have led to: lines with any of these parts.
    pub(crate) fn expect_none(&mut self, parts: &'static [&'static str]) {
        self.unexpected = parts;
    }

    /// What the node was told.
    pub(crate) fn told(self) -> Told {
        let (conns, parts) = self.expected.expect("the story says what it led to");
        let told = Told::of(&self.record.steps(), self.known);
        assert_eq!(told.conns(), conns, "connections of\n{told}");
        for part in parts {
            assert!(told.has(part), "{part:?} is not in\n{told}");
        }
        for part in self.unexpected {
            assert!(!told.has(part), "{part:?} is in\n{told}");
        }
        told
    }
}
