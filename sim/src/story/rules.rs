//! What must hold after every single event, whatever the story.

use portolan_core::{Event, Explanation, Notice, Reason, State, config};

/// Collections stay inside their bounds, verdicts rest on proofs, and only what is proved is told
/// to peers.
pub(super) fn bounds(explanation: &Explanation) -> Result<(), String> {
    let Explanation { addresses, advertised, .. } = explanation;
    if addresses.len() > config::CANDIDATES_MAX {
        return Err(format!("{} candidates", addresses.len()));
    }
    for address in addresses {
        let reachable = address.state == State::Reachable;
        if reachable != address.scope.is_some() || reachable != address.until.is_some() {
            return Err(format!("{} is half reachable", address.addr));
        }
        if reachable && (address.proofs == 0 || address.proved_at.is_none()) {
            return Err(format!("{} is reachable without a proof", address.addr));
        }
        if reachable && address.until.is_some_and(|until| until <= explanation.at) {
            return Err(format!("{} is reachable beyond its time", address.addr));
        }
    }
    for addr in advertised {
        let known = addresses.iter().find(|address| address.addr == *addr);
        if known.is_none_or(|address| address.state != State::Reachable) {
            return Err(format!("{addr} is advertised, but is not reachable"));
        }
    }
    Ok(())
}

/// Whatever changed has its notice, and no notice says what is not so.
pub(super) fn told(
    before: &Explanation,
    after: &Explanation,
    notices: &[&Notice],
) -> Result<(), String> {
    let node = notices.iter().rev().find_map(|notice| {
        if let Notice::NodeChanged { state, reason } = notice {
            Some((*state, *reason))
        } else {
            None
        }
    });
    if node.unwrap_or((before.state, before.reason)) != (after.state, after.reason) {
        return Err(format!(
            "the node is {:?} ({:?}), and no notice said so",
            after.state, after.reason
        ));
    }
    for address in &after.addresses {
        let said = notices.iter().rev().find_map(|notice| {
            if let Notice::VerdictChanged { addr, state, scope, reason } = notice
                && *addr == address.addr
            {
                return Some((*state, *scope, *reason));
            }
            None
        });
        let old = before.addresses.iter().find(|old| old.addr == address.addr);
        let old = old.map(|old| (old.state, old.scope, old.reason));
        let new = (address.state, address.scope, address.reason);
        if said.or(old) != Some(new) {
            return Err(format!("{} is {new:?}, and no notice said so", address.addr));
        }
    }
    let told = |of: &Explanation| of.advertised.clone();
    let mut expected = told(before);
    for notice in notices {
        if let Notice::AdvertisedChanged { added, removed } = notice {
            expected.retain(|addr| !removed.contains(addr));
            expected.extend(added);
        }
    }
    let mut now = told(after);
    expected.sort();
    now.sort();
    if expected != now {
        return Err(format!("peers are told {now:?}, and no notice said so"));
    }
    Ok(())
}

/// A text of the transcript is one line of printable characters, whatever peers sent.
pub(super) fn printable(text: &str) -> Result<(), String> {
    match text.chars().find(|c| !c.is_ascii_graphic() && !matches!(c, ' ' | '…')) {
        None => Ok(()),
        Some(c) => Err(format!("a line with {c:?} in it: {text:?}")),
    }
}

/// The passing of time alone makes nothing unreachable that was reachable; it may only expire.
pub(super) fn no_flip(event: &Event, notices: &[&Notice]) -> Result<(), String> {
    if !matches!(event, Event::Tick | Event::Resumed { .. }) {
        return Ok(());
    }
    for notice in notices {
        if let Notice::VerdictChanged { addr, state: State::Unknown, reason, .. } = notice
            && !matches!(
                reason,
                Reason::Expired
                    | Reason::NoCandidates
                    | Reason::Probing
                    | Reason::NoServers
                    | Reason::ServersRefused
                    | Reason::ServersUnhelpful
                    | Reason::ServersDistrusted
            )
        {
            return Err(format!("{addr} became unknown by itself: {reason:?}"));
        }
    }
    Ok(())
}
