//! The cells: what has to happen for one to say "works".

use crate::cell::{Cell, Kind, Place, Protocol, Role, Row};
use crate::other::{Other, WITHIN, Wanted, listen_addr};
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use portolan_core::{Addr, Config, DialBackConfig, Notice, Outcome, Served, State, Transport};
use portolan_runtime::traits::Runtime;
use portolan_tests::js_peer::JsPeer;
use portolan_tests::portolan_peer::{PortolanPeer, explained, on_one_host, outcomes, to_addr};
use portolan_tests::rust_peer::{KeyType, Security, Seen};

/// What js-libp2p does with private addresses, found in the source of `@libp2p/autonat-v2`.
const JS_CLIENT_ASKS_NOT: &str =
    "it takes private addresses for verified and asks nobody about them";
/// As above, the other role.
const JS_SERVER_DIALS_NOT: &str =
    "it dials no private address and closes the stream without an answer";

/// The peers of a group of cells, and where they meet.
#[derive(Clone, Debug)]
pub(crate) struct Group<R> {
    /// The other peer.
    pub(crate) kind: Kind,
    /// Where they meet.
    pub(crate) place: Place,
    /// Over what.
    pub(crate) transport: Transport,
    /// What Portolan runs on.
    pub(crate) runtime: R,
}

impl<R: Runtime> Group<R> {
    pub(crate) fn other_ip(&self) -> &'static str {
        match self.place {
            Place::Loopback => "127.0.0.1",
            Place::Global => "44.20.0.1",
        }
    }

    fn own_ip(&self) -> &'static str {
        match self.place {
            Place::Loopback => "127.0.0.1",
            Place::Global => "44.30.0.1",
        }
    }

    pub(crate) fn own_addr(&self) -> String {
        listen_addr(self.own_ip(), self.transport)
    }

    pub(crate) fn config(&self) -> Config {
        match self.place {
            Place::Loopback => on_one_host(),
            Place::Global => Config::default(),
        }
    }

    async fn other(&self) -> Other {
        Other::start(Wanted {
            kind: self.kind,
            key: KeyType::Ed25519,
            security: Security::Noise,
            ip: self.other_ip(),
            transports: &[self.transport],
            autonat: true,
        })
        .await
        .expect("every peer starts with an Ed25519 key")
    }

    async fn portolan(&self, config: Config) -> PortolanPeer<R> {
        PortolanPeer::start(self.runtime.clone(), config, &[&self.own_addr()]).await
    }

    fn cell(&self, protocol: Protocol, role: Role, result: Result<(), String>) -> Cell {
        let row = Row { kind: self.kind, place: self.place, protocol, role };
        Cell { row, transport: self.transport, result }
    }

    /// identify and ping, both halves, on connections of both directions.
    pub(crate) async fn basics(&self) -> Vec<Cell> {
        let other = self.other().await;
        let (dialling, dialled) =
            (self.portolan(self.config()).await, self.portolan(self.config()).await);
        let there = &other.full_addrs()[0];
        let dial = dialling.node.dial(there.clone()).await;
        let dial = dial.map(drop).map_err(|error| error.to_string());
        let dial_us = other.dial(&dialled.full_addrs[0], dialled.id()).await;
        let there = to_addr(there);
        let mut cells = Vec::new();
        for (us, connected, roles) in [
            (&dialling, dial, [Role::AsksDialled, Role::AnswersDialled]),
            (&dialled, dial_us, [Role::AsksAccepted, Role::AnswersAccepted]),
        ] {
            let expected = Expected { we_dialled: roles[0] == Role::AsksDialled, there };
            let [asks, answers] = roles;
            let of = |protocol, role, result: Result<(), String>| {
                self.cell(protocol, role, connected.clone().and(result))
            };
            cells.extend([
                of(Protocol::Identify, asks, we_identify(us, &other, expected).await),
                of(Protocol::Identify, answers, is_identified(us, &other, expected).await),
                of(Protocol::Ping, asks, we_ping(us, &other).await),
                of(Protocol::Ping, answers, other.pings(us.id()).await),
            ]);
        }
        cells
    }

    /// AutoNAT v2 with Portolan as the client; and what it then tells the other, if it is proved.
    /// (Not on loopback: there it tells its interface addresses from the start.)
    pub(crate) async fn client(&self) -> Vec<Cell> {
        let (other, us) = (self.other().await, self.portolan(self.config()).await);
        let result = self.is_proved(&us, &other).await;
        let mut cells = vec![self.cell(Protocol::Autonat, Role::Client, result.clone())];
        if result.is_ok() && self.place == Place::Global {
            let own = us.addrs()[0];
            let told = other.told_of(us.id(), own).await;
            cells.push(self.cell(Protocol::Push, Role::Tells, told));
            let signed = other.trusts(us.id(), own).await;
            cells.push(self.cell(Protocol::Record, Role::Tells, signed));
        }
        cells
    }

    async fn is_proved(&self, us: &PortolanPeer<R>, other: &Other) -> Result<(), String> {
        let dial = us.node.dial(other.full_addrs()[0].clone()).await;
        dial.map_err(|error| error.to_string())?;
        let own = us.addrs()[0];
        let proved = us.wait_explained("proof", WITHIN, |explanation| {
            let ended = |outcome| outcomes(explanation, other.id(), outcome) > 0;
            let one = explained(explanation, own)?;
            if ended(Outcome::Proved) && one.state == State::Reachable {
                return Some(Ok(()));
            }
            // What js-libp2p's server does with an address that it will not dial.
            (self.place == Place::Loopback && self.kind == Kind::Js && ended(Outcome::Error))
                .then(|| Err(JS_SERVER_DIALS_NOT.to_owned()))
        });
        proved.await?
    }

    /// AutoNAT v2 with Portolan as the server.
    pub(crate) async fn server(&self) -> Cell {
        let other = self.other().await;
        let mut config = self.config();
        config.dial_back = Some(DialBackConfig::default());
        let us = self.portolan(config).await;
        let result = self.dials_back(&us, &other).await;
        self.cell(Protocol::Autonat, Role::Server, result)
    }

    async fn dials_back(&self, us: &PortolanPeer<R>, other: &Other) -> Result<(), String> {
        other.dial(&us.full_addrs[0], us.id()).await?;
        if let (Place::Loopback, Other::Js(js)) = (self.place, other) {
            return Err(js_asks_nobody(js).await?);
        }
        other.confirms_itself().await?;
        let id = other.id();
        let delivered = us.wait_notice("delivered nonce", WITHIN, |notice| {
            let Notice::DialBackServed { peer, answer, .. } = notice else { return None };
            (*peer == id && *answer == Served::Delivered).then_some(())
        });
        delivered.await
    }
}

