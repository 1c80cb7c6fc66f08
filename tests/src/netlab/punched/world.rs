//! Where it happens, and what happens there.

use super::session::{self, Carried};
use super::tale::Tale;
use super::{Front, Story};
use crate::netlab::application::Application;
use crate::netlab::cells::{PORT, server_ips};
use crate::netlab::faces::RUST_RELAY;
use crate::netlab::link::Conditions;
use crate::netlab::namespace::Namespace;
use crate::netlab::peers::{self, Program, Server, each};
use crate::netlab::rules::{Kind, Router};
use crate::netlab::{Gateway, Host, Lab};
use portolan_core::Family;
use portolan_sim::net::{Dependence, Refusal};
use serde_json::Value;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Where the routers are on the Internet: of who opened the circuit, and of who took it.
pub(super) const OUTSIDE: [Ipv4Addr; 2] =
    [Ipv4Addr::new(44, 100, 0, 1), Ipv4Addr::new(44, 101, 0, 2)];
/// How long a packet takes across the link of each site.
const DELAY: Duration = Duration::from_millis(15);
/// A round trip over the circuit: across both links and back.
pub(super) const RELAYED_MS: u64 = 60;
/// How long what takes a second may take before the story is given up.
pub(super) const SOON: Duration = Duration::from_secs(20);
/// How long a hopeless pair may take to be named.
const NAMED_WITHIN_MS: u64 = 1_000;
/// The number of the relay, by which it has its addresses.
const RELAY: u8 = 11;

/// A peer's machine, and the routers in front of it, the outermost first.
pub(super) struct Site {
    pub(super) host: Host,
    pub(super) gateways: Vec<Gateway>,
}

pub(super) struct World {
    pub(super) story: Story,
    pub(super) sites: [Site; 2],
    servers: Vec<Server>,
    pub(super) relay: Application,
    _hosts: Vec<Host>,
    _lab: Lab,
}

impl Story {
    pub(super) fn live(&self) -> Tale {
        let mut tale = Tale { relayed_ms: RELAYED_MS, ..Tale::default() };
        if let Err(error) =
            World::open(*self, self.on.into()).and_then(|world| world.punch(&mut tale))
        {
            tale.problems.push(error.to_string());
        }
        tale
    }

    /// A session of so many bytes between the two, there and back.
    pub(super) fn carry(&self, bytes: usize) -> Tale {
        let mut tale = Tale { relayed_ms: RELAYED_MS, ..Tale::default() };
        match World::open(*self, self.on.into()).and_then(|world| session::carry(&world, bytes)) {
            Ok(Carried { routes, is_intact, took_ms }) => {
                tale.is_direct = routes.last().is_some_and(|route| route == "direct");
                tale.took_ms = took_ms;
                tale.expect(is_intact, || "what came back is not what was sent".into());
                tale.expect(routes == ["relayed", "direct"], || format!("its ways: {routes:?}"));
            }
            Err(error) => tale.problems.push(error.to_string()),
        }
        tale
    }

    pub(super) fn family(&self) -> Family {
        if self.fronts.contains(&Front::Firewall6) { Family::Ip6 } else { Family::Ip4 }
    }

    /// What is listened on at a host of the Internet.
    fn listens(&self, host: &Host) -> Vec<String> {
        host.ip(self.family()).map(|ip| self.layer.address(ip, PORT)).into_iter().collect()
    }

    /// What a peer listens on: everything.
    pub(super) fn everywhere(&self) -> Vec<String> {
        let ip: IpAddr = match self.family() {
            Family::Ip4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::Ip6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        vec![self.layer.address(ip, PORT)]
    }
}

impl World {
    pub(super) fn open(story: Story, relay_of: Program) -> io::Result<World> {
        World::open_with(story, relay_of, |router| router)
    }

