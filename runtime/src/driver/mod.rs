//! The driver: one task that owns the agent, and turns facts into events and actions into deeds.
//!
//! ```text
//!  connections, streams, dials ──► facts ─────┐
//!  listeners ────────────────────► arrivals ──┼─► driver ─► agent.handle ─► actions ─► performed
//!  the application's handles ────► commands ──┤                                (in order, at once)
//!  routers, changes of routes ───► news ──────┤
//!  agent.deadline() ─────────────► one timer ─┘
//! ```
//!
//! All channels towards the driver are bounded, and whoever finds one full waits. The driver
//! itself never waits for a task: a queue of orders that is full means that the peer is too slow,
//! and costs it the stream. So the two directions cannot block each other.
//!
//! The one timer serves core's deadline and three chores that decide nothing about reachability:
//! idle connections, what interfaces and gateways there are, and the end of a shutdown.

mod bridge;
mod chance;
mod commands;
mod connection;
mod fact;
mod handover;
mod limits;
mod load;
mod mapping;
mod negotiate;
mod perform;
mod punch;
mod relay;
mod stream;
mod suspend;
mod table;
mod tasks;

pub(crate) use chance::{Chance, KeySigner};
pub(crate) use commands::{Command, On};
pub use commands::{ConnectionInfo, Dialled};
pub(crate) use connection::Common;
pub(crate) use fact::Facts;
pub(crate) use limits::COMMANDS_MAX;
pub use limits::Limits;
pub use load::{Dropped, Load};
pub(crate) use mapping::Mapping;
pub(crate) use tasks::Tasks;

use crate::net::{Arrival, Established, Listening, Net};
use crate::node::Hub;
use crate::record::Record;
use crate::traits::Runtime;
use async_channel::Receiver;
use bytes::Bytes;
use connection::{Connection, Serves};
use fact::Fact;
use futures::channel::oneshot;
use futures::{FutureExt, select};
use limits::{CLOCKS_INTERVAL, CLOSE_TIMEOUT, INTERFACES_INTERVAL, LINGER};
use portolan_core::{
    Actions, Agent, ConnId, Connected, Cx, DialId, Duration, Event, Instant, MappingEvent,
    PunchEvent, StreamId,
};
use punch::Punches;
use relay::Circuits;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use suspend::Told;
use table::{Conn, Origin, Refusal, Table, Via};

/// What comes in.
pub(crate) struct Inputs {
    pub(crate) facts: Receiver<Fact>,
    pub(crate) arrivals: Receiver<Arrival>,
    pub(crate) commands: Receiver<Command>,
    pub(crate) news: Receiver<MappingEvent>,
}

/// What core is told first.
pub(crate) struct Start {
    pub(crate) listening: Vec<Listening>,
    pub(crate) ledger: Option<Bytes>,
    /// Who was sent to before.
    pub(crate) contacted: Vec<IpAddr>,
}

/// The parts that a driver is built from.
pub(crate) struct Parts<R: Runtime> {
    pub(crate) net: Net<R>,
    pub(crate) agent: Agent,
    pub(crate) chance: Chance,
    pub(crate) signer: KeySigner,
    pub(crate) record: Option<Record>,
    pub(crate) common: Common<R>,
    pub(crate) hub: Arc<Hub>,
    /// Whether core uses relays.
    pub(crate) relays: bool,
    /// Whether core punches holes.
    pub(crate) punches: bool,
}

impl<R: Runtime> Drop for Parts<R> {
    /// What the application still waits for ends, also where the runtime drops the driver half-way.
    fn drop(&mut self) {
        self.common.doors.close();
        self.hub.end();
    }
}

/// The driver of one node.
pub(crate) struct Driver<R: Runtime> {
    parts: Parts<R>,
    actions: Actions,
    /// Facts found while actions were performed; empty between steps.
    found: VecDeque<Event>,
    table: Table,
    tasks: Tasks<R>,
    mapping: Mapping<R>,
    circuits: Circuits,
    punches: Punches,
    listeners: BTreeMap<portolan_core::ListenerId, Listening>,
    /// Dials under way: the application's, and those to relays.
    dials: usize,
    /// Connections that were turned away.
    dropped: Dropped,
    interfaces: Vec<IpAddr>,
    interfaces_at: Instant,
    told: Told,
    sweep_at: Instant,
    stopping: Option<Stopping>,
    /// Whether every handle was dropped.
    abandoned: bool,
}

