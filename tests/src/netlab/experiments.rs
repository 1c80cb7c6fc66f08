//! One run of a cell: build it, serve, check, ask the sockets what is true, and compare.

use super::cells::{Cell, Conclusion, Families, Homes, PORT, Place, build};
use super::link::{Conditions, Link};
use super::odd::{BOGUS, Odd};
use super::peers::{self, Server};
use super::rules::Layer;
use super::sockets::{Knock, knock};
use super::{Host, Lab, verify};
use portolan_core::Family;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// When a check ends without a verdict.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(40);
/// The same where nobody is there from whom anything could be learnt, ours: three times what any
/// server of ours takes to dial in vain.
const FRUITLESS: Duration = Duration::from_secs(8);
/// Addresses of a layer that are tried by sockets, number: behind a router that gives every
/// connection a port of its own there are as many as connections.
pub const TRIED_MAX: usize = 4;
/// Who knocks where packets are lost knocks so often, ours.
const KNOCKS: usize = 5;
/// Dials to addresses that only one network names, number; ours: as many as to any two others of a
/// node with a handful of servers.
const BOGUS_DIALS_MAX: u64 = 16;
/// The IPv6 address of somebody from whom servers hear.
const CROWD6: Ipv6Addr = Ipv6Addr::new(0x2600, 0x400, 0, 0, 0, 0, 0, 1);

/// What came of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The cell, in a line.
    pub cell: String,
    /// The experiment.
    pub experiment: String,
    /// The network, the servers and what was listened on, in words.
    pub site: String,
    /// Who could be asked, in words.
    pub servers: String,
    /// What was listened on.
    pub transports: String,
    /// What the way was like and who else was there, in words.
    pub circumstances: String,
    /// What it ran on.
    pub runtime: String,
    /// What the node concluded, class by class.
    pub said: Vec<String>,
    /// What else was measured: figures by name, times in milliseconds.
    pub times: Vec<(String, u64)>,
    /// What differs from what the evidence permits.
    pub short: Vec<String>,
    /// What a socket proves to be false.
    pub wrong: Vec<String>,
    /// From the first dial to the moment from which on the conclusion stood, milliseconds.
    pub verdict_ms: u64,
    /// From the first dial to the end of the check, when nothing more is to be learnt.
    pub elapsed_ms: u64,
    /// Packets that the node's interface saw, both ways.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// How long the network took to build, milliseconds.
    pub built_ms: u64,
    /// The commit of the program that ran it.
    pub commit: String,
}

impl Run {
    /// Whether it came to what it should.
    pub fn is_right(&self) -> bool {
        self.short.is_empty() && self.wrong.is_empty()
    }
}

/// Run a cell once.
///
/// # Errors
/// If the network cannot be built, or a program fails.
pub fn run(cell: &Cell) -> io::Result<Run> {
    let started = Instant::now();
    let mut place = build(cell.site, cell.servers.count, cell.conditions)?;
    cell.others.join(&mut place)?;
    let built_ms = millis(started.elapsed());
    let place = place;
    let (servers, others) = serve(cell, &place)?;
    let peers = known(cell, &servers, &others);
    if cell.servers.homes == Homes::DualStack {
        warm(cell, &place.lab, &servers)?;
    }
    let listen = cell.families.all().iter().filter_map(|family| place.node.ip(*family));
    let listen: Vec<String> = listen.flat_map(|ip| addresses(cell, ip)).collect();
    let before = traffic(&place.node)?;
    let patience = if cell.servers.count == 0 { FRUITLESS } else { CHECK_TIMEOUT };
    let report = peers::check(&place.node, &listen, &peers, patience, cell.on)?;
    let after = traffic(&place.node)?;
    let classes: Vec<(Family, Layer)> = cell.classes().collect();
    let mut run = Run {
        cell: cell.name(),
        experiment: cell.experiment.to_owned(),
        site: cell.site.name(),
        servers: cell.servers.name(),
        transports: cell.transports.name().to_owned(),
        circumstances: cell.circumstances(),
        runtime: cell.on.name().to_owned(),
        said: Vec::new(),
        times: Vec::new(),
        short: Vec::new(),
        wrong: Vec::new(),
        verdict_ms: stood_at(&report, &classes),
        elapsed_ms: report["elapsed_ms"].as_u64().unwrap_or(u64::MAX),
        packets: after.0 - before.0,
        bytes: after.1 - before.1,
        built_ms,
        commit: commit(),
    };
    for class in classes {
        let said = concluded(&report, class);
        let expected = cell.expected(class);
        let about = about(cell, class);
        run.said.push(format!("{about}: {said}"));
        if said != expected {
            run.short.push(format!("{about}: {said} instead of {expected}"));
        }
        run.wrong.extend(contradicted(&place, &report, cell.conditions, class, said)?);
    }
    if let Odd::Dazzled = cell.others.odd
        && cell.others.count > 0
    {
        let [dialled, declined] = asked_about_nobody(&report);
        run.times.push(("dials to where nobody is".into(), dialled));
        run.times.push(("such dials that were not paid for".into(), declined));
        if dialled > BOGUS_DIALS_MAX {
            run.short.push(format!("{dialled} dials to where nobody is"));
        }
    }
    run.short.extend(place.lab.link().and_then(Link::complaint));
    if !run.is_right() && std::env::var_os("PORTOLAN_LAB_REPORTS").is_some() {
        run.short.push(report.to_string());
    }
    Ok(run)
}

