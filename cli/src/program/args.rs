//! What can be said on the command line.

use crate::program::runtimes;
use crate::{
    Argv, BadAddress, BadCommand, Member, dial_address, distant_address, listen_address,
    peer_address, plain_address, relay_address,
};
use clap::builder::NonEmptyStringValueParser;
use clap::{ArgGroup, Parser, Subcommand, ValueEnum};
use multiaddr::Multiaddr;
use portolan_core::{Addr, PeerId};
use portolan_runtime::bootstrap::Url;
use std::net::{AddrParseError, IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;

/// Who can reach this machine, proved.
#[derive(Debug, Parser)]
#[command(name = "portolan", version, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes of demo and check: 0 public, 13 limited (proved, but strangers \
    are untested or refused), 10 relayed only, 11 private, 12 unknown; of all: 2 wrong use, \
    1 failure.\n\nLogs go to stderr; PORTOLAN_LOG=info (or debug, trace) shows more of them.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run five servers and a client in this process, over loopback, and print the report.
    Demo(DemoArgs),
    /// Have this machine dialled back by peers, and print the report.
    Check(CheckArgs),
    /// Dial back for others (AutoNAT v2), with identify and ping; relay for them if wanted.
    Serve(ServeArgs),
    /// Stay, and tell whenever something about the reachability of this machine changes, until Ctrl-C.
    Watch(WatchArgs),
    /// Have routers map ports of this machine until Ctrl-C, or show what they speak.
    Map(MapArgs),
    /// Wait for a peer, and join stdin and stdout, or a program, to the session with it.
    Listen(ListenArgs),
    /// Connect to a peer that listens, and join stdin and stdout to the session.
    Connect(ConnectArgs),
    /// Feed a flight record to the same core, with no sockets, and print the transcript.
    Replay(ReplayArgs),
    /// Run nodes in a simulated network: seeds, scenarios, the NAT matrix, servers that lie.
    Sim(SimArgs),
    /// Show the peer id of an identity; create it if the file is missing.
    Id(IdArgs),
    /// Look at configuration files.
    Config(ConfigArgs),
    /// Print what has a shell complete command lines of this program.
    Completions(CompletionsArgs),
}

/// What all commands share that run nodes.
#[derive(Debug, clap::Args)]
pub(crate) struct OnArgs {
    /// The asynchronous runtime to run on. The verdicts are the same on each.
    #[arg(long, value_name = "NAME", value_enum, default_value_t)]
    pub(crate) runtime: runtimes::Name,
    /// Write down all that the node (in the demo: the client) is told, for `portolan replay`. A
    /// record that is there already is kept as FILE.1.
    #[arg(long, value_name = "FILE", value_parser = file())]
    pub(crate) record: Option<PathBuf>,
}

/// Lists of peers to start from.
#[derive(Debug, clap::Args)]
pub(crate) struct BootstrapArgs {
    /// The URL of a list of peers, as `portolan serve --http` has one; without a path /status is meant. All
    /// URLs are asked at once.
    #[arg(long, value_name = "URL", value_parser = url)]
    pub(crate) bootstrap: Vec<Url>,
    /// Take lists over plain http from other hosts as well. Everybody on the way can change them.
    #[arg(long)]
    pub(crate) insecure_http: bool,
    /// Where to keep the last good lists, for the day on which no URL answers. Without it: a file in
    /// the user's cache directory.
    #[arg(long, value_name = "FILE", value_parser = file())]
    pub(crate) bootstrap_cache: Option<PathBuf>,
    /// Keep no lists.
    #[arg(long, conflicts_with = "bootstrap_cache")]
    pub(crate) no_bootstrap_cache: bool,
}

fn url(text: &str) -> Result<Url, String> {
    text.parse().map_err(|error| format!("{text:?} {error}"))
}

/// How names in addresses are resolved.
#[derive(Debug, clap::Args)]
pub(crate) struct NamesArgs {
    /// A DNS server to ask for names; up to three, best first. Without it: those of this host
    /// (/etc/resolv.conf, after /etc/hosts).
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) dns_server: Vec<SocketAddr>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Print the report as one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) on: OnArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) asking: AskingArgs,
    #[command(flatten)]
    pub(crate) bootstrap: BootstrapArgs,
    /// When to end without a verdict, seconds.
    #[arg(long, value_name = "SECS", default_value_t = 30)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
    /// Print the report as one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Whom to ask, and what to be asked about: what `check` and `watch` have in common.
