//! What is asked of a service, and what its answers mean.

use super::Response;
use super::responder::{Asked, Responder, State};
use crate::mapping::asker::{Ask, HOLD_OFF_MAX, HOLD_OFF_MIN, map_transport};
use crate::mapping::grant::{Fault, Given, Grant, Grants, Remedy};
use crate::wire::upnp::description::Description;
use crate::wire::upnp::soap::{Action, Answer, PortMapping, UpnpError};
use crate::wire::upnp::{HttpUrl, ServiceType, ssdp};
use crate::words::checkpoint::saved;
use crate::{
    Duration, FetchFailure, FetchId, Gateway, Instant, MappingProtocol, MappingReason, Soap,
};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

/// WANIPv6FirewallControl:1 §2.5.3: the longest lease of a pinhole, seconds.
const PINHOLE_LEASE_MAX: u32 = 86_400;
/// WANIPConnection:2 §2.3.12: the longest lease, seconds; 0 means as much.
const LEASE_MAX_V2: u32 = 604_800;
/// Requests that may take too long, one after the other, until a responder is given up; ours.
const SLOW_MAX: u8 = 2;
/// How long a search asks devices to spread their answers over, seconds; ours: the least.
const MX: u8 = 1;

/// A request under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) fetch: FetchId,
    pub(super) what: What,
    /// Of whom: where its description is.
    pub(super) location: HttpUrl,
    pub(super) until: Instant,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Read the description.
    Describe,
    /// Read the external address.
    External,
    /// Map this, or renew it.
    Add(u64),
    /// Look whether it is there.
    Look(u64),
    /// Look who has the port that was refused.
    Whose(u64),
    /// Take an old mapping of ours away, so that it can be made anew.
    Clear(u64),
    /// Give it back.
    Delete(u64),
}

impl What {
    /// Whether the mapping that it is about is still wanted.
    pub(super) fn is_about(self, grants: &Grants) -> bool {
        match self {
            What::Describe | What::External => true,
            What::Add(serial)
            | What::Look(serial)
            | What::Whose(serial)
            | What::Clear(serial)
            | What::Delete(serial) => grants.contains_key(&serial),
        }
    }

    fn serial(self) -> Option<u64> {
        match self {
            What::Describe | What::External => None,
            What::Add(serial)
            | What::Look(serial)
            | What::Whose(serial)
            | What::Clear(serial)
            | What::Delete(serial) => Some(serial),
        }
    }
}

/// A request in its parts.
pub(super) struct Request {
    pub(super) source: IpAddr,
    pub(super) to: SocketAddr,
    pub(super) path: String,
    pub(super) soap: Option<Soap>,
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing for the mappings.
    Nothing,
    /// The external address, if the service tells one.
    External(Option<IpAddr>),
    /// There is none: the gateway is not connected.
    Offline,
    /// This is to be asked next.
    Next(What),
    /// It did not answer in time, again, or nonsense.
    Slow,
    /// Nobody is there any more.
    Gone,
    Granted(u64, Given),
    Released(u64),
    /// The mapping is not there any more.
    Forgotten(u64),
    Failed(u64, Fault),
}

/// The searches of one round: the likeliest first, to the gateway itself and to everybody; in the end
/// whatever there is.
pub(super) fn searches(gateway: &Gateway, sends: usize) -> Vec<(SocketAddr, Bytes)> {
    let to_all = ssdp_group(gateway.source);
    let to_gateway = SocketAddr::new(gateway.router, ssdp::PORT);
    let targets = match sends {
        0 | 1 => &ssdp::SEARCH_TARGETS[..2],
        _ => &ssdp::SEARCH_TARGETS[2..],
    };
    let mut out: Vec<(SocketAddr, Bytes)> = Vec::new();
    for target in targets {
        out.push((to_all, ssdp::search(to_all, target, MX)));
    }
    // Some answer to nobody but who asks them alone.
    out.push((to_gateway, ssdp::search(to_gateway, targets[targets.len() - 1], MX)));
    out
}

/// The group in which devices are found.
pub(in crate::mapping) fn ssdp_group(source: IpAddr) -> SocketAddr {
    match source {
        IpAddr::V4(_) => (ssdp::GROUP_V4, ssdp::PORT).into(),
        IpAddr::V6(_) => (ssdp::GROUP_LINK_V6, ssdp::PORT).into(),
    }
}

/// The request that asks this.
pub(super) fn request(
    what: What,
    responder: &Responder,
    gateway: &Gateway,
    grants: &Grants,
    ask: &Ask,
    description: &str,
) -> Option<Request> {
    if what == What::Describe {
        let url = &responder.location;
        let to = SocketAddr::new(url.host, url.port);
        return Some(Request { source: gateway.source, to, path: url.path.clone(), soap: None });
    }
    let asked = responder.asked()?;
    let grant = what.serial().and_then(|serial| grants.get(&serial));
    let action = action(what, responder, asked.service, grant, ask.lifetime_s, description)?;
    // WANIPv6FirewallControl: a host may open pinholes to itself alone.
    let source = grant.map_or(gateway.source, |grant| grant.internal.ip);
    let soap = Soap { action: action.header(asked.service), body: action.encode(asked.service) };
    let to = SocketAddr::new(asked.url.host, asked.url.port);
    Some(Request { source, to, path: asked.url.path.clone(), soap: Some(soap) })
}

