//! How one fact becomes events: one by one, as the line of a story that tells it.

#![allow(clippy::wildcard_enum_match_arm, reason = "each function is about a few of many facts")]

use super::bench::Bench;
use super::cast::Peer;
use super::fact::{Answer, Fact, Nonce, REFUSED_FROM};
use bytes::Bytes;
use portolan_core::wire::autonat::{
    DIAL_DATA_CHUNK_MAX, DialBack, DialBackResponse, DialStatus, Message, ResponseStatus,
    dial_data_chunk,
};
use portolan_core::wire::identify::Identify;
use portolan_core::wire::multiaddr;
use portolan_core::{
    Addr, ConnId, Connected, DialId, Duration, Event, Protocol, Side, StreamEnd, StreamId,
};

/// The round trip of a connection that dials back.
const RTT: Duration = Duration::from_millis(20);

impl Bench {
    /// Let one fact happen. `false`, and nothing happens, where it makes no sense at this moment.
    pub fn perform(&mut self, fact: &Fact) -> bool {
        if !self.allows(fact) {
            return false;
        }
        self.steps.clear();
        match fact {
            Fact::Listen { listener, addr } => {
                self.feed(Event::ListenerOpened { listener: *listener, addr: *addr });
            }
            Fact::CloseListener { listener } => {
                self.feed(Event::ListenerClosed { listener: *listener });
            }
            Fact::Interfaces { ips } => self.feed(Event::InterfacesChanged { ips: ips.clone() }),
            Fact::Contacted { ip } => self.feed(Event::Contacted { ip: *ip }),
            Fact::Reported { addr } => self.feed(Event::DialFailureReported { addr: *addr }),
            Fact::Connect { .. } | Fact::Dialled { .. } => self.connect(fact),
            Fact::Disconnect { conn } => self.feed(Event::Disconnected { conn: *conn }),
            Fact::Identify { conn, observed, server } => {
                if let Some(stream) = self.ours(*conn, Protocol::Identify) {
                    self.speak(stream, identify(*observed, *server), true);
                }
            }
            Fact::Push { conn, observed, server } => {
                let stream = self.theirs(*conn, Protocol::IdentifyPush);
                self.speak(stream, identify(*observed, *server), true);
            }
            Fact::AskIdentify { conn } => {
                let stream = self.theirs(*conn, Protocol::Identify);
                self.end(stream);
            }
            Fact::Echo { conn } => self.echo(*conn),
            Fact::Answer { .. }
            | Fact::DataRequest { .. }
            | Fact::DialBack { .. }
            | Fact::DialBackOn { .. } => self.serve_us(fact),
            Fact::Failed { stream, reason } => {
                self.feed(Event::StreamFailed { stream: *stream, reason: *reason });
            }
            Fact::Ended { stream, end } => {
                self.feed(Event::StreamClosed { stream: *stream, end: *end });
            }
            Fact::Request { .. } | Fact::Data { .. } | Fact::Accept { .. } => self.ask_us(fact),
            Fact::DialFailed { dial, reason } => {
                self.feed(Event::DialFailed { dial: *dial, reason: *reason });
            }
            Fact::Pass { span } => self.pass(*span),
            Fact::Oversleep { span } => {
                self.now = self.now + *span;
                self.feed(Event::Tick);
            }
            Fact::Resume { span } => {
                self.now = self.now + *span;
                self.feed(Event::Resumed { slept: *span });
            }
        }
        true
    }

    /// Whether a fact makes sense at this moment.
    pub fn allows(&self, fact: &Fact) -> bool {
        let books = &self.books;
        let stands = |conn: &ConnId| books.conns.contains_key(conn);
        let is_fresh = |conn: &ConnId| conn.0 > books.conns_used;
        match fact {
            Fact::Listen { listener, addr } => {
                listener.0 > books.listeners_used
                    && !books.listeners.values().any(|one| one == addr)
            }
            Fact::CloseListener { listener } => books.listeners.contains_key(listener),
            Fact::Connect { conn, .. } => is_fresh(conn),
            Fact::Disconnect { conn } | Fact::AskIdentify { conn } | Fact::Push { conn, .. } => {
                stands(conn)
            }
            Fact::Identify { conn, .. } => self.ours(*conn, Protocol::Identify).is_some(),
            Fact::Echo { conn } => self.ping_on(*conn).is_some(),
            Fact::Answer { server, addr, .. } | Fact::DataRequest { server, addr, .. } => {
                self.asked(*server, *addr).is_some()
            }
            Fact::DialBack { conn, nonce, .. } => is_fresh(conn) && self.number(*nonce).is_some(),
            Fact::DialBackOn { conn, nonce } => stands(conn) && self.number(*nonce).is_some(),
            Fact::Failed { stream, .. } => books.streams.get(stream).is_some_and(|one| !one.open),
            Fact::Ended { stream, end } => books
                .streams
                .get(stream)
                .is_some_and(|one| one.open && !(one.theirs_over && *end == StreamEnd::Finished)),
            Fact::Request { conn, .. } => stands(conn),
            Fact::Data { conn, .. } => {
                books.newest(*conn, Side::Inbound, Protocol::DialRequest).is_some()
            }
            Fact::Dialled { dial, conn, .. } => {
                is_fresh(conn) && self.dial_leaves_from(*dial).is_some()
            }
            Fact::DialFailed { dial, .. } => books.dials.contains_key(dial),
            Fact::Accept { conn } => self.ours(*conn, Protocol::DialBack).is_some(),
            Fact::Interfaces { .. }
            | Fact::Contacted { .. }
            | Fact::Reported { .. }
            | Fact::Pass { .. }
            | Fact::Oversleep { .. }
            | Fact::Resume { .. } => true,
        }
    }

