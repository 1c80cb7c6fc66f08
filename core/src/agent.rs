//! Floor 8 · the door: facts come in, every room catches up, orders go out.
//!
//! Knows: all rooms, in floor order; nothing is queued between them. An event enters one room; then
//! `settle` lets every room catch up, upstream first. Feedback to a lower room goes round through
//! here, as a fact.
//!
//! ```text
//!  Event ─► route ─► one room
//!           settle:  peers ─► observed ─► mapping ─► candidates ─► probe ─► reachability ─► relay ─► advertise, punch ─► service
//!                      ▲          ▲           │                                                           │
//!                      │          └── moved ──┘                                                           │
//!                      └── contacted: whom we dial ◄──────────────────────────────────────────────────────┘
//! ```
//!
//! Limits: those of the rooms. What makes no sense is ignored, counted and named in a notice.
//!
//! A good first change here: refuse an `Instant` that runs backwards with a counted notice.

mod judging;
mod keeping;
#[cfg(test)]
mod relaying;
mod streams;
mod validate;
mod view;

use crate::advertise::Advertise;
use crate::candidates::Candidates;
use crate::local::Local;
use crate::mapping::Mappings;
use crate::observed::ObservedAddrs;
use crate::peers::{Learnt, Peers};
use crate::probe::Probe;
use crate::punch::{self, Punching};
use crate::reachability::{Ground, Reachability};
use crate::relay::{self, Relays};
use crate::service::Service;
use crate::words::checkpoint::{BadCheckpoint, Loader, Saved, saved};
use crate::words::deadline::earliest;
use crate::words::sleep::Sleep;
use crate::{
    Action, Addr, Config, ConfigError, ConnId, Connected, Cx, Deadline, Dial, Duration, Event,
    GatewayAnswer, Instant, Mapping, MappingEvent, Notice, Oddity, PeerId, Protocol, PublicKey,
    PunchAction, Relay, RelayAction, RelayEvent, RelayLoad, Side, StreamEnd, StreamFailure,
    StreamId,
};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::IpAddr;
use judging::judge;
use keeping::{keeps, worth};
use streams::{is_relay, is_service};
use view::view;

/// A node's mind: every decision about its reachability. Clone it, compare it, replay it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    pub(crate) config: Config,
    pub(crate) identity: PublicKey,
    pub(crate) local: Local,
    pub(crate) peers: Peers,
    pub(crate) observed: ObservedAddrs,
    pub(crate) mapping: Mappings,
    pub(crate) candidates: Candidates,
    pub(crate) probe: Probe,
    pub(crate) reachability: Reachability,
    pub(crate) relay: Relays,
    pub(crate) punch: Punching,
    pub(crate) advertise: Advertise,
    service: Service,
    /// The latest moment that was handed in.
    pub(crate) now: Instant,
    pub(crate) ignored: u64,
}

impl Agent {
    /// An agent for the node that owns `identity`. The only call that can fail: a configuration
    /// that nobody can work with is refused here.
    pub fn new(config: Config, identity: PublicKey) -> Result<Agent, ConfigError> {
        validate::validate(&config)?;
        Ok(Agent {
            local: Local::default(),
            peers: Peers::default(),
            observed: ObservedAddrs::default(),
            mapping: Mappings::default(),
            candidates: Candidates::default(),
            probe: Probe::new(config.allow_private, config.addrs_per_request)
                .hearing(&config, identity.to_peer_id()),
            reachability: Reachability::default(),
            relay: Relays::default(),
            punch: Punching::default(),
            advertise: Advertise::default(),
            service: Service::new(&config, &identity),
            now: Instant::ZERO,
            ignored: 0,
            config,
            identity,
        })
    }

    /// Take in one fact, fire everything that is due at `cx.now`, and write what is to be done
    /// into `cx.actions`, which is complete when this returns.
    pub fn handle(&mut self, cx: &mut Cx<'_>, event: Event) {
        debug_assert!(cx.now >= self.now, "the caller's clock runs backwards");
        cx.now = cx.now.max(self.now);
        let first = cx.actions.as_slice().len();
        self.route(cx, event);
        self.now = cx.now;
        self.settle(cx, first);
        debug_assert!(
            self.deadline().is_none_or(|deadline| deadline.at > cx.now),
            "what was due has fired: {:?}",
            self.deadline()
        );
    }

