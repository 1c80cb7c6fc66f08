//! NAT-PMP and PCP at one gateway: one question at a time, sent again as the RFCs say.
//!
//! ```text
//!              ┌─ a reply of this protocol ─────────────► Speaks ── poll, map, renew, delete
//!  Unknown ────┤                                            │
//!   (probe)    └─ silence, refusal, another version ─► Absent(again_at) ◄── silence
//! ```

use super::epoch::Epoch;
use super::faults::{nat_pmp_fault, pcp_fault};
use super::grant::{Fault, Given, Grant, Grants, Stage};
use super::pacing::{Backoff, Pace};
use crate::wire::{self, MapTransport, nat_pmp, pcp};
use crate::words::checkpoint::saved;
use crate::words::sleep::Sleep;
use crate::{Cx, Duration, Gateway, Instant, MappingProtocol, Oddity, Transport};
use bytes::Bytes;
use core::net::IpAddr;

/// How often a gateway that has granted something is asked for its clock, seconds; ours: with it
/// a restart is missed only where router and clock were down for less than 7 s (RFC 6886 §3.6
/// allows an eighth of the pause and 2 s). Requests grow as it shrinks.
const POLL: Duration = Duration::from_secs(40);
/// How often otherwise, seconds; ours.
const POLL_IDLE: Duration = Duration::from_secs(300);
/// The shortest time for which an error is believed, seconds; ours: miniupnpd says 0.
pub(super) const HOLD_OFF_MIN: Duration = Duration::from_secs(60);
/// The longest, seconds: RFC 6887 §7.4's long error. A forged one silences a protocol no longer.
pub(super) const HOLD_OFF_MAX: Duration = Duration::from_secs(1_800);
/// RFC 6887 §15: the longest PCP lifetime, seconds.
const PCP_LIFETIME_MAX: u32 = 24 * 3_600;

/// What we know of a gateway by one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    protocol: MappingProtocol,
    standing: Standing,
    asking: Option<Asking>,
    epoch: Option<Epoch>,
    external: Option<IpAddr>,
    poll_at: Instant,
    backoff: Backoff,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Unknown,
    Speaks,
    Absent { again_at: Instant },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asking {
    job: Job,
    pace: Pace,
}

/// One question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// Are you there, and since when?
    Probe,
    /// Map, or renew, this one.
    Map(u64),
    /// Delete this one.
    Delete(u64),
}

/// What a reply means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The gateway is there.
    Here,
    /// It does not speak this protocol.
    Unsupported,
    /// The gateway has no external address.
    Offline,
    /// A mapping was granted.
    Granted { grant: u64, given: Given },
    /// A mapping was deleted, or there was none.
    Released { grant: u64 },
    /// The gateway has it no more.
    Forgotten { grant: u64 },
    /// A mapping was not granted, or not renewed.
    Failed { grant: u64, fault: Fault },
}

/// A reply that was understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) answer: Answer,
    /// Whether the gateway has forgotten everything since it was last heard.
    pub(super) has_forgotten: bool,
}

impl Asker {
    pub(super) fn new(protocol: MappingProtocol) -> Asker {
        Asker {
            protocol,
            standing: Standing::Unknown,
            asking: None,
            epoch: None,
            external: None,
            poll_at: Instant::ZERO,
            backoff: Backoff::default(),
        }
    }

    pub(super) fn protocol(&self) -> MappingProtocol {
        self.protocol
    }

    /// Whether the gateway speaks the protocol, as far as we know.
    pub(super) fn speaks(&self) -> bool {
        self.standing == Standing::Speaks
    }

    /// Whether we have an answer to that, or have waited long enough for one.
    pub(super) fn is_decided(&self) -> bool {
        self.standing != Standing::Unknown
    }

    /// The gateway's external address, where the protocol tells it by itself.
    pub(super) fn external(&self) -> Option<IpAddr> {
        self.external
    }

