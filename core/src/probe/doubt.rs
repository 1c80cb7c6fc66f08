//! What puts the answers in doubt, and the questions under way: another network, another router, a
//! connection that may be dead.

use super::Probe;
use super::exchange::Exchange;
use super::history::History;
use crate::candidates::Candidates;
use crate::local::Local;
use crate::peers::Peers;
use crate::{Action, Cx, Family, StreamId};
use alloc::vec::Vec;
use core::net::IpAddr;

impl Probe {
    /// A router of ours has left this external IP. What no source names there any more is forgotten, and
    /// all that is known of the family is in doubt, unless it was learned since.
    pub(crate) fn left(
        &mut self,
        cx: &mut Cx<'_>,
        ip: IpAddr,
        is_news: bool,
        candidates: &Candidates,
    ) {
        let family = Family::of(ip);
        self.histories.retain(|addr, _| addr.ip != ip || candidates.get(*addr).is_some());
        self.dirty = true;
        if !is_news {
            return self.take_back(cx, |exchange| exchange.addr().ip == ip);
        }
        self.take_back(cx, |exchange| Family::of(exchange.addr().ip) == family);
        let of_family = self.histories.iter_mut().filter(|(addr, _)| Family::of(addr.ip) == family);
        of_family.for_each(|(_, history)| history.doubt());
    }

    /// Another network, another socket: whatever was proven or refuted is in doubt, and what no
    /// source names any more, or nothing listens for, is forgotten.
    pub(super) fn doubt_everything(
        &mut self,
        cx: &mut Cx<'_>,
        local: &Local,
        candidates: &Candidates,
    ) {
        self.histories
            .retain(|addr, _| local.listens_in(addr.class()) && candidates.get(*addr).is_some());
        self.take_back(cx, |_| true);
        self.hearsay.forget(cx.actions);
        self.histories.values_mut().for_each(History::doubt);
    }

    /// Nobody waits for an answer over a connection that may be dead, once a ping on it is late or the
    /// server is reached over a newer one.
    pub(super) fn leave_the_dead(&mut self, cx: &mut Cx<'_>, peers: &Peers) {
        let is_lost = |(stream, one): &(&StreamId, &Exchange)| {
            let doubtful = peers.get(one.conn).filter(|conn| conn.is_in_doubt());
            // One that came up after the question was put.
            let is_met = || {
                let server = self.servers.get(one.peer);
                let asked = self.nonces.asked_at(**stream);
                asked.is_some_and(|at| server.is_some_and(|one| one.is_at_hand_since(peers, at)))
            };
            doubtful.is_some_and(|conn| conn.is_late() || is_met())
        };
        let open = self.exchanges.iter().filter(|(_, one)| !one.awaits_nonce());
        let lost = open.filter(is_lost);
        let lost: Vec<StreamId> = lost.map(|(stream, _)| *stream).collect();
        for stream in lost {
            cx.actions.push(Action::ResetStream { stream });
            self.cut_off(cx, stream);
        }
    }

    /// Take back every question under way: the answer would be about the network as it was. The
    /// nonces stay good, since whoever brings one has dialled what we listen on now.
    pub(super) fn take_back(&mut self, cx: &mut Cx<'_>, which: impl Fn(&Exchange) -> bool) {
        let stands = |(stream, one): (&StreamId, &Exchange)| (*stream, !one.awaits_nonce());
        let asked = self.exchanges.iter().filter(|(_, one)| which(one));
        let asked: Vec<(StreamId, bool)> = asked.map(stands).collect();
        for (stream, is_open) in asked {
            if is_open {
                cx.actions.push(Action::ResetStream { stream });
            }
            self.cut_off(cx, stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Actions, Addr, ConnId, Draw, Group, Instant, PeerId, Protocol, Signer, UnixTime};
    use alloc::vec;
    use core::net::Ipv4Addr;

    struct Zero;

    impl Draw for Zero {
        fn below(&mut self, _: u64) -> u64 {
            0
        }

        fn nonce(&mut self) -> u64 {
            0
        }
    }

    impl Signer for Zero {
        fn sign(&mut self, _: &[u8]) -> Vec<u8> {
            Vec::new()
        }
    }

    #[test]
    fn a_mapping_that_follows_its_router_takes_back_no_question_about_the_new_address() {
        let addr = |last| Addr::tcp(Ipv4Addr::new(99, 0, 0, last).into(), 4001);
        let left_over = |is_news: bool| {
            let mut probe = Probe::new(false, 1);
            for (number, addr) in [(1, addr(7)), (2, addr(9))] {
                let server = (PeerId::random(), Group::prefix(addr.ip), ConnId(number));
                let exchange = Exchange::new(Instant::ZERO, server, vec![addr], false, None);
                let stream = StreamId::outbound(Protocol::DialRequest, number);
                probe.exchanges.insert(stream, exchange);
            }
            let mut actions = Actions::new();
            let mut cx = Cx {
                now: Instant::ZERO,
                unix: UnixTime::from_millis(0),
                draw: &mut Zero,
                sign: &mut Zero,
                actions: &mut actions,
            };
            probe.left(&mut cx, addr(7).ip, is_news, &Candidates::default());
            probe.exchanges.values().map(Exchange::addr).collect::<Vec<_>>()
        };
        assert_eq!(left_over(true), []);
        assert_eq!(left_over(false), [addr(9)]);
    }
}
