//! Whether inbound help is needed, and how much: told from the one verdict.
//!
//! ```text
//!  every class public ─► none          contacted ─► one relay
//!  private, refused to strangers, endpoint-dependent mapping ─► all, at once
//!  undecided ─► all, once patience is over; there is none where help was needed before
//!  up at once; down after a hold-down
//! ```

use super::Ground;
use crate::reachability::{Reachability, Status};
use crate::words::checkpoint::saved;
use crate::words::deadline::earliest;
use crate::words::sleep::Sleep;
use crate::{
    Class, Cx, Deadline, Duration, Instant, NodeState, Protocol, Reason, RelayConfig, RelayNeed,
    State, Wake,
};

/// How long a class may be undecided before help is sought, ours: a verdict takes some ten round
/// trips, and a node that nobody can dial is to have a relay within two seconds of its start. If it
/// grows, so does the time without any way in.
const UNDECIDED_MAX: Duration = Duration::from_secs(1);
/// How long it may stay undecided once an address of it was refuted, round trips to the farthest
/// server; ours: another one may still prove an address.
const UNDECIDED_RTTS: u32 = 4;
/// The least of that, ours.
const UNDECIDED_MIN: Duration = Duration::from_millis(100);
/// The round trip that counts where none was measured, ours.
const RTT_ASSUMED: Duration = Duration::from_millis(100);
/// How long what was needed is kept after it no longer is, ours: as long as a role is held.
const HOLD_DOWN: Duration = Duration::from_secs(60);

/// How much help is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Everybody can dial us.
    #[default]
    None,
    /// Those whom we contacted can; strangers are untested.
    One,
    /// Not everybody can.
    Full,
}

/// How long undecided classes are waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Patience {
    /// All are decided.
    #[default]
    Idle,
    /// Until then. `hurried`: a failure has shortened it.
    Until { at: Instant, hurried: bool },
    /// No longer.
    Over,
}

/// The need for help.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Need {
    level: Level,
    patience: Patience,
    /// When less is needed, after the hold-down.
    lower_at: Option<Instant>,
}

impl Need {
    pub(super) fn level(&self) -> Level {
        self.level
    }

    /// Read the verdict. Returns whether the level is another.
    pub(super) fn advance(
        &mut self,
        cx: &Cx<'_>,
        config: &RelayConfig,
        ground: &Ground<'_>,
        reachability: &Reachability,
    ) -> bool {
        let wanted = match config.need {
            RelayNeed::Always => self.always(Level::Full),
            RelayNeed::Never => self.always(Level::None),
            RelayNeed::Auto => self.judge(cx.now, UNDECIDED_MAX, ground, reachability),
            RelayNeed::Expected => self.judge(cx.now, Duration::ZERO, ground, reachability),
        };
        let was = self.level;
        let is_held = wanted < was && {
            let until = *self.lower_at.get_or_insert(cx.now + HOLD_DOWN);
            cx.now < until
        };
        if !is_held {
            self.lower_at = None;
            self.level = wanted;
        }
        self.level != was
    }

    /// Nothing is waited for.
    fn always(&mut self, level: Level) -> Level {
        self.patience = Patience::Idle;
        level
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        let patience = match self.patience {
            Patience::Until { at, .. } => Some(at),
            Patience::Idle | Patience::Over => None,
        };
        let due = |at| Deadline::new(at, Wake::RelayNeed);
        earliest(patience.map(due), self.lower_at.map(due))
    }

    pub(super) fn resumed(&mut self, sleep: Sleep) {
        if let Patience::Until { at, .. } = &mut self.patience {
            sleep.put_off(at);
        }
        if let Some(at) = &mut self.lower_at {
            sleep.put_off(at);
        }
    }

    /// `patience`: how long undecided classes are waited for at most.
    fn judge(
        &mut self,
        now: Instant,
        patience: Duration,
        ground: &Ground<'_>,
        reachability: &Reachability,
    ) -> Level {
        let forced = ground.config.force_node.map(|state| (state, Reason::Forced));
        let listened = Class::ALL.into_iter().filter(|class| ground.local.listens_in(*class));
        let status = |Status { state, reason }| (state, reason);
        let classes = listened.clone().filter_map(|class| reachability.class(class)).map(status);
        let (mut most, mut undecided) = (Level::None, false);
        let mut add = |(state, reason)| match level(state, reason) {
            Some(level) => most = most.max(level),
            None => undecided = true,
        };
        match forced {
            Some(state) => add(state),
            None => classes.for_each(add),
        }
        if !undecided {
            self.patience = Patience::Idle;
            return most;
        }
        let is_open = |class| {
            let status = reachability.class(class);
            status.is_some_and(|status| level(status.state, status.reason).is_none())
        };
        let failing = |(addr, verdict): (crate::Addr, &crate::reachability::Verdict)| {
            verdict.state() == State::Unreachable && is_open(addr.class())
        };
        let first = Patience::Until { at: now + patience, hurried: false };
        if self.patience == Patience::Idle {
            self.patience = first;
        }
        if let Patience::Until { at, hurried: hurried @ false } = &mut self.patience
            && reachability.addresses().any(failing)
        {
            *hurried = true;
            *at = (*at).min(now + hurry(ground));
        }
        match self.patience {
            Patience::Until { at, .. } if now < at => most,
            Patience::Until { .. } | Patience::Idle | Patience::Over => {
                self.patience = Patience::Over;
                Level::Full
            }
        }
    }
}

/// What a state calls for; `None` while it is not decided.
fn level(state: NodeState, reason: Reason) -> Option<Level> {
    match state {
        NodeState::Public => Some(Level::None),
        NodeState::Limited if reason == Reason::StrangersRefused => Some(Level::Full),
        NodeState::Limited => Some(Level::One),
        NodeState::Private => Some(Level::Full),
        NodeState::Unknown => None,
    }
}

