//! What travels: as much of a packet as NATs, firewalls and links look at.

use portolan_core::{Addr, Family};

/// What a packet is, in so far as it matters on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PacketKind {
    /// A TCP SYN, or a QUIC client's Initial.
    Open,
    /// A SYN-ACK, or a QUIC server's first flight.
    Accept,
    /// Anything later on a connection.
    Data,
    /// A TCP RST, or an ICMP port unreachable.
    Refuse,
}

impl PacketKind {
    /// The word in scenarios and transcripts.
    pub const fn name(self) -> &'static str {
        match self {
            PacketKind::Open => "open",
            PacketKind::Accept => "accept",
            PacketKind::Data => "data",
            PacketKind::Refuse => "refuse",
        }
    }
}

/// One packet, or several that leave together and share their fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where it comes from, as the one sees it who looks.
    pub src: Addr,
    /// Where it goes to.
    pub dst: Addr,
    /// What it is.
    pub kind: PacketKind,
    /// Its size on the wire with headers, bytes, all packets together.
    pub bytes: u32,
    /// How many packets it stands for.
    pub count: u32,
}

/// Bytes of payload in one packet; ours: an Ethernet frame without the headers of IP and TCP.
const SEGMENT_BYTES: u32 = 1_400;
/// Headers of IP and TCP, or of IP, UDP and QUIC, bytes; ours: about as much for both.
const HEADER_BYTES: u32 = 52;
/// An acknowledgement on the wire, bytes.
pub const ACKNOWLEDGEMENT_BYTES: u32 = HEADER_BYTES;
/// A QUIC Initial is padded to this much (RFC 9000 §14.1: 1,200 bytes), without IP and UDP.
const INITIAL_BYTES: u32 = 1_200;

impl Packet {
    /// A packet without payload, or an Initial with its padding.
    pub fn bare(src: Addr, dst: Addr, kind: PacketKind) -> Packet {
        let padded = matches!(kind, PacketKind::Open | PacketKind::Accept);
        let quic = src.transport == portolan_core::Transport::Quic;
        let payload = if padded && quic { INITIAL_BYTES } else { 0 };
        Packet { src, dst, kind, bytes: payload + HEADER_BYTES, count: 1 }
    }

    /// As many packets as `payload` bytes take.
    pub fn carrying(src: Addr, dst: Addr, payload: usize) -> Packet {
        let payload = u32::try_from(payload).unwrap_or(u32::MAX / 2);
        let count = payload.div_ceil(SEGMENT_BYTES).max(1);
        let bytes = payload.saturating_add(count.saturating_mul(HEADER_BYTES));
        Packet { src, dst, kind: PacketKind::Data, bytes, count }
    }

    /// The largest of its packets, bytes.
    pub fn largest(&self) -> u32 {
        if self.count > 1 { SEGMENT_BYTES + HEADER_BYTES } else { self.bytes }
    }

    /// Its IP family.
    pub fn family(&self) -> Family {
        Family::of(self.dst.ip)
    }

    /// The refusal that answers it.
    pub fn refusal(&self) -> Packet {
        Packet::bare(self.dst, self.src, PacketKind::Refuse)
    }
}
