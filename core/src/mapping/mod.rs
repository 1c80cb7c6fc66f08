//! Floor 2 · ports that routers open for us, for as long as we live.
//!
//! Knows: gateways, what they speak, what they have granted, and what an earlier run of ours was
//! granted. Reads: local (what we listen on), config. Every protocol is asked at once; the first
//! good answer serves, and a refusal or silence leads to the next one.
//!
//! ```text
//!  local ─► wants ─┐                 ┌─ Held ─(renewed on a ladder)─► external ─► candidates
//!                  ├─► Grant: Asking ┤
//!  ledger ─────────┘                 └─ failed ─► another port, another protocol, a pause
//!                      Leaving ◄── not wanted, moved, repaired, closing
//!  reachability ─(door)─► judged: what servers cannot dial is deleted and mapped anew
//! ```
//!
//! Limits: `GATEWAYS_MAX`, `MAPPINGS_MAX`, `GATEWAY_REQUESTS_MIN`, `ENTRIES_MAX` in the ledger. A
//! hold-off lasts half an hour at most, whoever asks for it. Nobody is asked but the gateway and,
//! where it is silent, hosts that answered a UPnP search, each at its own address.
//! Follows: RFC 6886, RFC 6887, UPnP Device Architecture 1.1, WANIPConnection:1 and :2.
//!
//! A good first change here: ask the anycast servers of RFC 7723 where the gateway is silent.

mod asker;
mod course;
mod epoch;
#[cfg(test)]
mod fake;
mod faults;
mod gate;
mod grant;
mod igd;
mod ledger;
mod pacing;
mod want;

use crate::local::Local;
use crate::words::checkpoint::{Room, are_counts, saved};
use crate::words::config::{GATEWAYS_MAX, MAPPINGS_MAX};
use crate::words::sleep::Sleep;
use crate::{
    Action, Addr, Cx, Deadline, Family, Gateway, GatewayAnswer, Instant, IpScope, LeaseTerm,
    Mapping, MappingAction, MappingConfig, MappingEvent, MappingProtocol, Notice, Oddity, Wake,
    ip_scope,
};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::IpAddr;
use course::UNWANTED_PATIENCE;
use gate::{Budget, Channels, Gate};
use grant::{Grant, Grants, Stage};
use ledger::Entry;
pub(crate) use ledger::redacted as redacted_ledger;
use want::Want;

/// Gateways that are gone whose budget is remembered, number; ours. When full, the oldest is
/// forgotten.
const GATEWAYS_SPENT_MAX: usize = 4 * GATEWAYS_MAX;

/// The mappings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mappings {
    gates: Vec<Gate>,
    channels: Channels,
    /// What was spent on gateways that are gone and may come back within the minute.
    spent: Vec<(IpAddr, Budget)>,
    wants: BTreeMap<Addr, Want>,
    grants: Grants,
    serial: u64,
    fetch: u64,
    /// What earlier runs, or we in other networks, were granted and nobody has given back.
    remembered: Vec<Entry>,
    /// What was stored last.
    stored: Vec<Entry>,
    closing: bool,
    /// External addresses that were granted just now; the door takes them.
    refreshed: BTreeSet<Addr>,
    /// External IPs that routers have left just now, and whether that is news; the door takes them.
    left: BTreeMap<IpAddr, bool>,
    externals: Vec<External>,
    seen: Option<u64>,
    /// Whether something was heard since everything was looked at last, and when that was.
    dirty: bool,
    looked_at: Instant,
    revision: u64,
}

/// Where a router says that we can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct External {
    /// The address of ours that is mapped.
    pub(crate) internal: Addr,
    /// The external IP, where the router told one.
    pub(crate) ip: Option<IpAddr>,
    /// The external port.
    pub(crate) port: u16,
}

impl External {
    /// The external address, where the router told one.
    pub(crate) fn addr(&self) -> Option<Addr> {
        Some(Addr::new(self.ip?, self.port, self.internal.transport))
    }
}

