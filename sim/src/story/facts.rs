//! The verbs of a script: each turns one line into events.

use super::book::Probe;
use super::frames::{self, Hex};
use super::script::{Name, Script, Word, Words, Wrong, expected};
use super::settings::Settings;
use super::world::World;
use bytes::Bytes;
use portolan_core::transcript::Names as _;
use portolan_core::wire::autonat::{DIAL_DATA_CHUNK_MAX, DialBack, DialBackResponse, Message};
use portolan_core::wire::multiaddr::encode;
use portolan_core::{
    Addr, ConnId, Connected, DialFailure, DialId, Duration, Event, ListenerId, Protocol, Side,
    StreamEnd, StreamFailure, StreamId,
};
use std::net::IpAddr;

/// Plays a whole script; an error names the line.
pub(super) fn play(script: &Script) -> Result<Vec<String>, (usize, String)> {
    let mut settings = Settings::default();
    let mut steps = script.steps().peekable();
    while let Some((line, said)) = steps.next_if(|(_, said)| said.starts_with("config ")) {
        let words = Words::of(said.trim_start_matches("config "));
        settings.set(words).map_err(|wrong| (line, wrong))?;
    }
    let mut world = World::new(settings).map_err(|wrong| (1, wrong))?;
    for (line, said) in steps {
        world.heading(said);
        world.step(said).map_err(|wrong| (line, with_tail(&world, wrong)))?;
    }
    world.replays().map_err(|wrong| (1, wrong))?;
    Ok(world.transcript)
}

/// What is wrong, after the last lines of what happened.
fn with_tail(world: &World, wrong: Wrong) -> Wrong {
    let tail = world.transcript.iter().rev().take(12).rev();
    let lines: Vec<&str> = tail.map(String::as_str).collect();
    format!("{wrong}\n  after\n{}", lines.join("\n"))
}

impl World {
    fn step(&mut self, said: &str) -> Result<(), Wrong> {
        if let Some(span) = said.strip_prefix('+') {
            let span = Duration::read(span).ok_or_else(|| expected(Duration::EXPECTED, span))?;
            return self.pass(span);
        }
        let mut words = Words::of(said);
        let verb: String = words.take()?;
        match verb.as_str() {
            "listen"
            | "close-listener"
            | "interfaces"
            | "contacted"
            | "introduced"
            | "dial-failure-reported" => self.ground(&verb, words),
            "connect" | "disconnect" | "dialled" | "dial-failed" => self.link(&verb, words),
            "opened" | "failed" | "finish" | "reset" | "bad-frame" | "frame" => {
                self.stream(&verb, words)
            }
            "identify" | "push" | "ask-identify" | "ping" | "echo" | "observed" | "protocols" => {
                self.acquaint(&verb, words)
            }
            "answer" | "data-request" | "dial-back" => self.serve_us(&verb, words),
            "request" | "data" | "accept" => self.ask_us(&verb, words),
            "answer-v1" | "request-v1" => self.hearsay(&verb, words),
            "gateways" | "datagram" | "datagram-refused" | "fetched" | "fetch-failed"
            | "ledger-read" | "closing" => self.routers(&verb, said),
            "circuit" | "circuit-forgotten" | "connect-failed" | "upgrade-failed"
            | "bridge-ended" | "draining" => self.circuits(&verb, words),
            "reserve" | "ask-circuit" | "incoming" | "hop" | "stop" => self.relaying(&verb, words),
            punch if punch.starts_with("punch-") => self.punching(punch, words),
            "settle" => {
                let most = words.take()?;
                words.done()?;
                let word = if self.settle(most)? { "settled" } else { "not settled" };
                self.line(word);
                Ok(())
            }
            "oversleep" => {
                let span = words.take()?;
                words.done()?;
                self.oversleep(span)
            }
            "resume" => {
                let span = words.take()?;
                words.done()?;
                self.resume(span)
            }
            "unix" => {
                let shift = words.take()?;
                words.done()?;
                self.set_unix(shift);
                Ok(())
            }
            "tick" => {
                words.done()?;
                self.feed(Event::Tick)
            }
            "keeps" => {
                let conn: ConnId = words.take()?;
                words.done()?;
                let word = if self.agent().keeps(conn) { "kept" } else { "not kept" };
                self.line(word);
                Ok(())
            }
            "show" => words.done().map(|()| self.show()),
            "config" => Err("expected every config line before the first fact".to_owned()),
            other => Err(expected("a verb (see docs/scenarios.md)", other)),
        }
    }

    fn show(&mut self) {
        for line in self.scribe.explanation(&self.agent().explain()) {
            self.line(&line);
        }
    }

