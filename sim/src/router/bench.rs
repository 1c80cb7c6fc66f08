//! One agent on a LAN with one router, and whoever else is there. No Internet: whether somebody
//! gets in is asked of the router.
//!
//! ```text
//!  agent ─ orders ─► 1 ms, perhaps lost ─► router, attackers ─► 1 ms, perhaps lost ─► agent
//! ```

use super::host::{self, INTERFACE, LAN_LATENCY, Sockets};
use super::{Attack, Attacker, HttpReply, Mood, Output, Profile, Reboot, Requests, Router};
use crate::dice::Dice;
use bytes::Bytes;
use libp2p_identity::Keypair;
use portolan_core::transcript::{Mark, Names, Scribe};
use portolan_core::{
    Action, Actions, Addr, Agent, Channel, Config, Cx, Duration, Event, Fetch, Gateway, Instant,
    ListenerId, Mapping, MappingAction, MappingConfig, MappingEvent, MappingProtocol, PeerId,
    Signer, Transport, UnixTime,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The router's addresses on the LAN.
pub const ROUTER: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(192, 168, 1, 1), Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
/// The host's IPv4 address.
pub const HOST_4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 7));
/// The address of its second interface, where it has one.
pub const SECOND_4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 8));
/// The host's IPv6 address.
pub const HOST_6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2600, 7, 0, 0, 0, 0, 0, 7));
/// What the host listens on.
pub const LISTEN_PORT: u16 = 4_001;
/// Somebody of the LAN who has nothing to do with all this.
pub const BYSTANDER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 99);

/// When the agent starts; the router has been there for that long.
const START: Instant = Instant::from_millis(1_000_000);
const UNIX_START_MS: u64 = 1_700_000_000_000;

/// How a bench is set up.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The router.
    pub profile: Profile,
    /// What the agent may speak.
    pub protocols: Vec<MappingProtocol>,
    /// Whether the host has IPv6.
    pub ip6: bool,
    /// Whether it is on the LAN by two interfaces.
    pub twice: bool,
    /// Datagrams that are lost, in a hundred.
    pub loss_percent: u32,
    /// Where all chance comes from.
    pub seed: u64,
    /// Whether everything is written down.
    pub transcribes: bool,
}

impl Setting {
    /// A router, asked by every protocol over IPv4, without loss.
    pub fn new(profile: Profile, seed: u64) -> Setting {
        let protocols = MappingProtocol::ALL.to_vec();
        Setting {
            profile,
            protocols,
            ip6: false,
            twice: false,
            loss_percent: 0,
            seed,
            transcribes: false,
        }
    }
}

/// Something that is under way.
#[derive(Clone, Debug)]
enum Underway {
    /// A datagram of the host's.
    Leaves { from: SocketAddr, to: SocketAddr, body: Bytes },
    /// A request of the host's.
    Asks(Fetch),
    /// A fact for the agent, if the socket is still open.
    Tells { channel: Channel, event: MappingEvent },
    /// What becomes of a request.
    Answers { run: u32, event: MappingEvent },
}

struct Nobody;

impl Names for Nobody {
    fn name(&self, _: &PeerId) -> String {
        "?".to_owned()
    }
}

impl Signer for Nobody {
    fn sign(&mut self, _: &[u8]) -> Vec<u8> {
        Vec::new()
    }
}

/// An agent, a router, and whoever else is on the LAN.
pub struct Bench {
    setting: Setting,
    agent: Option<Agent>,
    /// Which run of the process it is.
    run: u32,
    router: Router,
    attackers: Vec<Attacker>,
    now: Instant,
    draw: Dice,
    chance: Dice,
    order: u64,
    underway: BTreeMap<(Instant, u64), Underway>,
    sockets: Sockets,
    ledger: Option<Bytes>,
    earlier: Vec<Requests>,
    scribe: Scribe<Nobody>,
    transcript: Vec<String>,
}

