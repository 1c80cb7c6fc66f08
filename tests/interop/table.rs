//! The page that comes out: `docs/interop.md`.

use crate::cell::{Cell, Kind, On, Protocol, Row};
use crate::handshakes::{Carrier, Handshake};
use crate::relay::{Relayed, Roles, Shown};
use crate::relay_peer::Who;
use portolan_core::Transport;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const HEAD: &str = "\
# Interop

What Portolan does with peers that nobody here wrote, on the loopback interface, each as its
authors published it. Every cell is run with Portolan on tokio and on smol, and says so where the
two differ. This page is written by the tests and never by hand: `tests/interop.rs` fails when what
it sees is not what stands here. Write it anew with
`PORTOLAN_REWRITE=1 cargo test -p portolan-tests --test interop`.
";

const PROTOCOLS: &str = "
## Protocols

A cell of identify wants the right agent, protocols and observed address; of ping, the same bytes
back; of AutoNAT v2, the nonce delivered and the address confirmed; of AutoNAT v1, the right answer,
about a client that can be dialled or one that cannot, understood, and with js-libp2p as the client
its verdict, which takes one server or eight. *Loopback* means 127.0.0.1 with private addresses
allowed. *Global* means global addresses and nothing allowed: the loopback interface of a network
namespace of its own holds them.
";

const NOTES: &str = "
## What else differs

- rust-libp2p's AutoNAT server takes the last address of a request, not the first, and asks for dial
  data unless that address is the very one that the connection comes from, port and transport
  included. Portolan pays.
- rust-libp2p's AutoNAT server serves only those that dialled it.
- js-libp2p's AutoNAT server dials every address of a request with the same nonce and answers each.
- js-libp2p's AutoNAT v1 server answers no question about a public address, whoever asks. It opens a
  connection without `force` (@libp2p/autonat 3.0.28, `dist/src/autonat.js:276`), so it is handed the
  one that the question came on (libp2p 3.3.11, `dist/src/connection-manager/index.js:300`). Where
  that comes from the port in question it logs that it got through, and has dialled nobody. It closes
  that connection (`autonat.js:296`), and then its answer cannot be written (`autonat.js:155`).
  Portolan takes nothing from it, and loses the connection. Made to dial, js-libp2p answers right.
- js-libp2p as a client of AutoNAT v1 asks about one address, one server for each first byte of an IP.
  It believes one server that got through where it listens, but four about where it was observed,
  and eight that did not get through. What it is told to announce it asks nobody about.
- rust-libp2p answers the second ping of a stream over QUIC only when something else happens on that
  connection: nothing wakes it for the ping.
- js-libp2p counts an address of its own as confirmed by the word of the server, whether a nonce
  came or not.
- rust-libp2p's relay sends no voucher. js-libp2p's and Portolan's do; Portolan as a client checks
  one that is there and misses none.
- The relays of rust-libp2p and js-libp2p count the bytes of both directions together against the
  limit that the specification has for each. Portolan's counts each for itself.
- js-libp2p's relay announces its limit of time in milliseconds where seconds are meant: two seconds
  are announced as 2,000, and it cuts after two. Whoever plans by what it announces is cut early.
- js-libp2p's relay resets both streams at its limit of bytes, and need not deliver first what was
  within it.
- js-libp2p's `dialProtocol` dials once more where all connections with the peer are limited, and
  its protocols are not spoken over a circuit unless they say `runOnLimitedConnection`.
";

const HANDSHAKES: &str = "
## Connections

By the type of both identity keys; each cell wants both sides to have identified the other.
";

const RELAYING: &str = "
## Relaying

Circuit relay v2: one peer relays, one reserves there and is dialled, one dials through it, and at
least one of the three is Portolan. A cell wants that relay and client both tell of the reservation
and of the same address, that both ends of the circuit read the limits that were announced, and that
100,000 random bytes come back over the circuit as they were sent. The transport is that of both
connections with the relay.
";

