//! What peers are told: whatever is proven to more than those we contacted, each peer in full, and
//! anew whenever it changes.

use super::machine::{Counts, Model};
use portolan_core::wire::identify::Identify;
use portolan_core::wire::multiaddr::{Decoded, decode};
use portolan_core::{
    Action, Addr, ConnId, Event, Notice, PeerId, Protocol, Scope, Side, StreamId, Verdict,
};
use portolan_sim::facts::{Answer, Bench, Kind, Shape, Step};
use std::collections::{BTreeMap, BTreeSet};

/// What was told, and to whom.
#[derive(Clone, Default)]
pub(crate) struct Advertised {
    counts: Counts,
    told: BTreeSet<Addr>,
    conns: BTreeMap<ConnId, PeerId>,
    streams: BTreeMap<StreamId, ConnId>,
    /// Connections on which the peer says that it takes pushes.
    takes: BTreeSet<ConnId>,
    /// What the peer heard last on each connection, or will hear when it asks.
    heard: BTreeMap<ConnId, BTreeSet<Addr>>,
}

impl Model for Advertised {
    fn shape() -> Shape {
        let mut shape = Shape::of_servers();
        // No strangers, so that who fails over another family shows that they are refused.
        shape.kinds.retain(|kind| !matches!(kind, Kind::Resume | Kind::OddDialBack));
        shape.callers.clear();
        shape.answers = vec![Answer::Ok, Answer::DialError];
        shape.kinds.push(Kind::AskIdentify);
        shape
    }

    fn happened(&mut self, bench: &Bench) -> Result<(), String> {
        bench.steps().iter().try_for_each(|step| {
            self.event(&step.event);
            self.orders(step)?;
            self.everybody_knows(step)
        })
    }

    fn compare(&mut self, bench: &Bench) -> Result<(), String> {
        let worth =
            |verdict: &Verdict| matches!(verdict.scope(), Some(Scope::Anywhere | Scope::Contacted));
        let all = || bench.agent().reachability().addresses();
        let must: BTreeSet<Addr> =
            all().filter(|(_, verdict)| worth(verdict)).map(|(addr, _)| addr).collect();
        if all().any(|(_, verdict)| verdict.scope() == Some(Scope::ContactedOnly)) {
            self.counts.count("contacted-only is not told");
        }
        let view: BTreeSet<Addr> = bench.agent().explain().advertised.into_iter().collect();
        if must != self.told || view != must {
            return Err(format!("{must:?} is to be told, {:?} is, {view:?} is shown", self.told));
        }
        Ok(())
    }

    fn counts(&self) -> &Counts {
        &self.counts
    }
}

impl Advertised {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Connected(facts) => {
                self.conns.insert(facts.conn, facts.peer);
            }
            Event::Disconnected { conn } => {
                self.conns.remove(conn);
                self.takes.remove(conn);
                self.heard.remove(conn);
                self.streams.retain(|_, of| of != conn);
            }
            Event::StreamOpened { conn, stream } => {
                self.streams.insert(*stream, *conn);
            }
            Event::StreamClosed { stream, .. } | Event::StreamFailed { stream, .. } => {
                self.streams.remove(stream);
            }
            Event::Frame { stream, body } => {
                let hears = matches!(
                    (stream.side, stream.protocol),
                    (Side::Outbound, Protocol::Identify) | (Side::Inbound, Protocol::IdentifyPush)
                );
                let lists = |said: Identify| {
                    said.protocols.iter().any(|name| name == Protocol::IdentifyPush.name())
                };
                if hears
                    && let Some(conn) = self.streams.get(stream)
                    && Identify::decode(body).is_ok_and(lists)
                {
                    self.takes.insert(*conn);
                }
            }
            _ => {}
        }
    }

    fn orders(&mut self, step: &Step) -> Result<(), String> {
        for action in &step.actions {
            if let Action::Notify(Notice::AdvertisedChanged { added, removed }) = action {
                self.told.extend(added);
                self.told.retain(|addr| !removed.contains(addr));
                let what = if removed.is_empty() { "told" } else { "withdrawn" };
                self.counts.count(what);
            }
        }
        for action in &step.actions {
            match action {
                Action::OpenStream { conn, stream } => {
                    self.streams.insert(*stream, *conn);
                }
                Action::ResetStream { stream } => {
                    self.streams.remove(stream);
                }
                Action::Send { stream, body } => self.says(*stream, body)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn says(&mut self, stream: StreamId, body: &bytes::Bytes) -> Result<(), String> {
        let what = match (stream.side, stream.protocol) {
            (Side::Inbound, Protocol::Identify) => "answered",
            (Side::Outbound, Protocol::IdentifyPush) => "pushed",
            _ => return Ok(()),
        };
        self.counts.count(what);
        let direct = |bytes: &bytes::Bytes| match decode(bytes) {
            Ok(Decoded::Direct { addr, .. }) => Some(addr),
            _ => None,
        };
        let said = Identify::decode(body).map_err(|error| error.to_string())?;
        let said: BTreeSet<Addr> = said.listen_addrs.iter().filter_map(direct).collect();
        if said != self.told {
            return Err(format!("{stream} says {said:?}, and {:?} is told", self.told));
        }
        if let Some(conn) = self.streams.get(&stream) {
            self.heard.insert(*conn, said);
        }
        Ok(())
    }

    /// Whoever takes pushes knows what is told now, on whichever connection; or a push to him is
    /// under way, after which he will.
    fn everybody_knows(&mut self, step: &Step) -> Result<(), String> {
        for conn in &self.takes {
            // A peer with several connections is told once.
            let Some(peer) = self.conns.get(conn) else { continue };
            let of_peer = |one: &&ConnId| self.conns.get(*one) == Some(peer);
            let elsewhere =
                self.heard.iter().any(|(one, said)| of_peer(&one) && *said == self.told);
            let known = self.heard.entry(*conn).or_insert_with(|| self.told.clone());
            if elsewhere {
                known.clone_from(&self.told);
            }
            let known = known.clone();
            let is_push = |stream: &StreamId| {
                (stream.side, stream.protocol) == (Side::Outbound, Protocol::IdentifyPush)
            };
            let pushing = self.streams.iter().any(|(stream, on)| is_push(stream) && of_peer(&on));
            if known != self.told && !pushing {
                let told = &self.told;
                return Err(format!("at {} {conn} knows {known:?}, and {told:?} is told", step.at));
            }
        }
        Ok(())
    }
}
