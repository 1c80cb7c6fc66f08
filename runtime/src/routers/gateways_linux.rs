//! Gateways as Linux tells them, over netlink: the routing tables of the network namespace that
//! the caller is in, and when they change.

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHopFlags, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::libc;
use nix::sys::socket::{
    self, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, connect, recv, send,
};
use portolan_core::Gateway;
use std::io;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

/// Room for one answer, bytes; the kernel's own limit is half of it.
const ANSWER_MAX: usize = 64 << 10;
/// Answers to one question, number; ours: some ten thousand routes. Each table begins with its
/// default routes, so that what is left unread of a longer one is not missed.
const ANSWERS_MAX: usize = 32;
/// The tables that are for all traffic, RT_TABLE_DEFAULT and RT_TABLE_MAIN; what is in others is
/// for traffic that somebody picked out.
const TABLES: [u32; 2] = [253, 254];
/// Any address of the world, 2000::/3: the host sends there from where it sends to all of it.
const WORLD: Ipv6Addr = Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0);

/// The routers of all default routes, by family and then by metric.
pub(super) fn read() -> io::Result<Vec<Gateway>> {
    let mut gateways = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut hops = default_hops(family)?;
        // Among equals the order is the kernel's.
        hops.sort_by_key(|hop| hop.metric);
        for Hop { router, interface, source, .. } in hops {
            let Some(source) = source.or_else(|| source_of(router, interface)) else {
                tracing::debug!(%router, interface, "no address of ours leads to the gateway");
                continue;
            };
            let gateway = Gateway { router, interface, source };
            if !gateways.contains(&gateway) {
                gateways.push(gateway);
            }
        }
    }
    Ok(gateways)
}

/// A socket that has something to read whenever interfaces and addresses change, and routes if
/// they count. It is one of netlink, which is watched and read as one of UDP is.
pub(super) fn changes(routes: bool) -> io::Result<UdpSocket> {
    let mut groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
    if routes {
        groups |= libc::RTMGRP_IPV4_ROUTE | libc::RTMGRP_IPV6_ROUTE;
    }
    Ok(open(groups.cast_unsigned())?.into())
}

/// Take out every change that is there. What was lost for want of room is a change as well.
pub(super) fn drain(socket: &UdpSocket) -> io::Result<()> {
    let mut any = false;
    loop {
        match socket.recv(&mut [0; 16]) {
            Ok(_) => any = true,
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => any = true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && any => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// One way out.
struct Hop {
    metric: u32,
    router: IpAddr,
    interface: u32,
    /// The source that the route names.
    source: Option<IpAddr>,
}

fn open(groups: u32) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (family, protocol) = (socket::AddressFamily::Netlink, SockProtocol::NetlinkRoute);
    let socket = socket::socket(family, SockType::Raw, flags, protocol)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    // From here on nobody but the kernel is heard.
    connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(socket)
}

fn default_hops(family: AddressFamily) -> io::Result<Vec<Hop>> {
    let mut question = RouteMessage::default();
    question.header.address_family = family;
    let mut hops = Vec::new();
    ask(question, NLM_F_DUMP, |route| {
        let header = &route.header;
        let is_default = header.destination_prefix_length == 0 && header.kind == RouteType::Unicast;
        if is_default && header.address_family == family {
            hops.extend(hops_of(&route));
        }
    })?;
    Ok(hops)
}

/// The routers that a route names, if it is for all traffic and in use.
fn hops_of(route: &RouteMessage) -> Vec<Hop> {
    let attributes = &route.attributes;
    let metric = attributes.iter().find_map(priority).unwrap_or_default();
    let source = attributes.iter().find_map(preferred_source);
    let table = attributes.iter().find_map(table).unwrap_or(route.header.table.into());
    if !TABLES.contains(&table)
        || route.header.flags.intersects(RouteFlags::Dead | RouteFlags::Linkdown)
    {
        return Vec::new();
    }
    let one = |attributes: &[RouteAttribute], interface: Option<u32>| {
        let router = attributes.iter().find_map(gateway)?;
        let interface = interface.or_else(|| attributes.iter().find_map(outgoing))?;
        Some(Hop { metric, router, interface, source })
    };
    let mut hops: Vec<Hop> = one(attributes, None).into_iter().collect();
    for attribute in attributes {
        let RouteAttribute::MultiPath(several) = attribute else { continue };
        let down = RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown;
        let up = several.iter().filter(|hop| !hop.flags.intersects(down));
        hops.extend(up.filter_map(|hop| one(&hop.attributes, Some(hop.interface_index))));
    }
    hops
}

fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    if let RouteAttribute::Gateway(address) = attribute { ip(address) } else { None }
}

fn outgoing(attribute: &RouteAttribute) -> Option<u32> {
    if let RouteAttribute::Oif(interface) = attribute { Some(*interface) } else { None }
}

fn priority(attribute: &RouteAttribute) -> Option<u32> {
    if let RouteAttribute::Priority(priority) = attribute { Some(*priority) } else { None }
}

fn table(attribute: &RouteAttribute) -> Option<u32> {
    if let RouteAttribute::Table(table) = attribute { Some(*table) } else { None }
}

fn preferred_source(attribute: &RouteAttribute) -> Option<IpAddr> {
    if let RouteAttribute::PrefSource(address) = attribute { ip(address) } else { None }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(four) => Some((*four).into()),
        RouteAddress::Inet6(six) => Some((*six).into()),
        RouteAddress::Mpls(_) | RouteAddress::Other(_) | _ => None,
    }
}

