//! The dial-back server with tiny limits: two requesters in one network, two requests each.

use super::explore::{Bound, World, depth, explore, promise};
use super::stage::{Chance, Jump, Stage, connection, lies_ahead, peer, tcp};
use super::town::Town;
use crate::service::{Caller, Service};
use crate::wire::autonat::{
    DialBackResponse, DialStatus, Message, ResponseStatus, dial_data_chunk,
};
use crate::wire::multiaddr;
use crate::words::checkpoint::{Saved, canonical};
use crate::words::sleep::Sleep;
use crate::{
    Action, Addr, Config, ConnId, Cx, Deadline, DialBackConfig, DialFailure, DialId, Duration,
    Instant, IpScope, Notice, Oddity, Protocol, Served, Side, StreamEnd, StreamId, ip_scope,
};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;

/// Requests a minute of one peer, and of all together; dials a minute to one address; at once.
const PEER_A_MINUTE: u32 = 2;
const ALL_A_MINUTE: u32 = 3;
const TARGET_A_MINUTE: u32 = 2;
const DIALS_AT_ONCE: usize = 1;
/// The least that must be paid for a dial to another IP, bytes.
const PRICE_MIN: usize = 30_000;
const REQUESTS: usize = 3;
const FULL: Duration = Duration::from_secs(60);
/// How long a dial may keep its slot.
const SLOT: Duration = Duration::from_secs(14);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// Where the requester is seen.
    Home,
    /// Another IP.
    Other,
    /// Nothing that anybody may be made to dial.
    Private,
    Garbage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Landing {
    Right,
    Wrong,
    Refused,
    OurFault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// A requester opens a request under this number.
    Open(usize, usize),
    Request(usize, Wanted),
    /// All the dial data, or a chunk that is too small.
    Pay(usize, bool),
    End(usize, StreamEnd),
    Land(Landing),
    /// How the stream with the nonce ends; `None`: it is acknowledged.
    Delivered(Option<StreamEnd>),
    /// The connection of a dial-back breaks.
    Drop,
    GoAway(usize),
    Pass(Jump),
    Sleep,
}

/// One request as its requester remembers it.
#[derive(Clone, Debug)]
struct Request {
    conn: ConnId,
    wanted: Option<Wanted>,
    paid: usize,
    answered: bool,
}

/// The one dial that may be out.
#[derive(Clone, Debug)]
struct Flight {
    dial: DialId,
    request: usize,
    since: Instant,
    landed: Option<ConnId>,
    slept: bool,
}

#[derive(Clone)]
struct Serving {
    stage: Stage,
    service: Service,
    town: Rc<Town>,
    sleeps: u8,
    requests: BTreeMap<usize, Request>,
    streams: BTreeMap<StreamId, usize>,
    flights: Vec<Flight>,
    /// When each bucket is full again: of all, of each requester, of each target.
    buckets: BTreeMap<u8, Instant>,
    /// In this step: requests whose dial we slept through.
    slept: BTreeSet<usize>,
}

const CONNS: [ConnId; 2] = [ConnId(1), ConnId(2)];

fn home(requester: usize) -> Addr {
    tcp(1, u8::try_from(requester).expect("two of them") + 1, 4001)
}

fn wanted_addr(wanted: Wanted, requester: usize) -> Addr {
    match wanted {
        Wanted::Home => home(requester),
        Wanted::Other | Wanted::Garbage => tcp(7, 7, 4001),
        Wanted::Private => Addr::tcp([10, 0, 0, 1].into(), 4001),
    }
}

/// The rule of a bucket, once more: a token grows back in a part of a minute.
fn take(full_at: &mut Instant, now: Instant, a_minute: u32) -> bool {
    *full_at = (*full_at).max(now) + FULL / a_minute;
    full_at.since(now) <= FULL
}

