//! What relays and their clients do, and the knobs that let us be either.

use super::names::{Hand, Names, key};
use super::script::{Name, Word, Words, Wrong, expected};
use super::world::World;
use bytes::Bytes;
use portolan_core::wire::multiaddr;
use portolan_core::wire::relay::{HopMessage, Reservation, StopMessage, Voucher};
use portolan_core::{
    Addr, BridgeEnd, CircuitId, CircuitLimit, ConnId, DistantServer, Duration, Event, PeerId,
    Protocol, RelayConfig, RelayEvent, RelayNeed, RelayPeer, RelayServerConfig, RelayStatus,
};

impl World {
    /// What the runtime tells of circuits and bridges.
    pub(super) fn circuits(&mut self, verb: &str, mut words: Words<'_>) -> Result<(), Wrong> {
        let event = match verb {
            "circuit" => {
                let circuit: CircuitId = words.take()?;
                let conn: ConnId = words.take()?;
                RelayEvent::CircuitWanted { circuit, conn, peer: self.peer(&mut words)? }
            }
            "circuit-forgotten" => RelayEvent::CircuitForgotten { circuit: words.take()? },
            "connect-failed" => RelayEvent::ConnectFailed {
                peer: self.peer(&mut words)?,
                addr: words.take()?,
                reason: words.take()?,
            },
            "upgrade-failed" => RelayEvent::UpgradeFailed { stream: words.take()? },
            "bridge-ended" => RelayEvent::BridgeEnded {
                stream: words.take()?,
                end: words.take()?,
                forth: words.option("forth")?.unwrap_or(0),
                back: words.option("back")?.unwrap_or(0),
            },
            _ => RelayEvent::Draining,
        };
        words.done()?;
        self.feed(Event::Relay(event))
    }

    /// What the peer at the other end of a connection says on a hop or a stop stream.
    pub(super) fn relaying(&mut self, verb: &str, mut words: Words<'_>) -> Result<(), Wrong> {
        let conn: ConnId = words.take()?;
        match verb {
            "reserve" => {
                words.done()?;
                self.opens(conn, Protocol::Hop, HopMessage::Reserve.encode())
            }
            "ask-circuit" => {
                let peer = self.peer(&mut words)?;
                words.done()?;
                self.opens(conn, Protocol::Hop, HopMessage::Connect { peer }.encode())
            }
            "incoming" => {
                let (peer, limit) = (self.peer(&mut words)?, limit(&mut words)?);
                words.done()?;
                self.opens(conn, Protocol::Stop, StopMessage::Connect { peer, limit }.encode())
            }
            "hop" => {
                let stream = self.ours(conn, Protocol::Hop)?;
                let last = !words.flag("more");
                let status = words.take::<RelayStatus>()?;
                let limit = limit(&mut words)?;
                let reservation = self.reservation(conn, &mut words)?;
                words.done()?;
                let said = HopMessage::Status { status, reservation, limit };
                self.speak(stream, vec![said.encode()], last)
            }
            _ => {
                let stream = self.ours(conn, Protocol::Stop)?;
                let last = !words.flag("more");
                let status = words.take::<RelayStatus>()?;
                words.done()?;
                self.speak(stream, vec![StopMessage::Status { status }.encode()], last)
            }
        }
    }

    /// The peer opens a stream, says one thing and waits.
    fn opens(&mut self, conn: ConnId, protocol: Protocol, body: Bytes) -> Result<(), Wrong> {
        let stream = self.theirs(conn, protocol)?;
        self.speak(stream, vec![body], false)
    }

    fn peer(&mut self, words: &mut Words<'_>) -> Result<PeerId, Wrong> {
        let name: Name = words.take()?;
        Ok(self.scribe.names.peer(&name))
    }

