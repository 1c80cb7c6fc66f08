//! An AutoNAT v2 server that follows a script instead of the protocol.
//!
//! It is a rust-libp2p swarm, so its connections and its identify are as good as anybody's; only
//! what it says and does on the two AutoNAT streams is made up. Dial-backs come from a swarm of
//! their own, fresh for each, so that they have an identity and a port of their own.

use crate::frames::{announce_frame, read_frame, write_frame};
use crate::raw_streams::{Inbound, Opener};
use crate::rust_peer::{RustPeer, RustPeerConfig, Seen};
use bytes::BytesMut;
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::multiaddr::Protocol as Part;
use libp2p::swarm::StreamProtocol;
use libp2p::{Multiaddr, PeerId, Stream};
use portolan_core::wire::autonat::{DialBack, DialStatus, Message, ResponseStatus};
use portolan_core::{Framing, Protocol};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long a dial-back may take; every destination is on this host.
const DIAL_BACK_WITHIN: Duration = Duration::from_secs(5);
/// How long [`DialBackTrick::Silent`] holds its silent connection (the audit's value).
const SILENT_FOR: Duration = Duration::from_secs(2);
/// The pause between two bytes of a slow frame: too short for any idle time-out.
const DRIP: Duration = Duration::from_millis(100);
/// The length that a slow or truncated frame announces; within the limit of the protocol.
const ANNOUNCED: usize = 4_000;
/// More dial data than any server may ask for (autonat-v2: 30 to 100 kB).
const ABSURD_DIAL_DATA: u64 = 10_000_000_000;

/// An answer as the server words it, whatever is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What became of the request.
    pub status: ResponseStatus,
    /// The address that it is about.
    pub addr_idx: u32,
    /// How the dial went.
    pub dial_status: DialStatus,
}

impl Answer {
    /// `OK` and `OK`, for the first address: it was reached.
    pub const REACHED: Answer = Answer::of(ResponseStatus::Ok, DialStatus::Ok);
    /// `OK` and `E_DIAL_ERROR`: it was not reached.
    pub const DIAL_ERROR: Answer = Answer::of(ResponseStatus::Ok, DialStatus::DialError);
    /// `OK` and `E_DIAL_BACK_ERROR`: it was reached, but did not take the nonce.
    pub const DIAL_BACK_ERROR: Answer = Answer::of(ResponseStatus::Ok, DialStatus::DialBackError);
    /// `E_REQUEST_REJECTED`.
    pub const REJECTED: Answer = Answer::of(ResponseStatus::Rejected, DialStatus::Unused);
    /// `E_DIAL_REFUSED`.
    pub const REFUSED: Answer = Answer::of(ResponseStatus::Refused, DialStatus::Unused);
    /// `E_INTERNAL_ERROR`.
    pub const INTERNAL_ERROR: Answer =
        Answer::of(ResponseStatus::InternalError, DialStatus::Unused);
    /// Statuses that nobody has defined.
    pub const UNHEARD_OF: Answer =
        Answer::of(ResponseStatus::Unknown(150), DialStatus::Unknown(150));
    /// A dial error of an address that nobody asked about.
    pub const OUT_OF_RANGE: Answer = Answer { addr_idx: 50, ..Answer::DIAL_ERROR };

    const fn of(status: ResponseStatus, dial_status: DialStatus) -> Answer {
        Answer { status, addr_idx: 0, dial_status }
    }
}

/// What a server does with the nonce before it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DialBackTrick {
    /// Delivers it as it should.
    None,
    /// Delivers it less one.
    WrongNonce,
    /// Connects, opens no stream, and hangs up 2 s later.
    Silent,
    /// Delivers it to another address of the client.
    Elsewhere {
        /// Where to.
        to: Multiaddr,
    },
    /// Delivers it on the connection that the request came on.
    ExistingConnection,
}

/// A frame, or rather none, in place of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFrame {
    /// Longer than the protocol allows.
    Oversized,
    /// It ends in the middle.
    Truncated,
    /// Not protobuf.
    Garbage,
    /// It comes byte by byte and never ends.
    SlowLoris,
    /// The stream is reset.
    Reset,
}

