//! What a node was told, in lines that two runs can share.
//!
//! Lines are those of [`portolan_core::transcript`], sorted by connection. What is compared is, for
//! each connection, the sequence of its events, of the notices that came of them, and of the
//! orders for it; connections are a multiset, since which of two comes first is nobody's doing.
//! What belongs to no connection is a sequence of its own. Where two runs cannot be the same, a
//! line says what matters of it instead:
//!
//! - Peers have the names that the story gives them, of the identity that they show.
//! - Ids of connections are left out: core asserts that none is used twice. Streams are counted
//!   within their connection, protocol and side.
//! - A port that somebody listens on has the name of who does, any other is `any`: whether a
//!   connection leaves from a listen port, and at which one it arrives, stays visible. So do IPs.
//! - A nonce is the number of its first appearance in the run, so that it is visible which probe a
//!   dial-back belongs to.
//! - The time of a step and the length of a round trip are left out, and so are events that tell
//!   of time alone; what comes of these is kept. That there was a round-trip time is visible.

use crate::record::Step;
use portolan_core::transcript::{Names, Scribe};
use portolan_core::{
    Action, Addr, ConnId, Connected, Duration, Event, Instant, Notice, PeerId, StreamId, Transport,
};
use portolan_sim::diff::diff;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// The connection that a transcript is about, in that transcript.
const THIS: ConnId = ConnId(0);
/// Any other connection.
const ANOTHER: ConnId = ConnId(1);

/// What stands between the words of a line.
const BETWEEN: [char; 5] = [' ', ',', '[', ']', '='];

/// Who is who, and listens where.
#[derive(Default)]
pub(crate) struct Known {
    peers: Vec<(PeerId, String)>,
    ports: Vec<(Addr, String)>,
    nonces: Vec<String>,
    /// Lines of the story's own.
    pub(crate) notes: Vec<String>,
}

impl Known {
    pub(crate) fn peer(&mut self, peer: PeerId, name: &str) {
        self.peers.push((peer, name.to_owned()));
    }

    pub(crate) fn port(&mut self, addr: Addr, name: &str) {
        self.ports.push((addr, name.to_owned()));
    }

    fn port_name(&self, addr: Addr) -> &str {
        let is = |known: Addr| {
            let anywhere = known.ip.is_unspecified() && known.ip.is_ipv4() == addr.ip.is_ipv4();
            known.port == addr.port
                && known.transport == addr.transport
                && (known.ip == addr.ip || anywhere)
        };
        let found = self.ports.iter().find(|(known, _)| is(*known));
        found.map_or("any", |(_, name)| name)
    }

    fn lines(&mut self, entries: Vec<Entry>) -> Vec<String> {
        let texts: Vec<String> = {
            let mut scribe = Scribe::new(&*self, Instant::ZERO);
            let text = |entry| match entry {
                Entry::Event(event) => format!("< {}", scribe.event(&event)),
                Entry::Action(action) => format!("  {}", scribe.action(&action)),
            };
            entries.into_iter().map(text).collect()
        };
        texts.iter().map(|text| self.plain(text)).collect()
    }

    /// A text with names for its ports and nonces.
    fn plain(&mut self, text: &str) -> String {
        let mut out = String::new();
        let mut before = "";
        for part in text.split_inclusive(BETWEEN) {
            let word = part.trim_end_matches(BETWEEN);
            match before {
                "nonce=" => out += &self.nonce(word),
                // Who signed it; what follows is when.
                "record=" => out += word.split(':').next().unwrap_or_default(),
                _ => out += &self.without_port(word),
            }
            out += &part[word.len()..];
            before = part;
        }
        out
    }

    fn without_port(&self, word: &str) -> String {
        let Some(addr) = addr_in(word) else { return word.to_owned() };
        let with = |port: &str| match addr.transport {
            Transport::Tcp => format!("/tcp/{port}"),
            Transport::Quic => format!("/udp/{port}"),
        };
        word.replacen(&with(&addr.port.to_string()), &with(self.port_name(addr)), 1)
    }

    fn nonce(&mut self, nonce: &str) -> String {
        let known = self.nonces.iter().position(|known| known == nonce);
        let number = known.unwrap_or_else(|| {
            self.nonces.push(nonce.to_owned());
            self.nonces.len() - 1
        });
        format!("#{number}")
    }
}

impl Names for &Known {
    fn name(&self, peer: &PeerId) -> String {
        let found = self.peers.iter().find(|(known, _)| known == peer);
        found.map_or_else(|| "stranger".into(), |(_, name)| name.clone())
    }
}

