//! UPnP at one gateway: find a responder, read its description, and speak with one service.
//!
//! ```text
//!  M-SEARCH ─► Found ─(description)─► Ready ── add, look after, delete
//!     ▲                                 │
//!     └──────────── Broken ◄────────────┘ refused, 404, nonsense
//! ```
//!
//! A responder that is the gateway serves. Another one serves only where the gateway was silent
//! for two seconds, and is asked at its own address and nowhere else.

mod calls;
mod responder;

use super::asker::{Answer, Ask, Heard};
use super::gate::scoped;
use super::grant::{Given, Grant, Grants, Stage};
use super::pacing::Backoff;
use crate::wire::upnp::ssdp::{Message, NotifyKind};
use crate::words::checkpoint::saved;
use crate::words::sleep::Sleep;
use crate::{
    Cx, Duration, Fetch, FetchFailure, FetchId, Gateway, Instant, MappingProtocol, Oddity,
};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use bytes::Bytes;
pub(super) use calls::ssdp_group;
use calls::{Call, Said, What};
use core::net::{IpAddr, SocketAddr};
use responder::{Responder, State};

/// Hosts that answered a search, number; ours. Half of them may be others than the gateway. When
/// full, a broken one makes room, or the newcomer is ignored.
const RESPONDERS_MAX: usize = 8;
/// How long the gateway may be silent until others serve, seconds; ours.
const OTHERS_AFTER: Duration = Duration::from_secs(2);
/// When a search is sent within a round, milliseconds after the one before; UPnP Device
/// Architecture 1.1 §1.3.2 asks for more than one, since datagrams are lost.
const GAPS: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(900)];
/// How long after the last one of a round there may be an answer, milliseconds: MX and some.
const ROUND_ENDS: Duration = Duration::from_millis(1_500);
/// The shortest time between two rounds, seconds; ours: whoever makes us search again costs no more.
const ROUND_GAP: Duration = Duration::from_secs(15);
/// How often mappings are looked after, seconds; ours: a table that was purged is seen within it.
const POLL: Duration = Duration::from_secs(40);
/// How often the external address is read where nothing is mapped, seconds; ours.
const POLL_IDLE: Duration = Duration::from_secs(300);
/// How long a request may take, seconds; ours: slow routers need some.
const TIMEOUT: Duration = Duration::from_secs(8);
/// How long after that a request counts as lost, should nobody ever say so; seconds, ours.
const LOST_AFTER: Duration = Duration::from_secs(5);
/// How long a responder that cannot be used is left alone, seconds; ours.
const BROKEN_FOR: Duration = Duration::from_secs(60);
/// How long one that refused a connection is, seconds; ours: it may be restarting.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// What is known of UPnP at one gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::mapping) struct Igd {
    search: Search,
    responders: Vec<Responder>,
    call: Option<Call>,
    /// What must be asked before anything else.
    next: Option<What>,
    external: Option<IpAddr>,
    /// Whether it said that it has none, so that mappings would lead nowhere.
    is_offline: bool,
    /// Whether the external address is to be read.
    wants_external: bool,
    /// Mappings to be looked after.
    wants_look: BTreeSet<u64>,
    poll_at: Instant,
    /// For how long mappings are asked, seconds.
    lifetime_s: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Search {
    /// Searches sent in this round.
    sends: usize,
    next_at: Instant,
    /// When the last round began.
    began_at: Option<Instant>,
    /// When the first round is over.
    decided_at: Option<Instant>,
    backoff: Backoff,
}

/// How an HTTP request ended.
#[derive(Clone, Copy, Debug)]
pub(in crate::mapping) enum Response<'a> {
    Whole { status: u16, body: &'a Bytes },
    Failed(FetchFailure),
}

impl Igd {
    pub(in crate::mapping) fn new(now: Instant) -> Igd {
        Igd {
            search: Search {
                sends: 0,
                next_at: now,
                began_at: None,
                decided_at: None,
                backoff: Backoff::default(),
            },
            responders: Vec::new(),
            call: None,
            next: None,
            external: None,
            is_offline: false,
            wants_external: true,
            wants_look: BTreeSet::new(),
            poll_at: now + POLL,
            lifetime_s: 0,
        }
    }

    /// Whether somebody is there who maps.
    pub(in crate::mapping) fn speaks(&self, now: Instant) -> bool {
        self.serving(now).is_some()
    }