/// Start everybody who can be asked: those who are as they should be, and the others.
///
/// # Errors
/// If one does not start.
pub fn serve(cell: &Cell, place: &Place) -> io::Result<(Vec<Server>, Vec<Server>)> {
    let servers = (1..).zip(&place.servers).map(|(number, host)| start_server(cell, number, host));
    let others = cell.others.start(place, &|ip| addresses(cell, ip), cell.on)?;
    Ok((servers.collect::<io::Result<_>>()?, others))
}

/// The addresses by which the node knows them.
fn known(cell: &Cell, servers: &[Server], others: &[Server]) -> Vec<String> {
    let known = |(number, server): (usize, &Server)| -> Vec<String> {
        let elsewhere = cell.servers.dials_from_elsewhere(number);
        let other = cell.servers.homes == Homes::DualStack && elsewhere;
        let family = if other { "/ip6/" } else { "/ip4/" };
        server.addrs.iter().filter(|addr| addr.starts_with(family)).cloned().collect()
    };
    let others = others.iter().flat_map(|server| server.addrs.clone());
    (1..).zip(servers).flat_map(known).chain(others).collect()
}

fn start_server(cell: &Cell, number: usize, host: &Host) -> io::Result<Server> {
    let mut listen = addresses(cell, host.ip4().into());
    let mut extra = Vec::new();
    match cell.servers.homes {
        Homes::Single => {}
        Homes::Multihomed => {
            let second = host.ips.get(1).filter(|_| cell.servers.dials_from_elsewhere(number));
            extra.extend(second.map(|ip| format!("--dial-from={ip}")));
        }
        Homes::DualStack => {
            let ip6 = host.ip(Family::Ip6);
            listen.extend(ip6.into_iter().flat_map(|ip| addresses(cell, ip)));
        }
    }
    peers::serve(host, &listen, &extra, cell.on)
}

/// Let servers hear from somebody over every family that is judged: one that never did says nothing
/// of a dial that fails there, since its own network may be at fault.
///
/// # Errors
/// If a program fails.
pub fn warm(cell: &Cell, lab: &Lab, servers: &[Server]) -> io::Result<()> {
    let ips = [Ipv4Addr::new(45, 79, 0, 1).into(), IpAddr::V6(CROWD6)];
    let crowd = lab.public("crowd", &ips)?;
    lab.settle()?;
    for family in cell.families.all() {
        let known = servers.iter().flat_map(|server| &server.addrs);
        let start = if *family == Family::Ip4 { "/ip4/" } else { "/ip6/" };
        let peers: Vec<String> = known.filter(|addr| addr.starts_with(start)).cloned().collect();
        let listen = addresses(cell, crowd.ip4().into());
        peers::check(&crowd, &listen, &peers, CHECK_TIMEOUT, cell.on)?;
    }
    Ok(())
}

/// What a host listens on, as multiaddrs.
pub fn addresses(cell: &Cell, ip: IpAddr) -> Vec<String> {
    cell.transports.layers().iter().map(|layer| layer.address(ip, PORT)).collect()
}

/// What a class is called where there is no doubt which families are judged.
fn about(cell: &Cell, (family, layer): (Family, Layer)) -> String {
    match cell.families {
        Families::Ip4 => layer.name().to_owned(),
        Families::Both => format!("{}/{}", family.name(), layer.name()),
    }
}

/// What a report says of a class.
pub fn concluded(report: &Value, (family, layer): (Family, Layer)) -> Conclusion {
    let transport = transport(layer);
    let of_class = |one: &&Value| one["family"] == family.name() && one["transport"] == transport;
    let class = report["classes"].as_array().into_iter().flatten().find(of_class);
    let Some(class) = class else { return Conclusion::Unknown };
    let reason = class["reason"].as_str().unwrap_or_default();
    let judged = judged(report, (family, layer));
    let scopes: Vec<&str> = judged.filter_map(|(_, scope)| scope).collect();
    match class["reachability"].as_str().unwrap_or_default() {
        "public" if scopes.contains(&"anywhere") => Conclusion::Anywhere,
        "public" => Conclusion::PresumedOpen,
        "limited" if scopes.contains(&"contacted") => Conclusion::Contacted,
        "limited" => Conclusion::ContactedOnly,
        "private" if reason.contains("depend") => Conclusion::Dependent,
        "private" => Conclusion::Private,
        _ => Conclusion::Unknown,
    }
}

