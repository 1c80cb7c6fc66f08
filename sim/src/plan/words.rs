//! How gates, links, rules and vices are said in a scenario, and read.

use super::text::span_word;
use crate::net::{
    Behavior, Burst, Dependence, GateConfig, Link, Matches, PacketKind, Policy, PortAllocation,
    Refresh, Refusal, Rule, RuleVerdict, WhenFull,
};
use crate::story::script::{Word, Words, expected};
use crate::world::Vice;
use portolan_core::{Addr, Duration, Family, Instant, Transport};

pub(super) fn say_gate(gate: &GateConfig, tail: &str) -> String {
    let policy = match gate.policy {
        Policy::Open => return String::new(),
        Policy::Firewall => "firewall",
        Policy::Nat => "nat",
    };
    let mut said = format!(" {policy}{tail}");
    for (name, behavior, transport) in
        [("tcp", &gate.tcp, Transport::Tcp), ("udp", &gate.udp, Transport::Quic)]
    {
        let Behavior { mapping, filtering, .. } = behavior;
        said += &format!(" {name}{tail}={}/{}", mapping.name(), filtering.name());
        let plain = Behavior::new(transport, *mapping, *filtering);
        for (word, span, usual) in [
            ("idle", behavior.idle, plain.idle),
            ("transitory", behavior.transitory, plain.transitory),
        ] {
            if span != usual {
                said += &format!(" {word}-{name}{tail}={}", span_word(span));
            }
        }
        if let Some(span) = behavior.absolute {
            said += &format!(" absolute-{name}{tail}={}", span_word(span));
        }
        if behavior.refresh != plain.refresh {
            said += &format!(" refresh-{name}{tail}={}", refresh_word(behavior.refresh));
        }
    }
    said += &format!(" ports{tail}={}", ports_word(gate.ports));
    if gate.refusal == Refusal::Reject {
        said += &format!(" rejects{tail}");
    }
    if !gate.hairpin {
        said += &format!(" no-hairpin{tail}");
    }
    if gate.shares_contacts {
        said += &format!(" shares-contacts{tail}");
    }
    let usual = GateConfig::nat(Dependence::Independent, Dependence::Independent);
    if gate.flows_max != usual.flows_max {
        said += &format!(" flows{tail}={}", gate.flows_max);
    }
    if gate.when_full == WhenFull::Evict {
        said += &format!(" evicts{tail}");
    }
    said
}

pub(super) fn read_gate(words: &mut Words<'_>, tail: &str) -> Result<GateConfig, String> {
    let flag = |words: &mut Words<'_>, name: &str| words.flag(&format!("{name}{tail}"));
    let mut gate = if flag(words, "nat") {
        GateConfig::nat(Dependence::Independent, Dependence::AddressAndPort)
    } else if flag(words, "firewall") {
        GateConfig::firewall()
    } else {
        return Ok(GateConfig::open());
    };
    for (name, transport) in [("tcp", Transport::Tcp), ("udp", Transport::Quic)] {
        let said: Option<String> = words.option(&format!("{name}{tail}"))?;
        let mut behavior = *gate.behavior(transport);
        if let Some(said) = said {
            let parts = said.split_once('/').and_then(|(mapping, filtering)| {
                Some((Dependence::read(mapping)?, Dependence::read(filtering)?))
            });
            let (mapping, filtering) =
                parts.ok_or_else(|| expected("MAPPING/FILTERING of ei, ad, apd", &said))?;
            behavior = Behavior::new(transport, mapping, filtering);
        }
        let idle = words.option(&format!("idle-{name}{tail}"))?;
        behavior.idle = idle.unwrap_or(behavior.idle);
        let transitory = words.option(&format!("transitory-{name}{tail}"))?;
        behavior.transitory = transitory.unwrap_or(behavior.transitory);
        behavior.absolute = words.option(&format!("absolute-{name}{tail}"))?;
        let refresh = words.option(&format!("refresh-{name}{tail}"))?;
        behavior.refresh = refresh.unwrap_or(behavior.refresh);
        match transport {
            Transport::Tcp => gate.tcp = behavior,
            Transport::Quic => gate.udp = behavior,
        }
    }
    gate.ports = words.option(&format!("ports{tail}"))?.unwrap_or(gate.ports);
    if flag(words, "rejects") {
        gate.refusal = Refusal::Reject;
    }
    gate.hairpin = !flag(words, "no-hairpin");
    gate.shares_contacts = flag(words, "shares-contacts");
    let flows: Option<u64> = words.option(&format!("flows{tail}"))?;
    if let Some(flows) = flows {
        gate.flows_max = usize::try_from(flows).unwrap_or(usize::MAX);
    }
    if flag(words, "evicts") {
        gate.when_full = WhenFull::Evict;
    }
    Ok(gate)
}