    /// The same with other routers.
    pub(super) fn open_with(
        story: Story,
        relay_of: Program,
        change: fn(Router) -> Router,
    ) -> io::Result<World> {
        let lab = Lab::with_two_sites(Conditions { delay: DELAY, loss_percent: 0, seed: 1 })?;
        let [a, b] = story.fronts;
        let router = |kind| change(Router::new(kind, story.refusal));
        let sites = [site(&lab, a, &router, true)?, site(&lab, b, &router, false)?];
        let public = |number: u8| lab.public(&format!("s{number}"), &server_ips(number));
        let mut hosts = (1..=3).map(public).collect::<io::Result<Vec<Host>>>()?;
        let relay = lab.public("relay", &server_ips(RELAY))?;
        lab.settle()?;
        for gateway in sites.iter().flat_map(|site| &site.gateways) {
            gateway.settle()?;
        }
        let serve = |host: &Host| peers::serve(host, &story.listens(host), &[], story.on);
        let servers = hosts.iter().map(serve).collect::<io::Result<_>>()?;
        let listens = story.listens(&relay);
        let mut options = ["--relay-for", "600"].map(str::to_owned).to_vec();
        let program = match relay_of {
            Program::Portolan(on) => {
                // What a session may carry before there is a direct connection.
                options.extend(["--circuit-bytes", "1000000000"].map(str::to_owned));
                Application::start_with(&relay, &listens, &options, on)?
            }
            Program::Rust | Program::Js => {
                options.extend(each("--listen", &listens));
                Application::launch(&relay, RUST_RELAY, &options)?
            }
        };
        hosts.push(relay);
        Ok(World { story, sites, servers, relay: program, _hosts: hosts, _lab: lab })
    }

    /// The options with which somebody dials all servers.
    pub(super) fn meeting_all(&self) -> Vec<String> {
        let met: Vec<String> =
            self.servers.iter().flat_map(|server| server.addrs.clone()).collect();
        each("--peer", &met)
    }

    /// Start a peer, which talks with all servers.
    pub(super) fn start(&self, host: &Host, options: &[&str]) -> io::Result<Application> {
        let mut all: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        all.push("--punch".to_owned());
        all.extend(self.meeting_all());
        Application::start_with(host, &self.story.everywhere(), &all, self.story.on)
    }

    /// Start one that reserves at the relay.
    pub(super) fn start_taker(&self, host: &Host) -> io::Result<Application> {
        let relay = self.relay.addrs();
        let mut options = vec!["--need", "always"];
        for addr in &relay {
            options.extend(["--relay", addr]);
        }
        self.start(host, &options)
    }

