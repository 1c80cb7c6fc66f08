//! Punching with peers that nobody here wrote, each behind a router of its own: rust-libp2p's and
//! js-libp2p's, as who begins and as who follows.

use super::tale::Tale;
use super::world::{OUTSIDE, RELAYED_MS, SOON, Spy, World, knows_itself, reserved, stuck};
use super::{Front, Story};
use crate::js_peer;
use crate::netlab::application::Application;
use crate::netlab::faces::{JS_PUNCHER, RUST_PUNCHER};
use crate::netlab::peers::{On, Program, each};
use crate::netlab::program;
use crate::netlab::rules::Layer;
use portolan_core::Family;
use portolan_sim::net::Refusal;
use serde_json::{Value, json};
use std::io;

/// Portolan and a peer of another implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meeting {
    pub(super) story: Story,
    /// Whose peer it is.
    who: Program,
    /// Whether that took the circuit, so that it begins.
    begins: bool,
    /// Whose relay the circuit leads through.
    relay: Program,
}

/// How it is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// A direct connection on the first attempt, which the other one takes for its own work.
    Punched,
    /// The same, but the other one does not know that it came of its attempt: it dialled where our
    /// router has nothing, and we came to its listener.
    Entered,
    /// The other one found an address of ours in identify and dialled that, without an attempt.
    Dialled,
    /// Both speak by the book, and the circuit is all that there is: the other one can neither say
    /// where it is, nor get in.
    Relayed,
}

impl Meeting {
    pub(super) fn name(&self) -> String {
        let part = if self.begins { "begins" } else { "follows" };
        let relay = match self.relay {
            Program::Portolan(_) => "our relay",
            Program::Rust | Program::Js => "its relay",
        };
        format!("with {}, which {part} · {relay} · {}", self.who.name(), self.story.name())
    }

    /// Where our peer is and where the other one is: the first opens the circuit.
    const fn seats(&self) -> [usize; 2] {
        if self.begins { [0, 1] } else { [1, 0] }
    }

    fn end(&self) -> End {
        let ours = self.story.fronts[self.seats()[0]];
        match self.who {
            // It never says where it is: it listens on one port and dials from others.
            Program::Js if ours == Front::EI && self.begins => End::Dialled,
            Program::Js if ours == Front::EI => End::Punched,
            Program::Js => End::Relayed,
            Program::Rust | Program::Portolan(_) if ours.is_dependent() => End::Entered,
            Program::Rust | Program::Portolan(_) => End::Punched,
        }
    }

    pub(super) fn live(&self) -> Tale {
        let mut tale = Tale { relayed_ms: RELAYED_MS, ..Tale::default() };
        let lived = World::open(self.story, self.relay).and_then(|world| {
            let mut theirs = self.start(&world)?;
            let mut ours = match self.begins {
                true => world.start(&world.sites[0].host, &["--need", "never"])?,
                false => world.start_taker(&world.sites[1].host)?,
            };
            self.meet(&world, &mut ours, &mut theirs, &mut tale)
                .map_err(|error| both(&error.to_string(), &ours, &theirs))
        });
        if let Err(error) = lived {
            tale.problems.push(error.to_string());
        }
        tale
    }

    /// Start the other one, and wait until somebody has told it where it is seen.
    fn start(&self, world: &World) -> io::Result<Application> {
        let [_, seat] = self.seats();
        let mut options = each("--listen", &self.story.everywhere());
        options.extend(world.meeting_all());
        let face = if self.who == Program::Js { JS_PUNCHER } else { RUST_PUNCHER };
        let mut theirs = Application::launch(&world.sites[seat].host, face, &options)?;
        let there = match self.story.family() {
            Family::Ip4 => format!("/ip4/{}/", OUTSIDE[seat]),
            // Nothing translates it, and it has one global address.
            Family::Ip6 => "/ip6/2".to_owned(),
        };
        let seen = theirs.wait(0, SOON, |event| {
            let addr = event["addr"].as_str().unwrap_or_default();
            event["event"] == "observed" && addr.starts_with(&there)
        });
        match seen {
            Some(_) => Ok(theirs),
            None => Err(stuck("nobody tells it where it is", &theirs)),
        }
    }

