//! A server that follows a script: an honest rust-libp2p swarm, but for what it says and does on the
//! streams of AutoNAT. It prints what it listens on, with its peer id, and runs until it is killed.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is what a program says")]

use crate::scripted::{Answer, BadFrame, Behavior, ScriptedServer};
use clap::{Parser, ValueEnum};
use libp2p::Multiaddr;
use std::ffi::OsString;
use std::process::ExitCode;

/// What a server does instead of its duty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Trick {
    /// It says that it could not dial, without a try.
    Deny,
    /// It says that it reached us, without a try.
    Claim,
    /// It says so twice.
    ClaimTwice,
    /// `E_REQUEST_REJECTED`.
    Reject,
    /// `E_DIAL_REFUSED`.
    Refuse,
    /// `E_INTERNAL_ERROR`.
    InternalError,
    /// `E_DIAL_BACK_ERROR`, without a try.
    DialBackError,
    /// Codes that nobody has defined.
    UnheardOf,
    /// It delivers another nonce.
    WrongNonce,
    /// It connects, says nothing, and claims success.
    NoMessage,
    /// It delivers the nonce over the connection that stands.
    ExistingConnection,
    /// It delivers the nonce over the other transport.
    OtherTransport,
    /// It never answers.
    Timeout,
    /// It begins to deliver the nonce, and never ends.
    Stalled,
    /// It wants ten gigabytes of dial data.
    AbsurdDialData,
    /// Its answer is longer than the protocol allows.
    Oversized,
    /// Its answer ends in the middle.
    Truncated,
    /// Its answer is not protobuf.
    Garbage,
    /// It answers byte by byte.
    SlowLoris,
    /// It resets the stream.
    Reset,
}

/// Those of which nothing can be learnt: a node that has only them knows as much as before.
pub const TRICKS: [Trick; 19] = [
    Trick::Claim,
    Trick::ClaimTwice,
    Trick::Reject,
    Trick::Refuse,
    Trick::InternalError,
    Trick::DialBackError,
    Trick::UnheardOf,
    Trick::WrongNonce,
    Trick::NoMessage,
    Trick::ExistingConnection,
    Trick::OtherTransport,
    Trick::Timeout,
    Trick::Stalled,
    Trick::AbsurdDialData,
    Trick::Oversized,
    Trick::Truncated,
    Trick::Garbage,
    Trick::SlowLoris,
    Trick::Reset,
];

impl Trick {
    /// As the command line calls it.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn behavior(self, other: &Other) -> Behavior {
        match self {
            Trick::Deny => Behavior::FORCE_UNREACHABLE,
            Trick::Claim => Behavior::OK_WITHOUT_DIAL_BACK,
            Trick::ClaimTwice => Behavior::SayTwice(Answer::REACHED, Answer::REACHED),
            Trick::Reject => Behavior::REJECT,
            Trick::Refuse => Behavior::REFUSE,
            Trick::InternalError => Behavior::INTERNAL_ERROR,
            Trick::DialBackError => Behavior::Say(Answer::DIAL_BACK_ERROR),
            Trick::UnheardOf => Behavior::Say(Answer::UNHEARD_OF),
            Trick::WrongNonce => Behavior::WRONG_NONCE,
            Trick::NoMessage => Behavior::NO_DIAL_BACK_MESSAGE,
            Trick::ExistingConnection => Behavior::NONCE_ON_EXISTING_CONNECTION,
            Trick::OtherTransport => other.swapped(),
            Trick::Timeout => Behavior::Timeout,
            Trick::Stalled => Behavior::StalledDialBack,
            Trick::AbsurdDialData => Behavior::AbsurdDialData,
            Trick::Oversized => Behavior::Break(BadFrame::Oversized),
            Trick::Truncated => Behavior::Break(BadFrame::Truncated),
            Trick::Garbage => Behavior::Break(BadFrame::Garbage),
            Trick::SlowLoris => Behavior::Break(BadFrame::SlowLoris),
            Trick::Reset => Behavior::Break(BadFrame::Reset),
        }
    }
}

/// A server that follows a script.
#[derive(Debug, Parser)]
struct Args {
    /// What it listens on.
    #[arg(long, required = true)]
    listen: Vec<Multiaddr>,
    /// What it does.
    #[arg(long)]
    trick: Trick,
    #[command(flatten)]
    other: Other,
}

/// Where the node is that asks, for the trick that needs to know.
#[derive(Debug, clap::Args)]
struct Other {
    #[arg(long)]
    tcp: Option<Multiaddr>,
    #[arg(long)]
    quic: Option<Multiaddr>,
}

impl Other {
    fn swapped(&self) -> Behavior {
        let to = |addr: &Option<Multiaddr>| {
            Box::new(addr.clone().map_or(Behavior::Timeout, Behavior::nonce_elsewhere))
        };
        Behavior::PerTransport { tcp: to(&self.quic), quic: to(&self.tcp) }
    }
}

/// Be such a server.
pub(super) fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => error.exit(),
    };
    let tokio = match tokio::runtime::Runtime::new() {
        Ok(tokio) => tokio,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    tokio.block_on(async {
        let behavior = args.trick.behavior(&args.other);
        let server = ScriptedServer::start(args.listen, behavior, 1).await;
        server.full_addrs().iter().for_each(|addr| println!("{addr}"));
        std::future::pending::<ExitCode>().await
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_tells_something_is_the_one_trick_that_is_left_out() {
        let all = Trick::value_variants();
        let left_out: Vec<&Trick> = all.iter().filter(|trick| !TRICKS.contains(trick)).collect();
        assert_eq!(left_out, [&Trick::Deny]);
    }
}