    /// Ask now rather than later: something has changed.
    pub(super) fn stir(&mut self, now: Instant) {
        self.poll_at = now;
        self.backoff = Backoff::default();
        if let Standing::Absent { again_at } = &mut self.standing {
            *again_at = now;
        }
    }

    /// The host says that nobody listens there.
    pub(super) fn refused(&mut self, cx: &mut Cx<'_>, holds: bool) {
        if self.asking.is_some() {
            self.absent(cx, holds);
        }
    }

    /// The machine slept.
    pub(super) fn resumed(&mut self, now: Instant, sleep: Sleep) {
        if let Some(asking) = &mut self.asking {
            asking.pace.put_off(sleep);
        }
        if !sleep.is_nap() {
            self.stir(now);
        }
    }

    /// When there is something to do by itself.
    pub(super) fn due_at(
        &self,
        gateway: &Gateway,
        grants: &Grants,
        closing: bool,
    ) -> Option<Instant> {
        if let Some(asking) = &self.asking {
            return Some(asking.pace.next_at);
        }
        // What is due and was not sent waits for the budget.
        match self.standing {
            Standing::Unknown => Some(Instant::ZERO).filter(|_| !closing),
            Standing::Absent { again_at } => Some(again_at).filter(|_| !closing),
            Standing::Speaks => {
                let ours = self.grants_of(gateway, grants);
                let ours = ours.filter_map(|(_, grant)| match grant.stage {
                    Stage::Asking if grant.is_blocked(grants) => None,
                    Stage::Asking | Stage::Leaving => Some(Instant::ZERO),
                    Stage::Held(term) => term.renew_at,
                });
                ours.chain(Some(self.poll_at).filter(|_| !closing)).min()
            }
        }
    }

    /// Go on with the question under way, or begin the next one. Returns what to send and from
    /// where, and the mapping that was given up, if one was.
    pub(super) fn advance(
        &mut self,
        cx: &mut Cx<'_>,
        gateway: &Gateway,
        grants: &mut Grants,
        ask: &Ask,
    ) -> Option<(IpAddr, Bytes)> {
        let holds = self.holds(gateway, grants);
        if self.asking.is_some_and(|asking| is_moot(asking.job, grants, ask.closing)) {
            self.asking = None;
        }
        if let Some(mut asking) = self.asking {
            if asking.pace.next_at > cx.now {
                return None;
            }
            if self.is_spent(cx.now, asking, grants, holds) {
                self.give_up(cx, asking.job, grants, holds);
            } else if ask.may_send {
                asking.pace.again(cx.now, cx.draw, self.protocol);
                self.asking = Some(asking);
                return self.encoded(cx.now, asking.job, gateway, grants, ask);
            } else {
                return None;
            }
        }
        if !ask.may_send {
            return None;
        }
        let job = self.next(cx.now, gateway, grants, ask)?;
        let is_poll = match job {
            Job::Probe => true,
            Job::Map(serial) => grants.get(&serial).is_some_and(|grant| !grant.is_due(cx.now)),
            Job::Delete(_) => false,
        };
        if is_poll {
            let pause = if holds { POLL } else { POLL_IDLE };
            // A tenth apart, so that many hosts do not poll in step.
            self.poll_at = cx.now + pause * 9 / 10 + pause / 5 * below_100(cx) / 100;
        }
        let pace = Pace::first(cx.now, cx.draw, self.protocol);
        self.asking = Some(Asking { job, pace });
        self.encoded(cx.now, job, gateway, grants, ask)
    }

    /// RFC 6887 §11.2.1: a renewal is one packet, and the next rung of the ladder the next one.
    fn is_spent(&self, now: Instant, asking: Asking, grants: &Grants, holds: bool) -> bool {
        let Job::Map(grant) = asking.job else {
            return asking.pace.is_spent(self.protocol, holds);
        };
        let renews = grants.get(&grant).is_some_and(|one| one.term().is_some() && one.is_due(now));
        (renews && self.protocol == MappingProtocol::Pcp)
            || asking.pace.is_spent(self.protocol, holds)
    }

