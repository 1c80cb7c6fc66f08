//! Facts as a story: what failed anywhere can be pasted into `tests/scenarios/`.

#![allow(clippy::wildcard_enum_match_arm, reason = "each function is about a few of many facts")]

use super::cast::Peer;
use super::fact::Fact;
use super::shape::Shape;
use portolan_core::{Addr, DialBackConfig, DialFailure, Duration, Side, StreamEnd, StreamFailure};
use std::fmt;

/// The script of a story in which these facts happen, after the prologue of the shape. Its first
/// line is `title`, which is one line itself.
pub fn script(title: &str, shape: &Shape, facts: &[Fact]) -> String {
    let mut lines = vec![format!("# {title}")];
    let settings = &shape.settings;
    lines.push(match settings.ping {
        None => "config no-ping".to_owned(),
        Some(interval) => format!("config ping {}", Span(interval)),
    });
    lines.push(format!("config draw {}", settings.draws));
    lines.extend(settings.external.iter().map(|addr| format!("config external {addr}")));
    lines.extend(settings.dial_back.as_ref().map(limits));
    lines.extend(shape.prologue.iter().chain(facts).map(Fact::to_string));
    lines.join("\n") + "\n"
}

fn limits(config: &DialBackConfig) -> String {
    format!(
        "config dial-back global={} peer={} prefix={} target={} target-prefix={} dials={}",
        config.global_per_min,
        config.peer_per_min,
        config.prefix_per_min,
        config.target_per_min,
        config.target_prefix_per_min,
        config.dials_max,
    )
}

/// A span in whole milliseconds, in the largest unit that tells it.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        match [("h", 3_600_000), ("m", 60_000), ("s", 1_000)]
            .into_iter()
            .find(|(_, unit)| millis > 0 && millis.is_multiple_of(*unit))
        {
            Some((name, unit)) => write!(f, "{}{name}", millis / unit),
            None => write!(f, "{millis}ms"),
        }
    }
}

impl fmt::Display for Fact {
    /// The line, or the lines, of `docs/scenarios.md`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fact::Listen { listener, addr } => write!(f, "listen {listener} {addr}"),
            Fact::CloseListener { listener } => write!(f, "close-listener {listener}"),
            Fact::Interfaces { ips } => {
                f.write_str("interfaces")?;
                ips.iter().try_for_each(|ip| write!(f, " {ip}"))
            }
            Fact::Contacted { ip } => write!(f, "contacted {ip}"),
            Fact::Reported { addr } => write!(f, "dial-failure-reported {addr}"),
            Fact::Connect { .. } | Fact::DialBack { .. } => connection(self, f),
            Fact::Disconnect { conn } => write!(f, "disconnect {conn}"),
            Fact::Identify { conn, observed, server } => {
                write!(f, "identify {conn}")?;
                said(f, *observed, *server)
            }
            Fact::Push { conn, observed, server } => {
                write!(f, "push {conn}")?;
                said(f, *observed, *server)
            }
            Fact::AskIdentify { conn } => write!(f, "ask-identify {conn}"),
            Fact::Echo { conn } => write!(f, "echo {conn}"),
            Fact::Answer { server, addr, answer } => {
                write!(f, "answer {server} addr={addr} {}", answer.words())
            }
            Fact::DataRequest { server, addr, bytes } => {
                write!(f, "data-request {server} addr={addr} {bytes}")
            }
            Fact::DialBackOn { conn, nonce } => write!(f, "dial-back {conn} {nonce}"),
            Fact::Failed { stream, reason } => write!(f, "failed {stream} {}", failure(*reason)),
            Fact::Ended { stream, end } => write!(f, "{} {stream}", ending(*end)),
            Fact::Request { conn, nonce, addrs } => {
                write!(f, "request {conn} nonce={nonce}")?;
                addrs.iter().try_for_each(|addr| write!(f, " {addr}"))
            }
            Fact::Data { conn, bytes, chunk } => write!(f, "data {conn} {bytes} chunk={chunk}"),
            Fact::Dialled { dial, conn, peer } => write!(f, "dialled {dial} {conn} {peer}"),
            Fact::DialFailed { dial, reason } => {
                write!(f, "dial-failed {dial} {}", dial_failure(*reason))
            }
            Fact::Accept { conn } => write!(f, "accept {conn}"),
            Fact::Pass { span } => write!(f, "+{}", Span(*span)),
            Fact::Oversleep { span } => write!(f, "oversleep {}", Span(*span)),
            Fact::Resume { span } => write!(f, "resume {}", Span(*span)),
        }
    }
}

fn connection(fact: &Fact, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match fact {
        Fact::Connect { conn, peer, side, remote, local, rtt, relayed } => {
            let side = if *side == Side::Outbound { "out" } else { "in" };
            write!(f, "connect {conn} {peer} {side} {remote} local={local}")?;
            if let Some(rtt) = rtt {
                write!(f, " rtt={}", Span(*rtt))?;
            }
            if *relayed { f.write_str(" relayed") } else { Ok(()) }
        }
        Fact::DialBack { conn, peer, remote, local, nonce, stays } => {
            write!(f, "dial-back {conn} {peer} {remote} {nonce} local={local}")?;
            if *stays { Ok(()) } else { write!(f, "\ndisconnect {conn}") }
        }
        _ => Ok(()),
    }
}

fn said(f: &mut fmt::Formatter<'_>, observed: Option<Addr>, server: bool) -> fmt::Result {
    if let Some(observed) = observed {
        write!(f, " observed={observed}")?;
    }
    f.write_str(if server { " server" } else { " client" })
}

fn failure(reason: StreamFailure) -> &'static str {
    match reason {
        StreamFailure::Unsupported => "unsupported",
        StreamFailure::TimedOut => "timed-out",
        StreamFailure::Failed | _ => "failed",
    }
}

fn ending(end: StreamEnd) -> &'static str {
    match end {
        StreamEnd::Reset => "reset",
        StreamEnd::BadFrame => "bad-frame",
        StreamEnd::Finished | _ => "finish",
    }
}

fn dial_failure(reason: DialFailure) -> &'static str {
    match reason {
        DialFailure::Refused => "refused",
        DialFailure::TimedOut => "timed-out",
        DialFailure::Handshake => "handshake",
        DialFailure::LocalFault | _ => "local-fault",
    }
}

/// The peers that a script speaks of are named in it; this is how they are told apart.
impl Peer {
    /// Whether this is one of the identities under which servers dial back.
    pub fn is_back(self) -> bool {
        self.name().starts_with('X')
    }
}
