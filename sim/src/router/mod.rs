//! A home router as its LAN sees it: NAT-PMP, PCP and UPnP, honest or with the quirks of real ones.
//!
//! ```text
//!  datagram ─► NAT-PMP │ PCP │ SSDP ─┐                       ┌─► answers, refusals
//!  request ──► description │ SOAP ───┼─► one table of what   ├─► HTTP replies
//!  advance ──► ends, purges, boots ──┘   is held, faults ────┴─► announcements to the LAN
//!                                             │
//!                     who comes from outside ─┴─► forwards(), pinhole()
//! ```
//!
//! Plain data under a clock that is handed in; chance comes from a generator of its own. Bytes are
//! read and written here by hand, and not by core's codecs: a mistake in those would hide in both
//! directions. What a client gets wrong is remembered as a complaint, even where it is answered.
//! `Attacker` is a host of the same LAN that means no good; `Bench` puts everybody beside an agent.
//!
//! Follows RFC 6886, RFC 6887, and UPnP's WANIPConnection and WANIPv6FirewallControl.
//!
//! A good first change here: PEER, the third opcode of PCP.

mod attacker;
pub mod bench;
mod description;
pub mod host;
mod http;
mod igd;
mod nat_pmp;
mod pcp;
mod pinholes;
mod profiles;
mod requests;
mod soap;
mod ssdp;
mod table;
#[cfg(test)]
mod tests;

pub use attacker::{Attack, Attacker, Trap};
pub use http::{HttpReply, read_request};
pub use profiles::{
    Forwarding, Leases, NatPmpProfile, NatProfile, PROFILES, PcpProfile, Profile, SearchProfile,
    UpnpProfile, Wan, WanService,
};
pub use requests::Requests;
pub use table::{Held, HoleKey, PortKey, Table};

use crate::dice::Dice;
use bytes::Bytes;
use portolan_core::{Duration, Fetch, Instant, MappingProtocol, Transport};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The port of NAT-PMP and PCP (RFC 6886 §3.1, RFC 6887 §19.1).
pub const SERVER_PORT: u16 = 5_351;
/// The port at which clients hear of reboots (RFC 6886 §3.2.1).
pub const CLIENT_PORT: u16 = 5_350;
/// The port of SSDP.
pub const SSDP_PORT: u16 = 1_900;
/// The group of all hosts, over IPv4 (RFC 6886 §3.2.1).
pub const ALL_HOSTS_4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
/// The group of all hosts, over IPv6 (RFC 6887 §14.1.3).
pub const ALL_HOSTS_6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The group of SSDP, over IPv4.
pub const SSDP_4: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
/// The group of SSDP on the link, over IPv6.
pub const SSDP_6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xc);

/// The first port of the HTTP server.
const HTTP_PORT: u16 = 49_152;
/// How often a router tells the LAN by SSDP that it is there; ours: half of its max-age.
const ALIVE_INTERVAL: Duration = Duration::from_secs(900);
/// The span before the second announcement, doubled before every further one (RFC 6886 §3.2.1).
const ANNOUNCEMENT_SPAN: Duration = Duration::from_millis(250);
/// Complaints that are remembered, number.
const COMPLAINTS_MAX: usize = 100;

/// What a router or an attacker sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A datagram to one host.
    Datagram {
        /// Where from, as its receiver sees it.
        from: SocketAddr,
        /// Where to.
        to: SocketAddr,
        /// What.
        body: Bytes,
    },
    /// A datagram to a group of the LAN.
    Multicast {
        /// Where from, as its receivers see it.
        from: SocketAddr,
        /// The group and its port.
        group: SocketAddr,
        /// What.
        body: Bytes,
    },
    /// Nobody listens there: an ICMP message.
    Refused {
        /// Where nobody listens.
        at: SocketAddr,
        /// Whoever tried.
        to: SocketAddr,
    },
}

/// How a router is disposed, whatever its profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// As its profile says.
    Answers,
    /// It hears nothing.
    Silent,
    /// Every port is closed.
    Refuses,
    /// It answers that it may not.
    Denies,
}

/// How a router starts anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reboot {
    /// How long it is away.
    pub takes: Duration,
    /// Whether it remembers its mappings, and goes on counting its epoch.
    pub keeps_state: bool,
    /// Whether it tells the LAN.
    pub announces: bool,
}

/// Something that is told to the whole LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Announcement {
    /// A reboot or another address, by NAT-PMP and PCP.
    Changed,
    /// It is there, by SSDP.
    Alive,
}