#[derive(Debug, clap::Args)]
pub(crate) struct AskingArgs {
    /// A peer to ask: /ip4/…/tcp/PORT/p2p/ID or /ip4/…/udp/PORT/quic-v1/p2p/ID (or /ip6/…, or a name:
    /// /dns/…, /dns4/…, /dns6/…, /dnsaddr/…). Without /p2p/ID any peer will do that answers there.
    #[arg(long, value_name = "MULTIADDR", value_parser = peer_address)]
    pub(crate) peer: Vec<Multiaddr>,
    /// What to listen on. Without it: every IPv4 and IPv6 address, TCP and QUIC on one port that
    /// the kernel chooses.
    #[arg(long, value_name = "MULTIADDR", value_parser = listen_address)]
    pub(crate) listen: Vec<Multiaddr>,
    /// The file of the identity to use, made if it is missing. Without it: a fresh identity.
    #[arg(long, value_name = "FILE", value_parser = file())]
    pub(crate) key: Option<PathBuf>,
    /// Treat private and loopback addresses as if they were global.
    #[arg(long)]
    pub(crate) allow_private: bool,
    /// Ask no router to map the ports that are listened on. With --allow-private none is asked
    /// anyway.
    #[arg(long)]
    pub(crate) no_map: bool,
    /// A relay to ask for a reservation if not everybody can dial this machine, with /p2p/ID at its end.
    /// Peers that relay are asked as well.
    #[arg(long, value_name = "MULTIADDR", value_parser = relay_address)]
    pub(crate) relay: Vec<Multiaddr>,
    /// A server behind a relay, to ask whether strangers get in: …/p2p/RELAY/p2p-circuit/p2p/ID. This
    /// machine never contacts it directly. Two are needed to see that strangers are refused.
    #[arg(long, value_name = "MULTIADDR", value_parser = distant_address)]
    pub(crate) distant: Vec<Multiaddr>,
    /// Ask no relay.
    #[arg(long, conflicts_with = "relay")]
    pub(crate) no_relay: bool,
    #[command(flatten)]
    pub(crate) names: NamesArgs,
    #[command(flatten)]
    pub(crate) on: OnArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    pub(crate) asking: AskingArgs,
    #[command(flatten)]
    pub(crate) bootstrap: BootstrapArgs,
    #[command(flatten)]
    pub(crate) page: PageArgs,
    /// A directory for what is to be known at the next start, made if it is missing: peers that were of
    /// use, and the port, among others. What is known puts questions in order and proves nothing.
    #[arg(long, value_name = "DIR", value_parser = file())]
    pub(crate) state: Option<PathBuf>,
    /// A program to run when the state or the addresses to give to others have changed, and its arguments:
    /// the report comes on its standard input. Words are cut as those of listen --exec; no shell is
    /// involved.
    #[arg(long, value_name = "CMD", value_parser = command)]
    pub(crate) on_change: Option<Argv>,
    /// Tell in JSON, a document a line.
    #[arg(long)]
    pub(crate) json: bool,
    /// A file with options: its table [watch].
    #[arg(long, value_name = "FILE", value_parser = file())]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say whether a file may be used with --config, or what is wrong with it.
    Check {
        /// The file.
        #[arg(value_name = "FILE", value_parser = file())]
        file: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL", value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// What to listen on; the port may be 0.
    #[arg(long, value_name = "MULTIADDR", value_parser = listen_address, required = true)]
    pub(crate) listen: Vec<Multiaddr>,
    /// The file of the identity to use, made if it is missing. Without it: a fresh identity.
    #[arg(long, value_name = "FILE", value_parser = file())]
    pub(crate) key: Option<PathBuf>,
    /// Dial private and loopback addresses back as well. Refused beside a listen address that the
    /// Internet can reach.
    #[arg(long)]
    pub(crate) allow_private: bool,
    /// An IP of this host to dial back from. It is not listened on, nor told to anybody.
    #[arg(long, value_name = "IP")]
    pub(crate) dial_from: Vec<IpAddr>,
    /// A file with options: its table [serve].
    #[arg(long, value_name = "FILE", value_parser = file())]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) page: PageArgs,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) relaying: RelayingArgs,
    #[command(flatten)]
    pub(crate) names: NamesArgs,
    #[command(flatten)]
    pub(crate) on: OnArgs,
}

/// What is shown over HTTP.
#[derive(Debug, clap::Args)]
pub(crate) struct PageArgs {
    /// Serve HTTP: a page at / with all that goes on, and of a server /status (a list of peers to start from),
    /// /metrics (for Prometheus) and /healthz. With a port alone, for this host only.
    #[arg(long, value_name = "[IP:]PORT", value_parser = web)]
    pub(crate) http: Option<SocketAddr>,
    /// A name by which HTTP may be asked, beside IPs and localhost.
    #[arg(long, value_name = "NAME", requires = "http")]
    pub(crate) http_name: Vec<String>,
}

/// Who else is listed over HTTP.
#[derive(Debug, clap::Args)]
pub(crate) struct ClusterArgs {
    /// Another server of the same cluster, by its address or by the URL of its list (or of any list of
    /// them). Whoever can be dialled is listed, too.
    #[arg(long, value_name = "URL|MULTIADDR", value_parser = member, requires = "http")]
    pub(crate) cluster: Vec<Member>,
    /// Take lists of the cluster over plain http from other hosts as well.
    #[arg(long, requires = "cluster")]
    pub(crate) insecure_http: bool,
}

fn web(text: &str) -> Result<SocketAddr, String> {
    let port = text.parse::<u16>().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let wrong = || format!("{text:?} is neither a port nor IP:PORT");
    port.or_else(|_| text.parse()).map_err(|_: AddrParseError| wrong())
}

fn member(text: &str) -> Result<Member, String> {
    if text.starts_with('/') {
        return peer_address(text).map(Member::Peer).map_err(|error| error.to_string());
    }
    url(text).map(Member::List)
}

/// What a server does as a relay, and with relays.
#[derive(Debug, clap::Args)]
pub(crate) struct RelayingArgs {
    /// Relay for others as well (circuit relay v2). On SIGUSR1 nothing new is granted, and what was is
    /// served to its end.
    #[arg(long)]
    pub(crate) relay: bool,
    /// Reservations at once; of one IP 8, of one network (IPv4 /24, IPv6 /48) 32.
    #[arg(long, value_name = "N", default_value_t = 128, requires = "relay")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=2_048))]
    pub(crate) max_reservations: u16,
    /// Circuits at once; of one peer 16, from one network 64.
    #[arg(long, value_name = "N", default_value_t = 256, requires = "relay")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) max_circuits: u16,
    /// Bytes that a circuit may carry in each direction; 0 is no limit.
    #[arg(long, value_name = "N", default_value_t = 131_072, requires = "relay")]
    pub(crate) circuit_bytes: u64,
    /// How long a circuit may last, seconds; 0 is no limit.
    #[arg(long, value_name = "N", default_value_t = 120, requires = "relay")]
    pub(crate) circuit_seconds: u32,
    /// A relay to hold a reservation at all the time, with /p2p/ID at its end; at up to four.
    #[arg(long, value_name = "MULTIADDR", value_parser = relay_address)]
    pub(crate) reserve_at: Vec<Multiaddr>,
}

#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("wanted").required(true).multiple(true).args(["tcp", "udp", "list"]))]
pub(crate) struct MapArgs {
    /// A TCP port of this machine to map.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) tcp: Vec<u16>,
    /// A UDP port of this machine to map.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) udp: Vec<u16>,
    /// How long to ask for at a time, seconds. Mappings are renewed for as long as the program
    /// runs.
    #[arg(long, value_name = "SECS", default_value_t = 7_200)]
    #[arg(value_parser = clap::value_parser!(u64).range(60..=86_400))]
    pub(crate) lifetime: u64,
    /// The protocol to speak.
    #[arg(long, value_name = "NAME", value_enum, default_value_t)]
    pub(crate) protocol: Protocols,
    /// Where to remember what was mapped: after a crash the next run renews or deletes it.
    #[arg(long, value_name = "FILE", value_parser = file(), conflicts_with = "list")]
    pub(crate) ledger: Option<PathBuf>,
    /// Show what the gateways answer to which protocol, and map nothing.
    #[arg(long, conflicts_with_all = ["tcp", "udp"])]
    pub(crate) list: bool,
    /// Print JSON: a document a line for each mapping, one document of all with --list.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) on: OnArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListenArgs {
    /// What to listen on; the port may be 0. Without any: every IPv4 and IPv6 address, TCP and QUIC on
    /// one port that the kernel chooses. A - says that the session has stdin and stdout, which it
    /// has anyway unless there is an --exec.
    #[arg(value_name = "ADDR", value_parser = place)]
    pub(crate) places: Vec<Place>,
    /// A relay to be reached through, with /p2p/ID at its end. Two of them are held at a time; where none
    /// can be had within 15 s it is a failure.
    #[arg(long, value_name = "MULTIADDR", value_parser = relay_address)]
    pub(crate) relay: Vec<Multiaddr>,
    #[command(flatten)]
    pub(crate) pipe: PipeArgs,
    /// A peer that may connect; `portolan id` shows one's own. Others are refused.
    #[arg(long, value_name = "PEER_ID", conflicts_with = "allow_anyone")]
    pub(crate) allow: Vec<PeerId>,
    /// Let everybody connect.
    #[arg(long)]
    pub(crate) allow_anyone: bool,
    /// A program to run for each session, with the session as its stdin and stdout, and its arguments.
    /// Words are cut at white space, quotes and backslashes hold them together; no shell is involved.
    #[arg(long, value_name = "CMD", value_parser = command)]
    pub(crate) exec: Option<Argv>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ConnectArgs {
    /// Where the peer is, or a way to it through a relay, as its `portolan listen` printed it.
    #[arg(value_name = "MULTIADDR", value_parser = dial_address)]
    pub(crate) peer: Multiaddr,
    /// Tell of attempts at a direct connection beside a relayed one, and why there is none.
    #[arg(long)]
    pub(crate) explain: bool,
    #[command(flatten)]
    pub(crate) pipe: PipeArgs,
    /// Stdin and stdout, which the session has anyway.
    #[arg(value_name = "-", value_parser = ["-"])]
    _standard: Option<String>,
}

/// What `listen` and `connect` have in common.
#[derive(Debug, clap::Args)]
pub(crate) struct PipeArgs {
    #[command(flatten)]
    pub(crate) bootstrap: BootstrapArgs,
    /// Treat private and loopback addresses as if they were global.
    #[arg(long)]
    pub(crate) allow_private: bool,
    /// Predict which ports a NAT gives out, where nothing else leads to a direct connection; the other side needs
    /// the flag as well. It costs up to 32 packets to ports at which nobody is, three times in a row.
    #[arg(long)]
    pub(crate) predict_ports: bool,
    /// The file of the identity to use, made if it is missing. Without it: a fresh identity.
    #[arg(long, value_name = "FILE", value_parser = file())]
    pub(crate) key: Option<PathBuf>,
    /// Tell on stderr in JSON, a document a line.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) names: NamesArgs,
    #[command(flatten)]
    pub(crate) on: OnArgs,
}

/// What `listen` may be told without a flag.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// Listen there.
    Address(Multiaddr),
    /// Stdin and stdout.
    Standard,
}

fn place(text: &str) -> Result<Place, BadAddress> {
    if text == "-" { Ok(Place::Standard) } else { listen_address(text).map(Place::Address) }
}

fn command(text: &str) -> Result<Argv, BadCommand> {
    text.parse()
}

/// The protocols that may be spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocols {
    /// All of them at once.
    #[default]
    Auto,
    Pcp,
    NatPmp,
    Upnp,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArgs {
    /// The record, as --record wrote it. Of a record in several parts each is replayed by itself.
    #[arg(value_name = "FILE", value_parser = file())]
    pub(crate) file: PathBuf,
    /// Stop after the event of this number; the numbers are those of the transcript.
    #[arg(long, value_name = "N")]
    pub(crate) until: Option<u64>,
    /// Say in the end why this address is judged as it is, in place of all verdicts.
    #[arg(long, value_name = "MULTIADDR", value_parser = plain_address)]
    pub(crate) explain: Option<Addr>,
    /// Print no transcript, only the verdicts.
    #[arg(long)]
    pub(crate) quiet: bool,
    /// Where the replay differs from the record, take what comes out now for right, and write it
    /// into the record.
    #[arg(long, conflicts_with = "until")]
    pub(crate) bless: bool,
    /// Write the record anew, with other IPs and peers and without signatures, so that it can be
    /// shown around; the transcript is that of the new one.
    #[arg(long, value_name = "OUT", value_parser = file())]
    #[arg(conflicts_with_all = ["until", "explain", "bless"])]
    pub(crate) redact: Option<PathBuf>,
}

/// What cannot stand beside the matrix. Its flags say so as well: clap demands nothing that
/// conflicts with what is there.
const OTHERS: [&str; 3] = ["seeds", "scenario", "liars"];

#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true)
    .args(["seed", "seeds", "scenario", "matrix", "liars"]))]
