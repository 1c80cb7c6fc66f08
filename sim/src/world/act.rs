//! Core is told a fact, and what it orders is done.

use super::conn::Purpose;
use super::node::{Hand, unix};
use super::{NodeId, Occurrence, Told, World};
use crate::watch::Step;
use portolan_core::Notice;
use portolan_core::transcript::Mark;
use portolan_core::{Action, Actions, Cx, Event, Protocol, Side, StreamId};

impl World {
    /// Hand a node one fact, do what it orders, and check every promise.
    pub(super) fn feed(&mut self, node: usize, event: Event) {
        let it = &mut self.nodes[node];
        if !it.is_awake() {
            // A machine that sleeps finds out when it wakes; one that is off never does.
            if it.running {
                it.deferred.push(event);
            }
            return;
        }
        self.counts.events += 1;
        it.steps += 1;
        if let Event::Relay(event) = &event {
            it.contract.happened(event);
        }
        let now = self.now;
        let mut actions = std::mem::take(&mut self.actions);
        let mut hand = Hand(it.key);
        if let Some(twin) = &mut it.twin {
            let (agent, draw) = &mut **twin;
            let mut copied = Actions::new();
            let mut cx = Cx { now, unix: unix(now), draw, sign: &mut hand, actions: &mut copied };
            agent.handle(&mut cx, event.clone());
            self.watch.copied = Some(copied);
        }
        let watched = self.watch.hears(NodeId(node), &event);
        let line = it.scribe.as_mut().map(|scribe| scribe.event(&event));
        let mut cx =
            Cx { now, unix: unix(now), draw: &mut it.draw, sign: &mut hand, actions: &mut actions };
        it.agent.handle(&mut cx, event);
        if let Some(line) = line {
            self.write_down(node, &line, actions.as_slice());
        }
        let it = &self.nodes[node];
        let step = Step { node: NodeId(node), now, event: watched, actions: actions.as_slice() };
        self.watch.check(&step, it);
        if let Some(twin) = &it.twin
            && twin.0 != it.agent
        {
            self.watch.fail(&step, "equal inputs give equal agents", "the twin differs".into());
        }
        for action in actions.drain() {
            self.perform(node, action);
        }
        self.actions = actions;
        self.schedule_wake(node);
    }

    fn write_down(&mut self, node: usize, event: &str, actions: &[Action]) {
        let it = &mut self.nodes[node];
        let Some(scribe) = &mut it.scribe else { return };
        self.transcript.push(scribe.line(Some(it.steps), self.now, Mark::Event, event));
        for action in actions {
            let text = scribe.action(action);
            self.transcript.push(scribe.line(Some(it.steps), self.now, Mark::Action, &text));
        }
    }

    fn perform(&mut self, node: usize, action: Action) {
        match action {
            Action::OpenStream { conn, stream } => {
                if let Some(end) = self.nodes[node].conns.get(&conn).copied() {
                    self.open_stream(node, end, stream, false);
                }
            }
            Action::Send { stream, body } => {
                let identifies = is_identify(stream);
                let body = if identifies { self.twisted(node, body) } else { body };
                let body = self.bent(node, stream, body);
                self.say_on(node, stream, body);
            }
            Action::CloseStream { stream } => self.finish_stream(node, stream),
            Action::ResetStream { stream } => self.reset_stream(node, stream),
            Action::Dial(dial) => {
                let purpose = Purpose::DialBack(dial.dial);
                self.dial(node, dial.addr, purpose, dial.source, dial.timeout);
            }
            Action::Disconnect { conn } => {
                if let Some(end) = self.nodes[node].conns.get(&conn).copied() {
                    self.close(end);
                }
            }
            Action::Notify(notice) => {
                if let Notice::Relay(news) = &notice {
                    self.keeps_table(node, news);
                }
                if let Some(told) = &mut self.told {
                    told.push(Told { at: self.now, node: NodeId(node), notice });
                }
            }
            Action::Mapping(action) => self.orders(node, action),
            Action::Relay(action) => self.relays(node, action),
            Action::Punch(action) => self.punches(node, action),
            // An order that this world does not know is a gap in the world.
            other => unreachable!("{other:?}"),
        }
    }

    /// Put the next wake-up on the heap, unless an earlier one is there already.
    fn schedule_wake(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        let Some(deadline) = it.agent.deadline() else { return };
        if it.wake_at.is_none_or(|at| deadline.at < at) {
            it.wake_at = Some(deadline.at);
            self.at(deadline.at, Occurrence::Wakes { node });
        }
    }

    /// A node wanted to be woken. Where it has changed its mind it is woken when it wants now.
    pub(super) fn wakes(&mut self, node: usize) {
        let now = self.now;
        let it = &mut self.nodes[node];
        if it.wake_at.is_some_and(|at| at <= now) {
            it.wake_at = None;
        }
        if !it.is_awake() {
            return;
        }
        if it.agent.deadline().is_some_and(|deadline| deadline.at <= now) {
            self.feed(node, Event::Tick);
        } else {
            self.schedule_wake(node);
        }
    }
}

fn is_identify(stream: StreamId) -> bool {
    matches!(
        (stream.side, stream.protocol),
        (Side::Inbound, Protocol::Identify) | (Side::Outbound, Protocol::IdentifyPush)
    )
}
