//! One gateway: what it speaks, how often it may be asked, and what it has forgotten.

use super::asker::{Answer, Ask, Asker, Heard};
use super::grant::Grants;
use super::igd::{Igd, ssdp_group};
use crate::wire::{self, nat_pmp, pcp};
use crate::words::checkpoint::saved;
use crate::words::config::GATEWAY_REQUESTS_MIN;
use crate::words::sleep::Sleep;
use crate::{
    Action, Channel, Cx, Duration, FetchId, Gateway, GatewayAnswer, Instant, IpScope,
    MappingAction, MappingConfig, MappingProtocol, Notice, Oddity, ip_scope,
};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::{IpAddr, SocketAddr, SocketAddrV6};

/// RFC 6886 §3.7, RFC 6887 §14.1.3: how long to wait at most until a gateway that has forgotten
/// everything is asked again, so that its network does not do so at once.
const RECOVERY_SPREAD_MS: u64 = 5_000;
/// The shortest time between two recoveries, seconds; ours: a forged restart costs no more requests.
const RECOVERY_GAP: Duration = Duration::from_secs(20);
/// How often what a gateway tells everybody makes us ask it, seconds; ours: it can be forged.
const STIR_GAP: Duration = Duration::from_secs(5);
/// How often another external address puts connections in doubt, seconds; ours: it can be made up, and
/// costs a ping for each of them.
const DOUBT_GAP: Duration = Duration::from_secs(20);
/// Sockets towards one gateway, number; ours: one for each of our own addresses there, and two
/// that listen. When full, further addresses are not asked from.
const CHANNELS_MAX: usize = 16;

/// The sockets that are open; gateways on one interface share them.
pub(super) type Channels = BTreeSet<Channel>;

/// One gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gate {
    pub(super) gateway: Gateway,
    pub(super) since: Instant,
    askers: Vec<Asker>,
    igd: Option<Igd>,
    pub(super) budget: Budget,
    open: BTreeSet<Channel>,
    /// When to ask again for everything that it has granted.
    recover_at: Option<Instant>,
    recovered_at: Option<Instant>,
    stirred_at: Option<Instant>,
    /// The external address that it left last.
    left: Option<IpAddr>,
    /// Whether connections through it are to be put in doubt for that, and when they were last.
    doubts: bool,
    doubted_at: Option<Instant>,
    /// What the application was told.
    told: Vec<GatewayAnswer>,
}

/// What may still be asked: half of a minute's requests at once, and one for each of its parts that
/// passes, so that no minute has more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    /// When all is there again.
    full_at: Instant,
}

const _: () = assert!(Budget::BURST as usize * 2 == GATEWAY_REQUESTS_MIN);

impl Budget {
    const BURST: u32 = 60;
    const GAP: Duration = Duration::from_secs(1);

    pub(super) fn new(now: Instant) -> Budget {
        Budget { full_at: now }
    }

    /// Whether nothing of it is spent.
    pub(super) fn is_full(self, now: Instant) -> bool {
        self.full_at <= now
    }

    /// When something may be asked.
    fn free_at(self) -> Instant {
        let spent = Self::GAP * (Self::BURST - 1);
        Instant::ZERO + self.full_at.since(Instant::ZERO + spent)
    }

    fn take(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + Self::GAP;
    }
}

/// What a reply means for the mappings.
pub(super) type Told = (MappingProtocol, Heard);

impl Gate {
    pub(super) fn new(
        cx: &mut Cx<'_>,
        channels: &mut Channels,
        (gateway, budget): (Gateway, Budget),
        config: &MappingConfig,
    ) -> Gate {
        let allowed = |protocol| config.protocols.contains(&protocol);
        let speaks_nat_pmp = gateway.source.is_ipv4() && allowed(MappingProtocol::NatPmp);
        let mut askers = Vec::new();
        if allowed(MappingProtocol::Pcp) {
            askers.push(Asker::new(MappingProtocol::Pcp));
        }
        if speaks_nat_pmp {
            askers.push(Asker::new(MappingProtocol::NatPmp));
        }
        let mut gate = Gate {
            gateway,
            since: cx.now,
            igd: allowed(MappingProtocol::Upnp).then(|| Igd::new(cx.now)),
            budget,
            open: BTreeSet::new(),
            recover_at: None,
            recovered_at: None,
            stirred_at: None,
            left: None,
            doubts: false,
            doubted_at: None,
            told: Vec::new(),
            askers,
        };
        let source = gateway.source;
        if !gate.askers.is_empty() {
            let group: IpAddr = match source {
                IpAddr::V4(_) => nat_pmp::CLIENT_GROUP.into(),
                IpAddr::V6(_) => pcp::CLIENT_GROUP_V6.into(),
            };
            gate.open_group(cx, channels, (group, pcp::CLIENT_PORT).into());
        }
        if gate.igd.is_some() {
            gate.open_group(cx, channels, ssdp_group(source));
        }
        gate
    }

