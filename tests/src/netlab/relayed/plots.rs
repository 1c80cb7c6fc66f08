//! What happens in each story, and what has to come of it.

use super::Plot;
use super::tale::Tale;
use super::world::{
    PACE, SOON, Spec, World, always, at, circuits, hears, listen, now, relay_of, relays_of,
    started, stuck, until,
};
use crate::netlab::application::Application;
use serde_json::Value;
use std::io;
use std::thread;
use std::time::Duration;

/// A node that nobody can dial has a relay by then.
const RESERVED_WITHIN: Duration = Duration::from_secs(2);
/// A relay that died is not told any more by then.
const WITHDRAWN_WITHIN: Duration = Duration::from_secs(15);
/// A relay that is there again, and knows nothing of us, says so by then: it is asked for a sign of life
/// over QUIC every five seconds, and over TCP its kernel has said so when it died.
const REBOOT_NOTICED_WITHIN: Duration = Duration::from_secs(8);
/// Another one is in its place by then, after the death was noticed.
const REPLACED_WITHIN: Duration = Duration::from_secs(5);
/// The shortest time for which a relay grants, seconds: it is renewed between half and three quarters of
/// it.
const SHORT: u64 = 60;
/// How long the answer to a renewal may take to come.
const RENEWED_WITHIN: Duration = Duration::from_secs(60);
/// How often each of two strangers talks with the node through one relay.
const SLOW_PACE: Duration = Duration::from_millis(2_200);
/// How soon before its end a reservation need not serve any more, milliseconds: a circuit through it is
/// opened in less.
const LAST_MS: u64 = 2_000;
/// After the way is restored strangers get through again within this.
const BACK_WITHIN: Duration = Duration::from_secs(15);
/// Bytes and seconds that circuits are allowed.
const BYTES: u64 = 50_000;
const SECONDS: u64 = 3;

/// Nothing gets into or out of this host any more, and nobody is told.
const CUT_OFF: &str = "table inet cut {
chain input { type filter hook input priority -300; policy drop; }
chain output { type filter hook output priority -300; policy drop; }
}
";
/// The router forwards nothing, and tells nobody.
const NO_UPLINK: &str = "table inet cut {
chain forward { type filter hook forward priority -300; policy drop; }
}
";
const RESTORED: &str = "delete table inet cut\n";

impl Plot {
    /// The relays that there are.
    pub(super) fn relays(self) -> Vec<Spec> {
        let hour = ["--relay-for", "3600"];
        let short = ["--relay-for", "60"];
        let (ours, rust) = (Spec::ours(&hour), Spec::rust(&hour));
        match self {
            Plot::Home | Plot::Lost { .. } => vec![ours.clone(), ours.clone(), ours, rust],
            Plot::Rebooted => vec![ours.clone(), ours],
            Plot::Drained => vec![Spec::ours(&short); 3],
            Plot::Refused => {
                let once = Spec::rust(&["--relay-for", "60", "--once"]);
                vec![once.clone(), once, ours]
            }
            Plot::Denied => vec![ours.clone(), ours.clone(), ours.late()],
            Plot::Uplink { .. } => vec![ours.clone(), ours.clone(), ours],
            Plot::Strangers { rust: false, .. } => vec![ours],
            Plot::Strangers { rust: true, .. } => vec![rust],
            Plot::Conformance => {
                let bytes = BYTES.to_string();
                let few = Spec::ours(&["--relay-for", "60", "--circuit-bytes", &bytes]);
                let brief = SECONDS.to_string();
                vec![few, Spec::ours(&["--relay-for", "3600", "--circuit-seconds", &brief])]
            }
        }
    }
}

