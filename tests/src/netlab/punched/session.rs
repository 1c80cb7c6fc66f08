//! `portolan listen` behind one router, `portolan connect` behind another: a session that starts on a
//! circuit and ends on a direct connection, and what it carries.

use super::Story;
use super::world::World;
use crate::netlab::Host;
use crate::netlab::faces::PORTOLAN;
use crate::netlab::peers::{complaint, launch};
use portolan_sim::Dice;
use serde_json::Value;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long the listener may take to be reached through the relay.
const LISTENS_WITHIN: Duration = Duration::from_secs(20);
/// How long all bytes may take, there and back.
const CARRIED_WITHIN: Duration = Duration::from_secs(240);
/// Bytes written at once, number.
const CHUNK: usize = 1 << 16;

/// What came of a session.
pub(super) struct Carried {
    /// The ways that it took, in order: `relayed` or `direct`.
    pub(super) routes: Vec<String>,
    /// Whether what came back is what was sent.
    pub(super) is_intact: bool,
    /// How long it took, milliseconds.
    pub(super) took_ms: u64,
}

/// A program that ends when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Send so many bytes to a listener that sends them back.
pub(super) fn carry(world: &World, bytes: usize) -> io::Result<Carried> {
    let Session { mut stdin, mut stdout, mut connector, paths, _listener } = Session::open(world)?;
    let began = Instant::now();
    let sender = thread::spawn(move || write_all(&mut stdin, bytes));
    let (done, all) = mpsc::channel();
    thread::spawn(move || done.send(is_same(&mut stdout, bytes, true)));
    let is_intact = all
        .recv_timeout(CARRIED_WITHIN)
        .map_err(|_| io::Error::other(format!("it hangs: {}", complaint(&mut connector.0))))??;
    sender.join().map_err(|_| io::Error::other("the sender panicked"))??;
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    // The program has ended its output, and ends.
    let routes = paths.iter().filter_map(|news| route(&news)).collect();
    Ok(Carried { routes, is_intact, took_ms })
}

/// `portolan connect` at one site, which has reached `portolan listen --exec cat` at the other.
pub(super) struct Session {
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
    connector: Running,
    /// What it tells.
    paths: mpsc::Receiver<Value>,
    _listener: Running,
}

impl Session {
    pub(super) fn open(world: &World) -> io::Result<Session> {
        let story = world.story;
        let [opener, taker] = &world.sites;
        let relay = world.relay.addrs();
        let mut args: Vec<String> =
            ["listen", "--allow-anyone", "--json", "--exec", "cat"].map(str::to_owned).to_vec();
        args.extend(story.everywhere());
        args.extend(relay.iter().flat_map(|addr| ["--relay".to_owned(), addr.clone()]));
        let mut listener = start(&taker.host, &args, story)?;
        let told = news(&mut listener.0);
        let circuit = address(&told).ok_or_else(|| {
            io::Error::other(format!("nobody listens: {}", complaint(&mut listener.0)))
        })?;
        let args = ["connect", &circuit, "--json", "--explain"].map(str::to_owned);
        let mut connector = start(&opener.host, &args, story)?;
        let paths = news(&mut connector.0);
        let stdin = connector.0.stdin.take().ok_or_else(|| io::Error::other("stdin is a pipe"))?;
        let stdout =
            connector.0.stdout.take().ok_or_else(|| io::Error::other("stdout is a pipe"))?;
        Ok(Session { stdin, stdout, connector, paths, _listener: listener })
    }

    /// The ways that it has taken so far, since this was asked last.
    pub(super) fn routes(&self) -> Vec<String> {
        self.paths.try_iter().filter_map(|news| route(&news)).collect()
    }
}

/// The way that a program tells to have taken.
fn route(news: &Value) -> Option<String> {
    let route = news["path"]["route"].as_str()?.to_owned();
    (news["event"] == "path").then_some(route)
}

/// Write so many bytes of the source.
pub(super) fn write_all(stdin: &mut ChildStdin, bytes: usize) -> io::Result<()> {
    let mut source = Source::new(bytes);
    while let Some(chunk) = source.next() {
        stdin.write_all(&chunk)?;
    }
    stdin.flush()
}

fn start(host: &Host, args: &[String], story: Story) -> io::Result<Running> {
    let runtime = ["--runtime".to_owned(), story.on.name().to_owned()];
    let args: Vec<String> = args.iter().cloned().chain(runtime).collect();
    launch(host, PORTOLAN, &args).map(Running)
}

/// What a program tells on stderr.
fn news(child: &mut Child) -> mpsc::Receiver<Value> {
    let (sender, told) = mpsc::channel();
    if let Some(stderr) = child.stderr.take() {
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Ok(news) = serde_json::from_str::<Value>(&line) {
                    // Nobody may wait for it.
                    let _ = sender.send(news);
                }
            }
        });
    }
    told
}

/// The first address through a relay that a listener tells.
fn address(told: &mpsc::Receiver<Value>) -> Option<String> {
    let until = Instant::now() + LISTENS_WITHIN;
    loop {
        let news = told.recv_timeout(until.saturating_duration_since(Instant::now())).ok()?;
        let address = news["address"].as_str().unwrap_or_default();
        if news["event"] == "listening" && address.contains("/p2p-circuit") {
            return Some(address.to_owned());
        }
    }
}

/// The same bytes each time, which no part of them repeats.
struct Source {
    dice: Dice,
    left: usize,
}

impl Source {
    fn new(bytes: usize) -> Source {
        Source { dice: Dice::new(7), left: bytes }
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let len = self.left.min(CHUNK);
        self.left -= len;
        let word = |_| self.dice.draw().to_le_bytes();
        let mut chunk: Vec<u8> = (0..len.div_ceil(8)).flat_map(word).collect();
        chunk.truncate(len);
        (len > 0).then_some(chunk)
    }
}

/// Whether this is what was sent; and nothing else until the end, where it `ends`.
pub(super) fn is_same(stdout: &mut ChildStdout, bytes: usize, ends: bool) -> io::Result<bool> {
    let mut source = Source::new(bytes);
    while let Some(expected) = source.next() {
        let mut chunk = vec![0; expected.len()];
        match stdout.read_exact(&mut chunk) {
            Ok(()) if chunk == expected => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    let mut rest = Vec::new();
    if !ends {
        return Ok(true);
    }
    stdout.read_to_end(&mut rest)?;
    Ok(rest.is_empty())
}