impl Mappings {
    /// A fact about routers.
    pub(crate) fn record(&mut self, cx: &mut Cx<'_>, event: MappingEvent) -> Result<(), Oddity> {
        self.dirty = true;
        match event {
            // The ground has it, and this room reads it there.
            MappingEvent::GatewaysChanged { .. } => Ok(()),
            MappingEvent::DatagramReceived { channel, from, body } => {
                let gates = self.gates.iter_mut().enumerate();
                let mut found = Err(Oddity::StrayDatagram);
                for (at, gate) in gates.filter(|(_, gate)| gate.has(channel)) {
                    found = gate
                        .received(cx, &self.grants, channel, from, &body)
                        .map(|told| (at, told));
                    if found.is_ok() {
                        break;
                    }
                }
                let (at, told) = found?;
                if let Some((protocol, heard)) = told {
                    self.heard(cx, at, protocol, heard);
                }
                Ok(())
            }
            MappingEvent::DatagramRefused { channel, to } => {
                let grants = &self.grants;
                for gate in self.gates.iter_mut().filter(|gate| gate.has(channel)) {
                    gate.refused(cx, grants, to);
                }
                Ok(())
            }
            MappingEvent::Fetched { fetch, status, body } => {
                self.fetched(cx, fetch, igd::Response::Whole { status, body: &body })
            }
            MappingEvent::FetchFailed { fetch, reason } => {
                self.fetched(cx, fetch, igd::Response::Failed(reason))
            }
            MappingEvent::LedgerRead { ledger } => self.ledger_read(cx, ledger),
            MappingEvent::Closing => {
                self.closing = true;
                Ok(())
            }
        }
    }

    fn fetched(
        &mut self,
        cx: &mut Cx<'_>,
        fetch: crate::FetchId,
        response: igd::Response<'_>,
    ) -> Result<(), Oddity> {
        let grants = &self.grants;
        let gates = self.gates.iter_mut().enumerate();
        let found = gates
            .filter_map(|(at, gate)| Some((at, gate.fetched(cx, grants, fetch, response)?)))
            .next();
        let (at, heard) = found.ok_or(Oddity::UnknownFetch)?;
        if let Some(heard) = heard {
            self.heard(cx, at, MappingProtocol::Upnp, heard);
        }
        Ok(())
    }

    fn ledger_read(&mut self, cx: &mut Cx<'_>, bytes: Bytes) -> Result<(), Oddity> {
        let entries = ledger::decode(bytes).map_err(|ledger::BadLedger| Oddity::BadLedger)?;
        self.remembered = entries.into_iter().filter(|entry| !entry.is_over(cx.unix)).collect();
        Ok(())
    }

    /// We slept: routers may have been restarted meanwhile, or be others.
    pub(crate) fn resumed(&mut self, now: Instant, sleep: Sleep) {
        self.dirty = true;
        self.gates.iter_mut().for_each(|gate| gate.resumed(now, sleep));
    }

    /// What servers found out about a mapped address: whether they could dial it, if that is decided.
    pub(crate) fn judged(&mut self, now: Instant, internal: Addr, is_reached: Option<bool>) {
        if let Some(want) = self.wants.get_mut(&internal) {
            match is_reached {
                Some(is_reached) => self.dirty |= want.judged(now, is_reached),
                None => want.is_undecided(),
            }
        }
    }

    /// Catch up with the ground, and ask what is to be asked.
    pub(crate) fn advance(
        &mut self,
        cx: &mut Cx<'_>,
        config: Option<&MappingConfig>,
        local: &Local,
    ) {
        let Some(config) = config else { return };
        // Most steps concern peers alone.
        let is_due = |deadline: Deadline| deadline.at <= cx.now;
        let is_news = self.dirty || self.seen != Some(local.revision());
        if !is_news && !self.deadline(self.looked_at).is_some_and(is_due) {
            return;
        }
        self.dirty = false;
        self.looked_at = cx.now;
        if self.seen != Some(local.revision()) {
            self.seen = Some(local.revision());
            self.take_gateways(cx, config, local);
            self.close_unused(cx);
            self.take_wants(cx, config, local);
        }
        if self.closing {
            self.drop_wants(cx, |_| true);
        }
        self.expire(cx, config.lifetime);
        self.repair(cx);
        self.cascade(cx.now);
        self.give_back(cx);
        self.ask(cx, config);
        let lifetime_s = u32::try_from(config.lifetime.as_secs()).unwrap_or(u32::MAX);
        for gate in &mut self.gates {
            let asked = (lifetime_s, config.description.as_str());
            let shared = (&mut self.channels, &mut self.fetch);
            gate.advance(cx, &mut self.grants, asked, self.closing, shared);
        }
        self.tell(cx);
        self.store(cx);
    }

