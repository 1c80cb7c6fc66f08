//! What routers say, and the knob that lets them be asked.

use super::frames::Hex;
use super::script::{Word, Words, Wrong, expected};
use super::world::World;
use bytes::Bytes;
use portolan_core::{
    Channel, Duration, Event, FetchFailure, FetchId, Gateway, MappingConfig, MappingEvent,
    MappingProtocol, Transport,
};
use std::net::{IpAddr, SocketAddr};

impl World {
    /// Gateways, datagrams, answers to requests, what was stored, and the end. `said` is the whole
    /// line, for texts hold spaces.
    pub(super) fn routers(&mut self, verb: &str, said: &str) -> Result<(), Wrong> {
        self.feed(Event::Mapping(event(verb, said)?))
    }
}

fn event(verb: &str, said: &str) -> Result<MappingEvent, Wrong> {
    let mut rest = said.strip_prefix(verb).unwrap_or_default();
    let event = match verb {
        "gateways" => MappingEvent::GatewaysChanged { gateways: gateways(&mut rest)? },
        "datagram" => MappingEvent::DatagramReceived {
            channel: next(&mut rest)?,
            from: next(&mut rest)?,
            body: body(&mut rest)?,
        },
        "datagram-refused" => MappingEvent::DatagramRefused {
            channel: next(&mut rest)?,
            to: if rest.trim().is_empty() { None } else { Some(next(&mut rest)?) },
        },
        "fetched" => MappingEvent::Fetched {
            fetch: next(&mut rest)?,
            status: next(&mut rest)?,
            body: written(std::mem::take(&mut rest).trim())?,
        },
        "fetch-failed" => {
            MappingEvent::FetchFailed { fetch: next(&mut rest)?, reason: next(&mut rest)? }
        }
        "ledger-read" => MappingEvent::LedgerRead { ledger: next::<Hex>(&mut rest)?.0 },
        _ => MappingEvent::Closing,
    };
    match rest.trim() {
        "" => Ok(event),
        word => Err(expected("the end of the line", word)),
    }
}

/// The next word. Here a `=` in it means nothing.
fn next<T: Word>(rest: &mut &str) -> Result<T, Wrong> {
    let trimmed = rest.trim_start();
    let (word, behind) = trimmed.split_once(' ').unwrap_or((trimmed, ""));
    *rest = behind;
    match word {
        "" => Err(format!("expected {} here, found the end of the line", T::EXPECTED)),
        word => T::read(word).ok_or_else(|| expected(T::EXPECTED, word)),
    }
}

fn gateways(rest: &mut &str) -> Result<Vec<Gateway>, Wrong> {
    let mut gateways = Vec::new();
    if rest.trim() == "none" {
        *rest = "";
    }
    while !rest.trim().is_empty() {
        gateways.push(next(rest)?);
    }
    Ok(gateways)
}

/// Bytes in hex, or a text in quotation marks.
fn body(rest: &mut &str) -> Result<Bytes, Wrong> {
    let text = rest.trim();
    match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(text) => {
            *rest = "";
            written(text)
        }
        None => next::<Hex>(rest).map(|hex| hex.0),
    }
}

/// A text, in which `\r`, `\n` and `\\` stand for what they stand for everywhere.
fn written(text: &str) -> Result<Bytes, Wrong> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match (c, c == '\\') {
            (c, false) => c,
            (_, true) => match chars.next() {
                Some('r') => '\r',
                Some('n') => '\n',
                Some('\\') => '\\',
                other => return Err(format!("expected \\r, \\n or \\\\, found \\{other:?}")),
            },
        });
    }
    Ok(out.into())
}

/// The words after `config mapping`.
pub(super) fn mapping(words: &mut Words<'_>) -> Result<MappingConfig, Wrong> {
    let mut config = MappingConfig::default();
    let protocols = words.list::<MappingProtocol>("protocols")?;
    if !protocols.is_empty() {
        config.protocols = protocols;
    }
    let ports = words.list::<Port>("ports")?;
    config.ports = ports.into_iter().map(|Port(transport, port)| (transport, port)).collect();
    config.lifetime = words.option::<Duration>("lifetime")?.unwrap_or(config.lifetime);
    config.description = words.option("description")?.unwrap_or(config.description);
    Ok(config)
}

/// A port to be mapped.
struct Port(Transport, u16);

impl Word for Port {
    const EXPECTED: &'static str = "a port such as tcp:4001 or quic:4001";

    fn read(word: &str) -> Option<Port> {
        let (transport, port) = word.split_once(':')?;
        let transport = match transport {
            "tcp" => Transport::Tcp,
            "quic" => Transport::Quic,
            _ => return None,
        };
        Some(Port(transport, port.parse().ok()?))
    }
}

impl Word for MappingProtocol {
    const EXPECTED: &'static str = "pcp, nat-pmp or upnp";

    fn read(word: &str) -> Option<MappingProtocol> {
        MappingProtocol::ALL.into_iter().find(|protocol| protocol.name() == word)
    }
}

impl Word for u16 {
    const EXPECTED: &'static str = "a number up to 65535";

    fn read(word: &str) -> Option<u16> {
        word.parse().ok()
    }
}

impl Word for SocketAddr {
    const EXPECTED: &'static str = "an IP with a port such as 192.168.1.1:5351 or [fe80::1%2]:5351";

