//! What the verdict says of the mappings of routers: the way back, from the room that judges to the one
//! that maps.

use crate::mapping::Mappings;
use crate::probe::Probe;
use crate::reachability::{Reachability, Verdict};
use crate::{Instant, State};

/// Tell the room that maps which of its mappings lead here.
pub(super) fn judge(
    now: Instant,
    mapping: &mut Mappings,
    probe: &Probe,
    reachability: &Reachability,
) {
    for external in mapping.externals().to_vec() {
        let addr = external.addr().filter(|addr| !probe.is_searching(*addr));
        let verdict = addr.and_then(|addr| reachability.verdict(addr));
        let is_reached = match verdict.map(Verdict::state) {
            Some(State::Reachable) => Some(true),
            Some(State::Unreachable) => Some(false),
            Some(State::Unknown) | None => None,
        };
        mapping.judged(now, external.internal, is_reached);
    }
}