/// What a run told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// What belongs to no connection.
    node: Vec<String>,
    /// Every transcript of a connection, and how many connections have it.
    conns: BTreeMap<Vec<String>, usize>,
}

impl Told {
    pub(crate) fn of(steps: &[Step], mut known: Known) -> Told {
        let mut sorted = Sorted::default();
        for (event, actions) in steps {
            if let Event::ListenerOpened { listener, addr } = event {
                known.port(*addr, &format!("Node-{listener}"));
            }
            sorted.take(event, actions);
        }
        let mut node = known.lines(sorted.node);
        node.append(&mut known.notes);
        let mut conns = BTreeMap::new();
        for entries in sorted.conns.into_values() {
            *conns.entry(known.lines(entries)).or_default() += 1;
        }
        Told { node, conns }
    }

    /// How many connections there were.
    pub(crate) fn conns(&self) -> usize {
        self.conns.values().sum()
    }

    /// Whether a line has this in it.
    pub(crate) fn has(&self, part: &str) -> bool {
        self.node.iter().chain(self.conns.keys().flatten()).any(|line| line.contains(part))
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "what belongs to no connection:")?;
        self.node.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        for (lines, count) in &self.conns {
            writeln!(f, "a connection ({count} of them):")?;
            lines.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        Ok(())
    }
}

/// What is compared of one step.
enum Entry {
    Event(Event),
    Action(Action),
}

/// Steps by the connection that they are about.
#[derive(Default)]
struct Sorted {
    node: Vec<Entry>,
    conns: BTreeMap<ConnId, Vec<Entry>>,
    /// Which connection a stream is on, and its name there.
    streams: BTreeMap<StreamId, (ConnId, StreamId)>,
}

impl Sorted {
    fn take(&mut self, event: &Event, actions: &[Action]) {
        let conn = self.take_event(event);
        for action in actions {
            self.take_action(action, conn);
        }
    }

    /// Returns the connection that it is about.
    fn take_event(&mut self, event: &Event) -> Option<ConnId> {
        let (conn, event) = match *event {
            Event::Tick => return None,
            Event::Connected(ref facts) => (Some(facts.conn), Event::Connected(plain_facts(facts))),
            Event::Disconnected { conn } => (Some(conn), Event::Disconnected { conn: THIS }),
            Event::StreamOpened { conn, stream } => {
                let stream = self.name(conn, stream);
                (Some(conn), Event::StreamOpened { conn: THIS, stream })
            }
            Event::StreamFailed { stream, reason } => {
                let (conn, stream) = self.find(stream);
                (conn, Event::StreamFailed { stream, reason })
            }
            Event::Frame { stream, ref body } => {
                let (conn, stream) = self.find(stream);
                (conn, Event::Frame { stream, body: body.clone() })
            }
            Event::StreamClosed { stream, end } => {
                let (conn, stream) = self.find(stream);
                (conn, Event::StreamClosed { stream, end })
            }
            Event::Observed { conn, observed } => {
                (Some(conn), Event::Observed { conn: THIS, observed })
            }
            Event::ProtocolsListed { conn, protocols } => {
                (Some(conn), Event::ProtocolsListed { conn: THIS, protocols })
            }
            Event::Resumed { .. }
            | Event::ListenerOpened { .. }
            | Event::ListenerClosed { .. }
            | Event::InterfacesChanged { .. }
            | Event::Contacted { .. }
            | Event::Introduced { .. }
            | Event::DialFailed { .. }
            | Event::DialFailureReported { .. }
            | Event::Mapping(_)
            | Event::Relay(_)
            | Event::Punch(_) => (None, event.clone()),
            _ => unreachable!("an event that this suite does not know: give it its place above"),
        };
        self.push(conn, Entry::Event(event));
        conn
    }

    /// `about` is the connection of the event that it came of.
    fn take_action(&mut self, action: &Action, about: Option<ConnId>) {
        let (conn, action) = match *action {
            Action::OpenStream { conn, stream } => {
                let stream = self.name(conn, stream);
                (Some(conn), Action::OpenStream { conn: THIS, stream })
            }
            Action::Send { stream, ref body } => {
                let (conn, stream) = self.find(stream);
                (conn, Action::Send { stream, body: body.clone() })
            }
            Action::CloseStream { stream } => {
                let (conn, stream) = self.find(stream);
                (conn, Action::CloseStream { stream })
            }
            Action::ResetStream { stream } => {
                let (conn, stream) = self.find(stream);
                (conn, Action::ResetStream { stream })
            }
            Action::Disconnect { conn } => (Some(conn), Action::Disconnect { conn: THIS }),
            Action::Notify(ref notice) => (about, Action::Notify(plain_notice(notice, about))),
            Action::Dial(_) | Action::Mapping(_) | Action::Relay(_) | Action::Punch(_) => {
                (None, action.clone())
            }
            _ => unreachable!("an action that this suite does not know: give it its place above"),
        };
        self.push(conn, Entry::Action(action));
    }