impl Bench {
    /// A host that has just started, behind a router that has not.
    pub fn new(setting: Setting) -> Bench {
        let mut dice = Dice::new(setting.seed);
        let mut bench = Bench {
            agent: None,
            run: 0,
            router: Router::new(setting.profile, ROUTER, Instant::ZERO, dice.fork_seed()),
            attackers: Vec::new(),
            now: START,
            draw: dice.fork(),
            chance: dice,
            order: 0,
            underway: BTreeMap::new(),
            sockets: Sockets::default(),
            ledger: None,
            earlier: Vec::new(),
            scribe: Scribe::new(Nobody, Instant::ZERO),
            transcript: Vec::new(),
            setting,
        };
        bench.router.advance(START);
        bench.start(true);
        bench
    }

    /// The moment.
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// The router.
    pub const fn router(&self) -> &Router {
        &self.router
    }

    /// The router, to be changed.
    pub const fn router_mut(&mut self) -> &mut Router {
        &mut self.router
    }

    /// Chance, for whoever decides what happens.
    pub const fn chance(&mut self) -> &mut Dice {
        &mut self.chance
    }

    /// The agent, while it runs.
    pub const fn agent(&self) -> Option<&Agent> {
        self.agent.as_ref()
    }

    /// Every wanted mapping as it stands.
    pub fn mappings(&self) -> Vec<Mapping> {
        self.agent.iter().flat_map(Agent::mappings).collect()
    }

    /// What happened, where it was written down.
    pub fn transcript(&self) -> &[String] {
        &self.transcript
    }

    /// Everything that this run of the process asked.
    pub const fn requests(&self) -> &Requests {
        self.sockets.requests()
    }

    /// Everything that earlier runs asked, each by itself: a process knows nothing of the last one's
    /// haste.
    pub fn earlier_requests(&self) -> &[Requests] {
        &self.earlier
    }

    /// What was stored last.
    pub const fn ledger(&self) -> Option<&Bytes> {
        self.ledger.as_ref()
    }

    /// Somebody joins the LAN who means no good.
    pub fn attack(&mut self, ip: Ipv4Addr, attack: Attack) {
        self.remark(&format!("{ip} joins: {attack:?}"));
        let router = IpAddr::V4(ROUTER.0);
        let victim = SocketAddr::new(BYSTANDER.into(), 80);
        let seed = self.chance.fork_seed();
        self.attackers.push(Attacker::new((ip, router), victim, attack, self.now, seed));
    }

    /// Whoever means no good leaves.
    pub fn clear_attackers(&mut self) {
        self.remark("attackers leave");
        self.attackers.clear();
    }

    /// The router starts anew.
    pub fn reboot(&mut self, reboot: Reboot) {
        self.remark(&format!("the router: {reboot:?}"));
        let outputs = self.router.reboot(self.now, reboot);
        self.spread(outputs);
    }

    /// The router is so disposed.
    pub fn set_mood(&mut self, mood: Mood, until: Option<Instant>) {
        self.remark(&format!("the router: {mood:?}"));
        self.router.set_mood(mood, until);
    }

    /// A line of the world's own in the transcript.
    pub fn remark(&mut self, text: &str) {
        if self.setting.transcribes {
            self.transcript.push(format!("{:>9} # {text}", self.now.to_string()));
        }
    }

    /// The process is killed.
    pub fn crash(&mut self) {
        self.remark("the process is killed");
        self.agent = None;
        self.earlier.push(self.sockets.vanish());
        self.run += 1;
    }

