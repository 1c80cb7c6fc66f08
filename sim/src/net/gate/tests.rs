//! RFC 4787 and 5382, requirement by requirement.

use super::*;
use crate::dice::Dice;
use std::net::Ipv4Addr;

const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(44, 5, 0, 1));
const ALL: [Dependence; 3] =
    [Dependence::Independent, Dependence::Address, Dependence::AddressAndPort];

fn inside(port: u16) -> Addr {
    Addr::quic(Ipv4Addr::new(192, 168, 1, 2).into(), port)
}

fn remote(host: u8, port: u16) -> Addr {
    Addr::quic(Ipv4Addr::new(44, 0, host, 1).into(), port)
}

struct Bench {
    gate: Gate,
    dice: Dice,
    now: Instant,
}

impl Bench {
    fn new(config: GateConfig) -> Bench {
        Bench { gate: Gate::new(config, Some(OUTSIDE)), dice: Dice::new(5), now: Instant::ZERO }
    }

    fn out(&mut self, src: Addr, dst: Addr) -> Option<Addr> {
        self.gate.outbound(self.now, src, dst, &mut self.dice)
    }

    fn mapped(&mut self, dst: Addr) -> Addr {
        self.out(inside(4001), dst).expect("the table has room")
    }

    fn lets_in(&mut self, src: Addr, dst: Addr) -> bool {
        matches!(self.gate.inbound(self.now, src, dst), Inbound::Pass(_))
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }
}

#[test]
fn a_mapping_depends_on_what_it_says() {
    for mapping in ALL {
        let mut bench = Bench::new(GateConfig::nat(mapping, Dependence::Independent));
        let first = bench.mapped(remote(1, 1));
        assert_eq!(bench.mapped(remote(1, 1)), first, "the same destination, the same binding");
        let port = bench.mapped(remote(1, 2)) == first;
        let ip = bench.mapped(remote(2, 1)) == first;
        let expected = match mapping {
            Dependence::Independent => (true, true),
            Dependence::Address => (true, false),
            Dependence::AddressAndPort => (false, false),
        };
        assert_eq!((port, ip), expected, "{mapping:?}");
    }
}

#[test]
fn a_filter_lets_in_what_it_says() {
    for filtering in ALL {
        for mapping in ALL {
            let mut bench = Bench::new(GateConfig::nat(mapping, filtering));
            let external = bench.mapped(remote(1, 1));
            assert!(bench.lets_in(remote(1, 1), external), "the one who was called");
            let port = bench.lets_in(remote(1, 2), external);
            let ip = bench.lets_in(remote(2, 1), external);
            let expected = match filtering {
                Dependence::Independent => (true, true),
                Dependence::Address => (true, false),
                Dependence::AddressAndPort => (false, false),
            };
            assert_eq!((port, ip), expected, "{mapping:?} × {filtering:?}");
            let elsewhere = Addr { port: external.port ^ 1, ..external };
            assert!(!bench.lets_in(remote(1, 1), elsewhere), "nothing is bound there");
        }
    }
}

#[test]
fn who_was_let_in_opens_the_way_for_nobody() {
    let mut bench = Bench::new(GateConfig::nat(Dependence::Independent, Dependence::Address));
    let external = Addr { ip: OUTSIDE, ..inside(4001) };
    bench.gate.forward(external, inside(4001));
    assert!(bench.lets_in(remote(7, 1), external));
    assert_eq!(bench.out(inside(4001), remote(7, 1)), Some(external), "replies leave as dialled");
    bench.gate.unforward(external);
    assert!(bench.lets_in(remote(7, 1), external), "the flow outlives the forward");
    assert!(!bench.lets_in(remote(7, 2), external), "though it was answered");
    assert!(!bench.lets_in(remote(8, 1), external));
}

#[test]
fn a_forward_is_open_to_all_and_keeps_its_replies() {
    let mut bench =
        Bench::new(GateConfig::nat(Dependence::AddressAndPort, Dependence::AddressAndPort));
    let external = Addr { ip: OUTSIDE, ..inside(4001) };
    bench.gate.forward(external, inside(4001));
    assert_eq!(bench.gate.inbound(bench.now, remote(9, 9), external), Inbound::Pass(inside(4001)));
    assert_eq!(bench.mapped(remote(9, 9)), external);
    assert_ne!(bench.mapped(remote(9, 8)), external, "what we dial has bindings of its own");
}