/// A router.
#[derive(Clone, Debug)]
pub struct Router {
    profile: Profile,
    ip4: IpAddr,
    ip6: IpAddr,
    wan: Ipv4Addr,
    dice: Dice,
    table: Table,
    /// Since when its epoch counts.
    epoch_at: Instant,
    booted_at: Instant,
    boot_id: u32,
    http_port: u16,
    /// While it is away: when it is back, and how it went.
    back_at: Option<(Instant, Reboot)>,
    mood: (Mood, Option<Instant>),
    grants_left: Option<u32>,
    due: Vec<(Instant, Announcement)>,
    purge_at: Option<Instant>,
    first_protocol: Option<MappingProtocol>,
    searches: u32,
    requests: Requests,
    complaints: Vec<String>,
}

impl Router {
    /// A router that starts now, with its addresses on the LAN; that of IPv6 is link-local.
    pub fn new(
        profile: Profile,
        (ip4, ip6): (Ipv4Addr, Ipv6Addr),
        now: Instant,
        seed: u64,
    ) -> Router {
        let mut router = Router {
            profile,
            ip4: ip4.into(),
            ip6: ip6.into(),
            wan: profile.wan.ip(),
            dice: Dice::new(seed),
            table: Table::default(),
            epoch_at: now,
            booted_at: now,
            boot_id: 1,
            http_port: HTTP_PORT,
            back_at: None,
            mood: (Mood::Answers, None),
            grants_left: None,
            due: Vec::new(),
            purge_at: None,
            first_protocol: None,
            searches: 0,
            requests: Requests::default(),
            complaints: Vec::new(),
        };
        router.boots(now);
        router
    }

    /// How it is.
    pub const fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Its addresses on the LAN.
    pub const fn ips(&self) -> [IpAddr; 2] {
        [self.ip4, self.ip6]
    }

    /// Its external address.
    pub const fn wan(&self) -> Ipv4Addr {
        self.wan
    }

    /// What it holds.
    pub const fn table(&self) -> &Table {
        &self.table
    }

    /// Who asked it for what, and when.
    pub const fn requests(&self) -> &Requests {
        &self.requests
    }

    /// What clients got wrong.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// Whom it lets in at an external port, over IPv4.
    pub fn forwards(&self, now: Instant, transport: Transport, port: u16) -> Option<SocketAddr> {
        let held = self.table.ports.get(&(transport, port))?;
        self.lets_in(now, held).then_some(held.internal)
    }

    /// Whether it lets packets to an address behind it in, over IPv6.
    pub fn pinhole(&self, now: Instant, transport: Transport, internal: SocketAddr) -> bool {
        MappingProtocol::ALL.iter().any(|by| {
            let held = self.table.holes.get(&(transport, internal, *by));
            held.is_some_and(|held| self.lets_in(now, held))
        })
    }

    fn lets_in(&self, now: Instant, held: &Held) -> bool {
        self.back_at.is_none() && held.lets_in && held.since <= now && held.is_alive(now)
    }

    /// Whether it is away, starting anew.
    pub const fn is_away(&self) -> bool {
        self.back_at.is_some()
    }

