//! `portolan listen` and `portolan connect`: bytes from here to there, over whatever connection there
//! is, for as long as both want.

mod argv;
mod join;
mod news;
mod punching;
mod relayed;

pub use argv::{Argv, BadCommand};
pub use join::MoveFailed;
pub use news::{PathReport, PipeNews};
pub use relayed::NoReservation;

use crate::lists;
use crate::ports::{self, Failure};
use crate::serve::concrete;
use futures::stream::{FuturesUnordered, StreamExt};
use futures::{FutureExt, pin_mut, select_biased};
use join::{Ends, Running};
use multiaddr::Multiaddr;
use news::Tracker;
use portolan_core::{Config, Duration, RelayNeed, RelayPeer};
use portolan_runtime::bootstrap::{Bootstrap, BootstrapConfig};
use portolan_runtime::identity::{self, Keypair};
use portolan_runtime::names::NamesConfig;
use portolan_runtime::net::interface_ips;
use portolan_runtime::pipe::{
    Allow, PROTOCOL, Pipe, PipeConfig, PipeError, PipeListener, PipeOpenError,
};
use portolan_runtime::record::Recording;
use portolan_runtime::traits::Runtime;
use portolan_runtime::{AcceptError, DialError, Incoming, Node, StartError};
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::IpAddr;

/// How long to wait at first before lists are read again, where nobody is connected any more, and at most; each
/// start that leads to nobody doubles it. Ours: as a watch does.
const AGAIN_FIRST: Duration = Duration::from_secs(5);
const AGAIN_MAX: Duration = Duration::from_secs(300);

/// How to listen for sessions. Built by `ListenOptions::new` and assignment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ListenOptions {
    /// What to listen on; when empty, every IPv4 and IPv6 address, with TCP and QUIC on one port
    /// that the kernel chooses.
    pub listen: Vec<Multiaddr>,
    /// Relays to be reached through, if any.
    pub relays: Vec<RelayPeer>,
    /// Lists of peers to start from, if any: they tell where we are, and those of them that relay are relays to be
    /// reached through where not everybody can dial us.
    pub bootstrap: Option<BootstrapConfig>,
    /// Treat private and loopback addresses as if they were global.
    pub allow_private: bool,
    /// How names in addresses are resolved.
    pub names: NamesConfig,
    /// Whom this host sent to before, on behalf of this: servers of names, when relays were looked up.
    pub contacted: Vec<IpAddr>,
    /// Who may connect.
    pub allow: Allow,
    /// The program to run for each session; without it the first session gets stdin and stdout.
    pub exec: Option<Argv>,
    /// Predict ports, and send to those that peers predict; see
    /// [`PunchConfig::predict_ports`](portolan_core::PunchConfig).
    pub predict_ports: bool,
    /// The identity to use.
    pub keypair: Keypair,
    /// Where to write a flight record, for `portolan replay`; none is written unless said.
    pub record: Option<Recording>,
}

impl ListenOptions {
    /// Listen everywhere, with a fresh identity, for one session on stdin and stdout.
    pub fn new(allow: Allow) -> ListenOptions {
        ListenOptions {
            listen: Vec::new(),
            relays: Vec::new(),
            bootstrap: None,
            allow_private: false,
            names: NamesConfig::default(),
            contacted: Vec::new(),
            allow,
            exec: None,
            predict_ports: false,
            keypair: identity::generate(),
            record: None,
        }
    }

    /// When relays are to lead others here; none where there are none.
    fn need(&self) -> Option<RelayNeed> {
        match (self.relays.is_empty(), &self.bootstrap) {
            (false, _) => Some(RelayNeed::Always),
            (true, Some(_)) => Some(RelayNeed::Auto),
            (true, None) => None,
        }
    }
}

/// How to connect. Built by `ConnectOptions::new` and assignment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// Where the peer is, or a way to it through a relay. Without `/p2p/PEER-ID` at its end whoever lives
    /// there will do.
    pub peer: Multiaddr,
    /// The identity to use.
    pub keypair: Keypair,
    /// How names in addresses are resolved.
    pub names: NamesConfig,
    /// Lists of peers to start from, if any: they tell where we are, which a direct connection beside a relayed one may
    /// need.
    pub bootstrap: Option<BootstrapConfig>,
    /// Treat private and loopback addresses as if they were global.
    pub allow_private: bool,
    /// Tell of attempts at a direct connection, and why there is none.
    pub explain: bool,
    /// Predict ports, and send to those that the peer predicts; see
    /// [`PunchConfig::predict_ports`](portolan_core::PunchConfig).
    pub predict_ports: bool,
    /// Where to write a flight record, for `portolan replay`; none is written unless said.
    pub record: Option<Recording>,
}