/// What a scripted server does with a dial request. The constants go by the audit's names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Behavior {
    /// Dials the first address, delivers the nonce there, and says how it went.
    Honest,
    /// Says this and does nothing.
    Say(Answer),
    /// Does this with the nonce, and then says that.
    DialBack(DialBackTrick, Answer),
    /// Never answers.
    Timeout,
    /// Connects, opens the stream, never finishes its message, never answers.
    StalledDialBack,
    /// Asks for absurdly much dial data.
    AbsurdDialData,
    /// Answers twice.
    SayTwice(Answer, Answer),
    /// Breaks the framing.
    Break(BadFrame),
    /// Honest with this probability in per cent, else [`Behavior::FORCE_UNREACHABLE`].
    Probabilistic {
        /// Of 100.
        honest: u8,
    },
    /// One behaviour for each transport of the address asked about.
    PerTransport {
        /// For TCP.
        tcp: Box<Behavior>,
        /// For QUIC.
        quic: Box<Behavior>,
    },
}

impl Behavior {
    /// The audit's *reject*.
    pub const REJECT: Behavior = Behavior::Say(Answer::REJECTED);
    /// The audit's *refuse*.
    pub const REFUSE: Behavior = Behavior::Say(Answer::REFUSED);
    /// The audit's *internal-error*.
    pub const INTERNAL_ERROR: Behavior = Behavior::Say(Answer::INTERNAL_ERROR);
    /// The audit's *force-unreachable*: a dial error without a dial.
    pub const FORCE_UNREACHABLE: Behavior = Behavior::Say(Answer::DIAL_ERROR);
    /// The audit's *force-reachable*, which really dials.
    pub const FORCE_REACHABLE: Behavior = Behavior::Honest;
    /// The audit's *wrong-nonce*.
    pub const WRONG_NONCE: Behavior =
        Behavior::DialBack(DialBackTrick::WrongNonce, Answer::REACHED);
    /// The audit's *no-dialback-msg*.
    pub const NO_DIAL_BACK_MESSAGE: Behavior =
        Behavior::DialBack(DialBackTrick::Silent, Answer::REACHED);
    /// A success without a dial-back.
    pub const OK_WITHOUT_DIAL_BACK: Behavior = Behavior::Say(Answer::REACHED);
    /// The nonce over the connection that is there already.
    pub const NONCE_ON_EXISTING_CONNECTION: Behavior =
        Behavior::DialBack(DialBackTrick::ExistingConnection, Answer::REACHED);

    /// The nonce delivered to another address than the one asked about.
    pub const fn nonce_elsewhere(to: Multiaddr) -> Behavior {
        Behavior::DialBack(DialBackTrick::Elsewhere { to }, Answer::REACHED)
    }
}

/// What a scripted server does, and how long it waits before that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// What it does.
    pub behavior: Behavior,
    /// How long it waits at least.
    pub delay: Duration,
    /// Up to how much longer it waits, evenly drawn.
    pub jitter: Duration,
}

impl From<Behavior> for Script {
    fn from(behavior: Behavior) -> Script {
        Script { behavior, delay: Duration::ZERO, jitter: Duration::ZERO }
    }
}

impl Script {
    /// This script, with a wait before it acts.
    #[must_use]
    pub fn after(mut self, delay: Duration, jitter: Duration) -> Script {
        self.delay = delay;
        self.jitter = jitter;
        self
    }
}

/// One request as the server got it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asked.
    pub peer: PeerId,
    /// The addresses, first first; those that are none are left out.
    pub addrs: Vec<Multiaddr>,
    /// What a dial-back has to carry.
    pub nonce: u64,
}

/// A running scripted server. Dropping it stops it.
#[derive(Debug)]
pub struct ScriptedServer {
    peer: RustPeer,
    script: Arc<Mutex<Script>>,
    requests: watch::Receiver<Vec<Request>>,
    task: tokio::task::JoinHandle<()>,
}