    /// The stream on which this server waits to answer about this address.
    pub(super) fn asked(&self, server: Peer, addr: Addr) -> Option<StreamId> {
        let probe = self.books.probes.get(&(server, addr))?;
        self.books.streams.contains_key(&probe.stream).then_some(probe.stream)
    }

    /// The ping on a connection that can be echoed.
    pub(super) fn ping_on(&self, conn: ConnId) -> Option<(StreamId, Bytes)> {
        let stream = self.ours(conn, Protocol::Ping)?;
        let sent = self.books.streams.get(&stream)?.sent.clone()?;
        Some((stream, sent))
    }

    fn number(&self, nonce: Nonce) -> Option<u64> {
        match nonce {
            Nonce::Of(server, addr) => self.books.probes.get(&(server, addr)).map(|one| one.nonce),
            Nonce::Wrong(number) => Some(number),
        }
    }

    fn dial_leaves_from(&self, dial: DialId) -> Option<Addr> {
        let dial = self.books.dials.get(&dial)?;
        let source = dial.source.map(|ip| Addr::new(ip, 50_000, dial.addr.transport));
        source.or_else(|| self.books.fresh(dial.addr))
    }

    fn connect(&mut self, fact: &Fact) {
        let facts = match fact {
            Fact::Connect { conn, peer, side, remote, local, rtt, relayed } => Connected {
                conn: *conn,
                peer: peer.id(),
                side: *side,
                local: *local,
                remote: *remote,
                relayed: *relayed,
                dial: None,
                rtt: *rtt,
            },
            Fact::Dialled { dial, conn, peer } => {
                let remote = self.books.dials.get(dial).map(|dial| dial.addr);
                let (Some(remote), Some(local)) = (remote, self.dial_leaves_from(*dial)) else {
                    return;
                };
                Connected {
                    conn: *conn,
                    peer: peer.id(),
                    side: Side::Outbound,
                    local,
                    remote,
                    relayed: false,
                    dial: Some(*dial),
                    rtt: None,
                }
            }
            _ => return,
        };
        self.feed(Event::Connected(facts));
    }

    fn echo(&mut self, conn: ConnId) {
        if let Some((stream, sent)) = self.ping_on(conn) {
            self.speak(stream, vec![sent], false);
        }
    }

    /// What servers do for us.
    fn serve_us(&mut self, fact: &Fact) {
        match fact {
            Fact::Answer { server, addr, answer } => {
                if let Some(stream) = self.asked(*server, *addr) {
                    self.speak(stream, vec![response(*answer).encode()], true);
                }
            }
            Fact::DataRequest { server, addr, bytes } => {
                if let Some(stream) = self.asked(*server, *addr) {
                    let message = Message::DialDataRequest { addr_idx: 0, num_bytes: *bytes };
                    if let Some(probe) = self.books.probes.get_mut(&(*server, *addr)) {
                        probe.data = true;
                    }
                    self.speak(stream, vec![message.encode()], false);
                }
            }
            Fact::DialBack { conn, peer, remote, local, nonce, stays } => {
                let facts = Connected {
                    conn: *conn,
                    peer: peer.id(),
                    side: Side::Inbound,
                    local: *local,
                    remote: *remote,
                    relayed: false,
                    dial: None,
                    rtt: Some(RTT),
                };
                let number = self.number(*nonce);
                self.feed(Event::Connected(facts));
                self.dial_back(*conn, *nonce, number);
                if !stays {
                    self.feed(Event::Disconnected { conn: *conn });
                }
            }
            Fact::DialBackOn { conn, nonce } => {
                let number = self.number(*nonce);
                self.dial_back(*conn, *nonce, number);
            }
            _ => {}
        }
    }

    fn dial_back(&mut self, conn: ConnId, nonce: Nonce, number: Option<u64>) {
        let Some(number) = number else { return };
        let stream = self.theirs(conn, Protocol::DialBack);
        self.speak(stream, vec![DialBack { nonce: number }.encode()], true);
        // It is taken where the agent said so.
        let body = DialBackResponse::OK.encode();
        let taken = self.steps.iter().any(|step| {
            step.actions.contains(&portolan_core::Action::Send { stream, body: body.clone() })
        });
        if let Nonce::Of(server, addr) = nonce
            && let Some(probe) = self.books.probes.get_mut(&(server, addr))
        {
            probe.delivered |= taken;
        }
    }