    fn read(word: &str) -> Option<SocketAddr> {
        word.parse().ok()
    }
}

impl Word for Gateway {
    const EXPECTED: &'static str = "a gateway such as 192.168.1.1%2<192.168.1.7";

    fn read(word: &str) -> Option<Gateway> {
        let (router, source) = word.split_once('<')?;
        let (router, interface) = router.split_once('%')?;
        Some(Gateway {
            router: router.parse().ok()?,
            interface: interface.parse().ok()?,
            source: source.parse().ok()?,
        })
    }
}

impl Word for Channel {
    const EXPECTED: &'static str = "a socket such as 192.168.1.7%2 or 224.0.0.1:5350@192.168.1.7%2";

    fn read(word: &str) -> Option<Channel> {
        let (group, client) = match word.split_once('@') {
            Some((group, client)) => (Some(group.parse::<SocketAddr>().ok()?), client),
            None => (None, word),
        };
        let (source, interface) = client.split_once('%')?;
        let source: IpAddr = source.parse().ok()?;
        let interface = interface.parse().ok()?;
        Some(match group {
            Some(group) => Channel::Group { group, source, interface },
            None => Channel::Client { source, interface },
        })
    }
}

impl Word for FetchId {
    const EXPECTED: &'static str = "a request such as f1";

    fn read(word: &str) -> Option<FetchId> {
        word.strip_prefix('f')?.parse().ok().map(FetchId)
    }
}

impl Word for FetchFailure {
    const EXPECTED: &'static str = "refused, timed-out, malformed or local-fault";

    fn read(word: &str) -> Option<FetchFailure> {
        match word {
            "refused" => Some(FetchFailure::Refused),
            "timed-out" => Some(FetchFailure::TimedOut),
            "malformed" => Some(FetchFailure::Malformed),
            "local-fault" => Some(FetchFailure::LocalFault),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_core::transcript::{Scribe, ShortNames};
    use portolan_core::{Instant, PeerId};

    /// What a line means, as a transcript tells it.
    fn told(said: &str) -> Result<String, Wrong> {
        let verb = said.split(' ').next().unwrap_or_default();
        let mut scribe = Scribe::new(
            ShortNames::new(PeerId::from_bytes(&[0, 0]).expect("an identity multihash")),
            Instant::ZERO,
        );
        Ok(scribe.event(&Event::Mapping(event(verb, said)?)))
    }

    #[test]
    fn what_a_transcript_tells_of_routers_a_script_can_say() {
        for said in [
            "gateways none",
            "gateways 192.168.1.1%2<192.168.1.7 fe80::1%3<fe80::7",
            "datagram-refused 192.168.1.7%2",
            "datagram-refused 224.0.0.1:5350@192.168.1.7%2 192.168.1.1:5351",
            "fetch-failed f1 local-fault",
            "closing",
        ] {
            assert_eq!(told(said).as_deref(), Ok(said));
        }
    }

    #[test]
    fn bodies_are_bytes_or_texts() {
        for (said, line) in [
            ("datagram 10.0.0.2%1 10.0.0.1:5351 0080", "datagram 10.0.0.2%1 10.0.0.1:5351 2 bytes"),
            ("datagram ::7%1 [fe80::1%1]:5351 -", "datagram ::7%1 [fe80::1%1]:5351 0 bytes"),
            (
                r#"datagram 10.0.0.2%1 10.0.0.1:1900 "HTTP/1.1 200 OK\r\nST: a=b\r\n""#,
                r#"datagram 10.0.0.2%1 10.0.0.1:1900 "HTTP/1.1 200 OK" and 2 lines"#,
            ),
            (r"fetched f2 200 <a b=c>  \\\n</a>", r#"fetched f2 200 "<a b=c>  \\" and 1 lines"#),
            ("fetched f2 500", r#"fetched f2 500 """#),
            ("ledger-read 0102", "ledger-read 2 bytes"),
        ] {
            assert_eq!(told(said).as_deref(), Ok(line));
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (said, wrong) in [
            ("gateways 192.168.1.1", "expected a gateway"),
            ("datagram 10.0.0.2 10.0.0.1:1 00", "expected a socket"),
            ("datagram 10.0.0.2%1 10.0.0.1:1", "found the end of the line"),
            ("datagram 10.0.0.2%1 10.0.0.1:1 00 00", "expected the end of the line"),
            (r"fetched f1 200 \t", r"expected \r, \n or \\"),
            ("fetched f1 65536", "expected a number up to 65535"),
            ("fetch-failed f1 bored", "expected refused"),
            ("closing now", "expected the end of the line"),
        ] {
            let found = told(said).expect_err(said);
            assert!(found.contains(wrong), "{found}");
        }
    }

    #[test]
    fn routers_are_asked_as_the_knob_says() {
        let mut words = Words::of("protocols=upnp,pcp ports=tcp:80,quic:81 lifetime=10m");
        let config = mapping(&mut words).expect("a good line");
        assert_eq!(config.protocols, [MappingProtocol::Upnp, MappingProtocol::Pcp]);
        assert_eq!(config.ports, [(Transport::Tcp, 80), (Transport::Quic, 81)]);
        assert_eq!(config.lifetime, Duration::from_secs(600));
        let plain = mapping(&mut Words::of("")).expect("a good line");
        assert_eq!(plain, MappingConfig::default());
    }
}
