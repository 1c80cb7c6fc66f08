//! What can be said on the command line.

use crate::runtimes;
use clap::builder::NonEmptyStringValueParser;
use clap::{Parser, Subcommand};
use multiaddr::Multiaddr;
use portolan::{listen_address, peer_address, plain_address};
use portolan_core::Addr;
use std::net::IpAddr;
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
    /// Dial back for others (AutoNAT v2), with identify and ping.
    Serve(ServeArgs),
    /// Feed a flight record to the same core, with no sockets, and print the transcript.
    Replay(ReplayArgs),
    /// Show the peer id of an identity; create it if the file is missing.
    Id(IdArgs),
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
    /// A peer to ask: /ip4/…/tcp/PORT/p2p/ID or /ip4/…/udp/PORT/quic-v1/p2p/ID (or /ip6/…).
    /// Without /p2p/ID any peer will do that answers there.
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
    /// When to end without a verdict, seconds.
    #[arg(long, value_name = "SECS", default_value_t = 30)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
    /// Print the report as one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) on: OnArgs,
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
    #[command(flatten)]
    pub(crate) on: OnArgs,
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

#[derive(Debug, clap::Args)]
pub(crate) struct IdArgs {
    /// The file of the identity (libp2p's protobuf form of a private key; mode 0600).
    #[arg(long, value_name = "FILE", value_parser = file())]
    pub(crate) key: PathBuf,
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
}
