//! A session between routers that forget: flows on which nothing goes on, and, in front of who took the
//! circuit, every flow after a while, after which it has another port.

use super::session::{Session, is_same, write_all};
use super::world::{OUTSIDE, World};
use super::{Front, Story};
use crate::netlab::Gateway;
use crate::netlab::cells::PORT;
use crate::netlab::peers::{On, Program};
use crate::netlab::program;
use crate::netlab::rules::{Layer, Router};
use portolan_sim::net::Refusal;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a flow is remembered on which nothing goes on.
const IDLE: Duration = Duration::from_secs(30);
/// Bytes that go there and back before the silence, and after it, number.
const WORDS: usize = 1_000;
const AFTERWARDS: usize = 1_000_000;

/// How long a session is idle, and how often everything is forgotten meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    pub(super) lasts: Duration,
    pub(super) lifetime: Duration,
}

/// What came of it.
pub(super) struct Outlived {
    /// The ways that the session took.
    pub(super) routes: Vec<String>,
    /// Whether what came back is what was sent, before and after.
    pub(super) is_intact: bool,
    /// How long what was said after the silence took to come back, milliseconds.
    pub(super) took_ms: u64,
    /// How often the router forgot everything.
    pub(super) forgotten: u16,
}

/// A router like this one that forgets what is idle.
pub(super) fn forgetful(router: Router) -> Router {
    Router { udp_idle: IDLE, tcp_idle: IDLE, ..router }
}

/// Sessions that are silent while their routers forget them, all at once.
pub(super) fn all(wanted: &str) -> usize {
    let seconds = Duration::from_secs;
    let silence = match program::is_whole() {
        true => Silence { lasts: seconds(300), lifetime: seconds(60) },
        false => Silence { lasts: seconds(50), lifetime: seconds(20) },
    };
    let live = |layer: Layer, on: On| {
        let fronts = [Front::APD, Front::APD];
        let story = Story { fronts, layer, refusal: Refusal::Silent, on };
        let name = format!("silence · {}", story.name());
        if !name.contains(wanted) {
            return 0;
        }
        match story.outlive(silence) {
            Ok(Outlived { routes, is_intact, took_ms, forgotten }) => {
                println!(
                    "{name}: idle for {} s, forgotten {forgotten} times: {} ways, then {took_ms} ms",
                    silence.lasts.as_secs(),
                    routes.len()
                );
                let is_punched = routes.iter().any(|route| route == "direct");
                let rules = [
                    (is_intact, "what came back is not what was sent"),
                    (is_punched, "it never was direct"),
                    (forgotten > 1, "nothing was forgotten"),
                ];
                let broken = rules.iter().filter(|(holds, _)| !holds);
                broken
                    .map(|(_, problem)| println!("{name}: PROBLEM: {problem}: {routes:?}"))
                    .count()
            }
            Err(error) => {
                println!("{name}: PROBLEM: {error}");
                1
            }
        }
    };
    let each = [(Layer::Tcp, On::ALL[0]), (Layer::Udp, On::ALL[1])];
    thread::scope(|scope| {
        let all = each.map(|(layer, on)| scope.spawn(move || live(layer, on)));
        all.into_iter().map(|one| one.join().unwrap_or(1)).sum()
    })
}

impl World {
    /// Say something, be silent, and say something more.
    pub(super) fn outlive(&self, silence: Silence) -> io::Result<Outlived> {
        let [_, taker] = &self.sites;
        let outermost = taker.gateways.first().ok_or_else(|| io::Error::other("a router"))?;
        let mut session = Session::open(self)?;
        write_all(&mut session.stdin, WORDS)?;
        let mut is_intact = is_same(&mut session.stdout, WORDS, false)?;
        let forgotten = forget_often(outermost, silence)?;
        let began = Instant::now();
        let Session { stdin, stdout, .. } = &mut session;
        // Both at once: what comes back may not wait for what is sent.
        let said = thread::scope(|scope| {
            let writer = scope.spawn(move || write_all(stdin, AFTERWARDS));
            let same = is_same(stdout, AFTERWARDS, false);
            let written = writer.join().map_err(|_| io::Error::other("the sender panicked"))?;
            written.and(same)
        });
        is_intact &= said?;
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let routes = session.routes();
        Ok(Outlived { routes, is_intact, took_ms, forgotten })
    }
}

impl Story {
    /// Whether a session outlives a silence.
    pub(super) fn outlive(&self, silence: Silence) -> io::Result<Outlived> {
        World::open_with(*self, Program::Portolan(self.on), forgetful)
            .and_then(|world| world.outlive(silence))
    }
}

/// Let a silence pass, in which a router forgets everything again and again; how often it did.
fn forget_often(router: &Gateway, silence: Silence) -> io::Result<u16> {
    let (_kept, never) = mpsc::channel::<()>();
    let until = Instant::now() + silence.lasts;
    let mut cycle = 0;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match never.recv_timeout(left.min(silence.lifetime)) {
            Err(RecvTimeoutError::Timeout) if Instant::now() >= until => return Ok(cycle),
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(cycle),
        }
        cycle += 1;
        forget(router, cycle)?;
    }
}

/// Every flow is forgotten, and the listener's port is another one outside from now on.
fn forget(router: &Gateway, cycle: u16) -> io::Result<()> {
    let [_, outside] = OUTSIDE;
    let port = PORT + cycle;
    router.space.nft(&format!(
        "table ip forgetful {{\n chain postrouting {{\n \
         type nat hook postrouting priority srcnat - 1;\n }}\n}}\n\
         flush chain ip forgetful postrouting\n\
         table ip forgetful {{\n chain postrouting {{\n \
         oifname wan meta l4proto {{ tcp, udp }} th sport {PORT} snat to {outside}:{port}\n }}\n}}\n"
    ))?;
    router.space.output("conntrack", &["-F"]).map(drop)
}