const CUTS: &str = "
## Limits of circuits

The relay allows a circuit 65,536 bytes and two seconds. *Bytes*: 100,000 are sent, and the circuit
ends on both sides; where Portolan relays, exactly 65,536 were passed, and it says that they were used up.
*Time*: an idle circuit ends on both sides after two seconds, at most a second late, and Portolan's
relay says that its time was over.
";

const PUNCHING: &str = "
## Hole punching

DCUtR between two routers of the [lab](lab.md#punching), which drop what nobody asked for. It takes
network namespaces; so this table is what `tests/punch.rs` demands, not what this run has seen.
*Begins* is who took the circuit. Wherever a connection comes, 100,000 bytes come back over it both
ways. The relay is Portolan's; behind EI×APD rust-libp2p's over TCP as well.
";

const PUNCHING_NOTES: &str = "
- rust-libp2p tells the port that it listens on, with the IP that others see, whatever port they see.
  Where its router chooses other ports, nobody gets in there.
- rust-libp2p dials over QUIC as a client, whether it begins or follows. Its transport can send the
  datagrams of the specification, but only where a dial is not to come from the listen port, which
  its DCUtR never says.
- Over TCP, rust-libp2p as who begins is the server of whatever it dials. Behind a router that gives
  every flow another port it gets in where others let it in, comes to a listener that takes it for a
  client, and both wait for the other to speak. That is as the specification has it, and is not tried.
- rust-libp2p tells its application that punching failed where its own dial came to nothing, even if
  the other side has come to its listener meanwhile.
- js-libp2p listens on one port and dials from others, over TCP and over QUIC. It never tells what
  others see of it, only what AutoNAT has confirmed, which is nothing behind a router. So it gets in
  where strangers do, and nowhere else. As who begins it dials what identify lists first.
- js-libp2p closes the circuit as soon as there is another connection.
";

/// All that was seen, and on which runtime Portolan was.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Of the protocols.
    pub(crate) cells: Vec<(On, Cell)>,
    /// Of the connections.
    pub(crate) handshakes: Vec<(On, Handshake)>,
    /// Of relaying.
    pub(crate) relayed: Vec<(On, Relayed)>,
}

/// The name and version of a peer, from the files that pin it.
fn peer(kind: Kind) -> String {
    match kind {
        Kind::Rust => {
            let lock = include_str!("../../Cargo.lock");
            let version = between(lock, "name = \"libp2p\"\nversion = \"", "\"");
            format!("rust-libp2p {version}")
        }
        Kind::Js => js("autonat-v2"),
    }
}

/// As [`peer`], for a row of the protocols.
fn speaker(row: Row) -> String {
    match (row.kind, row.protocol) {
        (Kind::Js, Protocol::V1Reachable | Protocol::V1Unreachable) => js("autonat"),
        (kind, _) => peer(kind),
    }
}

/// js-libp2p with its version and that of the package that a table is about.
fn js(package: &str) -> String {
    let pinned = include_str!("js/package.json");
    let version = between(pinned, "\"libp2p\": \"", "\"");
    let of_package = between(pinned, &format!("\"@libp2p/{package}\": \""), "\"");
    format!("js-libp2p {version} ({package} {of_package})")
}

/// As [`peer`], for relaying.
fn party(who: Who) -> String {
    match who {
        Who::Portolan => "Portolan".into(),
        Who::Rust => peer(Kind::Rust),
        Who::Js => js("circuit-relay-v2"),
    }
}

