//! The chaotic beginning.

use super::Odds;
use super::place::{PORT, Place, draw_nat, wildcard};
use crate::dice::Dice;
use crate::net::{Burst, Link, Loss, Matches, Policy, Rule, RuleVerdict};
use crate::plan::{Change, Plan};
use portolan_core::{Addr, Duration, Family, Instant, Transport};
use std::net::{IpAddr, Ipv4Addr};

/// Kinds of faults, number.
const KINDS: usize = 13;

/// Which kinds of faults a run has.
#[derive(Clone, Debug)]
pub(super) struct Chaos {
    kinds: Vec<usize>,
}

impl Chaos {
    pub(super) fn draw(dice: &mut Dice) -> Chaos {
        Chaos { kinds: (0..KINDS).filter(|_| dice.percent(50)).collect() }
    }

    pub(super) fn befall(
        &self,
        plan: &mut Plan,
        place: &Place,
        (calm_at, odds): (Duration, &Odds),
        dice: &mut Dice,
    ) {
        if self.kinds.is_empty() {
            return;
        }
        for _ in 0..dice.between(0, odds.faults_max) {
            let at = dice.span_between(place.begins, calm_at);
            let at = Duration::from_millis(u64::try_from(at.as_millis()).unwrap_or(0));
            let kind = dice.pick(&self.kinds);
            fault(plan, place, kind, (at, calm_at), dice);
        }
    }
}

fn fault(
    plan: &mut Plan,
    place: &Place,
    kind: usize,
    (at, calm_at): (Duration, Duration),
    dice: &mut Dice,
) {
    let client = dice.pick(&place.clients);
    let server = dice.pick(&place.servers);
    let anybody = if dice.percent(50) { client } else { server };
    let router = (!place.routers.is_empty()).then(|| dice.pick(&place.routers));
    let back_at = at + dice.span(calm_at.saturating_sub(at));
    let back_at = Duration::from_millis(u64::try_from(back_at.as_millis()).unwrap_or(0));
    match (kind, router) {
        (0, Some(router)) => plan.at(at, Change::Reboot(router)),
        (1, Some(router)) => {
            let outermost = place.routers.first() == Some(&router);
            if plan.routers[router].outside.is_some() && outermost {
                let host = u8::try_from(dice.between(10, 250)).unwrap_or(10);
                let ip: IpAddr = Ipv4Addr::new(44, 6, 0, host).into();
                plan.at(at, Change::Renumber(router, ip));
            }
        }
        (2, Some(router)) if plan.routers[router].ip4.policy == Policy::Nat => {
            plan.at(at, Change::SetGate(router, Family::Ip4, Box::new(draw_nat(dice))));
        }
        (3, Some(_)) => forwards(plan, place, client, (at, back_at), dice),
        (4, _) => {
            plan.at(at, Change::Link(anybody, false));
            plan.at(back_at, Change::Link(anybody, true));
        }
        (5, _) => plan.at(at, Change::Faults(anybody, Box::new(bad_link(dice)))),
        (6, _) => plan.at(at, Change::Rule(rule(plan, (client, server), (at, back_at), dice))),
        (7, _) => {
            plan.at(at, Change::Kill(server));
            plan.at(back_at, Change::Start(server));
        }
        (8, _) => plan.at(at, Change::CutOff(anybody)),
        (9, _) => {
            let span = Duration::from_secs(dice.pick(&[2, 10, 24, 26, 60, 700]));
            plan.at(at, Change::Suspend(anybody, span));
        }
        (10, _) => {
            let mut ips = plan.nodes[client].ips.clone();
            if ips[0].is_ipv4() && place.routers.is_empty() {
                let host = u8::try_from(dice.between(100, 250)).unwrap_or(100);
                ips[0] = Ipv4Addr::new(44, 5, 1, host).into();
            } else {
                ips.truncate(1);
            }
            plan.at(at, Change::Readdress(client, ips));
            let back = plan.nodes[client].ips.clone();
            plan.at(back_at, Change::Readdress(client, back));
        }
        (11, _) => {
            let bound = dice.pick(&plan.nodes[client].listen.clone());
            plan.at(at, Change::CloseListener(client, bound.class()));
            if dice.percent(70) {
                plan.at(back_at, Change::Listen(client, wildcard(bound.class())));
            }
        }
        (12, _) => {
            let outside = place.routers.first().and_then(|router| plan.routers[*router].outside);
            let ip = outside.unwrap_or(plan.nodes[client].ips[0]);
            let transport = dice.pick(&[Transport::Tcp, Transport::Quic]);
            plan.at(at, Change::Visit(place.crowd, Addr::new(ip, PORT, transport)));
        }
        _ => {}
    }
}

/// A forward comes, and maybe goes.
fn forwards(
    plan: &mut Plan,
    place: &Place,
    client: usize,
    (at, back_at): (Duration, Duration),
    dice: &mut Dice,
) {
    let transport = dice.pick(&[Transport::Tcp, Transport::Quic]);
    let ip = plan.nodes[client].ips[0];
    let goes = dice.percent(50);
    let mut towards = ip;
    for router in place.routers.iter().rev() {
        let external = plan.routers[*router].outside.unwrap_or(ip);
        let (external, inside) =
            (Addr::new(external, PORT, transport), Addr::new(towards, PORT, transport));
        plan.at(at, Change::Forward(*router, external, inside));
        if goes {
            plan.at(back_at, Change::Unforward(*router, external));
        }
        towards = external.ip;
    }
}

fn bad_link(dice: &mut Dice) -> Link {
    let mut link = Link::default();
    link.jitter = Duration::from_millis(dice.between(0, 80));
    link.loss.ppm = u32::try_from(dice.between(0, 300_000)).unwrap_or(0);
    if dice.percent(30) {
        let lasts = Duration::from_secs(dice.between(1, 8));
        link.loss = Loss { ppm: 0, burst: Some(Burst { begins_ppm: 5_000, lasts }) };
    }
    link.duplicate_ppm = u32::try_from(dice.between(0, 50_000)).unwrap_or(0);
    link.reorder_ppm = u32::try_from(dice.between(0, 50_000)).unwrap_or(0);
    link
}

fn rule(
    plan: &Plan,
    (client, server): (usize, usize),
    (at, until): (Duration, Duration),
    dice: &mut Dice,
) -> Rule {
    let verdict = if dice.percent(70) {
        RuleVerdict::Drop
    } else {
        RuleVerdict::Delay(Duration::from_millis(dice.between(50, 3_000)))
    };
    let mut matches = Matches::default();
    if dice.percent(50) {
        matches.transport = Some(dice.pick(&[Transport::Tcp, Transport::Quic]));
    }
    if dice.percent(50) {
        matches.from = Some(plan.nodes[server].ips[0]);
    } else {
        matches.to = Some(plan.nodes[server].ips[0]);
        matches.from = Some(plan.nodes[client].ips[0]);
    }
    Rule { matches, verdict, since: Instant::ZERO + at, until: Some(Instant::ZERO + until) }
}