/// A shutdown under way.
struct Stopping {
    /// When connections that have not closed by themselves are dropped.
    until: Instant,
    /// When core has had time enough to give back its mappings.
    release_until: Instant,
    replies: Vec<oneshot::Sender<()>>,
}

/// What a connection is to this node.
#[derive(Clone, Copy, Debug)]
enum Role {
    /// One with a peer, over a socket of its own.
    Peer,
    /// A dial-back of core's.
    DialBack(DialId),
    /// One with a peer, through a relay.
    Circuit(Via),
}

/// What woke the driver.
enum Woken {
    Fact(Fact),
    Arrival(Arrival),
    Command(Command),
    News(MappingEvent),
    /// Interfaces or routes are not what they were.
    Changed,
    /// Every handle was dropped.
    Abandoned,
    Time,
}

impl<R: Runtime> Driver<R> {
    pub(crate) fn new(parts: Parts<R>, mapping: Mapping<R>) -> Driver<R> {
        let tasks = Tasks::new(parts.common.runtime.clone());
        let told = Told::new(parts.common.runtime.slept());
        let circuits = Circuits::new(parts.relays);
        let punches = Punches::new(parts.punches);
        Driver {
            parts,
            actions: Actions::new(),
            found: VecDeque::new(),
            table: Table::default(),
            tasks,
            mapping,
            circuits,
            punches,
            listeners: BTreeMap::new(),
            dials: 0,
            dropped: Dropped::default(),
            interfaces: Vec::new(),
            interfaces_at: Instant::ZERO,
            told,
            sweep_at: Instant::ZERO,
            stopping: None,
            abandoned: false,
        }
    }

    /// Drive the node until it is shut down or nobody holds a handle any more.
    pub(crate) async fn run(mut self, inputs: Inputs, start: Start) {
        self.open_eyes(start.ledger);
        for ip in start.contacted {
            self.feed(Event::Contacted { ip });
        }
        for listening in start.listening {
            self.listening(listening);
        }
        while !self.is_over() {
            debug_assert!(self.actions.is_empty() && self.found.is_empty(), "all was performed");
            self.write_record();
            let woken = self.wait(&inputs).await;
            // Whatever is found now is found after a suspend, if there was one.
            self.tell_core();
            match woken {
                Woken::Fact(fact) => self.take(fact),
                Woken::Arrival(arrival) => self.arrived(arrival.connection),
                Woken::Command(command) => self.command(command),
                Woken::News(news) => self.feed(Event::Mapping(news)),
                Woken::Changed => self.look_around(),
                Woken::Abandoned => {
                    self.abandoned = true;
                    self.stop(None);
                }
                Woken::Time => {}
            }
            self.time_passed();
        }
        self.finish(inputs).await;
    }

    async fn wait(&self, inputs: &Inputs) -> Woken {
        let now = self.now();
        let span = self.wake_at().since(now).min(CLOCKS_INTERVAL);
        let sleep = self.parts.common.runtime.sleep(span);
        let command = async {
            if self.abandoned {
                std::future::pending().await
            } else {
                inputs.commands.recv().await.map_or(Woken::Abandoned, Woken::Command)
            }
        };
        select! {
            // The driver holds a way to tell itself facts, so that the channel never closes.
            fact = inputs.facts.recv().fuse() => fact.map_or(Woken::Time, Woken::Fact),
            arrival = arrival(inputs).fuse() => Woken::Arrival(arrival),
            command = command.fuse() => command,
            // The driver holds a sender of these as well.
            news = inputs.news.recv().fuse() => news.map_or(Woken::Time, Woken::News),
            () = self.mapping.changed().fuse() => Woken::Changed,
            () = sleep.fuse() => Woken::Time,
        }
    }

    fn now(&self) -> Instant {
        self.parts.common.runtime.now()
    }