/// How long the servers that have not answered are waited for after a failure.
fn hurry(ground: &Ground<'_>) -> Duration {
    let servers = ground
        .peers
        .iter()
        .filter(|(_, one)| !one.relayed && one.protocols.contains(Protocol::DialRequest));
    let farthest = servers.filter_map(|(_, one)| one.rtt).max().unwrap_or(RTT_ASSUMED);
    (farthest * UNDECIDED_RTTS).clamp(UNDECIDED_MIN, UNDECIDED_MAX)
}

saved!(enum Level { 1 = None, 2 = One, 3 = Full });
saved!(enum Patience { 1 = Idle, 2 = Until { at, hurried }, 3 = Over });
saved!(struct Need { level, patience, lower_at });

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidates::Candidates;
    use crate::local::Local;
    use crate::mapping::Mappings;
    use crate::observed::ObservedAddrs;
    use crate::peers::Peers;
    use crate::probe::{Claim, Probe};
    use crate::reachability::Ground as Below;
    use crate::{Actions, Addr, Config, Draw, ListenerId, Signer, UnixTime};
    use alloc::vec::Vec;
    use libp2p_identity::Keypair;

    struct Zero;

    impl Draw for Zero {
        fn below(&mut self, _: u64) -> u64 {
            0
        }
        fn nonce(&mut self) -> u64 {
            0
        }
    }

    impl Signer for Zero {
        fn sign(&mut self, _: &[u8]) -> Vec<u8> {
            Vec::new()
        }
    }

    /// A listener on an address that is not presumed open, and what is claimed of it.
    struct World {
        local: Local,
        candidates: Candidates,
        reachability: Reachability,
        need: Need,
        claim: Claim,
        config: RelayConfig,
        now: Instant,
        steps: u64,
    }

    impl World {
        fn new() -> World {
            let mut local = Local::default();
            local.opened(ListenerId(1), addr()).expect("it listens");
            World {
                local,
                candidates: Candidates::default(),
                reachability: Reachability::default(),
                need: Need::default(),
                claim: Claim { is_probing: true, ..Claim::default() },
                config: RelayConfig::default(),
                now: Instant::from_millis(1_000_000),
                steps: 0,
            }
        }

        fn after(&mut self, millis: u64) -> Level {
            self.now = self.now + Duration::from_millis(millis);
            self.steps += 1;
            let (config, peers) = (&Config::default(), &Peers::default());
            let observed = &ObservedAddrs::default();
            let probe = &Probe::claiming([(addr(), &self.claim)].into_iter(), self.steps);
            let mut cx = Cx {
                now: self.now,
                unix: UnixTime::from_millis(0),
                draw: &mut Zero,
                sign: &mut Zero,
                actions: &mut Actions::new(),
            };
            let World { local, candidates, reachability, need, .. } = self;
            candidates.advance(&mut cx, config, local, observed, &Mappings::default());
            let below = Below { config, local, peers, observed, candidates, probe };
            reachability.advance(&mut cx, &below);
            let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes are a key").public();
            let ground = Ground { config, identity: &key, local, peers };
            need.advance(&cx, &self.config, &ground, reachability);
            assert!(need.deadline().is_none_or(|deadline| deadline.at > self.now));
            need.level()
        }
    }

    fn addr() -> Addr {
        Addr::tcp("2600::1".parse().expect("an address"), 4001)
    }

    #[test]
    fn an_undecided_class_is_waited_for_a_second() {
        let mut world = World::new();
        assert_eq!(world.after(0), Level::None);
        assert_eq!(world.after(999), Level::None);
        assert_eq!(world.after(1), Level::Full);
    }

    #[test]
    fn where_relays_were_needed_before_nothing_is_waited_for() {
        let mut world = World::new();
        world.config.need = RelayNeed::Expected;
        assert_eq!(world.after(0), Level::Full);
        let by_stranger_at = Some(world.now);
        world.claim = Claim { proven_at: by_stranger_at, by_stranger_at, ..Claim::default() };
        assert_eq!(world.after(0), Level::Full);
        assert_eq!(world.after(60_000), Level::None, "the verdict is another one now");
    }

    #[test]
    fn a_refuted_class_needs_all_at_once() {
        let mut world = World::new();
        assert_eq!(world.after(0), Level::None);
        world.claim = Claim { refuted: Some(1), ..Claim::default() };
        assert_eq!(world.after(50), Level::Full);
    }

    #[test]
    fn less_is_let_go_after_a_minute_without_need() {
        let mut world = World::new();
        world.claim = Claim { refuted: Some(1), ..Claim::default() };
        assert_eq!(world.after(0), Level::Full);
        let proven = |now| Claim { proven_at: Some(now), ..Claim::default() };
        world.claim = proven(world.now);
        assert_eq!(world.after(0), Level::Full);
        assert_eq!(world.after(59_999), Level::Full);
        world.claim.refuted = Some(1);
        assert_eq!(world.after(0), Level::Full, "and again from the beginning");
        world.claim = proven(world.now);
        assert_eq!(world.after(1), Level::Full);
        assert_eq!(world.after(60_000), Level::One, "strangers are untested");
        world.claim.by_stranger_at = Some(world.now);
        assert_eq!(world.after(0), Level::One);
        assert_eq!(world.after(60_000), Level::None);
        world.claim = Claim { cold_at: [Some(world.now); 2], ..proven(world.now) };
        assert_eq!(world.after(0), Level::Full, "strangers are refused");
    }
}