#[test]
fn flows_time_out_and_are_refreshed_by_what_is_said() {
    for (refresh, outbound, inbound) in [
        (Refresh::Outbound, true, false),
        (Refresh::Inbound, false, true),
        (Refresh::Both, true, true),
    ] {
        let mut config = GateConfig::nat(Dependence::Independent, Dependence::AddressAndPort);
        config.udp.refresh = refresh;
        for (refreshes, packet) in [(outbound, "out"), (inbound, "in")] {
            let mut bench = Bench::new(config.clone());
            let external = bench.mapped(remote(1, 1));
            assert!(bench.lets_in(remote(1, 1), external));
            bench.pass(100);
            match packet {
                "out" => assert_eq!(bench.mapped(remote(1, 1)), external),
                _ => assert!(bench.lets_in(remote(1, 1), external)),
            }
            bench.pass(100);
            assert_eq!(bench.lets_in(remote(1, 1), external), refreshes, "{refresh:?} {packet}");
        }
    }
}

#[test]
fn an_unanswered_flow_is_short_and_an_absolute_end_is_an_end() {
    let mut config = GateConfig::nat(Dependence::Independent, Dependence::Independent);
    config.udp.absolute = Some(Duration::from_secs(150));
    let mut bench = Bench::new(config);
    let external = bench.mapped(remote(1, 1));
    bench.pass(30);
    assert!(!bench.lets_in(remote(1, 1), external), "nobody had answered");
    let external = bench.mapped(remote(1, 1));
    for _ in 0..14 {
        assert!(bench.lets_in(remote(1, 1), external));
        bench.pass(10);
        assert_eq!(bench.mapped(remote(1, 1)), external);
    }
    bench.pass(10);
    assert!(!bench.lets_in(remote(1, 1), external), "whatever refreshed it");
}

#[test]
fn ports_are_given_out_as_said() {
    let ports = |allocation| {
        let mut config = GateConfig::nat(Dependence::AddressAndPort, Dependence::AddressAndPort);
        config.ports = allocation;
        let mut bench = Bench::new(config);
        [1, 2, 3].map(|host| bench.mapped(remote(host, 1)).port)
    };
    assert_eq!(ports(PortAllocation::Preserving), [4001, 4002, 4003]);
    assert_eq!(ports(PortAllocation::Overloading), [4001, 4001, 4001]);
    assert_eq!(ports(PortAllocation::Sequential), [1024, 1025, 1026]);
    assert_eq!(ports(PortAllocation::Contiguous), [1024, 1025, 1026]);
    let [a, b, c] = ports(PortAllocation::Random);
    assert!(a != b && b != c && a.abs_diff(b) > 1);
}

#[test]
fn where_ports_are_overloaded_the_remote_side_tells_hosts_apart() {
    let mut config = GateConfig::nat(Dependence::Independent, Dependence::AddressAndPort);
    config.ports = PortAllocation::Overloading;
    let mut bench = Bench::new(config);
    let neighbour = Addr::quic(Ipv4Addr::new(192, 168, 1, 3).into(), 4001);
    let external = bench.mapped(remote(1, 1));
    assert_eq!(bench.out(neighbour, remote(2, 1)), Some(external));
    let inbound = |bench: &mut Bench, from| bench.gate.inbound(bench.now, from, external);
    assert_eq!(inbound(&mut bench, remote(1, 1)), Inbound::Pass(inside(4001)));
    assert_eq!(inbound(&mut bench, remote(2, 1)), Inbound::Pass(neighbour));
    assert_ne!(bench.out(neighbour, remote(1, 1)), None);
    assert_eq!(inbound(&mut bench, remote(1, 1)), Inbound::Pass(inside(4001)), "still its own");
}

#[test]
fn a_full_table_drops_or_evicts() {
    for when_full in [WhenFull::Drop, WhenFull::Evict] {
        let mut config = GateConfig::nat(Dependence::Independent, Dependence::AddressAndPort);
        config.flows_max = 2;
        config.when_full = when_full;
        let mut bench = Bench::new(config);
        let external = bench.mapped(remote(1, 1));
        bench.pass(1);
        bench.mapped(remote(2, 1));
        let third = bench.out(inside(4001), remote(3, 1));
        assert_eq!(third.is_some(), when_full == WhenFull::Evict);
        assert_eq!(bench.lets_in(remote(1, 1), external), when_full == WhenFull::Drop);
        bench.pass(31);
        assert!(bench.out(inside(4001), remote(4, 1)).is_some(), "dead flows make room");
        assert!(bench.gate.flows() <= 2);
    }
}

