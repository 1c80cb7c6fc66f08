//! What happened, in lines: one line an event, one line an action.
//!
//! Stories, replays and simulations print the same lines, in the words of `docs/scenarios.md`:
//!
//! ```text
//!     214       3.071 < connected c9 (…QnWq3fLk) in /ip4/44.0.9.1/tcp/50000 local=/ip4/10.0.0.2/tcp/4001
//!     215       3.072 < opened <dial-back:1 on c9 (…QnWq3fLk)
//!     216       3.072 < frame <dial-back:1 (…QnWq3fLk) DialBack nonce=7
//!     216       3.072   send <dial-back:1 (…QnWq3fLk) DialBackResponse OK
//!     216       3.072   close <dial-back:1 (…QnWq3fLk)
//!     216       3.072   * node public: a server dialled back from an IP never contacted
//! ```
//!
//! The columns are the number of the step, where steps are numbered (7 characters and a space);
//! the seconds since the beginning (11 characters beside a number, 9 without); the mark, `<` for
//! an event and nothing for what came of it; and the text, in which `*` marks a notice.
//!
//! A line is printable ASCII, but for the `…` that stands where something was cut off and the `µ`
//! of microseconds. What a peer chose (its agent version, names of protocols, names in addresses)
//! is quoted and escaped where it could pass for anything else, and cut where it is long: a peer
//! writes neither to the terminal nor into the columns, and makes no line longer than some 16 kB.
//!
//! A good first change here: a word that says what a step number cannot, such as the size of a gap
//! between two events.

mod actions;
mod book;
mod events;
mod frames;
mod mapping;
mod punch;
mod relay;
mod text;

pub(crate) use actions::{sources, state};

use crate::{Action, ConnId, Event, Instant, PeerId, StreamId, Wake};
use alloc::format;
use alloc::string::{String, ToString};
use book::Book;

/// Who is who in a transcript.
pub trait Names {
    /// The name of a peer, in one short word.
    fn name(&self, peer: &PeerId) -> String;
}

/// Characters of a peer id that name the peer, number; ours: 47 bits tell a day's peers apart.
/// Lines grow with it.
const SHORT_NAME: usize = 8;

/// Peers by the end of their id, for the beginning is the same for all keys of a type: `…QnWq3fLk`.
/// The node itself is `Node`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortNames {
    node: PeerId,
}

impl ShortNames {
    /// The names as this node gives them.
    pub const fn new(node: PeerId) -> ShortNames {
        ShortNames { node }
    }
}

impl Names for ShortNames {
    fn name(&self, peer: &PeerId) -> String {
        if *peer == self.node {
            return "Node".into();
        }
        let id = peer.to_base58();
        format!("…{}", &id[id.len().saturating_sub(SHORT_NAME)..])
    }
}

/// What a line tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A fact that came in.
    Event,
    /// What came of it, and remarks.
    Action,
}

/// Writes the lines of one agent. It remembers which stream runs on which connection and whose
/// that is, from the events and actions that pass; what began before the first of them goes
/// without a peer's name.
#[derive(Clone, Debug)]
pub struct Scribe<N> {
    /// Who is who; may learn further names at any time.
    pub names: N,
    began: Instant,
    book: Book,
}

impl<N: Names> Scribe<N> {
    /// A scribe who has heard nothing yet, and tells moments as seconds since `began`.
    pub const fn new(names: N, began: Instant) -> Scribe<N> {
        Scribe { names, began, book: Book::new() }
    }

    /// The text of an event. Hand in every event before the actions that came of it.
    pub fn event(&mut self, event: &Event) -> String {
        let text = events::text(self, event);
        self.book.happened(event);
        text
    }

    /// The text of an action. Hand in every action, in order.
    pub fn action(&mut self, action: &Action) -> String {
        let text = actions::text(self, action);
        self.book.ordered(action);
        text
    }

    /// A line without its end: the columns, and `text` as the last of them.
    pub fn line(&self, step: Option<u64>, now: Instant, mark: Mark, text: &str) -> String {
        let now = self.moment(now);
        let mark = match mark {
            Mark::Event => '<',
            Mark::Action => ' ',
        };
        match step {
            Some(step) => format!("{step:>7} {now:>11} {mark} {text}"),
            None => format!("{now:>9} {mark} {text}"),
        }
    }

    /// Seconds since the beginning, with milliseconds.
    pub(crate) fn moment(&self, at: Instant) -> String {
        if at < self.began {
            return format!("-{}", Instant::ZERO + self.began.since(at));
        }
        (Instant::ZERO + at.since(self.began)).to_string()
    }