    /// A process starts, with what an earlier one stored. `listens` tells whether it wants anything.
    ///
    /// # Panics
    /// When one is running.
    pub fn start(&mut self, listens: bool) {
        assert!(self.agent.is_none(), "a process runs already");
        self.remark("a process starts");
        let mut mapping = MappingConfig::default();
        mapping.protocols.clone_from(&self.setting.protocols);
        let mut config = Config::default();
        config.mapping = Some(mapping);
        let key = Keypair::ed25519_from_bytes([7; 32]).expect("any 32 bytes are a key");
        self.agent = Some(Agent::new(config, key.public()).expect("a sound configuration"));
        self.scribe = Scribe::new(Nobody, Instant::ZERO);
        if let Some(ledger) = self.ledger.clone() {
            self.tell(Event::Mapping(MappingEvent::LedgerRead { ledger }));
        }
        let mut ips = vec![HOST_4];
        ips.extend(self.setting.twice.then_some(SECOND_4));
        ips.extend(self.setting.ip6.then_some(HOST_6));
        self.tell(Event::InterfacesChanged { ips: ips.clone() });
        let mut listener = 0;
        for ip in ips.into_iter().filter(|_| listens) {
            for transport in [Transport::Tcp, Transport::Quic] {
                listener += 1;
                let addr = Addr::new(ip, LISTEN_PORT, transport);
                self.tell(Event::ListenerOpened { listener: ListenerId(listener), addr });
            }
        }
        self.join(true);
    }

    /// The host has its gateway, or none.
    pub fn join(&mut self, joined: bool) {
        let mut gateways = Vec::new();
        if joined {
            let router = IpAddr::V4(ROUTER.0);
            gateways.push(Gateway { router, interface: INTERFACE, source: HOST_4 });
            let second = Gateway { router, interface: INTERFACE + 1, source: SECOND_4 };
            gateways.extend(self.setting.twice.then_some(second));
            let router = IpAddr::V6(ROUTER.1);
            let six = Gateway { router, interface: INTERFACE, source: HOST_6 };
            gateways.extend(self.setting.ip6.then_some(six));
        }
        self.tell(Event::Mapping(MappingEvent::GatewaysChanged { gateways }));
    }

    /// The node is about to end.
    pub fn close(&mut self) {
        self.tell(Event::Mapping(MappingEvent::Closing));
    }