    /// Whether that is known, or was waited for long enough.
    pub(in crate::mapping) fn is_decided(&self, now: Instant) -> bool {
        let over = self.search.decided_at.is_some_and(|at| at <= now);
        let pending = self.responders.iter().any(|one| {
            matches!(one.state, State::Found)
                || matches!(one.state, State::Ready { .. }) && now < one.found_at + OTHERS_AFTER
        });
        self.speaks(now) || over && !pending
    }

    /// The external address that the service told.
    pub(in crate::mapping) fn external(&self) -> Option<IpAddr> {
        self.external
    }

    /// Something has changed: search, and look after everything.
    pub(in crate::mapping) fn stir(&mut self, now: Instant) {
        self.search_again(now);
        self.search.backoff = Backoff::default();
        self.poll_at = now;
    }

    fn search_again(&mut self, now: Instant) {
        if self.search.sends == 0 {
            let next = self.search.began_at.map_or(now, |at| now.max(at + ROUND_GAP));
            self.search.next_at = self.search.next_at.min(next);
        }
    }

    pub(in crate::mapping) fn resumed(&mut self, now: Instant, sleep: Sleep) {
        if let Some(call) = &mut self.call {
            sleep.put_off(&mut call.until);
        }
        if !sleep.is_nap() {
            self.stir(now);
        }
    }

    /// A host answered a search.
    pub(in crate::mapping) fn found(
        &mut self,
        now: Instant,
        gateway: &Gateway,
        from: IpAddr,
        body: &Bytes,
    ) -> Result<(), Oddity> {
        let found = Responder::found(now, gateway, from, body).ok_or(Oddity::StrayDatagram)?;
        self.meet(found);
        Ok(())
    }

    fn meet(&mut self, found: Responder) {
        if let Some(known) = self.responders.iter_mut().find(|one| one.location == found.location) {
            known.boot = found.boot.or(known.boot);
            return;
        }
        let alike = self.responders.iter().filter(|one| one.is_gateway == found.is_gateway);
        if alike.count() >= RESPONDERS_MAX / 2 {
            let broken = |one: &Responder| {
                one.is_gateway == found.is_gateway && matches!(one.state, State::Broken { .. })
            };
            let Some(at) = self.responders.iter().position(broken) else { return };
            self.responders.remove(at);
        }
        self.responders.push(found);
    }

    /// A host told everybody that it is there, or leaves. Whether the gateway restarted.
    pub(in crate::mapping) fn notified(
        &mut self,
        now: Instant,
        gateway: &Gateway,
        from: IpAddr,
        body: &Bytes,
    ) -> Result<bool, Oddity> {
        let (kind, device) = match Message::decode(body) {
            Ok(Message::Notify { kind, device }) => (kind, device),
            // Others search too.
            Ok(Message::Search { .. }) => return Ok(false),
            Ok(Message::Found(_)) | Err(_) => return Err(Oddity::StrayDatagram),
        };
        let known = self.responders.iter().position(|one| one.from == from);
        match (kind, known) {
            (NotifyKind::ByeBye, Some(at)) => {
                // It comes back with another boot number, and maybe at another port.
                self.responders.remove(at);
                self.search_again(now);
                Ok(false)
            }
            (NotifyKind::ByeBye, None) => Ok(false),
            (NotifyKind::Alive | NotifyKind::Update, known) => {
                let boot = known.and_then(|at| self.responders[at].boot);
                let restarted =
                    boot.is_some() && device.boot_id.is_some() && boot != device.boot_id;
                // Any device of the network may tell of itself.
                let of_use = device.target.contains("InternetGatewayDevice");
                let found = Responder::of(now, gateway, from, device).filter(|_| of_use);
                if let (true, Some(at)) = (restarted, known) {
                    self.responders.remove(at);
                }
                if let Some(found) = found {
                    self.meet(found);
                }
                Ok(restarted && from == gateway.router)
            }
        }
    }

    /// Search, where it is time to.
    pub(in crate::mapping) fn search(
        &mut self,
        cx: &mut Cx<'_>,
        gateway: &Gateway,
        grants: &Grants,
        ask: &Ask,
    ) -> Vec<(SocketAddr, Bytes)> {
        let now = cx.now;
        self.responders.retain(|one| !matches!(one.state, State::Broken { until } if until <= now));
        if !self.searches(ask.closing) || self.search.next_at > now || !ask.may_send {
            return Vec::new();
        }
        let search = &mut self.search;
        let pause = match GAPS.get(search.sends) {
            Some(gap) => *gap,
            None => {
                search.decided_at = search.decided_at.or(Some(now + ROUND_ENDS));
                let holds = grants.values().any(|grant| grant.protocol == MappingProtocol::Upnp);
                search.backoff.pause(cx.draw, holds).max(ROUND_GAP)
            }
        };
        let sends = search.sends;
        if sends == 0 {
            search.began_at = Some(now);
        }
        search.sends = if sends < GAPS.len() { sends + 1 } else { 0 };
        search.next_at = now + pause;
        calls::searches(gateway, sends)
    }

