//! Which gateways there are, and when that changes: in network namespaces of the test's own. No
//! packet leaves them, and the machine's own gateway is never asked for anything.

use super::{BOTH, builder, quiet};
use portolan_core::flight::Reader;
use portolan_core::{Channel, Event, Gateway, MappingEvent};
use portolan_runtime::record::Recording;
use portolan_runtime::routers::{Routers, gateways};
use portolan_runtime::{LedgerError, StartError};
use portolan_tests::lab::{Lab, soon, until};
use portolan_tests::netlab::namespace::Namespace;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, fs, io, process};

/// Two cables to a router, each with its number.
const CABLES: &str = "link add cable index 10 type veth peer name end index 11 netns ROUTER
link add other index 20 type veth peer name rest index 21 netns ROUTER
address add 10.77.0.2/24 dev cable
address add 10.78.0.2/24 dev other
link set cable up
link set other up
address add 2600:77::2/64 dev cable nodad
";
const ROUTER: &str = "address add 10.77.0.1/24 dev end
address add 10.78.0.1/24 dev rest
link set end up
link set rest up
address add 2600:77::1/64 dev end nodad
";

/// The numbers of interfaces: of both cables, and of the router's end of the first.
const CABLE: u32 = 10;
const OTHER: u32 = 20;
const END: u32 = 11;

/// Folders made by this process.
static FOLDERS: AtomicU64 = AtomicU64::new(0);

macro_rules! inside_on_every_runtime {
    ($($name:ident),+ $(,)?) => {
        mod on_tokio {
            $(
                #[test]
                fn $name() {
                    super::inside(super::$name::<portolan_tests::lab::OnTokio>);
                }
            )+
        }

        mod on_smol {
            $(
                #[test]
                fn $name() {
                    super::inside(super::$name::<portolan_tests::lab::OnSmol>);
                }
            )+
        }
    };
}

inside_on_every_runtime! {
    gateways_are_those_of_the_routes_and_changes_are_told,
    groups_are_heard_and_asked_on_the_interface_that_is_named,
    a_node_tells_its_core_of_ledger_gateways_and_end,
    a_node_that_maps_nothing_asks_for_no_gateways,
}

/// A host and its router.
struct World {
    host: Namespace,
    router: Namespace,
}

impl World {
    fn new() -> io::Result<World> {
        let (host, router) = (Namespace::new("host")?, Namespace::new("router")?);
        host.ip(&CABLES.replace("ROUTER", router.name()))?;
        router.ip(ROUTER)?;
        Ok(World { host, router })
    }
}

/// Run a body on a host: all its threads are there but that of async-io, which opens no sockets.
fn inside<L: Lab>(body: impl AsyncFn(&L, &World) + Sync) {
    if let Err(error) = Namespace::new("try") {
        skip(&error);
        return;
    }
    let world = World::new().expect("the kernel has cables");
    world.host.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("the system gives what it takes");
        runtime.block_on(async { body(&L::open(), &world).await });
    });
}

#[allow(clippy::print_stderr, reason = "whoever runs the tests should know what was left out")]
fn skip(missing: &io::Error) {
    eprintln!("skipped: it needs root on Linux, and ip (iproute2): {missing}");
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an IP")
}

fn gateway(router: &str, interface: u32, source: &str) -> Gateway {
    Gateway { router: ip(router), interface, source: ip(source) }
}

async fn gateways_are_those_of_the_routes_and_changes_are_told<L: Lab>(lab: &L, world: &World) {
    let (cable, other) =
        (gateway("10.77.0.1", 10, "10.77.0.2"), gateway("10.78.0.1", 20, "10.78.0.2"));
    let six = gateway("fe80::1", 10, "2600:77::2");
    let named = gateway("10.77.0.1", 10, "10.77.0.3");
    let (routers, _news) = Routers::new(lab.runtime());
    let changes = routers.watch(true).expect("Linux tells");
    assert_eq!(gateways().expect("Linux tells"), []);
    for (commands, expected) in [
        ("route add default via 10.77.0.1 metric 200", vec![cable]),
        ("route add ::/0 via fe80::1 dev cable", vec![cable, six]),
        // The lower metric is preferred; the first of each family goes before the second of any.
        ("route add default via 10.78.0.1 metric 100", vec![other, six, cable]),
        // None of these leads anywhere that concerns us.
        ("route add default via 10.77.0.9 table 100", vec![other, six, cable]),
        ("route add 192.0.2.0/24 via 10.77.0.9", vec![other, six, cable]),
        ("route add blackhole default metric 300", vec![other, six, cable]),
        ("route del default via 10.78.0.1", vec![cable, six]),
        ("address add 10.77.0.3/24 dev cable", vec![cable, six]),
        ("route replace default via 10.77.0.1 metric 200 src 10.77.0.3", vec![named, six]),
        (
            "route add default metric 50 nexthop via 10.78.0.1 nexthop via 10.77.0.1",
            vec![other, six, cable, named],
        ),
        ("link set other down", vec![cable, six, named]),
        ("address del 2600:77::2/64 dev cable", vec![cable, named]),
        ("link set cable down", vec![]),
    ] {
        while changes.try_recv().is_ok() {}
        world.host.ip(commands).expect("the kernel takes it");
        soon(changes.recv()).await.expect("the routers live");
        // An interface may need a moment to be gone.
        let mut found = Vec::new();
        let settled = until(async || {
            found = gateways().expect("Linux tells");
            found == expected
        });
        settled.await;
    }

    // Many changes are one piece of news, if nobody has taken it.
    let many = (0..200).map(|n| format!("route add 198.51.100.{n}/32 dev lo\n"));
    world.host.ip(&many.collect::<String>()).expect("the kernel takes them");
    soon(changes.recv()).await.expect("the routers live");
    assert!(changes.len() <= 1);
    soon(routers.shutdown()).await;
    assert!(changes.is_closed());
}