impl Serving {
    fn new() -> Serving {
        let mut limits = DialBackConfig::unlimited();
        limits.peer_per_min = PEER_A_MINUTE;
        limits.global_per_min = ALL_A_MINUTE;
        limits.target_per_min = TARGET_A_MINUTE;
        limits.dials_max = DIALS_AT_ONCE;
        let config = Config { dial_back: Some(limits), ..Config::default() };
        let key = libp2p_identity::Keypair::ed25519_from_bytes([1; 32]).expect("a key");
        let caller = |requester: usize| Caller {
            peer: peer(u8::try_from(requester).expect("two of them")),
            local: tcp(9, 9, 4001),
            remote: Addr { port: 50_000, ..home(requester) },
            relayed: false,
            rtt: Some(Duration::from_millis(100)),
        };
        let callers = (0..CONNS.len()).map(|one| (CONNS[one], caller(one))).collect();
        let mut stage = Stage::new();
        stage.ids = 100;
        Serving {
            stage,
            service: Service::new(&config, &key.public()),
            town: Rc::new(Town { callers }),
            sleeps: 1,
            requests: BTreeMap::new(),
            streams: BTreeMap::new(),
            flights: Vec::new(),
            buckets: BTreeMap::new(),
            slept: BTreeSet::new(),
        }
    }

    fn act(
        &mut self,
        chance: Chance,
        fact: impl FnOnce(&mut Service, &mut Cx<'_>, &Town) -> Result<(), Oddity>,
    ) -> (Result<(), Oddity>, Vec<Action>) {
        let (service, town) = (&mut self.service, Rc::clone(&self.town));
        self.stage.act(chance, |cx| {
            let done = fact(service, cx, &town);
            service.advance(cx, &*town);
            done
        })
    }

    fn stream_of(&self, request: usize) -> StreamId {
        let found = self.streams.iter().find(|(_, of)| **of == request);
        found.map_or(StreamId::inbound(Protocol::DialRequest, 0), |(stream, _)| *stream)
    }

    fn send(
        &mut self,
        request: usize,
        body: &Bytes,
        chance: Chance,
    ) -> (Result<(), Oddity>, Vec<Action>) {
        let stream = self.stream_of(request);
        self.act(chance, |service, cx, town| service.frame(cx, town, stream, body))
    }

    fn perform(&mut self, event: Event, chance: Chance) -> Vec<Action> {
        match event {
            Event::Open(requester, request) => {
                let stream = StreamId::inbound(Protocol::DialRequest, self.stage.mint());
                let conn = CONNS[requester];
                self.streams.insert(stream, request);
                let fresh = Request { conn, wanted: None, paid: 0, answered: false };
                self.requests.insert(request, fresh);
                self.act(chance, |service, cx, town| service.opened(cx, town, conn, stream)).1
            }
            Event::Request(request, wanted) => {
                let requester = usize::from(self.requests[&request].conn == CONNS[1]);
                self.requests.entry(request).and_modify(|one| one.wanted = Some(wanted));
                let addrs = vec![multiaddr::encode(wanted_addr(wanted, requester))];
                let body = match wanted {
                    Wanted::Garbage => Bytes::from_static(&[0xff]),
                    Wanted::Home | Wanted::Other | Wanted::Private => {
                        Message::DialRequest { addrs, nonce: 7 }.encode()
                    }
                };
                self.send(request, &body, chance).1
            }
            Event::Pay(request, true) => {
                let mut all = Vec::new();
                // As much as could be asked for; what comes after the end is not sent.
                while self.awaits_data(request) && all.is_empty() {
                    self.requests.entry(request).and_modify(|one| one.paid += 4_096);
                    all = self.send(request, &dial_data_chunk(4_096), chance).1;
                }
                all
            }
            Event::Pay(request, false) => self.send(request, &dial_data_chunk(50), chance).1,
            Event::End(request, end) => {
                let stream = self.stream_of(request);
                let actions = self.act(chance, |service, cx, _| service.closed(cx, stream, end)).1;
                if end != StreamEnd::Finished {
                    self.forget(request);
                }
                actions
            }
            Event::Land(landing) => self.land(landing, chance),
            Event::Delivered(end) => {
                let stream = StreamId::outbound(Protocol::DialBack, self.flights[0].dial.0);
                let body = DialBackResponse::OK.encode();
                self.act(chance, |service, cx, town| match end {
                    Some(end) => service.closed(cx, stream, end),
                    None => service.frame(cx, town, stream, &body),
                })
                .1
            }
            Event::Drop => {
                let conn = self.flights[0].landed.unwrap_or(ConnId(0));
                self.act(chance, |service, cx, town| {
                    service.disconnected(cx, town, conn);
                    Ok(())
                })
                .1
            }
            Event::GoAway(requester) => self.go_away(requester, chance),
            Event::Pass(jump) => {
                self.stage.pass(self.service.deadline(), jump);
                self.act(chance, |_, _, _| Ok(())).1
            }
            Event::Sleep => self.sleep(chance),
        }
    }

    fn sleep(&mut self, chance: Chance) -> Vec<Action> {
        let (slept, last) = (Duration::from_secs(5), self.stage.now);
        self.stage.now = last + slept;
        self.flights.iter_mut().for_each(|flight| {
            flight.slept = true;
            flight.since = flight.since + slept;
        });
        self.sleeps -= 1;
        self.act(chance, |service, cx, _| {
            service.resumed(Sleep::new(slept, last, cx.now));
            Ok(())
        })
        .1
    }

    fn land(&mut self, landing: Landing, chance: Chance) -> Vec<Action> {
        let Flight { dial, request, .. } = self.flights[0];
        let requester = self.requests.get(&request).is_some_and(|one| one.conn == CONNS[1]);
        let reason = match landing {
            Landing::Right | Landing::Wrong => {
                let conn = ConnId(self.stage.mint());
                self.flights[0].landed = Some(conn);
                let peer = peer(if landing == Landing::Right { requester.into() } else { 9 });
                let remote = home(requester.into());
                let mut facts = connection(conn, peer, Side::Outbound, remote);
                facts.dial = Some(dial);
                return self.act(chance, |service, cx, _| service.connected(cx, &facts)).1;
            }
            Landing::Refused => DialFailure::Refused,
            Landing::OurFault => DialFailure::LocalFault,
        };
        self.act(chance, |service, cx, town| service.dial_failed(cx, town, dial, reason)).1
    }

    fn go_away(&mut self, requester: usize, chance: Chance) -> Vec<Action> {
        let conn = CONNS[requester];
        let actions = self.act(chance, |service, cx, town| {
            service.disconnected(cx, town, conn);
            Ok(())
        });
        let gone: Vec<usize> = self.of(conn).collect();
        gone.into_iter().for_each(|request| self.forget(request));
        actions.1
    }

    fn of(&self, conn: ConnId) -> impl Iterator<Item = usize> + '_ {
        self.requests.iter().filter(move |(_, one)| one.conn == conn).map(|(request, _)| *request)
    }