/// What `tests/punch.rs` demands.
fn punched() -> String {
    let rust = peer(Kind::Rust);
    let js = js("dcutr");
    let any = "EI×EI, EI×AD, EI×APD, two NATs, firewall of IPv6";
    let first = "works, on the first attempt";
    let nowhere = "no: it cannot say where it is, and does not get in";
    let rows = [
        (&rust, "begins or follows", any, "one of these, in eight pairs", first),
        (&rust, "begins or follows", "APD×APD", "EI×EI, EI×AD", first),
        (&js, "begins", "EI×EI", "EI×EI", "works, without an attempt"),
        (&js, "follows", "EI×EI", "EI×EI", first),
        (&js, "begins or follows", "EI×APD", "EI×APD", nowhere),
    ];
    let line = |(peer, part, ours, its, how): (&String, &str, &str, &str, &str)| {
        format!("| {peer} | {part} | {ours} | {its} | {how} | {how} |\n")
    };
    rows.map(line).concat()
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let found = text.split_once(before).and_then(|(_, rest)| rest.split_once(after));
    found.expect("the file pins the version").0
}

/// How a cell went, on each of the runtimes.
type Results<'a> = [Option<&'a Result<(), String>>; 2];

/// What a cell says: the runtimes are told apart only where they differ.
fn word(results: Results<'_>) -> String {
    let [tokio, smol] = results.map(word_of_one);
    if tokio == smol {
        return tokio;
    }
    format!("on {}: {tokio}; on {}: {smol}", On::Tokio.name(), On::Smol.name())
}

fn word_of_one(result: Option<&Result<(), String>>) -> String {
    match result {
        Some(Ok(())) => "works".into(),
        // The first line is the reason; what follows is what was seen besides.
        Some(Err(error)) => format!("no: {}", error.lines().next().unwrap_or_default()),
        None => "not run".into(),
    }
}

impl Seen {
    /// The page.
    pub(crate) fn page(&self) -> String {
        let mut page = format!("{HEAD}{PROTOCOLS}\n");
        page +=
            "| peer | protocol | Portolan | addresses | TCP | QUIC |\n|---|---|---|---|---|---|\n";
        for row in self.rows() {
            page += &row;
        }
        page += HANDSHAKES;
        page += "\n| peer | key | Portolan |";
        let columns = Carrier::ALL.map(|carrier| format!(" {} |", carrier.name()));
        let rule = "---|".repeat(3 + columns.len());
        let _infallible = writeln!(page, "{}\n|{rule}", columns.concat());
        for row in self.handshake_rows() {
            page += &row;
        }
        page += RELAYING;
        page += "\n| relay | reserves | dials | TCP | QUIC |\n|---|---|---|---|---|\n";
        page += &self.relayed_rows(&[Shown::Carries]).concat();
        page += CUTS;
        page += "\n| limit | relay | reserves | dials | TCP | QUIC |\n|---|---|---|---|---|---|\n";
        page += &self.relayed_rows(&[Shown::Bytes, Shown::Time]).concat();
        page += PUNCHING;
        page +=
            "\n| peer | it | our router | its router | TCP | QUIC |\n|---|---|---|---|---|---|\n";
        page + &punched() + NOTES + PUNCHING_NOTES.trim_start()
    }

