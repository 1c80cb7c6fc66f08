//! What `watch` knows from earlier runs. It only puts questions in order: what is proved is proved anew.
//!
//! A directory, for its owner alone: `state.json`, `ledger` (the mappings of routers). Networks are told
//! apart by the prefixes of the interfaces.

use multiaddr::Multiaddr;
use portolan_core::wire::multiaddr::{Decoded, from_multiaddr, to_multiaddr};
use portolan_core::{
    ClassExplanation, Duration, Explanation, FilteringBehavior, Group, IpScope, MappingBehavior,
    NodeState, Outcome, PeerId, Relay, RelayPeer, RelayState, State, ip_scope,
};
use portolan_runtime::bootstrap::Url;
use portolan_runtime::{net, private_file};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The form that is written and read.
const VERSION: u32 = 1;
/// The largest file that is read, bytes; ours: some times what all bounds allow.
const FILE_MAX: u64 = 4 << 20;
/// Networks that are remembered, number; ours. When full, the one seen least recently is forgotten.
const NETWORKS_MAX: usize = 16;
/// Peers of a network, and those among them that proved, number; ours. When full, the last are left out.
const PEERS_MAX: usize = 64;
/// Relays of a network that are kept, number; ours: far below what a node takes, and as many as may be in use
/// over some days. When full, those that took us in longest ago are left out.
const RELAYS_KEPT_MAX: usize = 8;
/// How long an IP counts as contacted, seconds; core's value.
const CONTACTED_FOR: u64 = 24 * 3_600;

/// Why state cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A file or the directory cannot be made or read.
    #[error("cannot keep the state in {path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What is there is no state of ours. It was left alone.
    #[error("{path} is not the state of a watch ({detail}): remove it, or name another directory")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
}

/// What is known of the network that we are in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Peers that proved an address here, the last one first.
    pub(super) provers: Vec<Multiaddr>,
    /// Others that were of use.
    pub(super) peers: Vec<Multiaddr>,
    /// The port that was listened on.
    pub(super) port: Option<u16>,
    /// Relays that took us in here.
    pub(super) relays: Vec<RelayPeer>,
    /// Not everybody could dial us here.
    pub(super) needed_relays: bool,
    /// Which list named a peer, whatever the network.
    pub(super) named: BTreeMap<PeerId, Url>,
}

/// A network, as its prefixes tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Network(String);

impl Network {
    /// The one that we are in.
    pub(super) fn here() -> Network {
        Network::of(&net::interface_ips().unwrap_or_default())
    }