    fn meet(
        &self,
        world: &World,
        ours: &mut Application,
        theirs: &mut Application,
        tale: &mut Tale,
    ) -> io::Result<()> {
        knows_itself(ours)?;
        let circuit = match self.begins {
            true => their_circuit(theirs, &world.relay.addrs())?,
            false => reserved(ours)?,
        };
        let [opener, taker] = &world.sites;
        let spies = [Spy::set(opener, self.story, 1)?, Spy::set(taker, self.story, 0)?];
        let dialler = if self.begins { &mut *ours } else { &mut *theirs };
        dialler.order("dial", &circuit)?.map_err(io::Error::other)?;
        if self.end() == End::Relayed {
            return self.stays_relayed(ours, theirs, tale);
        }
        let is_over = |event: &Value| {
            event["event"] == "punching"
                && (event["what"] == "connected" || event["what"] == "failed")
        };
        let ended = ours.wait(0, SOON, is_over);
        let ended = ended.ok_or_else(|| io::Error::other("nothing comes of it"))?;
        tale.is_direct = ended["what"] == "connected";
        tale.attempts = ended["attempts"].as_u64().unwrap_or_default();
        tale.took_ms = ended["took_ms"].as_u64().unwrap_or_default();
        for spy in &spies {
            tale.packets += spy.count()?;
        }
        if !tale.is_direct {
            return Err(io::Error::other(format!("no direct connection: {ended}")));
        }
        let wanted = u64::from(self.end() != End::Dialled);
        let attempts = tale.attempts;
        tale.expect(attempts == wanted, || format!("{attempts} attempts instead of {wanted}"));
        let addr = ended["addr"].as_str().unwrap_or_default();
        tale.expect(addr.contains(self.mark()), || format!("directly connected to {addr}"));
        self.compare(ours, theirs, tale)
    }

    /// What the addresses of the transport have in them.
    const fn mark(&self) -> &'static str {
        match self.story.layer {
            Layer::Tcp => "/tcp/",
            Layer::Udp => "/quic-v1",
        }
    }

    /// The other one has the direct connection as well, and bytes come back over it both ways.
    fn compare(
        &self,
        ours: &mut Application,
        theirs: &mut Application,
        tale: &mut Tale,
    ) -> io::Result<()> {
        let us = ours.peer().to_owned();
        let is_direct = |event: &Value| {
            event["event"] == "connection" && event["peer"] == *us && event["relayed"] == false
        };
        let direct = theirs.wait(0, SOON, is_direct);
        let direct = direct.ok_or_else(|| io::Error::other("it has no direct connection"))?;
        let remote = direct["remote"].as_str().unwrap_or_default();
        tale.expect(remote.contains(self.mark()), || format!("it is connected to {remote}"));
        let said = theirs.ask("echo", &format!("/p2p/{us}"))?;
        said.map_err(|error| io::Error::other(format!("it has nothing back: {error}")))?;
        let said = ours.ask("exchange", &format!("/p2p/{}", theirs.peer()))?;
        let said =
            said.map_err(|error| io::Error::other(format!("we have nothing back: {error}")))?;
        tale.expect(said["relayed"] == false, || "new streams take the circuit".into());
        let claim = match (self.who, self.end()) {
            (_, End::Entered | End::Relayed) => return Ok(()),
            (Program::Js, End::Dialled) => "unilateral connection upgrade to %p succeeded",
            (Program::Js, End::Punched) => "DCUtR to %p succeeded",
            (Program::Rust | Program::Portolan(_), End::Dialled | End::Punched) => "",
        };
        let is_claim = |event: &Value| {
            let text = event["text"].as_str().unwrap_or_default();
            event["event"] == "punched" || event["event"] == "punching" && text.starts_with(claim)
        };
        let claimed = theirs.wait(0, SOON, is_claim);
        let claimed = claimed.ok_or_else(|| io::Error::other("it does not say that it worked"))?;
        tale.expect(claimed["why"] == json!(null), || format!("it says: {}", claimed["why"]));
        Ok(())
    }

    /// The messages of one attempt are exchanged as they should, and bytes come back over the circuit
    /// afterwards.
    fn stays_relayed(
        &self,
        ours: &mut Application,
        theirs: &mut Application,
        tale: &mut Tale,
    ) -> io::Result<()> {
        // Who begins dials in the end; who follows is told nothing more once it has answered, since
        // nobody could come of that.
        let last = if self.begins { "B dialing" } else { "A receiving sync" };
        let spoken =
            theirs.wait(0, SOON, |event| event["event"] == "punching" && event["text"] == last);
        spoken.ok_or_else(|| io::Error::other(format!("it does not come to: {last}")))?;
        if !self.begins {
            let is_named =
                |event: &Value| event["what"] == "failed" && event["reason"] == "no-common-address";
            let named = ours.wait(0, SOON, is_named);
            named.ok_or_else(|| io::Error::other("it is not named"))?;
        }
        let said = ours.ask("exchange", &format!("/p2p/{}", theirs.peer()))?;
        let said = said.map_err(io::Error::other)?;
        tale.expect(said["relayed"] == true, || "there is a direct connection".into());
        Ok(())
    }
}