    /// When there is something to do by itself.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Deadline> {
        let gates = self.gates.iter();
        let gates = gates.filter_map(|gate| gate.due_at(now, &self.grants, self.closing));
        let wants = self.wants.iter();
        let wants = wants.filter_map(|(internal, want)| want.due_at(now, self.gate(*internal)));
        let unwanted = self.gates.iter().map(|gate| gate.since + UNWANTED_PATIENCE);
        let unwanted = unwanted.filter(|at| now < *at && !self.remembered.is_empty());
        let due = gates.chain(wants).chain(unwanted).min();
        let over = self.grants.values().filter(|grant| grant.stage != Stage::Asking);
        let over = over.filter_map(|grant| grant.until).min();
        let due = due.map(|at| Deadline::new(at, Wake::MappingDue));
        crate::words::deadline::earliest(due, over.map(|at| Deadline::new(at, Wake::LeaseExpires)))
    }

    /// Whether nothing is left that could be given back soon.
    pub(crate) fn has_released(&self) -> bool {
        self.closing && self.grants.is_empty()
    }

    /// Every wanted mapping as it stands.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Mapping> + '_ {
        self.wants.values().filter_map(|want| want.told)
    }

    /// When the present period of each granted mapping ends.
    pub(crate) fn terms(&self) -> impl Iterator<Item = LeaseTerm> + '_ {
        self.wants.iter().filter_map(|(internal, want)| {
            let grant = self.grants.get(&want.grant?)?;
            let renew_at = grant.term()?.renew_at;
            Some(LeaseTerm { internal: *internal, until: grant.until, renew_at })
        })
    }

    /// What gateways were found to speak.
    pub(crate) fn answers(&self) -> impl Iterator<Item = GatewayAnswer> + '_ {
        self.gates.iter().flat_map(Gate::answers)
    }

    /// Where routers say that we can be reached.
    pub(crate) fn externals(&self) -> &[External] {
        &self.externals
    }

    /// External addresses that were granted since the last call: again, perhaps, and by a router
    /// that has forgotten everything in between.
    pub(crate) fn take_refreshed(&mut self) -> BTreeSet<Addr> {
        core::mem::take(&mut self.refreshed)
    }

    /// External IPs that routers have left since the last call, by their own word, and whether that is
    /// news: of several mappings each follows in its own time.
    pub(crate) fn take_left(&mut self) -> BTreeMap<IpAddr, bool> {
        core::mem::take(&mut self.left)
    }

    /// The families in which connections are in doubt from now on, since their gateway has another
    /// external address.
    pub(crate) fn take_doubted(&mut self, now: Instant) -> BTreeSet<Family> {
        let doubted = self
            .gates
            .iter_mut()
            .filter_map(|gate| gate.take_doubt(now).then(|| Family::of(gate.gateway.router)));
        doubted.collect()
    }

    /// Counts changes of the external addresses.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    fn gate(&self, internal: Addr) -> Option<&Gate> {
        self.gates.iter().find(|gate| serves(&gate.gateway, internal.ip))
    }

    /// Take over the gateways. What one that is gone has granted is remembered: it may come back.
    fn take_gateways(&mut self, cx: &mut Cx<'_>, config: &MappingConfig, local: &Local) {
        let gateways: Vec<Gateway> = local.gateways().iter().copied().take(GATEWAYS_MAX).collect();
        let (kept, gone) = core::mem::take(&mut self.gates)
            .into_iter()
            .partition(|gate| gateways.contains(&gate.gateway));
        self.gates = kept;
        let spent = Vec::<Gate>::into_iter(gone).map(|gate| (gate.gateway.router, gate.budget));
        self.spent.extend(spent);
        self.spent.retain(|(_, budget)| !budget.is_full(cx.now));
        let over = self.spent.len().saturating_sub(GATEWAYS_SPENT_MAX);
        self.spent.drain(..over);
        let mut fresh: Vec<Gateway> = Vec::new();
        for gateway in gateways {
            if self.gates.iter().all(|gate| gate.gateway != gateway) {
                let at = self.spent.iter().position(|(router, _)| *router == gateway.router);
                let budget = at.map(|at| self.spent.remove(at).1);
                let budget = budget.unwrap_or(Budget::new(cx.now));
                self.gates.push(Gate::new(cx, &mut self.channels, (gateway, budget), config));
                fresh.push(gateway);
            }
        }
        let is_here = |grant: &Grant| self.gates.iter().any(|gate| grant.is_of(&gate.gateway));
        let gone: Vec<u64> =
            self.grants.iter().filter(|(_, grant)| !is_here(grant)).map(|(at, _)| *at).collect();
        for serial in gone {
            self.forget(serial, true);
        }
        // Whatever was refused was refused elsewhere.
        for (own, want) in self.wants.iter_mut().filter(|(_, want)| want.grant.is_none()) {
            if fresh.iter().any(|gateway| serves(gateway, own.ip)) {
                want.start_over();
            }
        }
        for gate in &mut self.gates {
            let source = gate.gateway.source;
            gate.keep_sources(|ip| ip == source || local.addresses().any(|own| own.ip == ip));
        }
    }

    /// Close the sockets that no gateway needs any more.
    fn close_unused(&mut self, cx: &mut Cx<'_>) {
        let gates = &self.gates;
        self.channels.retain(|channel| {
            let is_used = gates.iter().any(|gate| gate.has(*channel));
            if !is_used {
                let channel = *channel;
                cx.actions.push(Action::Mapping(MappingAction::CloseChannel { channel }));
            }
            is_used
        });
    }

    fn drop_wants(&mut self, cx: &mut Cx<'_>, is_over: impl Fn(Addr) -> bool) {
        self.wants.retain(|internal, _| {
            if is_over(*internal) {
                let internal = *internal;
                cx.actions.notify(Notice::MappingChanged { internal, mapping: None });
            }
            !is_over(*internal)
        });
    }

    fn take_wants(&mut self, cx: &mut Cx<'_>, config: &MappingConfig, local: &Local) {
        if self.closing {
            return;
        }
        let mut wanted: BTreeSet<Addr> = BTreeSet::new();
        for gate in &self.gates {
            let gateway = &gate.gateway;
            wanted.extend(
                local.addresses().filter(|own| is_mappable(own.ip) && serves(gateway, own.ip)),
            );
            if is_mappable(gateway.source) {
                let ports = config.ports.iter();
                wanted.extend(
                    ports.map(|(transport, port)| Addr::new(gateway.source, *port, *transport)),
                );
            }
        }
        // Without a gateway nothing is mapped, and what could be is told nonetheless.
        if self.gates.is_empty() {
            wanted.extend(local.addresses().filter(|own| is_mappable(own.ip)));
        }
        let wanted: BTreeSet<Addr> = wanted.into_iter().take(MAPPINGS_MAX).collect();
        self.drop_wants(cx, |internal| !wanted.contains(&internal));
        for internal in wanted {
            self.wants.entry(internal).or_insert_with(|| Want::new(internal.port));
        }
        let (wants, grants) = (&mut self.wants, &self.grants);
        for want in wants.values_mut() {
            if want.grant.is_some_and(|serial| !grants.contains_key(&serial)) {
                want.start_over();
            }
        }
    }

    /// Tell what has changed.
    fn tell(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now;
        let mut told: Vec<(Addr, Mapping)> = Vec::new();
        for (internal, want) in &self.wants {
            let grant = want.grant.and_then(|serial| self.grants.get(&serial));
            let mapping = want.mapping(now, *internal, self.gate(*internal), grant);
            if want.told != Some(mapping) {
                told.push((*internal, mapping));
            }
        }
        for (internal, mapping) in told {
            if let Some(want) = self.wants.get_mut(&internal) {
                want.told = Some(mapping);
            }
            cx.actions.notify(Notice::MappingChanged { internal, mapping: Some(mapping) });
        }
        let grants = self.wants.values().filter_map(|want| self.grants.get(&want.grant?));
        let held = grants.filter(|grant| grant.term().is_some());
        let externals: Vec<External> = held
            .map(|grant| External {
                internal: grant.internal,
                ip: grant.external_ip,
                port: grant.external_port,
            })
            .collect();
        if externals != self.externals {
            self.externals = externals;
            self.revision += 1;
        }
    }

    /// Store what a later run must know, before a router is asked for it or soon after.
    fn store(&mut self, cx: &mut Cx<'_>) {
        let grants = self.grants.values().map(Entry::of);
        let entries = ledger::kept(grants.chain(self.remembered.iter().copied()));
        if entries != self.stored {
            self.stored = entries;
            let ledger = ledger::encode(self.stored.iter().copied());
            cx.actions.push(Action::Mapping(MappingAction::StoreLedger { ledger }));
        }
    }
}

/// Whether this gateway leads from that address of ours to the world.
fn serves(gateway: &Gateway, internal: IpAddr) -> bool {
    match internal {
        IpAddr::V4(_) => gateway.source == internal,
        IpAddr::V6(_) => gateway.router.is_ipv6(),
    }
}

/// Whether a router has anything to map: IPv4 is translated where it is private; over IPv6 a
/// firewall lets nobody in.
fn is_mappable(internal: IpAddr) -> bool {
    match Family::of(internal) {
        Family::Ip4 => ip_scope(internal) == IpScope::Private,
        Family::Ip6 => ip_scope(internal) == IpScope::Global,
    }
}

saved!(struct External { internal, ip, port });
saved!(struct Mappings {
    gates, channels, spent, wants, grants, serial, fetch, remembered, stored, closing, refreshed, left,
    externals,
    seen as seen(|one| [one], [Room::Local]),
    dirty,
    looked_at as told(),
    revision as revision(Room::Mapping),
}, if has_counts);

fn has_counts(mappings: &Mappings) -> bool {
    are_counts(&[mappings.revision, mappings.serial, mappings.fetch])
}
