//! What happens in each story, and what has to come of it.

use super::{
    ANNOUNCED, DAEMON_AGE_S, GONE, LEASE, MOVED, NO_GROUPS, NODE, OUTSIDE, SOON, Tale, UNHEARD,
    World, stuck,
};
use crate::netlab::Host;
use crate::netlab::application::Application;
use crate::netlab::cells::PORT;
use crate::netlab::experiments::millis;
use crate::netlab::router_daemon::{Daemon, Forward, forwards, pinholes};
use crate::netlab::rules::Layer;
use crate::netlab::sockets::dial;
use portolan_core::Family;
use serde_json::Value;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, SocketAddrV4};
use std::thread;
use std::time::{Duration, Instant};

impl World {
    /// The daemon is killed and comes back with an empty table.
    pub(super) fn restarted(&mut self, heard: bool, tale: &mut Tale) -> io::Result<()> {
        if !heard {
            self.node.space.nft(NO_GROUPS)?;
        }
        let node = self.proven(tale)?;
        let before = self.ours()?;
        // Clocks are compared with two seconds to spare (RFC 6886 §3.6): who is younger than that
        // when it dies comes back unnoticed.
        until(SOON, || {
            let said = self.node.space.output("natpmpc", &[])?;
            Ok(epoch(&said).is_some_and(|seconds| seconds >= DAEMON_AGE_S))
        })?;
        drop(self.daemon.take());
        self.daemon = Some(Daemon::start(&self.gateway.space)?);
        let began = Instant::now();
        let within = if heard { ANNOUNCED } else { UNHEARD };
        let again = until(within, || Ok(self.ours()? == before));
        again.map_err(|error| stuck(&format!("not mapped again: {error}"), &node))?;
        tale.times.push(("mapped again", millis(began.elapsed())));
        let external = before.iter().map(|one| (one.layer.address(OUTSIDE.into(), one.port), *one));
        let external: Vec<(String, Forward)> = external.collect();
        let external = external.try_into().map_err(|_| io::Error::other("two are mapped"))?;
        self.used(&node, &external)?;
        self.close(node, tale)
    }

    /// The node is killed and started again, while a neighbour has the port that it would like.
    pub(super) fn killed(&mut self, tale: &mut Tale) -> io::Result<()> {
        let port = PORT.to_string();
        for layer in Layer::ALL {
            let args = ["-a", &port, &port, layer.name(), "3600"];
            self.neighbour.space.output("natpmpc", &args)?;
        }
        let node = self.proven(tale)?;
        let before = self.ours()?;
        tale.expect(before.iter().all(|one| one.port != PORT), || "a taken port is granted".into());
        drop(node);
        let node = self.proven(tale)?;
        let after = self.ours()?;
        tale.expect(before == after, || format!("{before:?} before, {after:?} after"));
        self.close(node, tale)?;
        let of_neighbour = forwards(&self.gateway.space)?.len();
        tale.expect(of_neighbour == 2, || format!("the neighbour has {of_neighbour} ports"));
        Ok(())
    }

    /// Other programs ask the daemon what it has granted.
    pub(super) fn told(&mut self, tale: &mut Tale) -> io::Result<()> {
        let node = self.proven(tale)?;
        let listed = self.node.space.output("upnpc", &["-l"])?;
        let has = |text: &str| listed.contains(text);
        tale.expect(has(&format!("ExternalIPAddress = {OUTSIDE}")), || listed.clone());
        for one in self.ours()? {
            let Forward { layer, port, to } = one;
            let entry = format!("{} {port:>5}->{to}", layer.name().to_uppercase());
            tale.expect(has(&entry), || format!("{entry} is not in {listed}"));
            let (inside, outside) = (to.port().to_string(), port.to_string());
            let args = ["-a", outside.as_str(), &inside, layer.name(), "7200"];
            let said = self.node.space.output("natpmpc", &args)?;
            let layer = layer.name().to_uppercase();
            let granted =
                format!("Mapped public port {port} protocol {layer} to local port {PORT}");
            tale.expect(said.contains(&granted), || format!("no \"{granted}\" in {said}"));
            let external = format!("Public IP address : {OUTSIDE}");
            tale.expect(said.contains(&external), || format!("no \"{external}\" in {said}"));
        }
        node.close()
    }

