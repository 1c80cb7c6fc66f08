//! Whether a redacted flight record tells the same story, of others.

use bytes::Bytes;
use portolan_core::flight::{Reader, Replay, Tail, redact};
use portolan_core::transcript::{Names, Scribe};
use portolan_core::wire::relay::{HopMessage, Reservation};
use portolan_core::{Action, Actions, Event, PeerId, Protocol, StreamId};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Any salt will do, and always the same.
const SALT: [u8; 16] = *b"sixteen of salt!";

/// Redact a record that replays, and compare the two.
///
/// # Errors
/// What is told otherwise, or who can still be found.
pub fn check(record: &[u8]) -> Result<(), String> {
    let redacted = redact(record, SALT).map_err(|error| error.to_string())?;
    if (redacted.tail, redacted.diverged) != (Tail::Whole, None) {
        return Err(format!("{:?}, {:?}", redacted.tail, redacted.diverged));
    }
    let (before, after) = (told(record)?, told(&redacted.record)?);
    for (before, after) in before.lines.iter().zip(&after.lines) {
        if before != after {
            return Err(format!("instead of\n{before}\nthe redacted record says\n{after}"));
        }
    }
    if before.lines.len() != after.lines.len() {
        return Err("one of the records tells more than the other".to_owned());
    }
    after.lacks(&before.peers, &redacted.record)
}

/// What a record tells.
struct Told {
    lines: Vec<String>,
    peers: BTreeSet<PeerId>,
}

impl Told {
    /// Nobody of `peers` is anywhere in a record.
    fn lacks(&self, peers: &BTreeSet<PeerId>, record: &[u8]) -> Result<(), String> {
        for peer in peers {
            // The end of an id is the key, or its hash.
            let bytes = peer.to_bytes();
            let tail = &bytes[bytes.len().saturating_sub(16)..];
            if tail.len() == 16 && record.array_windows::<16>().any(|window| window == tail) {
                return Err(format!("{peer} is in the redacted record"));
            }
        }
        Ok(())
    }
}

fn told(record: &[u8]) -> Result<Told, String> {
    let (head, reader) = Reader::new(record).map_err(|error| error.to_string())?;
    let mut replay = Replay::new(&head).map_err(|error| error.to_string())?;
    let places = Places::default();
    let mut scribe = Scribe::new(&places, head.now);
    let mut peers = BTreeSet::from([head.identity.to_peer_id()]);
    let mut lines = Vec::new();
    let mut actions = Actions::new();
    for step in reader {
        let step = step.map_err(|error| error.to_string())?;
        if let Event::Connected(facts) = &step.event {
            peers.insert(facts.peer);
        }
        lines.push(places.line(&scribe.event(&unvouched_event(&step.event))));
        replay.step(&step, &mut actions).map_err(|error| error.to_string())?;
        let orders = actions.drain().map(|action| unvouched_action(&action));
        lines.extend(orders.map(|action| places.line(&scribe.action(&action))));
        lines.push(format!("{:?}", replay.deadline()));
    }
    Ok(Told { lines, peers })
}

/// The event without the voucher in it: redacting leaves it out, and whom it names may come up
/// nowhere else.
fn unvouched_event(event: &Event) -> Event {
    if let Event::Frame { stream, body } = event {
        return Event::Frame { stream: *stream, body: unvouched(*stream, body) };
    }
    event.clone()
}

/// The order without the voucher in it, whose signature is another's.
fn unvouched_action(action: &Action) -> Action {
    if let Action::Send { stream, body } = action {
        return Action::Send { stream: *stream, body: unvouched(*stream, body) };
    }
    action.clone()
}

fn unvouched(stream: StreamId, body: &Bytes) -> Bytes {
    if stream.protocol == Protocol::Hop
        && let Ok(HopMessage::Status { status, reservation: Some(granted), limit }) =
            HopMessage::decode(body)
    {
        let reservation = Some(Reservation { voucher: None, ..granted });
        return HopMessage::Status { status, reservation, limit }.encode();
    }
    body.clone()
}

/// Who and what stands in which place of the story: lines are the same when everybody comes up in
/// the same places.
#[derive(Debug, Default)]
struct Places(RefCell<BTreeMap<String, usize>>);

impl Places {
    fn place(&self, kind: &str, of: &str) -> String {
        let mut known = self.0.borrow_mut();
        let next = known.len();
        format!("<{kind} {}>", known.entry(of.to_owned()).or_insert(next))
    }

    /// A line with places in it. What redacting leaves out is left out here: signed records,
    /// and what cannot be decoded, but for its length.
    fn line(&self, line: &str) -> String {
        let line = line.split_once(" record=").map_or(line, |(before, _)| before);
        let line = match line.split_once(" undecodable ") {
            Some((before, rest)) => {
                format!("{before} undecodable {}", rest.split(' ').next().unwrap_or_default())
            }
            None => line.to_owned(),
        };
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-');
        let mut out = String::new();
        for part in line.split_inclusive(|c| !is_word(c)) {
            let word = part.trim_end_matches(|c| !is_word(c));
            // A router's socket has its port behind the address.
            let (host, port) = word.rsplit_once(':').unwrap_or((word, ""));
            out.push_str(&match word.parse::<IpAddr>() {
                Ok(_) => self.place("ip", word),
                Err(_) if host.parse::<IpAddr>().is_ok() => self.place("ip", host) + port,
                Err(_) if word.len() > 40 && word.parse::<PeerId>().is_ok() => {
                    self.place("peer", word)
                }
                Err(_) if word.ends_with(".com") || word.ends_with(".invalid") => {
                    self.place("host", word)
                }
                Err(_) if word.starts_with("bad:") => "bad".to_owned(),
                Err(_) => word.to_owned(),
            });
            out.push_str(&part[word.len()..]);
        }
        out
    }
}

impl Names for &Places {
    fn name(&self, peer: &PeerId) -> String {
        self.place("peer", &peer.to_string())
    }
}