    fn punch(self, tale: &mut Tale) -> io::Result<()> {
        let [opener, taker] = &self.sites;
        let mut b = self.start_taker(&taker.host)?;
        let mut a = self.start(&opener.host, &["--need", "never"])?;
        for peer in [&mut a, &mut b] {
            knows_itself(peer)?;
        }
        let circuit = reserved(&mut b)?;
        let spies = [Spy::set(opener, self.story, 1)?, Spy::set(taker, self.story, 0)?];
        let said = a.ask("punch", &circuit)?;
        let said = said.map_err(|error| {
            // What the other one has told meanwhile.
            let _ = b.wait(b.told.len(), Duration::ZERO, |_| false);
            stuck(&format!("{}\nand the other one:", stuck(&error, &a)), &b)
        })?;
        tale.is_direct = said["direct"] == true;
        tale.attempts = said["attempts"].as_u64().unwrap_or_default();
        tale.took_ms = said["took_ms"].as_u64().unwrap_or(u64::MAX);
        for spy in &spies {
            tale.packets += spy.count()?;
        }
        tale.expect(said["relayed"] == true, || "it was reached without a circuit".into());
        let possible = self.story.is_possible();
        tale.expect(tale.is_direct == possible, || format!("possible: {possible}; {said}"));
        if possible {
            tale.expect(said["echo_relayed"] == false, || "new streams take the circuit".into());
        } else {
            tale.expect(said["failure"] == "endpoint-dependent", || said.to_string());
            let packets = tale.packets;
            tale.expect(packets == 0, || format!("{packets} packets in vain"));
            let took_ms = tale.took_ms;
            tale.expect(took_ms <= NAMED_WITHIN_MS, || "it is named late".into());
        }
        if possible && self.story.refusal == Refusal::Silent {
            let attempts = tale.attempts;
            tale.expect(attempts <= 1, || format!("{attempts} attempts"));
        }
        Ok(())
    }
}

/// Wait until a peer can be reached through a relay, and say where.
pub(super) fn reserved(peer: &mut Application) -> io::Result<String> {
    let reserved = peer.wait(0, SOON, |event| event["event"] == "circuits");
    let reserved = reserved.ok_or_else(|| stuck("it gets no reservation", peer))?;
    Ok(reserved["added"][0].as_str().unwrap_or_default().to_owned())
}

/// Wait until a peer knows how its router maps, and whether it lets others in.
pub(super) fn knows_itself(peer: &mut Application) -> io::Result<()> {
    let is_firm = |event: &Value| event["event"] == "behaviour" && event["provisional"] == false;
    let is_judged = |event: &Value| event["event"] == "class" && event["state"] != "unknown";
    match peer.wait(0, SOON, is_firm).and_then(|_| peer.wait(0, SOON, is_judged)) {
        Some(_) => Ok(()),
        None => Err(stuck("it does not learn what its router does", peer)),
    }
}

/// A peer's machine behind what stands in front of it.
fn site(
    lab: &Lab,
    front: Front,
    router: &dyn Fn(Kind) -> Router,
    is_near: bool,
) -> io::Result<Site> {
    let [near, far] = OUTSIDE;
    let outside = if is_near { near } else { far };
    let strict = Kind::Independent(Dependence::AddressAndPort);
    let home = |kind| match is_near {
        true => lab.router(outside, &router(kind)),
        false => lab.other_router(outside, &router(kind)),
    };
    let gateways = match front {
        Front::Home(kind) => vec![home(kind)?],
        // Its IPv6 network has a firewall, whatever it does to IPv4.
        Front::Firewall6 => vec![home(strict)?],
        Front::Double => {
            let carrier = match is_near {
                true => lab.carrier(outside, &router(strict))?,
                false => lab.other_carrier(outside, &router(strict))?,
            };
            let inner = carrier.nested(Ipv4Addr::new(100, 64, 0, 9), &router(strict))?;
            vec![carrier, inner]
        }
    };
    let last = gateways.last().ok_or_else(|| io::Error::other("a site has a router"))?;
    let host = last.host(if is_near { "a" } else { "b" }, 7)?;
    Ok(Site { host, gateways })
}

/// Counts what goes out of a router to where the other one is.
pub(super) struct Spy<'a>(&'a Namespace);

impl Spy<'_> {
    pub(super) fn set(site: &Site, story: Story, other: usize) -> io::Result<Spy<'_>> {
        let space = match site.gateways.first() {
            Some(gateway) => &gateway.space,
            None => &site.host.space,
        };
        let there = OUTSIDE[other];
        let [.., number] = there.octets();
        let towards = match story.family() {
            Family::Ip4 => format!("ip daddr {there}"),
            Family::Ip6 => format!("ip6 daddr 2600:200:{number:x}::/64"),
        };
        space.nft(&format!(
            "table inet spy {{\n counter out {{ }}\n chain out {{\n \
             type filter hook postrouting priority 300;\n oifname wan {towards} counter name out\n}}\n}}\n"
        ))?;
        Ok(Spy(space))
    }

    pub(super) fn count(&self) -> io::Result<u64> {
        let said = self.0.output("nft", &["-j", "list", "counter", "inet", "spy", "out"])?;
        let said: Value = serde_json::from_str(&said).map_err(io::Error::other)?;
        let all = said["nftables"].as_array().into_iter().flatten();
        let count = all.into_iter().find_map(|one| one["counter"]["packets"].as_u64());
        count.ok_or_else(|| io::Error::other(format!("no counter in {said}")))
    }
}

/// What did not come, and what came.
pub(super) fn stuck(what: &str, peer: &Application) -> io::Error {
    let told = peer.told.iter().map(|event| format!("\n  {event}"));
    io::Error::other(format!("{what}{}", told.collect::<String>()))
}
