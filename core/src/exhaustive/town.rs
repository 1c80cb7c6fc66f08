//! The world around a service that is explored.

use crate::service::{Caller, View};
use crate::{Addr, Class, ConnId, PeerId};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;

/// What is seen of the rest: the two requesters, as far as they are here.
#[derive(Clone, Default)]
pub(super) struct Town {
    pub(super) callers: BTreeMap<ConnId, Caller>,
}

impl View for Town {
    fn caller(&self, conn: ConnId) -> Option<Caller> {
        self.callers.get(&conn).copied()
    }
    fn listens_on(&self, _: Addr) -> bool {
        false
    }
    fn is_own_ip(&self, _: IpAddr) -> bool {
        false
    }
    fn can_dial(&self, _: Addr) -> bool {
        true
    }
    fn heard(&self, _: Class) -> bool {
        true
    }
    fn advertised(&self, _: &Caller) -> Vec<Addr> {
        Vec::new()
    }
    fn proven(&self) -> Vec<Addr> {
        Vec::new()
    }
    fn direct(&self, _: PeerId) -> Vec<ConnId> {
        Vec::new()
    }
    fn may_serve(&self) -> bool {
        true
    }
    fn pushable(&self) -> Vec<ConnId> {
        Vec::new()
    }
    fn revision(&self) -> u64 {
        0
    }
}