    fn open_group(&mut self, cx: &mut Cx<'_>, channels: &mut Channels, group: SocketAddr) {
        let Gateway { source, interface, .. } = self.gateway;
        self.open(cx, channels, Channel::Group { group, source, interface });
    }

    fn open(&mut self, cx: &mut Cx<'_>, channels: &mut Channels, channel: Channel) {
        let is_new = self.open.len() < CHANNELS_MAX && self.open.insert(channel);
        if is_new && channels.insert(channel) {
            cx.actions.push(Action::Mapping(MappingAction::OpenChannel { channel }));
        }
    }

    /// Do without the sockets of addresses that are ours no more.
    pub(super) fn keep_sources(&mut self, is_ours: impl Fn(IpAddr) -> bool) {
        self.open.retain(|channel| match channel {
            Channel::Client { source, .. } => is_ours(*source),
            Channel::Group { .. } => true,
        });
    }

    /// Whether the socket is one of ours.
    pub(super) fn has(&self, channel: Channel) -> bool {
        self.open.contains(&channel)
    }

    /// The protocols that it was found to speak, best first.
    pub(super) fn speaks(&self, now: Instant) -> impl Iterator<Item = MappingProtocol> {
        MappingProtocol::ALL.into_iter().filter(move |protocol| match protocol {
            MappingProtocol::Upnp => self.igd.as_ref().is_some_and(|igd| igd.speaks(now)),
            MappingProtocol::Pcp | MappingProtocol::NatPmp => {
                self.asker(*protocol).is_some_and(Asker::speaks)
            }
        })
    }

    /// Whether it is known for every protocol that may be spoken, or for this one.
    pub(super) fn is_decided(&self, now: Instant, protocol: Option<MappingProtocol>) -> bool {
        let asked = |one: MappingProtocol| protocol.is_none_or(|wanted| wanted == one);
        let mut askers = self.askers.iter().filter(|asker| asked(asker.protocol()));
        let igd = self.igd.as_ref().filter(|_| asked(MappingProtocol::Upnp));
        askers.all(Asker::is_decided) && igd.is_none_or(|igd| igd.is_decided(now))
    }

    /// The gateway's external address as this protocol tells it.
    pub(super) fn external_by(&self, protocol: MappingProtocol) -> Option<IpAddr> {
        match protocol {
            MappingProtocol::Upnp => self.igd.as_ref().and_then(Igd::external),
            MappingProtocol::Pcp | MappingProtocol::NatPmp => {
                self.asker(protocol).and_then(Asker::external)
            }
        }
    }

    /// The gateway's external address, as far as any protocol tells it.
    pub(super) fn external(&self) -> Option<IpAddr> {
        MappingProtocol::ALL.into_iter().find_map(|protocol| self.external_by(protocol))
    }

    fn asker(&self, protocol: MappingProtocol) -> Option<&Asker> {
        self.askers.iter().find(|asker| asker.protocol() == protocol)
    }

    /// Something has changed: ask now.
    pub(super) fn stir(&mut self, now: Instant) {
        self.askers.iter_mut().for_each(|asker| asker.stir(now));
        if let Some(igd) = &mut self.igd {
            igd.stir(now);
        }
    }

    pub(super) fn resumed(&mut self, now: Instant, sleep: Sleep) {
        self.askers.iter_mut().for_each(|asker| asker.resumed(now, sleep));
        if let Some(igd) = &mut self.igd {
            igd.resumed(now, sleep);
        }
    }