impl ScriptedServer {
    /// Start a server that listens on `listen` and follows `script`. All its chance comes from
    /// `seed`.
    pub async fn start(
        listen: Vec<Multiaddr>,
        script: impl Into<Script>,
        seed: u64,
    ) -> ScriptedServer {
        let accept = vec![name(Protocol::DialRequest)];
        let config = RustPeerConfig { listen, accept, ..RustPeerConfig::default() };
        let mut peer = RustPeer::start(config).await;
        let script = Arc::new(Mutex::new(script.into()));
        let (log, requests) = watch::channel(Vec::new());
        let inbound = peer.inbound().expect("nobody else has asked for them");
        let task = tokio::spawn(serve(inbound, peer.opener(), script.clone(), log, Chance(seed)));
        ScriptedServer { peer, script, requests, task }
    }

    /// The server's peer id.
    pub fn id(&self) -> PeerId {
        self.peer.id
    }

    /// What it listens on, with `/p2p/`.
    pub fn full_addrs(&self) -> Vec<Multiaddr> {
        self.peer.full_addrs()
    }

    /// The swarm that it is made of.
    pub fn peer(&self) -> &RustPeer {
        &self.peer
    }

    /// Follow another script from the next request on.
    pub fn follow(&self, script: impl Into<Script>) {
        *self.script.lock().unwrap_or_else(PoisonError::into_inner) = script.into();
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.borrow().clone()
    }

    /// Wait until the server has got `count` requests.
    pub async fn wait_for_requests(&self, count: usize, within: Duration) -> Result<(), String> {
        let mut requests = self.requests.clone();
        let enough = requests.wait_for(|requests| requests.len() >= count);
        let ended = tokio::time::timeout(within, enough).await.is_ok_and(|waited| waited.is_ok());
        if ended {
            return Ok(());
        }
        Err(format!("{} of {count} requests within {within:?}", self.requests().len()))
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// SplitMix64: as good as a script needs.
#[derive(Clone, Copy)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    }

    fn span(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(self.next() % (most + 1))
    }
}

async fn serve(
    mut inbound: mpsc::UnboundedReceiver<Inbound>,
    opener: Opener,
    script: Arc<Mutex<Script>>,
    log: watch::Sender<Vec<Request>>,
    mut chance: Chance,
) {
    // A set, so that stopping the server stops what it is in the middle of.
    let mut answers = tokio::task::JoinSet::new();
    while let Some(Inbound { peer, stream, .. }) = inbound.recv().await {
        let script = script.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let wait = script.delay + chance.span(script.jitter);
        let percent = chance.next() % 100;
        let (opener, log) = (opener.clone(), log.clone());
        answers.spawn(async move {
            let mut exchange = Exchange { peer, stream, buffer: BytesMut::new(), opener };
            let Ok(request) = exchange.request().await else { return };
            log.send_modify(|log| log.push(request.clone()));
            // sleep: being late is what the script says.
            tokio::time::sleep(wait).await;
            let behavior = settle(script.behavior, &request, percent);
            // A client that hangs up in the middle is the client's business.
            let _gone = exchange.perform(behavior, &request).await;
        });
        while answers.try_join_next().is_some() {}
    }
}

/// What a behaviour that leaves a choice comes down to for one request.
fn settle(behavior: Behavior, request: &Request, percent: u64) -> Behavior {
    match behavior {
        Behavior::Probabilistic { honest } if percent < u64::from(honest) => Behavior::Honest,
        Behavior::Probabilistic { .. } => Behavior::FORCE_UNREACHABLE,
        Behavior::PerTransport { tcp, quic } => {
            let is_tcp = request.addrs.first().is_some_and(speaks_tcp);
            settle(if is_tcp { *tcp } else { *quic }, request, percent)
        }
        plain @ (Behavior::Honest
        | Behavior::Say(_)
        | Behavior::DialBack(..)
        | Behavior::Timeout
        | Behavior::StalledDialBack
        | Behavior::AbsurdDialData
        | Behavior::SayTwice(..)
        | Behavior::Break(_)) => plain,
    }
}

fn speaks_tcp(addr: &Multiaddr) -> bool {
    addr.iter().any(|part| matches!(part, Part::Tcp(_)))
}

fn name(protocol: Protocol) -> StreamProtocol {
    StreamProtocol::new(protocol.name())
}

/// One dial request being answered.
struct Exchange {
    peer: PeerId,
    stream: Stream,
    buffer: BytesMut,
    opener: Opener,
}

impl Exchange {
    async fn request(&mut self) -> io::Result<Request> {
        let framing = Protocol::DialRequest.framing();
        let body = read_frame(&mut self.stream, framing, &mut self.buffer).await?;
        match Message::decode(&body) {
            Ok(Message::DialRequest { addrs, nonce }) => Ok(Request {
                peer: self.peer,
                addrs: addrs.iter().filter_map(|a| Multiaddr::try_from(a.to_vec()).ok()).collect(),
                nonce,
            }),
            other => Err(io::Error::other(format!("not a dial request: {other:?}"))),
        }
    }

