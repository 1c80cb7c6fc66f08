//! The cells of relaying: who relays, who reserves, who dials, and what has to happen for a cell to
//! say "works". In each at least one of the three is ours.

use crate::other::WITHIN;
use crate::relay_peer::{Allowed, Peer, Who, same_limit};
use multiaddr::Multiaddr;
use portolan_core::{BridgeEnd, CircuitLimit, Instant, Notice, RelayNotice, Transport};
use portolan_runtime::traits::Runtime;
use portolan_tests::rust_peer::Seen;
use portolan_tests::rust_relay::RelaySeen;
use std::time::{self, Duration};

/// What a circuit carries each way.
const CARRIED: usize = 100_000;
/// Far more than a cell needs, for rust-libp2p and js-libp2p count both directions together.
const AMPLE: Allowed = Allowed { bytes: 1 << 20, duration: Duration::from_secs(60) };
/// Less than what is sent, and shorter than a test's patience.
const SCARCE: Allowed = Allowed { bytes: 1 << 16, duration: Duration::from_secs(2) };
/// How late a circuit may be cut on a busy machine.
const LATE: Duration = Duration::from_secs(1);

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shown {
    /// A circuit carries its bytes both ways.
    Carries,
    /// It is cut at its limit of bytes.
    Bytes,
    /// It is cut when its time is over.
    Time,
}

/// A row of the tables of relaying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Roles {
    /// What is shown.
    pub(crate) shown: Shown,
    /// Who relays.
    pub(crate) relay: Who,
    /// Who holds the reservation.
    pub(crate) reserves: Who,
    /// Who dials.
    pub(crate) dials: Who,
}

/// One cell.
#[derive(Clone, Debug)]
pub(crate) struct Relayed {
    /// Its row.
    pub(crate) roles: Roles,
    /// Its column.
    pub(crate) transport: Transport,
    /// Nothing if it works, else why not.
    pub(crate) result: Result<(), String>,
}

/// A relay, and what it is reached over.
#[derive(Clone, Debug)]
pub(crate) struct Scene<R> {
    /// Who relays.
    pub(crate) relay: Who,
    /// Who there is to reserve and to dial.
    pub(crate) clients: Vec<Who>,
    /// Over what everybody reaches the relay.
    pub(crate) transport: Transport,
    /// What Portolan runs on.
    pub(crate) runtime: R,
}

impl<R: Runtime> Scene<R> {
    /// Every pair of clients at one relay.
    pub(crate) async fn carries(&self) -> Vec<Relayed> {
        let relay = self.start_relay(AMPLE).await;
        let mut dialling = Vec::new();
        for who in &self.clients {
            dialling.push((*who, self.client(*who, None).await));
        }
        let mut cells = Vec::new();
        for reserves in self.clients.iter().copied() {
            let target = match &relay {
                Ok(relay) => self.reserve(relay, reserves, AMPLE).await,
                Err(error) => Err(error.clone()),
            };
            for (dials, from) in &dialling {
                let roles =
                    Roles { shown: Shown::Carries, relay: self.relay, reserves, dials: *dials };
                if ![self.relay, reserves, *dials].contains(&Who::Portolan) {
                    continue;
                }
                let result = match (&relay, &target, from) {
                    (Ok(relay), Ok(target), Ok(from)) => carry(relay, target, from).await,
                    (Err(error), _, _) | (_, Err(error), _) | (_, _, Err(error)) => {
                        Err(error.clone())
                    }
                };
                cells.push(Relayed { roles, transport: self.transport, result });
            }
        }
        cells
    }

    /// Circuits that are cut, for some pairs of clients.
    pub(crate) async fn cuts(&self) -> Vec<Relayed> {
        let pairs = match self.relay {
            Who::Portolan => {
                vec![(Who::Portolan, Who::Portolan), (Who::Rust, Who::Js), (Who::Js, Who::Rust)]
            }
            Who::Rust | Who::Js => vec![(Who::Portolan, Who::Portolan)],
        };
        let relay = self.start_relay(SCARCE).await;
        let mut cells = Vec::new();
        for (reserves, dials) in pairs {
            if ![reserves, dials].iter().all(|who| self.clients.contains(who)) {
                continue;
            }
            let [bytes, time] = self.cut_pair(&relay, reserves, dials).await;
            for (shown, result) in [(Shown::Bytes, bytes), (Shown::Time, time)] {
                let roles = Roles { shown, relay: self.relay, reserves, dials };
                cells.push(Relayed { roles, transport: self.transport, result });
            }
        }
        cells
    }

    async fn cut_pair(
        &self,
        relay: &Result<Peer<R>, String>,
        reserves: Who,
        dials: Who,
    ) -> [Result<(), String>; 2] {
        let met = async {
            let relay = relay.as_ref().map_err(Clone::clone)?;
            let target = self.reserve(relay, reserves, SCARCE).await?;
            Ok((relay, target, self.client(dials, None).await?))
        };
        match met.await {
            Err(error) => [Err(String::clone(&error)), Err(error)],
            Ok((relay, mut target, mut from)) => {
                let bytes = cut_by_bytes(relay, &target, &from).await;
                target.forget();
                from.forget();
                [bytes, cut_by_time(relay, &target, &from).await]
            }
        }
    }

    async fn start_relay(&self, allowed: Allowed) -> Result<Peer<R>, String> {
        Peer::relay(self.relay, self.runtime.clone(), self.transport, allowed).await
    }

    async fn client(&self, who: Who, relay: Option<&Multiaddr>) -> Result<Peer<R>, String> {
        Peer::client(who, self.runtime.clone(), self.transport, relay).await
    }