impl World {
    /// The node starts, learns where it stands, reserves, and strangers come.
    pub(super) fn home(&mut self, tale: &mut Tale) -> io::Result<()> {
        let servers: Vec<String> =
            self.servers.iter().flat_map(|server| server.addrs.iter().cloned()).collect();
        let mut node = self.start(&servers)?;
        let began = started(&node);
        let since = |at: u64| at.saturating_sub(began);
        let first = until(&mut node, 0, SOON, |all| !all.is_empty())?;
        tale.at_most("from start to the first reservation, ms", since(first), RESERVED_WITHIN);
        let second = until(&mut node, 0, SOON, |all| relays_of(all).len() == 2)?;
        tale.at_most("from start to the second, ms", since(second), RESERVED_WITHIN);
        for layer in self.story.transports.layers() {
            let name = layer.name().replace("udp", "quic");
            let is_of = |event: &Value| {
                let class = event["class"].as_str().unwrap_or_default();
                class.contains("ip4") && class.contains(&name)
            };
            let private = |event: &Value| {
                let reason = event["reason"].as_str().unwrap_or_default();
                event["event"] == "class"
                    && is_of(event)
                    && event["state"] == "private"
                    && reason.starts_with("endpoint-dependent mapping")
            };
            let told = node.wait(0, SOON, private);
            let told = told.ok_or_else(|| stuck(&format!("{name} is not judged"), &node))?;
            let what = format!("from start to private, {name}, ms");
            tale.at_most(&what, since(at(&told)), RESERVED_WITHIN);
            let firm = |event: &Value| {
                event["event"] == "behaviour" && is_of(event) && event["provisional"] == false
            };
            let told = node.wait(0, SOON, firm);
            let told =
                told.ok_or_else(|| stuck(&format!("the NAT of {name} is not known"), &node))?;
            let mapping = told["mapping"].as_str().unwrap_or_default();
            tale.expect(mapping == "AddressAndPortDependent", || format!("the NAT is {mapping}"));
            let what = format!("from start to the class of the NAT, {name}, ms");
            tale.at_most(&what, since(at(&told)), RESERVED_WITHIN);
        }
        listen(&mut node);
        for addr in circuits(&node) {
            let said = self.stranger()?.ask("echo", &addr)?;
            let said = said.map_err(|error| io::Error::other(format!("{addr}: {error}")))?;
            tale.expect(said["relayed"] == true, || format!("{addr} is no circuit"));
            let number = |field: &str| said[field].as_u64().unwrap_or(u64::MAX);
            tale.figure("a stranger's dial, ms", number("dial_ms"));
            tale.figure("with 100 kB there and back, ms", number("took_ms"));
        }
        node.close()
    }

    /// A relay is killed or cut off, while a stranger comes through the other.
    pub(super) fn lost(&mut self, silent: bool, tale: &mut Tale) -> io::Result<()> {
        let mut node = self.reserved(tale)?;
        let (victim, rest) = parted(&mut node)?;
        let stranger = self.talking(rest, PACE)?;
        let (from, began) = (node.told.len(), now());
        let relay = self.relay(&victim)?;
        if silent {
            relay.host.space.nft(CUT_OFF)?;
        } else {
            relay.program = None;
        }
        self.replaced(&mut node, from, (&victim, began), tale)?;
        let heard = stranger.answered();
        hears(&stranger, heard + 2)?;
        always(tale, "through the other relay", &stranger.stop()?);
        self.answers(&mut node, tale)?;
        node.close()
    }

    /// Wait until a relay that was lost is withdrawn, and another one is in its place.
    fn replaced(
        &self,
        node: &mut Application,
        from: usize,
        (victim, began): (&str, u64),
        tale: &mut Tale,
    ) -> io::Result<()> {
        let gone = |all: &[String]| !relays_of(all).iter().any(|relay| relay == victim);
        let withdrawn = until(node, from, 2 * WITHDRAWN_WITHIN, gone)?;
        tale.at_most("withdrawn after, ms", withdrawn.saturating_sub(began), WITHDRAWN_WITHIN);
        let replaced = until(node, from, SOON, |all| gone(all) && relays_of(all).len() == 2)?;
        let what = "another in its place, after that was noticed, ms";
        tale.at_most(what, replaced.saturating_sub(withdrawn), REPLACED_WITHIN);
        Ok(())
    }