    fn of(ips: &[IpAddr]) -> Network {
        let is_outside =
            |ip: &&IpAddr| !matches!(ip_scope(**ip), IpScope::Loopback | IpScope::LinkLocal);
        let mut prefixes: Vec<String> =
            ips.iter().filter(is_outside).map(|ip| Group::of(*ip, false).to_string()).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        Network(prefixes.join(" "))
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Document {
    version: u32,
    networks: Vec<Remembered>,
    /// IPs that were contacted, and when last, in seconds since 1970.
    contacted: BTreeMap<IpAddr, u64>,
    /// The URLs of the lists that named peers: what one list names counts as one, in every run.
    #[serde(default)]
    named: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Remembered {
    network: String,
    /// When it was seen last, in seconds since 1970.
    seen: u64,
    port: Option<u16>,
    provers: Vec<Multiaddr>,
    peers: Vec<Multiaddr>,
    /// Relays that took us in, each with its peer id.
    #[serde(default)]
    relays: Vec<Multiaddr>,
    /// What was found of each class.
    #[serde(default)]
    nat: Vec<NatFact>,
}

/// What was found of a class: its name, and words of reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct NatFact {
    class: String,
    reachability: String,
    mapping: String,
    filtering: String,
}

impl NatFact {
    fn of(class: &ClassExplanation) -> NatFact {
        NatFact {
            class: class.class.to_string(),
            reachability: class.state.name().to_owned(),
            mapping: class.mapping.name().to_owned(),
            filtering: class.filtering.name().to_owned(),
        }
    }

    /// Whether relays were needed for it: nobody could dial us there, or strangers could not; or a NAT
    /// stands in the way, and nothing was proved in spite of it.
    fn is_closed(&self) -> bool {
        let [mapping, filtering] = [
            [MappingBehavior::AddressDependent, MappingBehavior::AddressAndPortDependent]
                .map(MappingBehavior::name),
            [FilteringBehavior::AddressDependent, FilteringBehavior::AddressAndPortDependent]
                .map(FilteringBehavior::name),
        ];
        let closed = [NodeState::Private.name(), NodeState::Limited.name()];
        let stands = mapping.contains(&&*self.mapping) || filtering.contains(&&*self.filtering);
        closed.contains(&&*self.reachability)
            || stands && self.reachability != NodeState::Public.name()
    }
}

/// What is to be kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now<'a> {
    pub(super) explanation: &'a Explanation,
    /// IPs that count as contacted, and how long ago that was last.
    pub(super) contacted: &'a [(IpAddr, Duration)],
    /// How long ago this run said whom earlier ones had contacted.
    pub(super) begun_ago: Duration,
    pub(super) listeners: &'a [Multiaddr],
    /// Which list named a peer.
    pub(super) named: &'a BTreeMap<PeerId, Url>,
}

/// The state in its directory.
#[derive(Debug)]
pub struct StateFile {
    directory: PathBuf,
    document: Document,
    /// IPs that earlier runs contacted, and when last.
    before: BTreeMap<IpAddr, u64>,
}

impl StateFile {
    /// Read it; the directory is made if it is missing.
    ///
    /// # Errors
    /// If it cannot be read or made, or holds something else.
    pub fn open(directory: PathBuf) -> Result<StateFile, StateError> {
        let fault = |path: &Path| {
            let path = path.to_path_buf();
            move |source| StateError::Io { path, source }
        };
        make(&directory).map_err(fault(&directory))?;
        let path = directory.join("state.json");
        let document = match fs::File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Document {
                version: VERSION,
                networks: Vec::new(),
                contacted: BTreeMap::new(),
                named: BTreeMap::new(),
            },
            Err(error) => return Err(fault(&path)(error)),
            Ok(file) => {
                let mut bytes = Vec::new();
                file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(fault(&path))?;
                read(&bytes).map_err(|detail| StateError::Malformed { path, detail })?
            }
        };
        let before = document.contacted.clone();
        Ok(StateFile { directory, document, before })
    }

    /// The file for the mappings of routers.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.directory.join("ledger")
    }

    pub(super) fn known(&self, here: &Network) -> Known {
        let known = self.document.networks.iter().find(|one| one.network == here.0);
        let known = known.map(|one| Known {
            provers: one.provers.clone(),
            peers: one.peers.clone(),
            port: one.port,
            relays: one.relays.iter().filter_map(relay).collect(),
            needed_relays: one.nat.iter().any(NatFact::is_closed),
            named: BTreeMap::new(),
        });
        let named = self.document.named.iter();
        let named = named.filter_map(|(peer, url)| Some((peer.parse().ok()?, url.parse().ok()?)));
        Known { named: named.collect(), ..known.unwrap_or_default() }
    }

    /// IPs that were contacted within a day.
    pub(super) fn contacted(&self) -> Vec<IpAddr> {
        let now = unix();
        let recent = self.document.contacted.iter().filter(|(_, at)| **at + CONTACTED_FOR > now);
        recent.map(|(ip, _)| *ip).collect()
    }

    /// Take over what is known now, and write it.
    pub(super) fn save(&mut self, here: &Network, now: &Now<'_>) -> Result<(), StateError> {
        let Now { explanation, contacted, begun_ago, listeners, named } = *now;
        let now = unix();
        let networks = &mut self.document.networks;
        let before = networks.iter().position(|one| one.network == here.0);
        let before = before.map(|index| networks.remove(index));
        let port = listeners.first().and_then(port).or(before.as_ref().and_then(|one| one.port));
        let (mut provers, mut peers) = met(explanation);
        let mut relays = reserved(explanation);
        let mut nat: Vec<NatFact> = explanation.classes.iter().map(NatFact::of).collect();
        // What was known stays behind what is known better.
        if let Some(before) = before {
            provers.extend(before.provers);
            peers.extend(before.peers);
            relays.extend(before.relays);
            // A run that ended before there was a verdict found nothing.
            let unknown = NodeState::Unknown.name();
            if nat.iter().all(|fact| fact.reachability == unknown) {
                nat = before.nat;
            }
        }
        once(&mut provers, PEERS_MAX);
        peers.retain(|addr| !provers.contains(addr));
        once(&mut peers, PEERS_MAX);
        once(&mut relays, RELAYS_KEPT_MAX);
        let network = here.0.clone();
        networks.insert(0, Remembered { network, seen: now, port, provers, peers, relays, nat });
        networks.truncate(NETWORKS_MAX);
        // Whom earlier runs contacted core takes for contacted when this one began.
        let when = |(ip, ago): &(IpAddr, Duration)| {
            let at = now.saturating_sub(ago.as_secs());
            let earlier = self.before.get(ip).filter(|_| *ago >= begun_ago);
            (*ip, earlier.copied().unwrap_or(at))
        };
        self.document.contacted = contacted.iter().map(when).collect();
        self.document.contacted.retain(|_, at| *at + CONTACTED_FOR > now);
        let addrs = self.document.networks.iter();
        let addrs = addrs.flat_map(|one| one.provers.iter().chain(&one.peers).chain(&one.relays));
        let peers: BTreeSet<PeerId> = addrs.filter_map(peer_of).collect();
        let kept = named.iter().filter(|(peer, _)| peers.contains(*peer));
        self.document.named = kept.map(|(peer, url)| (peer.to_string(), url.to_string())).collect();
        self.write()
    }

    fn write(&self) -> Result<(), StateError> {
        let path = self.directory.join("state.json");
        let new = self.directory.join("state.json.new");
        let write = || {
            let bytes = serde_json::to_vec_pretty(&self.document)?;
            // What a crash has left behind is worth nothing.
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            private_file::write(&new, &bytes)?;
            fs::rename(&new, &path)
        };
        write().map_err(|source| StateError::Io { path, source })
    }
}

