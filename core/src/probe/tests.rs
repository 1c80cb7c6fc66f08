//! What a checkpoint of the room may hold.

use super::*;
use crate::words::checkpoint::reloaded;
use crate::{Group, Protocol};
use alloc::vec;
use core::net::Ipv4Addr;

#[test]
fn a_checkpoint_keeps_to_the_limits() {
    let addr = Addr::tcp(Ipv4Addr::new(44, 0, 0, 1).into(), 4001);
    let server = (PeerId::random(), Group::prefix(addr.ip), ConnId(1));
    let exchange = Exchange::new(Instant::ZERO, server, vec![addr], false, None);
    let asking = |count: usize| {
        let streams = (1..).map(|number| StreamId::outbound(Protocol::DialRequest, number));
        let exchanges = streams.take(count).map(|stream| (stream, exchange.clone())).collect();
        Probe { exchanges, ..Probe::new(false, 1) }
    };
    let loaded = reloaded(&asking(PROBES_MAX)).expect("within the limits");
    assert_eq!(loaded.exchanges, asking(PROBES_MAX).exchanges);
    assert!(reloaded(&asking(PROBES_MAX + 1)).is_err());
    assert!(reloaded(&Probe { asked: u64::MAX, ..asking(0) }).is_err());
}
