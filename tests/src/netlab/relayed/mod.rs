//! A node that nobody can dial, and the relays that it is reached through: reserved, used by strangers,
//! and replaced after whatever happens to them or to the way there.
//!
//! ```text
//!   r1  r2  r3  r4  s1  s2  s3  stranger
//!    └───┴───┴───┴───┴───┴───┴────┘
//!                bridge ══ 20 ms ══ wan router lan ── node   192.168.1.7
//! ```
//!
//! The router gives every flow a random port, and drops what nobody asked for.

#![allow(clippy::print_stdout, reason = "this is what a program says")]

mod plots;
mod stranger;
mod strangers;
mod tale;
mod world;

use super::cells::Transports;
use super::peers::On;
use super::{available, program};
use portolan_sim::workers::spread;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;
use tale::Tale;
use world::World;

/// Stories that are lived at once, number; ours: nearly all of them is waiting.
const JOBS: usize = 6;

/// Where pages are written.
const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plot {
    /// The node starts, learns where it stands, reserves, and strangers come.
    Home,
    /// A relay is killed, and its kernel says so; or it is cut off, and nobody says anything.
    Lost {
        /// Whether nobody says anything.
        silent: bool,
    },
    /// One of two relays is killed and comes back with an empty table.
    Rebooted,
    /// A relay is wound down.
    Drained,
    /// A relay does not renew.
    Refused,
    /// A relay comes back and serves others alone.
    Denied,
    /// The way to all relays is lost for so many seconds, and then restored.
    Uplink {
        /// How long.
        seconds: u64,
        /// Whether it is the node's own cable, which its kernel notices.
        cable: bool,
    },
    /// What the specification has relays and their clients do.
    Conformance,
    /// Servers with one IP each, and two more behind a relay that the node never contacts: whether
    /// strangers get in.
    Strangers {
        /// Whether they do.
        open: bool,
        /// Whether the relay is rust-libp2p's.
        rust: bool,
    },
}

impl Plot {
    fn name(self) -> String {
        match self {
            Plot::Home => "at home".into(),
            Plot::Lost { silent: false } => "a relay is killed".into(),
            Plot::Lost { silent: true } => "a relay is cut off".into(),
            Plot::Rebooted => "a relay reboots".into(),
            Plot::Drained => "a relay drains".into(),
            Plot::Refused => "a relay does not renew".into(),
            Plot::Denied => "a relay comes back for others".into(),
            Plot::Uplink { seconds, cable: false } => format!("no uplink for {seconds} s"),
            Plot::Uplink { seconds, cable: true } => format!("no cable for {seconds} s"),
            Plot::Conformance => "by the specification".into(),
            Plot::Strangers { open, rust } => {
                let kind = if open { "EI×EI" } else { "EI×AD" };
                let relay = if rust { "rust-libp2p's relay" } else { "our relay" };
                format!("strangers behind {relay}, {kind}")
            }
        }
    }
}

/// A plot, with what is spoken with the relays and what everybody runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Story {
    plot: Plot,
    transports: Transports,
    on: On,
}

/// All of them once, or as often as `--runs=N` says; or those whose name contains the argument. Without root or the tools it says what
/// was skipped, which is a failure where `PORTOLAN_REQUIRE_LAB` is set.
pub fn pass() -> ExitCode {
    program::told("the lab of relays", available(), live)
}

fn live(wanted: &str) -> usize {
    let started = Instant::now();
    let is_whole = program::is_whole();
    let stories: Vec<Story> =
        all(is_whole).filter(|story| story.tale().name().contains(wanted)).collect();
    let stories = stories.repeat(program::runs());
    let mut tales = Vec::new();
    // Before anybody can change what was built.
    let commit = said("git", &["describe", "--always", "--abbrev=12", "--dirty"]);
    let story = |number: u64| stories.get(usize::try_from(number).ok()?);
    let mut late = Vec::new();
    spread(
        0..stories.len() as u64,
        JOBS,
        |number| story(number).map(|story| (*story, Instant::now(), story.live())),
        &mut |_, lived: Option<(Story, Instant, Tale)>| {
            if let Some((story, began, tale)) = lived {
                print(&tale, began);
                if !is_whole && tale.is_only_late() {
                    late.push(story);
                } else {
                    tales.push(tale);
                }
            }
            true
        },
    );
    // In the gate what only took too long is lived once more, alone. A page has everything.
    for story in late {
        let began = Instant::now();
        let tale = story.live();
        print(&tale, began);
        tales.push(tale);
    }
    println!("relays: {} stories in {} s", stories.len(), started.elapsed().as_secs());
    let problems: usize = tales.iter().map(|tale| tale.problems.len()).sum();
    let is_told = std::env::args().any(|arg| arg == "--page");
    if is_told && let Err(error) = commit.and_then(|commit| write(&mut tales, &commit)) {
        println!("relays: nothing is written: {error}");
        return problems + 1;
    }
    problems
}

