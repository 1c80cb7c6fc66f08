//! Gateways as `netdev` finds them. Nobody tells of changes: whoever wants to know reads again.

use netdev::Interface;
use portolan_core::Gateway;
use std::io;
use std::net::{IpAddr, UdpSocket};

/// The router of each interface that has one, that of the default route first.
pub(super) fn read() -> io::Result<Vec<Gateway>> {
    let mut interfaces = netdev::get_interfaces();
    interfaces.sort_by_key(|interface| !interface.default);
    Ok(interfaces.iter().flat_map(gateways_of).collect())
}

pub(super) fn changes(_: bool) -> io::Result<UdpSocket> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(super) fn drain(_: &UdpSocket) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn gateways_of(interface: &Interface) -> Vec<Gateway> {
    let Some(device) = &interface.gateway else { return Vec::new() };
    let four = device.ipv4.iter().filter_map(|router| {
        // An address of the router's own network, where there is one.
        let near = interface.ipv4.iter().find(|net| net.contains(router));
        Some((IpAddr::from(*router), near.or_else(|| interface.ipv4.first())?.addr().into()))
    });
    let six = device.ipv6.iter().filter_map(|router| {
        let global = interface.ipv6.iter().find(|net| !net.addr().is_unicast_link_local());
        Some((IpAddr::from(*router), global.or_else(|| interface.ipv6.first())?.addr().into()))
    });
    let gateway = |(router, source)| Gateway { router, interface: interface.index, source };
    four.chain(six).map(gateway).collect()
}
