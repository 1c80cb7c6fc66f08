//! Names in multiaddrs: what `/dns`, `/dns4`, `/dns6` and `/dnsaddr` lead to.
//!
//! ```text
//!  /dns, /dns4, /dns6 ─► A, AAAA ─────────────────────► the same with IPs
//!  /dnsaddr ─► TXT of _dnsaddr.NAME ─► multiaddrs ─┬──► those with IPs
//!                  ▲                               └─► those with names, and so on
//!                  └────────────────────────────────────────┘
//! ```
//!
//! Whoever owns a name decides how much comes of it, so that everything is bounded: how deep names may
//! lead, how many look-ups, records and addresses there may be, how long an answer, and how long all
//! of it takes. What is cut is named in a [`NameError`], beside what was found.
//!
//! The codec is hickory's. Its resolver takes its timers from nowhere, and so from tokio or from a
//! thread of its own; a question or two over sockets of whatever runtime there is are less than that.
//! Nothing is remembered from one name to the next: dials are rare, and servers remember.

mod address;
mod error;
mod query;
mod system;

pub use error::NameError;

pub(crate) use address::{check, is_named};

use crate::node;
use crate::time::timeout;
use crate::traits::Runtime;
use address::{Kind, Named};
use futures::future;
use hickory_proto::rr::{Name, RData, RecordType};
use multiaddr::Multiaddr;
use portolan_core::Duration;
use std::net::{IpAddr, SocketAddr};

/// How long one name may take, with all that it leads to, seconds; ours: two servers that are silent,
/// asked twice, and a little. Dials to names whose servers are gone fail later if it grows.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How deep names may lead to names, number; ours: the public bootstrap nodes need two. When full,
/// deeper ones are left out, and named.
pub const DEPTH_MAX: usize = 6;
/// Look-ups for one name, number; rust-libp2p's value. When full, further names are left out, and the
/// first of them is named.
pub const LOOKUPS_MAX: usize = 32;
/// Records that are taken of one answer, number; ours: a peer has a dozen addresses. When full, the
/// others are left out, and the error says how many there were.
pub const RECORDS_MAX: usize = 32;
/// Addresses that one name leads to, number; ours: as many peers as a bootstrap list may have. When
/// full, the others are left out, and the name is named.
pub const ADDRESSES_MAX: usize = 64;
/// Problems that are named of one name, number; ours: a person reads the first. When full, further ones
/// are not named.
const PROBLEMS_MAX: usize = 16;

/// Which DNS servers are asked. Built by `NamesConfig::default()` and assignment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamesConfig {
    /// The servers, best first, up to 3 of them. Without any: those that this host names in
    /// `/etc/resolv.conf`, after what it knows itself by `/etc/hosts`.
    pub servers: Vec<SocketAddr>,
}

/// What a name leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resolved {
    /// Multiaddrs that begin with an IP and can be dialled, in the order in which to try them.
    pub addrs: Vec<Multiaddr>,
    /// What was left out, and why.
    pub problems: Vec<NameError>,
}

/// Resolves the names in multiaddrs. A [`Node`](crate::Node) has one of its own
/// ([`Node::resolve`](crate::Node::resolve)); this is for what has to be known before it starts.
#[derive(Clone, Debug)]
pub struct Resolver<R> {
    runtime: R,
    config: NamesConfig,
}

impl<R: Runtime> Resolver<R> {
    /// A resolver whose sockets and timers are those of `runtime`.
    pub fn new(runtime: R, config: NamesConfig) -> Resolver<R> {
        Resolver { runtime, config }
    }

    /// The servers that are asked as things stand. Who judges by whom this host has contacted wants
    /// to know of them.
    pub fn servers(&self) -> Vec<SocketAddr> {
        if self.config.servers.is_empty() {
            return system::servers();
        }
        self.config.servers.iter().copied().take(system::SERVERS_MAX).collect()
    }

    /// What a multiaddr leads to; one without a name leads to itself. IPv6 and IPv4 take turns, IPv6
    /// first; what `/dnsaddr` leads to keeps its order.
    ///
    /// # Errors
    /// If it leads to nothing that can be dialled: the first reason why.
    pub async fn resolve(&self, addr: &Multiaddr) -> Result<Resolved, NameError> {
        let named = match Named::read(addr) {
            None => return Ok(Resolved { addrs: vec![addr.clone()], problems: Vec::new() }),
            Some(named) => named?,
        };
        let name = named.name.to_ascii();
        let (servers, found) = (self.servers(), Found::default());
        let mut search = Search { resolver: self, servers, found };
        if timeout(&self.runtime, RESOLVE_TIMEOUT, search.run(named)).await.is_none() {
            search.found.object(NameError::TimedOut { name: name.clone() });
        }
        search.found.finish(name)
    }

    /// The IPs of a name that stands in a URL; IPv6 and IPv4 take turns.
    pub(crate) async fn ips(&self, host: &str) -> Result<Vec<IpAddr>, NameError> {
        let name = address::name(host)?;
        let text = name.to_ascii();
        let (servers, mut looked) = (self.servers(), 0);
        let ips = self.ips_of(&servers, Kind::Any, &name, &mut looked);
        let found = timeout(&self.runtime, RESOLVE_TIMEOUT, ips).await;
        found.ok_or(NameError::TimedOut { name: text })?
    }