/// js-libp2p takes private addresses for verified. It says so before it has met anybody.
pub(crate) async fn js_asks_nobody(js: &JsPeer) -> Result<String, String> {
    let granted = |event: &serde_json::Value| {
        event["event"] == "ready" && event["verified"] == event["addrs"]
    };
    js.wait("addresses that nobody confirmed", WITHIN, granted).await?;
    Ok(JS_CLIENT_ASKS_NOT.to_owned())
}

/// How a connection between the two came about.
#[derive(Clone, Copy, Debug)]
struct Expected {
    we_dialled: bool,
    there: Addr,
}

/// Portolan asks, and understands the answer.
async fn we_identify<R: Runtime>(
    us: &PortolanPeer<R>,
    other: &Other,
    expected: Expected,
) -> Result<(), String> {
    let id = other.id();
    let told = us.wait_notice("identify", WITHIN, |notice| {
        let Notice::Identified { peer, observed, server, .. } = notice else { return None };
        (*peer == id).then_some((*observed, *server))
    });
    let (observed, server) = told.await?;
    // rust-libp2p serves only those that dialled it, and lists the protocol to them alone.
    let serves = expected.we_dialled || matches!(other, Other::Js(_));
    if server != serves {
        return Err(format!("it is taken for an AutoNAT server: {server}"));
    }
    let own = us.addrs()[0];
    // Dialled from the listen port, or dialled by the other side: it sees the listen address.
    if observed != Some(own) {
        return Err(format!(
            "it sees {observed:?} for {own} (dialled by us: {})",
            expected.we_dialled
        ));
    }
    Ok(())
}

/// The other side asks, and understands Portolan's answer.
async fn is_identified<R: Runtime>(
    us: &PortolanPeer<R>,
    other: &Other,
    expected: Expected,
) -> Result<(), String> {
    let described = other.identified(us.id()).await?;
    let protocols = ["/ipfs/id/1.0.0", "/ipfs/ping/1.0.0", "/libp2p/autonat/2/dial-back"];
    let missing = protocols.iter().find(|one| !described.protocols.iter().any(|p| p == *one));
    if let Some(protocol) = missing {
        return Err(format!("{protocol} is not understood"));
    }
    if described.protocols.iter().any(|one| one == "/libp2p/autonat/2/dial-request") {
        return Err("a server is understood where none is".into());
    }
    if !described.agent.starts_with("portolan/") {
        return Err(format!("the agent {} is understood", described.agent));
    }
    // Where it was dialled, its socket is its listen address; where it dialled, that depends.
    let observed = described.observed.as_ref().map(to_addr);
    if expected.we_dialled && observed != Some(expected.there) {
        return Err(format!("{observed:?} is understood as observed, not {}", expected.there));
    }
    if observed.is_none_or(|addr| addr.transport != expected.there.transport) {
        return Err(format!("{observed:?} is understood as observed"));
    }
    Ok(())
}