    /// The router gets another external address.
    pub(super) fn moved(&mut self, tale: &mut Tale) -> io::Result<()> {
        let mut node = self.proven(tale)?;
        let (from, began) = (node.told.len(), Instant::now());
        let addresses =
            format!("address add {MOVED}/32 dev wan\naddress del {OUTSIDE}/32 dev wan\n");
        self.gateway.space.ip(&addresses)?;
        // For a while hosts go on sending there what is for the old one.
        self.gateway.space.nft(&GONE.replace("OUTSIDE", &OUTSIDE.to_string()))?;
        let all = |addrs: [String; 2], what: &str| addrs.map(|addr| (addr, what.to_owned()));
        let [new, old] =
            [MOVED, OUTSIDE].map(|ip| Layer::ALL.map(|one| one.address(ip.into(), PORT)));
        let known = await_each(&mut node, from, all(new.clone(), "granted"), |event, addr| {
            event["event"] == "mapping" && event["external"] == addr
        })?;
        tale.times.push(("moved, and told so", millis(began.elapsed())));
        // What the old address led to is gone, and whoever noticed connects anew.
        self.dial_all(&mut node)?;
        let proven = await_each(&mut node, from, all(new.clone(), "proven"), |event, addr| {
            event["event"] == "verdict" && event["addr"] == addr && event["state"] == "reachable"
        })?;
        let withdrawn = await_each(&mut node, from, all(old, "withdrawn"), |event, addr| {
            let mut removed = event["removed"].as_array().into_iter().flatten();
            event["event"] == "advertised" && removed.any(|one| one == addr)
        })?;
        let [proven, withdrawn] = [proven, withdrawn].map(|at| at.saturating_sub(known));
        tale.times.push(("the new address proven so long after", proven));
        tale.times.push(("the old one withdrawn so long after", withdrawn));
        let is_soon = |span: u64| u128::from(span) <= SOON.as_millis();
        tale.expect(is_soon(withdrawn), || format!("the old one goes after {withdrawn} ms"));
        let to = SocketAddrV4::new(NODE, PORT);
        let [tcp, udp] = new;
        let forward = |layer| Forward { layer, port: PORT, to };
        self.used(&node, &[(tcp, forward(Layer::Tcp)), (udp, forward(Layer::Udp))])?;
        self.close(node, tale)
    }

    /// A short lease is renewed before its end.
    pub(super) fn renewed(&mut self, tale: &mut Tale) -> io::Result<()> {
        let node = self.proven(tale)?;
        let began = Instant::now();
        let lifetime = LEASE.as_secs();
        let daemon = self.daemon.as_ref();
        let daemon = daemon.ok_or_else(|| io::Error::other("the daemon runs"))?;
        let asked = |layer: Layer| {
            let wanted = format!("->{NODE}:{PORT} {} lifetime={lifetime}s", layer.name());
            daemon.requests().iter().filter(|line| line.ends_with(&wanted)).count()
        };
        // A request that was answered late was sent twice.
        let first = Layer::ALL.map(asked);
        tale.expect(!first.contains(&0), || format!("{:?}", daemon.requests()));
        until(LEASE, || Ok(Layer::ALL.iter().zip(first).all(|(layer, one)| asked(*layer) > one)))?;
        tale.times.push(("renewed", millis(began.elapsed())));
        // Without that, less than half of it would be left.
        let listed = self.node.space.output("upnpc", &["-l"])?;
        for layer in Layer::ALL {
            let entry = format!("{} {PORT:>5}->{NODE}:{PORT}", layer.name().to_uppercase());
            let left = listed.lines().find(|line| line.contains(&entry));
            let left = left.and_then(|line| line.split_whitespace().last()?.parse().ok());
            let is_new = left.is_some_and(|left: u64| left > lifetime / 2 && left <= lifetime);
            tale.expect(is_new, || format!("{entry} is not renewed in {listed}"));
        }
        let external = Layer::ALL.map(|layer| {
            let to = SocketAddrV4::new(NODE, PORT);
            (layer.address(OUTSIDE.into(), PORT), Forward { layer, port: PORT, to })
        });
        self.used(&node, &external)?;
        self.close(node, tale)
    }

