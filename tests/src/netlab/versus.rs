//! The same node behind the same routers, asking servers of each implementation; and the nodes of
//! the others, asking their own servers and ours.
//!
//! A streak is one client against one kind of server over one transport: the servers are started
//! once, and the client settles behind one router after the other, each time a new process with new
//! addresses. What its verdict is worth is found out by plain sockets, as in
//! [`experiments`](super::experiments).

#![allow(clippy::print_stdout, reason = "what goes wrong is told to whoever waits for it")]

use super::cells::{
    self, Cell, Conclusion, Families, Homes, PORT, Place, STRANGER, Servers, Site, Transports,
};
use super::experiments::{self as lab, CHECK_TIMEOUT, TRIED_MAX};
use super::link::Conditions;
use super::odd::Others;
use super::others::{self, Report};
use super::peers::{self, On, Program, Server};
use super::results::quantile;
use super::rules::{Kind, Layer};
use super::{Host, Lab};
use portolan_sim::net::{Dependence, Refusal};
use portolan_sim::workers::spread;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;

/// What the comparison is called where an experiment is named.
pub const NAME: &str = "versus";
/// Servers of a streak, number. js-libp2p believes an observed address after four servers have dialled
/// it and gives it up after eight have failed, each in another /8; it is the most that anybody asks
/// for, so that everybody has it.
const SERVERS: u8 = 8;
/// Servers of a streak of the short pass, number: starting Node takes a second of one core.
const SHORT_SERVERS: u8 = 3;
/// Streaks that run at once, number; ours: most of a run is waiting.
pub const JOBS: usize = 3;

const OURS: Program = Program::Portolan(On::Tokio);
/// Who asks whom.
const PAIRS: [(Program, Program); 7] = [
    (OURS, OURS),
    (OURS, Program::Rust),
    (OURS, Program::Js),
    (Program::Rust, Program::Rust),
    (Program::Rust, OURS),
    (Program::Js, Program::Js),
    (Program::Js, OURS),
];
/// Behind what.
const SITES: [Site; 6] = [
    Site::Open,
    Site::Behind(Kind::Independent(Dependence::Independent), Refusal::Reject),
    Site::Behind(Kind::Independent(Dependence::Address), Refusal::Reject),
    Site::Behind(Kind::Independent(Dependence::AddressAndPort), Refusal::Reject),
    Site::Behind(Kind::Independent(Dependence::AddressAndPort), Refusal::Silent),
    Site::Behind(Kind::Dependent, Refusal::Reject),
];

/// A client against one kind of server, at several sites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streak {
    client: Program,
    server: Program,
    servers: u8,
    transports: Transports,
    sites: Vec<Site>,
}

/// What a verdict is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Worth {
    /// There is one, and the sockets say the same.
    Right,
    /// A socket proves it false.
    Wrong,
    /// There is none.
    None,
}

/// What came of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Who asked, with its version.
    pub client: String,
    /// Who was asked, with its version.
    pub server: String,
    /// The network.
    pub site: String,
    /// What was listened on.
    pub transports: String,
    /// The verdict in words.
    pub said: String,
    /// What it is worth.
    pub worth: Worth,
    /// What a socket proves to be false, and what more could have been known.
    pub remarks: Vec<String>,
    /// From the first dial to the verdict, milliseconds, where there is one.
    pub verdict_ms: Option<u64>,
    /// From the first dial to the end, milliseconds.
    pub elapsed_ms: u64,
    /// Packets that the node's interface saw, both ways.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
}

impl Run {
    /// The cell, in a line.
    pub fn cell(&self) -> String {
        let Run { client, server, site, transports, .. } = self;
        format!("{client} asks {server} · {site} · {transports}")
    }

    /// Whether Portolan said what a socket proves to be false.
    pub fn is_false(&self) -> bool {
        self.client.starts_with(OURS.name()) && self.worth == Worth::Wrong
    }

    /// Whether nobody has to look at it: what others conclude is for the table, what Portolan does
    /// must be right, and all that can be known.
    pub fn is_well(&self) -> bool {
        !self.client.starts_with(OURS.name()) || self.remarks.is_empty()
    }
}

impl Streak {
    fn name(&self, site: Site) -> String {
        let (client, server) = (named(self.client), named(self.server));
        format!("{client} asks {server} · {} · {}", site.name(), self.transports.name())
    }

    /// Whom it takes.
    fn needs(&self, program: Program) -> bool {
        self.client == program || self.server == program
    }
}