    fn give_up(&mut self, cx: &mut Cx<'_>, job: Job, grants: &mut Grants, holds: bool) {
        let held = |grant: &mut Grant| {
            if let Stage::Held(term) = &mut grant.stage { Some(*term) } else { None }
        };
        if let Job::Map(serial) = job
            && let Some(grant) = grants.get_mut(&serial).filter(|grant| grant.is_due(cx.now))
            && let Some(mut term) = held(grant)
        {
            term.renewal_failed(cx.now, cx.draw);
            grant.stage = Stage::Held(term);
            if self.protocol == MappingProtocol::Pcp {
                // One lost packet says nothing about the gateway; a poll will.
                self.asking = None;
                self.poll_at = cx.now;
                return;
            }
        }
        self.absent(cx, holds);
    }

    fn absent(&mut self, cx: &mut Cx<'_>, holds: bool) {
        self.asking = None;
        let again_at = cx.now + self.backoff.pause(cx.draw, holds || self.speaks());
        self.standing = Standing::Absent { again_at };
    }

    fn next(&self, now: Instant, gateway: &Gateway, grants: &Grants, ask: &Ask) -> Option<Job> {
        let probe = match self.standing {
            Standing::Unknown => return Some(Job::Probe).filter(|_| !ask.closing),
            Standing::Absent { again_at } => {
                return Some(Job::Probe).filter(|_| again_at <= now && !ask.closing);
            }
            Standing::Speaks => self.poll_at <= now,
        };
        let due = self.grants_of(gateway, grants).filter(|(_, grant)| grant.is_due(now));
        let mut due: alloc::vec::Vec<_> =
            due.filter(|(_, grant)| !grant.is_blocked(grants)).collect();
        // Whoever waits for a port comes first; what is given back can wait.
        due.sort_by_key(|(serial, grant)| (grant.is_leaving(), grant.term().is_some(), **serial));
        match due.first() {
            Some((serial, grant)) if grant.is_leaving() => {
                if probe && !ask.closing {
                    Some(Job::Probe)
                } else {
                    Some(Job::Delete(**serial))
                }
            }
            Some((serial, _)) => Some(Job::Map(**serial)),
            None if probe && !ask.closing => Some(self.poll(now, gateway, grants, ask)),
            None => None,
        }
    }

    /// How to watch over a gateway. A PCP server that is asked for its clock tells no address; where
    /// nobody else does, one of its mappings is asked for again, for no longer than it lasts anyway.
    fn poll(&self, now: Instant, gateway: &Gateway, grants: &Grants, ask: &Ask) -> Job {
        let is_untold = self.protocol == MappingProtocol::Pcp && !ask.is_told;
        let mut held = self.grants_of(gateway, grants).filter(|(_, grant)| {
            grant.internal.ip.is_ipv4() && grant.left(now).is_some_and(|left| !left.is_zero())
        });
        let watched = held.next().filter(|_| is_untold);
        watched.map_or(Job::Probe, |(serial, _)| Job::Map(*serial))
    }