/// The action that asks this; `None` where there is nothing to ask.
fn action(
    what: What,
    responder: &Responder,
    service: ServiceType,
    grant: Option<&Grant>,
    lifetime_s: u32,
    description: &str,
) -> Option<Action> {
    if what == What::External {
        return Some(Action::GetExternalIpAddress);
    }
    let grant = grant?;
    let transport = map_transport(grant.internal.transport);
    let external_port = grant.external_port;
    if let IpAddr::V6(client) = grant.internal.ip {
        let lease_s = lifetime_s.min(PINHOLE_LEASE_MAX);
        return match (what, grant.pinhole) {
            (What::Add(_), Some(id)) => Some(Action::UpdatePinhole { id, lease_s }),
            (What::Add(_), None) => {
                let port = grant.internal.port;
                Some(Action::AddPinhole { client, port, transport, lease_s })
            }
            (What::Delete(_) | What::Clear(_), Some(id)) => Some(Action::DeletePinhole { id }),
            (What::Look(_), Some(id)) => Some(Action::UpdatePinhole { id, lease_s }),
            (_, _) => None,
        };
    }
    let IpAddr::V4(internal_client) = grant.internal.ip else { return None };
    Some(match what {
        What::Describe | What::External => return None,
        What::Add(_) => {
            let mapping = PortMapping {
                external_port,
                transport,
                internal_port: grant.internal.port,
                internal_client,
                description: description.to_string(),
                lease_s: if responder.is_permanent { 0 } else { lifetime_s },
            };
            if service == ServiceType::WanIpConnection2 {
                Action::AddAnyPortMapping(mapping)
            } else {
                Action::AddPortMapping(mapping)
            }
        }
        What::Look(_) | What::Whose(_) => {
            Action::GetSpecificPortMappingEntry { external_port, transport }
        }
        What::Clear(_) | What::Delete(_) => Action::DeletePortMapping { external_port, transport },
    })
}

/// What came back.
pub(super) fn read(
    what: What,
    responder: &mut Responder,
    gateway: &Gateway,
    grants: &Grants,
    lifetime_s: u32,
    response: Response<'_>,
) -> Said {
    let (status, body) = match response {
        Response::Whole { status, body } => (status, body),
        Response::Failed(FetchFailure::Refused) => return Said::Gone,
        Response::Failed(FetchFailure::LocalFault | FetchFailure::TimedOut) => {
            responder.slow += 1;
            let given_up = responder.slow >= SLOW_MAX || what == What::Describe;
            return if given_up { Said::Slow } else { Said::Nothing };
        }
        Response::Failed(FetchFailure::Malformed) => return Said::Slow,
    };
    responder.slow = 0;
    if what == What::Describe {
        if status != 200 {
            return Said::Slow;
        }
        let description = Description::decode(body, &responder.location);
        let useful = description.is_ok_and(|read| responder.described(gateway, read));
        return if useful { Said::Nothing } else { Said::Slow };
    }
    let Some(Asked { service, .. }) = responder.asked().cloned() else { return Said::Nothing };
    let grant = what.serial().and_then(|serial| grants.get(&serial));
    let Some(action) = action(what, responder, service, grant, lifetime_s, "") else {
        return Said::Nothing;
    };
    match Answer::decode(&action, status, body) {
        Ok(Answer::Fault(error)) => fault(what, responder, grant, error),
        Ok(answer) => {
            responder.is_retried = false;
            done(what, responder, (service, lifetime_s), grant, &answer)
        }
        // 404 and the like: its paths are others than they were.
        Err(_) if status != 200 => Said::Gone,
        Err(_) => nonsense(what),
    }
}

/// It was done.
fn done(
    what: What,
    responder: &Responder,
    (service, lifetime_s): (ServiceType, u32),
    grant: Option<&Grant>,
    answer: &Answer,
) -> Said {
    let is_led_here = if let (Answer::Entry(entry), Some(grant)) = (answer, grant) {
        Some(leads_to(entry, grant))
    } else {
        None
    };
    match (what, grant) {
        (What::External, _) => external(answer),
        (What::Add(serial), Some(grant)) => {
            Said::Granted(serial, given(responder, (service, lifetime_s), grant, answer))
        }
        (What::Look(serial), _) if is_led_here == Some(false) => Said::Forgotten(serial),
        (What::Whose(serial), _) if is_led_here == Some(true) => Said::Next(What::Clear(serial)),
        (What::Whose(serial), _) => Said::Failed(serial, other_port()),
        (What::Delete(serial), _) => Said::Released(serial),
        // It is there, or what stood in the way is gone.
        (What::Describe | What::Add(_) | What::Look(_) | What::Clear(_), _) => Said::Nothing,
    }
}