#[command(group = ArgGroup::new("told").multiple(true).args(["seed", "scenario"]))]
#[command(group = ArgGroup::new("many").args(["seeds", "liars", "matrix"]))]
pub(crate) struct SimArgs {
    /// Run the world of one seed, and print the transcript of a node. Beside --matrix: the run
    /// whose transcript the page shows.
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "scenario", "liars"])]
    pub(crate) seed: Option<u64>,
    /// Run the world of every seed from A to below B, and print those that break a promise.
    #[arg(long, value_name = "A..B", value_parser = seeds)]
    #[arg(conflicts_with_all = ["scenario", "matrix", "liars"])]
    pub(crate) seeds: Option<Range<u64>>,
    /// Run the world, or the story of one node, that a file tells.
    #[arg(long, value_name = "FILE", value_parser = file())]
    #[arg(conflicts_with_all = ["matrix", "liars"])]
    pub(crate) scenario: Option<PathBuf>,
    /// Measure what a node concludes behind every kind of network, and how fast.
    #[arg(long, conflicts_with = "liars")]
    pub(crate) matrix: bool,
    /// Run so many seeds of each setting with servers that lie.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) liars: Option<u64>,
    /// How many threads run seeds and cells. Without it: one for each core.
    #[arg(long, value_name = "N", requires = "many", conflicts_with = "scenario")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub(crate) jobs: Option<u16>,
    /// Whose transcript to print. Without it: that of the first node that dials.
    #[arg(long, value_name = "NAME", requires = "told")]
    #[arg(conflicts_with_all = ["seeds", "liars"])]
    pub(crate) node: Option<String>,
    /// How often each cell of the matrix is run.
    #[arg(long, value_name = "N", default_value_t = 5, requires = "matrix")]
    #[arg(conflicts_with_all = OTHERS)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) runs: u64,
    /// How many of a hundred packets get lost in the matrix.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, requires = "matrix")]
    #[arg(conflicts_with_all = OTHERS)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=50))]
    pub(crate) loss: u32,
    /// How long a round trip to every server takes in the matrix, milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 40, requires = "matrix")]
    #[arg(conflicts_with_all = OTHERS)]
    #[arg(value_parser = clap::value_parser!(u64).range(4..=2_000))]
    pub(crate) rtt: u64,
    /// Write the matrix into one page of HTML that needs nothing else.
    #[arg(long, value_name = "FILE", value_parser = file(), requires = "matrix")]
    #[arg(conflicts_with_all = OTHERS)]
    pub(crate) html: Option<PathBuf>,
    /// Print the result as one JSON document.
    #[arg(long, conflicts_with = "scenario")]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct IdArgs {
    /// The file of the identity (libp2p's protobuf form of a private key; mode 0600).
    #[arg(long, value_name = "FILE", value_parser = file())]
    pub(crate) key: PathBuf,
}

/// Seeds from A to below B.
fn seeds(text: &str) -> Result<Range<u64>, String> {
    let parts = text
        .split_once("..")
        .and_then(|(from, below)| Some(from.parse().ok()?..below.parse().ok()?));
    let seeds: Range<u64> = parts.ok_or("expected A..B, such as 0..1000")?;
    if seeds.is_empty() {
        return Err("there is no seed from A to below B".into());
    }
    Ok(seeds)
}

fn file() -> impl clap::builder::TypedValueParser<Value = PathBuf> {
    clap::builder::TypedValueParser::map(NonEmptyStringValueParser::new(), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_contradict_nothing() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_range_of_seeds_has_one_at_least() {
        assert_eq!(seeds("3..5"), Ok(3..5));
        for wrong in ["", "3", "..", "3..", "..5", "5..3", "3..3", "a..b", "3..=5", "-1..5"] {
            assert!(seeds(wrong).is_err(), "{wrong:?}");
        }
    }
}