fn print(tale: &Tale, began: Instant) {
    println!("{} ({} s): {}", tale.name(), began.elapsed().as_secs(), tale.line());
}

/// The long ones begin first. Every plot is lived on both runtimes and over both transports, but for
/// those that wait for the end of a reservation; in the whole lab in every combination.
fn all(is_whole: bool) -> impl Iterator<Item = Story> {
    let pairs = [
        (Transports::Tcp, On::Tokio),
        (Transports::Quic, On::Smol),
        (Transports::Quic, On::Tokio),
        (Transports::Tcp, On::Smol),
    ];
    // Which of the pairs, where it is not the whole lab: none, one, or two.
    let plots = [
        (Plot::Uplink { seconds: 60, cable: false }, 0..0),
        (Plot::Refused, 0..1),
        (Plot::Drained, 1..2),
        (Plot::Conformance, 2..4),
        (Plot::Uplink { seconds: 5, cable: false }, 0..2),
        (Plot::Uplink { seconds: 5, cable: true }, 2..4),
        (Plot::Lost { silent: true }, 0..2),
        (Plot::Rebooted, 2..4),
        (Plot::Lost { silent: false }, 0..2),
        (Plot::Denied, 2..4),
        (Plot::Strangers { open: false, rust: false }, 0..2),
        (Plot::Strangers { open: false, rust: true }, 2..4),
        (Plot::Strangers { open: true, rust: false }, 2..4),
        (Plot::Strangers { open: true, rust: true }, 0..2),
    ];
    let plots = plots.into_iter().flat_map(move |(plot, some)| {
        let places = if is_whole { 0..4 } else { some };
        places.map(move |place| {
            let (transports, on) = pairs[place];
            Story { plot, transports, on }
        })
    });
    let homes = [Transports::Tcp, Transports::Quic, Transports::Both].into_iter();
    let homes =
        homes.flat_map(|transports| On::ALL.map(|on| Story { plot: Plot::Home, transports, on }));
    plots.chain(homes)
}

impl Story {
    fn tale(&self) -> Tale {
        Tale {
            plot: self.plot.name(),
            transports: self.transports.name().to_owned(),
            runtime: self.on.name().to_owned(),
            ..Tale::default()
        }
    }

    fn live(&self) -> Tale {
        let mut tale = self.tale();
        match self.lived(&mut tale) {
            Ok(()) => tale,
            Err(error) => tale.failed(&error),
        }
    }

    fn lived(&self, tale: &mut Tale) -> io::Result<()> {
        let mut world = World::open(*self)?;
        match self.plot {
            Plot::Home => world.home(tale),
            Plot::Lost { silent } => world.lost(silent, tale),
            Plot::Rebooted => world.rebooted(tale),
            Plot::Drained => world.drained(tale),
            Plot::Refused => world.refused(tale),
            Plot::Denied => world.denied(tale),
            Plot::Uplink { seconds, cable } => world.uplink((seconds, cable), tale),
            Plot::Conformance => world.conformance(tale),
            Plot::Strangers { open, .. } => world.strangers(open, tale),
        }
    }
}

/// Write the page of what was told, and all of it as JSON beside the other results.
fn write(tales: &mut [Tale], commit: &str) -> io::Result<()> {
    let docs = Path::new(DOCS);
    tales.iter_mut().for_each(|tale| commit.clone_into(&mut tale.commit));
    fs::write(docs.join("results-lab-relays.md"), tale::page(tales, &said("uname", &["-r"])?))?;
    let day = said("date", &["-u", "+%Y-%m-%d"])?;
    let mut file = File::create(docs.join(format!("results/{day}-{commit}-lab-relays.json")))?;
    serde_json::to_writer_pretty(&mut file, tales).map_err(io::Error::other)?;
    writeln!(file)
}

/// What a program says of where we are, in a line.
fn said(program: &str, args: &[&str]) -> io::Result<String> {
    let said = Command::new(program).args(args).current_dir(DOCS).output()?;
    Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}