async fn groups_are_heard_and_asked_on_the_interface_that_is_named<L: Lab>(lab: &L, world: &World) {
    world.router.ip("address add fe80::77/64 dev end nodad").expect("the kernel takes it");
    for (group, ours, elsewhere, theirs) in [
        (addr("224.0.0.1:5350"), "10.77.0.2", "10.78.0.2", addr("10.77.0.1:5351")),
        (addr("[ff02::1]:5350"), "2600:77::2", "2600:77::2", addr("[fe80::77%11]:5351")),
    ] {
        let (mut routers, news) = Routers::new(lab.runtime());
        let heard = Channel::Group { group, source: ip(ours), interface: CABLE };
        let silent = Channel::Group { group, source: ip(elsewhere), interface: OTHER };
        let client = Channel::Client { source: ip(ours), interface: CABLE };
        for channel in [silent, heard, client] {
            routers.open(channel).expect("there is such an interface");
        }
        let router = bind(world, theirs);
        router.send_to(b"to all", on_end(group)).expect("there is a way");
        // As it is known without the interface.
        let from = SocketAddr::new(theirs.ip(), theirs.port());
        let received = |channel, body: &'static [u8]| MappingEvent::DatagramReceived {
            channel,
            from,
            body: body.into(),
        };
        assert_eq!(soon(news.recv()).await, Ok(received(heard, b"to all")));

        // A router is asked at its address of the link, and answers from there.
        routers.send(client, from, b"question");
        let asker = heard_from(&router, b"question").await;
        assert_eq!(asker.ip(), ip(ours));
        router.send_to(b"answer", asker).expect("there is a way back");
        assert_eq!(soon(news.recv()).await, Ok(received(client, b"answer")));

        // What is for a group of routers leaves by the interface that is named.
        let routers_all =
            addr(if group.is_ipv4() { "239.255.255.250:1900" } else { "[ff02::c]:1900" });
        let listens = bind(world, addr(if group.is_ipv4() { "0.0.0.0:1900" } else { "[::]:1900" }));
        match routers_all.ip() {
            IpAddr::V4(all) => listens.join_multicast_v4(&all, &Ipv4Addr::new(10, 77, 0, 1)),
            IpAddr::V6(all) => listens.join_multicast_v6(&all, END),
        }
        .expect("the cable carries multicasts");
        routers.send(client, routers_all, b"who is there?");
        assert_eq!(heard_from(&listens, b"who is there?").await, asker);
        soon(routers.shutdown()).await;
    }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("a socket address")
}

/// The same group, at the router's end of the cable.
fn on_end(group: SocketAddr) -> SocketAddr {
    match group {
        SocketAddr::V4(_) => group,
        SocketAddr::V6(six) => SocketAddrV6::new(*six.ip(), six.port(), 0, END).into(),
    }
}

/// A socket of the router.
fn bind(world: &World, addr: SocketAddr) -> UdpSocket {
    let socket = world.router.inside(|| UdpSocket::bind(addr)).expect("nobody else is there");
    socket.set_nonblocking(true).expect("it is open");
    socket
}

/// Wait for a datagram, and say who sent it.
async fn heard_from(socket: &UdpSocket, body: &[u8]) -> SocketAddr {
    let (mut buf, mut from) = ([0; 64], None);
    until(async || {
        let received = socket.recv_from(&mut buf).ok();
        from = received.filter(|(count, _)| buf.get(..*count) == Some(body)).map(|(_, from)| from);
        from.is_some()
    })
    .await;
    from.expect("it came")
}