    fn grants_of<'a>(
        &self,
        gateway: &Gateway,
        grants: &'a Grants,
    ) -> impl Iterator<Item = (&'a u64, &'a Grant)> {
        let (gateway, protocol) = (*gateway, self.protocol);
        grants.iter().filter(move |(_, one)| one.is_of(&gateway) && one.protocol == protocol)
    }

    /// Whether the gateway has granted us something by this protocol.
    pub(super) fn holds(&self, gateway: &Gateway, grants: &Grants) -> bool {
        self.grants_of(gateway, grants).any(|(_, grant)| grant.term().is_some())
    }

    fn encoded(
        &self,
        now: Instant,
        job: Job,
        gateway: &Gateway,
        grants: &Grants,
        ask: &Ask,
    ) -> Option<(IpAddr, Bytes)> {
        let (serial, is_deletion) = match job {
            Job::Probe => return Some((gateway.source, self.probe(gateway.source))),
            Job::Map(serial) => (serial, false),
            Job::Delete(serial) => (serial, true),
        };
        let grant = grants.get(&serial)?;
        let transport = map_transport(grant.internal.transport);
        // RFC 6886 §3.4, RFC 6887 §15: a deletion has a lifetime of 0 and suggests nothing.
        let lifetime_s = match grant.left(now).filter(|_| !grant.is_due(now)) {
            _ if is_deletion => 0,
            Some(left) => u32::try_from(left.as_secs()).unwrap_or(u32::MAX).max(1),
            None => ask.lifetime_s,
        };
        let external_port = if is_deletion { 0 } else { grant.external_port };
        let internal_port = grant.internal.port;
        let source = grant.internal.ip;
        let body = if self.protocol == MappingProtocol::NatPmp {
            nat_pmp::Request::Map { transport, internal_port, external_port, lifetime_s }.encode()
        } else {
            let wanted = grant.external_ip.filter(|_| !is_deletion);
            let external_ip = wanted.unwrap_or(pcp::unspecified(source));
            let mut map = pcp::MapRequest::new(grant.nonce, transport, internal_port, external_ip);
            map.external_port = external_port;
            pcp::Request::map(source, lifetime_s, map).encode()
        };
        Some((source, body))
    }

    fn probe(&self, source: IpAddr) -> Bytes {
        match self.protocol {
            MappingProtocol::NatPmp => nat_pmp::Request::ExternalAddress.encode(),
            MappingProtocol::Pcp | MappingProtocol::Upnp => {
                pcp::Request::announced(source).encode()
            }
        }
    }

    /// A datagram of the gateway's, which came to the socket at `source`.
    pub(super) fn received(
        &mut self,
        now: Instant,
        gateway: &Gateway,
        grants: &Grants,
        body: &[u8],
    ) -> Result<Heard, Oddity> {
        let heard = match self.protocol {
            MappingProtocol::NatPmp => self.nat_pmp(now, gateway, grants, body),
            MappingProtocol::Pcp | MappingProtocol::Upnp => self.pcp(now, gateway, grants, body),
        }?;
        let answers = match heard.answer {
            Answer::Here | Answer::Unsupported => Some(Job::Probe),
            Answer::Granted { grant, .. } | Answer::Failed { grant, .. } => Some(Job::Map(grant)),
            Answer::Released { grant } => Some(Job::Delete(grant)),
            Answer::Forgotten { .. } | Answer::Offline => None,
        };
        if self.asking.map(|asking| asking.job) == answers {
            self.asking = None;
        }
        if heard.answer != Answer::Unsupported {
            if self.standing != Standing::Speaks {
                self.poll_at = now + POLL;
            }
            self.standing = Standing::Speaks;
            self.backoff = Backoff::default();
        }
        Ok(heard)
    }

    /// It does not speak this protocol: ask again after a long pause, for it may be replaced.
    pub(super) fn unsupported(&mut self, cx: &mut Cx<'_>) {
        self.asking = None;
        self.standing = Standing::Absent { again_at: cx.now + HOLD_OFF_MAX };
    }

    /// The gateway's clock says this. Whether it has forgotten everything since it was last read.
    pub(super) fn clock(&mut self, now: Instant, seconds: u32) -> bool {
        let next = Epoch::new(now, seconds);
        let last = self.epoch.replace(next);
        last.is_some_and(|last| !last.continues(self.protocol, next))
    }

    fn nat_pmp(
        &mut self,
        now: Instant,
        gateway: &Gateway,
        grants: &Grants,
        body: &[u8],
    ) -> Result<Heard, Oddity> {
        let response = nat_pmp::Response::decode(body).map_err(|_| Oddity::StrayDatagram)?;
        let (epoch, answer) = match response {
            nat_pmp::Response::ExternalAddress { epoch, ip } => {
                self.external = Some(ip.into()).filter(|_| !ip.is_unspecified());
                (Some(epoch), Answer::Here)
            }
            nat_pmp::Response::Map {
                transport,
                epoch,
                internal_port,
                external_port,
                lifetime_s,
            } => {
                let found = self.grants_of(gateway, grants).find(|(_, grant)| {
                    grant.internal.port == internal_port
                        && map_transport(grant.internal.transport) == transport
                });
                let (serial, grant) = found.ok_or(Oddity::StrayDatagram)?;
                let answer = if grant.is_leaving() {
                    Answer::Released { grant: *serial }
                } else if lifetime_s == 0 || external_port == 0 {
                    // The answer to a deletion of long ago.
                    return Err(Oddity::StrayDatagram);
                } else {
                    let lifetime = Some(Duration::from_secs(lifetime_s.into()));
                    let given =
                        Given { ip: self.external, port: external_port, lifetime, pinhole: None };
                    Answer::Granted { grant: *serial, given }
                };
                (Some(epoch), answer)
            }
            nat_pmp::Response::Failed { opcode, code, epoch, internal_port } => {
                (epoch, self.nat_pmp_failed(grants, code, (opcode, internal_port))?)
            }
            nat_pmp::Response::Bare { .. } => (None, Answer::Unsupported),
        };
        let has_forgotten = epoch.is_some_and(|epoch| self.clock(now, epoch));
        Ok(Heard { answer, has_forgotten })
    }

    /// An error is one of the request under way, unless it names another one: it came twice, or late.
    fn nat_pmp_failed(
        &mut self,
        grants: &Grants,
        code: nat_pmp::ResultCode,
        (opcode, internal_port): (u8, Option<u16>),
    ) -> Result<Answer, Oddity> {
        if code == nat_pmp::ResultCode::UnsupportedVersion {
            // RFC 6886 §3.5: with opcode 0, whatever was asked.
            return Ok(Answer::Unsupported);
        }
        let job = self.asking.map(|asking| asking.job);
        let internal = match job {
            Some(Job::Map(serial) | Job::Delete(serial)) => {
                Some(grants.get(&serial).ok_or(Oddity::StrayDatagram)?.internal)
            }
            Some(Job::Probe) | None => None,
        };
        // RFC 6886 §3.5: it MUST have the internal port of the request. Some end before they say it, or have
        // nothing there.
        let internal_port = internal_port.filter(|port| *port != 0);
        let asked = internal.map(|internal| map_transport(internal.transport));
        let is_of_asked = opcode == nat_pmp::opcode(asked)
            && internal_port.is_none_or(|port| internal.is_some_and(|one| one.port == port));
        if !is_of_asked {
            return Err(Oddity::StrayDatagram);
        }
        let Some(fault) = nat_pmp_fault(code) else { return Ok(Answer::Unsupported) };
        Ok(match job {
            // That it has no address now is no reason not to ask it for ports.
            Some(Job::Probe) | None => {
                self.external = None;
                Answer::Here
            }
            Some(Job::Map(grant)) => Answer::Failed { grant, fault },
            Some(Job::Delete(grant)) => Answer::Released { grant },
        })
    }

    fn pcp(
        &mut self,
        now: Instant,
        gateway: &Gateway,
        grants: &Grants,
        body: &[u8],
    ) -> Result<Heard, Oddity> {
        if wire::version(body) != Some(pcp::VERSION) {
            // RFC 6887 Appendix A: a NAT-PMP gateway answers in its own version.
            let answer = Answer::Unsupported;
            return Ok(Heard { answer, has_forgotten: false });
        }
        let response = pcp::Response::decode(body).map_err(|_| Oddity::StrayDatagram)?;
        let pcp::Response { code, lifetime_s, epoch, body } = response;
        let answer = match body {
            _ if code == pcp::ResultCode::UnsupportedVersion => Answer::Unsupported,
            // It speaks PCP and knows no ANNOUNCE, or says nothing about a mapping.
            pcp::ResponseBody::Announce | pcp::ResponseBody::Bare { .. } => Answer::Here,
            pcp::ResponseBody::Map(map) => {
                let found = self.grants_of(gateway, grants).find(|(_, grant)| {
                    grant.nonce == map.nonce
                        && grant.internal.port == map.internal_port
                        && map_transport(grant.internal.transport).protocol_number() == map.protocol
                });
                // RFC 6887 §11.4: what does not match MUST be discarded.
                let (serial, grant) = found.ok_or(Oddity::StrayDatagram)?;
                let grant = (*serial, grant);
                let assigned = (map.external_ip, map.external_port);
                self.pcp_map(grant, code, lifetime_s, assigned)?
            }
        };
        let has_forgotten = self.clock(now, epoch);
        Ok(Heard { answer, has_forgotten })
    }

    fn pcp_map(
        &self,
        (serial, grant): (u64, &Grant),
        code: pcp::ResultCode,
        lifetime_s: u32,
        (ip, port): (IpAddr, u16),
    ) -> Result<Answer, Oddity> {
        if grant.is_leaving() {
            // Deleted, never there, or somebody else's: there is nothing more to be done.
            return Ok(Answer::Released { grant: serial });
        }
        if code == pcp::ResultCode::Success {
            if lifetime_s == 0 || port == 0 {
                return Err(Oddity::StrayDatagram);
            }
            let lifetime = Some(Duration::from_secs(lifetime_s.min(PCP_LIFETIME_MAX).into()));
            let ip = Some(ip).filter(|ip| !ip.is_unspecified());
            let given = Given { ip, port, lifetime, pinhole: None };
            return Ok(Answer::Granted { grant: serial, given });
        }
        let asked = self.asking.is_some_and(|asking| asking.job == Job::Map(serial));
        if !asked {
            // An error that nobody has asked for: an old one, or somebody else's.
            return Err(Oddity::StrayDatagram);
        }
        let fault = pcp_fault(code, lifetime_s);
        Ok(Answer::Failed { grant: serial, fault })
    }
}