/// When the last word about the classes came, or about how far an address of theirs can be reached,
/// milliseconds.
pub fn stood_at(report: &Value, classes: &[(Family, Layer)]) -> u64 {
    let mut last: BTreeMap<String, String> = BTreeMap::new();
    let mut stood_at = 0;
    for line in report["timeline"].as_array().into_iter().flatten() {
        let (Some(at), Some(what)) = (line["at_ms"].as_u64(), line["what"].as_str()) else {
            continue;
        };
        let Some((about, said)) = what.split_once(" is ") else { continue };
        let of_class = classes.iter().any(|(family, layer)| {
            about == format!("{}/{}", family.name(), transport(*layer))
                || about.starts_with(&format!("/{}/", family.name()))
                    && about.contains(&format!("/{}/", layer.name()))
        });
        // The state and the scope; reasons go on counting.
        let said = said.split(':').next().unwrap_or_default();
        let settled = ["public", "limited", "private", "reachable"];
        let counts = settled.iter().any(|word| said.starts_with(word));
        if of_class && last.insert(about.into(), said.into()).as_deref() != Some(said) && counts {
            stood_at = at;
        }
    }
    stood_at
}

/// How often somebody dialled an address where nobody is, and how often we did not pay for it.
fn asked_about_nobody(report: &Value) -> [u64; 2] {
    let [a, b] = BOGUS;
    let bogus = format!(" was asked to dial /ip4/{a}.{b}.");
    let mut counts = [0, 0];
    for line in report["timeline"].as_array().into_iter().flatten() {
        let what = line["what"].as_str().unwrap_or_default();
        if what.contains(&bogus) {
            counts[usize::from(what.ends_with(": declined"))] += 1;
        }
    }
    counts
}

/// The addresses of a class, with the scope of those that are reachable.
fn judged(
    report: &Value,
    class: (Family, Layer),
) -> impl Iterator<Item = (SocketAddr, Option<&str>)> {
    let all = report["addresses"].as_array().into_iter().flatten();
    all.filter_map(move |one| {
        Some((socket_address(one["address"].as_str()?, class)?, one["scope"].as_str()))
    })
}

/// The IP and the port of a multiaddr of this class.
pub fn socket_address(addr: &str, (family, layer): (Family, Layer)) -> Option<SocketAddr> {
    let mut parts = addr.split('/').skip(1);
    let (of, ip, named, port) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let fits = of == family.name() && named == layer.name();
    let addr = SocketAddr::new(ip.parse().ok()?, port.parse().ok()?);
    fits.then_some(addr)
}

fn transport(layer: Layer) -> &'static str {
    match layer {
        Layer::Tcp => "tcp",
        Layer::Udp => "quic",
    }
}

/// What the sockets say against a conclusion: strangers who knock at every address, and servers
/// who knock from where they were contacted.
pub fn contradicted(
    place: &Place,
    report: &Value,
    conditions: Conditions,
    class: (Family, Layer),
    said: Conclusion,
) -> io::Result<Vec<String>> {
    let mut wrong = Vec::new();
    let addrs: Vec<_> = judged(report, class).collect();
    let reachable = |(_, scope): &&(SocketAddr, Option<&str>)| scope.is_some();
    let proven = addrs.iter().filter(reachable);
    let others = addrs.iter().filter(|one| !reachable(one)).take(TRIED_MAX);
    for (addr, scope) in proven.chain(others).copied() {
        let [stranger, contacted] = who_gets_in(place, conditions, class.1, addr)?;
        let false_claim = match scope {
            Some("anywhere") => !stranger,
            Some("contacted") => !contacted,
            Some(_) => !contacted || stranger,
            None => said != Conclusion::Unknown && (stranger || contacted),
        };
        if false_claim {
            wrong.push(format!(
                "{} {addr} is {}: a stranger gets in: {stranger}, a contacted server: {contacted}",
                class.1.name(),
                scope.unwrap_or("not reachable"),
            ));
        }
    }
    Ok(wrong)
}