/// Its name and its version; ours goes by the commit.
fn named(program: Program) -> String {
    match program {
        Program::Portolan(_) => program.name().to_owned(),
        Program::Rust | Program::Js => format!("{} {}", program.name(), others::version(program)),
    }
}

/// Whether every cell has a run, but for those that take js-libp2p where it is not installed.
pub fn is_complete(runs: &[Run], with_js: bool) -> bool {
    let done = |name: String| runs.iter().any(|run| run.cell() == name);
    let all = if with_js { all() } else { without_js(all()) };
    all.iter().all(|streak| streak.sites.iter().all(|site| done(streak.name(*site))))
}

/// The streaks that it takes until every cell has so many runs: each has at most one of a cell, so
/// that little is lost where somebody interrupts.
pub fn missing(done: &[Run], runs: u64) -> Vec<Streak> {
    let mut done_of: BTreeMap<String, u64> = BTreeMap::new();
    done.iter().for_each(|run| *done_of.entry(run.cell()).or_default() += 1);
    let mut streaks = Vec::new();
    for round in 0..runs {
        for mut streak in all() {
            let name = |site: Site| streak.name(site);
            let left =
                |site: &Site| done_of.get(&name(*site)).copied().unwrap_or_default() <= round;
            let sites: Vec<Site> = SITES.into_iter().filter(left).collect();
            if !sites.is_empty() {
                streak.sites = sites;
                streaks.push(streak);
            }
        }
    }
    streaks
}

/// Every cell.
fn all() -> Vec<Streak> {
    let of = |(client, server): (Program, Program)| {
        [Transports::Tcp, Transports::Quic].map(|transports| Streak {
            client,
            server,
            servers: SERVERS,
            transports,
            sites: SITES.to_vec(),
        })
    };
    PAIRS.into_iter().flat_map(of).collect()
}

/// Portolan against few servers of the others, over both transports at once.
pub fn short() -> Vec<Streak> {
    let of = |server| Streak {
        client: OURS,
        server,
        servers: SHORT_SERVERS,
        transports: Transports::Both,
        sites: vec![SITES[0], SITES[3]],
    };
    [Program::Rust, Program::Js].map(of).to_vec()
}

/// Leave out what takes js-libp2p.
pub fn without_js(streaks: Vec<Streak>) -> Vec<Streak> {
    streaks.into_iter().filter(|streak| !streak.needs(Program::Js)).collect()
}

