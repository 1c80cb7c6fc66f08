//! Keeps servers at hand: dials peers, and dials again those that are lost while too few are left.

use super::state::Known;
use crate::lists;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use multiaddr::Multiaddr;
use portolan_core::{ConnId, Duration, Explanation, Instant, PeerId};
use portolan_runtime::bootstrap::{Bootstrap, BootstrapConfig, BootstrapNews, Url};
use portolan_runtime::traits::Runtime;
use portolan_runtime::{DialError, Dialled, Node};
use std::collections::{BTreeMap, BTreeSet};

/// Servers in reach from which on nobody is dialled again, number; ours: a verdict wants three networks.
/// Traffic grows with it.
const SERVERS_ENOUGH: usize = 3;
/// The first rest of a peer that could not be reached or was lost, and the longest, ours. Each rest in a
/// row doubles it; less is traffic for nothing, more is time without a verdict.
const REST_FIRST: Duration = Duration::from_secs(5);
const REST_MAX: Duration = Duration::from_secs(300);
/// How long the first peers have for themselves where they are known to have proved here, ours: some
/// handshakes over a long way.
const HEAD_START: Duration = Duration::from_millis(1_500);
/// Peers kept that lists named, with those that were given, number; ours: some days of lists that change. When
/// full, others that lists name are used for as long as they stay, and not dialled again.
const KEPT_MAX: usize = 256;
/// Rests that lengthen the next one, number; from there on it is the longest.
const STRIKES_MAX: u32 = 6;

/// A peer to be kept at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) addr: Multiaddr,
    /// It proved an address of ours in this network, in an earlier run.
    pub(super) has_proved: bool,
}

/// All peers that are known, those first that proved an address here, the last one of them first.
pub(super) fn in_order(given: &[Multiaddr], known: &Known) -> Vec<Peer> {
    let provers = known.provers.iter().map(|addr| (addr, true));
    let others = given.iter().chain(&known.peers).map(|addr| (addr, false));
    let mut seen = BTreeSet::new();
    let fresh = provers.chain(others).filter(|(addr, _)| seen.insert((*addr).clone()));
    fresh.map(|(addr, has_proved)| Peer { addr: addr.clone(), has_proved }).collect()
}

/// How a peer is.
#[derive(Clone, Debug)]
struct Kept {
    peer: Peer,
    strikes: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Resting { until: Instant },
    Dialling,
    Connected { conn: ConnId, since: Instant },
}

/// How a dial of the peer of this index ended.
type Ended = (usize, Result<Dialled, DialError>);

/// What the keeper waits for.
enum Happened {
    Ended(Ended),
    /// The next of what lists lead to; the last one is nothing.
    Listed(Option<BootstrapNews>),
    Nothing,
}

pub(super) struct Keeper<'a, R: Runtime> {
    runtime: R,
    node: &'a Node<R>,
    kept: Vec<Kept>,
    dials: FuturesUnordered<BoxFuture<'a, Ended>>,
    /// Lists that name others, if any.
    lists: Option<BootstrapConfig>,
    /// A start from them that is under way, and when to begin the next one.
    starting: Option<Bootstrap>,
    start_at: Instant,
    /// Starts in a row that led to nobody.
    start_strikes: u32,
    /// Whether the present start led to somebody.
    has_led: bool,
    /// Which list named a peer first.
    named: BTreeMap<PeerId, Url>,
    /// Whether more servers are wanted.
    is_short: bool,
}