/// What the room says about asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    /// Whether the budget of the gateway allows another request.
    pub(super) may_send: bool,
    /// Nothing is wanted any more.
    pub(super) closing: bool,
    /// For how long mappings are asked, seconds.
    pub(super) lifetime_s: u32,
    /// Whether the gateway tells its external address by a protocol that can be asked for it.
    pub(super) is_told: bool,
}

/// Whether the answer to a question does not matter any more: at the end there is no time to wait for
/// it, what was asked for may be over, and what was given back may be wanted again.
fn is_moot(job: Job, grants: &Grants, closing: bool) -> bool {
    match job {
        Job::Probe => closing,
        Job::Map(serial) => closing || !grants.contains_key(&serial),
        Job::Delete(serial) => !grants.get(&serial).is_some_and(Grant::is_leaving),
    }
}

fn below_100(cx: &mut Cx<'_>) -> u32 {
    u32::try_from(cx.draw.below(100)).unwrap_or(0)
}

pub(super) fn map_transport(transport: Transport) -> MapTransport {
    match transport {
        Transport::Tcp => MapTransport::Tcp,
        Transport::Quic => MapTransport::Udp,
    }
}

saved!(struct Asker { protocol, standing, asking, epoch, external, poll_at, backoff });
saved!(enum Standing { 1 = Unknown, 2 = Speaks, 3 = Absent { again_at } });
saved!(struct Asking { job, pace });
saved!(enum Job { 1 = Probe, 2 = Map(grant), 3 = Delete(grant) });