    /// What is granted: nothing, unless the line says until when.
    fn reservation(
        &mut self,
        conn: ConnId,
        words: &mut Words<'_>,
    ) -> Result<Option<Reservation>, Wrong> {
        let Some(lasts) = words.option::<Duration>("expire")? else {
            return Ok(None);
        };
        let expire = self.unix_secs().saturating_add(lasts.as_secs());
        let addrs = words.list::<Told>("addrs")?.into_iter().map(|told| told.0).collect();
        let voucher = match words.option::<Sealed>("voucher")? {
            Some(sealed) => Some(sealed.bytes(expire)),
            None if words.flag("voucher") => {
                let peer = self.book.conns.get(&conn).map(|facts| facts.peer);
                let relay = peer.and_then(|peer| self.scribe.names.of(&peer));
                let relay = relay.ok_or_else(|| format!("expected a connection, found {conn}"))?;
                let peer = Name(super::names::NODE.to_owned());
                Some(Sealed { signer: relay.clone(), relay, peer }.bytes(expire))
            }
            None => None,
        };
        Ok(Some(Reservation { expire, addrs, voucher }))
    }
}

fn limit(words: &mut Words<'_>) -> Result<CircuitLimit, Wrong> {
    Ok(CircuitLimit { duration: words.option("duration")?, bytes: words.option("bytes")? })
}

/// An address that a relay tells: a direct one, or any multiaddr at all.
struct Told(Bytes);

impl Word for Told {
    const EXPECTED: &'static str = "a multiaddr";

    fn read(word: &str) -> Option<Told> {
        let multiaddr: multiaddr::Multiaddr = word.parse().ok()?;
        Some(Told(Bytes::from(multiaddr.to_vec())))
    }
}

/// `R1:R2:S1`: a voucher that R1 signed, and that says of R2 that S1 may be reached through it.
struct Sealed {
    signer: Name,
    relay: Name,
    peer: Name,
}

impl Word for Sealed {
    const EXPECTED: &'static str = "a voucher such as R1:R1:Node: who signs, the relay, its client";

    fn read(word: &str) -> Option<Sealed> {
        let mut parts = word.split(':').map(Name::read);
        let (signer, relay, peer) = (parts.next()??, parts.next()??, parts.next()??);
        parts.next().is_none().then_some(Sealed { signer, relay, peer })
    }
}

impl Sealed {
    /// One that somebody else signs is signed as the relay's, so that only the signature is wrong.
    fn bytes(&self, expiration: u64) -> Bytes {
        let relay = key(&self.relay).public();
        let peer = key(&self.peer).public().to_peer_id();
        let voucher = Voucher { relay: relay.to_peer_id(), peer, expiration };
        voucher.sealed(&relay, &mut Hand(&key(&self.signer)))
    }
}

/// The words after `config relay`. Relays are named in `names`.
pub(super) fn used(words: &mut Words<'_>, names: &mut Names) -> Result<RelayConfig, Wrong> {
    let mut config = RelayConfig::default();
    config.use_connected = !words.flag("not-connected");
    while let Some(Known { name, addrs }) = words.take_if::<Known>() {
        config.relays.push(RelayPeer { peer: names.peer(&name), addrs });
    }
    while let Some(Distant { name, relay }) = words.take_if::<Distant>() {
        let relay = RelayPeer { peer: names.peer(&relay.name), addrs: relay.addrs };
        config.distant_servers.push(DistantServer { peer: names.peer(&name), relay });
    }
    config.need = match words.option::<Need>("need")? {
        Some(Need(need)) => need,
        None => config.need,
    };
    if let Some(number) = words.option::<u32>("reservations")? {
        config.reservations = usize::try_from(number).map_err(|error| error.to_string())?;
    }
    Ok(config)
}

/// `R1`, or `R1@ADDRESS,ADDRESS`.
struct Known {
    name: Name,
    addrs: Vec<Addr>,
}

impl Word for Known {
    const EXPECTED: &'static str = "a relay such as R1@/ip4/44.0.0.1/tcp/4001";

    fn read(word: &str) -> Option<Known> {
        let (name, addrs) = word.split_once('@').unwrap_or((word, ""));
        let addrs = addrs.split(',').filter(|addr| !addr.is_empty()).map(Addr::read);
        Some(Known { name: Name::read(name)?, addrs: addrs.collect::<Option<_>>()? })
    }
}

/// `S1:R1@ADDRESS`, a server behind a relay.
struct Distant {
    name: Name,
    relay: Known,
}