    /// Somebody new gets through at every address that the node tells.
    fn answers(&self, node: &mut Application, tale: &mut Tale) -> io::Result<()> {
        listen(node);
        let mut stranger = self.stranger()?;
        for addr in circuits(node) {
            let said = stranger.ask("ask", &addr)?;
            tale.expect(said.is_ok(), || format!("{addr}: {said:?}"));
        }
        Ok(())
    }

    /// One of two relays is killed and comes back with an empty table.
    pub(super) fn rebooted(&mut self, tale: &mut Tale) -> io::Result<()> {
        let mut node = self.reserved(tale)?;
        let (victim, rest) = parted(&mut node)?;
        let stranger = self.talking(rest, PACE)?;
        let (from, began, story) = (node.told.len(), now(), self.story);
        let relay = self.relay(&victim)?;
        relay.program = None;
        relay.start(story, &[])?;
        let up = now();
        let is_there = |all: &[String]| relays_of(all).contains(&victim);
        let withdrawn = until(&mut node, from, 2 * WITHDRAWN_WITHIN, |all| !is_there(all))?;
        tale.at_most("withdrawn after, ms", withdrawn.saturating_sub(began), REBOOT_NOTICED_WITHIN);
        let again = until(&mut node, from, 2 * SOON, |all| is_there(all))?;
        let again = again.max(withdrawn);
        tale.figure("it was away for, ms", up.saturating_sub(began));
        tale.figure("reserved again after it was killed, ms", again.saturating_sub(began));
        tale.at_most("after that was noticed, ms", again - withdrawn, REPLACED_WITHIN);
        always(tale, "through the other relay", &stranger.stop()?);
        self.answers(&mut node, tale)?;
        node.close()
    }

    /// A relay is wound down, and serves what it granted to its end.
    pub(super) fn drained(&mut self, tale: &mut Tale) -> io::Result<()> {
        let mut node = self.reserved(tale)?;
        let (victim, rest) = parted(&mut node)?;
        let all = circuits(&node);
        let its: Vec<String> = all.iter().filter(|addr| !rest.contains(addr)).cloned().collect();
        let strict = self.talking(its, SLOW_PACE)?;
        let open = self.talking(all, SLOW_PACE)?;
        let (from, began) = (node.told.len(), now());
        let drained = self.relay(&victim)?.running()?.order("drain", "")?;
        drained.map_err(io::Error::other)?;
        let replaced = until(&mut node, from, SOON, |all| relays_of(all).len() == 3)?;
        let what = "another beside it after, ms";
        tale.at_most(what, replaced.saturating_sub(began), REPLACED_WITHIN);
        self.outlived(&mut node, (from, &victim), [strict, open], tale)?;
        node.close()
    }

    /// A relay does not renew, and another is there before it ends.
    pub(super) fn refused(&mut self, tale: &mut Tale) -> io::Result<()> {
        let mut node = self.reserved(tale)?;
        self.settled(&mut node)?;
        let all = circuits(&node);
        let place = self.relays[..2]
            .iter()
            .position(|relay| all.iter().any(|addr| relay_of(addr) == relay.peer()));
        let place = place.ok_or_else(|| stuck("of three it holds two", &node))?;
        let victim = self.relays[place].peer().to_owned();
        let its = all.iter().filter(|addr| relay_of(addr) == victim).cloned().collect();
        let strict = self.talking(its, SLOW_PACE)?;
        let open = self.talking(all, SLOW_PACE)?;
        let from = node.told.len();
        // Two of the three refuse, and it may hold both: the first refusal counts.
        let replaced = until(&mut node, from, RENEWED_WITHIN, |all| relays_of(all).len() == 3)?;
        let mut refusals = Vec::new();
        for relay in &mut self.relays[..2] {
            let program = relay.running()?;
            listen(program);
            let refused = program.told.iter().find(|event| event["event"] == "refused");
            refusals.extend(refused.map(at));
        }
        let refused = refusals.into_iter().min();
        let refused = refused.ok_or_else(|| io::Error::other("nothing was refused"))?;
        let what = "another beside it, after one refused, ms";
        tale.at_most(what, replaced.saturating_sub(refused), REPLACED_WITHIN);
        self.outlived(&mut node, (from, &victim), [strict, open], tale)?;
        node.close()
    }