    /// The earliest moment at which something is due.
    fn wake_at(&self) -> Instant {
        let core = self.parts.agent.deadline().map(|deadline| deadline.at);
        let sweep = (!self.table.is_empty()).then_some(self.sweep_at);
        let stop = self.stopping.as_ref().map(|stopping| {
            let releasing = stopping.release_until > self.now();
            if releasing { stopping.release_until } else { stopping.until }
        });
        let chores = [core, sweep, stop].into_iter().flatten();
        chores.fold(self.interfaces_at, Instant::min)
    }

    /// Do what is due.
    fn time_passed(&mut self) {
        let now = self.now();
        if self.parts.agent.deadline().is_some_and(|deadline| deadline.at <= now) {
            self.feed(Event::Tick);
        }
        if self.interfaces_at <= now {
            self.look_around();
        }
        if self.sweep_at <= now {
            self.sweep(now);
        }
    }

    /// Hand core one fact and perform all that follows from it.
    fn feed(&mut self, event: Event) {
        self.found.push_back(event);
        self.tell_core();
    }

    /// Hand core what was found, first of all that the machine was suspended if it was, and perform
    /// all that follows from it.
    fn tell_core(&mut self) {
        while let Some((now, event)) = self.next_event() {
            tracing::trace!(?event, "event");
            let mut cx = Cx {
                now,
                unix: self.parts.common.runtime.unix(),
                draw: &mut self.parts.chance,
                sign: &mut self.parts.signer,
                actions: &mut self.actions,
            };
            let agent = &mut self.parts.agent;
            match &mut self.parts.record {
                Some(record) => record.handle(agent, &mut cx, event),
                None => agent.handle(&mut cx, event),
            }
            let mut actions = std::mem::take(&mut self.actions);
            for action in actions.drain() {
                tracing::trace!(?action, "action");
                self.perform(now, action);
            }
            // The sink goes back so that its memory is used again.
            self.actions = actions;
        }
    }

    /// Write down what core was told since the driver last slept.
    fn write_record(&mut self) {
        let Some(record) = &mut self.parts.record else {
            return;
        };
        let runtime = &self.parts.common.runtime;
        if let Err(error) = record.flush(&self.parts.agent, (runtime.now(), runtime.unix())) {
            tracing::error!(%error, "the flight record ends here");
            self.parts.record = None;
        }
    }

    fn take(&mut self, fact: Fact) {
        match fact {
            Fact::Dialled { dial, result } => self.dialled(dial, result),
            Fact::DialledBack { dial, result } => self.dialled_back(dial, result),
            Fact::RelayDialled { peer, addr, result } => self.relay_dialled(peer, addr, result),
            Fact::RelayReached { circuit, result } => self.relay_reached(circuit, result),
            Fact::CircuitForgotten { circuit } => self.circuit_forgotten(circuit),
            Fact::PunchDialled { punch, addr, result } => self.punch_dialled(punch, addr, result),
            Fact::Upgraded(upgraded) => self.upgraded(upgraded),
            Fact::BridgeEnded { stream, bridged } => self.bridge_ended(stream, bridged),
            Fact::Disconnected { conn, broke } => {
                if self.table.remove(conn) {
                    if broke && self.punches.are_wanted() {
                        self.feed(Event::Punch(PunchEvent::Broke { conn }));
                    }
                    tracing::debug!(%conn, "disconnected");
                    self.parts.hub.connections_changed();
                    self.feed(Event::Disconnected { conn });
                }
            }
            Fact::StreamOpened { conn, stream, orders: Some(orders) } => {
                match self.table.add_stream(conn, stream, orders) {
                    Ok(()) => self.feed(Event::StreamOpened { conn, stream }),
                    Err(orders) => orders.reset(),
                }
            }
            // What core has reset, or lost with its connection, is no news any more.
            Fact::StreamOpened { stream, .. }
            | Fact::StreamFailed { stream, .. }
            | Fact::Frame { stream, .. }
            | Fact::StreamClosed { stream, .. }
                if !self.table.has_stream(stream) => {}
            Fact::StreamOpened { conn, stream, orders: None } => {
                self.feed(Event::StreamOpened { conn, stream });
            }
            Fact::StreamFailed { stream, reason } => {
                self.table.remove_stream(stream);
                self.feed(Event::StreamFailed { stream, reason });
            }
            Fact::Frame { stream, body } => self.feed(Event::Frame { stream, body }),
            Fact::StreamClosed { stream, end } => self.feed(Event::StreamClosed { stream, end }),
            Fact::StreamGone { stream } => {
                self.table.remove_stream(stream);
            }
        }
    }