/// The peers that proved something, and others that relay or serve.
fn met(explanation: &Explanation) -> (Vec<Multiaddr>, Vec<Multiaddr>) {
    let reachable = explanation.addresses.iter().filter(|one| one.state == State::Reachable);
    let mut last: Vec<_> =
        reachable.filter_map(|one| Some((one.proved_at?, one.proved_by?))).collect();
    last.sort_unstable_by(|a, b| b.cmp(a));
    let servers = &explanation.servers;
    let addr = |peer| {
        let server = servers.iter().find(|server| server.peer == peer && !server.distrusted)?;
        Some(to_multiaddr(server.addr, Some(peer)))
    };
    let mut provers: Vec<Multiaddr> = last.iter().filter_map(|(_, peer)| addr(*peer)).collect();
    let proved = |outcomes: &[(Outcome, u32)]| {
        outcomes.iter().any(|(outcome, count)| *outcome == Outcome::Proved && *count > 0)
    };
    let others = servers.iter().filter(|server| proved(&server.outcomes));
    provers.extend(others.filter_map(|server| addr(server.peer)));
    let mut peers: Vec<Multiaddr> = servers.iter().filter_map(|server| addr(server.peer)).collect();
    peers.extend(reserved(explanation));
    (provers, peers)
}

/// The relays that hold reservations.
fn reserved(explanation: &Explanation) -> Vec<Multiaddr> {
    let reserved = explanation.relays.iter().filter(|relay| relay.state == RelayState::Reserved);
    let addr = |relay: &Relay| Some(to_multiaddr(*relay.addrs.first()?, Some(relay.peer)));
    reserved.filter_map(addr).collect()
}

/// A relay with the address that was kept.
fn relay(addr: &Multiaddr) -> Option<RelayPeer> {
    match from_multiaddr(addr) {
        Decoded::Direct { addr, peer } => Some(RelayPeer { peer: peer?, addrs: vec![addr] }),
        Decoded::Relayed | Decoded::Other | _ => None,
    }
}

/// The peer at whose address it ends.
fn peer_of(addr: &Multiaddr) -> Option<PeerId> {
    match from_multiaddr(addr) {
        Decoded::Direct { peer, .. } => peer,
        Decoded::Relayed | Decoded::Other | _ => None,
    }
}