    /// What requesters do.
    fn ask_us(&mut self, fact: &Fact) {
        match fact {
            Fact::Request { conn, nonce, addrs } => {
                let stream = self.theirs(*conn, Protocol::DialRequest);
                let request = super::Request { conn: *conn, addrs: addrs.clone(), owes: 0 };
                if self.books.streams.contains_key(&stream) {
                    self.books.requests.insert(stream, request);
                }
                let addrs = addrs.iter().copied().map(multiaddr::encode).collect();
                let body = Message::DialRequest { addrs, nonce: *nonce }.encode();
                self.speak(stream, vec![body], false);
            }
            Fact::Data { conn, bytes, chunk } => self.pay(*conn, *bytes, *chunk),
            Fact::Accept { conn } => {
                if let Some(stream) = self.ours(*conn, Protocol::DialBack) {
                    self.speak(stream, vec![DialBackResponse::OK.encode()], true);
                }
            }
            _ => {}
        }
    }

    fn pay(&mut self, conn: ConnId, bytes: u64, chunk: u64) {
        let newest = self.books.newest(conn, Side::Inbound, Protocol::DialRequest);
        let Some(stream) = newest else { return };
        let chunk = chunk.clamp(1, DIAL_DATA_CHUNK_MAX as u64);
        let mut left = bytes;
        while left > 0 && self.books.streams.contains_key(&stream) {
            let len = left.min(chunk);
            left -= len;
            if let Some(request) = self.books.requests.get_mut(&stream) {
                request.owes = request.owes.saturating_sub(len);
            }
            let body = dial_data_chunk(usize::try_from(len).unwrap_or(DIAL_DATA_CHUNK_MAX));
            self.speak(stream, vec![body], false);
        }
    }

    /// The stream of ours on a connection that speaks this.
    pub(super) fn ours(&self, conn: ConnId, protocol: Protocol) -> Option<StreamId> {
        self.books.newest(conn, Side::Outbound, protocol)
    }

    /// The peer opens a stream.
    fn theirs(&mut self, conn: ConnId, protocol: Protocol) -> StreamId {
        let stream = StreamId::inbound(protocol, self.books.streams_used + 1);
        self.feed(Event::StreamOpened { conn, stream });
        stream
    }

    /// The peer agrees to the stream if it did not yet, says all that, and finishes if that was
    /// its last word. It falls silent where the stream is over.
    fn speak(&mut self, stream: StreamId, frames: Vec<Bytes>, last: bool) {
        if let Some(known) = self.books.streams.get(&stream)
            && !known.open
        {
            let conn = known.conn;
            self.feed(Event::StreamOpened { conn, stream });
        }
        for body in frames {
            if self.books.streams.contains_key(&stream) {
                self.feed(Event::Frame { stream, body });
            }
        }
        if last {
            self.end(stream);
        }
    }

    fn end(&mut self, stream: StreamId) {
        if self.books.streams.get(&stream).is_some_and(|known| !known.theirs_over) {
            self.feed(Event::StreamClosed { stream, end: StreamEnd::Finished });
        }
    }
}

/// What a peer says of itself.
fn identify(observed: Option<Addr>, server: bool) -> Vec<Bytes> {
    let client = [Protocol::Identify, Protocol::IdentifyPush, Protocol::Ping];
    let all = Protocol::ALL.into_iter().filter(|one| *one != Protocol::AutonatV1);
    let listed: Vec<Protocol> = if server { all.collect() } else { client.to_vec() };
    let said = Identify {
        observed: observed.map(multiaddr::encode),
        protocols: listed.iter().map(|protocol| protocol.name().to_owned()).collect(),
        ..Identify::default()
    };
    said.encode_split().messages
}

fn response(answer: Answer) -> Message {
    let (status, dial_status) = match answer {
        Answer::Ok => (ResponseStatus::Ok, DialStatus::Ok),
        Answer::DialError | Answer::StrangerFailed => (ResponseStatus::Ok, DialStatus::DialError),
        Answer::DialBackError => (ResponseStatus::Ok, DialStatus::DialBackError),
        Answer::Refused => (ResponseStatus::Refused, DialStatus::Unused),
        Answer::Rejected => (ResponseStatus::Rejected, DialStatus::Unused),
        Answer::Internal => (ResponseStatus::InternalError, DialStatus::Unused),
        Answer::Unknown => (ResponseStatus::from_code(150), DialStatus::Unused),
    };
    let failed_from = (answer == Answer::StrangerFailed).then_some(REFUSED_FROM);
    Message::DialResponse { status, addr_idx: 0, dial_status, failed_from }
}