    /// Take over a connection that finished its handshakes.
    fn admit(&mut self, established: Established, role: Role) -> Result<ConnId, Refusal> {
        let Established { muxer, peer, side, local, remote, rtt, port_reused } = established;
        let (dial, via, origin) = match role {
            Role::Peer => (None, None, Some(Origin::Address(remote.ip))),
            // Core counts them.
            Role::DialBack(dial) => (Some(dial), None, None),
            Role::Circuit(via) => (None, Some(via), Some(Origin::Relay(via.relay))),
        };
        if let Some(origin) = origin {
            self.table.check(&self.parts.common.limits, peer, side, origin)?;
        }
        let conn = self.table.next_conn();
        let relay = via.map(|via| via.relay);
        tracing::debug!(%conn, %peer, ?side, %local, %remote, port_reused, ?relay, "connected");
        let common = self.parts.common.clone();
        let serves = match role {
            Role::Peer => Serves::Direct,
            Role::DialBack(_) => Serves::Nothing,
            Role::Circuit(_) => Serves::Circuit,
        };
        let (connection, hold) = Connection::new(common, conn, peer, muxer, serves);
        self.table.insert(
            conn,
            Conn {
                peer,
                side,
                local,
                remote,
                hold,
                via,
                dial_back: dial.is_some(),
                closing: false,
                streams: Default::default(),
                idle_since: self.now(),
                uses_seen: 0,
            },
        );
        self.tasks.spawn(connection.run());
        self.parts.hub.connections_changed();
        self.feed(Event::Connected(Connected {
            conn,
            peer,
            side,
            local,
            remote,
            relayed: via.is_some(),
            dial,
            rtt,
        }));
        Ok(conn)
    }

    fn arrived(&mut self, established: Established) {
        let (peer, remote) = (established.peer, established.remote);
        let muxer = established.muxer.clone();
        if self.stopping.is_some() || peer == self.parts.agent.peer_id() {
            // Dropping the connection closes it.
            tracing::debug!(%peer, %remote, "refused a connection: shutting down, or our own");
        } else if let Err(refusal) = self.admit(established, Role::Peer) {
            self.dropped.count(&refusal);
            // A polite farewell would keep the socket, outside of every count.
            muxer.abort();
            tracing::debug!(%peer, %remote, ?refusal, "refused a connection: too many");
        }
    }

    fn listening(&mut self, listening: Listening) {
        tracing::info!(addr = %listening.addr, "listening");
        self.listeners.insert(listening.listener, listening);
        // A listener may stand on an address that came up just now.
        self.read_interfaces();
        let Listening { listener, addr } = listening;
        self.feed(Event::ListenerOpened { listener, addr });
    }

    /// See what interfaces and gateways there are, and tell core what is not as it was.
    fn look_around(&mut self) {
        self.read_interfaces();
        if let Some(changed) = self.changed_gateways() {
            self.feed(changed);
        }
    }

    fn read_interfaces(&mut self) {
        if let Some(changed) = self.changed_interfaces() {
            self.feed(changed);
        }
    }

    /// Read the interface addresses; what became of them, if anything did.
    fn changed_interfaces(&mut self) -> Option<Event> {
        self.interfaces_at = self.now() + INTERFACES_INTERVAL;
        match crate::net::interface_ips() {
            Ok(ips) if ips == self.interfaces => None,
            Ok(ips) => {
                self.interfaces.clone_from(&ips);
                Some(Event::InterfacesChanged { ips })
            }
            Err(error) => {
                tracing::warn!(%error, "cannot read the interface addresses");
                None
            }
        }
    }