    /// When to call [`Agent::handle`] with [`Event::Tick`] if nothing happens before, and why.
    pub fn deadline(&self) -> Option<Deadline> {
        [
            self.peers.deadline(),
            self.observed.deadline(),
            self.mapping.deadline(self.now),
            self.probe.deadline(),
            self.reachability.deadline(),
            self.relay.deadline(),
            self.punch.deadline(),
            self.service.deadline(),
        ]
        .into_iter()
        .fold(None, earliest)
    }

    /// The verdicts.
    pub fn reachability(&self) -> &Reachability {
        &self.reachability
    }

    /// The node's own peer id.
    pub fn peer_id(&self) -> PeerId {
        self.identity.to_peer_id()
    }

    /// Every wanted mapping as it stands.
    pub fn mappings(&self) -> impl Iterator<Item = Mapping> + '_ {
        self.mapping.iter()
    }

    /// Every relay that is asked or could be, as it stands.
    pub fn relays(&self) -> impl Iterator<Item = Relay> + '_ {
        self.relay.iter()
    }

    /// How much of the relay service is in use; `None` where there is none.
    pub fn relay_load(&self) -> Option<RelayLoad> {
        self.service.relay_load()
    }

    /// Dial-backs for others in flight, number.
    pub fn dial_backs_in_flight(&self) -> usize {
        self.service.dial_backs()
    }

    /// What the gateways were found to speak.
    pub fn gateway_answers(&self) -> impl Iterator<Item = GatewayAnswer> + '_ {
        self.mapping.answers()
    }

    /// The IPs to which we sent the first packet within a day, and when last: nobody there is a stranger.
    /// Of those to whom a connection stands it is now. A program that runs again hands them in as
    /// [`Event::Contacted`].
    pub fn contacted(&self) -> impl Iterator<Item = (IpAddr, Instant)> {
        self.peers.all_contacted(self.now)
    }

    /// Whether everything that routers granted was given back after [`MappingEvent::Closing`]. It
    /// may never be: whoever waits for it waits a second at most.
    pub fn has_released(&self) -> bool {
        self.config.mapping.is_none() || self.mapping.has_released()
    }

    /// Whether core needs this connection: a runtime does not close it for idleness. True for
    /// servers that may dial us back (but not where they have been silent since the machine was
    /// suspended), for those whose hearsay counts, for relays in use and a spare one, for peers that count on us to dial them back,
    /// and for as long as an exchange runs on it.
    pub fn keeps(&self, conn: ConnId) -> bool {
        let view = view(&self.local, &self.peers, &self.reachability, &self.advertise);
        keeps(&self.peers, &self.probe, self.now, conn)
            || self.relay.keeps(conn)
            || self.punch.keeps(&self.peers, conn)
            || self.service.keeps(self.now, &view, conn)
    }

    /// Bytes that two agents share only where they do the same from now on: given the same
    /// configuration, identity and further events, each writes the same actions and has the same
    /// deadlines. An exploration of small worlds keys the states by them that it has visited.
    ///
    /// *The same* is meant but for names. Moments count from the latest `now`. Ids, serials and
    /// sequence numbers count by their order alone, so that further ones must be as new to the one
    /// agent as to the other, and above those that it knows. Nonces and the bodies of pings count
    /// not at all: each agent is answered with its own. Left out is what only counts or is only
    /// told: revisions, the number of proofs, of outcomes and of oddities, and since when there is
    /// a verdict. What is too old to matter is as if it were not there.
    ///
    /// Not a checkpoint: nothing can be read back, and the bytes may change with any version.
    pub fn canonical(&self) -> Vec<u8> {
        Saved::canonical(self, self.now)
    }

    fn route(&mut self, cx: &mut Cx<'_>, event: Event) {
        match event {
            Event::Tick => {}
            Event::Resumed { slept } => self.resumed(cx, slept),
            Event::ListenerOpened { listener, addr } => {
                let done = self.local.opened(listener, addr);
                self.note(cx, None, done);
            }
            Event::ListenerClosed { listener } => {
                let done = self.local.closed(listener);
                self.note(cx, None, done);
            }
            Event::InterfacesChanged { ips } => {
                let done = self.local.interfaces_changed(ips);
                self.note(cx, None, done);
            }
            Event::Contacted { ip } => self.peers.contacted(cx.now, ip),
            Event::Introduced { peer, source } => self.peers.introduced(peer, source),
            Event::Connected(facts) => self.connected(cx, &facts),
            Event::Disconnected { conn } => self.disconnected(cx, conn),
            Event::DialFailed { dial, reason } => {
                let view = view(&self.local, &self.peers, &self.reachability, &self.advertise);
                let done = self.service.dial_failed(cx, &view, dial, reason);
                self.note(cx, None, done);
            }
            Event::DialFailureReported { addr } => {
                let done = self.probe.dial_failure_reported(addr);
                self.note(cx, None, done);
            }
            Event::StreamOpened { conn, stream } => self.stream_opened(cx, conn, stream),
            Event::StreamFailed { stream, reason } => {
                if is_service(stream) {
                    let done = self.service.failed(cx, stream, reason);
                    self.note(cx, None, done);
                } else if is_relay(stream) {
                    let done = self.relay.failed(cx, stream, reason);
                    self.note(cx, None, done);
                } else if stream.protocol == Protocol::Punch {
                    self.punch.stream_failed(cx, stream, reason);
                } else {
                    if reason == StreamFailure::Unsupported {
                        self.peers.unsupported(cx, stream);
                    }
                    self.stream_closed(cx, stream, StreamEnd::Reset);
                }
            }
            Event::Frame { stream, body } => self.frame(cx, stream, &body),
            Event::StreamClosed { stream, end } => self.stream_closed(cx, stream, end),
            Event::Observed { conn, observed } => self.observed(cx, conn, observed),
            Event::Mapping(event) => self.mapped(cx, event),
            Event::Relay(event) => self.relayed(cx, event),
            Event::Punch(event) => {
                let (punch, ground) = self.punching();
                let done = punch.record(cx, &ground, &event);
                self.note(cx, None, done);
            }
            Event::ProtocolsListed { conn, protocols } => {
                let done = self.peers.told(conn, protocols);
                self.note(cx, Some(conn), done);
            }
        }
    }

    /// The one fact that concerns every room that waits for somebody. `self.now` is still the moment
    /// of the step before.
    fn resumed(&mut self, cx: &mut Cx<'_>, slept: Duration) {
        if slept.is_zero() {
            return;
        }
        let sleep = Sleep::new(slept, self.now, cx.now);
        self.peers.resumed(cx, sleep, self.config.identify);
        self.observed.resumed(sleep);
        self.mapping.resumed(cx.now, sleep);
        self.probe.resumed(cx, sleep, &self.peers);
        self.reachability.resumed(sleep);
        self.relay.resumed(sleep);
        self.punch.resumed(sleep);
        self.service.resumed(sleep);
    }

    fn mapped(&mut self, cx: &mut Cx<'_>, event: MappingEvent) {
        let done = if let MappingEvent::GatewaysChanged { gateways } = &event {
            self.local.gateways_changed(gateways)
        } else if self.config.mapping.is_some() {
            self.mapping.record(cx, event)
        } else {
            Ok(())
        };
        self.note(cx, None, done);
    }

    fn relayed(&mut self, cx: &mut Cx<'_>, event: RelayEvent) {
        let done = match event {
            RelayEvent::BridgeEnded { .. } | RelayEvent::Draining => self.service.relay(cx, &event),
            RelayEvent::CircuitWanted { .. }
            | RelayEvent::CircuitForgotten { .. }
            | RelayEvent::ConnectFailed { .. }
            | RelayEvent::UpgradeFailed { .. } => {
                let ground = relays(&self.config, &self.identity, &self.local, &self.peers);
                self.relay.record(cx, &ground, event)
            }
        };
        self.note(cx, None, done);
    }

    fn connected(&mut self, cx: &mut Cx<'_>, facts: &Connected) {
        if self.peers.get(facts.conn).is_some() || self.service.is_dial_back(facts.conn) {
            return self.note(cx, Some(facts.conn), Err(Oddity::ReusedId));
        }
        if facts.dial.is_some() {
            // A dial-back of ours belongs to the service alone: it is no connection to a peer.
            let done = self.service.connected(cx, facts);
            return self.note(cx, Some(facts.conn), done);
        }
        let done = self.peers.connected(cx, facts, self.config.identify);
        if done.is_ok() {
            self.relay.connected(cx, facts);
        }
        self.note(cx, Some(facts.conn), done);
    }

    fn disconnected(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let dialled_back = self.service.is_dial_back(conn);
        let view = view(&self.local, &self.peers, &self.reachability, &self.advertise);
        self.service.disconnected(cx, &view, conn);
        if dialled_back {
            return;
        }
        self.relay.disconnected(cx, conn);
        self.probe.disconnected(cx, conn);
        self.observed.disconnected(conn);
        let done = self.peers.disconnected(cx, conn);
        self.note(cx, Some(conn), done);
    }

    fn stream_opened(&mut self, cx: &mut Cx<'_>, conn: ConnId, stream: StreamId) {
        let done = match (stream.side, stream.protocol) {
            (Side::Inbound, Protocol::IdentifyPush) => self.peers.push_opened(cx, conn, stream),
            (Side::Inbound, Protocol::DialBack) => {
                self.probe.dial_back_opened(cx, conn, stream, &self.peers)
            }
            _ if is_relay(stream) => {
                let ground = relays(&self.config, &self.identity, &self.local, &self.peers);
                self.relay.opened(cx, &ground, conn, stream)
            }
            (_, Protocol::Punch) => {
                let (punch, ground) = self.punching();
                punch.opened(cx, &ground, conn, stream)
            }
            _ if is_service(stream) => {
                let view = view(&self.local, &self.peers, &self.reachability, &self.advertise);
                self.service.opened(cx, &view, conn, stream)
            }
            // That a stream of ours opened is no news: its frames are already under way.
            _ => Ok(()),
        };
        self.note(cx, Some(conn), done);
    }

    fn frame(&mut self, cx: &mut Cx<'_>, stream: StreamId, body: &Bytes) {
        let done = match (stream.side, stream.protocol) {
            (Side::Outbound, Protocol::DialRequest | Protocol::AutonatV1) => {
                self.probe.answered(cx, stream, body, (&self.local, &self.peers))
            }
            (Side::Inbound, Protocol::DialBack) => {
                self.probe.dialled_back(cx, stream, body, &self.peers)
            }
            _ if is_relay(stream) => {
                let ground = relays(&self.config, &self.identity, &self.local, &self.peers);
                self.relay.frame(cx, &ground, stream, body)
            }
            (_, Protocol::Punch) => {
                let (punch, ground) = self.punching();
                punch.frame(cx, &ground, stream, body)
            }
            _ if is_service(stream) => {
                let view = view(&self.local, &self.peers, &self.reachability, &self.advertise);
                self.service.frame(cx, &view, stream, body)
            }
            _ => match self.peers.frame(cx, stream, body) {
                Ok(Some((conn, learnt))) => return self.learnt(cx, conn, learnt),
                Ok(None) => Ok(()),
                Err(oddity) => Err(oddity),
            },
        };
        self.note(cx, None, done);
    }

    fn stream_closed(&mut self, cx: &mut Cx<'_>, stream: StreamId, end: StreamEnd) {
        let done = match (stream.side, stream.protocol) {
            // A stream that ends after its exchange was over is the normal course of things.
            (Side::Outbound, Protocol::DialRequest | Protocol::AutonatV1) => {
                let _ = self.probe.stream_ended(cx, stream, end);
                Ok(())
            }
            (Side::Inbound, Protocol::DialBack) => {
                self.probe.dial_back_ended(cx, stream, end);
                Ok(())
            }
            _ if is_relay(stream) => self.relay.closed(cx, stream, end),
            (_, Protocol::Punch) => {
                self.punch.closed(cx, stream, end);
                Ok(())
            }
            _ if is_service(stream) => self.service.closed(cx, stream, end),
            _ => {
                let _ = self.peers.closed(cx, stream, end);
                Ok(())
            }
        };
        let bad = if end == StreamEnd::BadFrame { Err(Oddity::MalformedFrame) } else { done };
        self.note(cx, None, bad);
    }

    /// What identify taught about a connection goes to the rooms that live on it.
    fn learnt(&mut self, cx: &mut Cx<'_>, conn: ConnId, learnt: Learnt) {
        self.note(cx, Some(conn), learnt.oddity.map_or(Ok(()), Err));
        let (punch, ground) = self.punching();
        punch.listed(&ground, conn, &learnt.listed);
        if let Some(observed) = learnt.observed {
            self.observed(cx, conn, observed);
        }
        if let Some(connection) = self.peers.get(conn) {
            cx.actions.notify(Notice::Identified {
                conn,
                peer: connection.peer,
                observed: learnt.observed.or(connection.observed),
                server: learnt.protocols.contains(Protocol::DialRequest),
                agent: learnt.agent,
            });
        }
    }

    fn observed(&mut self, cx: &mut Cx<'_>, conn: ConnId, observed: Addr) {
        let allow = self.config.allow_private;
        let done = self.peers.sees_us(cx.now, allow, conn, observed);
        if let Some(connection) = self.peers.get(conn) {
            self.observed.record(cx.now, allow, (conn, connection), &self.local, observed);
        }
        self.note(cx, Some(conn), done);
    }

    /// What routers said of their external addresses goes to the rooms below: whoever is connected
    /// through one that is elsewhere by now may be cut off, and nobody sees us where it was.
    fn routers_moved(&mut self, cx: &mut Cx<'_>) -> BTreeMap<IpAddr, bool> {
        let Config { allow_private, identify, .. } = self.config;
        for family in self.mapping.take_doubted(cx.now) {
            self.peers.moved(cx, family, (allow_private, identify));
        }
        let left = self.mapping.take_left();
        left.keys().for_each(|ip| self.observed.left(*ip));
        left
    }

    /// Let every room catch up, upstream first.
    fn settle(&mut self, cx: &mut Cx<'_>, first: usize) {
        let left = self.routers_moved(cx);
        let Agent {
            config,
            identity,
            local,
            peers,
            observed,
            mapping,
            candidates,
            probe,
            reachability,
            relay,
            advertise,
            punch,
            ..
        } = self;
        let now = cx.now;
        peers.advance(cx);
        observed.advance(cx, local);
        mapping.advance(cx, config.mapping.as_ref(), local);
        for addr in mapping.take_refreshed() {
            // A router that was restarted maps to the same address, and may not forward.
            probe.mapped(cx, addr);
        }
        candidates.advance(cx, config, local, observed, mapping);
        for (ip, is_news) in left {
            probe.left(cx, ip, is_news, candidates);
        }
        probe.advance(cx, local, candidates, peers);
        let at_hand = relay.stranger_at_hand(&relays(config, identity, local, peers));
        if let Some((peer, conn, data_max)) = at_hand {
            let ground = (&*local, &*candidates, &*peers);
            let asked = probe.ask_stranger(cx, ground, (peer, conn), data_max);
            relay.stranger_asked(cx, conn, asked);
        }
        // Pings go to whom we want to keep, which may have changed. Whom they find dead, others hear of below.
        let interval = config.ping_interval;
        if peers
            .keep_alive(cx, interval, |conn, peer| worth(now, (probe, relay, punch), conn, peer))
        {
            probe.advance(cx, local, candidates, peers);
        }
        reachability.advance(cx, &Ground { config, local, peers, observed, candidates, probe });
        judge(now, mapping, probe, reachability);
        if relay.advance(
            cx,
            &relays(config, identity, local, peers),
            (probe, candidates),
            reachability,
        ) {
            peers.rethink_pings();
            peers.keep_alive(cx, interval, |conn, peer| {
                worth(now, (probe, relay, punch), conn, peer)
            });
        }
        advertise.advance(cx, reachability, relay);
        let ground =
            punch::Ground { config, local, peers, observed, candidates, reachability, relay };
        if punch.advance(cx, &ground) {
            peers.rethink_pings();
            peers.keep_alive(cx, interval, |conn, peer| {
                worth(now, (probe, relay, punch), conn, peer)
            });
        }
        let view = view(&self.local, &self.peers, &self.reachability, &self.advertise);
        self.service.advance(cx, &view);
        self.dials(now, &cx.actions.as_slice()[first..]);
    }

    /// Whom we dial has been contacted, from this packet on.
    fn dials(&mut self, now: Instant, actions: &[Action]) {
        for action in actions {
            if let Action::Dial(Dial { addr, .. })
            | Action::Relay(RelayAction::Connect { addr, .. })
            | Action::Punch(PunchAction::Dial { addr, .. }) = action
            {
                self.peers.contacted(now, addr.ip);
            }
        }
    }

    /// The room that punches, and what it reads.
    fn punching(&mut self) -> (&mut Punching, punch::Ground<'_>) {
        let Agent {
            config, local, peers, observed, candidates, reachability, relay, punch, ..
        } = self;
        let ground =
            punch::Ground { config, local, peers, observed, candidates, reachability, relay };
        (punch, ground)
    }

    fn note(&mut self, cx: &mut Cx<'_>, conn: Option<ConnId>, done: Result<(), Oddity>) {
        if let Err(oddity) = done {
            self.ignored = self.ignored.saturating_add(1);
            cx.actions.notify(Notice::Ignored { oddity, conn });
        }
    }
}

fn relays<'a>(
    config: &'a Config,
    identity: &'a PublicKey,
    local: &'a Local,
    peers: &'a Peers,
) -> relay::Ground<'a> {
    relay::Ground { config, identity, local, peers }
}

saved!(struct Agent {
    local,
    peers,
    observed,
    mapping,
    candidates,
    probe,
    reachability,
    relay,
    punch,
    advertise,
    service,
    now,
    ignored as told(),
} given { config, identity } by fresh);

fn fresh(from: &Loader<'_>) -> Result<Agent, BadCheckpoint> {
    Agent::new(from.config.clone(), from.identity.clone()).map_err(|_| BadCheckpoint)
}
