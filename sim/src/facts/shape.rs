//! How small the world is: who plays, where we may be seen, which kinds of facts there are.

use super::cast::{self, NODE, Peer};
use super::chance::Draws;
use super::fact::{Fact, Kind};
use portolan_core::{Addr, Config, DialBackConfig, Duration, PublicKey, Transport};
use std::net::IpAddr;

/// What the node is made with: the knobs of a story that drivers turn.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How numbers below a bound are drawn.
    pub draws: Draws,
    /// Regular pings, so often.
    pub ping: Option<Duration>,
    /// External addresses that the operator declares.
    pub external: Vec<Addr>,
    /// Offer dial-backs, inside these limits. Source IPs of their own are not told in stories here.
    pub dial_back: Option<DialBackConfig>,
}

impl Settings {
    pub(super) fn config(&self) -> Config {
        let mut config = Config::default();
        // As in stories: the version changes with every release, and transcripts do not.
        config.agent_version = "portolan/story".to_owned();
        config.ping_interval = self.ping;
        config.external.clone_from(&self.external);
        config.dial_back.clone_from(&self.dial_back);
        config
    }

    pub(super) fn identity() -> PublicKey {
        cast::public_key(NODE)
    }
}

/// A small world.
#[derive(Clone, Debug)]
pub struct Shape {
    /// What the node is made with.
    pub settings: Settings,
    /// What has happened before the driver begins.
    pub prologue: Vec<Fact>,
    /// The kinds of facts there are.
    pub kinds: Vec<Kind>,
    /// Where the node may listen.
    pub listens: Vec<Addr>,
    /// What addresses its interfaces may have.
    pub interfaces: Vec<Vec<IpAddr>>,
    /// Peers that we dial, each at these of its addresses.
    pub dialled: Vec<(Peer, Addr)>,
    /// Peers that come in, each from these of its addresses.
    pub callers: Vec<(Peer, Addr)>,
    /// Connections to one peer at a time, number.
    pub conns_per_peer: usize,
    /// Where peers may say that they see us.
    pub sees: Vec<Addr>,
    /// Whether servers may turn out to be none.
    pub clients_too: bool,
    /// What servers may answer.
    pub answers: Vec<Answer>,
    /// What peers may ask us to dial.
    pub wishes: Vec<Vec<Addr>>,
    /// How much time may pass at once, beside that to the next deadline.
    pub spans: Vec<Duration>,
    /// How long the machine may sleep.
    pub sleeps: Vec<Duration>,
    /// Whether a connection that dialled back may stay.
    pub dial_backs_stay: bool,
    /// Whether a connection may come without a measured round trip, so that it is pinged.
    pub unmeasured: bool,
}

use super::fact::Answer;

impl Shape {
    /// A world without peers, whose node listens at a private address behind some NAT.
    pub fn behind_a_nat() -> Shape {
        let home = home(Transport::Tcp);
        let settings =
            Settings { draws: Draws::Lowest, ping: None, external: Vec::new(), dial_back: None };
        Shape {
            settings,
            prologue: vec![
                Fact::Listen { listener: portolan_core::ListenerId(1), addr: home },
                Fact::Interfaces { ips: vec![home.ip] },
            ],
            kinds: Vec::new(),
            listens: vec![home],
            interfaces: vec![vec![home.ip]],
            dialled: Vec::new(),
            callers: Vec::new(),
            conns_per_peer: 1,
            sees: Vec::new(),
            clients_too: false,
            answers: Answer::ALL.to_vec(),
            wishes: Vec::new(),
            spans: Vec::new(),
            sleeps: Vec::new(),
            dial_backs_stay: false,
            unmeasured: false,
        }
    }
}

/// The socket at home that a node behind a NAT listens on.
pub(super) fn home(transport: Transport) -> Addr {
    Addr::new(IpAddr::from([192, 168, 1, 2]), 4001, transport)
}