/// Each once, the first ones.
fn once(addrs: &mut Vec<Multiaddr>, max: usize) {
    let mut kept: Vec<Multiaddr> = Vec::new();
    for addr in addrs.drain(..) {
        if kept.len() < max && !kept.contains(&addr) {
            kept.push(addr);
        }
    }
    *addrs = kept;
}

fn port(listener: &Multiaddr) -> Option<u16> {
    match from_multiaddr(listener) {
        Decoded::Direct { addr, .. } => Some(addr.port),
        Decoded::Relayed | Decoded::Other | _ => None,
    }
}

fn read(bytes: &[u8]) -> Result<Document, String> {
    if bytes.len() as u64 > FILE_MAX {
        return Err(format!("it has more than {FILE_MAX} bytes"));
    }
    let document: Document = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    match document.version {
        VERSION => Ok(document),
        other => Err(format!("it has version {other}, and this program reads {VERSION}")),
    }
}

/// Make a directory for its owner alone, unless it is there.
fn make(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |span| span.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_core::{Addr, CircuitLimit, Class, Family, Instant, ServerExplanation, Transport};
    use portolan_runtime::identity;
    use std::net::Ipv4Addr;

    /// A directory that is not there yet, removed when dropped.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Scratch {
            let name = format!("portolan-state-{}-{}", std::process::id(), rand::random::<u64>());
            Scratch(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn nothing() -> Explanation {
        Explanation::new(Instant::ZERO, identity::generate().public().to_peer_id())
    }

    /// Save this, and nothing else.
    fn save(
        state: &mut StateFile,
        here: &Network,
        explanation: &Explanation,
        contacted: &[(IpAddr, Duration)],
        listeners: &[Multiaddr],
    ) {
        let (begun_ago, named) = (Duration::from_secs(60), &BTreeMap::new());
        let now = Now { explanation, contacted, begun_ago, listeners, named };
        state.save(here, &now).expect("it can be written");
    }

    #[test]
    fn what_is_saved_is_known_in_its_network_and_nowhere_else() {
        let scratch = Scratch::new();
        let mut state = StateFile::open(scratch.0.clone()).expect("a writable directory");
        let ip = |last| IpAddr::from([192, 168, 1, last]);
        let here = Network::of(&[ip(2), Ipv4Addr::LOCALHOST.into()]);
        assert_eq!(here, Network::of(&[ip(77)]), "the same prefix");
        let elsewhere = Network::of(&[IpAddr::from([10, 0, 0, 1])]);
        let listener = to_multiaddr(Addr::tcp(Ipv4Addr::UNSPECIFIED.into(), 4_001), None);
        let contacted = [IpAddr::from([44, 0, 0, 1])];
        let just_now = contacted.map(|ip| (ip, Duration::ZERO));
        save(&mut state, &here, &nothing(), &just_now, &[listener]);
        let again = StateFile::open(scratch.0.clone()).expect("what was just written");
        assert_eq!(again.known(&here).port, Some(4_001));
        assert!(!again.known(&here).needed_relays, "nothing was found");
        assert_eq!(again.known(&elsewhere), Known::default());
        assert_eq!(again.contacted(), contacted);
        #[cfg(unix)]
        for (path, wanted) in [(scratch.0.clone(), 0o700), (scratch.0.join("state.json"), 0o600)] {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(path).expect("it exists").permissions().mode();
            assert_eq!(mode & 0o777, wanted);
        }
    }

    #[test]
    fn where_relays_were_needed_they_are_known_until_the_verdict_is_another_one() {
        let scratch = Scratch::new();
        let mut state = StateFile::open(scratch.0.clone()).expect("a writable directory");
        let here = Network::of(&[]);
        let mut found = nothing();
        let tcp = Class { family: Family::Ip4, transport: Transport::Tcp };
        let mut class = ClassExplanation::new(tcp);
        class.state = NodeState::Private;
        found.classes.push(class);
        let peer = identity::generate().public().to_peer_id();
        let addr = Addr::tcp(Ipv4Addr::new(44, 0, 0, 9).into(), 4_001);
        found.relays.push(Relay {
            peer,
            state: RelayState::Reserved,
            failure: None,
            rtt: None,
            load: None,
            until: None,
            limit: CircuitLimit::default(),
            addrs: vec![addr],
        });
        save(&mut state, &here, &found, &[], &[]);
        // The next run ends before anything is found, and finds what the last one knew.
        save(&mut state, &here, &nothing(), &[], &[]);
        let known = StateFile::open(scratch.0.clone()).expect("it is there").known(&here);
        assert!(known.needed_relays);
        assert_eq!(known.relays, [RelayPeer { peer, addrs: vec![addr] }]);
        found.classes[0].state = NodeState::Public;
        save(&mut state, &here, &found, &[], &[]);
        assert!(!state.known(&here).needed_relays);
    }

    #[test]
    fn who_was_named_by_a_list_is_so_in_the_next_run() {
        let scratch = Scratch::new();
        let mut state = StateFile::open(scratch.0.clone()).expect("a writable directory");
        let here = Network::of(&[]);
        let [met, other] = [(); 2].map(|()| identity::generate().public().to_peer_id());
        let mut explanation = nothing();
        let addr = Addr::tcp(Ipv4Addr::new(44, 0, 0, 9).into(), 4_001);
        explanation.servers.push(ServerExplanation::new(met, addr));
        let url: Url = "https://boot.example/status".parse().expect("a URL");
        let named = [(met, url.clone()), (other, url.clone())].into();
        let (begun_ago, contacted) = (Duration::ZERO, &[]);
        let now =
            Now { explanation: &explanation, contacted, begun_ago, listeners: &[], named: &named };
        state.save(&here, &now).expect("it can be written");
        let again = StateFile::open(scratch.0.clone()).expect("what was just written");
        assert_eq!(again.known(&here).named, [(met, url.clone())].into());
        assert_eq!(again.known(&Network("another".into())).named, [(met, url)].into());
    }

    #[test]
    fn what_was_contacted_before_keeps_its_time_and_a_day_is_the_end() {
        let scratch = Scratch::new();
        let mut state = StateFile::open(scratch.0.clone()).expect("a writable directory");
        let ips = [IpAddr::from([44, 0, 0, 1]), IpAddr::from([44, 0, 0, 2])];
        let long_ago = unix() - CONTACTED_FOR + 100;
        state.document.contacted = [(ips[0], long_ago), (ips[1], unix() - CONTACTED_FOR)].into();
        state.before = state.document.contacted.clone();
        assert_eq!(state.contacted(), [ips[0]]);
        let here = Network::of(&[]);
        let begun = Duration::from_secs(60);
        save(&mut state, &here, &nothing(), &[(ips[0], begun)], &[]);
        assert_eq!(state.document.contacted.get(&ips[0]), Some(&long_ago));
        // Somebody who was contacted again since then counts for another day.
        save(&mut state, &here, &nothing(), &[(ips[0], Duration::from_secs(5))], &[]);
        assert!(state.document.contacted[&ips[0]] > unix() - 60);
    }

    #[test]
    fn networks_and_peers_are_bounded() {
        let scratch = Scratch::new();
        let mut state = StateFile::open(scratch.0.clone()).expect("a writable directory");
        for number in 0..=NETWORKS_MAX {
            let here = Network(format!("network {number}"));
            save(&mut state, &here, &nothing(), &[], &[]);
        }
        assert_eq!(state.document.networks.len(), NETWORKS_MAX);
        assert_eq!(state.known(&Network("network 0".into())), Known::default());
        let addr = |port| to_multiaddr(Addr::tcp(Ipv4Addr::LOCALHOST.into(), port), None);
        let mut addrs: Vec<Multiaddr> = (0..100).chain(0..100).map(addr).collect();
        once(&mut addrs, PEERS_MAX);
        assert_eq!(addrs, (0..64).map(addr).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_no_state_is_left_alone_and_named() {
        let scratch = Scratch::new();
        drop(StateFile::open(scratch.0.clone()).expect("a writable directory"));
        let path = scratch.0.join("state.json");
        for text in ["", "{}", "nonsense", "{\"version\":2,\"networks\":[],\"contacted\":{}}"] {
            fs::write(&path, text).expect("a writable directory");
            let error = StateFile::open(scratch.0.clone()).expect_err("no state").to_string();
            assert!(error.contains("state.json is not the state of a watch"), "{error}");
            assert_eq!(fs::read_to_string(&path).expect("it is there"), text);
        }
    }
}
