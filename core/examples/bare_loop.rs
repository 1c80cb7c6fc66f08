//! Core in a plain loop: no async, no libp2p stack, one thread. Two agents talk over TCP sockets
//! of the standard library, in frames of this file's own. The server dials the client back over a
//! fresh connection, the client's verdict is printed, and the program ends.
//!
//! Nobody lies here, and nothing fails: a peer's first frame says who it is, and is believed.

#![allow(clippy::print_stdout, reason = "a program that a person runs")]
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "this is the world around core: here are the sockets and the clock"
)]

use libp2p_identity::{Keypair, PublicKey};
use portolan_core::{
    Action, Actions, Addr, Agent, Config, ConnId, Connected, Cx, DialFailure, DialId, Draw, Event,
    Instant, ListenerId, Notice, Protocol, Side, Signer, State, StreamEnd, StreamId, UnixTime,
};
use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn main() -> Result<(), Box<dyn Error>> {
    let mut config = Config::default();
    config.allow_private = true; // Loopback addresses count for something in tests alone.
    let mut client = Node::new(config.clone())?;
    config.dial_back = Some(Default::default());
    let mut server = Node::new(config)?;

    client.feed(Event::Contacted { ip: server.addr.ip });
    let socket = TcpStream::connect(server.addr.socket())?;
    client.connected(socket, Side::Outbound, None, client.key.0.public())?;
    while !client.is_proved {
        client.turn()?;
        server.turn()?;
        sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// An agent, and its part of the world.
struct Node {
    agent: Agent,
    key: Key,
    chance: Chance,
    begun: std::time::Instant,
    listener: TcpListener,
    addr: Addr,
    wires: BTreeMap<ConnId, Wire>,
    last: ConnId,
    /// On which connection each stream runs.
    streams: BTreeMap<StreamId, ConnId>,
    is_proved: bool,
}

impl Node {
    fn new(config: Config) -> Result<Node, Box<dyn Error>> {
        let key = Key(Keypair::generate_ed25519());
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let addr = tcp(listener.local_addr()?);
        let mut node = Node {
            agent: Agent::new(config, key.0.public())?,
            key,
            chance: Chance(RandomState::new(), 0),
            begun: std::time::Instant::now(),
            listener,
            addr,
            wires: BTreeMap::new(),
            last: ConnId(0),
            streams: BTreeMap::new(),
            is_proved: false,
        };
        node.feed(Event::InterfacesChanged { ips: vec![addr.ip] });
        node.feed(Event::ListenerOpened { listener: ListenerId(0), addr });
        Ok(node)
    }

    /// Look once at every socket, and at the clock.
    fn turn(&mut self) -> io::Result<()> {
        match self.listener.accept() {
            Ok((socket, _)) => {
                self.connected(socket, Side::Inbound, None, self.key.0.public())?;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        for conn in self.wires.keys().copied().collect::<Vec<_>>() {
            let is_over = self.wires.get_mut(&conn).is_some_and(Wire::transfer);
            while let Some((head, body)) = self.wires.get_mut(&conn).and_then(Wire::frame) {
                self.received(conn, head, body)?;
            }
            if is_over && self.disconnect(conn) {
                self.feed(Event::Disconnected { conn });
            }
        }
        if self.agent.deadline().is_some_and(|deadline| deadline.at <= self.now()) {
            self.feed(Event::Tick);
        }
        Ok(())
    }

    /// Tell core a fact, and do what it orders. What comes of that is told next.
    fn feed(&mut self, event: Event) {
        let (mut events, mut actions) = (VecDeque::from([event]), Actions::new());
        while let Some(event) = events.pop_front() {
            let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let mut cx = Cx {
                now: self.now(),
                unix: UnixTime::from_millis(unix.as_secs() * 1_000),
                draw: &mut self.chance,
                sign: &mut self.key,
                actions: &mut actions,
            };
            self.agent.handle(&mut cx, event);
            events.extend(actions.drain().filter_map(|action| self.perform(action)));
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::OpenStream { conn, stream } => {
                self.streams.insert(stream, conn);
                self.send(stream, OPEN, &[]);
                // Both sides speak the same protocols; otherwise they would agree on one now.
                return Some(Event::StreamOpened { conn, stream });
            }
            Action::Send { stream, body } => self.send(stream, BODY, &body),
            Action::CloseStream { stream } => self.send(stream, FINISH, &[]),
            Action::ResetStream { stream } => {
                self.send(stream, RESET, &[]);
                self.streams.remove(&stream);
            }
            Action::Dial(order) => {
                let (dial, stranger) = (order.dial, Keypair::generate_ed25519().public());
                let socket = TcpStream::connect_timeout(&order.addr.socket(), order.timeout);
                let dialled = socket
                    .and_then(|tcp| self.connected(tcp, Side::Outbound, Some(dial), stranger));
                let reason = DialFailure::Refused;
                return dialled.err().map(|_| Event::DialFailed { dial, reason });
            }
            Action::Disconnect { conn } => {
                return self.disconnect(conn).then_some(Event::Disconnected { conn });
            }
            Action::Notify(Notice::VerdictChanged { addr, state, reason, .. }) => {
                println!("{addr} is {}: {reason}", state.name());
                self.is_proved |= state == State::Reachable;
            }
            // Other notices. No router is asked; there are no other actions.
            Action::Notify(_) | Action::Mapping(_) | _ => {}
        }
        None
    }

    fn send(&mut self, stream: StreamId, kind: u64, body: &[u8]) {
        if let Some(wire) = self.streams.get(&stream).and_then(|conn| self.wires.get_mut(conn)) {
            wire.put([kind, stream.side as u64, stream.protocol as u64, stream.number], body);
        }
    }

    fn received(&mut self, conn: ConnId, head: [u64; 4], body: Vec<u8>) -> io::Result<()> {
        let [kind, side, protocol, number] = head;
        if kind == HELLO {
            let event = self.wires[&conn].hello(conn, &body)?;
            self.feed(event);
            return Ok(());
        }
        // What is outbound there is inbound here.
        let protocol = Protocol::ALL.into_iter().find(|known| *known as u64 == protocol);
        let protocol = protocol.ok_or(ErrorKind::InvalidData)?;
        let stream = if side == Side::Outbound as u64 {
            StreamId::inbound(protocol, conn.0 << 32 | number)
        } else {
            StreamId::outbound(protocol, number & u64::from(u32::MAX))
        };
        if kind == OPEN {
            self.streams.insert(stream, conn);
        }
        if self.streams.get(&stream) != Some(&conn) {
            return Ok(()); // It crossed a reset.
        }
        self.feed(match kind {
            OPEN => Event::StreamOpened { conn, stream },
            BODY => Event::Frame { stream, body: body.into() },
            FINISH => Event::StreamClosed { stream, end: StreamEnd::Finished },
            _ => Event::StreamClosed { stream, end: StreamEnd::Reset },
        });
        Ok(())
    }

    /// A connection stands: say hello. Core hears of it when the other side has done so.
    fn connected(
        &mut self,
        socket: TcpStream,
        side: Side,
        dial: Option<DialId>,
        who: PublicKey,
    ) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let mut wire = Wire { socket, side, dial, input: Vec::new(), output: Vec::new() };
        wire.put([HELLO, 0, 0, 0], &who.encode_protobuf());
        self.last.0 += 1;
        self.wires.insert(self.last, wire);
        Ok(())
    }

    /// Returns whether there was such a connection.
    fn disconnect(&mut self, conn: ConnId) -> bool {
        self.streams.retain(|_, on| *on != conn);
        self.wires.remove(&conn).is_some_and(|mut wire| {
            wire.transfer();
            true
        })
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// What a frame is: its first number. The others are who opened the stream, its protocol, and the
/// number that its opener gave it, all as the sender sees it.
const HELLO: u64 = 0;
const OPEN: u64 = 1;
const BODY: u64 = 2;
const FINISH: u64 = 3;
const RESET: u64 = 4;
/// Bytes before the body of a frame: the four numbers, and the length of the body.
const HEAD: usize = 5 * size_of::<u64>();

/// One connection.
struct Wire {
    socket: TcpStream,
    side: Side,
    dial: Option<DialId>,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Wire {
    fn put(&mut self, head: [u64; 4], body: &[u8]) {
        let numbers = head.into_iter().chain([body.len() as u64]);
        self.output.extend(numbers.flat_map(u64::to_le_bytes));
        self.output.extend(body);
    }

    /// The next frame that is there as a whole.
    fn frame(&mut self) -> Option<([u64; 4], Vec<u8>)> {
        let mut numbers = self.input.chunks_exact(size_of::<u64>());
        let mut number = || Some(u64::from_le_bytes(numbers.next()?.try_into().ok()?));
        let head = [number()?, number()?, number()?, number()?];
        let end = HEAD + usize::try_from(number()?).ok()?;
        let body = self.input.get(HEAD..end)?.to_vec();
        self.input.drain(..end);
        Some((head, body))
    }

    /// Write what waits, and read what came. Returns whether the connection is over.
    fn transfer(&mut self) -> bool {
        while !self.output.is_empty() {
            match self.socket.write(&self.output) {
                Ok(written) => drop(self.output.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return true,
            }
        }
        match self.socket.read_to_end(&mut self.input) {
            Ok(_) => true,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }

    /// What core is told when the other side has said who it is.
    fn hello(&self, conn: ConnId, key: &[u8]) -> io::Result<Event> {
        let key = PublicKey::try_decode_protobuf(key).map_err(io::Error::other)?;
        Ok(Event::Connected(Connected {
            conn,
            peer: key.to_peer_id(),
            side: self.side,
            local: tcp(self.socket.local_addr()?),
            remote: tcp(self.socket.peer_addr()?),
            relayed: false,
            dial: self.dial,
            rtt: None,
        }))
    }
}

fn tcp(addr: SocketAddr) -> Addr {
    Addr::tcp(addr.ip(), addr.port())
}

struct Key(Keypair);

impl Signer for Key {
    fn sign(&mut self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).unwrap_or_default()
    }
}

/// SipHash of a counter, under a key that the standard library has from the operating system.
struct Chance(RandomState, u64);

impl Draw for Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.nonce().checked_rem(n).unwrap_or(0)
    }

    fn nonce(&mut self) -> u64 {
        self.1 += 1;
        self.0.hash_one(self.1)
    }
}
