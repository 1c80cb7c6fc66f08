//! What outlives the process: who has granted what, and the secrets that take it back.

use super::grant::{Grant, Stage};
use super::serves;
use crate::words::checkpoint::saved;
use crate::words::config::MAPPINGS_MAX;
use crate::{Addr, Gateway, Instant, MappingProtocol, Transport, UnixTime};
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use prost::Message as _;

/// The layout of the bytes.
const VERSION: u32 = 1;
/// Entries, number; ours: as many as can be wanted, in two networks. When full, those that are
/// forgotten soonest by their router are left out.
pub(super) const ENTRIES_MAX: usize = 2 * MAPPINGS_MAX;
/// Bytes of a ledger that are looked at, number; ours: an entry has less than 128.
const BYTES_MAX: usize = 128 * ENTRIES_MAX;

/// One mapping that a router may still have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) protocol: MappingProtocol,
    pub(super) router: IpAddr,
    pub(super) internal: Addr,
    pub(super) external_ip: Option<IpAddr>,
    pub(super) external_port: u16,
    pub(super) nonce: [u8; 12],
    pub(super) pinhole: Option<u16>,
    /// When the router has forgotten it; `None` is never.
    pub(super) until: Option<UnixTime>,
}

/// Bytes that are no ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadLedger;

/// `portolan.ledger.Ledger`
#[derive(Clone, PartialEq, prost::Message)]
struct LedgerMessage {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(message, repeated, tag = "2")]
    entries: Vec<EntryMessage>,
}

/// `portolan.ledger.Entry`
#[derive(Clone, PartialEq, prost::Message)]
struct EntryMessage {
    /// 1 PCP, 2 NAT-PMP, 3 UPnP.
    #[prost(uint32, tag = "1")]
    protocol: u32,
    #[prost(bytes = "bytes", tag = "2")]
    router: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    internal_ip: Bytes,
    #[prost(uint32, tag = "4")]
    internal_port: u32,
    /// Whether it is a UDP port.
    #[prost(bool, tag = "5")]
    udp: bool,
    #[prost(bytes = "bytes", tag = "6")]
    external_ip: Bytes,
    #[prost(uint32, tag = "7")]
    external_port: u32,
    #[prost(bytes = "bytes", tag = "8")]
    nonce: Bytes,
    #[prost(uint32, optional, tag = "9")]
    pinhole: Option<u32>,
    /// Milliseconds since 1970-01-01 UTC; absent for a mapping without an end.
    #[prost(uint64, optional, tag = "10")]
    until_ms: Option<u64>,
}

impl Entry {
    /// What is to be remembered of a mapping.
    pub(super) fn of(grant: &Grant) -> Entry {
        Entry {
            protocol: grant.protocol,
            router: grant.router,
            internal: grant.internal,
            external_ip: grant.external_ip,
            external_port: grant.external_port,
            nonce: grant.nonce,
            pinhole: grant.pinhole,
            until: grant.forgotten,
        }
    }

    /// The mapping, in a run that knows it from the ledger alone.
    pub(super) fn grant(&self, stage: Stage, until: Option<Instant>) -> Grant {
        Grant {
            internal: self.internal,
            router: self.router,
            protocol: self.protocol,
            external_ip: self.external_ip,
            external_port: self.external_port,
            nonce: self.nonce,
            pinhole: self.pinhole,
            stage,
            until,
            forgotten: self.until,
        }
    }

    /// Whether this gateway leads from its address of ours to its router.
    pub(super) fn is_of(&self, gateway: &Gateway) -> bool {
        self.router == gateway.router && serves(gateway, self.internal.ip)
    }

    /// Whether its router has forgotten it.
    pub(super) fn is_over(&self, unix: UnixTime) -> bool {
        self.until.is_some_and(|until| until <= unix)
    }
}

/// The entries that are stored, in the order in which they are.
pub(super) fn kept(entries: impl Iterator<Item = Entry>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = entries.collect();
    // What never ends is kept first: nobody but us will ever delete it.
    entries.sort_by_key(|entry| {
        (entry.until.is_some(), core::cmp::Reverse(entry.until), entry.internal, entry.protocol)
    });
    entries.truncate(ENTRIES_MAX);
    entries
}

/// The entries as bytes; the same entries give the same bytes.
pub(super) fn encode(entries: impl IntoIterator<Item = Entry>) -> Bytes {
    let entries = entries.into_iter().map(EntryMessage::from).collect();
    LedgerMessage { version: VERSION, entries }.encode_to_vec().into()
}

/// The entries in these bytes, those that make no sense left out.
pub(super) fn decode(bytes: Bytes) -> Result<Vec<Entry>, BadLedger> {
    if bytes.len() > BYTES_MAX {
        return Err(BadLedger);
    }
    let ledger = LedgerMessage::decode(bytes).map_err(|_| BadLedger)?;
    if ledger.version != VERSION {
        return Err(BadLedger);
    }
    let entries = ledger.entries.into_iter().filter_map(|entry| Entry::try_from(entry).ok());
    Ok(entries.take(ENTRIES_MAX).collect())
}

