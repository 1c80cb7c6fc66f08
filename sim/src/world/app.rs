//! The application of a node, and the chores of its runtime: dialling targets again, closing what
//! nobody needs, keeping QUIC alive.

use super::conn::{EndId, Phase, Purpose};
use super::{CallEnd, Occurrence, World};
use portolan_core::{ConnId, DialFailure, Duration, Event, Instant, RelayEvent, Transport};

/// How long the application waits for a connection: connecting and handshakes, the runtime's
/// values together.
const DIAL_TIMEOUT: Duration = Duration::from_secs(15);
/// The first pause before a target is dialled again.
const REDIAL_FIRST: Duration = Duration::from_secs(1);
/// The longest one.
const REDIAL_MAX: Duration = Duration::from_secs(60);
/// How often a node looks after its connections: as often as its runtime keeps QUIC alive.
const SWEEP: Duration = Duration::from_secs(5);
/// How long a connection that nobody needs stays open: the runtime's value.
const IDLE_FOR: Duration = Duration::from_secs(30);
/// How long a QUIC connection lives without a sign of the other side: the runtime's value.
const QUIC_IDLE: Duration = Duration::from_secs(10);

impl World {
    /// Dial a target, unless it is connected or being dialled.
    pub(super) fn redials(&mut self, node: usize, target: usize) {
        if !self.nodes[node].is_awake() {
            return;
        }
        let it = &mut self.nodes[node].targets[target];
        if it.conn.is_some() || it.dialling {
            return;
        }
        it.dialling = true;
        let addr = it.addr;
        self.dial(node, addr, Purpose::Target(target), None, DIAL_TIMEOUT);
    }

    pub(super) fn target_up(&mut self, node: usize, target: usize, conn: ConnId) {
        let it = &mut self.nodes[node].targets[target];
        it.dialling = false;
        it.failures = 0;
        it.conn = Some(conn);
    }

    pub(super) fn target_down(&mut self, node: usize, conn: ConnId) {
        let found = self.nodes[node].targets.iter().position(|one| one.conn == Some(conn));
        if let Some(target) = found {
            self.nodes[node].targets[target].conn = None;
            self.redial_later(node, target);
        }
    }

    fn redial_later(&mut self, node: usize, target: usize) {
        let it = &mut self.nodes[node].targets[target];
        let pause = REDIAL_FIRST * 2u32.saturating_pow(it.failures.min(10));
        it.failures += 1;
        let pause = self.dice.span_between(pause.min(REDIAL_MAX) / 2, pause.min(REDIAL_MAX));
        self.later(pause, Occurrence::Redials { node, target });
    }

    /// A dial ended without a connection.
    pub(super) fn dial_failed(&mut self, node: usize, purpose: Purpose, reason: DialFailure) {
        match purpose {
            Purpose::Target(target) => {
                self.nodes[node].targets[target].dialling = false;
                self.redial_later(node, target);
            }
            Purpose::DialBack(dial) => {
                let event = Event::DialFailed { dial, reason };
                self.later(Duration::ZERO, Occurrence::Tells { node, event });
            }
            Purpose::Scripted(number) => self.script_dialled(node, number, None),
            Purpose::Stranger => {}
            Purpose::Relay(peer, addr) => {
                let event = Event::Relay(RelayEvent::ConnectFailed { peer, addr, reason });
                self.later(Duration::ZERO, Occurrence::Tells { node, event });
            }
            Purpose::Call(call) => self.call_ends(node, call, CallEnd::NoRelay(reason)),
            Purpose::Punch(punch) => self.punch_failed(node, punch, reason),
            Purpose::Circuit { stream, call, .. } => self.not_upgraded(node, stream, call),
        }
    }

    pub(super) fn sweep_later(&mut self, node: usize) {
        self.later(SWEEP, Occurrence::Sweeps { node });
    }

    /// Close idle connections, drop dead ones, and keep QUIC alive.
    pub(super) fn sweeps(&mut self, node: usize) {
        if !self.nodes[node].running {
            return;
        }
        self.sweep_later(node);
        if !self.nodes[node].is_awake() || self.nodes[node].conns.is_empty() {
            return;
        }
        let now = self.now;
        let conns: Vec<(ConnId, EndId)> =
            self.nodes[node].conns.iter().map(|(conn, end)| (*conn, *end)).collect();
        // What core keeps depends on the time, which it knows only from what it is told.
        self.feed(node, Event::Tick);
        for (conn, id) in conns {
            let Some(end) = self.end(id) else { continue };
            if !end.is_up() || end.node != node {
                continue;
            }
            let (transport, used_at, heard_at) = (end.local.transport, end.used_at, end.heard_at);
            let wanted = self.nodes[node].targets.iter().any(|one| one.conn == Some(conn));
            if wanted || self.is_in_use(id) || self.nodes[node].agent.keeps(conn) {
                if let Some(end) = self.end_mut(id) {
                    end.used_at = now;
                }
            } else if now.since(used_at) >= IDLE_FOR {
                self.close(id);
                continue;
            }
            let is_carried = self.end(id).is_some_and(|end| end.via.is_some());
            if !is_carried && transport == Transport::Quic && !self.keeps_alive(id) {
                self.check_quic(id, heard_at);
            }
        }
    }

    fn check_quic(&mut self, end: EndId, heard_at: Instant) {
        if self.now.since(heard_at) >= QUIC_IDLE {
            self.broken(end);
        }
    }

    /// A node is switched off: its sockets vanish, and nobody is told.
    pub(super) fn crash(&mut self, node: usize) {
        self.nodes[node].running = false;
        self.drop_connections(node);
        let it = &mut self.nodes[node];
        it.listeners.clear();
        it.requests.clear();
    }

    /// Every connection of a node ends on its side without a word.
    pub(super) fn drop_connections(&mut self, node: usize) {
        let of_node: Vec<EndId> = self
            .conns
            .iter()
            .flat_map(|(number, conn)| {
                [super::conn::Role::Dialer, super::conn::Role::Listener]
                    .into_iter()
                    .filter(|role| conn.end(*role).is_some_and(|end| end.node == node))
                    .map(|role| (*number, role))
            })
            .collect();
        for id in of_node {
            if let Some(end) = self.end_mut(id) {
                end.phase = Phase::Gone;
                end.pending.clear();
                end.outbox.clear();
            }
            self.bury(id.0);
        }
        self.bridges.retain(|(of, _), _| *of != node);
        self.nodes[node].calls.clear();
        self.nodes[node].punches.clear();
        self.nodes[node].granted.clear();
        self.nodes[node].contract = crate::relays::Relays::default();
        self.nodes[node].conns.clear();
        self.nodes[node].streams.clear();
        for target in &mut self.nodes[node].targets {
            target.conn = None;
            target.dialling = false;
        }
    }
}