    fn relayed_rows(&self, shown: &[Shown]) -> Vec<String> {
        let mut rows: BTreeMap<Roles, [Results<'_>; 2]> = BTreeMap::new();
        for (on, cell) in &self.relayed {
            let column = usize::from(cell.transport == Transport::Quic);
            rows.entry(cell.roles).or_default()[column][*on as usize] = Some(&cell.result);
        }
        rows.retain(|roles, _| shown.contains(&roles.shown));
        let line = |(roles, cells): (&Roles, &[Results<'_>; 2])| {
            let limit = match roles.shown {
                Shown::Carries => "",
                Shown::Bytes => "| bytes ",
                Shown::Time => "| time ",
            };
            let parties = [roles.relay, roles.reserves, roles.dials].map(party).join(" | ");
            format!("{limit}| {parties} | {} | {} |\n", word(cells[0]), word(cells[1]))
        };
        rows.iter().map(line).collect()
    }

    fn rows(&self) -> Vec<String> {
        let mut rows: BTreeMap<Row, [Results<'_>; 2]> = BTreeMap::new();
        for (on, cell) in &self.cells {
            let column = usize::from(cell.transport == Transport::Quic);
            rows.entry(cell.row).or_default()[column][*on as usize] = Some(&cell.result);
        }
        let line = |(row, cells): (&Row, &[Results<'_>; 2])| {
            format!(
                "| {} | {} | {} | {} | {} | {} |\n",
                speaker(*row),
                row.protocol.name(),
                row.role.name(),
                row.place.name(),
                word(cells[0]),
                word(cells[1]),
            )
        };
        rows.iter().map(line).collect()
    }

    fn handshake_rows(&self) -> Vec<String> {
        let mut heads: Vec<_> = Vec::new();
        for (_, one) in &self.handshakes {
            let head = (one.kind, one.key.name(), one.we_dial);
            if !heads.contains(&head) {
                heads.push(head);
            }
        }
        let line = |(kind, key, we_dial): (Kind, &'static str, bool)| {
            let cells = Carrier::ALL.map(|carrier| {
                let results = On::ALL.map(|on| {
                    let one = self.handshakes.iter().find(|(ran_on, one)| {
                        (*ran_on, one.kind, one.key.name(), one.we_dial, one.carrier)
                            == (on, kind, key, we_dial, carrier)
                    });
                    one.map(|(_, one)| &one.result)
                });
                format!(" {} |", word(results))
            });
            let role = if we_dial { "dials" } else { "is dialled" };
            format!("| {} | {key} | {role} |{}\n", peer(kind), cells.concat())
        };
        heads.into_iter().map(line).collect()
    }

    /// Compare with the committed page, or write it. What was skipped is not compared.
    pub(crate) fn settle(&self, complete: bool) {
        let path = page_path();
        if std::env::var_os("PORTOLAN_REWRITE").is_some() {
            assert!(complete, "a page with gaps is not written: see above what was skipped");
            std::fs::write(&path, self.page()).expect("docs/ can be written to");
            return;
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        if complete {
            assert_eq!(committed, self.page(), "docs/interop.md says otherwise{}", self.details());
            return;
        }
        let relayed = self.relayed_rows(&[Shown::Carries, Shown::Bytes, Shown::Time]);
        for row in self.rows().iter().chain(&self.handshake_rows()).chain(&relayed) {
            let known = committed.contains(row.as_str());
            assert!(known, "docs/interop.md says otherwise: {row}{}", self.details());
        }
    }

    /// Everything that does not work, in full.
    fn details(&self) -> String {
        let cells = self.cells.iter().filter_map(|(on, cell)| {
            let error = cell.result.as_ref().err()?;
            Some(format!("\n{:?} {:?} {:?}: {error}", on, cell.row, cell.transport))
        });
        let handshakes = self.handshakes.iter().filter_map(|(on, one)| {
            let error = one.result.as_ref().err()?;
            Some(format!(
                "\n{:?} {:?} {:?} {:?} dialled by us: {}: {error}",
                on, one.kind, one.key, one.carrier, one.we_dial
            ))
        });
        let relayed = self.relayed.iter().filter_map(|(on, cell)| {
            let error = cell.result.as_ref().err()?;
            Some(format!("\n{:?} {:?} {:?}: {error}", on, cell.roles, cell.transport))
        });
        cells.chain(handshakes).chain(relayed).collect()
    }
}

fn page_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/interop.md")
}

#[test]
fn runtimes_are_told_apart_where_they_differ() {
    let (works, fails) = (Ok(()), Err("broken\nand more".to_owned()));
    assert_eq!(word([Some(&works), Some(&works)]), "works");
    assert_eq!(word([Some(&works), Some(&fails)]), "on tokio: works; on smol: no: broken");
    assert_eq!(word([Some(&works), None]), "on tokio: works; on smol: not run");
}