    /// Listeners, interfaces, packets that the application sent.
    fn ground(&mut self, verb: &str, mut words: Words<'_>) -> Result<(), Wrong> {
        let event = match verb {
            "listen" => {
                let listener: ListenerId = words.take()?;
                Event::ListenerOpened { listener, addr: words.take()? }
            }
            "close-listener" => Event::ListenerClosed { listener: words.take()? },
            "contacted" => Event::Contacted { ip: words.take()? },
            "introduced" => {
                let name: Name = words.take()?;
                let source: u32 = words.take()?;
                let source = u16::try_from(source).map_err(|_| "no source has such a number")?;
                Event::Introduced { peer: self.scribe.names.peer(&name), source }
            }
            "dial-failure-reported" => Event::DialFailureReported { addr: words.take()? },
            _ => {
                let mut ips = Vec::new();
                while let Some(ip) = words.take_if::<IpAddr>() {
                    ips.push(ip);
                }
                Event::InterfacesChanged { ips }
            }
        };
        words.done()?;
        self.feed(event)
    }

    /// Connections and dials.
    fn link(&mut self, verb: &str, mut words: Words<'_>) -> Result<(), Wrong> {
        let event = match verb {
            "connect" => {
                let conn: ConnId = words.take()?;
                let name: Name = words.take()?;
                let side: Side = words.take()?;
                let remote: Addr = words.take()?;
                let relayed = words.flag("relayed");
                Event::Connected(Connected {
                    conn,
                    peer: self.scribe.names.peer(&name),
                    side,
                    local: self.local(&mut words, remote)?,
                    remote,
                    relayed,
                    dial: words.option("dial")?,
                    rtt: words.option("rtt")?,
                })
            }
            "disconnect" => Event::Disconnected { conn: words.take()? },
            "dialled" => {
                let dial: DialId = words.take()?;
                let known = self.book.dials.get(&dial).copied();
                let remote =
                    known.ok_or_else(|| expected("a dial in flight", &dial.to_string()))?;
                let conn: ConnId = words.take()?;
                let name: Name = words.take()?;
                let from = remote.source.map(|ip| Addr::new(ip, 50_000, remote.addr.transport));
                let local = from.or_else(|| self.book.fresh(remote.addr));
                let local = local.ok_or_else(|| "expected an interface to dial from".to_owned())?;
                Event::Connected(Connected {
                    conn,
                    peer: self.scribe.names.peer(&name),
                    side: Side::Outbound,
                    local,
                    remote: remote.addr,
                    relayed: false,
                    dial: Some(dial),
                    rtt: words.option("rtt")?,
                })
            }
            _ => Event::DialFailed { dial: words.take()?, reason: words.take()? },
        };
        words.done()?;
        self.feed(event)
    }

    /// The local address of a socket: as said, or that of our listener.
    fn local(&self, words: &mut Words<'_>, remote: Addr) -> Result<Addr, Wrong> {
        let said = words.option("local")?;
        said.or_else(|| self.book.local(remote.class())).ok_or_else(|| {
            format!("expected local=ADDRESS, for nothing listens in {}", remote.class())
        })
    }

    /// Streams, one event at a time.
    fn stream(&mut self, verb: &str, mut words: Words<'_>) -> Result<(), Wrong> {
        let stream: StreamId = words.take()?;
        let ended = |end| Event::StreamClosed { stream, end };
        let event = match verb {
            "opened" => {
                let known = self.book.streams.get(&stream).map(|known| known.conn);
                let conn = match known {
                    Some(conn) => conn,
                    None => words.take()?,
                };
                Event::StreamOpened { conn, stream }
            }
            "failed" => Event::StreamFailed { stream, reason: words.take()? },
            "finish" => ended(StreamEnd::Finished),
            "reset" => ended(StreamEnd::Reset),
            "bad-frame" => ended(StreamEnd::BadFrame),
            _ => Event::Frame { stream, body: words.take::<Hex>()?.0 },
        };
        words.done()?;
        self.feed(event)
    }