    /// Nothing that comes on its stream will mean anything.
    fn forget(&mut self, request: usize) {
        self.requests.remove(&request);
        self.streams.retain(|_, of| *of != request);
    }

    fn awaits_data(&self, request: usize) -> bool {
        self.requests.get(&request).is_some_and(|one| {
            let flying = self.flights.iter().any(|flight| flight.request == request);
            one.wanted == Some(Wanted::Other) && !one.answered && !flying
        })
    }

    fn bucket(&mut self, key: u8, a_minute: u32) -> bool {
        let now = self.stage.now;
        take(self.buckets.entry(key).or_insert(now), now, a_minute)
    }

    /// What came out, against what was promised.
    fn heard(&mut self, event: Event, action: &Action) -> Result<(), String> {
        match action {
            Action::Send { stream, body } if stream.protocol == Protocol::DialRequest => {
                let request = *self.streams.get(stream).ok_or("a word on no request's stream")?;
                let Ok(Message::DialResponse { status, dial_status, .. }) = Message::decode(body)
                else {
                    return Ok(());
                };
                let one = self.requests.get_mut(&request).ok_or("nobody asked")?;
                promise(!one.answered, || format!("{request} is answered twice"))?;
                one.answered = true;
                self.answered(event, request, status, dial_status)
            }
            Action::ResetStream { stream } if stream.protocol == Protocol::DialRequest => {
                self.streams.get(stream).copied().into_iter().for_each(|one| self.forget(one));
                Ok(())
            }
            Action::Dial(dial) => self.dials(event, dial.dial, dial.addr),
            Action::OpenStream { conn, stream } if stream.protocol == Protocol::DialBack => {
                let right = event == Event::Land(Landing::Right)
                    && self.flights.iter().any(|flight| flight.landed == Some(*conn));
                promise(right, || format!("a nonce goes out on {conn}"))
            }
            Action::Disconnect { conn } => {
                let before = self.flights.len();
                self.flights.retain(|flight| flight.landed != Some(*conn));
                promise(self.flights.len() < before, || format!("{conn} is none of ours"))
            }
            Action::Notify(Notice::DialBackServed { answer: Served::Aborted, .. }) => Ok(()),
            Action::OpenStream { .. }
            | Action::Send { .. }
            | Action::CloseStream { .. }
            | Action::ResetStream { .. }
            | Action::Mapping(_)
            | Action::Relay(_)
            | Action::Punch(_)
            | Action::Notify(_) => Ok(()),
        }
    }

