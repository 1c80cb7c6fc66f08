//! What becomes of grants: begun, answered, repaired, given back, forgotten.

use super::asker::{Answer, HOLD_OFF_MIN, Heard};
use super::grant::{Fault, Grant, Remedy, Stage};
use super::ledger::{self, Entry};
use super::want::Step;
use super::{Mappings, serves};
use crate::words::config::MAPPINGS_MAX;
use crate::{Cx, Duration, Instant, MappingConfig, MappingProtocol, MappingReason};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::net::IpAddr;

/// Mappings that are held, asked for or given back, number; ours: what is wanted, and some that a silent
/// router has to be told of. When full, nothing more is asked for until some have run out.
const GRANTS_MAX: usize = 4 * MAPPINGS_MAX;
/// How long what an earlier run mapped is kept although nobody wants it, seconds; ours: a program
/// opens its listeners within that time.
pub(super) const UNWANTED_PATIENCE: Duration = Duration::from_secs(10);

impl Mappings {
    /// What has run out is forgotten.
    pub(super) fn expire(&mut self, cx: &mut Cx<'_>, lifetime: Duration) {
        let now = cx.now;
        let over = |grant: &Grant| {
            grant.stage != Stage::Asking && grant.until.is_some_and(|until| until <= now)
        };
        let over: Vec<u64> = self
            .grants
            .iter()
            .filter(|(_, grant)| over(grant))
            .map(|(serial, _)| *serial)
            .collect();
        for serial in over {
            let wanted = self.wants.values().any(|want| want.grant == Some(serial));
            match self.grants.get_mut(&serial).filter(|_| wanted) {
                // A renewal may have been granted unheard: only who made it may ask again.
                Some(grant) => {
                    grant.stage = Stage::Asking;
                    grant.lasts(cx, Some(lifetime));
                }
                None => self.forget(serial, false),
            }
        }
        self.remembered.retain(|entry| !entry.is_over(cx.unix));
    }

    pub(super) fn forget(&mut self, serial: u64, remember: bool) {
        let Some(grant) = self.grants.remove(&serial) else { return };
        if remember && self.remembered.len() < ledger::ENTRIES_MAX {
            self.remembered.push(Entry::of(&grant));
        }
        for want in self.wants.values_mut().filter(|want| want.grant == Some(serial)) {
            want.grant = None;
        }
    }

    /// Mappings that lead nowhere are made anew, another way.
    pub(super) fn repair(&mut self, cx: &mut Cx<'_>) {
        for want in self.wants.values_mut() {
            let Some(grant) = want.grant.and_then(|serial| self.grants.get_mut(&serial)) else {
                continue;
            };
            let gate = self.gates.iter().find(|gate| serves(&gate.gateway, grant.internal.ip));
            // What was in vain, or refused, is no way out: the last mapping stays.
            let has_other = gate.is_some_and(|gate| {
                let mut others = gate.speaks(cx.now).filter(|other| *other != grant.protocol);
                others.any(|other| want.may_ask_by(cx.now, other))
            });
            let step = want.repair(cx.now, cx.draw, grant, has_other);
            if let Some(Step::Anew | Step::OtherPort | Step::OtherProtocol) = step {
                grant.stage = Stage::Leaving;
                want.grant = None;
            }
        }
    }

    /// Who falls silent before it has granted anything gives way to the next protocol.
    pub(super) fn cascade(&mut self, now: Instant) {
        for want in self.wants.values_mut() {
            let Some(grant) = want.grant.and_then(|serial| self.grants.get(&serial)) else {
                continue;
            };
            let gate = self.gates.iter().find(|gate| serves(&gate.gateway, grant.internal.ip));
            let speaks = gate.is_some_and(|gate| gate.speaks(now).any(|one| one == grant.protocol));
            if grant.stage == Stage::Asking && !speaks {
                // It may have granted it unheard: what is not wanted any more is given back.
                want.grant = None;
            }
        }
    }