    /// There is no end to searching until the gateway itself serves.
    fn searches(&self, closing: bool) -> bool {
        let serves = |one: &Responder| one.is_gateway && matches!(one.state, State::Ready { .. });
        !closing && !self.responders.iter().any(serves)
    }

    /// Who is asked now.
    fn serving(&self, now: Instant) -> Option<usize> {
        let ready = |one: &Responder| matches!(one.state, State::Ready { .. });
        let gateway = self.responders.iter().position(|one| one.is_gateway && ready(one));
        let waited = |one: &Responder| one.found_at + OTHERS_AFTER <= now;
        gateway.or_else(|| self.responders.iter().position(|one| ready(one) && waited(one)))
    }

    /// The next request, if there is one to make and none under way.
    pub(in crate::mapping) fn ask(
        &mut self,
        cx: &mut Cx<'_>,
        gateway: &Gateway,
        grants: &Grants,
        ask: &Ask,
        description: &str,
        next_fetch: &mut u64,
    ) -> Option<Fetch> {
        let now = cx.now;
        if self.call.as_ref().is_some_and(|call| call.until <= now) {
            self.call = None;
        }
        if self.call.is_some() || !ask.may_send {
            return None;
        }
        self.lifetime_s = ask.lifetime_s;
        let (at, what) = self.next_call(now, gateway, grants, ask)?;
        let responder = &self.responders[at];
        let request = calls::request(what, responder, gateway, grants, ask, description)?;
        let fetch = FetchId(*next_fetch);
        *next_fetch += 1;
        let location = responder.location.clone();
        self.call = Some(Call { fetch, what, location, until: now + TIMEOUT + LOST_AFTER });
        Some(Fetch {
            fetch,
            source: request.source,
            interface: gateway.interface,
            to: scoped(request.to, gateway.interface),
            path: request.path,
            soap: request.soap,
            timeout: TIMEOUT,
        })
    }

    fn next_call(
        &mut self,
        now: Instant,
        gateway: &Gateway,
        grants: &Grants,
        ask: &Ask,
    ) -> Option<(usize, What)> {
        let Some(at) = self.serving(now) else {
            self.next = None;
            if ask.closing {
                return None;
            }
            return self.describable(now).map(|at| (at, What::Describe));
        };
        if self.poll_at <= now && !ask.closing {
            let held =
                grants.iter().filter(|(_, grant)| is_of(gateway, grant) && grant.term().is_some());
            self.wants_look = held.map(|(serial, _)| *serial).collect();
            self.wants_external = true;
            self.poll_at = now + if self.wants_look.is_empty() { POLL_IDLE } else { POLL };
        }
        // A pinhole is known by its number alone.
        self.wants_look.retain(|serial| grants.get(serial).is_some_and(Grant::is_known));
        if let Some(next) = self.next.take().filter(|next| next.is_about(grants)) {
            return Some((at, next));
        }
        // IPv6 is not translated, so that there is no address to be told.
        self.wants_external &= gateway.source.is_ipv4();
        if self.wants_external && !ask.closing {
            return Some((at, What::External));
        }
        let ours = grants.iter().filter(|(_, grant)| is_of(gateway, grant));
        let mut due: Vec<_> = ours.filter(|(_, grant)| grant.is_due(now)).collect();
        due.retain(|(_, grant)| {
            !(matches!(grant.stage, Stage::Asking) && grant.is_blocked(grants))
        });
        due.sort_by_key(|(serial, grant)| (grant.is_leaving(), grant.term().is_some(), **serial));
        if let Some((serial, grant)) = due.first() {
            let what = match grant.stage {
                Stage::Leaving => What::Delete(**serial),
                Stage::Asking if self.is_offline => What::External,
                Stage::Asking | Stage::Held(_) => What::Add(**serial),
            };
            return Some((at, what));
        }
        let look = self.wants_look.pop_first().filter(|_| !ask.closing)?;
        Some((at, What::Look(look)))
    }

    /// Whose description is to be read: the gateway's first, others' once it was silent.
    fn describable(&self, now: Instant) -> Option<usize> {
        let found = |one: &Responder| matches!(one.state, State::Found);
        let gateway = self.responders.iter().position(|one| found(one) && one.is_gateway);
        let waited = |one: &Responder| one.found_at + OTHERS_AFTER <= now;
        gateway.or_else(|| self.responders.iter().position(|one| found(one) && waited(one)))
    }