    /// The answer says what happened.
    fn answered(
        &mut self,
        event: Event,
        request: usize,
        status: ResponseStatus,
        dial_status: DialStatus,
    ) -> Result<(), String> {
        let slept = self.slept.contains(&request) || event == Event::Sleep;
        let justified = match (status, dial_status) {
            (ResponseStatus::Ok, DialStatus::Ok) => {
                matches!(event, Event::Delivered(None | Some(StreamEnd::Finished)))
            }
            (ResponseStatus::Ok, DialStatus::DialError) => {
                matches!(event, Event::Land(Landing::Wrong | Landing::Refused)) && !slept
            }
            (ResponseStatus::Ok, DialStatus::DialBackError) => {
                let broke = matches!(event, Event::Delivered(Some(_)) | Event::Drop);
                (broke || matches!(event, Event::Pass(_) | Event::Sleep)) && !slept
            }
            (ResponseStatus::Refused, _) => {
                matches!(event, Event::Land(Landing::OurFault) | Event::Request(_, Wanted::Private))
            }
            (ResponseStatus::InternalError, _) => {
                slept || matches!(event, Event::Pass(_) | Event::Sleep)
            }
            (ResponseStatus::Rejected, _) => {
                matches!(event, Event::Open(..) | Event::Request(..) | Event::Pay(..))
            }
            (_, _) => false,
        };
        promise(justified, || format!("{request} hears {status:?} {dial_status:?}"))
    }

    fn dials(&mut self, event: Event, dial: DialId, addr: Addr) -> Result<(), String> {
        let (request, wanted) = match event {
            Event::Pay(request, true) => (request, Wanted::Other),
            Event::Request(request, wanted) => (request, wanted),
            Event::Open(..)
            | Event::Pay(_, false)
            | Event::End(..)
            | Event::Land(_)
            | Event::Delivered(_)
            | Event::Drop
            | Event::GoAway(_)
            | Event::Pass(_)
            | Event::Sleep => return Err(format!("{event:?} makes us dial")),
        };
        let paid = self.requests[&request].paid;
        let requester = usize::from(self.requests[&request].conn == CONNS[1]);
        let asked = wanted_addr(wanted, requester);
        promise(addr == asked && ip_scope(addr.ip) == IpScope::Global, || format!("dials {addr}"))?;
        promise(addr == home(requester) || paid >= PRICE_MIN, || {
            format!("dials for {paid} bytes")
        })?;
        promise(self.flights.len() < DIALS_AT_ONCE, || "too many dials at once".into())?;
        let key = if wanted == Wanted::Other { 20 } else { 21 + u8::from(requester == 1) };
        promise(self.bucket(key, TARGET_A_MINUTE), || format!("{addr} is dialled too often"))?;
        let since = self.stage.now;
        self.flights.push(Flight { dial, request, since, landed: None, slept: false });
        Ok(())
    }

    /// What an admitted request costs.
    fn admitted(
        &mut self,
        request: usize,
        wanted: Wanted,
        actions: &[Action],
    ) -> Result<(), String> {
        let rejected = actions.iter().any(|action| {
            matches!(
                action,
                Action::Notify(Notice::DialBackServed { answer: Served::Rejected, .. })
            )
        });
        if rejected || wanted == Wanted::Garbage {
            return Ok(());
        }
        // One that was over the number of open requests had its answer before it came.
        let one = self.requests.get(&request).filter(|one| !one.answered);
        let Some(one) = one else { return Ok(()) };
        let requester = u8::from(one.conn == CONNS[1]);
        promise(self.bucket(0, ALL_A_MINUTE), || "all together ask too often".into())?;
        promise(self.bucket(10 + requester, PEER_A_MINUTE), || {
            format!("{requester} asks too often")
        })
    }

    fn deadline(&self) -> Option<Deadline> {
        self.service.deadline()
    }
}

impl World for Serving {
    type Event = Event;