/// Whether a stranger gets in at an address, and whether one of the servers does, which were
/// contacted: from another port than the one that was dialled. Where packets are lost they knock
/// more than once.
///
/// # Errors
/// If a socket cannot be made.
pub fn who_gets_in(
    place: &Place,
    conditions: Conditions,
    layer: Layer,
    addr: SocketAddr,
) -> io::Result<[bool; 2]> {
    let family = Family::of(addr.ip());
    let tries = if conditions.loss_percent > 0 { KNOCKS } else { 1 };
    let gets_in = |host: &Host| -> io::Result<bool> {
        let source = host.ip(family);
        let source = source.ok_or_else(|| io::Error::other(format!("{addr} is out of reach")))?;
        for _ in 0..tries {
            let way = conditions.delay * 4;
            let came = knock((host, source), layer, addr, (&place.node, PORT), way)?;
            if came == Knock::Opened {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let stranger = gets_in(&place.stranger)?;
    // Of those that serve both families the second is contacted over IPv6.
    let server = place.servers.get(usize::from(family == Family::Ip6));
    // Where nobody but those are who are not as they should be, nobody speaks for the contacted.
    Ok([stranger, server.map_or(Ok(stranger), gets_in)?])
}

/// Packets and bytes that a host's interface has seen, both ways.
///
/// # Errors
/// If the command fails.
pub fn traffic(host: &Host) -> io::Result<(u64, u64)> {
    let text = host.space.output("ip", &["-j", "-s", "link", "show", "dev", "eth0"])?;
    let seen: Value = serde_json::from_str(&text)?;
    let sum = |field: &str| -> u64 {
        let stats = &seen[0]["stats64"];
        ["rx", "tx"].iter().filter_map(|way| stats[*way][field].as_u64()).sum()
    };
    Ok((sum("packets"), sum("bytes")))
}

/// The commit that is checked out, asked once.
pub fn commit() -> String {
    static COMMIT: OnceLock<String> = OnceLock::new();
    COMMIT.get_or_init(|| said("git", &["rev-parse", "--short=12", "HEAD"])).clone()
}

/// What a program says, or that it does not.
pub fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        Ok(_) | Err(_) => "?".to_owned(),
    }
}

/// Whole milliseconds.
pub fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Measure a site with plain sockets, each layer.
///
/// # Errors
/// If a socket cannot be made, or what must come through does not.
pub fn behaviours(place: &Place) -> io::Result<[verify::Behaviour; 2]> {
    let friends = (&place.servers[0], &place.stranger);
    let of = |layer| verify::behaviour(&place.node, friends, place.outside.into(), layer);
    Ok([of(Layer::Tcp)?, of(Layer::Udp)?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_report_is_read_by_layer_and_the_last_new_word_counts() {
        let class = |transport, reachability, reason| {
            json!({"family": "ip4", "transport": transport,
                "reachability": reachability, "reason": reason})
        };
        let address = |address, scope: Option<&str>| json!({"address": address, "scope": scope});
        let line = |at_ms: u64, what| json!({"at_ms": at_ms, "what": what});
        let report = json!({
            "classes": [
                class("tcp", "limited", "only contacted servers get through"),
                class("quic", "private", "the mapping depends on the endpoint"),
            ],
            "addresses": [
                address("/ip4/44.0.0.1/tcp/4001", Some("contacted-only")),
                address("/ip4/44.0.0.1/udp/4001/quic-v1", None),
                address("/ip6/2600::1/tcp/4001", Some("anywhere")),
            ],
            "timeline": [
                line(1, "ip4/tcp is unknown: a probe is in flight"),
                line(5, "/ip4/44.0.0.1/tcp/4001 is reachable (contacted): why"),
                line(6, "ip4/tcp is limited: why"),
                line(7, "/ip4/44.0.0.1/tcp/4001 is reachable (contacted-only): why"),
                line(8, "ip4/tcp is limited: why else"),
                line(9, "ip4/quic is private: why"),
                line(10, "ip6/tcp is public: why"),
                line(11, "P1 was asked to dial /ip4/45.90.0.1/tcp/7001: dial_failed"),
            ],
        });
        let [tcp, udp] = Layer::ALL.map(|layer| (Family::Ip4, layer));
        assert_eq!(concluded(&report, tcp), Conclusion::ContactedOnly);
        assert_eq!(concluded(&report, udp), Conclusion::Dependent);
        assert_eq!(stood_at(&report, &[tcp]), 7);
        assert_eq!(stood_at(&report, &[tcp, udp]), 9);
        assert_eq!(concluded(&json!({}), tcp), Conclusion::Unknown);
        let addr = "44.0.0.1:4001".parse().expect("an address");
        let of_tcp: Vec<_> = judged(&report, tcp).collect();
        assert_eq!(of_tcp, [(addr, Some("contacted-only"))]);
        assert_eq!(stood_at(&report, &[(Family::Ip6, Layer::Tcp)]), 10);
        assert_eq!(asked_about_nobody(&report), [1, 0]);
    }
}