    /// Identify and ping, both roles of the peer.
    fn acquaint(&mut self, verb: &str, mut words: Words<'_>) -> Result<(), Wrong> {
        let conn: ConnId = words.take()?;
        match verb {
            "identify" => {
                let stream = self.ours(conn, Protocol::Identify)?;
                let last = !words.flag("more");
                let body = frames::identify(&mut words)?.encode_split().messages;
                words.done()?;
                self.speak(stream, body, last)
            }
            "push" => {
                let last = !words.flag("more");
                let going_on = self.book.live(conn, Side::Inbound, Protocol::IdentifyPush).last();
                let body = frames::identify(&mut words)?.encode_split().messages;
                words.done()?;
                let stream = match going_on {
                    Some(stream) => stream,
                    None => self.theirs(conn, Protocol::IdentifyPush)?,
                };
                self.speak(stream, body, last)
            }
            "ask-identify" => {
                words.done()?;
                let stream = self.theirs(conn, Protocol::Identify)?;
                self.end(stream)
            }
            "ping" => {
                words.done()?;
                let stream = self.theirs(conn, Protocol::Ping)?;
                self.speak(stream, vec![Bytes::from_static(&[7; 32])], true)
            }
            "echo" => {
                words.done()?;
                let stream = self.ours(conn, Protocol::Ping)?;
                let sent = self.book.streams.get(&stream).and_then(|known| known.sent.clone());
                let sent = sent.ok_or_else(|| format!("expected a ping to echo on {conn}"))?;
                self.speak(stream, vec![sent], false)
            }
            "observed" => {
                let observed = words.take()?;
                words.done()?;
                self.feed(Event::Observed { conn, observed })
            }
            _ => {
                let mut protocols = Vec::new();
                while let Some(protocol) = words.take_if() {
                    protocols.push(protocol);
                }
                words.done()?;
                let protocols = frames::protocol_set(protocols);
                self.feed(Event::ProtocolsListed { conn, protocols })
            }
        }
    }

    /// What servers do for us: answers, wishes for data, dial-backs.
    fn serve_us(&mut self, verb: &str, mut words: Words<'_>) -> Result<(), Wrong> {
        match verb {
            "answer" => {
                let stream = self.asked(&mut words)?;
                let last = !words.flag("more");
                let message = frames::dial_response(&mut words)?;
                words.done()?;
                self.speak(stream, vec![message.encode()], last)
            }
            "data-request" => {
                let stream = self.asked(&mut words)?;
                let num_bytes = words.take()?;
                let addr_idx = words.option("idx")?.unwrap_or(0);
                words.done()?;
                let message = Message::DialDataRequest { addr_idx, num_bytes };
                self.speak(stream, vec![message.encode()], false)
            }
            _ => {
                let conn: ConnId = words.take()?;
                let nonce = self.nonce(&mut words)?;
                let last = !words.flag("more");
                if !self.book.conns.contains_key(&conn) {
                    let name: Name = words.take()?;
                    let remote: Addr = words.take()?;
                    let facts = Connected {
                        conn,
                        peer: self.scribe.names.peer(&name),
                        side: Side::Inbound,
                        local: self.local(&mut words, remote)?,
                        remote,
                        relayed: words.flag("relayed"),
                        dial: None,
                        rtt: Some(words.option("rtt")?.unwrap_or(Duration::from_millis(20))),
                    };
                    words.done()?;
                    self.feed(Event::Connected(facts))?;
                } else {
                    words.done()?;
                }
                let stream = self.theirs(conn, Protocol::DialBack)?;
                self.speak(stream, vec![DialBack { nonce }.encode()], last)
            }
        }
    }

    /// The probe that a server was asked: `SERVER [addr=ADDRESS]`, the last one that fits.
    fn asked(&mut self, words: &mut Words<'_>) -> Result<StreamId, Wrong> {
        let name: Name = words.take()?;
        let addr = words.option("addr")?;
        let live = |probe: &&Probe| self.book.streams.contains_key(&probe.stream);
        let stream = self.find_probe(&name, addr, live)?.stream;
        Ok(stream)
    }

    fn find_probe(
        &self,
        name: &Name,
        addr: Option<Addr>,
        fits: impl Fn(&&Probe) -> bool,
    ) -> Result<&Probe, Wrong> {
        let fits = |probe: &&Probe| {
            self.scribe.names.name(&probe.peer) == name.0
                && addr.is_none_or(|addr| probe.addrs.contains(&addr))
                && fits(probe)
        };
        let found = self.book.probes.iter().rev().find(fits);
        let about = addr.map(|addr| format!(" about {addr}")).unwrap_or_default();
        found.ok_or_else(|| format!("expected a probe that asks {}{about}", name.0))
    }

    /// `nonce=7`, or the nonce of a probe: `nonce=S1`, `nonce=S1@ADDRESS`.
    fn nonce(&self, words: &mut Words<'_>) -> Result<u64, Wrong> {
        let said: String = words
            .option("nonce")?
            .ok_or_else(|| "expected nonce=NUMBER or nonce=SERVER".to_owned())?;
        if let Some(number) = u64::read(&said) {
            return Ok(number);
        }
        let (name, addr) = match said.split_once('@') {
            Some((name, addr)) => {
                let addr = Addr::read(addr).ok_or_else(|| expected(Addr::EXPECTED, addr))?;
                (name, Some(addr))
            }
            None => (said.as_str(), None),
        };
        let name = Name::read(name).ok_or_else(|| expected(Name::EXPECTED, name))?;
        self.find_probe(&name, addr, |_| true).map(|probe| probe.nonce)
    }