    /// Close connections that nobody has used for long enough.
    fn sweep(&mut self, now: Instant) {
        let timeout = self.parts.common.limits.idle_timeout;
        // What core keeps depends on the time, which it knows only from what it is told.
        self.feed(Event::Tick);
        // An idle connection lives at most an eighth longer than it should.
        self.sweep_at = now + (timeout / 8).max(Duration::from_millis(5));
        let mut idle = Vec::new();
        for (id, conn) in self.table.conns_mut().filter(|(_, conn)| !conn.closing) {
            let ever = conn.hold.uses.ever();
            let used = conn.hold.uses.held() > 0 || ever != conn.uses_seen;
            conn.uses_seen = ever;
            if used || self.parts.agent.keeps(id) {
                conn.idle_since = now;
            } else if now.since(conn.idle_since) >= timeout {
                idle.push(id);
            }
        }
        if !idle.is_empty() {
            self.parts.hub.connections_changed();
        }
        for conn in idle {
            tracing::debug!(%conn, "closing an idle connection");
            self.table.close(conn, true);
        }
    }

    /// Begin to shut down: take nothing new, and let every connection deliver what is under way.
    fn stop(&mut self, reply: Option<oneshot::Sender<()>>) {
        if let Some(stopping) = &mut self.stopping {
            stopping.replies.extend(reply);
            return;
        }
        let until = self.now() + LINGER + CLOSE_TIMEOUT + CLOSE_TIMEOUT;
        let release_until = self.now();
        let replies = reply.into_iter().collect();
        self.stopping = Some(Stopping { until, release_until, replies });
        self.parts.common.doors.close();
        self.circuits.end();
        self.punches.end();
        for listener in std::mem::take(&mut self.listeners).into_keys() {
            self.parts.net.close_listener(listener);
            self.feed(Event::ListenerClosed { listener });
        }
        let release_until = self.release();
        if let Some(stopping) = &mut self.stopping {
            stopping.release_until = release_until;
        }
        let open: Vec<ConnId> = self.table.conns().map(|(conn, _)| conn).collect();
        for conn in open {
            self.table.close(conn, false);
        }
    }

    fn is_over(&self) -> bool {
        let now = self.now();
        let over = |stopping: &Stopping| {
            let released = self.has_released() || stopping.release_until <= now;
            (self.table.is_empty() && released) || stopping.until <= now
        };
        self.stopping.as_ref().is_some_and(over)
    }

    async fn finish(self, inputs: Inputs) {
        let Driver { parts, table, tasks, mapping, stopping, .. } = self;
        let Inputs { facts, arrivals, commands, news } = inputs;
        // Connections that nobody has taken over close, and dials that have just ended say so.
        drop(take_rest(&facts));
        drop(take_rest(&arrivals));
        drop(take_rest(&news));
        tasks.end().await;
        mapping.end().await;
        drop(table);
        parts.net.shutdown().await;
        drop(parts);
        let asked = stopping.into_iter().flat_map(|stopping| stopping.replies);
        let asked_late = take_rest(&commands).into_iter().filter_map(|command| {
            if let Command::Shutdown { reply } = command { Some(reply) } else { None }
        });
        for reply in asked.chain(asked_late) {
            // Whoever asked may have gone.
            let _ = reply.send(());
        }
        tracing::debug!("the node has stopped");
    }

    /// A stream that is of no use any more; core hears of it if it still knows it.
    fn reset_stream(&mut self, stream: StreamId) -> bool {
        self.table.remove_stream(stream).map(|orders| orders.reset()).is_some()
    }
}

/// Close a channel and take out what is in it. A message that came in behind the last look would
/// stay in the channel for as long as somebody can send there, and whoever waits for an answer to
/// it would wait as long.
fn take_rest<T>(channel: &Receiver<T>) -> Vec<T> {
    channel.close();
    std::iter::from_fn(|| channel.try_recv().ok()).collect()
}

/// The next inbound connection; never, once the listeners are gone.
async fn arrival(inputs: &Inputs) -> Arrival {
    match inputs.arrivals.recv().await {
        Ok(arrival) => arrival,
        Err(_) => std::future::pending().await,
    }
}
