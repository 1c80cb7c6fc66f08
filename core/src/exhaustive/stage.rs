//! What worlds are made of: chance that can be enumerated, a step, and the few names there are.

use crate::words::checkpoint::Saver;
use crate::{
    Action, Actions, Addr, ConnId, Connected, Cx, Deadline, Draw, Duration, Instant, PeerId, Side,
    Signer, UnixTime,
};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Which of the numbers that could be drawn is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chance {
    Lowest,
    Middle,
    Highest,
}

impl Chance {
    pub(super) const ALL: [Chance; 3] = [Chance::Lowest, Chance::Middle, Chance::Highest];
}

struct Draws<'a> {
    chance: Chance,
    drew: bool,
    nonces: &'a mut u64,
}

impl Draw for Draws<'_> {
    fn below(&mut self, n: u64) -> u64 {
        self.drew |= n > 1;
        match self.chance {
            Chance::Lowest => 0,
            Chance::Middle => n / 2,
            Chance::Highest => n.saturating_sub(1),
        }
    }

    /// All nonces differ, and nothing else about them matters.
    fn nonce(&mut self) -> u64 {
        *self.nonces += 1;
        *self.nonces
    }
}

impl Signer for Draws<'_> {
    fn sign(&mut self, _: &[u8]) -> Vec<u8> {
        Vec::new()
    }
}

/// The moment, and what has been handed out.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) now: Instant,
    pub(super) ids: u64,
    pub(super) nonces: u64,
    /// Whether anything was drawn in this event.
    pub(super) drew: bool,
}

impl Stage {
    pub(super) fn new() -> Stage {
        Stage { now: Instant::from_millis(100_000_000), ids: 0, nonces: 0, drew: false }
    }

    pub(super) fn mint(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// One step of a room.
    pub(super) fn act<T>(
        &mut self,
        chance: Chance,
        fact: impl FnOnce(&mut Cx<'_>) -> T,
    ) -> (T, Vec<Action>) {
        let mut actions = Actions::new();
        let mut draw = Draws { chance, drew: false, nonces: &mut self.nonces };
        let mut sign = Draws { chance, drew: false, nonces: &mut 0 };
        let mut cx = Cx {
            now: self.now,
            unix: UnixTime::from_millis(self.now.as_nanos() / 1_000_000),
            draw: &mut draw,
            sign: &mut sign,
            actions: &mut actions,
        };
        let result = fact(&mut cx);
        self.drew |= draw.drew;
        (result, actions.drain().collect())
    }

    /// Whether there is a moment just before this deadline at which nothing is due yet.
    pub(super) fn has_before(&self, deadline: Option<Deadline>) -> bool {
        deadline.is_some_and(|due| due.at > self.now + TICK)
    }

    /// Let time pass, to the deadline or to just before it.
    pub(super) fn pass(&mut self, deadline: Option<Deadline>, jump: Jump) {
        let at = deadline.map_or(self.now, |due| due.at);
        self.now = match jump {
            Jump::Due => at,
            Jump::Before => Instant::from_nanos(at.as_nanos() - nanos(TICK)),
        };
    }
}

const TICK: Duration = Duration::from_nanos(1);

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// How far time goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Jump {
    Due,
    Before,
}

impl Jump {
    /// The jumps that lead anywhere.
    pub(super) fn all(stage: &Stage, deadline: Option<Deadline>) -> Vec<Jump> {
        let before = stage.has_before(deadline).then_some(Jump::Before);
        deadline.map(|_| Jump::Due).into_iter().chain(before).collect()
    }
}

/// After a step nothing is due that has not fired.
pub(super) fn lies_ahead(now: Instant, deadline: Option<Deadline>) -> Result<(), String> {
    match deadline.filter(|due| due.at <= now) {
        Some(due) => Err(format!("{due:?} is due and has not fired")),
        None => Ok(()),
    }
}

/// The peer of this number: its id says no more.
pub(super) fn peer(number: u8) -> PeerId {
    PeerId::from_bytes(&[0, 1, number]).expect("a short identity hash")
}

/// An address in one of the networks of the world.
pub(super) fn tcp(network: u8, host: u8, port: u16) -> Addr {
    Addr::tcp([44, 0, network, host].into(), port)
}

/// The address of ours behind the NAT.
pub(super) fn inside(port: u16) -> Addr {
    Addr::tcp([192, 168, 0, 2].into(), port)
}

/// A plain connection.
pub(super) fn connection(conn: ConnId, peer: PeerId, side: Side, remote: Addr) -> Connected {
    Connected {
        conn,
        peer,
        side,
        local: Addr { transport: remote.transport, ..inside(4001) },
        remote,
        relayed: false,
        dial: None,
        rtt: Some(Duration::from_millis(30)),
    }
}

/// Write what a world remembers behind what its rooms say.
pub(super) fn number(out: &mut Saver<'_>, number: usize) {
    out.number(u64::try_from(number).unwrap_or(u64::MAX));
}