/// The address from which the kernel sends that way.
fn source_of(router: IpAddr, interface: u32) -> Option<IpAddr> {
    let (family, length, to) = match router {
        IpAddr::V4(_) => (AddressFamily::Inet, 32, router),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128, WORLD.into()),
    };
    let mut question = RouteMessage::default();
    question.header.address_family = family;
    question.header.destination_prefix_length = length;
    question.attributes.push(RouteAttribute::Destination(to.into()));
    question.attributes.push(RouteAttribute::Oif(interface));
    let mut source = None;
    let asked = ask(question, 0, |route| {
        source = route.attributes.iter().find_map(preferred_source);
    });
    if let Err(error) = asked {
        tracing::debug!(%router, interface, %error, "the system knows no way to the gateway");
    }
    source
}

/// Ask about routes, and look at each that is told. The kernel answers before it returns from
/// being asked, so that nothing is waited for.
fn ask(question: RouteMessage, flags: u16, mut look: impl FnMut(RouteMessage)) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let payload = NetlinkPayload::from(RouteNetlinkMessage::GetRoute(question));
    let mut message = NetlinkMessage::new(header, payload);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    // What is left unread of an answer goes with its socket.
    let socket = open(0)?;
    send(socket.as_raw_fd(), &bytes, MsgFlags::empty())?;

    let mut answer = vec![0; ANSWER_MAX];
    for _ in 0..ANSWERS_MAX {
        let count = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        let mut rest = answer.get(..count).unwrap_or_default();
        while let Some((message, behind)) = cut(rest) {
            rest = behind;
            let Ok(NetlinkMessage { payload, .. }) = NetlinkMessage::deserialize(message) else {
                // A route of a kind that is not known is none of ours.
                continue;
            };
            match payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => look(route),
                NetlinkPayload::InnerMessage(_)
                | NetlinkPayload::Error(_)
                | NetlinkPayload::Noop
                | NetlinkPayload::Overrun(_)
                | _ => {}
            }
        }
        if flags & NLM_F_DUMP == 0 {
            // To a question about one route there is one answer.
            break;
        }
    }
    Ok(())
}

/// The first message, and what comes behind it.
fn cut(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?);
    let length = usize::try_from(length).ok()?;
    let message = bytes.get(..length).filter(|_| length >= 16)?;
    Some((message, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}