    /// Whether the request under way is this one.
    pub(in crate::mapping) fn has_asked(&self, fetch: FetchId) -> bool {
        self.call.as_ref().is_some_and(|call| call.fetch == fetch)
    }

    /// The request under way ended. What that means for the mappings, if anything.
    pub(in crate::mapping) fn fetched(
        &mut self,
        cx: &mut Cx<'_>,
        gateway: &Gateway,
        grants: &Grants,
        response: Response<'_>,
    ) -> Option<Heard> {
        let call = self.call.take()?;
        let at = self.responders.iter().position(|one| one.location == call.location)?;
        let said = calls::read(
            call.what,
            &mut self.responders[at],
            gateway,
            grants,
            self.lifetime_s,
            response,
        );
        let answer = match said {
            Said::Nothing => return None,
            Said::External(external) => {
                self.wants_external = false;
                self.is_offline = false;
                self.external = external;
                Answer::Here
            }
            // Of two connections only one may be up.
            Said::Offline if self.responders[at].turns() => return None,
            Said::Offline => {
                self.responders[at].start_over();
                self.wants_external = false;
                self.is_offline = true;
                Answer::Offline
            }
            Said::Next(next) => {
                self.next = Some(next);
                return None;
            }
            Said::Slow => {
                self.lose(cx.now, at, BROKEN_FOR);
                return None;
            }
            Said::Gone => {
                self.lose(cx.now, at, REFUSED_FOR);
                return None;
            }
            Said::Granted(grant, given) => {
                let ip = given.ip.or(self.external);
                Answer::Granted { grant, given: Given { ip, ..given } }
            }
            Said::Released(grant) => Answer::Released { grant },
            Said::Forgotten(grant) => Answer::Forgotten { grant },
            Said::Failed(grant, fault) => Answer::Failed { grant, fault },
        };
        Some(Heard { answer, has_forgotten: false })
    }

    /// A responder cannot be used for a while; it, or another, may be found elsewhere.
    fn lose(&mut self, now: Instant, at: usize, span: Duration) {
        self.responders[at].state = State::Broken { until: now + span };
        self.external = None;
        self.wants_external = true;
        self.search_again(now);
    }

    /// When there is something to do by itself.
    pub(in crate::mapping) fn due_at(
        &self,
        now: Instant,
        gateway: &Gateway,
        grants: &Grants,
        closing: bool,
    ) -> Option<Instant> {
        let search = self.searches(closing).then_some(self.search.next_at);
        let decided = self.search.decided_at.filter(|at| now < *at && !closing);
        let others = self.responders.iter().filter_map(|one| match one.state {
            State::Broken { until } => Some(until),
            State::Found | State::Ready { .. } => {
                Some(one.found_at + OTHERS_AFTER).filter(|at| now < *at)
            }
        });
        let times = others.chain(search).chain(decided);
        let Some(call) = &self.call else {
            return times.chain(self.work_at(now, gateway, grants, closing)).min();
        };
        times.chain([call.until]).min()
    }

    /// When something is to be asked of whoever serves; what is due waits for the budget.
    fn work_at(
        &self,
        now: Instant,
        gateway: &Gateway,
        grants: &Grants,
        closing: bool,
    ) -> Option<Instant> {
        if self.serving(now).is_none() {
            return self.describable(now).filter(|_| !closing).map(|_| Instant::ZERO);
        }
        let ours = grants.values().filter(|grant| is_of(gateway, grant));
        let ours = ours.filter_map(|grant| match grant.stage {
            Stage::Asking if grant.is_blocked(grants) => None,
            Stage::Asking | Stage::Leaving => Some(Instant::ZERO),
            Stage::Held(term) => term.renew_at,
        });
        let asks = self.next.is_some()
            || !self.wants_look.is_empty()
            || self.wants_external && gateway.source.is_ipv4();
        let asks = (asks && !closing).then_some(Instant::ZERO);
        ours.chain(asks).chain(Some(self.poll_at).filter(|_| !closing)).min()
    }
}

/// Whether this gateway is asked for it by UPnP.
fn is_of(gateway: &Gateway, grant: &Grant) -> bool {
    grant.protocol == MappingProtocol::Upnp && grant.is_of(gateway)
}

saved!(struct Igd {
    search, responders, call, next, external, is_offline, wants_external, wants_look, poll_at, lifetime_s,
});
saved!(struct Search { sends, next_at, began_at, decided_at, backoff });