    /// The firewall lets nobody in over IPv6 but through the pinholes of the node.
    pub(super) fn pinholes(&mut self, tale: &mut Tale) -> io::Result<()> {
        let ip = self.node.ip(Family::Ip6).ok_or_else(|| io::Error::other("the node has IPv6"))?;
        let before = self.knocks(SocketAddr::new(ip, PORT));
        let is_silent = before.as_ref().is_err_and(|error| error.kind() == ErrorKind::TimedOut);
        tale.expect(is_silent, || format!("nothing is opened, and knocking ends so: {before:?}"));
        let mut node = self.start()?;
        self.dial_all(&mut node)?;
        let wanted = Layer::ALL.map(|layer| (layer.address(ip, PORT), "opened".to_owned()));
        let by = self.story.protocols[0].name();
        let opened = await_each(&mut node, 0, wanted.clone(), |event, addr| {
            event["event"] == "mapping" && event["external"] == addr && event["protocol"] == by
        })?;
        let proven = await_each(&mut node, 0, wanted.clone(), |event, addr| {
            event["event"] == "verdict" && event["addr"] == addr && event["state"] == "reachable"
        })?;
        tale.times.push(("proven so long after they are opened", proven.saturating_sub(opened)));
        let holes = pinholes(&self.gateway.space)?;
        tale.expect(holes == 2, || format!("{holes} pinholes for TCP and UDP"));
        self.knocks(SocketAddr::new(ip, PORT))?;
        let mut peer = Application::start(&self.stranger, &[], self.story.on)?;
        for (addr, _) in &wanted {
            let named = format!("{addr}/p2p/{}", node.peer());
            peer.order("dial", &named)?.map_err(io::Error::other)?;
        }
        self.close(node, tale)?;
        let left = pinholes(&self.gateway.space)?;
        tale.expect(left == 0, || format!("{left} pinholes are left behind"));
        Ok(())
    }

    /// A stranger knocks with a plain socket.
    fn knocks(&self, to: SocketAddr) -> io::Result<()> {
        let stranger: &Host = &self.stranger;
        let from = stranger.ip(Family::of(to.ip()));
        let from = from.ok_or_else(|| io::Error::other("the stranger has both families"))?;
        dial(stranger, SocketAddr::new(from, 0), to).map(|_| ())
    }
}

/// Wait until each of these was told of, and say when the last was, milliseconds on the node's clock.
fn await_each(
    node: &mut Application,
    from: usize,
    wanted: [(String, String); 2],
    is: impl Fn(&Value, &str) -> bool,
) -> io::Result<u64> {
    let mut last = 0;
    for (addr, what) in wanted {
        let event = node.wait(from, UNHEARD, |event| is(event, &addr));
        let event = event.ok_or_else(|| stuck(&format!("{addr} is not {what}"), node))?;
        last = last.max(event["at_ms"].as_u64().unwrap_or(u64::MAX));
    }
    Ok(last)
}

/// The clock that the daemon tells, seconds, from what `natpmpc` says.
fn epoch(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.strip_prefix("epoch = ")).and_then(|text| text.parse().ok())
}

/// Wait until something of which nobody tells holds.
fn until(within: Duration, mut holds: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let began = Instant::now();
    while !holds()? {
        if began.elapsed() > within {
            return Err(io::Error::other(format!("not within {} s", within.as_secs())));
        }
        // sleep: between two looks at the tables of the kernel.
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
