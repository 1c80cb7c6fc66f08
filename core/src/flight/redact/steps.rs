//! Heads and events with others in them.

use super::frames::Refused;
use super::others::Retell;
use super::{frames, mapping, relay as relays};
use crate::flight::{Head, checkpoint};
use crate::{Addr, Agent, Config, Connected, DialBackConfig, Event, MappingConfig};

/// A head, and in its checkpoint the agent that it begins with.
pub(super) fn head(head: &Head, agent: &Agent, by: &mut impl Retell) -> Head {
    let Head { software, config, identity, part, now, unix, checkpoint } = head;
    Head {
        software: by.text(software),
        config: configured(config, by),
        identity: by.key(identity),
        part: *part,
        now: *now,
        unix: *unix,
        checkpoint: checkpoint.as_ref().map(|_| checkpoint::exchanged(agent, by)),
    }
}

fn configured(config: &Config, by: &mut impl Retell) -> Config {
    let Config {
        agent_version,
        protocol_version,
        protocols,
        allow_private,
        identify,
        ping_interval,
        addrs_per_request,
        external,
        force_node,
        force_class,
        dial_back,
        mapping,
        relay,
        relay_server,
        punch,
        hearsay,
    } = config;
    Config {
        agent_version: by.text(agent_version),
        protocol_version: by.text(protocol_version),
        protocols: protocols.iter().map(|name| by.text(name)).collect(),
        allow_private: *allow_private,
        identify: *identify,
        ping_interval: *ping_interval,
        addrs_per_request: *addrs_per_request,
        external: external.iter().map(|one| addr(*one, by)).collect(),
        force_node: *force_node,
        force_class: force_class.clone(),
        dial_back: dial_back.as_ref().map(|limits| DialBackConfig {
            sources: limits.sources.iter().map(|ip| by.ip(*ip)).collect(),
            ..limits.clone()
        }),
        mapping: mapping.as_ref().map(|asked| MappingConfig {
            description: by.text(&asked.description),
            ..asked.clone()
        }),
        relay: relay.as_ref().map(|wanted| relays::used(wanted, by)),
        relay_server: relay_server.as_ref().map(|offered| relays::offered(offered, by)),
        punch: punch.clone(),
        hearsay: *hearsay,
    }
}

/// An event. `bad` says what core refused in it.
pub(super) fn event(event: &Event, bad: Refused, by: &mut impl Retell) -> Event {
    match event {
        Event::ListenerOpened { listener, addr: bound } => {
            Event::ListenerOpened { listener: *listener, addr: addr(*bound, by) }
        }
        Event::InterfacesChanged { ips } => {
            Event::InterfacesChanged { ips: ips.iter().map(|ip| by.ip(*ip)).collect() }
        }
        Event::Contacted { ip } => Event::Contacted { ip: by.ip(*ip) },
        Event::Introduced { peer, source } => {
            Event::Introduced { peer: by.peer(*peer), source: *source }
        }
        Event::Connected(facts) => Event::Connected(Connected {
            peer: by.peer(facts.peer),
            local: addr(facts.local, by),
            remote: addr(facts.remote, by),
            ..facts.clone()
        }),
        Event::Frame { stream, body } => {
            Event::Frame { stream: *stream, body: frames::body(*stream, body, bad, by) }
        }
        Event::DialFailureReported { addr: dialled } => {
            Event::DialFailureReported { addr: addr(*dialled, by) }
        }
        Event::Observed { conn, observed } => {
            Event::Observed { conn: *conn, observed: addr(*observed, by) }
        }
        Event::Mapping(event) => Event::Mapping(mapping::event(event, by)),
        Event::Relay(event) => Event::Relay(relays::event(event, by)),
        Event::Tick
        | Event::Resumed { .. }
        | Event::ListenerClosed { .. }
        | Event::Disconnected { .. }
        | Event::DialFailed { .. }
        | Event::StreamOpened { .. }
        | Event::StreamFailed { .. }
        | Event::StreamClosed { .. }
        | Event::ProtocolsListed { .. }
        | Event::Punch(_) => event.clone(),
    }
}

pub(super) fn addr(addr: Addr, by: &mut impl Retell) -> Addr {
    Addr { ip: by.ip(addr.ip), ..addr }
}
