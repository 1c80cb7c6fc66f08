//! What a link does, measured with plain sockets through it: how long a round trip takes, how much
//! is lost, that nothing is changed, and that nobody asks who is where before he speaks.

use super::cells::{Place, Site, build};
use super::link::Conditions;
use super::rules::Kind;
use super::sockets::{PATIENCE, datagrams, listen};
use super::{Host, Lab};
use portolan_sim::net::{Dependence, Refusal};
use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket,
};
use std::thread;
use std::time::{Duration, Instant};

/// The link whose times are measured.
const SLOW: Conditions = Conditions { delay: Duration::from_millis(20), loss_percent: 0, seed: 1 };
/// The link whose loss is measured.
const LOSSY: Conditions = Conditions { delay: Duration::ZERO, loss_percent: 10, seed: 1 };
/// Round trips that are measured, number; ours: two of them are the slowest hundredth.
const PINGS: usize = 200;
/// Datagrams that are sent each way, number; ours: the share lost is then good to two points.
const DATAGRAMS: u64 = 2_000;
/// Bytes that TCP carries there and back.
const BULK: usize = 2 << 20;
/// Bytes of a datagram that goes in several fragments.
const BIG: usize = 8_000;
/// How far off the median round trip may be; ours: ten times what it is on an idle machine.
const OFF_MAX: Duration = Duration::from_millis(2);
/// How many points of a hundred the share lost may be off; ours: four standard deviations.
const POINTS_MAX: f64 = 3.0;
/// How long the whole transfer may hang, ours.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// The median round trip.
    pub p50: Duration,
    /// What one round trip of a hundred exceeds.
    pub p99: Duration,
    /// The longest that TCP took to connect, of all sites, families and addresses.
    pub connect: Duration,
    /// How long two megabytes took there and back over TCP.
    pub bulk: Duration,
    /// Of a hundred datagrams, how many were lost on the way out and on the way in.
    pub lost: [f64; 2],
}

impl Figures {
    /// Whether the link does what its conditions say.
    pub fn are_right(&self) -> bool {
        let round_trip = SLOW.delay * 2;
        let right = |lost: &f64| (lost - f64::from(LOSSY.loss_percent)).abs() <= POINTS_MAX;
        self.p50.abs_diff(round_trip) <= OFF_MAX
            // Whoever has to ask first takes two.
            && (round_trip..round_trip * 3 / 2).contains(&self.connect)
            && self.lost.iter().all(right)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |span: Duration| span.as_secs_f64() * 1e3;
        let [out, back] = self.lost;
        write!(
            f,
            "the link of {} ms each way: RTT p50 {:.2} ms, p99 {:.2} ms, TCP connects within \
             {:.2} ms, 2 MB there and back take {:.0} ms; loss {} % measured {out:.1} % out, \
             {back:.1} % back",
            SLOW.delay.as_millis(),
            millis(self.p50),
            millis(self.p99),
            millis(self.connect),
            millis(self.bulk),
            LOSSY.loss_percent,
        )
    }
}

/// Measure, twice if need be, since a busy machine is late; what came of it, in a line, and how
/// many problems there are.
pub fn verdict() -> (String, usize) {
    let right = |measured: &io::Result<Figures>| measured.as_ref().is_ok_and(Figures::are_right);
    let mut measured = measure();
    if !right(&measured) {
        measured = measure();
    }
    match &measured {
        Ok(figures) => (figures.to_string(), usize::from(!figures.are_right())),
        Err(error) => (format!("the link: {error}"), 1),
    }
}

/// Measure once.
///
/// # Errors
/// If something does not come through, or not as it was.
pub fn measure() -> io::Result<Figures> {
    let translated = Site::Behind(Kind::Independent(Dependence::AddressAndPort), Refusal::Reject);
    let firewall = Site::Behind(Kind::Firewall, Refusal::Reject);
    let mut connect = connect_time(&build(Site::Open, 1, SLOW)?)?;
    connect = connect.max(connect_time(&build(firewall, 1, SLOW)?)?);
    let place = build(translated, 1, SLOW)?;
    connect = connect.max(connect_time(&place)?);
    let mut times = round_trips(&place)?;
    times.sort_unstable();
    big_datagram(&place)?;
    let bulk = bulk(&place)?;
    sound(&place.lab)?;
    drop(place);
    let lost = losses(&build(Site::Open, 1, LOSSY)?)?;
    gone()?;
    let part = |percent: usize| times.get(times.len() * percent / 100).copied();
    let (Some(p50), Some(p99)) = (part(50), part(99)) else {
        return Err(io::Error::other("no ping came back"));
    };
    Ok(Figures { p50, p99, connect, bulk, lost })
}

/// The longest that the node takes to connect to an address of a server of whom it has not heard
/// before, over either family.
fn connect_time(place: &Place) -> io::Result<Duration> {
    let server = &place.servers[0];
    let connect = |ip: &IpAddr| -> io::Result<Duration> {
        let _listener = listen(server, any(*ip, 7_000))?;
        place.node.space.inside(|| {
            let started = Instant::now();
            TcpStream::connect_timeout(&SocketAddr::new(*ip, 7_000), PATIENCE)?;
            Ok(started.elapsed())
        })
    };
    let times: Vec<Duration> = server.ips.iter().map(connect).collect::<io::Result<_>>()?;
    Ok(times.into_iter().max().unwrap_or_default())
}