    /// `c1 (S1)`, or `c1` if nothing is known of it.
    fn conn(&self, conn: ConnId) -> String {
        format!("{conn}{}", self.in_brackets(self.book.peer(conn)))
    }

    /// `>identify:1 (S1)`, or `>identify:1` if nothing is known of its connection.
    fn stream(&self, stream: StreamId) -> String {
        let peer = self.book.conn(stream).and_then(|conn| self.book.peer(conn));
        format!("{stream}{}", self.in_brackets(peer))
    }

    fn in_brackets(&self, peer: Option<PeerId>) -> String {
        peer.map(|peer| format!(" ({})", self.names.name(&peer))).unwrap_or_default()
    }
}

/// The text of a deadline that fired.
pub fn wake(wake: Wake) -> String {
    format!("wake {wake:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Addr, Connected, Protocol, Side};
    use core::net::{IpAddr, Ipv4Addr};
    use libp2p_identity::Keypair;

    /// The key of a peer.
    pub(super) fn key(number: u8) -> Keypair {
        Keypair::ed25519_from_bytes([number; 32]).expect("32 bytes are a key")
    }

    pub(super) fn peer(number: u8) -> PeerId {
        key(number).public().to_peer_id()
    }

    pub(super) fn addr(last: u8) -> Addr {
        Addr::tcp(IpAddr::V4(Ipv4Addr::new(44, 0, 0, last)), 4001)
    }

    /// Peers by their number.
    #[derive(Debug)]
    pub(super) struct Numbered;

    impl Names for Numbered {
        fn name(&self, of: &PeerId) -> String {
            match (1..10).find(|number| peer(*number) == *of) {
                Some(number) => format!("P{number}"),
                None => "nobody".into(),
            }
        }
    }

    /// Who heard that peer 1 is on connection 1, and opened an identify stream there.
    pub(super) fn scribe() -> Scribe<Numbered> {
        let mut scribe = Scribe::new(Numbered, Instant::ZERO);
        scribe.event(&Event::Connected(Connected {
            conn: ConnId(1),
            peer: peer(1),
            side: Side::Inbound,
            local: addr(2),
            remote: addr(1),
            relayed: false,
            dial: None,
            rtt: None,
        }));
        let stream = StreamId::inbound(Protocol::Identify, 1);
        scribe.event(&Event::StreamOpened { conn: ConnId(1), stream });
        scribe
    }

    #[test]
    fn columns_stay_where_they_are() {
        let scribe = Scribe::new(Numbered, Instant::from_millis(5_000));
        let line = |step, millis, mark| scribe.line(step, Instant::from_millis(millis), mark, "x");
        assert_eq!(line(None, 5_030, Mark::Event), "    0.030 < x");
        assert_eq!(line(None, 5_030, Mark::Action), "    0.030   x");
        assert_eq!(line(Some(7), 5_030, Mark::Event), "      7       0.030 < x");
        assert_eq!(line(Some(1_234_567), 5_000, Mark::Action), "1234567       0.000   x");
        // A proof may be older than the record that tells of it.
        assert_eq!(line(None, 3_499, Mark::Action), "   -1.501   x");
    }

    #[test]
    fn a_peer_is_named_by_the_end_of_its_id_and_the_node_as_such() {
        let names = ShortNames::new(peer(1));
        let id = peer(2).to_string();
        assert_eq!(names.name(&peer(1)), "Node");
        assert_eq!(names.name(&peer(2)), format!("…{}", &id[id.len() - 8..]));
        // The shortest id there is: no digest at all.
        let short = PeerId::from_bytes(&[0, 0]).expect("an identity multihash");
        assert_eq!(names.name(&short), "…11");
    }

    #[test]
    fn names_follow_streams_and_connections_until_they_end() {
        let mut scribe = scribe();
        let stream = StreamId::inbound(Protocol::Identify, 1);
        let close = Action::CloseStream { stream };
        assert_eq!(scribe.action(&close), "close <identify:1 (P1)");
        let reset = Action::ResetStream { stream };
        assert_eq!(scribe.action(&reset), "reset <identify:1 (P1)", "the last line still names it");
        assert_eq!(scribe.action(&reset), "reset <identify:1");
        let gone = Event::Disconnected { conn: ConnId(1) };
        assert_eq!(scribe.event(&gone), "disconnected c1 (P1)", "and so does the last of all");
        assert_eq!(scribe.event(&gone), "disconnected c1");
    }

    #[test]
    fn a_deadline_says_why() {
        assert_eq!(wake(Wake::ProbeOverdue), "wake ProbeOverdue");
    }
}