    /// A datagram came. What it means for the mappings, if anything.
    pub(super) fn received(
        &mut self,
        cx: &mut Cx<'_>,
        grants: &Grants,
        channel: Channel,
        from: SocketAddr,
        body: &Bytes,
    ) -> Result<Option<Told>, Oddity> {
        let is_gateway = from.ip().to_canonical() == self.gateway.router;
        match channel {
            Channel::Client { .. } if is_gateway && from.port() == pcp::PORT => {
                self.answered(cx, grants, body).map(Some)
            }
            Channel::Client { .. } => {
                let igd = self.igd.as_mut().ok_or(Oddity::StrayDatagram)?;
                igd.found(cx.now, &self.gateway, from.ip().to_canonical(), body).map(|()| None)
            }
            Channel::Group { group, .. } if group.port() == pcp::CLIENT_PORT => {
                if !is_gateway {
                    return Err(Oddity::StrayDatagram);
                }
                self.announced(cx, grants, body).map(|()| None)
            }
            Channel::Group { .. } => {
                let igd = self.igd.as_mut().ok_or(Oddity::StrayDatagram)?;
                let from = from.ip().to_canonical();
                if igd.notified(cx.now, &self.gateway, from, body)? {
                    self.restarted(cx);
                }
                Ok(None)
            }
        }
    }

    /// Byte 0 tells the protocol; but who does not know our version answers in its own.
    fn answered(&mut self, cx: &mut Cx<'_>, grants: &Grants, body: &Bytes) -> Result<Told, Oddity> {
        let protocol = match wire::version(body) {
            Some(nat_pmp::VERSION) if !is_unsupported_nat_pmp(body) => MappingProtocol::NatPmp,
            Some(pcp::VERSION) if is_unsupported_pcp(body) => MappingProtocol::NatPmp,
            Some(_) => MappingProtocol::Pcp,
            None => return Err(Oddity::StrayDatagram),
        };
        let asker = self.askers.iter_mut().find(|asker| asker.protocol() == protocol);
        let asker = asker.ok_or(Oddity::StrayDatagram)?;
        let heard = match (protocol, wire::version(body)) {
            (MappingProtocol::NatPmp, Some(pcp::VERSION)) => {
                Heard { answer: Answer::Unsupported, has_forgotten: false }
            }
            _ => asker.received(cx.now, &self.gateway, grants, body)?,
        };
        if heard.answer == Answer::Unsupported {
            asker.unsupported(cx);
        }
        if heard.has_forgotten {
            self.restarted(cx);
        }
        Ok((protocol, heard))
    }

    /// It tells everybody. One program serves both protocols, and which of them it announces what by
    /// differs: what one says holds for the other, also where we may not speak it.
    fn announced(&mut self, cx: &mut Cx<'_>, grants: &Grants, body: &Bytes) -> Result<(), Oddity> {
        let protocol = match wire::version(body) {
            Some(nat_pmp::VERSION) => MappingProtocol::NatPmp,
            Some(_) | None => MappingProtocol::Pcp,
        };
        let (seconds, external) = announcement(protocol, body)?;
        let gateway = self.gateway;
        let mut held = grants.values().filter(|one| one.is_of(&gateway) && one.term().is_some());
        let asker = self.askers.iter_mut().find(|asker| asker.protocol() == protocol);
        let is_news = match asker {
            Some(asker) => asker.clock(cx.now, seconds),
            // Nobody else would find out: a PCP server that is asked for its clock tells no address.
            None => external.is_some_and(|ip| held.any(|one| one.external_ip != Some(ip))),
        };
        if is_news {
            self.restarted(cx);
        } else if self.stirred_at.is_none_or(|at| at + STIR_GAP <= cx.now) {
            // Its address may have changed, or it came back faster than its clock betrays.
            self.stirred_at = Some(cx.now);
            self.askers.iter_mut().for_each(|asker| asker.stir(cx.now));
        }
        Ok(())
    }

    /// It has forgotten everything.
    fn restarted(&mut self, cx: &mut Cx<'_>) {
        if self.recover_at.is_none() {
            let wait = Duration::from_millis(1 + cx.draw.below(RECOVERY_SPREAD_MS));
            let last = self.recovered_at.map_or(cx.now, |at| at + RECOVERY_GAP);
            self.recover_at = Some(cx.now.max(last) + wait);
        }
    }