impl<'a, R: Runtime> Keeper<'a, R> {
    /// Who proved here before is dialled at once, and the others a little later.
    /// `named`: which list named a peer, as earlier runs know it.
    pub(super) fn new(
        runtime: R,
        node: &'a Node<R>,
        peers: Vec<Peer>,
        (lists, named): (Option<BootstrapConfig>, BTreeMap<PeerId, Url>),
    ) -> Keeper<'a, R> {
        let now = node.now();
        let are_known = peers.iter().any(|peer| peer.has_proved);
        let start_at = if are_known { now + HEAD_START } else { now };
        let kept = |(index, peer): (usize, Peer)| {
            let waits = are_known && index > 0;
            let until = if waits { now + HEAD_START } else { now };
            Kept { peer, strikes: 0, state: State::Resting { until } }
        };
        let kept = peers.into_iter().enumerate().map(kept).collect();
        Keeper {
            runtime,
            node,
            kept,
            dials: FuturesUnordered::new(),
            lists,
            starting: None,
            start_at,
            start_strikes: 0,
            has_led: false,
            named,
            is_short: true,
        }
    }

    /// The next thing that becomes of a peer, in words.
    pub(super) async fn next(&mut self) -> String {
        loop {
            let now = self.node.now();
            self.dial_those_due(now);
            self.start_if_due(now);
            let rests = self.kept.iter().filter_map(|one| match one.state {
                State::Resting { until } if self.is_short => Some(until),
                State::Resting { .. } | State::Dialling | State::Connected { .. } => None,
            });
            let starts = self.lists.is_some() && self.starting.is_none() && self.is_short;
            let due = rests.chain(starts.then_some(self.start_at));
            // Where nobody is due, the news of connections wake us.
            let span = due.min().map_or(REST_MAX, |at| at.since(now).max(Duration::from_millis(1)));
            let happened = {
                let sleep = self.runtime.sleep(span).fuse();
                let listed = lists::next_of(self.starting.as_mut()).fuse();
                futures::pin_mut!(sleep, listed);
                futures::select_biased! {
                    ended = self.dials.select_next_some() => Happened::Ended(ended),
                    news = listed => Happened::Listed(news),
                    () = sleep => Happened::Nothing,
                }
            };
            match happened {
                Happened::Ended(ended) => {
                    if let Some(text) = self.ended(ended) {
                        return text;
                    }
                }
                Happened::Listed(Some(news)) => {
                    if let Some(text) = self.listed(news) {
                        return text;
                    }
                }
                Happened::Listed(None) => {
                    self.starting = None;
                    // Those who are connected already are not dialled again.
                    let stands = |one: &Kept| matches!(one.state, State::Connected { .. });
                    let has_led = self.has_led || self.kept.iter().any(stands);
                    let span = if has_led { REST_MAX } else { rest(self.start_strikes) };
                    self.start_strikes = if has_led { 0 } else { self.start_strikes + 1 };
                    self.start_at = self.node.now() + span;
                }
                Happened::Nothing => {}
            }
        }
    }

    /// Keep what lists said, and end.
    pub(super) async fn close(self) {
        if let Some(starting) = self.starting {
            starting.close().await;
        }
    }

    fn start_if_due(&mut self, now: Instant) {
        let is_due = self.is_short && self.starting.is_none() && self.start_at <= now;
        if let Some(lists) = self.lists.as_ref().filter(|_| is_due) {
            self.has_led = false;
            self.starting = Some(self.node.bootstrap(lists.clone()));
        }
    }

    /// What lists led to; whoever was reached is kept from then on.
    fn listed(&mut self, news: BootstrapNews) -> Option<String> {
        if let BootstrapNews::Dialling { peer, url, .. } = &news
            && self.named.len() < KEPT_MAX
        {
            self.named.entry(*peer).or_insert_with(|| url.clone());
        }
        let BootstrapNews::Dialled { addr, result } = news else { return lists::words(&news) };
        self.has_led |= result.is_ok();
        let at = self.kept.iter().position(|one| one.peer.addr == addr);
        let index = match (at, &result) {
            (Some(index), _) => index,
            (None, Ok(_)) if self.kept.len() < KEPT_MAX => {
                let peer = Peer { addr, has_proved: false };
                self.kept.push(Kept { peer, strikes: 0, state: State::Dialling });
                self.kept.len() - 1
            }
            (None, Ok(_)) => return None,
            (None, Err(error)) => return Some(format!("cannot reach {addr}: {error}")),
        };
        self.ended((index, result))
    }

    /// Which list named a peer, as far as it is known.
    pub(super) fn named(&self) -> &BTreeMap<PeerId, Url> {
        &self.named
    }

    fn dial_those_due(&mut self, now: Instant) {
        if !self.is_short {
            return;
        }
        for (index, one) in self.kept.iter_mut().enumerate() {
            if matches!(one.state, State::Resting { until } if until <= now) {
                one.state = State::Dialling;
                let (node, addr) = (self.node, one.peer.addr.clone());
                self.dials.push(async move { (index, node.dial(addr).await) }.boxed());
            }
        }
    }

    fn ended(&mut self, (index, result): Ended) -> Option<String> {
        let now = self.node.now();
        let one = &mut self.kept[index];
        match result {
            Ok(dialled) => {
                one.state = State::Connected { conn: dialled.conn, since: now };
                Some(format!("connected to {} from {}", one.peer.addr, dialled.local))
            }
            // It was dialled twice, by itself and for a list, and is none the worse for it.
            Err(_) if matches!(one.state, State::Connected { .. }) => None,
            Err(error) => {
                one.rest(now);
                Some(format!("cannot reach {}: {error}", one.peer.addr))
            }
        }
    }

    /// Connections have changed.
    pub(super) async fn look(&mut self) {
        let stands: BTreeSet<ConnId> =
            self.node.connections().await.iter().map(|info| info.conn).collect();
        let now = self.node.now();
        for one in &mut self.kept {
            if let State::Connected { conn, since } = one.state
                && !stands.contains(&conn)
            {
                if now.since(since) > REST_MAX {
                    one.strikes = 0;
                }
                one.rest(now);
            }
        }
    }

    /// Core may have seen enough servers.
    pub(super) fn wanted(&mut self, explanation: &Explanation) {
        let in_reach = explanation.servers.iter().filter(|server| server.connected).count();
        self.is_short = in_reach < SERVERS_ENOUGH;
    }
}

impl Kept {
    fn rest(&mut self, now: Instant) {
        self.state = State::Resting { until: now + rest(self.strikes) };
        self.strikes = self.strikes.saturating_add(1);
    }
}

/// How long to rest after so many rests in a row.
fn rest(before: u32) -> Duration {
    (REST_FIRST * 2u32.saturating_pow(before.min(STRIKES_MAX))).min(REST_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_proved_here_comes_first_and_nobody_twice() {
        let addr = |port: u16| -> Multiaddr {
            format!("/ip4/192.0.2.1/tcp/{port}").parse().expect("a multiaddr")
        };
        let known = Known {
            provers: vec![addr(3), addr(9)],
            peers: vec![addr(1), addr(7)],
            ..Known::default()
        };
        let order = in_order(&[addr(1), addr(2), addr(3)], &known);
        let told: Vec<(Multiaddr, bool)> =
            order.into_iter().map(|peer| (peer.addr, peer.has_proved)).collect();
        let wanted = [(3, true), (9, true), (1, false), (2, false), (7, false)];
        assert_eq!(told, wanted.map(|(port, proved)| (addr(port), proved)));
        assert!(in_order(&[], &Known::default()).is_empty());
    }
}
