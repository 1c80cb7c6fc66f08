//! What is told while sessions run.

use crate::address::short;
use portolan_core::{ConnId, Transport};
use portolan_runtime::ConnectionInfo;
use portolan_runtime::pipe::Path;
use serde::Serialize;
use std::fmt;

/// One piece of news. Its `Display` is a line for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PipeNews {
    /// An address to give to others.
    Listening {
        /// A multiaddr with `/p2p/` and the peer id.
        address: String,
    },
    /// Something became of a list of peers to start from.
    Bootstrap {
        /// What, for people.
        text: String,
    },
    /// An address that leads here no longer: its relay is lost, or another one is better.
    Withdrawn {
        /// A multiaddr with `/p2p/` and the peer id.
        address: String,
    },
    /// A session has begun.
    Session {
        /// The peer.
        peer: String,
        /// The id of the session.
        session: String,
    },
    /// What carries the session now.
    Path {
        /// The peer.
        peer: String,
        /// The way that it took before, if it had one.
        before: Option<PathReport>,
        /// The way that it takes.
        path: PathReport,
    },
    /// Nothing carries the session; it waits.
    Waiting {
        /// The peer.
        peer: String,
    },
    /// Both sides of a relayed connection try to reach each other directly.
    Punching {
        /// The peer.
        peer: String,
        /// Which attempt it is, from 1.
        attempt: u8,
    },
    /// There is no direct connection for now; the relayed one stays.
    NotDirect {
        /// The peer.
        peer: String,
        /// Why, in a word.
        reason: &'static str,
        /// Why, for people.
        explanation: &'static str,
        /// What the reason is about, such as `ip4/quic`, where it is about one family and transport.
        #[serde(skip_serializing_if = "Option::is_none")]
        class: Option<String>,
        /// Attempts that were made, number.
        attempts: u8,
    },
    /// A session has ended, and all has arrived.
    Ended {
        /// The peer.
        peer: String,
        /// Bytes that went.
        sent: u64,
        /// Bytes that came.
        received: u64,
    },
    /// A session has failed.
    Failed {
        /// The peer.
        peer: String,
        /// Why, for people.
        error: String,
    },
}

/// A way that a session takes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PathReport {
    /// `direct` or `relayed`.
    pub route: &'static str,
    /// The relay that it leads through, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// `tcp` or `quic`; to the relay, if there is one.
    pub transport: &'static str,
    /// The address of the peer, or of the relay, a multiaddr.
    pub remote: String,
    /// A round trip, in milliseconds.
    pub rtt_ms: f64,
}

impl fmt::Display for PathReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PathReport { route, relay, transport, rtt_ms, .. } = self;
        let digits = usize::from(*rtt_ms < 10.0);
        let over = match relay {
            Some(relay) => format!("via {}", short(relay)),
            None => transport.to_uppercase(),
        };
        write!(f, "{route} {over} {rtt_ms:.digits$} ms")
    }
}

impl fmt::Display for PipeNews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PipeNews::Listening { address } => write!(f, "listening: portolan connect {address}"),
            PipeNews::Bootstrap { text } => f.write_str(text),
            PipeNews::Withdrawn { address } => write!(f, "no longer listening: {address}"),
            PipeNews::Session { peer, .. } => write!(f, "session with {peer}"),
            PipeNews::Path { before: Some(before), path, .. } => write!(f, "{before} → {path}"),
            PipeNews::Path { before: None, path, .. } => path.fmt(f),
            PipeNews::Waiting { .. } => f.write_str("no connection; the session waits for another"),
            PipeNews::Punching { attempt, .. } => {
                write!(f, "trying a direct connection, attempt {attempt}")
            }
            PipeNews::NotDirect { explanation, class, attempts, .. } => {
                f.write_str("no direct connection")?;
                match attempts {
                    0 => {}
                    1 => f.write_str(" after 1 attempt")?,
                    _ => write!(f, " after {attempts} attempts")?,
                }
                if let Some(class) = class {
                    write!(f, " ({class})")?;
                }
                write!(f, ": {explanation}")
            }
            PipeNews::Ended { sent, received, .. } => {
                write!(f, "done: {sent} bytes sent, {received} bytes received")
            }
            PipeNews::Failed { peer, error } => write!(f, "session with {peer} failed: {error}"),
        }
    }
}

/// Follows the way that one session takes.
pub(super) struct Tracker {
    peer: String,
    conn: Option<ConnId>,
    last: Option<PathReport>,
}

impl Tracker {
    pub(super) fn new(peer: String) -> Tracker {
        Tracker { peer, conn: None, last: None }
    }

    /// The news in a change of the path, if there is any.
    pub(super) fn at(&mut self, path: Option<Path>, all: &[ConnectionInfo]) -> Option<PipeNews> {
        let peer = self.peer.clone();
        let Some(path) = path else {
            self.conn.take()?;
            return Some(PipeNews::Waiting { peer });
        };
        // A way is told once it is known how long it is.
        let rtt = path.rtt.filter(|_| self.conn != Some(path.conn))?;
        let info = all.iter().find(|info| info.conn == path.conn)?;
        self.conn = Some(path.conn);
        let path = PathReport {
            route: if info.relayed { "relayed" } else { "direct" },
            relay: info.relay.map(|relay| relay.to_string()),
            transport: match info.remote.transport {
                Transport::Tcp => "tcp",
                Transport::Quic => "quic",
            },
            remote: info.remote.to_string(),
            rtt_ms: rtt.as_secs_f64() * 1_000.0,
        };
        let before = self.last.replace(path.clone());
        Some(PipeNews::Path { peer, before, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_told_in_a_few_words() {
        let path = |transport, rtt_ms| PathReport {
            route: "direct",
            relay: None,
            transport,
            remote: "/ip4/192.0.2.1/tcp/1".into(),
            rtt_ms,
        };
        let peer = String::from("P");
        let moved = PipeNews::Path {
            peer: peer.clone(),
            before: Some(path("tcp", 84.2)),
            path: path("quic", 2.04),
        };
        assert_eq!(moved.to_string(), "direct TCP 84 ms → direct QUIC 2.0 ms");
        let relay = Some("12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo".into());
        let relayed = PathReport { route: "relayed", relay, ..path("tcp", 84.2) };
        assert_eq!(relayed.to_string(), "relayed via …kSCVe2Xo 84 ms");
        let json = serde_json::to_value(PipeNews::Waiting { peer }).expect("it can be written");
        assert_eq!(json, serde_json::json!({ "event": "waiting", "peer": "P" }));
    }
}