    /// What it has granted leads to another external address than this one, by its own word. Whatever
    /// else it has granted does so as well, and says it a little later. Whether that was news.
    pub(super) fn moved(&mut self, cx: &mut Cx<'_>, old: IpAddr) -> bool {
        let is_news = self.left != Some(old);
        self.doubts |= is_news;
        self.left = Some(old);
        self.restarted(cx);
        is_news
    }

    /// Whether connections through it are in doubt from now on.
    pub(super) fn take_doubt(&mut self, now: Instant) -> bool {
        let is_due = self.doubts && self.doubt_at() <= now;
        if is_due {
            self.doubts = false;
            self.doubted_at = Some(now);
        }
        is_due
    }

    fn doubt_at(&self) -> Instant {
        self.doubted_at.map_or(Instant::ZERO, |at| at + DOUBT_GAP)
    }

    /// Nobody listens at the gateway's port, or at one that we cannot tell.
    pub(super) fn refused(&mut self, cx: &mut Cx<'_>, grants: &Grants, to: Option<SocketAddr>) {
        let is_other = |to: SocketAddr| {
            to.ip().to_canonical() != self.gateway.router || to.port() != pcp::PORT
        };
        if to.is_some_and(is_other) {
            return;
        }
        for asker in &mut self.askers {
            let holds = asker.holds(&self.gateway, grants);
            asker.refused(cx, holds);
        }
    }

    /// An HTTP request of this gateway's ended; `None` if it is not one of its own.
    pub(super) fn fetched(
        &mut self,
        cx: &mut Cx<'_>,
        grants: &Grants,
        fetch: FetchId,
        response: super::igd::Response<'_>,
    ) -> Option<Option<Heard>> {
        let igd = self.igd.as_mut()?;
        igd.has_asked(fetch).then(|| igd.fetched(cx, &self.gateway, grants, response))
    }

    /// Ask what is to be asked.
    pub(super) fn advance(
        &mut self,
        cx: &mut Cx<'_>,
        grants: &mut Grants,
        (lifetime_s, description): (u32, &str),
        closing: bool,
        (channels, next_fetch): (&mut Channels, &mut u64),
    ) {
        self.recover(cx, grants);
        for at in 0..self.askers.len() {
            let ask = self.ask(cx.now, closing, lifetime_s);
            let sent = self.askers[at].advance(cx, &self.gateway, grants, &ask);
            if let Some((source, body)) = sent {
                let to = (self.gateway.router, pcp::PORT).into();
                self.send(cx, channels, (source, to), body);
            }
        }
        if let Some(mut igd) = self.igd.take() {
            let ask = self.ask(cx.now, closing, lifetime_s);
            for (to, body) in igd.search(cx, &self.gateway, grants, &ask) {
                self.send(cx, channels, (self.gateway.source, to), body);
            }
            if let Some(fetch) = igd.ask(cx, &self.gateway, grants, &ask, description, next_fetch) {
                self.budget.take(cx.now);
                cx.actions.push(Action::Mapping(MappingAction::Fetch(fetch)));
            }
            self.igd = Some(igd);
        }
        self.tell(cx);
    }

    /// What is given back in the end is worth more than the budget.
    fn ask(&self, now: Instant, closing: bool, lifetime_s: u32) -> Ask {
        let may_send = closing || self.budget.free_at() <= now;
        let is_told = self.speaks(now).any(|protocol| self.external_by(protocol).is_some());
        Ask { may_send, closing, lifetime_s, is_told }
    }

    fn recover(&mut self, cx: &mut Cx<'_>, grants: &mut Grants) {
        if self.recover_at.is_none_or(|at| at > cx.now) {
            return;
        }
        self.recover_at = None;
        self.recovered_at = Some(cx.now);
        for grant in grants.values_mut().filter(|grant| grant.is_of(&self.gateway)) {
            grant.ask_again_at(cx.now);
        }
        self.stir(cx.now);
    }