    /// The IPs of a name. `looked` counts the look-ups.
    async fn ips_of(
        &self,
        servers: &[SocketAddr],
        kind: Kind,
        name: &Name,
        looked: &mut usize,
    ) -> Result<Vec<IpAddr>, NameError> {
        let fits = |ip: &IpAddr| match kind {
            Kind::V4 => ip.is_ipv4(),
            Kind::V6 => ip.is_ipv6(),
            Kind::Any | Kind::Addr => true,
        };
        if self.config.servers.is_empty() {
            let mut known = system::known(name);
            known.retain(fits);
            if !known.is_empty() {
                return Ok(known);
            }
        }
        let (mut six, mut four) = (0, 0);
        let ask_six = async {
            let wants = kind != Kind::V4;
            if wants {
                self.records(servers, name, RecordType::AAAA, &mut six).await
            } else {
                Ok(Vec::new())
            }
        };
        let ask_four = async {
            let wants = kind != Kind::V6;
            if wants {
                self.records(servers, name, RecordType::A, &mut four).await
            } else {
                Ok(Vec::new())
            }
        };
        let (v6, v4) = future::join(ask_six, ask_four).await;
        *looked += six + four;
        let found = |records: &Result<Vec<RData>, NameError>| -> Vec<IpAddr> {
            records.iter().flatten().cloned().filter_map(ip).collect()
        };
        let ips = in_turns(found(&v6), found(&v4));
        match (ips.is_empty(), v6.err().or(v4.err())) {
            (false, _) => Ok(ips),
            (true, Some(error)) => Err(error),
            (true, None) => {
                let wanted = match kind {
                    Kind::V4 => "IPv4 address",
                    Kind::V6 => "IPv6 address",
                    Kind::Any | Kind::Addr => "address",
                };
                Err(NameError::NoRecords { name: name.to_ascii(), wanted })
            }
        }
    }

    /// All records of a kind that a name has, wherever it is another name for.
    async fn records(
        &self,
        servers: &[SocketAddr],
        name: &Name,
        wanted: RecordType,
        looked: &mut usize,
    ) -> Result<Vec<RData>, NameError> {
        let mut asked = vec![name.clone()];
        loop {
            let Some(last) = asked.last() else { return Ok(Vec::new()) };
            *looked += 1;
            let answer = query::ask(&self.runtime, servers, last, wanted).await?;
            match answer.alias {
                None => return Ok(answer.records),
                Some(alias) if asked.contains(&alias) => {
                    return Err(NameError::Loop { name: alias.to_ascii() });
                }
                Some(alias) if asked.len() >= DEPTH_MAX => {
                    return Err(NameError::TooDeep { name: alias.to_ascii(), max: DEPTH_MAX });
                }
                Some(alias) => asked.push(alias),
            }
        }
    }
}

/// The elements of both in turns, those of the first one first.
fn in_turns<T>(first: Vec<T>, second: Vec<T>) -> Vec<T> {
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut all = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair.iter().all(Option::is_none) {
            return all;
        }
        all.extend(pair.into_iter().flatten());
    }
}

/// What was found so far.
#[derive(Debug, Default)]
struct Found {
    addrs: Vec<Multiaddr>,
    problems: Vec<NameError>,
    /// Addresses that nobody here can dial, number.
    unusable: usize,
    is_full: bool,
}

impl Found {
    fn add(&mut self, addr: Multiaddr) {
        if node::dial_address(&addr).is_err() {
            self.unusable += 1;
        } else if self.addrs.contains(&addr) {
            // Said twice.
        } else if self.addrs.len() >= ADDRESSES_MAX {
            self.is_full = true;
        } else {
            self.addrs.push(addr);
        }
    }

    fn object(&mut self, problem: NameError) {
        if self.problems.len() < PROBLEMS_MAX && !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn finish(mut self, name: String) -> Result<Resolved, NameError> {
        if self.is_full {
            self.object(NameError::TooManyAddresses { name: name.clone(), max: ADDRESSES_MAX });
        }
        let Found { addrs, problems, unusable, .. } = self;
        if !addrs.is_empty() {
            for problem in &problems {
                tracing::warn!(%name, %problem, "not all that a name leads to was taken");
            }
            return Ok(Resolved { addrs, problems });
        }
        let nothing = if unusable == 0 {
            NameError::NoRecords { name, wanted: "address" }
        } else {
            NameError::NothingUsable { name, given: unusable }
        };
        Err(problems.into_iter().next().unwrap_or(nothing))
    }
}

/// The search for all that one name leads to, a level of names at a time.
struct Search<'a, R> {
    resolver: &'a Resolver<R>,
    servers: Vec<SocketAddr>,
    found: Found,
}

/// A name to look up, and those that led there.
#[derive(Clone)]
struct Step {
    named: Named,
    path: Vec<Name>,
}