    /// What nobody wants is given back.
    pub(super) fn give_back(&mut self, cx: &mut Cx<'_>) {
        let wanted: BTreeSet<u64> = self.wants.values().filter_map(|want| want.grant).collect();
        for (serial, grant) in &mut self.grants {
            if !wanted.contains(serial) {
                grant.stage = Stage::Leaving;
            }
        }
        // Nobody can take away what has no name; it ends by itself.
        self.grants.retain(|_, grant| !grant.is_leaving() || grant.is_known());
        let now = cx.now;
        let due = |entry: &Entry| {
            let gate = self.gates.iter().find(|gate| entry.is_of(&gate.gateway));
            gate.is_some_and(|gate| self.closing || gate.since + UNWANTED_PATIENCE <= now)
        };
        let (given, kept) = core::mem::take(&mut self.remembered).into_iter().partition(due);
        self.remembered = kept;
        for entry in Vec::<Entry>::into_iter(given) {
            let mut grant = entry.grant(Stage::Leaving, None);
            let left = entry.until.map(|until| until.since(cx.unix));
            grant.lasts(cx, left);
            grant.forgotten = entry.until;
            if grant.is_known() && self.grants.len() < GRANTS_MAX {
                self.serial += 1;
                self.grants.insert(self.serial, grant);
            }
        }
    }

    /// Begin to ask for what is wanted and has no grant.
    pub(super) fn ask(&mut self, cx: &mut Cx<'_>, config: &MappingConfig) {
        for (internal, want) in &mut self.wants {
            let gate = self.gates.iter().find(|gate| serves(&gate.gateway, internal.ip));
            let (None, Some(gate)) = (want.grant, gate) else { continue };
            let router = gate.gateway.router;
            let earlier = |entry: &Entry| {
                entry.router == router
                    && entry.internal.port == internal.port
                    && entry.internal.class() == internal.class()
            };
            // What this very address had comes before what another one had with the same port.
            let own = |entry: &Entry| earlier(entry) && entry.internal == *internal;
            let remembered = &self.remembered;
            let at =
                remembered.iter().position(own).or_else(|| remembered.iter().position(earlier));
            let entry = at.map(|at| &self.remembered[at]);
            let Some(protocol) = want.choose(cx.now, gate, entry) else { continue };
            let left = self.grants.iter_mut().find(|(_, grant)| {
                grant.is_leaving()
                    && (grant.router, grant.protocol) == (router, protocol)
                    && grant.internal == *internal
            });
            if let Some((serial, grant)) = left.filter(|_| !want.is_being_repaired()) {
                // Whoever fell silent is back, and nothing was given back to him yet.
                grant.stage = Stage::Asking;
                grant.lasts(cx, Some(config.lifetime));
                want.grant = Some(*serial);
                continue;
            }
            if self.grants.len() >= GRANTS_MAX {
                continue;
            }
            let same = |entry: &&Entry| entry.protocol == protocol && entry.internal == *internal;
            let mut grant = match entry {
                Some(entry) if same(&entry) => entry.grant(Stage::Asking, None),
                Some(_) | None => Grant {
                    internal: *internal,
                    router,
                    protocol,
                    external_ip: None,
                    external_port: entry.map_or(want.port, |entry| entry.external_port),
                    nonce: nonce(cx),
                    pinhole: None,
                    stage: Stage::Asking,
                    until: None,
                    forgotten: None,
                },
            };
            if let (Some(at), true) = (at, entry.is_some_and(|entry| same(&entry))) {
                self.remembered.remove(at);
            }
            grant.lasts(cx, Some(config.lifetime));
            self.serial += 1;
            want.grant = Some(self.serial);
            self.grants.insert(self.serial, grant);
        }
    }

    /// A pinhole was given a number. Where another of ours has it too, the router has forgotten that one
    /// and counts anew; what was asked of it since then was asked of this one.
    fn renumbered(&mut self, cx: &mut Cx<'_>, serial: u64, grant: &Grant) {
        if grant.pinhole.is_none() {
            return;
        }
        for (other, old) in &mut self.grants {
            if *other != serial && (old.router, old.pinhole) == (grant.router, grant.pinhole) {
                old.pinhole = None;
                old.ask_again_at(cx.now);
            }
        }
    }

    /// A gateway has no address itself: what is asked of it would lead nowhere.
    fn offline(&mut self, cx: &mut Cx<'_>, at: usize, protocol: MappingProtocol) {
        let Some(gateway) = self.gates.get(at).map(|gate| gate.gateway) else { return };
        let reason = MappingReason::GatewayOffline { protocol };
        let fault = Fault { reason, remedy: Remedy::HoldOff(HOLD_OFF_MIN) };
        let asked = self.grants.iter().filter(|(_, grant)| {
            grant.is_of(&gateway) && (grant.protocol, grant.stage) == (protocol, Stage::Asking)
        });
        let asked: Vec<u64> = asked.map(|(serial, _)| *serial).collect();
        for grant in asked {
            self.heard(
                cx,
                at,
                protocol,
                Heard { answer: Answer::Failed { grant, fault }, has_forgotten: false },
            );
        }
    }