    /// A client that holds a reservation.
    async fn reserve(
        &self,
        relay: &Peer<R>,
        who: Who,
        allowed: Allowed,
    ) -> Result<Peer<R>, String> {
        let addr = relay.full_addr();
        let client = self.client(who, Some(&addr)).await?;
        let voucher = relay.who() != Who::Rust;
        client.reserve(&addr, announced(relay, allowed), voucher).await?;
        relay.has_granted(client.id()).await?;
        Ok(client)
    }
}

/// What a relay says of a limit.
fn announced<R: Runtime>(relay: &Peer<R>, allowed: Allowed) -> CircuitLimit {
    let duration = match relay {
        Peer::Portolan(_) | Peer::Rust(_) => allowed.duration,
        // It writes its milliseconds into the field for seconds.
        Peer::Js(_) => allowed.duration * 1_000,
    };
    CircuitLimit { duration: Some(duration), bytes: Some(allowed.bytes) }
}

/// Dial through the relay; each end must have read the limit as it was announced.
async fn meet<R: Runtime>(
    relay: &Peer<R>,
    target: &Peer<R>,
    from: &Peer<R>,
    allowed: Allowed,
) -> Result<(), String> {
    from.dial(&relay.full_addr(), target.id()).await?;
    let announced = announced(relay, allowed);
    same_limit(from.who(), from.told_limit(target.id()).await?, announced)?;
    same_limit(target.who(), target.told_limit(from.id()).await?, announced)
}

async fn carry<R: Runtime>(
    relay: &Peer<R>,
    target: &Peer<R>,
    from: &Peer<R>,
) -> Result<(), String> {
    meet(relay, target, from, AMPLE).await?;
    from.echo(target.id(), CARRIED).await
}

async fn cut_by_bytes<R: Runtime>(
    relay: &Peer<R>,
    target: &Peer<R>,
    from: &Peer<R>,
) -> Result<(), String> {
    meet(relay, target, from, SCARCE).await?;
    if from.echo(target.id(), CARRIED).await.is_ok() {
        return Err(format!("{CARRIED} bytes pass both ways"));
    }
    from.is_cut(target.id()).await?;
    target.is_cut(from.id()).await?;
    match relay {
        Peer::Portolan(us) => {
            let (wanted, reached) = (from.id(), target.id());
            let passed = us.wait_notice("end of the bridge", WITHIN, |notice| {
                let notice = relay_notice(notice)?;
                let RelayNotice::BridgeEnded { initiator, target, end, forth, back, .. } = notice
                else {
                    return None;
                };
                let ours = *initiator == wanted && *target == reached;
                (ours && *end == BridgeEnd::BytesUsedUp).then_some((*forth, *back))
            });
            let (forth, back) = passed.await?;
            if forth != SCARCE.bytes || back >= SCARCE.bytes {
                return Err(format!("{forth} bytes were passed there, {back} back"));
            }
            Ok(())
        }
        Peer::Rust(rust) => {
            let closed = rust.wait("end of the circuit", WITHIN, |seen| {
                let Seen::Relay(RelaySeen::CircuitClosed { error, .. }) = seen else { return None };
                (error.as_deref() == Some("Max circuit bytes reached.")).then_some(())
            });
            closed.await
        }
        // It tells nobody.
        Peer::Js(_) => Ok(()),
    }
}

async fn cut_by_time<R: Runtime>(
    relay: &Peer<R>,
    target: &Peer<R>,
    from: &Peer<R>,
) -> Result<(), String> {
    let begun = time::Instant::now();
    meet(relay, target, from, SCARCE).await?;
    let stood = time::Instant::now();
    from.is_cut(target.id()).await?;
    let (at_least, at_most) = (begun.elapsed(), stood.elapsed());
    target.is_cut(from.id()).await?;
    on_time(at_least, at_most)?;
    match relay {
        Peer::Portolan(us) => {
            let (wanted, reached) = (from.id(), target.id());
            let mut opened = Instant::ZERO;
            let lasted = us.wait_noticed("end of the bridge", WITHIN, |noticed| {
                let notice = relay_notice(&noticed.notice)?;
                if matches!(notice, RelayNotice::BridgeOpened { initiator, target }
                    if *initiator == wanted && *target == reached)
                {
                    opened = noticed.at;
                }
                let RelayNotice::BridgeEnded { initiator, target, end, overtime, .. } = notice
                else {
                    return None;
                };
                let ours = *initiator == wanted && *target == reached && *overtime;
                (ours && *end == BridgeEnd::Cut).then(|| noticed.at.since(opened))
            });
            let lasted = lasted.await?;
            on_time(lasted, lasted)
        }
        Peer::Rust(rust) => {
            let closed = rust.wait("end of the circuit", WITHIN, |seen| {
                let Seen::Relay(RelaySeen::CircuitClosed { error, .. }) = seen else { return None };
                (error.as_deref() == Some("timed out")).then_some(())
            });
            closed.await
        }
        // It tells nobody.
        Peer::Js(_) => Ok(()),
    }
}

fn relay_notice(notice: &Notice) -> Option<&RelayNotice> {
    let Notice::Relay(notice) = notice else { return None };
    Some(notice)
}

/// Whether a circuit lasted as long as it might: measured from before it stood, and from after.
fn on_time(at_least: Duration, at_most: Duration) -> Result<(), String> {
    if at_least >= SCARCE.duration && at_most <= SCARCE.duration + LATE {
        return Ok(());
    }
    Err(format!("it lasted {at_most:?} to {at_least:?}, and {:?} were allowed", SCARCE.duration))
}