impl<R: Runtime> Search<'_, R> {
    async fn run(&mut self, named: Named) {
        let circuit = named.circuit.clone();
        let mut level = vec![Step { named, path: Vec::new() }];
        let mut seen: Vec<Named> = Vec::new();
        let mut looked = 0;
        while !level.is_empty() {
            let mut steps = Vec::new();
            for step in level {
                if seen.contains(&step.named) {
                    continue;
                }
                // A name of both families takes two.
                let costs = if step.named.kind == Kind::Any { 2 } else { 1 };
                if looked + costs > LOOKUPS_MAX {
                    let name = step.named.name.to_ascii();
                    self.found.object(NameError::TooManyLookups { name, max: LOOKUPS_MAX });
                    break;
                }
                looked += costs;
                seen.push(step.named.clone());
                steps.push(step);
            }
            let answers = steps.iter().map(|step| self.look_up(&step.named));
            let answers = future::join_all(answers).await;
            level = Vec::new();
            for (step, (addrs, more, problem)) in steps.into_iter().zip(answers) {
                looked += more;
                if let Some(problem) = problem {
                    self.found.object(problem);
                }
                for addr in addrs {
                    let addr = circuit.iter().fold(addr, Multiaddr::with);
                    match Named::read(&addr) {
                        None => self.found.add(addr),
                        Some(Err(error)) => self.found.object(error),
                        Some(Ok(named)) => level.extend(self.deeper(&step, named)),
                    }
                }
            }
        }
    }

    /// The step to a name that another one leads to, if it may be taken.
    fn deeper(&mut self, from: &Step, named: Named) -> Option<Step> {
        let path: Vec<Name> = from.path.iter().chain([&from.named.name]).cloned().collect();
        let name = named.name.to_ascii();
        let leads_back = named.kind == Kind::Addr && path.contains(&named.name);
        let problem = if leads_back {
            NameError::Loop { name }
        } else if path.len() >= DEPTH_MAX {
            NameError::TooDeep { name, max: DEPTH_MAX }
        } else {
            return Some(Step { named, path });
        };
        self.found.object(problem);
        None
    }

    /// The multiaddrs that a name stands for, without circuits; how many look-ups it took beyond those
    /// that are counted; and what went wrong.
    async fn look_up(&self, named: &Named) -> (Vec<Multiaddr>, usize, Option<NameError>) {
        let mut looked = 0;
        let bare = Named { circuit: Multiaddr::empty(), ..named.clone() };
        let (addrs, problem) = if named.kind == Kind::Addr {
            self.texts(named, &mut looked).await
        } else {
            let (resolver, servers) = (self.resolver, &self.servers);
            match resolver.ips_of(servers, named.kind, &named.name, &mut looked).await {
                Ok(mut ips) => {
                    let problem = cut(&mut ips, &named.name);
                    (ips.into_iter().map(|ip| bare.at(ip)).collect(), problem)
                }
                Err(error) => (Vec::new(), Some(error)),
            }
        };
        let counted = if named.kind == Kind::Any { 2 } else { 1 };
        (addrs, looked.saturating_sub(counted), problem)
    }

    /// The multiaddrs in the TXT records of a name that end as is wanted.
    async fn texts(
        &self,
        named: &Named,
        looked: &mut usize,
    ) -> (Vec<Multiaddr>, Option<NameError>) {
        let Ok(name) = named.name.prepend_label("_dnsaddr") else {
            let name = named.name.to_ascii();
            return (Vec::new(), Some(NameError::BadName { name }));
        };
        let records = self.resolver.records(&self.servers, &name, RecordType::TXT, looked).await;
        let records = match records {
            Ok(records) => records,
            Err(error) => return (Vec::new(), Some(error)),
        };
        let mut addrs: Vec<Multiaddr> = records.iter().filter_map(in_text).collect();
        let problem = if addrs.is_empty() {
            Some(NameError::NoRecords { name: name.to_ascii(), wanted: "multiaddr" })
        } else {
            cut(&mut addrs, &name)
        };
        // DNSADDR: what follows the name says which of the addresses are meant.
        addrs.retain(|addr| addr.ends_with(&named.rest));
        (addrs, problem)
    }
}

/// Keep as many as may be taken of one answer.
fn cut<T>(items: &mut Vec<T>, name: &Name) -> Option<NameError> {
    let (given, max) = (items.len(), RECORDS_MAX);
    items.truncate(max);
    (given > max).then(|| NameError::TooManyRecords { name: name.to_ascii(), given, max })
}

/// The multiaddr in a TXT record, if there is one.
fn in_text(record: &RData) -> Option<Multiaddr> {
    let RData::TXT(text) = record else { return None };
    let text = text.txt_data.concat();
    let text = std::str::from_utf8(&text).ok()?;
    text.strip_prefix("dnsaddr=")?.parse().ok()
}

/// The address in a record.
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "of two dozen kinds of records, these two are addresses"
)]
fn ip(record: RData) -> Option<IpAddr> {
    match record {
        RData::A(ip) => Some(IpAddr::V4(ip.0)),
        RData::AAAA(ip) => Some(IpAddr::V6(ip.0)),
        _ => None,
    }
}
