//! What the bytes of an input say: small numbers, and picks out of what there is.

use portolan_core::{Addr, Transport};
use std::net::IpAddr;

/// IPs that the stories are about. The first three are our own; global addresses of different
/// networks follow, with two neighbours among them, and what is no address to be reached at.
const IPS: [[u8; 4]; 16] = [
    [10, 0, 0, 2],
    [44, 0, 0, 2],
    [192, 168, 1, 2],
    [44, 0, 1, 1],
    [44, 0, 1, 9],
    [44, 1, 2, 3],
    [45, 2, 3, 4],
    [46, 3, 4, 5],
    [47, 4, 5, 6],
    [48, 5, 6, 7],
    [49, 6, 7, 8],
    [127, 0, 0, 1],
    [169, 254, 0, 1],
    [224, 0, 0, 1],
    [0, 0, 0, 0],
    [192, 0, 2, 1],
];

/// The rest of an input. Behind its end everything is zero.
#[derive(Clone, Debug)]
pub(super) struct Facts<'a>(pub(super) &'a [u8]);

impl<'a> Facts<'a> {
    /// Whether there is anything left.
    pub(super) fn are_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *byte
    }

    /// Whether the next byte is odd.
    pub(super) fn flag(&mut self) -> bool {
        self.byte() & 1 != 0
    }

    /// A number below `n`, which is at most 256; 0 when `n` is 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()).checked_rem(n).unwrap_or(0)
    }

    /// One of them; `None` if there is none. Counted from the newest, so that small bytes go on
    /// with what was begun just now.
    pub(super) fn pick<T: Clone>(&mut self, all: impl DoubleEndedIterator<Item = T>) -> Option<T> {
        let all: Vec<T> = all.rev().take(256).collect();
        let at = self.below(all.len());
        all.get(at).cloned()
    }

    /// The next bytes, as many as the one before them says.
    pub(super) fn blob(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte()).min(self.0.len());
        let (blob, rest) = self.0.split_at(len);
        self.0 = rest;
        blob
    }

    pub(super) fn ip(&mut self) -> IpAddr {
        let byte = self.byte();
        let ip = IpAddr::from(IPS[usize::from(byte & 15)]);
        match (byte >> 4, ip) {
            // One in four is IPv6: global, mapped, or of a single link.
            (12 | 13, _) => {
                IpAddr::from([0x2a01, 0, u16::from(byte & 7), 0, 0, 0, 0, u16::from(byte & 1) + 1])
            }
            (14, IpAddr::V4(ip)) => IpAddr::V6(ip.to_ipv6_mapped()),
            (15, _) => IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, u16::from(byte & 3)]),
            (_, ip) => ip,
        }
    }

    /// An address: an IP, and one of few ports. Built by hand now and then, as no constructor
    /// would let it through.
    pub(super) fn addr(&mut self) -> Addr {
        let ip = self.ip();
        let byte = self.byte();
        let port = [4_001, 4_001, 4_001, 4_002, 50_000, 50_001, 1, 0][usize::from(byte & 7)];
        let transport = if byte & 8 == 0 { Transport::Tcp } else { Transport::Quic };
        match byte >> 4 {
            15 => Addr { ip, port, transport },
            _ => Addr::new(ip, port, transport),
        }
    }
}