    /// Wait until the node has measured all relays, and asks none.
    fn settled(&self, node: &mut Application) -> io::Result<()> {
        let deadline = std::time::Instant::now() + SOON;
        loop {
            let stands = |relay: &super::world::Relay| {
                let of =
                    |event: &&Value| event["event"] == "relay" && event["relay"] == relay.peer();
                let last = node.told.iter().rev().find(of);
                last.is_some_and(|event| event["state"] == "reserved" || event["state"] == "spare")
            };
            if self.relays.iter().all(stands) {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            let next = node.told.len();
            if node.wait(next, left, |event| event["event"] == "relay").is_none() {
                return Err(stuck("it does not settle", node));
            }
        }
    }

    /// What a relay granted serves until it ends; then it is told no more. One stranger goes through it
    /// until shortly before that, another by whatever the node tells until after.
    fn outlived(
        &self,
        node: &mut Application,
        (from, victim): (usize, &str),
        [strict, open]: [super::stranger::Stranger; 2],
        tale: &mut Tale,
    ) -> io::Result<()> {
        let of_victim = |event: &&Value| event["relay"] == victim && event["state"] == "reserved";
        let granted =
            node.told.iter().filter(of_victim).filter_map(|event| event["until_ms"].as_u64());
        let ends = granted.max().ok_or_else(|| stuck("it was never reserved", node))?;
        let left = Duration::from_millis(ends.saturating_sub(now()));
        open.told(circuits(node));
        // Nothing but its end takes it away.
        let last = left.saturating_sub(Duration::from_millis(LAST_MS));
        let gone = |all: &[String]| !relays_of(all).iter().any(|relay| relay == victim);
        let early = until(node, from, last, gone);
        tale.expect(early.is_err(), || format!("withdrawn {} ms early", ends - now().min(ends)));
        always(tale, "through it to its end", &strict.stop()?);
        let withdrawn = until(node, from, left + SOON, gone)?;
        tale.figure("withdrawn after its end, ms", withdrawn.saturating_sub(ends));
        open.told(circuits(node));
        let heard = open.answered();
        hears(&open, heard + 2)?;
        always(tale, "by whatever is told", &open.stop()?);
        Ok(())
    }

    /// A relay comes back and serves others alone; a third one is there meanwhile.
    pub(super) fn denied(&mut self, tale: &mut Tale) -> io::Result<()> {
        let mut node = self.reserved(tale)?;
        let (victim, rest) = parted(&mut node)?;
        let stranger = self.talking(rest, PACE)?;
        let (from, began, story) = (node.told.len(), now(), self.story);
        let only = self.relays[2].peer().to_owned();
        let relay = self.relay(&victim)?;
        relay.program = None;
        relay.start(story, &["--only".to_owned(), only])?;
        let denied = |event: &Value| {
            event["event"] == "relay"
                && event["relay"] == victim.as_str()
                && event["failure"] == "Denied"
        };
        let told = node.wait(from, 2 * SOON, denied);
        let told = told.ok_or_else(|| stuck("nobody is denied", &node))?;
        tale.figure("denied after it was killed, ms", at(&told).saturating_sub(began));
        let third = now();
        self.relays[2].start(story, &[])?;
        let replaced = until(&mut node, from, 2 * SOON, |all| relays_of(all).len() == 2)?;
        tale.figure(
            "a third one reserved after it was started, ms",
            replaced.saturating_sub(third),
        );
        always(tale, "through the other relay", &stranger.stop()?);
        let asked = self.relay(&victim)?.running()?;
        listen(asked);
        let refusals = asked.told.iter().filter(|event| event["event"] == "refused").count();
        tale.expect(refusals == 1, || format!("it was asked {refusals} times"));
        self.answers(&mut node, tale)?;
        node.close()
    }

    /// The way to all relays is lost, and restored.
    pub(super) fn uplink(
        &mut self,
        (seconds, cable): (u64, bool),
        tale: &mut Tale,
    ) -> io::Result<()> {
        let mut node = self.reserved(tale)?;
        let ports = self.gateway.space.output("ip", &["-br", "link", "show", "master", "lan"])?;
        let port = ports.split(['@', ' ']).next().unwrap_or_default().to_owned();
        let from = node.told.len();
        if cable {
            self.gateway.space.ip(&format!("link set {port} down\n"))?;
        } else {
            self.gateway.space.nft(NO_UPLINK)?;
        }
        // sleep: so long it is to be away.
        thread::sleep(Duration::from_secs(seconds));
        listen(&mut node);
        tale.figure("relays still told after that", relays_of(&circuits(&node)).len() as u64);
        let mut stranger = self.stranger()?;
        if cable {
            self.gateway.space.ip(&format!("link set {port} up\n"))?;
        } else {
            self.gateway.space.nft(RESTORED)?;
        }
        let restored = now();
        let since = |at: u64| at.saturating_sub(restored);
        let deadline = std::time::Instant::now() + 6 * SOON;
        let mut answered = None;
        while answered.is_none() && std::time::Instant::now() < deadline {
            listen(&mut node);
            for addr in circuits(&node) {
                if stranger.ask("ask", &addr)?.is_ok() {
                    answered = answered.or(Some(now()));
                }
            }
            // It is told when there is something new to try.
            let next = node.told.len();
            let _ =
                node.wait(next, Duration::from_millis(100), |event| event["event"] == "circuits");
        }
        let answered = answered.ok_or_else(|| stuck("nobody is answered", &node))?;
        tale.at_most(
            "a stranger answered, after it was restored, ms",
            since(answered),
            BACK_WITHIN,
        );
        let two = |all: &[String]| relays_of(all).len() == 2;
        let both = if two(&circuits(&node)) {
            let last = node.told.iter().skip(from).filter(|event| event["event"] == "circuits");
            last.map(at).max().unwrap_or(restored)
        } else {
            until(&mut node, from, 6 * SOON, two)?
        };
        tale.figure("two reservations after that, ms", since(both));
        self.answers(&mut node, tale)?;
        node.close()
    }

    /// What the specification has relays and their clients do.
    pub(super) fn conformance(&mut self, tale: &mut Tale) -> io::Result<()> {
        let node = self.reserved(tale)?;
        let [few, brief] = [0, 1].map(|number| self.relays[number].peer().to_owned());
        let all = circuits(&node);
        let through = |relay: &str| {
            let found = all.iter().find(|addr| relay_of(addr) == relay).cloned();
            found.ok_or_else(|| io::Error::other(format!("nothing through {relay}")))
        };
        let [few_at, brief_at] = [through(&few)?, through(&brief)?];
        // CR-19, CR-20: limits are told in bytes and seconds, to the holder and to who comes.
        for (relay, field, limit) in [(&few, "bytes", BYTES), (&brief, "seconds", SECONDS)] {
            let told = |event: &Value| {
                event["event"] == "relay"
                    && event["relay"] == relay.as_str()
                    && event["state"] == "reserved"
                    && event["limit"][field] == limit
            };
            tale.expect(node.told.iter().any(told), || format!("the limit of {field} is not told"));
        }
        let mut stranger = self.stranger()?;
        let asked = stranger.ask("ask", &few_at)?.map_err(io::Error::other)?;
        tale.expect(asked["limit"]["bytes"] == BYTES, || format!("told {}", asked["limit"]));
        self.cut(&mut stranger, [&few_at, &brief_at], tale)?;
        self.over_a_circuit(&mut stranger, tale)?;
        self.renewed_and_ended(node, tale)
    }

    /// CR-26: what is beyond a limit is cut, and said to be.
    fn cut(
        &mut self,
        stranger: &mut Application,
        [few_at, brief_at]: [&str; 2],
        tale: &mut Tale,
    ) -> io::Result<()> {
        let said = stranger.ask("echo", few_at)?;
        tale.expect(said.is_err(), || format!("more than the limit came through: {said:?}"));
        let relay = self.relays[0].running()?;
        let used_up = |event: &Value| event["event"] == "bridged" && event["end"] == "BytesUsedUp";
        let ended = relay.wait(0, SOON, used_up);
        let ended = ended.ok_or_else(|| stuck("no bytes are used up", relay))?;
        let most = ended["forth"].as_u64().max(ended["back"].as_u64()).unwrap_or_default();
        tale.figure("passed before its bytes were used up", most);
        tale.expect(most == BYTES, || format!("{most} bytes of {BYTES}"));
        let held = stranger.ask("hold", brief_at)?.map_err(io::Error::other)?;
        tale.expect(held["limit"]["seconds"] == SECONDS, || format!("told {}", held["limit"]));
        let span = held["held_ms"].as_u64().unwrap_or_default();
        tale.figure("held until its time was used up, ms", span);
        let (least, most) = (SECONDS * 1_000 - 500, SECONDS * 1_000 + 500);
        tale.expect((least..=most).contains(&span), || format!("it held for {span} ms"));
        let relay = self.relays[1].running()?;
        let overtime = |event: &Value| event["event"] == "bridged" && event["overtime"] == true;
        let ended = relay.wait(0, SOON, overtime);
        ended.ok_or_else(|| stuck("no time is used up", relay)).map(drop)
    }

    /// CR-27: who asks for a reservation over a circuit is refused, and directly is granted it.
    fn over_a_circuit(&mut self, stranger: &mut Application, tale: &mut Tale) -> io::Result<()> {
        let story = self.story;
        let direct = self.relays[0].addrs.clone();
        let mut options = vec!["--relay-for".to_owned(), "3600".to_owned()];
        options.extend(["--relay".to_owned(), direct[0].clone()]);
        options.extend(["--need".to_owned(), "always".to_owned()]);
        let mut second = Application::start_with(&self.relays[1].host, &[], &options, story.on)?;
        until(&mut second, 0, SOON, |all| !all.is_empty())?;
        let over = circuits(&second);
        for (addr, status, relayed) in
            [(&over[0], "PermissionDenied", true), (&direct[0], "Ok", false)]
        {
            let said = stranger.ask("reserve", addr)?.map_err(io::Error::other)?;
            let holds = said["status"] == status && said["relayed"] == relayed;
            tale.expect(holds, || format!("asked at {addr}: {said}"));
        }
        second.close()
    }

    /// CR-14, CR-22: a reservation is renewed in time, and ends with its holder.
    fn renewed_and_ended(&mut self, node: Application, tale: &mut Tale) -> io::Result<()> {
        let peer = node.peer().to_owned();
        let relay = self.relays[0].running()?;
        let of_node = |event: &Value| event["peer"] == peer.as_str();
        let granted = |renewed: bool| {
            move |event: &Value| event["event"] == "granted" && event["renewed"] == renewed
        };
        let first = relay.wait(0, SOON, |event| of_node(event) && granted(false)(event));
        let first = first.ok_or_else(|| stuck("nothing was granted", relay))?;
        let again = relay.wait(0, RENEWED_WITHIN, |event| of_node(event) && granted(true)(event));
        let again = again.ok_or_else(|| stuck("nothing was renewed", relay))?;
        let span = at(&again) - at(&first);
        tale.figure("renewed after, of 60 s, ms", span);
        let (least, most) = (SHORT * 500, SHORT * 750 + 1_000);
        tale.expect((least..=most).contains(&span), || format!("renewed after {span} ms"));
        let (from, began) = (relay.told.len(), now());
        node.close()?;
        let ended = relay.wait(from, SOON, |event| event["event"] == "ended" && of_node(event));
        let ended = ended.ok_or_else(|| stuck("it outlives its holder", relay))?;
        tale.figure(
            "ended after its holder was told to leave, ms",
            at(&ended).saturating_sub(began),
        );
        Ok(())
    }
}

/// The relay that is to be lost, and the addresses through the others.
fn parted(node: &mut Application) -> io::Result<(String, Vec<String>)> {
    listen(node);
    let all = circuits(node);
    let first = all.first().ok_or_else(|| io::Error::other("nothing is told"))?;
    let victim = relay_of(first).to_owned();
    let rest = all.into_iter().filter(|addr| relay_of(addr) != victim).collect();
    Ok((victim, rest))
}
