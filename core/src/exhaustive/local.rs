//! Local: two listeners that may be bound in four ways, four interface addresses.

use super::explore::{Bound, World, explore, promise};
use super::stage::Chance;
use crate::local::Local;
use crate::words::checkpoint::Saved;
use crate::{Addr, Instant, IpScope, ListenerId, Oddity, ip_scope};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;

const IPS: [&str; 5] = ["127.0.0.1", "192.168.0.2", "44.0.0.9", "fe80::1", "2600::1"];
const BOUND: [(&str, bool); 4] =
    [("0.0.0.0", false), ("192.168.0.2", false), ("::", true), ("2600::1", false)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Opens(u64, usize),
    Closes(u64),
    /// This interface address comes, or goes.
    Turns(usize),
}

#[derive(Clone)]
struct Ground {
    local: Local,
    listeners: BTreeMap<u64, Addr>,
    ips: BTreeSet<IpAddr>,
}

fn bound(how: usize) -> Addr {
    let (ip, is_quic) = BOUND[how];
    let ip = ip.parse().expect("an address");
    if is_quic { Addr::quic(ip, 4001) } else { Addr::tcp(ip, 4001) }
}

impl Ground {
    /// What follows from the sockets and the interfaces, address by address.
    fn stands_for(&self, listener: Addr, ip: IpAddr) -> bool {
        let same_family = listener.ip.is_ipv4() == ip.is_ipv4();
        let scope = |ip: IpAddr| ip_scope(ip);
        let routed = |ip: IpAddr| matches!(scope(ip), IpScope::Global | IpScope::Private);
        let others = self.ips.iter().filter(|other| other.is_ipv4() == ip.is_ipv4());
        match listener.ip.is_unspecified() {
            false => listener.ip == ip,
            true if !same_family || !self.ips.contains(&ip) => false,
            true if routed(ip) => true,
            true => scope(ip) == IpScope::Loopback && !others.copied().any(routed),
        }
    }

    fn promises(&self) -> Result<(), String> {
        let told: BTreeSet<Addr> = self.local.addresses().collect();
        let mut wanted = BTreeSet::new();
        for text in IPS {
            let ip: IpAddr = text.parse().expect("an address");
            for listener in self.listeners.values().filter(|one| self.stands_for(**one, ip)) {
                wanted.insert(Addr { ip, ..*listener });
            }
            let own = self.ips.contains(&ip) || wanted.iter().any(|addr| addr.ip == ip);
            promise(self.local.is_own_ip(ip) == own, || format!("{ip} is ours: {own}"))?;
        }
        promise(told == wanted, || format!("{told:?}, not {wanted:?}"))?;
        for listener in self.listeners.values() {
            promise(self.local.listens_in(listener.class()), || "a listener counts not".into())?;
            promise(self.local.listens_on(*listener), || format!("{listener} counts not"))?;
        }
        Ok(())
    }
}

impl World for Ground {
    type Event = Event;

    fn events(&self) -> Vec<Event> {
        let mut all: Vec<Event> = (0..IPS.len()).map(Event::Turns).collect();
        for listener in 1..=2 {
            all.push(Event::Closes(listener));
            all.extend((0..BOUND.len()).map(|how| Event::Opens(listener, how)));
        }
        all
    }

    fn step(&mut self, event: &Event, _: Chance) -> Result<bool, String> {
        let (before, revision) = (self.clone(), self.local.revision());
        let (done, wanted) = match *event {
            Event::Opens(listener, how) => {
                let taken = self.listeners.contains_key(&listener);
                self.listeners.entry(listener).or_insert(bound(how));
                let done = self.local.opened(ListenerId(listener), bound(how));
                (done, if taken { Err(Oddity::ReusedId) } else { Ok(()) })
            }
            Event::Closes(listener) => {
                let known = self.listeners.remove(&listener).map(|_| ());
                (self.local.closed(ListenerId(listener)), known.ok_or(Oddity::UnknownListener))
            }
            Event::Turns(number) => {
                let ip = IPS[number].parse().expect("an address");
                if !self.ips.remove(&ip) {
                    self.ips.insert(ip);
                }
                (self.local.interfaces_changed(self.ips.iter().copied().collect()), Ok(()))
            }
        };
        promise(done == wanted, || format!("{done:?}, not {wanted:?}"))?;
        let changed = (&before.listeners, &before.ips) != (&self.listeners, &self.ips);
        promise(changed == (self.local.revision() > revision), || "a change unseen".into())?;
        self.promises()?;
        Ok(false)
    }

    fn key(&self) -> Vec<u8> {
        // The ids of the listeners are what the events name.
        let mut key = self.local.canonical(Instant::ZERO);
        key.extend(self.listeners.keys().map(|id| u8::try_from(*id).expect("few")));
        key
    }
}

#[test]
fn two_listeners_and_five_interface_addresses() {
    let first =
        Ground { local: Local::default(), listeners: BTreeMap::new(), ips: BTreeSet::new() };
    let bound = Bound { depth: 20, floor: 800, complete: true };
    explore("local", vec![first], bound);
}