    async fn perform(mut self, behavior: Behavior, request: &Request) -> io::Result<()> {
        let addr = request.addrs.first();
        let addr = addr.ok_or_else(|| io::Error::other("a request without addresses"))?;
        match behavior {
            Behavior::Honest => {
                let answer = match deliver(addr, self.peer, request.nonce).await {
                    Ok(()) => Answer::REACHED,
                    Err(DialBackFault::Dial) => Answer::DIAL_ERROR,
                    Err(DialBackFault::Stream) => Answer::DIAL_BACK_ERROR,
                };
                self.answer(answer).await?;
                self.finish().await
            }
            Behavior::Say(answer) => {
                self.answer(answer).await?;
                self.finish().await
            }
            Behavior::DialBack(trick, answer) => {
                self.dial_back(trick, addr, request.nonce).await;
                self.answer(answer).await?;
                self.finish().await
            }
            Behavior::Timeout => self.hold().await,
            Behavior::StalledDialBack => {
                let dialler = dial_back(addr, self.peer).await.map_err(io::Error::from)?;
                let mut stream = open_dial_back(&dialler, self.peer).await?;
                // The length of a DialBack, and not a byte of it.
                stream.write_all(&[9]).await?;
                stream.flush().await?;
                self.hold().await
            }
            Behavior::AbsurdDialData => {
                let num_bytes = ABSURD_DIAL_DATA;
                self.say(&Message::DialDataRequest { addr_idx: 0, num_bytes }).await?;
                self.hold().await
            }
            Behavior::SayTwice(first, second) => {
                self.answer(first).await?;
                self.answer(second).await?;
                self.finish().await
            }
            Behavior::Break(frame) => self.break_frame(frame).await,
            Behavior::Probabilistic { .. } | Behavior::PerTransport { .. } => {
                Err(io::Error::other("it was settled before what these come down to"))
            }
        }
    }

    /// What becomes of it does not change what a liar says.
    async fn dial_back(&mut self, trick: DialBackTrick, addr: &Multiaddr, nonce: u64) {
        match trick {
            DialBackTrick::None => {
                let _whatever = deliver(addr, self.peer, nonce).await;
            }
            DialBackTrick::WrongNonce => {
                let _whatever = deliver(addr, self.peer, nonce.wrapping_sub(1)).await;
            }
            DialBackTrick::Silent => {
                let _dialler = dial_back(addr, self.peer).await;
                // sleep: holding a silent connection is the trick.
                tokio::time::sleep(SILENT_FOR).await;
            }
            DialBackTrick::Elsewhere { to } => {
                let _whatever = deliver(&to, self.peer, nonce).await;
            }
            DialBackTrick::ExistingConnection => {
                let opened = self.opener.open(self.peer, name(Protocol::DialBack)).await;
                if let Ok(stream) = opened {
                    let _whatever = hand_over(stream, nonce).await;
                }
            }
        }
    }