/// Run streaks, and count the runs that could not be made.
pub fn run_all(
    streaks: &[Streak],
    jobs: usize,
    heard: &mut (dyn FnMut(&Run) + Send),
) -> (Vec<Run>, usize) {
    let (sender, results) = mpsc::channel();
    std::thread::scope(|scope| {
        let listening = scope.spawn(move || {
            let (mut runs, mut failed) = (Vec::new(), 0);
            for (name, ran) in results {
                match ran {
                    Ok(run) => {
                        tell(&run);
                        heard(&run);
                        runs.push(run);
                    }
                    Err(error) => {
                        failed += 1;
                        println!("{name}: {error}");
                    }
                }
            }
            (runs, failed)
        });
        let work = |number: u64| {
            let streak = usize::try_from(number).ok().and_then(|at| streaks.get(at));
            let done = |name, ran: io::Result<Run>| {
                // Whoever listens does so to the end.
                let _ = sender.send((name, ran));
            };
            if let Some(streak) = streak
                && let Err(error) = run(streak, &done)
            {
                done(streak.name(streak.sites[0]), Err(error));
            }
        };
        spread(0..streaks.len() as u64, jobs, work, &mut |_, ()| true);
        drop(sender);
        listening.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn tell(run: &Run) {
    let at = run.verdict_ms.map_or("no verdict".into(), |at| format!("{at} ms"));
    println!("{}: {} ({at}) {}", run.cell(), run.said, run.remarks.join("; "));
}

/// Run a streak.
///
/// # Errors
/// If its servers cannot be had.
fn run(streak: &Streak, done: &dyn Fn(String, io::Result<Run>)) -> io::Result<()> {
    let mut internet = Lab::new(Conditions::NONE)?;
    let hosts: io::Result<Vec<Host>> =
        (0..streak.servers).map(|number| server_host(&internet, number)).collect();
    let mut hosts = hosts?;
    let mut stranger = internet.public("stranger", &STRANGER)?;
    let start = |host: &Host| {
        let listen = lab::addresses(&cell(streak, Site::Open), host.ip4().into());
        peers::serve(host, &listen, &[], streak.server)
    };
    let servers: io::Result<Vec<Server>> = hosts.iter().map(start).collect();
    let servers = servers?;
    // The first handshake of a process takes longer than any other.
    lab::warm(&cell(streak, Site::Open), &internet, &servers)?;
    let known: Vec<String> = servers.iter().flat_map(|server| server.addrs.clone()).collect();
    for (lot, site) in (0..).zip(streak.sites.iter().copied()) {
        let settled = cells::settle(&internet, site, lot);
        let (node, gateways, outside) = match settled {
            Ok(settled) => settled,
            Err(error) => {
                done(streak.name(site), Err(error));
                continue;
            }
        };
        let others = Vec::new();
        let servers = hosts;
        let place = Place { node, gateways, servers, others, stranger, outside, lab: internet };
        done(streak.name(site), run_at(streak, site, &place, &known));
        // The node moves out.
        Place { servers: hosts, stranger, lab: internet, .. } = place;
    }
    drop(servers);
    Ok(())
}

/// A server's machine, in a /8 of its own.
fn server_host(internet: &Lab, number: u8) -> io::Result<Host> {
    let ip = Ipv4Addr::new(44 + number, 1, 1, 1);
    internet.public(&format!("s{number}"), &[ip.into()])
}

/// The cell, as experiments know it.
fn cell(streak: &Streak, site: Site) -> Cell {
    let servers = Servers { count: streak.servers, homes: Homes::Single };
    Cell {
        experiment: NAME,
        site,
        servers,
        others: Others::NONE,
        transports: streak.transports,
        families: Families::Ip4,
        conditions: Conditions::NONE,
        on: On::Tokio,
    }
}

/// What a run came to, before it is known what that took.
struct Outcome {
    said: String,
    worth: Worth,
    remarks: Vec<String>,
    verdict_ms: Option<u64>,
    elapsed_ms: u64,
}

fn run_at(streak: &Streak, site: Site, place: &Place, known: &[String]) -> io::Result<Run> {
    let cell = cell(streak, site);
    let listen = lab::addresses(&cell, place.node.ip4().into());
    let before = lab::traffic(&place.node)?;
    let report = peers::check(&place.node, &listen, known, CHECK_TIMEOUT, streak.client)?;
    let after = lab::traffic(&place.node)?;
    let outcome = match streak.client {
        Program::Portolan(_) => {
            ours(&cell, place, &report, |layer| is_mute(streak.server, site, layer))?
        }
        Program::Rust | Program::Js => theirs(&cell, place, &serde_json::from_value(report)?)?,
    };
    Ok(Run {
        client: named(streak.client),
        server: named(streak.server),
        site: site.name(),
        transports: streak.transports.name().to_owned(),
        said: outcome.said,
        worth: outcome.worth,
        remarks: outcome.remarks,
        verdict_ms: outcome.verdict_ms,
        elapsed_ms: outcome.elapsed_ms,
        packets: after.0 - before.0,
        bytes: after.1 - before.1,
    })
}

/// Whether servers say nothing of a dial that nothing answers: rust-libp2p gives a whole request ten
/// seconds, and then drops it, and a TCP dial in it as long (QUIC gives up after five).
fn is_mute(server: Program, site: Site, layer: Layer) -> bool {
    let silent = matches!(site, Site::Behind(_, Refusal::Silent));
    server == Program::Rust && silent && layer == Layer::Tcp
}

/// What Portolan's report comes to. It need not know what mute servers do not tell.
fn ours(
    cell: &Cell,
    place: &Place,
    report: &Value,
    mute: impl Fn(Layer) -> bool,
) -> io::Result<Outcome> {
    let (mut said, mut wrong, mut short) = (BTreeSet::new(), Vec::new(), Vec::new());
    let mut unknown = false;
    for class in cell.classes() {
        let (_, layer) = class;
        let conclusion = lab::concluded(report, class);
        let expected = cell.expected(class);
        let all_said = conclusion == expected || conclusion == Conclusion::Unknown && mute(layer);
        said.insert(conclusion.to_string());
        unknown |= conclusion == Conclusion::Unknown;
        wrong.extend(lab::contradicted(place, report, cell.conditions, class, conclusion)?);
        if !all_said {
            short.push(format!("{}: {conclusion} instead of {expected}", layer.name()));
        }
    }
    if std::env::var_os("PORTOLAN_LAB_REPORTS").is_some() {
        println!("{report}");
    }
    let elapsed_ms = report["elapsed_ms"].as_u64().unwrap_or(u64::MAX);
    let stood_at = lab::stood_at(report, &cell.classes().collect::<Vec<_>>());
    let worth = match (wrong.is_empty(), unknown) {
        (false, _) => Worth::Wrong,
        (true, true) => Worth::None,
        (true, false) => Worth::Right,
    };
    Ok(Outcome {
        said: said.into_iter().collect::<Vec<_>>().join(", "),
        worth,
        remarks: wrong.into_iter().chain(short).collect(),
        verdict_ms: (worth != Worth::None).then_some(stood_at),
        elapsed_ms,
    })
}

/// What the report of another implementation comes to. A stranger tries every address that it has
/// judged, and where it takes itself for unreachable the one that a stranger would try first.
fn theirs(cell: &Cell, place: &Place, report: &Report) -> io::Result<Outcome> {
    let mut remarks = Vec::new();
    let verdict = report.verdict();
    for class in cell.classes() {
        let (_, layer) = class;
        let judged = report
            .addresses
            .iter()
            .filter_map(|one| Some((lab::socket_address(&one.address, class)?, one.reachable)));
        let (open, shut): (Vec<_>, Vec<_>) = judged.partition(|(_, reachable)| *reachable);
        let plain = verdict.is_some_and(|verdict| !verdict.reachable);
        let plain = plain.then_some((SocketAddr::new(place.outside.into(), PORT), false));
        // One failure beside a success is no verdict.
        let only_shut =
            shut.into_iter().filter(|(addr, _)| !open.iter().any(|(one, _)| one == addr));
        let tried: BTreeSet<_> = only_shut.take(TRIED_MAX).chain(plain).collect();
        for (addr, reachable) in open.into_iter().chain(tried) {
            let [stranger, contacted] = lab::who_gets_in(place, cell.conditions, layer, addr)?;
            if stranger != reachable {
                remarks.push(format!(
                    "{} {addr} is {}: a stranger gets in: {stranger}, a contacted server: {contacted}",
                    layer.name(),
                    word(reachable),
                ));
            }
        }
    }
    Ok(Outcome {
        said: verdict.map_or("–", |verdict| word(verdict.reachable)).to_owned(),
        worth: match verdict {
            None => Worth::None,
            Some(_) if remarks.is_empty() => Worth::Right,
            Some(_) => Worth::Wrong,
        },
        remarks,
        verdict_ms: verdict.map(|verdict| verdict.at_ms),
        elapsed_ms: report.elapsed_ms,
    })
}

const fn word(reachable: bool) -> &'static str {
    if reachable { "reachable" } else { "unreachable" }
}

/// A table for people, which is one of Markdown too.
pub fn table(runs: &[Run]) -> String {
    let mut text = "| client | server | network | listens on | verdict | right | wrong | none | \
        verdict ms | p95 ms | × Portolan | end ms | packets | bytes |\n\
        |---|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    let mut seen = BTreeSet::new();
    let order = all().into_iter().chain(short());
    let cells = order.flat_map(|streak| {
        streak.sites.iter().map(|site| streak.name(*site)).collect::<Vec<String>>()
    });
    for cell in cells.filter(|cell| seen.insert(cell.clone())) {
        let of_cell: Vec<&Run> = runs.iter().filter(|run| run.cell() == cell).collect();
        let Some(first) = of_cell.first() else { continue };
        let worth = |wanted| of_cell.iter().filter(|run| run.worth == wanted).count();
        let said: BTreeSet<&str> = of_cell.iter().map(|run| run.said.as_str()).collect();
        let middle = |of: fn(&Run) -> u64| quantile(50, of_cell.iter().map(|run| of(run)));
        let number = |value: Option<u64>| value.map_or("–".to_owned(), |value| value.to_string());
        let at =
            |percent| number(quantile(percent, of_cell.iter().filter_map(|run| run.verdict_ms)));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            first.client,
            first.server,
            first.site,
            first.transports,
            said.into_iter().collect::<Vec<_>>().join(" / "),
            worth(Worth::Right),
            worth(Worth::Wrong),
            worth(Worth::None),
            at(50),
            at(95),
            times_ours(runs, first, quantile(50, of_cell.iter().filter_map(|run| run.verdict_ms))),
            number(middle(|run| run.elapsed_ms)),
            number(middle(|run| run.packets)),
            number(middle(|run| run.bytes)),
        );
    }
    text
}

/// How many times as long as Portolan's a verdict takes, with the same servers at the same site.
fn times_ours(runs: &[Run], of: &Run, millis: Option<u64>) -> String {
    let ours = runs.iter().filter(|run| {
        run.client.starts_with(OURS.name())
            && (&run.server, &run.site, &run.transports) == (&of.server, &of.site, &of.transports)
    });
    let ours = quantile(50, ours.filter_map(|run| run.verdict_ms));
    let tenths = millis.zip(ours).and_then(|(theirs, ours)| (theirs * 10).checked_div(ours));
    tenths.map_or("–".to_owned(), |tenths| format!("{}.{}", tenths / 10, tenths % 10))
}

/// The section of the page of results.
pub fn section(runs: &[Run]) -> String {
    let wrong = runs.iter().filter(|run| run.worth == Worth::Wrong).count();
    format!(
        "\n## Beside other implementations\n\n\
         {SERVERS} single-IP servers of one implementation, each in another /8. Every run is a new process behind a\n\
         new router, at an address that no server has seen, and ends after {} s at the latest. Times count from the\n\
         first dial: *verdict* until it stood (median and 95th percentile), *end* until the client stopped; packets\n\
         and bytes are those of its interface, both ways, until then.\n\n\
         {NOTES}\n\
         {} runs, {wrong} with a wrong verdict.\n\n{}",
        CHECK_TIMEOUT.as_secs(),
        runs.len(),
        table(runs),
    )
}

/// What one has to know to read the table.
const NOTES: &str = "\
*Wrong*: a stranger is refused at an address that is said to be reachable, or gets in at one that is not.
What counts as a verdict of the others is more than they promise:

- rust-libp2p, with its defaults (its client looks for something to probe every 5 s): an address that it
  confirmed is reachable; one of which a single probe has failed is unreachable, if none is confirmed.
- js-libp2p, with its defaults: an address that its address manager has verified is reachable; one that it has
  given up is unreachable, which no event tells an application. Behind a router it takes four servers in
  different /8s to verify and eight to give up.

Why it came out so, where it is not obvious:

- A server dials back from the IP that was contacted, and a router that filters by address lets it in. AutoNAT v2
  calls such an address reachable; strangers are refused.
- A server of rust-libp2p gives a request ten seconds and then drops it, and a TCP dial in it as long. Where a
  router drops packets silently nobody who asks is told anything.
- The same servers ask for 30 to 100 kB before they dial an address that differs from the one they were asked from,
  be it in the port alone: behind APD×APD nearly all do.
- Behind APD×APD Portolan's conclusion stands early, and its client goes on to ask about each port that it was given.
- js-libp2p does not take what others observe of its TCP connections for an address, since they leave from
  another port than it listens on. Behind a router it has nothing to ask about.
- Its QUIC connections leave from another port too, whose observed address it asks about. Nobody reaches that,
  nor the port that it listens on, which no router has heard of: it is unreachable where others are not.
- Its servers dial one address of a request after the other, ten seconds each, and behind APD×APD there are as
  many as connections: it takes longer than the run.
- It is client and server at once, and its packets include what it does for those whom it asks.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn run(streak: &Streak, site: Site, worth: Worth, verdict_ms: Option<u64>) -> Run {
        Run {
            client: named(streak.client),
            server: named(streak.server),
            site: site.name(),
            transports: streak.transports.name().to_owned(),
            said: verdict_ms.map_or("–", |_| "reachable").to_owned(),
            worth,
            remarks: Vec::new(),
            verdict_ms,
            elapsed_ms: 40_000,
            packets: 7,
            bytes: 700,
        }
    }

    #[test]
    fn what_is_done_is_not_done_again() {
        assert_eq!(missing(&[], 2).len(), 2 * PAIRS.len() * 2);
        let first = &all()[0];
        let done: Vec<Run> =
            SITES.map(|site| run(first, site, Worth::Right, Some(1))).into_iter().collect();
        assert_eq!(first.name(SITES[0]), done[0].cell());
        let left = missing(&done, 1);
        assert_eq!(left.len(), PAIRS.len() * 2 - 1);
        assert!(!left.contains(first));
        let left = missing(&done[1..], 1);
        assert_eq!(left[0].sites, [SITES[0]]);
    }

    #[test]
    fn runs_without_a_verdict_have_no_time() {
        let streak = &all()[6];
        let ours = Streak { client: OURS, ..streak.clone() };
        let mut runs = [(Worth::Wrong, Some(5)), (Worth::None, None), (Worth::Right, Some(9))]
            .map(|(worth, at)| run(streak, Site::Open, worth, at))
            .to_vec();
        assert!(table(&runs[1..2]).contains("| – | 0 | 0 | 1 | – | – | – |"));
        runs.push(run(&ours, Site::Open, Worth::Right, Some(2)));
        let text = table(&runs);
        let end = "| none | tcp | reachable / – | 1 | 1 | 1 | 5 | 9 | 2.5 | 40000 | 7 | 700 |";
        assert!(text.lines().any(|row| row.ends_with(end)), "{text}");
    }
}