    /// Let time pass.
    ///
    /// # Errors
    /// The first promise that was broken.
    pub fn run(&mut self, span: Duration) -> Result<(), String> {
        let until = self.now + span;
        while let Some(at) = self.next_at().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.happen();
            self.check()?;
        }
        self.now = until;
        Ok(())
    }

    /// What the router holds for the host.
    pub fn held(&self) -> usize {
        let table = self.router.table();
        let all = table.ports.values().chain(table.holes.values());
        all.filter(|held| [HOST_4, SECOND_4, HOST_6].contains(&held.internal.ip()))
            .filter(|held| held.is_alive(self.now))
            .count()
    }

    /// Whether the router lets in what a mapping says.
    pub fn lets_in(&self, mapping: &Mapping) -> bool {
        let Some(lease) = mapping.lease else { return false };
        let internal = mapping.internal;
        match internal.ip {
            IpAddr::V4(_) => {
                self.router.forwards(self.now, internal.transport, lease.external.port)
                    == Some(internal.socket())
            }
            IpAddr::V6(_) => self.router.pinhole(self.now, internal.transport, internal.socket()),
        }
    }

    /// # Errors
    /// The first promise that is broken.
    fn check(&self) -> Result<(), String> {
        if let Some(fault) = self.sockets.fault() {
            return Err(fault.to_owned());
        }
        match self.router.complaints() {
            [] => Ok(()),
            [first, ..] => Err(format!("the router complains: {first}")),
        }
    }

    fn next_at(&self) -> Option<Instant> {
        let agent = self.agent.as_ref().and_then(Agent::deadline).map(|deadline| deadline.at);
        let underway = self.underway.keys().next().map(|(at, _)| *at);
        let attackers = self.attackers.iter().filter_map(Attacker::deadline).min();
        [agent, underway, attackers, self.router.deadline()].into_iter().flatten().min()
    }

    fn happen(&mut self) {
        let now = self.now;
        if self.router.deadline().is_some_and(|at| at <= now) {
            let outputs = self.router.advance(now);
            self.spread(outputs);
        }
        for attacker in 0..self.attackers.len() {
            let outputs = self.attackers[attacker].advance(now);
            self.spread(outputs);
        }
        if let Some(entry) = self.underway.first_entry().filter(|entry| entry.key().0 <= now) {
            let underway = entry.remove();
            self.arrives(underway);
        }
        let due = |agent: &Agent| agent.deadline().is_some_and(|deadline| deadline.at <= now);
        if self.agent.as_ref().is_some_and(due) {
            self.tell(Event::Tick);
        }
    }

    fn arrives(&mut self, underway: Underway) {
        let now = self.now;
        match underway {
            Underway::Leaves { from, to, body } => {
                let mut outputs = Vec::new();
                for attacker in &mut self.attackers {
                    outputs.extend(attacker.hears(now, from, to, &body));
                }
                if to.ip().is_multicast() || self.router.ips().contains(&to.ip()) {
                    outputs.extend(self.router.datagram(now, from, to, &body));
                }
                self.spread(outputs);
            }
            Underway::Asks(fetch) => self.asks(&fetch),
            Underway::Tells { channel, event } => {
                if self.sockets.has(channel) {
                    self.tell(Event::Mapping(event));
                }
            }
            Underway::Answers { run, event } => {
                if run == self.run {
                    self.tell(Event::Mapping(event));
                }
            }
        }
    }

    fn asks(&mut self, fetch: &Fetch) {
        let to = fetch.to.ip();
        let reply = if self.router.ips().contains(&to) {
            host::asked(&mut self.router, self.now, fetch)
        } else {
            let attacker = self.attackers.iter_mut().find(|attacker| attacker.is_at(to));
            attacker.map_or(HttpReply::Hang, |attacker| attacker.request(self.now, fetch))
        };
        let (after, event) = host::told(fetch, &reply);
        self.later(after, Underway::Answers { run: self.run, event });
    }

    /// What routers and attackers send finds its way to the host's sockets.
    fn spread(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            if !matches!(output, Output::Refused { .. }) && self.is_lost() {
                continue;
            }
            for (channel, event) in self.sockets.hear(&output) {
                self.later(LAN_LATENCY, Underway::Tells { channel, event });
            }
        }
    }

    fn is_lost(&mut self) -> bool {
        self.chance.percent(self.setting.loss_percent)
    }

    fn later(&mut self, span: Duration, underway: Underway) {
        self.order += 1;
        self.underway.insert((self.now + span, self.order), underway);
    }

    fn tell(&mut self, event: Event) {
        let Some(agent) = &mut self.agent else { return };
        let line = self.setting.transcribes.then(|| self.scribe.event(&event));
        let mut actions = Actions::new();
        let mut cx = Cx {
            now: self.now,
            unix: UnixTime::from_millis(UNIX_START_MS + self.now.as_nanos() / 1_000_000),
            draw: &mut self.draw,
            sign: &mut Nobody,
            actions: &mut actions,
        };
        agent.handle(&mut cx, event);
        if let Some(line) = line {
            self.transcript.push(self.scribe.line(None, self.now, Mark::Event, &line));
        }
        for action in actions.drain() {
            if self.setting.transcribes {
                let text = self.scribe.action(&action);
                self.transcript.push(self.scribe.line(None, self.now, Mark::Action, &text));
            }
            if let Action::Mapping(action) = action {
                self.perform(action);
            }
        }
    }

    fn perform(&mut self, action: MappingAction) {
        match action {
            MappingAction::OpenChannel { channel } => self.sockets.open(channel),
            MappingAction::CloseChannel { channel } => self.sockets.close(channel),
            MappingAction::SendDatagram { channel, to, body } => {
                let from = self.sockets.sends(self.now, channel, to, &self.router);
                if let Some(from) = from
                    && !self.is_lost()
                {
                    self.later(LAN_LATENCY, Underway::Leaves { from, to, body });
                }
            }
            MappingAction::Fetch(fetch) => {
                self.sockets.asks(self.now, fetch.to, &self.router);
                self.later(LAN_LATENCY * 2, Underway::Asks(fetch));
            }
            MappingAction::StoreLedger { ledger } => self.ledger = Some(ledger),
            // An order that is not known here is a gap.
            other => unreachable!("{other:?}"),
        }
    }
}