impl Word for Distant {
    const EXPECTED: &'static str = "a server such as S1:R1@/ip4/44.0.0.1/tcp/4001";

    fn read(word: &str) -> Option<Distant> {
        let (name, relay) = word.split_once(':')?;
        Some(Distant { name: Name::read(name)?, relay: Known::read(relay)? })
    }
}

struct Need(RelayNeed);

impl Word for Need {
    const EXPECTED: &'static str = "auto, always or never";

    fn read(word: &str) -> Option<Need> {
        match word {
            "auto" => Some(Need(RelayNeed::Auto)),
            "always" => Some(Need(RelayNeed::Always)),
            "never" => Some(Need(RelayNeed::Never)),
            _ => None,
        }
    }
}

/// The words after `config relay-server`. Who may reserve is named in `names`.
pub(super) fn offered(
    words: &mut Words<'_>,
    names: &mut Names,
) -> Result<RelayServerConfig, Wrong> {
    let mut config = RelayServerConfig::default();
    config.only_while_may_serve = words.flag("while-may-serve");
    let mut set = |name, field: &mut usize| -> Result<(), Wrong> {
        if let Some(number) = words.option::<u32>(name)? {
            *field = usize::try_from(number).map_err(|error| error.to_string())?;
        }
        Ok(())
    };
    set("reservations", &mut config.reservations_max)?;
    set("reservations-ip", &mut config.reservations_per_ip_max)?;
    set("reservations-prefix", &mut config.reservations_per_prefix_max)?;
    set("circuits", &mut config.circuits_max)?;
    set("circuits-peer", &mut config.circuits_per_peer_max)?;
    set("circuits-prefix", &mut config.circuits_per_prefix_max)?;
    if let Some(lifetime) = words.option("lifetime")? {
        config.reservation_lifetime = lifetime;
    }
    if let Some(Most(duration)) = words.option("duration")? {
        config.limit.duration = duration;
    }
    if let Some(Most(bytes)) = words.option("bytes")? {
        config.limit.bytes = bytes;
    }
    if let Some(allowed) = words.option::<String>("allow")? {
        let read = |word| Name::read(word).ok_or_else(|| expected(Name::EXPECTED, word));
        let all: Result<Vec<Name>, Wrong> =
            allowed.split(',').filter(|word| *word != "nobody").map(read).collect();
        config.allow = Some(all?.iter().map(|name| names.peer(name)).collect());
    }
    Ok(config)
}

/// A limit, or none.
struct Most<T>(Option<T>);

impl<T: Word> Word for Most<T> {
    const EXPECTED: &'static str = "a limit, or none";

    fn read(word: &str) -> Option<Most<T>> {
        match word {
            "none" => Some(Most(None)),
            word => T::read(word).map(|value| Most(Some(value))),
        }
    }
}

impl Word for CircuitId {
    const EXPECTED: &'static str = "a circuit such as k1";

    fn read(word: &str) -> Option<CircuitId> {
        word.strip_prefix('k')?.parse().ok().map(CircuitId)
    }
}

impl Word for BridgeEnd {
    const EXPECTED: &'static str = "finished, reset, bytes-used-up or cut";

    fn read(word: &str) -> Option<BridgeEnd> {
        match word {
            "finished" => Some(BridgeEnd::Finished),
            "reset" => Some(BridgeEnd::Reset),
            "bytes-used-up" => Some(BridgeEnd::BytesUsedUp),
            "cut" => Some(BridgeEnd::Cut),
            _ => None,
        }
    }
}

impl Word for RelayStatus {
    const EXPECTED: &'static str = "a status such as OK or NO_RESERVATION, or a code";