    /// A gateway has answered.
    pub(super) fn heard(
        &mut self,
        cx: &mut Cx<'_>,
        at: usize,
        protocol: MappingProtocol,
        heard: Heard,
    ) {
        match heard.answer {
            Answer::Here | Answer::Unsupported => {}
            Answer::Released { grant } => self.forget(grant, false),
            Answer::Offline => self.offline(cx, at, protocol),
            Answer::Forgotten { grant: serial } => {
                if let Some(grant) = self.grants.get_mut(&serial) {
                    grant.pinhole = None;
                    grant.ask_again_at(cx.now);
                }
            }
            Answer::Granted { grant: serial, given } => {
                let Some(grant) = self.grants.get_mut(&serial) else { return };
                if grant.is_confirmed(cx.now, &given) {
                    return;
                }
                let old = grant.external().map(|addr| addr.ip);
                grant.granted(cx, given);
                let grant = *grant;
                let want = self.wants.values_mut().find(|want| want.grant == Some(serial));
                if let Some(want) = want {
                    want.granted(grant.external_port, protocol);
                }
                self.refreshed.extend(grant.external());
                self.renumbered(cx, serial, &grant);
                let is_elsewhere = |old: &IpAddr| grant.external_ip.is_some_and(|ip| ip != *old);
                if let Some(old) = old.filter(is_elsewhere) {
                    self.moved(cx, at, old);
                }
            }
            Answer::Failed { grant: serial, fault } => {
                let Some(grant) = self.grants.get_mut(&serial) else { return };
                let internal_port = grant.internal.port;
                // What it granted before, to an earlier run, it still has; nobody else gives that back.
                let may_have = grant.stage == Stage::Asking
                    && grant.external_ip.is_some()
                    && matches!(fault.remedy, Remedy::HoldOff(_));
                let want = self.wants.values_mut().find(|want| want.grant == Some(serial));
                match (&mut grant.stage, fault.remedy) {
                    // It holds until it ends; then somebody new may ask.
                    (Stage::Held(_), Remedy::HoldOff(_)) => grant.renewal_failed(cx),
                    (Stage::Held(_) | Stage::Asking | Stage::Leaving, _) => {
                        if let Some(want) = want {
                            want.failed(cx.now, cx.draw, (protocol, internal_port), fault);
                        }
                        self.forget(serial, may_have);
                    }
                }
            }
        }
        if heard.answer != Answer::Offline {
            self.take_external(cx, at, protocol);
        }
    }

    /// A gateway says that it is at this external IP no more.
    fn moved(&mut self, cx: &mut Cx<'_>, at: usize, old: IpAddr) {
        let is_news = self.gates.get_mut(at).is_none_or(|gate| gate.moved(cx, old));
        *self.left.entry(old).or_default() |= is_news;
    }

    /// What this protocol tells of the external address holds for what it has granted.
    fn take_external(&mut self, cx: &mut Cx<'_>, at: usize, protocol: MappingProtocol) {
        let Some(gate) = self.gates.get(at) else { return };
        let Some(external) = gate.external_by(protocol) else { return };
        let gateway = gate.gateway;
        let mut left = BTreeSet::new();
        for grant in self.grants.values_mut() {
            let same = grant.is_of(&gateway) && grant.protocol == protocol;
            if same && grant.term().is_some() && grant.internal.ip.is_ipv4() {
                left.extend(grant.external_ip.replace(external).filter(|old| *old != external));
            }
        }
        for old in left {
            self.moved(cx, at, old);
        }
    }
}

fn nonce(cx: &mut Cx<'_>) -> [u8; 12] {
    let mut nonce = [0; 12];
    for part in nonce.chunks_exact_mut(4) {
        let drawn = u32::try_from(cx.draw.below(1 << 32)).unwrap_or(0);
        part.copy_from_slice(&drawn.to_be_bytes());
    }
    nonce
}