/// Have it reserve at a relay, and say where it is reached then.
fn their_circuit(theirs: &mut Application, relay: &[String]) -> io::Result<String> {
    let addr = relay.first().ok_or_else(|| io::Error::other("the relay listens"))?;
    theirs.order("reserve", addr)?.map_err(io::Error::other)?;
    match theirs.wait(0, SOON, |event| event["event"] == "reserved") {
        Some(_) => Ok(format!("{addr}/p2p-circuit/p2p/{}", theirs.peer())),
        None => Err(io::Error::other("it gets no reservation")),
    }
}

/// What did not come, and what both have told.
fn both(what: &str, ours: &Application, theirs: &Application) -> io::Error {
    stuck(&format!("{}\nand the other one:", stuck(what, ours)), theirs)
}

/// In front of who opens the circuit and of who takes it, with rust-libp2p: the hardest first.
const WITH_RUST: [[Front; 2]; 8] = [
    [Front::APD, Front::APD],
    [Front::AD, Front::EI],
    [Front::APD, Front::EI],
    [Front::EI, Front::EI],
    [Front::AD, Front::AD],
    [Front::APD, Front::AD],
    [Front::Double, Front::APD],
    [Front::Firewall6, Front::Firewall6],
];
/// In front of us alone, the other one behind EI×EI or EI×AD.
const DEPENDENT: [Front; 2] = [Front::EI, Front::AD];

/// Those of one run. In the gate the hardest pair has everything once, and others some.
fn with_rust(run: usize, is_whole: bool) -> Vec<Meeting> {
    let (who, refusal) = (Program::Rust, Refusal::Silent);
    let mut all = Vec::new();
    for (number, mut fronts) in WITH_RUST.into_iter().enumerate() {
        if run % 2 == 1 {
            fronts.reverse();
        }
        for (layer, begins) in every_way() {
            let on = On::ALL[(run + number + usize::from(begins)) % 2];
            let story = Story { fronts, layer, refusal, on };
            let is_short = number == 0 || (number == 1 && begins == (layer == Layer::Tcp));
            if is_whole || is_short {
                all.push(Meeting { story, who, begins, relay: on.into() });
            }
            if number == 0 && (is_whole || begins && layer == Layer::Tcp) {
                all.push(Meeting { story, who, begins, relay: Program::Rust });
            }
        }
    }
    for front in DEPENDENT.into_iter().filter(|_| is_whole) {
        for (layer, begins) in every_way() {
            let mut fronts = [Front::DEPENDENT, front];
            if !begins {
                fronts.reverse();
            }
            let on = On::ALL[run % 2];
            let story = Story { fronts, layer, refusal, on };
            all.push(Meeting { story, who, begins, relay: on.into() });
        }
    }
    all
}

/// The same with js-libp2p: we are behind a router that lets everybody in, or nobody.
fn with_js(run: usize, is_whole: bool) -> Vec<Meeting> {
    let mut all = Vec::new();
    for front in [Front::EI, Front::APD] {
        for (layer, begins) in every_way() {
            let on = On::ALL[(run + usize::from(begins)) % 2];
            let story = Story { fronts: [front, front], layer, refusal: Refusal::Silent, on };
            if is_whole || front == Front::EI && begins == (layer == Layer::Tcp) {
                all.push(Meeting { story, who: Program::Js, begins, relay: on.into() });
            }
        }
    }
    all
}

fn every_way() -> impl Iterator<Item = (Layer, bool)> {
    Layer::ALL.into_iter().flat_map(|layer| [(layer, true), (layer, false)])
}

/// Those of one run, and how many problems there are with what is installed.
pub(super) fn all(run: usize, is_whole: bool) -> (Vec<Meeting>, usize) {
    let mut all = with_rust(run, is_whole);
    let Err(missing) = js_peer::installed() else {
        all.extend(with_js(run, is_whole));
        return (all, 0);
    };
    println!("skipped: punching with js-libp2p: {missing}");
    (all, usize::from(program::is_required()))
}