    fn read(word: &str) -> Option<RelayStatus> {
        Some(match word {
            "UNUSED" => RelayStatus::Unused,
            "OK" => RelayStatus::Ok,
            "RESERVATION_REFUSED" => RelayStatus::ReservationRefused,
            "RESOURCE_LIMIT_EXCEEDED" => RelayStatus::ResourceLimitExceeded,
            "PERMISSION_DENIED" => RelayStatus::PermissionDenied,
            "CONNECTION_FAILED" => RelayStatus::ConnectionFailed,
            "NO_RESERVATION" => RelayStatus::NoReservation,
            "MALFORMED_MESSAGE" => RelayStatus::MalformedMessage,
            "UNEXPECTED_MESSAGE" => RelayStatus::UnexpectedMessage,
            code => RelayStatus::from_code(code.parse().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn played(facts: &str) -> Result<Vec<String>, String> {
        let text = format!("# A story about relays.\n{facts}");
        super::super::play(Path::new("a story"), &text).map_err(|fault| fault.what)
    }

    #[test]
    fn every_fact_about_relays_can_be_told() {
        let begin = "config no-identify\nconfig no-ping\n\
            listen l1 /ip4/192.168.1.2/tcp/4001\n\
            connect c1 R1 out /ip4/44.0.1.1/tcp/4001\n\
            connect c2 S2 in /ip4/44.0.2.1/tcp/4001\n";
        for fact in [
            "circuit-forgotten k1",
            "connect-failed R1 /ip4/44.0.1.1/tcp/4001 timed-out",
            "upgrade-failed <stop:1",
            "bridge-ended <hop:1 bytes-used-up forth=7 back=9",
            "draining",
            "reserve c2",
            "ask-circuit c2 S3",
            "incoming c1 S2 duration=2m bytes=131072",
        ] {
            played(&format!("{begin}{fact}")).unwrap_or_else(|wrong| panic!("{fact}: {wrong}"));
        }
        for (fact, wrong) in [
            ("circuit c1 c1 S2", "expected a circuit"),
            ("bridge-ended <hop:1 bored", "expected finished"),
            ("hop c1 OK", "expected a stream of ours on c1 that speaks hop"),
            ("stop c2 OK", "expected a stream of ours on c2 that speaks stop"),
            ("draining now", "expected the end of the line"),
        ] {
            let found = played(&format!("{begin}{fact}")).expect_err(fact);
            assert!(found.contains(wrong), "{found}");
        }
    }

    #[test]
    fn vouchers_are_good_or_signed_by_another() {
        let seal = |word| Sealed::read(word).expect("a voucher").bytes(7);
        let opened = Voucher::open(&seal("R1:R1:Node")).expect("a good one");
        assert_eq!(opened.relay, key(&Name("R1".to_owned())).public().to_peer_id());
        assert_eq!(opened.expiration, 7);
        Voucher::open(&seal("R2:R1:Node")).expect_err("R2 is not the relay");
        assert!(Sealed::read("R1:Node").is_none());
    }

    #[test]
    fn relays_are_used_and_offered_as_the_knobs_say() {
        let mut names = Names::default();
        let said = "R1@/ip4/44.0.1.1/tcp/4001,/ip4/44.0.1.1/udp/4001/quic-v1 R2 need=always \
                    reservations=1 not-connected";
        let mut words = Words::of(said);
        let config = used(&mut words, &mut names).expect("a good line");
        words.done().expect("nothing is left");
        assert_eq!(config.relays.iter().map(|relay| relay.addrs.len()).collect::<Vec<_>>(), [2, 0]);
        assert_eq!((config.need, config.reservations), (RelayNeed::Always, 1));
        assert!(!config.use_connected);
        let plain = used(&mut Words::of(""), &mut names).expect("a good line");
        assert_eq!(plain, RelayConfig::default());

        let said = "reservations=3 circuits=4 circuits-peer=1 lifetime=10m duration=none \
                    bytes=100 allow=S1,S2 while-may-serve";
        let mut words = Words::of(said);
        let config = offered(&mut words, &mut names).expect("a good line");
        words.done().expect("nothing is left");
        assert_eq!((config.reservations_max, config.circuits_max), (3, 4));
        assert_eq!(config.circuits_per_peer_max, 1);
        assert_eq!(config.reservation_lifetime, Duration::from_secs(600));
        assert_eq!(config.limit, CircuitLimit { duration: None, bytes: Some(100) });
        assert_eq!(config.allow.map(|all| all.len()), Some(2));
        assert!(config.only_while_may_serve);
        let nobody = offered(&mut Words::of("allow=nobody"), &mut names).expect("a good line");
        assert_eq!(nobody.allow, Some(Vec::new()));
    }
}