    async fn break_frame(mut self, frame: BadFrame) -> io::Result<()> {
        match frame {
            BadFrame::Oversized => {
                let body = vec![0; 1 << 20];
                write_frame(&mut self.stream, Framing::Varint { max: body.len() }, &body).await?;
                self.finish().await
            }
            BadFrame::Truncated => {
                announce_frame(&mut self.stream, Protocol::DialRequest.framing(), ANNOUNCED)
                    .await?;
                self.stream.write_all(&[0; 10]).await?;
                self.finish().await
            }
            BadFrame::Garbage => {
                let framing = Protocol::DialRequest.framing();
                write_frame(&mut self.stream, framing, &[0xff; 32]).await?;
                self.finish().await
            }
            BadFrame::SlowLoris => {
                announce_frame(&mut self.stream, Protocol::DialRequest.framing(), ANNOUNCED)
                    .await?;
                for _ in 0..ANNOUNCED - 1 {
                    self.stream.write_all(&[0]).await?;
                    self.stream.flush().await?;
                    // sleep: dripping is what breaks the frame.
                    tokio::time::sleep(DRIP).await;
                }
                self.hold().await
            }
            // Dropping a stream without closing it resets it.
            BadFrame::Reset => Ok(()),
        }
    }

    async fn answer(&mut self, answer: Answer) -> io::Result<()> {
        let Answer { status, addr_idx, dial_status } = answer;
        self.say(&Message::DialResponse { status, addr_idx, dial_status, failed_from: None }).await
    }

    async fn say(&mut self, message: &Message) -> io::Result<()> {
        write_frame(&mut self.stream, Protocol::DialRequest.framing(), &message.encode()).await
    }

    async fn finish(mut self) -> io::Result<()> {
        self.stream.close().await
    }

    /// Say nothing until the client gives up.
    async fn hold(mut self) -> io::Result<()> {
        let mut ignored = [0; 1_024];
        while self.stream.read(&mut ignored).await? > 0 {}
        // The client may finish sending and go on waiting.
        std::future::pending().await
    }
}

/// What stopped a dial-back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DialBackFault {
    Dial,
    Stream,
}

impl From<DialBackFault> for io::Error {
    fn from(fault: DialBackFault) -> io::Error {
        io::Error::other(format!("{fault:?}"))
    }
}

/// Dial an address of the client and deliver a nonce there.
async fn deliver(addr: &Multiaddr, client: PeerId, nonce: u64) -> Result<(), DialBackFault> {
    let dialler = dial_back(addr, client).await?;
    let stream = open_dial_back(&dialler, client).await.map_err(|_| DialBackFault::Stream)?;
    hand_over(stream, nonce).await.map_err(|_| DialBackFault::Stream)
}

/// Connect to an address of the client as somebody new.
async fn dial_back(addr: &Multiaddr, client: PeerId) -> Result<RustPeer, DialBackFault> {
    let dialler = RustPeer::start(RustPeerConfig::default()).await;
    dialler.dial_from_fresh_port(addr.clone().with(Part::P2p(client))).await;
    let dialled = |seen: &Seen| seen.dialled(client);
    let dialled = dialler.wait("end of the dial-back's dial", DIAL_BACK_WITHIN, dialled).await;
    if dialled == Ok(Ok(())) { Ok(dialler) } else { Err(DialBackFault::Dial) }
}

async fn open_dial_back(dialler: &RustPeer, client: PeerId) -> io::Result<Stream> {
    dialler.opener().open(client, name(Protocol::DialBack)).await
}

/// Send a nonce and wait for the client's answer to it.
async fn hand_over(mut stream: Stream, nonce: u64) -> io::Result<()> {
    let framing = Protocol::DialBack.framing();
    write_frame(&mut stream, framing, &DialBack { nonce }.encode()).await?;
    let mut buffer = BytesMut::new();
    let answer = read_frame(&mut stream, framing, &mut buffer);
    tokio::time::timeout(DIAL_BACK_WITHIN, answer).await??;
    stream.close().await
}