    /// A datagram reaches it. `from` is as the client's socket is bound.
    pub fn datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        body: &[u8],
    ) -> Vec<Output> {
        self.catch_up(now);
        self.requests.note(now, to);
        if self.back_at.is_some() || self.mood(now) == Mood::Silent {
            return Vec::new();
        }
        let closed = self.mood(now) == Mood::Refuses;
        let own = to.ip() == self.ip4 || to.ip() == self.ip6;
        let bodies = match to.port() {
            SERVER_PORT if own && !closed => self.asked(now, from, body),
            SSDP_PORT if !closed => return self.searched(from, to, body),
            _ => None,
        };
        match bodies {
            Some(answers) => answers
                .into_iter()
                .map(|body| Output::Datagram { from: to, to: from, body })
                .collect(),
            None if own && (closed || self.profile.refuses) => {
                vec![Output::Refused { at: to, to: from }]
            }
            None => Vec::new(),
        }
    }

    /// NAT-PMP or PCP: `None` where nobody listens.
    fn asked(&mut self, now: Instant, from: SocketAddr, body: &[u8]) -> Option<Option<Bytes>> {
        let version = *body.first()?;
        match (self.profile.nat_pmp, self.profile.pcp) {
            (None, None) => None,
            (Some(nat_pmp), None) => Some(self.nat_pmp(now, &nat_pmp, from, body)),
            (Some(nat_pmp), Some(_)) if version == nat_pmp::VERSION => {
                Some(self.nat_pmp(now, &nat_pmp, from, body))
            }
            (_, Some(pcp)) => Some(self.pcp(now, &pcp, from, body)),
        }
    }

    /// An HTTP request reaches a port of it.
    pub fn request(&mut self, now: Instant, from: IpAddr, port: u16, request: &Fetch) -> HttpReply {
        self.catch_up(now);
        self.requests.note(now, request.to);
        if self.back_at.is_some() || self.mood(now) == Mood::Silent {
            return HttpReply::Hang;
        }
        let Some(upnp) = self.profile.upnp else {
            return if self.profile.refuses { HttpReply::Refused } else { HttpReply::Hang };
        };
        if port != self.http_port || self.mood(now) == Mood::Refuses {
            return HttpReply::Refused;
        }
        let (status, body) = match &request.soap {
            None => self.describes(&upnp, from, &request.path),
            Some(soap) => self.controls(now, &upnp, from, &request.path, soap),
        };
        HttpReply::Answer { status, body: body.into(), chunked: upnp.chunked }
    }

    /// An HTTP request reaches a port of it, in so many segments.
    pub fn segments(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        segments: &[&[u8]],
    ) -> HttpReply {
        let first_only = self.profile.upnp.is_some_and(|upnp| upnp.first_segment_only);
        let read = if first_only { segments.get(..1).unwrap_or_default() } else { segments };
        match read_request(from.ip(), to, &read.concat()) {
            Some(request) => self.request(now, from.ip(), to.port(), &request),
            None if first_only => HttpReply::Reset,
            None => HttpReply::Answer { status: 400, body: Bytes::new(), chunked: false },
        }
    }

    /// When something happens by itself.
    pub fn deadline(&self) -> Option<Instant> {
        if let Some((back_at, _)) = self.back_at {
            return Some(back_at);
        }
        let due = self.due.iter().map(|(at, _)| *at).min();
        [due, self.purge_at, self.table.next_end()].into_iter().flatten().min()
    }

    /// What is due happens.
    pub fn advance(&mut self, now: Instant) -> Vec<Output> {
        self.catch_up(now);
        if self.back_at.is_some() {
            return Vec::new();
        }
        let mut outputs = Vec::new();
        self.due.sort_by_key(|(at, _)| *at);
        while self.due.first().is_some_and(|(at, _)| *at <= now) {
            let (_, what) = self.due.remove(0);
            if matches!(self.mood(now), Mood::Silent | Mood::Refuses) && what != Announcement::Alive
            {
                continue;
            }
            match what {
                Announcement::Changed => self.tells_changed(now, &mut outputs),
                Announcement::Alive => {
                    self.tells_presence(true, &mut outputs);
                    self.due.push((now + ALIVE_INTERVAL, Announcement::Alive));
                }
            }
        }
        outputs
    }

    /// It starts anew. Whoever is to hear of it does so by [`Router::advance`].
    pub fn reboot(&mut self, now: Instant, reboot: Reboot) -> Vec<Output> {
        self.catch_up(now);
        let mut outputs = Vec::new();
        if reboot.announces && self.mood(now) == Mood::Answers {
            self.tells_presence(false, &mut outputs);
        }
        if !reboot.keeps_state {
            self.table = Table { last_unique: 0, ..Table::default() };
        }
        self.due.clear();
        self.back_at = Some((now + reboot.takes, reboot));
        outputs
    }

    /// It forgets its mappings, and says nothing.
    pub fn purge(&mut self) {
        self.table.ports.clear();
        self.table.holes.clear();
    }

    /// It has another external address. Its mappings move along.
    pub fn set_wan(&mut self, now: Instant, wan: Ipv4Addr, resets_epoch: bool, announces: bool) {
        self.catch_up(now);
        self.wan = wan;
        if resets_epoch {
            // RFC 6887 §8.5: it counts as lost state.
            self.epoch_at = now;
        }
        if announces {
            self.announce_changed(now);
        }
    }

    /// It is so disposed, for a while or for good.
    pub fn set_mood(&mut self, mood: Mood, until: Option<Instant>) {
        self.mood = (mood, until);
    }

    /// It grants so many further mappings, renewals included, and then no more.
    pub fn deny_after(&mut self, grants: Option<u32>) {
        self.grants_left = grants;
    }

    /// It lists what it holds, but lets nobody in or again does so.
    pub fn set_forwarding(&mut self, forwarding: Forwarding) {
        self.profile.forwarding = forwarding;
        let works = forwarding == Forwarding::Works;
        let all = self.table.ports.values_mut().chain(self.table.holes.values_mut());
        all.for_each(|held| held.lets_in = works);
    }

    /// Somebody else's mapping is in the way of a port.
    pub fn occupy(&mut self, now: Instant, transport: Transport, port: u16, internal: SocketAddr) {
        let mut held = self.new_held(now, MappingProtocol::Upnp, internal, (transport, port));
        held.description = "somebody else".to_owned();
        self.table.ports.insert((transport, port), held);
    }

    /// The port of its HTTP server.
    pub const fn http_port(&self) -> u16 {
        self.http_port
    }

    fn mood(&self, now: Instant) -> Mood {
        match self.mood {
            (_, Some(until)) if until <= now => Mood::Answers,
            (mood, _) => mood,
        }
    }

    /// Everything that happens without a word.
    fn catch_up(&mut self, now: Instant) {
        if let Some((back_at, reboot)) = self.back_at
            && back_at <= now
        {
            self.back_at = None;
            self.boot_id += 1;
            if !reboot.keeps_state {
                self.epoch_at = back_at;
            }
            if self.profile.upnp.is_some_and(|upnp| upnp.moving_port) {
                self.http_port += 1 + u16::try_from(self.dice.index(100)).unwrap_or(0);
            }
            self.boots(back_at);
            if reboot.announces {
                self.announce_changed(back_at);
            } else {
                self.due.clear();
            }
        }
        while let Some(at) = self.purge_at
            && at <= now
        {
            self.purge();
            self.purge_at = self.profile.purge_interval.map(|span| at + span);
        }
        self.table.expire(now);
    }

    fn boots(&mut self, at: Instant) {
        self.booted_at = at;
        self.purge_at = self.profile.purge_interval.map(|span| at + span);
        if self.profile.upnp.is_some() {
            self.due.push((at, Announcement::Alive));
        }
    }

    fn announce_changed(&mut self, now: Instant) {
        let mut at = now;
        let mut span = ANNOUNCEMENT_SPAN;
        for _ in 0..self.profile.announcements {
            self.due.push((at, Announcement::Changed));
            at = at + span;
            span *= 2;
        }
    }

    /// By NAT-PMP and PCP, to all hosts of the LAN.
    fn tells_changed(&mut self, now: Instant, outputs: &mut Vec<Output>) {
        let mut tell = |from: IpAddr, group: IpAddr, body: Bytes| {
            outputs.push(Output::Multicast {
                from: SocketAddr::new(from, SERVER_PORT),
                group: SocketAddr::new(group, CLIENT_PORT),
                body,
            });
        };
        if self.profile.nat_pmp.is_some() {
            tell(self.ip4, ALL_HOSTS_4.into(), nat_pmp::address(self.epoch_s(now), self.wan));
        }
        if self.profile.pcp.is_some() {
            tell(self.ip4, ALL_HOSTS_4.into(), pcp::restarted(self.epoch_s(now)));
            tell(self.ip6, ALL_HOSTS_6.into(), pcp::restarted(self.epoch_s(now)));
        }
    }

    fn epoch_s(&self, now: Instant) -> u32 {
        u32::try_from(now.since(self.epoch_at).as_secs()).unwrap_or(u32::MAX)
    }

    fn complain(&mut self, what: impl Into<String>) {
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(what.into());
        }
    }

    /// Whether it may grant one more mapping.
    fn may_grant(&mut self, now: Instant) -> bool {
        if self.profile.denies || self.mood(now) == Mood::Denies {
            return false;
        }
        match &mut self.grants_left {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    /// Whether there is no room for one more.
    fn is_full(&self) -> bool {
        self.table.len() >= self.profile.room
    }

    fn new_held(
        &mut self,
        now: Instant,
        by: MappingProtocol,
        internal: SocketAddr,
        key: PortKey,
    ) -> Held {
        let first = *self.first_protocol.get_or_insert(by);
        let lets_in = match self.profile.forwarding {
            Forwarding::Works => true,
            Forwarding::AfterDeletion => self.table.deleted.contains(&(internal, key)),
            Forwarding::ByOtherProtocol => first != by,
            Forwarding::AtOtherPort => key.1 != internal.port(),
            Forwarding::UdpAlone => key.0 == Transport::Quic,
            Forwarding::Never => false,
        };
        Held {
            internal,
            by,
            until: None,
            nonce: [0; 12],
            unique: 0,
            description: String::new(),
            since: now,
            lets_in,
        }
    }
}

/// The end of a lifetime.
fn end(now: Instant, lifetime_s: u32) -> Option<Instant> {
    Some(now + Duration::from_secs(u64::from(lifetime_s)))
}