    fn send(
        &mut self,
        cx: &mut Cx<'_>,
        channels: &mut Channels,
        (source, to): (IpAddr, SocketAddr),
        body: Bytes,
    ) {
        let interface = self.gateway.interface;
        let channel = Channel::Client { source, interface };
        self.open(cx, channels, channel);
        self.budget.take(cx.now);
        let to = scoped(to, interface);
        cx.actions.push(Action::Mapping(MappingAction::SendDatagram { channel, to, body }));
    }

    /// Tell the application what was found out.
    fn tell(&mut self, cx: &mut Cx<'_>) {
        let router = self.gateway.router;
        let answers = self.speaks(cx.now);
        let answers: Vec<GatewayAnswer> = answers
            .map(|protocol| GatewayAnswer {
                router,
                protocol,
                external: self.external_by(protocol),
            })
            .collect();
        for answer in &answers {
            let last = self.told.iter().find(|last| last.protocol == answer.protocol);
            if last.is_some_and(|last| last.external.is_some() && last.external != answer.external)
            {
                // Whatever else it has granted leads elsewhere now as well.
                self.restarted(cx);
            }
            if !self.told.contains(answer) {
                cx.actions.notify(Notice::GatewayAnswered(*answer));
            }
        }
        self.told = answers;
    }

    /// What it answered, as it stands.
    pub(super) fn answers(&self) -> impl Iterator<Item = GatewayAnswer> + '_ {
        self.told.iter().copied()
    }

    /// When there is something to do by itself.
    pub(super) fn due_at(&self, now: Instant, grants: &Grants, closing: bool) -> Option<Instant> {
        let askers = self.askers.iter();
        let askers = askers.filter_map(|asker| asker.due_at(&self.gateway, grants, closing));
        let igd = self.igd.as_ref().and_then(|igd| igd.due_at(now, &self.gateway, grants, closing));
        let asks = askers.chain(igd).min();
        let asks = asks.map(|at| if closing { at } else { at.max(self.budget.free_at()) });
        let doubts = self.doubts.then(|| self.doubt_at());
        [asks, self.recover_at, doubts].into_iter().flatten().min()
    }
}

/// What a gateway tells everybody by a protocol: RFC 6886 §3.2.1, RFC 6887 §14.1.3. Its clock, and
/// its external address where that is said.
fn announcement(protocol: MappingProtocol, body: &[u8]) -> Result<(u32, Option<IpAddr>), Oddity> {
    match protocol {
        MappingProtocol::NatPmp => match nat_pmp::Response::decode(body) {
            Ok(nat_pmp::Response::ExternalAddress { epoch, ip }) => {
                Ok((epoch, Some(ip.into()).filter(|_| !ip.is_unspecified())))
            }
            Ok(_) | Err(_) => Err(Oddity::StrayDatagram),
        },
        MappingProtocol::Pcp | MappingProtocol::Upnp => match pcp::Response::decode(body) {
            Ok(pcp::Response { epoch, body: pcp::ResponseBody::Announce, .. }) => Ok((epoch, None)),
            Ok(_) | Err(_) => Err(Oddity::StrayDatagram),
        },
    }
}

/// Whether it is NAT-PMP's way to say that it does not know the version.
fn is_unsupported_nat_pmp(body: &[u8]) -> bool {
    use nat_pmp::{Response, ResultCode};
    let code = ResultCode::UnsupportedVersion;
    matches!(Response::decode(body), Ok(Response::Failed { code: said, .. }) if said == code)
}

/// Whether it is PCP's way to say so.
fn is_unsupported_pcp(body: &[u8]) -> bool {
    use pcp::{Response, ResultCode};
    let code = ResultCode::UnsupportedVersion;
    matches!(Response::decode(body), Ok(Response { code: said, .. }) if said == code)
}

/// The destination with its interface, where it means nothing without.
pub(super) fn scoped(to: SocketAddr, interface: u32) -> SocketAddr {
    match to {
        SocketAddr::V6(v6) if ip_scope(to.ip()) == IpScope::LinkLocal || v6.ip().is_multicast() => {
            SocketAddrV6::new(*v6.ip(), v6.port(), 0, interface).into()
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => to,
    }
}

saved!(struct Gate {
    gateway, since, askers, igd, budget, open, recover_at, recovered_at, stirred_at, left, doubts,
    doubted_at, told,
});
saved!(struct Budget { full_at });