/// The same ledger with other IPs; what cannot be read stays as it is.
pub(crate) fn redacted(bytes: &Bytes, mut exchange: impl FnMut(IpAddr) -> IpAddr) -> Bytes {
    let Ok(entries) = decode(bytes.clone()) else { return bytes.clone() };
    encode(kept(entries.into_iter().map(|entry| Entry {
        router: exchange(entry.router),
        internal: Addr { ip: exchange(entry.internal.ip), ..entry.internal },
        external_ip: entry.external_ip.map(&mut exchange),
        ..entry
    })))
}

impl From<Entry> for EntryMessage {
    fn from(entry: Entry) -> EntryMessage {
        let protocol = match entry.protocol {
            MappingProtocol::Pcp => 1,
            MappingProtocol::NatPmp => 2,
            MappingProtocol::Upnp => 3,
        };
        EntryMessage {
            protocol,
            router: octets(entry.router),
            internal_ip: octets(entry.internal.ip),
            internal_port: entry.internal.port.into(),
            udp: entry.internal.transport == Transport::Quic,
            external_ip: entry.external_ip.map(octets).unwrap_or_default(),
            external_port: entry.external_port.into(),
            nonce: Bytes::copy_from_slice(&entry.nonce),
            pinhole: entry.pinhole.map(u32::from),
            until_ms: entry.until.map(UnixTime::as_millis),
        }
    }
}

impl TryFrom<EntryMessage> for Entry {
    type Error = BadLedger;

    fn try_from(message: EntryMessage) -> Result<Entry, BadLedger> {
        let protocol = match message.protocol {
            1 => MappingProtocol::Pcp,
            2 => MappingProtocol::NatPmp,
            3 => MappingProtocol::Upnp,
            _ => return Err(BadLedger),
        };
        let port = |number: u32| u16::try_from(number).map_err(|_| BadLedger);
        let transport = if message.udp { Transport::Quic } else { Transport::Tcp };
        let internal_port = port(message.internal_port)?;
        if internal_port == 0 {
            // To a NAT-PMP gateway, all of our ports.
            return Err(BadLedger);
        }
        let external_ip =
            if message.external_ip.is_empty() { None } else { Some(ip(&message.external_ip)?) };
        Ok(Entry {
            protocol,
            router: ip(&message.router)?,
            internal: Addr::new(ip(&message.internal_ip)?, internal_port, transport),
            external_ip,
            external_port: port(message.external_port)?,
            nonce: (*message.nonce).try_into().map_err(|_| BadLedger)?,
            pinhole: message.pinhole.map(port).transpose()?,
            until: message.until_ms.map(UnixTime::from_millis),
        })
    }
}

fn octets(ip: IpAddr) -> Bytes {
    match ip {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    }
}

fn ip(bytes: &[u8]) -> Result<IpAddr, BadLedger> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Ok(Ipv4Addr::from(octets).into());
    }
    let octets = <[u8; 16]>::try_from(bytes).map_err(|_| BadLedger)?;
    Ok(Ipv6Addr::from(octets).into())
}

saved!(struct Entry {
    protocol, router, internal, external_ip, external_port, nonce, pinhole, until,
});

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn entry(port: u16, until: Option<u64>) -> Entry {
        Entry {
            protocol: MappingProtocol::Pcp,
            router: [192, 168, 1, 1].into(),
            internal: Addr::quic([192, 168, 1, 7].into(), port),
            external_ip: Some([44, 1, 2, 3].into()),
            external_port: port + 1,
            nonce: [7; 12],
            pinhole: None,
            until: until.map(UnixTime::from_millis),
        }
    }

    #[test]
    fn a_ledger_comes_back_and_nonsense_does_not() {
        let v6 = Entry {
            protocol: MappingProtocol::Upnp,
            router: IpAddr::V6(Ipv6Addr::LOCALHOST),
            external_ip: None,
            pinhole: Some(9),
            ..entry(4_001, None)
        };
        let entries = [v6, entry(1, Some(5)), entry(2, Some(3))];
        let bytes = encode(entries);
        assert_eq!(decode(bytes.clone()), Ok(entries.to_vec()));
        let other = [entry(2, Some(3)), v6, entry(1, Some(5))];
        assert_eq!(encode(kept(other.into_iter())), bytes);

        assert_eq!(decode(Bytes::from_static(b"\x08\x02")), Err(BadLedger), "another version");
        assert_eq!(decode(bytes.slice(..bytes.len() - 1)), Err(BadLedger));
        assert_eq!(decode(vec![0; BYTES_MAX + 1].into()), Err(BadLedger));
        let mut zero = EntryMessage::from(entry(1, None));
        zero.internal_port = 0;
        assert_eq!(Entry::try_from(zero), Err(BadLedger));
    }

    #[test]
    fn the_longest_lived_are_kept() {
        let entries = (0..100).map(|n| entry(n + 1, Some(u64::from(n)))).chain([entry(999, None)]);
        let kept = decode(encode(kept(entries))).expect("a ledger");
        assert_eq!(kept.len(), ENTRIES_MAX);
        assert_eq!(kept[0].internal.port, 999);
        assert!(kept.iter().skip(1).all(|entry| entry.internal.port > 37));
    }
}
