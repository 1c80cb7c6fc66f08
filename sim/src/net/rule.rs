//! Rules that look at a packet as it leaves: the first that matches answers for it.

use super::packet::{Packet, PacketKind};
use portolan_core::{Duration, Family, Instant, Transport};
use std::net::IpAddr;

/// What a rule says of a packet that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleVerdict {
    /// Let it go, whatever later rules say.
    Pass,
    /// Hold it back for so long.
    Delay(Duration),
    /// It is gone.
    Drop,
}

/// Which packets a rule is about; what is `None` does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Matches {
    /// TCP or QUIC.
    pub transport: Option<Transport>,
    /// The IP family.
    pub family: Option<Family>,
    /// The IP it comes from, as the sending host has it.
    pub from: Option<IpAddr>,
    /// The IP it is sent to, as the sending host knows it.
    pub to: Option<IpAddr>,
    /// What it is.
    pub kind: Option<PacketKind>,
}

/// A rule of the network, in force for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which packets it is about.
    pub matches: Matches,
    /// What becomes of them.
    pub verdict: RuleVerdict,
    /// In force from then on.
    pub since: Instant,
    /// Not in force any more from then on.
    pub until: Option<Instant>,
}

impl Matches {
    /// Whether a packet is one of those.
    pub fn matches(&self, packet: &Packet) -> bool {
        fn fits<T: PartialEq>(wanted: Option<T>, found: T) -> bool {
            wanted.is_none_or(|wanted| wanted == found)
        }
        fits(self.transport, packet.src.transport)
            && fits(self.family, packet.family())
            && fits(self.from, packet.src.ip)
            && fits(self.to, packet.dst.ip)
            && fits(self.kind, packet.kind)
    }
}

/// What the first rule in force says that matches.
pub(super) fn judge(rules: &[Rule], now: Instant, packet: &Packet) -> RuleVerdict {
    let in_force = |rule: &&Rule| {
        rule.since <= now
            && rule.until.is_none_or(|until| now < until)
            && rule.matches.matches(packet)
    };
    rules.iter().find(in_force).map_or(RuleVerdict::Pass, |rule| rule.verdict)
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_core::Addr;
    use std::net::Ipv4Addr;

    #[test]
    fn the_first_rule_in_force_that_matches_answers() {
        let [src, dst] =
            [1, 2].map(|last| Addr::tcp(IpAddr::V4(Ipv4Addr::new(44, 0, 0, last)), 4001));
        let packet = Packet::bare(src, dst, PacketKind::Open);
        let rule = |verdict, from: Option<IpAddr>| Rule {
            matches: Matches { from, transport: Some(Transport::Tcp), ..Matches::default() },
            verdict,
            since: Instant::ZERO,
            until: Some(Instant::from_millis(5)),
        };
        let rules = [
            rule(RuleVerdict::Drop, Some(dst.ip)),
            rule(RuleVerdict::Delay(Duration::from_millis(3)), Some(src.ip)),
            rule(RuleVerdict::Drop, None),
        ];
        let judged = |ms| judge(&rules, Instant::from_millis(ms), &packet);
        assert_eq!(judged(0), RuleVerdict::Delay(Duration::from_millis(3)));
        assert_eq!(judged(5), RuleVerdict::Pass, "no longer in force");
        assert_eq!(judge(&rules[..1], Instant::ZERO, &packet), RuleVerdict::Pass);
    }
}