/// How long pings take to come back, which are sent faster than that.
fn round_trips(place: &Place) -> io::Result<Vec<Duration>> {
    let (ours, theirs, to) = sockets(place)?;
    let started = Instant::now();
    let now = || u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut ping = [0; 8];
            while let Ok((_, from)) = theirs.recv_from(&mut ping) {
                let _ = theirs.send_to(&ping, from);
            }
        });
        let reader = scope.spawn(|| -> io::Result<Vec<Duration>> {
            let mut pong = [0; 8];
            let mut read = || -> io::Result<Duration> {
                ours.recv(&mut pong)?;
                Ok(Duration::from_nanos(now() - u64::from_be_bytes(pong)))
            };
            (0..PINGS).map(|_| read()).collect()
        });
        for _ in 0..PINGS {
            ours.send_to(&now().to_be_bytes(), to)?;
            // sleep: each ping is alone on the machine for a while.
            thread::sleep(Duration::from_millis(4));
        }
        reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Send a datagram in fragments there and back.
fn big_datagram(place: &Place) -> io::Result<()> {
    let (ours, theirs, to) = sockets(place)?;
    let (sent, mut read) = (pattern(BIG), vec![0; BIG + 1]);
    ours.send_to(&sent, to)?;
    let (len, from) = theirs.recv_from(&mut read)?;
    theirs.send_to(&read[..len], from)?;
    let len = ours.recv(&mut read)?;
    intact(&sent, &read[..len])
}

/// Send much there and back over TCP, both at once.
fn bulk(place: &Place) -> io::Result<Duration> {
    let to = SocketAddr::new(place.servers[0].ip4().into(), 7_000);
    let listener = place.servers[0].space.inside(|| TcpListener::bind(to))?;
    let started = Instant::now();
    let stream = place.node.space.inside(|| TcpStream::connect_timeout(&to, PATIENCE))?;
    // The connection stands, so that this does not wait.
    let (theirs, _) = listener.accept()?;
    for stream in [&stream, &theirs] {
        stream.set_read_timeout(Some(STUCK_AFTER))?;
        stream.set_write_timeout(Some(STUCK_AFTER))?;
    }
    let sent = pattern(BULK);
    let mut read = Vec::new();
    thread::scope(|scope| {
        let echo = scope.spawn(|| -> io::Result<()> {
            io::copy(&mut &theirs, &mut &theirs)?;
            theirs.shutdown(Shutdown::Write)
        });
        let writer = scope.spawn(|| -> io::Result<()> {
            (&stream).write_all(&sent)?;
            stream.shutdown(Shutdown::Write)
        });
        let done = (&stream).read_to_end(&mut read).map(drop);
        for thread in [echo, writer] {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        done
    })?;
    intact(&sent, &read)?;
    Ok(started.elapsed())
}

/// The share of datagrams that is lost on the way out, and on the way in, in percent.
fn losses(place: &Place) -> io::Result<[f64; 2]> {
    let (ours, theirs, to) = sockets(place)?;
    let back = SocketAddr::new(place.node.ip4().into(), ours.local_addr()?.port());
    Ok([loss(&ours, &theirs, to)?, loss(&theirs, &ours, back)?])
}

fn loss(from: &UdpSocket, at: &UdpSocket, to: SocketAddr) -> io::Result<f64> {
    let arrived = thread::scope(|scope| -> io::Result<usize> {
        let reader = scope.spawn(|| {
            let (mut seen, mut number) = (BTreeSet::new(), [0; 8]);
            while at.recv(&mut number).is_ok() {
                seen.insert(number);
            }
            seen.len()
        });
        for number in 0..DATAGRAMS {
            from.send_to(&number.to_be_bytes(), to)?;
            if number % 5 == 0 {
                // sleep: the buffer of the other socket is small.
                thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    let share = |part: u64| f64::from(u32::try_from(part).unwrap_or(u32::MAX));
    let lost = DATAGRAMS.saturating_sub(arrived as u64);
    Ok(100.0 * share(lost) / share(DATAGRAMS))
}

/// Whether the link lost nothing that it was not to lose.
fn sound(lab: &Lab) -> io::Result<()> {
    let counts = lab.link().map(|link| (link.is_up(), link.counts()));
    match counts {
        Some((true, counts)) if counts.overflowed == 0 && counts.lost == 0 => Ok(()),
        other => Err(io::Error::other(format!("the link, in the end: {other:?}"))),
    }
}

/// Whether a link ends by itself when its devices are taken away, without waiting for anybody.
fn gone() -> io::Result<()> {
    let lab = Lab::new(SLOW)?;
    let link = lab.link().ok_or_else(|| io::Error::other("there is no link"))?;
    lab.internet.ip("link del access-far")?;
    let started = Instant::now();
    while link.is_up() {
        if started.elapsed() > PATIENCE {
            return Err(io::Error::other("a link without a device does not end"));
        }
        // sleep: nobody tells when a thread ends.
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A socket of the node and one of the server, and where that is.
fn sockets(place: &Place) -> io::Result<(UdpSocket, UdpSocket, SocketAddr)> {
    let socket = |host: &Host| datagrams(host, any(host.ip4().into(), 0));
    let (ours, theirs) = (socket(&place.node)?, socket(&place.servers[0])?);
    let to = SocketAddr::new(place.servers[0].ip4().into(), theirs.local_addr()?.port());
    Ok((ours, theirs, to))
}

fn any(like: IpAddr, port: u16) -> SocketAddr {
    let ip = match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(ip, port)
}

/// Bytes that tell when some are missing, doubled or out of order.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|number| number.to_le_bytes()[number % 3]).collect()
}

fn intact(sent: &[u8], read: &[u8]) -> io::Result<()> {
    if sent == read {
        return Ok(());
    }
    let (sent, read) = (sent.len(), read.len());
    Err(io::Error::other(format!("of {sent} bytes {read} came back, or others")))
}