    fn push(&mut self, conn: Option<ConnId>, entry: Entry) {
        match conn {
            Some(conn) => self.conns.entry(conn).or_default().push(entry),
            None => self.node.push(entry),
        }
    }

    /// The name of a stream, which is given with its first mention.
    fn name(&mut self, conn: ConnId, stream: StreamId) -> StreamId {
        let alike = |(on, name): &&(ConnId, StreamId)| {
            *on == conn && name.side == stream.side && name.protocol == stream.protocol
        };
        let number = self.streams.values().filter(alike).count() as u64;
        self.streams.entry(stream).or_insert((conn, StreamId { number, ..stream })).1
    }

    /// Where a stream is that has a name. One that has none belongs to no connection.
    fn find(&self, stream: StreamId) -> (Option<ConnId>, StreamId) {
        let found = self.streams.get(&stream);
        found.map_or((None, stream), |(conn, name)| (Some(*conn), *name))
    }
}

fn plain_facts(facts: &Connected) -> Connected {
    Connected { conn: THIS, rtt: facts.rtt.map(|_| Duration::ZERO), ..facts.clone() }
}

/// A notice that tells whether it is about this connection or another.
fn plain_notice(notice: &Notice, about: Option<ConnId>) -> Notice {
    let plain = |conn: ConnId| if Some(conn) == about { THIS } else { ANOTHER };
    match *notice {
        Notice::Identified { conn, peer, observed, server, ref agent } => {
            let agent = agent.clone();
            Notice::Identified { conn: plain(conn), peer, observed, server, agent }
        }
        Notice::NotIdentified { conn, peer } => Notice::NotIdentified { conn: plain(conn), peer },
        Notice::Ignored { oddity, conn } => Notice::Ignored { oddity, conn: conn.map(plain) },
        Notice::CandidateChanged { .. }
        | Notice::VerdictChanged { .. }
        | Notice::ClassChanged { .. }
        | Notice::NodeChanged { .. }
        | Notice::RoleChanged { .. }
        | Notice::MappingInferred { .. }
        | Notice::ProbeEnded { .. }
        | Notice::ServerDistrusted { .. }
        | Notice::HearsayHeard { .. }
        | Notice::AdvertisedChanged { .. }
        | Notice::MappingChanged { .. }
        | Notice::GatewayAnswered(_)
        | Notice::Relay(_)
        | Notice::Punch(_)
        | Notice::DialBackServed { .. }
        | Notice::FullyConnected { .. } => notice.clone(),
        _ => unreachable!("a notice that this suite does not know: give it its place above"),
    }
}

/// The address that a word holds, if it does.
fn addr_in(word: &str) -> Option<Addr> {
    let (_, tail) = word.split_once("/ip")?;
    let mut parts = tail.split('/').skip(1);
    let ip: IpAddr = parts.next()?.parse().ok()?;
    let transport = match parts.next()? {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Quic,
        _ => return None,
    };
    Some(Addr::new(ip, parts.next()?.parse().ok()?, transport))
}

/// In what two runs differ: what the first told is marked `-`, what the second told `+`.
pub(crate) fn difference(first: &Told, second: &Told) -> Option<String> {
    if first == second {
        return None;
    }
    let mut out = String::new();
    if first.node != second.node {
        out += "\nwhat belongs to no connection:\n";
        out += &diff(&first.node, &second.node, 1);
    }
    let (gone, new) = (beyond(&first.conns, &second.conns), beyond(&second.conns, &first.conns));
    let nothing = (Vec::new(), 0);
    for at in 0..gone.len().max(new.len()) {
        // The two are taken for the same connection, which shows best in what they differ.
        let (one, ones) = gone.get(at).unwrap_or(&nothing);
        let (other, others) = new.get(at).unwrap_or(&nothing);
        out += &format!("\na connection ({ones} and {others} of them):\n");
        out += &diff(one, other, 1);
    }
    Some(out)
}

/// The transcripts of which the first has more, and how many more.
fn beyond(
    first: &BTreeMap<Vec<String>, usize>,
    second: &BTreeMap<Vec<String>, usize>,
) -> Vec<(Vec<String>, usize)> {
    let more = |(lines, count): (&Vec<String>, &usize)| {
        let rest = count.saturating_sub(second.get(lines).copied().unwrap_or(0));
        (rest > 0).then(|| (lines.clone(), rest))
    };
    first.iter().filter_map(more).collect()
}