    /// What clients want of us: dial requests, dial data, and taking our dial-back.
    fn ask_us(&mut self, verb: &str, mut words: Words<'_>) -> Result<(), Wrong> {
        let conn: ConnId = words.take()?;
        match verb {
            "request" => {
                let nonce = self.nonce(&mut words)?;
                let mut addrs = Vec::new();
                while let Some(addr) = words.take_if::<Addr>() {
                    addrs.push(encode(addr));
                }
                words.done()?;
                let stream = self.theirs(conn, Protocol::DialRequest)?;
                self.speak(stream, vec![Message::DialRequest { addrs, nonce }.encode()], false)
            }
            "data" => {
                let mut left: u64 = words.take()?;
                let chunk = words.option("chunk")?.unwrap_or(DIAL_DATA_CHUNK_MAX as u64);
                words.done()?;
                let stream = self.book.live(conn, Side::Inbound, Protocol::DialRequest).last();
                let stream = stream.ok_or_else(|| format!("expected a request on {conn}"))?;
                while left > 0 && self.book.streams.contains_key(&stream) {
                    let len = left.min(chunk.max(1));
                    left -= len;
                    let len = usize::try_from(len).map_err(|error| error.to_string())?;
                    let data = Bytes::from(vec![0; len]);
                    self.speak(stream, vec![Message::DialDataResponse { data }.encode()], false)?;
                }
                Ok(())
            }
            _ => {
                words.done()?;
                let stream = self.ours(conn, Protocol::DialBack)?;
                self.speak(stream, vec![DialBackResponse::OK.encode()], true)
            }
        }
    }

    /// The stream of this protocol that core opened on the connection, and that is not over.
    pub(super) fn ours(&self, conn: ConnId, protocol: Protocol) -> Result<StreamId, Wrong> {
        let found = self.book.live(conn, Side::Outbound, protocol).last();
        found.ok_or_else(|| {
            format!("expected a stream of ours on {conn} that speaks {}", protocol.word())
        })
    }

    /// The last stream of the peer's on this connection that speaks this.
    pub(super) fn last_theirs(&self, conn: ConnId, protocol: Protocol) -> Result<StreamId, Wrong> {
        let found = self.book.live(conn, Side::Inbound, protocol).last();
        found.ok_or_else(|| {
            format!("expected a stream of the peer's on {conn} that speaks {}", protocol.word())
        })
    }

    /// The peer opens a stream.
    pub(super) fn theirs(&mut self, conn: ConnId, protocol: Protocol) -> Result<StreamId, Wrong> {
        let stream = self.book.next_inbound(protocol);
        self.feed(Event::StreamOpened { conn, stream })?;
        Ok(stream)
    }

    /// The peer agrees to the stream if it did not yet, sends frames on it, and finishes if they
    /// are its last. It falls silent when the stream is over.
    pub(super) fn speak(
        &mut self,
        stream: StreamId,
        frames: Vec<Bytes>,
        last: bool,
    ) -> Result<(), Wrong> {
        if let Some(known) = self.book.streams.get(&stream)
            && !known.open
        {
            let conn = known.conn;
            self.feed(Event::StreamOpened { conn, stream })?;
        }
        for body in frames {
            if self.book.streams.contains_key(&stream) {
                self.feed(Event::Frame { stream, body })?;
            }
        }
        if last { self.end(stream) } else { Ok(()) }
    }

    fn end(&mut self, stream: StreamId) -> Result<(), Wrong> {
        match self.book.streams.get(&stream) {
            Some(known) if !known.theirs_finished => {
                self.feed(Event::StreamClosed { stream, end: StreamEnd::Finished })
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Word for Side {
    const EXPECTED: &'static str = "out or in";

    fn read(word: &str) -> Option<Side> {
        match word {
            "out" => Some(Side::Outbound),
            "in" => Some(Side::Inbound),
            _ => None,
        }
    }
}

impl Word for DialFailure {
    const EXPECTED: &'static str = "refused, timed-out, handshake or local-fault";

    fn read(word: &str) -> Option<DialFailure> {
        match word {
            "refused" => Some(DialFailure::Refused),
            "timed-out" => Some(DialFailure::TimedOut),
            "handshake" => Some(DialFailure::Handshake),
            "local-fault" => Some(DialFailure::LocalFault),
            _ => None,
        }
    }
}

impl Word for StreamFailure {
    const EXPECTED: &'static str = "unsupported, failed or timed-out";

    fn read(word: &str) -> Option<StreamFailure> {
        match word {
            "unsupported" => Some(StreamFailure::Unsupported),
            "failed" => Some(StreamFailure::Failed),
            "timed-out" => Some(StreamFailure::TimedOut),
            _ => None,
        }
    }
}