pub(super) fn say_link(link: &Link) -> String {
    let plain = Link::default();
    let mut said = String::new();
    if link.latency != plain.latency {
        said += &format!(" latency={}", span_word(link.latency));
    }
    if !link.jitter.is_zero() {
        said += &format!(" jitter={}", span_word(link.jitter));
    }
    for (name, ppm) in
        [("loss", link.loss.ppm), ("reorder", link.reorder_ppm), ("duplicate", link.duplicate_ppm)]
    {
        if ppm > 0 {
            said += &format!(" {name}={ppm}ppm");
        }
    }
    if let Some(Burst { begins_ppm, lasts }) = link.loss.burst {
        said += &format!(" burst={begins_ppm}ppm:{}", span_word(lasts));
    }
    if link.mtu != plain.mtu {
        said += &format!(" mtu={}", link.mtu);
    }
    if let Some(rate) = link.bytes_per_second {
        said += &format!(" rate={rate}");
    }
    said
}

pub(super) fn read_link(words: &mut Words<'_>) -> Result<Link, String> {
    let mut link = Link::default();
    link.latency = words.option("latency")?.unwrap_or(link.latency);
    link.jitter = words.option("jitter")?.unwrap_or(link.jitter);
    let ppm = |words: &mut Words<'_>, name: &str| -> Result<u32, String> {
        Ok(words.option::<Ppm>(name)?.map_or(0, |Ppm(ppm)| ppm))
    };
    link.loss.ppm = ppm(words, "loss")?;
    link.reorder_ppm = ppm(words, "reorder")?;
    link.duplicate_ppm = ppm(words, "duplicate")?;
    if let Some(said) = words.option::<String>("burst")? {
        let parts = said
            .split_once(':')
            .and_then(|(ppm, span)| Some((Ppm::read(ppm)?, Duration::read(span)?)));
        let (Ppm(begins_ppm), lasts) =
            parts.ok_or_else(|| expected("CHANCE:SPAN such as 1000ppm:2s", &said))?;
        link.loss.burst = Some(Burst { begins_ppm, lasts });
    }
    link.mtu = words.option("mtu")?.unwrap_or(link.mtu);
    link.bytes_per_second = words.option("rate")?;
    Ok(link)
}

pub(super) fn say_rule(rule: &Rule) -> String {
    let Matches { transport, family, from, to, kind } = rule.matches;
    let mut said = match rule.verdict {
        RuleVerdict::Pass => "rule pass".to_owned(),
        RuleVerdict::Drop => "rule drop".to_owned(),
        RuleVerdict::Delay(span) => format!("rule delay={}", span_word(span)),
    };
    let words = [
        transport.map(|transport| format!(" transport={}", transport.name())),
        family.map(|family| format!(" family={}", family.name())),
        from.map(|ip| format!(" from={ip}")),
        to.map(|ip| format!(" to={ip}")),
        kind.map(|kind| format!(" kind={}", kind.name())),
        rule.until.map(|until| format!(" for={}", span_word(until.since(rule.since)))),
    ];
    said.extend(words.into_iter().flatten());
    said
}

pub(super) fn read_rule(words: &mut Words<'_>, at: Duration) -> Result<Rule, String> {
    let delay: Option<Duration> = words.option("delay")?;
    let verdict = match delay {
        Some(span) => RuleVerdict::Delay(span),
        None if words.flag("drop") => RuleVerdict::Drop,
        None if words.flag("pass") => RuleVerdict::Pass,
        None => return Err("expected pass, drop or delay=SPAN".to_owned()),
    };
    let matches = Matches {
        transport: words.option("transport")?,
        family: words.option("family")?,
        from: words.option("from")?,
        to: words.option("to")?,
        kind: words.option("kind")?,
    };
    let since = Instant::ZERO + at;
    let until = words.option("for")?.map(|span: Duration| since + span);
    Ok(Rule { matches, verdict, since, until })
}

