//! Sessions that outlive what is under them: NATs that forget idle flows, and all flows after a while.
//!
//! The session itself is told here, as the pipe does it (docs/pipe.md): it uses a direct connection
//! if there is one, else a circuit, and calls again when there is none; what was said on a connection
//! that broke is said again on the next one.

use crate::seconds;
use crate::site::{Kind, Pair, Side, Site, link};
use portolan_core::{Class, ConnId, Duration, Family, Instant, PunchNotice, Transport};
use portolan_sim::net::{Dependence, GateConfig, Refusal};
use portolan_sim::world::Line;

/// How long a session is watched.
const WATCHED: Duration = Duration::from_secs(3_600);
/// How long a session may be without a connection: the pipe's value.
const KEPT: Duration = Duration::from_secs(60);
/// How often something is said: seldom enough for every time-out of the gates to pass in between.
const SAYS_EVERY: Duration = Duration::from_secs(420);
/// How closely the session is looked at.
const STEP: Duration = Duration::from_millis(250);
/// Bytes said at once.
const WORDS: usize = 1_000;

/// Flows that are idle for 30 s are forgotten.
fn forgets_the_idle(_: u8, config: &mut GateConfig) {
    for behavior in [&mut config.tcp, &mut config.udp] {
        behavior.idle = seconds(30);
        behavior.transitory = seconds(30);
    }
}

/// The same, and every flow of the taker's is forgotten after a minute, whatever goes on in it.
fn forgets_all(side: u8, config: &mut GateConfig) {
    forgets_the_idle(side, config);
    if side == 0 {
        config.tcp.absolute = Some(seconds(60));
        config.udp.absolute = Some(seconds(60));
    }
}

/// What became of a session.
#[derive(Debug, Default)]
struct Session {
    /// Direct connections that it had, number.
    direct: usize,
    /// How long it was without any connection, at most, and how long on circuits altogether.
    adrift_max: Duration,
    relayed: Duration,
    /// How long what was said took to arrive, each time.
    took: Vec<Duration>,
    /// Whether something is under way: since when, on what, and what has arrived there before.
    under_way: Option<(Instant, Option<Said>)>,
}

/// Something that was said on a connection: that of the one who said it, and that of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    at: ConnId,
}

fn pair(transport: Transport, besides: fn(u8, &mut GateConfig)) -> Pair {
    let strict = Kind::Nat(Dependence::Independent, Dependence::AddressAndPort);
    let side = || Side {
        kind: strict,
        refusal: Refusal::Silent,
        link: link(Duration::from_millis(20), 1_000),
        ports: None,
        others: None,
        predicts: false,
    };
    Pair {
        class: Class::new(Family::Ip4, transport),
        sides: [side(), side()],
        relay: link(Duration::from_millis(10), 0),
        besides,
    }
}

/// The connection that a session takes: the youngest direct one, or else a circuit.
fn best(lines: &[Line]) -> Option<Line> {
    let mut all = lines.iter().copied();
    let circuit = lines.iter().copied().find(|line| line.relayed);
    all.by_ref().rfind(|line| !line.relayed).or(circuit)
}

fn live(seed: u64, pair: Pair) -> Session {
    let mut site = Site::new(seed, pair);
    site.pass(seconds(30));
    assert!(site.open_circuit().is_some(), "seed {seed}: there is no circuit");
    let [taker, opener] = site.sides;
    if std::env::var_os("PUNCH_TRANSCRIPT").is_some() {
        site.world.transcribe(taker);
    }
    let (there, here) = (site.world.node(taker).peer(), site.world.node(opener).peer());
    let mut session = Session::default();
    let begun = site.world.now();
    let (mut adrift_since, mut says_at, mut used) = (None, begun + SAYS_EVERY, None);
    let heard = |site: &Site| {
        let lines = site.world.lines(taker, here);
        lines.iter().filter_map(|line| site.world.poured(taker, line.conn)).sum::<usize>()
    };
    let mut expected = 0;
    while site.world.now() < begun + WATCHED {
        site.pass(STEP);
        let now = site.world.now();
        let line = best(&site.world.lines(opener, there));
        if line != used {
            session.direct += usize::from(line.is_some_and(|line| !line.relayed));
            site.world.use_line(opener, line.map(|line| line.conn));
            used = line;
        }
        match line {
            Some(line) => {
                adrift_since = None;
                session.relayed += if line.relayed { STEP } else { Duration::ZERO };
            }
            None => {
                let since = *adrift_since.get_or_insert(now);
                session.adrift_max = session.adrift_max.max(now.since(since));
                site.call_again();
            }
        }
        if now >= says_at {
            says_at = now + SAYS_EVERY;
            session.under_way = Some((now, None));
        }
        let Some((since, said)) = session.under_way else { continue };
        match (said, line) {
            (Some(said), Some(line)) if said.at == line.conn && heard(&site) > expected => {
                session.took.push(now.since(since));
                session.under_way = None;
            }
            (Some(said), Some(line)) if said.at == line.conn => {}
            (_, Some(line)) => {
                expected = heard(&site);
                site.world.pour(opener, line.conn, WORDS);
                session.under_way = Some((since, Some(Said { at: line.conn })));
            }
            (_, None) => {}
        }
    }
    for line in site.world.transcript() {
        println!("{line}");
    }
    if std::env::var_os("PUNCH_SEED").is_some() {
        for (at, news) in site.punching(1).filter(|(_, news)| is_news(news)) {
            println!("{} {news:?}", at.since(begun).as_secs_f64());
        }
    }
    session
}

fn is_news(news: &PunchNotice) -> bool {
    !matches!(news, PunchNotice::Attempted { .. })
}

/// Every session lasts, and what is said arrives.
fn all_live(name: &str, besides: fn(u8, &mut GateConfig)) -> Vec<Session> {
    let mut all = Vec::new();
    for transport in [Transport::Tcp, Transport::Quic] {
        for seed in 1..=4 {
            let session = live(seed, pair(transport, besides));
            let Session { direct, adrift_max, relayed, took, under_way } = &session;
            let slowest = took.iter().copied().max().unwrap_or_default();
            println!(
                "{name}, {transport:?}, seed {seed}: {direct} direct connections in an hour, relayed for \
                 {:.0} s, without any for {:.1} s at most; {} words, {:.2} s at most",
                relayed.as_secs_f64(),
                adrift_max.as_secs_f64(),
                took.len(),
                slowest.as_secs_f64()
            );
            assert!(*adrift_max < KEPT, "{name}, {transport:?}, seed {seed}: it is lost");
            let spoken = usize::try_from(WATCHED.as_secs() / SAYS_EVERY.as_secs()).unwrap_or(0);
            let heard = took.len() + usize::from(under_way.is_some());
            assert!(heard >= spoken && took.len() + 1 >= spoken, "{name}: it is not heard");
            assert!(slowest < KEPT, "{name}, {transport:?}, seed {seed}: it is slow");
            all.push(session);
        }
    }
    all
}

#[test]
fn an_idle_session_keeps_its_connection_where_the_idle_are_forgotten() {
    for session in all_live("idle 30 s", forgets_the_idle) {
        assert_eq!(session.direct, 1, "one connection is enough: {session:?}");
        assert_eq!(session.adrift_max, Duration::ZERO);
    }
}

#[test]
fn a_session_outlives_every_connection_where_all_are_forgotten() {
    for session in all_live("idle 30 s, all 60 s", forgets_all) {
        assert!(session.direct >= 10, "there is a direct one again and again: {session:?}");
    }
}