impl ConnectOptions {
    /// Connect to this address with a fresh identity.
    pub fn new(peer: Multiaddr) -> ConnectOptions {
        ConnectOptions {
            peer,
            keypair: identity::generate(),
            names: NamesConfig::default(),
            bootstrap: None,
            allow_private: false,
            explain: false,
            predict_ports: false,
            record: None,
        }
    }
}

/// Why a session was not, or not all of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipeFailed {
    /// No relay leads others here.
    #[error(transparent)]
    NoReservation(#[from] NoReservation),
    /// The node did not start, most often because a port is in use.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The protocol cannot be listened on.
    #[error(transparent)]
    Accept(#[from] AcceptError),
    /// The interfaces of this host could not be listed.
    #[error("cannot list the interfaces of this host: {0}")]
    Interfaces(io::Error),
    /// The peer could not be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The session did not begin.
    #[error(transparent)]
    Open(#[from] PipeOpenError),
    /// The session, or one of its local ends, failed.
    #[error(transparent)]
    Move(#[from] MoveFailed),
    /// It was stopped in the middle of a session.
    #[error("stopped before the session had ended")]
    Interrupted,
}

/// Listen, have relays lead others here if any are named, and serve: one session on stdin and stdout, or any number of a program's, until `stop`
/// resolves. `news` is told what happens.
///
/// # Errors
/// If the node does not start, if relays are named and none takes us in within fifteen seconds, or if the
/// one session on stdin and stdout fails. Of many, each failure is told as news.
pub async fn listen<R: Runtime>(
    runtime: R,
    options: ListenOptions,
    news: impl FnMut(&PipeNews),
    stop: impl Future<Output = ()>,
) -> Result<(), PipeFailed> {
    let interfaces = interface_ips().map_err(PipeFailed::Interfaces)?;
    let (node, incoming) = start(runtime.clone(), &options).await?;
    let mut starting = None;
    let served = async {
        let mut stop = Box::pin(stop.fuse());
        if !options.relays.is_empty() {
            select_biased! {
                () = stop => return Ok(()),
                reserved = relayed::reserve(&runtime, &node).fuse() => reserved?,
            }
        }
        let mut config = PipeConfig::default();
        if options.exec.is_none() {
            config.sessions_max = 1;
        }
        let listener = PipeListener::over(&node, incoming, options.allow, config);
        // Two tell: who serves, and who follows the relays.
        let news = RefCell::new(news);
        let say = |one: &PipeNews| (news.borrow_mut())(one);
        for address in concrete(&node.listeners().await, &interfaces) {
            say(&PipeNews::Listening { address: address.to_string() });
        }
        let follow = relayed::follow(&node, say);
        let starts = start_from((&runtime, &node), options.bootstrap, &mut starting, say);
        let follow = async { futures::join!(follow, punching::follow(&node, say), starts) };
        let follow = follow.fuse();
        let mut say = say;
        let serve = async {
            match &options.exec {
                Some(argv) => serve_many(&node, listener, argv, &mut say, stop).await,
                None => serve_one(&node, listener, &mut say, stop).await,
            }
        };
        let serve = serve.fuse();
        pin_mut!(follow, serve);
        loop {
            select_biased! {
                _ = follow => {}
                served = serve => return served,
            }
        }
    };
    let served = served.await;
    close(starting).await;
    node.shutdown().await;
    served
}

/// What lists said is kept, even where nobody waited for it.
async fn close(starting: Option<Bootstrap>) {
    if let Some(starting) = starting {
        starting.close().await;
    }
}

/// Connect, and join stdin and stdout to the session.
///
/// # Errors
/// If the peer cannot be reached or refuses, if the session fails, or if `stop` resolves before its end.
pub async fn connect<R: Runtime>(
    runtime: R,
    options: ConnectOptions,
    news: impl FnMut(&PipeNews),
    stop: impl Future<Output = ()>,
) -> Result<(), PipeFailed> {
    let node = dialling(runtime.clone(), &options).await?;
    let mut starting = None;
    let carried = connect_on(&runtime, &node, options, &mut starting, news, stop).await;
    close(starting).await;
    node.shutdown().await;
    carried
}

/// The same, on this node.
async fn connect_on<R: Runtime>(
    runtime: &R,
    node: &Node<R>,
    options: ConnectOptions,
    starting: &mut Option<Bootstrap>,
    news: impl FnMut(&PipeNews),
    stop: impl Future<Output = ()>,
) -> Result<(), PipeFailed> {
    let address = options.peer;
    let news = RefCell::new(news);
    let say = |one: &PipeNews| (news.borrow_mut())(one);
    let starts = start_from((runtime, node), options.bootstrap, starting, say).fuse();
    let opened = async {
        let dialled = node.dial(address.clone()).await?;
        let config = PipeConfig::default();
        Ok::<_, PipeFailed>(Pipe::open(node, dialled.peer, vec![address], config).await?)
    };
    let opened = opened.fuse();
    let mut stop = Box::pin(stop.fuse());
    pin_mut!(opened, starts);
    let pipe = loop {
        select_biased! {
            pipe = opened => break pipe?,
            () = stop => return Err(PipeFailed::Interrupted),
            () = starts => {}
        }
    };
    let explain = async {
        match options.explain {
            true => punching::follow(node, say).await,
            false => futures::future::pending().await,
        }
    };
    let explain = explain.fuse();
    let mut tell = say;
    let carried = carry(node, pipe, Ends::standard(), &mut tell, stop).fuse();
    pin_mut!(explain, carried);
    loop {
        select_biased! {
            () = explain => {}
            () = starts => {}
            carried = carried => return carried,
        }
    }
}

/// A node that connects. It listens only for the sake of direct connections beside a relayed one:
/// nobody is served.
async fn dialling<R: Runtime>(runtime: R, options: &ConnectOptions) -> Result<Node<R>, StartError> {
    let start = async |listen: Vec<Multiaddr>| {
        // Whoever is reached through a relay needs no reservation for it.
        let mut config = relayed::config(&[], RelayNeed::Never, options.predict_ports);
        config.allow_private = options.allow_private;
        let mut builder = Node::<R>::builder(runtime.clone(), options.keypair.clone())
            .config(config)
            .names(options.names.clone());
        for addr in listen {
            builder = builder.listen(addr);
        }
        if let Some(recording) = options.record.clone() {
            builder = builder.record(recording);
        }
        builder.start().await
    };
    let is_relayed = options.peer.iter().any(|part| part == multiaddr::Protocol::P2pCircuit);
    if is_relayed { ports::on_one_port(None, start).await } else { start(Vec::new()).await }
}

impl Failure for PipeFailed {
    fn is_in_use(&self) -> bool {
        matches!(self, PipeFailed::Start(error) if error.is_in_use())
    }
}

/// A node that listens as it was told.
async fn start<R: Runtime>(
    runtime: R,
    options: &ListenOptions,
) -> Result<(Node<R>, Incoming), PipeFailed> {
    let start = async |listen: Vec<Multiaddr>| {
        let mut builder = Node::<R>::builder(runtime.clone(), options.keypair.clone())
            .names(options.names.clone())
            .contacted(options.contacted.iter().copied());
        let incoming = builder.accept(PROTOCOL)?;
        let mut config = Config::default();
        if let Some(need) = options.need() {
            config = relayed::config(&options.relays, need, options.predict_ports);
        }
        if let Some(relay) = &mut config.relay {
            relay.use_connected = options.bootstrap.is_some();
        }
        config.allow_private = options.allow_private;
        builder = builder.config(config);
        for addr in listen {
            builder = builder.listen(addr);
        }
        if let Some(recording) = options.record.clone() {
            builder = builder.record(recording);
        }
        Ok((builder.start().await?, incoming))
    };
    match options.listen.is_empty() {
        true => ports::on_one_port(None, start).await,
        false => start(options.listen.clone()).await,
    }
}

/// Start from lists, if there are any, and again where everybody is lost, and tell of it. It does not end;
/// `starting` is the start that is under way when it is dropped.
async fn start_from<R: Runtime>(
    (runtime, node): (&R, &Node<R>),
    lists: Option<BootstrapConfig>,
    starting: &mut Option<Bootstrap>,
    say: impl Fn(&PipeNews),
) {
    let Some(config) = lists else { return futures::future::pending().await };
    let mut rest = AGAIN_FIRST;
    loop {
        *starting = Some(node.bootstrap(config.clone()));
        while let Some(news) = lists::next_of(starting.as_mut()).await {
            if let Some(text) = lists::words(&news) {
                say(&PipeNews::Bootstrap { text });
            }
        }
        // Relays come and go; while somebody is there that we dialled, all can be found again.
        loop {
            let is_alone = !node.connections().await.iter().any(|one| !one.relayed);
            rest = if is_alone { rest } else { AGAIN_FIRST };
            runtime.sleep(rest).await;
            if is_alone {
                rest = (rest * 2).min(AGAIN_MAX);
                break;
            }
        }
    }
}

/// Join the first session to stdin and stdout.
async fn serve_one<R: Runtime>(
    node: &Node<R>,
    mut listener: PipeListener,
    news: &mut impl FnMut(&PipeNews),
    stop: impl Future<Output = ()>,
) -> Result<(), PipeFailed> {
    let mut stop = Box::pin(stop.fuse());
    let pipe = select_biased! {
        () = stop => return Ok(()),
        pipe = listener.next().fuse() => pipe.ok_or(MoveFailed::from(PipeError::Stopped))?,
    };
    // Nobody else is served from now on; the session can be resumed all the same.
    drop(listener);
    carry(node, pipe, Ends::standard(), news, stop).await
}

/// Run a program for each session.
async fn serve_many<R: Runtime>(
    node: &Node<R>,
    listener: PipeListener,
    argv: &Argv,
    news: &mut impl FnMut(&PipeNews),
    stop: impl Future<Output = ()>,
) -> Result<(), PipeFailed> {
    let mut listener = listener.fuse();
    let stop = stop.fuse();
    pin_mut!(stop);
    let (tell, told) = async_channel::unbounded::<PipeNews>();
    let mut told = Box::pin(told).fuse();
    let mut sessions = FuturesUnordered::new();
    loop {
        select_biased! {
            () = stop => return Ok(()),
            one = told.select_next_some() => news(&one),
            pipe = listener.select_next_some() => {
                let tell = tell.clone();
                sessions.push(async move {
                    let peer = pipe.peer().to_string();
                    // The channel has no bound of its own: a session says little, and few stand.
                    let mut say = |one: &PipeNews| drop(tell.try_send(one.clone()));
                    let never = futures::future::pending();
                    let carried = match Running::start(argv, &peer) {
                        Ok((mut running, ends)) => {
                            let carried = carry(node, pipe, ends, &mut say, never).await;
                            running.is_done = carried.is_ok();
                            carried
                        }
                        Err(error) => Err(error.into()),
                    };
                    if let Err(error) = carried {
                        say(&PipeNews::Failed { peer, error: error.to_string() });
                    }
                });
            }
            () = sessions.select_next_some() => {}
            complete => return Ok(()),
        }
    }
}

/// Move bytes between a session and its local ends until both directions have ended.
async fn carry<R: Runtime>(
    node: &Node<R>,
    pipe: Pipe,
    ends: Ends,
    news: &mut impl FnMut(&PipeNews),
    stop: impl Future<Output = ()>,
) -> Result<(), PipeFailed> {
    let peer = pipe.peer().to_string();
    news(&PipeNews::Session { peer: peer.clone(), session: pipe.id().to_string() });
    let mut tracker = Tracker::new(peer.clone());
    let mut paths = pipe.paths().fuse();
    let joined = join::join(pipe, ends);
    let pipe = joined.pipe.clone();
    let done = joined.done().fuse();
    let stop = stop.fuse();
    pin_mut!(done, stop);
    if let Some(one) = tracker.at(pipe.path(), &node.connections().await) {
        news(&one);
    }
    let result = loop {
        select_biased! {
            moved = done => break moved.map_err(PipeFailed::from),
            () = stop => break Err(PipeFailed::Interrupted),
            path = paths.select_next_some() => {
                if let Some(one) = tracker.at(path, &node.connections().await) {
                    news(&one);
                }
            }
        }
    };
    match result {
        Ok((sent, received)) => {
            news(&PipeNews::Ended { peer, sent, received });
            Ok(())
        }
        Err(error) => {
            pipe.reset();
            Err(error)
        }
    }
}