/// The events of a record about mapping and listeners.
fn told(path: &Path) -> Vec<Event> {
    let bytes = fs::read(path).expect("it is recorded");
    let (_, reader) = Reader::new(&bytes).expect("a record");
    let events = reader.map_while(Result::ok).map(|step| step.event);
    events
        .filter(|event| matches!(event, Event::Mapping(_) | Event::ListenerClosed { .. }))
        .collect()
}

async fn a_node_tells_its_core_of_ledger_gateways_and_end<L: Lab>(lab: &L, world: &World) {
    let number = FOLDERS.fetch_add(1, Ordering::SeqCst);
    let folder = env::temp_dir().join(format!("portolan-gateways-{}-{number}", process::id()));
    fs::create_dir_all(&folder).expect("it is writable");
    let (ledger, record) = (folder.join("ledger"), folder.join("a.rec"));
    fs::write(&ledger, "of an earlier run").expect("it is writable");

    let mut config = quiet();
    config.mapping = Some(Default::default());
    world.host.ip("route add default via 10.77.0.1 metric 200").expect("the kernel takes it");
    let node = builder(lab, config.clone(), &BOTH).ledger(&ledger).record(Recording::to(&record));
    let node = node.start().await.expect("free ports");
    let second = builder(lab, config, &BOTH).ledger(&ledger).start().await;
    let refused = second.expect_err("one ledger is for one node");
    let StartError::Ledger(LedgerError::InUse { path }) = refused else { panic!("{refused}") };
    assert_eq!(path, ledger);

    let changed = |gateways: &[(&str, u32, &str)]| {
        let gateways =
            gateways.iter().map(|(router, index, source)| gateway(router, *index, source));
        Event::Mapping(MappingEvent::GatewaysChanged { gateways: gateways.collect() })
    };
    let one = ("10.77.0.1", 10, "10.77.0.2");
    let other = ("10.78.0.1", 20, "10.78.0.2");
    until(async || told(&record).contains(&changed(&[one]))).await;
    world.host.ip("route add default via 10.78.0.1 metric 100").expect("the kernel takes it");
    let both = changed(&[other, one]);
    let asked = std::time::Instant::now();
    until(async || told(&record).contains(&both)).await;
    assert!(asked.elapsed().as_secs() < 20, "it was told, not found");
    soon(node.shutdown()).await;

    let read = b"of an earlier run"[..].into();
    let events = told(&record);
    let beginning = [Event::Mapping(MappingEvent::LedgerRead { ledger: read }), changed(&[one])];
    assert_eq!(events[..2], beginning);
    let closing = Event::Mapping(MappingEvent::Closing);
    let closed: Vec<_> =
        events.iter().filter(|event| !matches!(event, Event::Mapping(_))).collect();
    assert_eq!(closed.len(), BOTH.len(), "every listener");
    let at = |wanted: &Event| events.iter().position(|event| event == wanted);
    assert!(closed.iter().all(|listener| at(listener) < at(&closing)), "{events:?}");
    assert_eq!(events.iter().filter(|event| **event == closing).count(), 1);
    fs::remove_dir_all(&folder).expect("it is ours");
}

async fn a_node_that_maps_nothing_asks_for_no_gateways<L: Lab>(lab: &L, world: &World) {
    let number = FOLDERS.fetch_add(1, Ordering::SeqCst);
    let folder = env::temp_dir().join(format!("portolan-gateways-{}-{number}", process::id()));
    fs::create_dir_all(&folder).expect("it is writable");
    let (ledger, record) = (folder.join("ledger"), folder.join("a.rec"));
    let node = builder(lab, quiet(), &BOTH).ledger(&ledger).record(Recording::to(&record));
    let node = node.start().await.expect("free ports");
    // An address that comes is told at once, whoever maps.
    world.host.ip("address add 10.77.0.4/24 dev cable").expect("the kernel takes it");
    let came = std::time::Instant::now();
    let knows = |event: &Event| matches!(event, Event::InterfacesChanged { ips } if ips.contains(&ip("10.77.0.4")));
    until(async || {
        let bytes = fs::read(&record).expect("it is recorded");
        let (_, mut reader) = Reader::new(&bytes).expect("a record");
        reader.any(|step| step.is_ok_and(|step| knows(&step.event)))
    })
    .await;
    assert!(came.elapsed().as_secs() < 20, "it was told, not found");
    soon(node.shutdown()).await;
    assert!(told(&record).iter().all(|event| !matches!(event, Event::Mapping(_))));
    assert!(!ledger.exists() && !folder.join("ledger.lock").exists());
    fs::remove_dir_all(&folder).expect("it is ours");
}