/// Portolan pings: 32 bytes come back as they were sent.
async fn we_ping<R: Runtime>(us: &PortolanPeer<R>, other: &Other) -> Result<(), String> {
    let exchange = async {
        let opened = us.node.open_stream(other.id(), "/ipfs/ping/1.0.0").await;
        let mut stream = opened.map_err(|error| error.to_string())?;
        let sent = *b"thirty-two bytes, all of a kind.";
        let mut echo = [0; 32];
        let io = async {
            stream.write_all(&sent).await?;
            stream.flush().await?;
            stream.read_exact(&mut echo).await?;
            stream.close().await
        };
        io.await.map_err(|error| error.to_string())?;
        if echo == sent { Ok(()) } else { Err(format!("{echo:?} came back")) }
    };
    tokio::time::timeout(WITHIN, exchange).await.map_err(|_| "no echo".to_owned())?
}

/// A rust-libp2p server asks for dial data where the address differs from the connection's, if
/// only in the transport. Portolan pays, and is proved on the address that it asked about.
pub(crate) async fn dial_data_is_paid<R: Runtime>(runtime: R) -> Result<(), String> {
    let wanted = Wanted {
        kind: Kind::Rust,
        key: KeyType::Ed25519,
        security: Security::Noise,
        ip: "127.0.0.1",
        transports: &[Transport::Tcp],
        autonat: true,
    };
    let other = Other::start(wanted).await?;
    let listen = [Transport::Tcp, Transport::Quic].map(|one| listen_addr("127.0.0.1", one));
    let us = PortolanPeer::start(runtime, on_one_host(), &[&listen[0], &listen[1]]).await;
    us.node.dial(other.full_addrs()[0].clone()).await.map_err(|error| error.to_string())?;
    for own in us.addrs() {
        let what = format!("proof of {own}");
        let proved = us.wait_explained(&what, WITHIN, |explanation| {
            (explained(explanation, own)?.state == State::Reachable).then_some(())
        });
        proved.await?;
    }
    let Other::Rust(rust) = &other else { return Err("it is rust-libp2p".into()) };
    let own = us.addrs()[1];
    let paid = rust.wait("dial data", WITHIN, |seen| {
        let Seen::Served { addr, dial_data, .. } = seen else { return None };
        (to_addr(addr) == own).then_some(*dial_data)
    });
    match paid.await? {
        30_000..=110_000 => Ok(()),
        bytes => Err(format!("{bytes} bytes were paid")),
    }
}

/// A request about two addresses. A server should take the first that it can dial; rust-libp2p takes
/// the last, and js-libp2p dials all of them, with one nonce and an answer for each. Whatever it
/// takes is judged, and what it passes over is not refuted.
pub(crate) async fn several_addresses<R: Runtime>(
    kind: Kind,
    place: Place,
    runtime: R,
) -> Result<(), String> {
    let group = Group { kind, place, transport: Transport::Tcp, runtime };
    let other = group.other().await;
    let mut config = group.config();
    config.addrs_per_request = 2;
    let listen = [Transport::Tcp, Transport::Quic].map(|one| listen_addr(group.own_ip(), one));
    let us = PortolanPeer::start(group.runtime.clone(), config, &[&listen[0], &listen[1]]).await;
    us.node.dial(other.full_addrs()[0].clone()).await.map_err(|error| error.to_string())?;
    let taken = us.wait_explained("proof", WITHIN, |explanation| {
        let states = explanation.addresses.iter().map(|one| one.state);
        let proved = states.filter(|state| *state == State::Reachable).count();
        (proved >= if kind == Kind::Js { 2 } else { 1 }).then(|| explanation.clone())
    });
    let explanation = taken.await?;
    let refuted = explanation.addresses.iter().find(|one| one.state == State::Unreachable);
    let outcomes = explanation.servers.iter().flat_map(|server| &server.outcomes);
    let untrue: Vec<_> = outcomes.filter(|(outcome, _)| *outcome != Outcome::Proved).collect();
    match (refuted, untrue.is_empty()) {
        (None, true) => Ok(()),
        _ => Err(format!("refuted: {refuted:?}; outcomes of an honest server: {untrue:?}")),
    }
}