    fn events(&self) -> Vec<Event> {
        let mut all = Vec::new();
        let next = (0..REQUESTS).find(|request| !self.requests.contains_key(request));
        for (requester, conn) in CONNS.iter().enumerate() {
            all.extend(next.map(|request| Event::Open(requester, request)));
            if self.of(*conn).next().is_some() {
                all.push(Event::GoAway(requester));
            }
        }
        for (request, one) in &self.requests {
            if one.wanted.is_none() {
                let all_wanted = [Wanted::Home, Wanted::Other, Wanted::Private, Wanted::Garbage];
                all.extend(all_wanted.map(|wanted| Event::Request(*request, wanted)));
            }
            if self.awaits_data(*request) {
                all.extend([Event::Pay(*request, true), Event::Pay(*request, false)]);
            }
            all.extend(
                [StreamEnd::Finished, StreamEnd::Reset].map(|end| Event::End(*request, end)),
            );
        }
        match self.flights.first().map(|flight| flight.landed) {
            Some(None) => {
                let all_landings =
                    [Landing::Right, Landing::Wrong, Landing::Refused, Landing::OurFault];
                all.extend(all_landings.map(Event::Land));
            }
            Some(Some(_)) => {
                let ends = [None, Some(StreamEnd::Finished), Some(StreamEnd::Reset)];
                all.extend(ends.map(Event::Delivered));
                all.push(Event::Drop);
            }
            None => {}
        }
        all.extend(Jump::all(&self.stage, self.deadline()).into_iter().map(Event::Pass));
        if self.sleeps > 0 {
            all.push(Event::Sleep);
        }
        all
    }

    fn step(&mut self, event: &Event, chance: Chance) -> Result<bool, String> {
        self.stage.drew = false;
        let open: BTreeSet<usize> =
            self.requests.iter().filter(|(_, one)| !one.answered).map(|(one, _)| *one).collect();
        let slept = self.flights.iter().filter(|flight| flight.slept);
        self.slept = slept.map(|flight| flight.request).collect();
        let actions = self.perform(*event, chance);
        let now = self.stage.now;
        self.flights.retain(|flight| now < flight.since + SLOT);
        if let Event::Request(request, wanted) = *event {
            self.admitted(request, wanted, &actions)?;
        }
        for action in &actions {
            self.heard(*event, action)?;
        }
        if matches!(event, Event::Land(Landing::Refused | Landing::OurFault) | Event::Drop) {
            self.flights.remove(0);
        }
        // Each request that was open is open still, or has its one answer, or was given up.
        let over = actions
            .iter()
            .filter(|action| matches!(action, Action::Notify(Notice::DialBackServed { .. })));
        let opened = usize::from(matches!(event, Event::Open(..)));
        let left = self.requests.values().filter(|one| !one.answered).count();
        promise(open.len() + opened == left + over.count(), || {
            format!("{} were open, {left} are: {actions:?}", open.len() + opened)
        })?;
        if let Event::End(request, StreamEnd::Finished) = event {
            let answered = self.requests.get(request).is_some_and(|one| one.answered);
            answered.then(|| self.forget(*request));
        }
        lies_ahead(now, self.deadline())?;
        let mut idle = self.clone();
        let (_, actions) = idle.act(Chance::Lowest, |_, _, _| Ok(()));
        promise(actions.is_empty() && idle.service == self.service, || "an idle tick acts".into())?;
        Ok(self.stage.drew)
    }

    fn key(&self) -> Vec<u8> {
        canonical(self.stage.now, |out| {
            self.service.save(out);
            self.sleeps.save(out);
            CONNS.save(out);
            for (request, one) in &self.requests {
                let wanted = one.wanted.map_or(9, |wanted| wanted as u8);
                let paid = one.paid >= PRICE_MIN;
                ((*request, one.conn), (wanted, paid), one.answered).save(out);
                self.stream_of(*request).save(out);
            }
            for flight in &self.flights {
                (flight.request, flight.since, flight.landed).save(out);
                flight.slept.save(out);
            }
            out.current(&self.buckets, |now, full_at: &Instant| now < *full_at);
        })
    }
}

#[test]
fn a_dial_back_server_with_tiny_limits() {
    let bound = Bound { depth: depth(6, 9), floor: 10_000, complete: false };
    explore("service", vec![Serving::new()], bound);
}
