//! A host beside a router: its sockets, and whom it asked. What the runtime does for a node.

use super::{HttpReply, Output, Requests, Router, SSDP_PORT};
use bytes::Bytes;
use portolan_core::wire::upnp::HttpUrl;
use portolan_core::wire::upnp::http::{self, HttpResponse, ResponseReader};
use portolan_core::{Channel, Duration, Fetch, FetchFailure, Instant, MappingEvent};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// The number of a host's interface.
pub const INTERFACE: u32 = 2;
/// Time between a host and its router.
pub const LAN_LATENCY: Duration = Duration::from_millis(1);
/// The first port of a host's sockets.
const EPHEMERAL_MIN: u16 = 40_000;

/// The sockets towards routers that a host has open, and whom it asked by them.
#[derive(Clone, Debug, Default)]
pub struct Sockets {
    open: BTreeMap<Channel, SocketAddr>,
    /// Sockets that were opened, number.
    opened: u16,
    /// Whoever has answered a search.
    responders: BTreeSet<IpAddr>,
    requests: Requests,
    fault: Option<String>,
}

impl Sockets {
    /// Everything that was asked.
    pub const fn requests(&self) -> &Requests {
        &self.requests
    }

    /// The first thing that a node ordered and must not.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// The process is gone, and its sockets with it. What it asked.
    pub fn vanish(&mut self) -> Requests {
        self.open.clear();
        std::mem::take(&mut self.requests)
    }

    /// A socket is opened.
    pub fn open(&mut self, channel: Channel) {
        let at = match channel {
            Channel::Client { source, .. } => {
                self.opened = (self.opened + 1) % (u16::MAX - EPHEMERAL_MIN);
                SocketAddr::new(source, EPHEMERAL_MIN + self.opened)
            }
            Channel::Group { group, .. } => group,
        };
        if self.open.insert(channel, at).is_some() {
            self.blame(format!("{channel} is opened twice"));
        }
    }

    /// A socket is closed.
    pub fn close(&mut self, channel: Channel) {
        if self.open.remove(&channel).is_none() {
            self.blame(format!("{channel} is closed although it is not open"));
        }
    }

    /// Whether a socket is open.
    pub fn has(&self, channel: Channel) -> bool {
        self.open.contains_key(&channel)
    }

    /// A datagram is sent: where from, if its socket is open.
    pub fn sends(
        &mut self,
        now: Instant,
        channel: Channel,
        to: SocketAddr,
        router: &Router,
    ) -> Option<SocketAddr> {
        let Some(from) = self.open.get(&channel).copied() else {
            self.blame(format!("{channel} sends although it is not open"));
            return None;
        };
        if matches!(channel, Channel::Group { .. }) {
            self.blame(format!("{channel} sends, although it is there to listen"));
        }
        self.asks(now, to, router);
        Some(from)
    }

    /// Somebody is asked: the router, a group, or whoever answered a search at its own address.
    pub fn asks(&mut self, now: Instant, to: SocketAddr, router: &Router) {
        self.requests.note(now, to);
        let ip = to.ip();
        let is_group = ip.is_multicast() && to.port() == SSDP_PORT;
        let known = is_group || router.ips().contains(&ip) || self.responders.contains(&ip);
        if !known {
            self.blame(format!("{to} is asked, which is neither the router nor a responder"));
        }
    }

    /// Somebody sends: which of the sockets hear what.
    pub fn hear(&mut self, output: &Output) -> Vec<(Channel, MappingEvent)> {
        let (from, to, body) = match output {
            Output::Datagram { from, to, body } | Output::Multicast { from, group: to, body } => {
                (scoped(*from), to, body)
            }
            Output::Refused { at, to } => {
                let channel = self.open.iter().find(|(_, one)| *one == to).map(|(one, _)| *one);
                let refused =
                    |channel| (channel, MappingEvent::DatagramRefused { channel, to: Some(*at) });
                return channel.map(refused).into_iter().collect();
            }
        };
        if body.starts_with(b"HTTP/1.1 200") {
            self.responders.insert(from.ip());
        }
        let hears = |at: &SocketAddr| {
            at.port() == to.port() && at.ip() == to.ip() && at.is_ipv4() == from.is_ipv4()
        };
        let channels = self.open.iter().filter(|(_, at)| hears(at)).map(|(channel, _)| *channel);
        let received = |channel| {
            (channel, MappingEvent::DatagramReceived { channel, from, body: body.clone() })
        };
        channels.map(received).collect()
    }

    fn blame(&mut self, fault: String) {
        self.fault.get_or_insert(fault);
    }
}

/// A router is asked by HTTP, in one segment, as the runtime writes it.
pub fn asked(router: &mut Router, now: Instant, fetch: &Fetch) -> HttpReply {
    let from = SocketAddr::new(fetch.source, EPHEMERAL_MIN);
    router.segments(now, from, fetch.to, &[&written(fetch)])
}

/// What the node is told of a reply, and after how long.
pub fn told(fetch: &Fetch, reply: &HttpReply) -> (Duration, MappingEvent) {
    let id = fetch.fetch;
    let failed = |reason| MappingEvent::FetchFailed { fetch: id, reason };
    match (reply, reply.bytes()) {
        (_, Some(bytes)) => match read(&bytes) {
            Some(HttpResponse { status, body, .. }) => {
                let body = body.into();
                (LAN_LATENCY * 3, MappingEvent::Fetched { fetch: id, status, body })
            }
            None => (LAN_LATENCY * 3, failed(FetchFailure::Malformed)),
        },
        (HttpReply::Hang, None) => (fetch.timeout, failed(FetchFailure::TimedOut)),
        (_, None) => (LAN_LATENCY, failed(FetchFailure::Refused)),
    }
}

/// The bytes of a request.
fn written(fetch: &Fetch) -> Bytes {
    let text = format!("http://{}{}", SocketAddr::new(fetch.to.ip(), fetch.to.port()), fetch.path);
    let url = HttpUrl::parse(&text).expect("core asks for what can be asked for");
    match &fetch.soap {
        None => http::get(&url, "sim/1"),
        Some(soap) => http::post(&url, "sim/1", &soap.action, &soap.body),
    }
}

/// The response in these bytes, if there is one.
fn read(bytes: &[u8]) -> Option<HttpResponse> {
    let mut reader = ResponseReader::default();
    reader.push(bytes).ok()?;
    reader.finish().ok()
}

/// An address of the link is told with its interface.
fn scoped(mut addr: SocketAddr) -> SocketAddr {
    if let SocketAddr::V6(six) = &mut addr
        && six.ip().is_unicast_link_local()
    {
        six.set_scope_id(INTERFACE);
    }
    addr
}