pub(super) fn say_vice(vice: &Vice) -> String {
    match vice {
        Vice::Slow(span) | Vice::Flaps(span) => format!("{}:{}", vice.name(), span_word(*span)),
        Vice::Poisons(addr) => format!("{}:{addr}", vice.name()),
        Vice::Rejects
        | Vice::Refuses
        | Vice::Errs
        | Vice::Silent
        | Vice::LiesOk
        | Vice::LiesFailure
        | Vice::WrongNonce
        | Vice::NonceOnOldConnection
        | Vice::NonceElsewhere
        | Vice::NoNonce
        | Vice::V1Alone
        | Vice::V1Unreliable => vice.name().to_owned(),
    }
}

/// Parts in a million, or in a hundred.
struct Ppm(u32);

impl Word for Ppm {
    const EXPECTED: &'static str = "a share such as 10% or 500ppm";

    fn read(word: &str) -> Option<Ppm> {
        let (number, factor) = match (word.strip_suffix('%'), word.strip_suffix("ppm")) {
            (Some(percent), _) => (percent, 10_000),
            (None, Some(ppm)) => (ppm, 1),
            (None, None) => return None,
        };
        let ppm = number.parse::<u32>().ok()?.checked_mul(factor)?;
        (ppm <= 1_000_000).then_some(Ppm(ppm))
    }
}

/// Words with one meaning each.
macro_rules! word {
    ($type:ty, $expected:literal, $all:expr, $name:expr) => {
        impl Word for $type {
            const EXPECTED: &'static str = $expected;

            fn read(word: &str) -> Option<$type> {
                $all.into_iter().find(|one| $name(*one) == word)
            }
        }
    };
}

word!(
    Dependence,
    "ei, ad or apd",
    [Dependence::Independent, Dependence::Address, Dependence::AddressAndPort],
    Dependence::name
);
word!(Transport, "tcp or quic", [Transport::Tcp, Transport::Quic], Transport::name);
word!(Family, "ip4 or ip6", [Family::Ip4, Family::Ip6], Family::name);
word!(
    PacketKind,
    "open, accept, data or refuse",
    [PacketKind::Open, PacketKind::Accept, PacketKind::Data, PacketKind::Refuse],
    PacketKind::name
);
word!(
    Refresh,
    "outbound, inbound or both",
    [Refresh::Outbound, Refresh::Inbound, Refresh::Both],
    refresh_word
);
word!(
    PortAllocation,
    "preserving, overloading, sequential, random or contiguous",
    [
        PortAllocation::Preserving,
        PortAllocation::Overloading,
        PortAllocation::Sequential,
        PortAllocation::Random,
        PortAllocation::Contiguous
    ],
    ports_word
);

const fn refresh_word(refresh: Refresh) -> &'static str {
    match refresh {
        Refresh::Outbound => "outbound",
        Refresh::Inbound => "inbound",
        Refresh::Both => "both",
    }
}

const fn ports_word(ports: PortAllocation) -> &'static str {
    match ports {
        PortAllocation::Preserving => "preserving",
        PortAllocation::Overloading => "overloading",
        PortAllocation::Sequential => "sequential",
        PortAllocation::Random => "random",
        PortAllocation::Contiguous => "contiguous",
    }
}

impl Word for Vice {
    const EXPECTED: &'static str = "a vice such as lies-ok, slow:2s or poisons:ADDRESS";

    fn read(word: &str) -> Option<Vice> {
        let (name, value) = word.split_once(':').unwrap_or((word, ""));
        Some(match name {
            "rejects" => Vice::Rejects,
            "refuses" => Vice::Refuses,
            "errs" => Vice::Errs,
            "silent" => Vice::Silent,
            "slow" => Vice::Slow(Duration::read(value)?),
            "lies-ok" => Vice::LiesOk,
            "lies-failure" => Vice::LiesFailure,
            "wrong-nonce" => Vice::WrongNonce,
            "nonce-on-old-connection" => Vice::NonceOnOldConnection,
            "nonce-elsewhere" => Vice::NonceElsewhere,
            "no-nonce" => Vice::NoNonce,
            "v1-alone" => Vice::V1Alone,
            "v1-unreliable" => Vice::V1Unreliable,
            "poisons" => Vice::Poisons(Addr::read(value)?),
            "flaps" => Vice::Flaps(Duration::read(value)?),
            _ => return None,
        })
    }
}