fn external(answer: &Answer) -> Said {
    if let Answer::ExternalIp(ip) = answer {
        let ip = ip.filter(|ip| *ip != Ipv4Addr::UNSPECIFIED);
        ip.map_or(Said::Offline, |ip| Said::External(Some(IpAddr::V4(ip))))
    } else {
        Said::External(None)
    }
}

fn given(
    responder: &Responder,
    (service, lifetime_s): (ServiceType, u32),
    grant: &Grant,
    answer: &Answer,
) -> Given {
    let mut given = Given {
        ip: Some(grant.internal.ip).filter(IpAddr::is_ipv6),
        port: grant.external_port,
        lifetime: None,
        pinhole: grant.pinhole,
    };
    if let Answer::Mapped { external_port } = answer {
        given.port = *external_port;
    }
    if let Answer::Pinhole { id } = answer {
        given.pinhole = Some(*id);
    }
    let lifetime = match (responder.is_permanent, service) {
        _ if service.is_firewall() => Some(lifetime_s.min(PINHOLE_LEASE_MAX)),
        (true, ServiceType::WanIpConnection2) => Some(LEASE_MAX_V2),
        (true, _) => None,
        (false, _) => Some(lifetime_s),
    };
    given.lifetime = lifetime.map(|seconds| Duration::from_secs(seconds.into()));
    given
}

fn leads_to(entry: &crate::wire::upnp::soap::MappingEntry, grant: &Grant) -> bool {
    let ours = entry.internal_client.is_none_or(|client| client == grant.internal.ip);
    ours && entry.internal_port == grant.internal.port
}

fn other_port() -> Fault {
    Fault { reason: MappingReason::Conflict, remedy: Remedy::OtherPort }
}

/// It answered what makes no sense.
fn nonsense(what: What) -> Said {
    let protocol = MappingProtocol::Upnp;
    let reason = MappingReason::Faulty { protocol, code: 0 };
    match what {
        What::Add(serial) => {
            Said::Failed(serial, Fault { reason, remedy: Remedy::HoldOff(HOLD_OFF_MIN) })
        }
        What::Delete(serial) => Said::Released(serial),
        What::Whose(serial) => Said::Failed(serial, other_port()),
        What::External => Said::External(None),
        What::Describe | What::Look(_) | What::Clear(_) => Said::Nothing,
    }
}

/// It was refused, and says why.
fn fault(
    what: What,
    responder: &mut Responder,
    grant: Option<&Grant>,
    UpnpError(code): UpnpError,
) -> Said {
    let serial = match what {
        What::Add(serial) => serial,
        What::Look(serial) if matches!(code, 714 | 704) => return Said::Forgotten(serial),
        What::Whose(serial) => return Said::Failed(serial, other_port()),
        // Not there, or not ours to take away.
        What::Delete(serial) => return Said::Released(serial),
        What::External => return Said::External(None),
        What::Describe | What::Look(_) | What::Clear(_) => return Said::Nothing,
    };
    let Some(grant) = grant else { return Said::Nothing };
    let protocol = MappingProtocol::Upnp;
    let hold_off =
        |reason, span| Said::Failed(serial, Fault { reason, remedy: Remedy::HoldOff(span) });
    let refused = MappingReason::Refused { protocol, code };
    let exhausted = MappingReason::Exhausted { protocol, code };
    let faulty = MappingReason::Faulty { protocol, code };
    if grant.internal.ip.is_ipv6() {
        return match code {
            704 => Said::Forgotten(serial),
            701 => hold_off(exhausted, HOLD_OFF_MIN),
            501 => hold_off(faulty, HOLD_OFF_MIN),
            _ => hold_off(refused, HOLD_OFF_MAX),
        };
    }
    match code {
        // Only what never ends; or a lease that it does not like, which may be the same.
        725 | 402 if !responder.is_permanent => {
            responder.is_permanent = true;
            Said::Nothing
        }
        402 => {
            responder.is_permanent = false;
            hold_off(exhausted, HOLD_OFF_MIN)
        }
        401 | 404 => {
            if responder.turns() {
                Said::Nothing
            } else {
                hold_off(faulty, HOLD_OFF_MAX)
            }
        }
        // Of two connections only one may be up.
        501 if responder.turns() => Said::Nothing,
        501 if !responder.is_retried => {
            responder.is_retried = true;
            responder.state = State::Found;
            Said::Nothing
        }
        501 => hold_off(faulty, HOLD_OFF_MIN),
        718 => Said::Next(What::Whose(serial)),
        729 => Said::Failed(serial, other_port()),
        724 if grant.external_port != grant.internal.port => Said::Failed(
            serial,
            Fault { reason: MappingReason::Conflict, remedy: Remedy::SamePort },
        ),
        728 => hold_off(exhausted, HOLD_OFF_MIN),
        606 => hold_off(refused, HOLD_OFF_MAX),
        _ => hold_off(faulty, HOLD_OFF_MAX),
    }
}

saved!(struct Call { fetch, what, location, until });
saved!(enum What {
    1 = Describe,
    2 = External,
    3 = Add(serial),
    4 = Look(serial),
    5 = Whose(serial),
    6 = Clear(serial),
    7 = Delete(serial),
});