#[test]
fn a_reboot_forgets_and_a_new_address_takes_the_forwards_along() {
    let mut bench = Bench::new(GateConfig::nat(Dependence::Independent, Dependence::Independent));
    let external = bench.mapped(remote(1, 1));
    let forwarded = Addr { ip: OUTSIDE, ..inside(9000) };
    bench.gate.forward(forwarded, inside(4001));
    bench.gate.reboot();
    assert!(!bench.lets_in(remote(1, 1), external));
    assert!(bench.lets_in(remote(1, 1), forwarded));
    let other = IpAddr::V4(Ipv4Addr::new(44, 6, 0, 1));
    bench.gate.renumber(other);
    assert!(!bench.lets_in(remote(1, 1), forwarded));
    assert!(bench.lets_in(remote(1, 1), Addr { ip: other, ..forwarded }));
    assert_eq!(bench.mapped(remote(1, 1)).ip, other);
}

#[test]
fn shared_contacts_hold_for_all_ports_and_protocols() {
    for shares_contacts in [false, true] {
        let mut config = GateConfig::nat(Dependence::Independent, Dependence::Address);
        config.shares_contacts = shares_contacts;
        let mut bench = Bench::new(config);
        let external = bench.mapped(remote(1, 1));
        let (other, friend) = (inside(5000), remote(2, 1));
        bench.out(other, friend).expect("room");
        assert_eq!(bench.lets_in(friend, external), shares_contacts);
        assert!(!bench.lets_in(remote(3, 1), external));
        let known = |host| bench.gate.knows(bench.now, remote(host, 9));
        assert_eq!((known(1), known(2), known(3)), (shares_contacts, shares_contacts, false));
        bench.pass(3_600);
        assert!(!bench.gate.knows(bench.now, friend), "nobody wrote to him for long");
    }
}

#[test]
fn a_gate_tells_when_it_had_no_room_for_whom_it_would_have_let_in() {
    let mut config = GateConfig::nat(Dependence::Independent, Dependence::Address);
    config.flows_max = 1;
    let mut bench = Bench::new(config);
    let external = bench.mapped(remote(1, 1));
    assert!(!bench.lets_in(remote(3, 1), external), "him it would not let in anyway");
    assert_eq!(bench.gate.full_at(), None);
    bench.pass(1);
    assert!(!bench.lets_in(remote(1, 2), external));
    assert_eq!(bench.gate.full_at(), Some(bench.now));
    let admits = |room| bench.gate.admits(bench.now, remote(1, 2), external, room);
    assert_eq!(admits(Room::AsItIs), Inbound::Drop);
    assert_eq!(admits(Room::Enough), Inbound::Pass(inside(4001)));
}

#[test]
fn a_firewall_translates_nothing_and_an_open_gate_does_nothing() {
    let mut bench = Bench::new(GateConfig::firewall());
    assert_eq!(bench.mapped(remote(1, 1)), inside(4001));
    assert!(bench.lets_in(remote(1, 1), inside(4001)));
    assert!(!bench.lets_in(remote(2, 1), inside(4001)));
    let mut bench = Bench::new(GateConfig::open());
    assert!(bench.lets_in(remote(2, 1), inside(4001)));
    assert_eq!(bench.gate.flows(), 0);
}

#[test]
fn what_is_mapped_counts_until_another_list_comes_and_its_port_is_kept_free() {
    let config = GateConfig {
        ports: PortAllocation::Sequential,
        ..GateConfig::nat(Dependence::Independent, Dependence::AddressAndPort)
    };
    let mut bench = Bench::new(config);
    let mapped = Addr { ip: OUTSIDE, ..inside(1_024) };
    bench.gate.set_mapped(vec![(mapped, inside(4001))]);
    assert!(bench.lets_in(remote(1, 1), mapped));
    assert_ne!(bench.mapped(remote(2, 1)), mapped, "nobody else gets its port");
    bench.gate.set_mapped(Vec::new());
    assert!(!bench.lets_in(remote(3, 1), mapped));
}
