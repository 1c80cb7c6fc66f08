//! Events about routers with others in them.
//!
//! Numbers stand at fixed places in what NAT-PMP and PCP send, and in texts wherever somebody
//! writes an IP: what UPnP sends is searched for all that reads as one. Groups that everybody joins
//! stay what they are (`ips.rs`).

use super::others::Retell;
use crate::{Channel, Gateway, MappingEvent};
use alloc::string::ToString;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The version in the first byte of a NAT-PMP message, RFC 6886 §3.1.
const NAT_PMP: u8 = 0;
/// The version in the first byte of a PCP message, RFC 6887 §7.1.
const PCP: u8 = 2;
/// The lowest first byte of a text: what HTTP allows at the start of a line. Versions are lower.
const TEXT_MIN: u8 = b'\t';
/// What stands for a datagram that is neither a version of anything nor a text.
const NOTHING: u8 = 0xff;

/// An event.
pub(super) fn event(event: &MappingEvent, by: &mut impl Retell) -> MappingEvent {
    match event {
        MappingEvent::GatewaysChanged { gateways } => MappingEvent::GatewaysChanged {
            gateways: gateways
                .iter()
                .map(|Gateway { router, interface, source }| Gateway {
                    router: by.ip(*router),
                    interface: *interface,
                    source: by.ip(*source),
                })
                .collect(),
        },
        MappingEvent::DatagramReceived { channel, from, body } => MappingEvent::DatagramReceived {
            channel: heard_on(*channel, by),
            from: socket(*from, by),
            body: datagram(body, by),
        },
        MappingEvent::DatagramRefused { channel, to } => MappingEvent::DatagramRefused {
            channel: heard_on(*channel, by),
            to: to.map(|to| socket(to, by)),
        },
        MappingEvent::Fetched { fetch, status, body } => {
            MappingEvent::Fetched { fetch: *fetch, status: *status, body: text(body, by) }
        }
        MappingEvent::LedgerRead { ledger } => {
            MappingEvent::LedgerRead { ledger: redacted_ledger(ledger, by) }
        }
        MappingEvent::FetchFailed { .. } | MappingEvent::Closing => event.clone(),
    }
}

fn heard_on(channel: Channel, by: &mut impl Retell) -> Channel {
    match channel {
        Channel::Client { source, interface } => {
            Channel::Client { source: by.ip(source), interface }
        }
        Channel::Group { group, source, interface } => {
            Channel::Group { group: socket(group, by), source: by.ip(source), interface }
        }
    }
}

fn socket(mut socket: SocketAddr, by: &mut impl Retell) -> SocketAddr {
    // An IPv6 address keeps its scope.
    socket.set_ip(by.ip(socket.ip()));
    socket
}

/// What an earlier run stored.
fn redacted_ledger(ledger: &Bytes, by: &mut impl Retell) -> Bytes {
    crate::mapping::redacted_ledger(ledger, |ip| by.ip(ip))
}

/// A datagram: of NAT-PMP, of PCP, of SSDP, or of nothing that core reads.
fn datagram(body: &Bytes, by: &mut impl Retell) -> Bytes {
    let mut bytes = body.to_vec();
    match body.first() {
        None => {}
        Some(&NAT_PMP) => nat_pmp(&mut bytes, by),
        Some(&PCP) => pcp(&mut bytes, by),
        // Another version: what it may mean to us, it says in its first words.
        Some(0..TEXT_MIN) => blank_from(&mut bytes, 8),
        Some(TEXT_MIN..0x80) => return text(body, by),
        Some(0x80..) => bytes.fill(NOTHING),
    }
    bytes.into()
}

fn nat_pmp(bytes: &mut [u8], by: &mut impl Retell) {
    // RFC 6886 §3.2: the answer about the external address, which is the only one that holds any.
    if bytes.get(1) == Some(&128) {
        exchange_ip4(bytes, 8, by);
    }
    // No message of NAT-PMP is longer.
    blank_from(bytes, 16);
}

fn pcp(bytes: &mut [u8], by: &mut impl Retell) {
    let opcode = bytes.get(1).copied().unwrap_or(0);
    // RFC 6887 §7.1: the client's address stands in requests only.
    if opcode < 0x80 {
        exchange_ip(bytes, 8, by);
    }
    // RFC 6887 §11.1 and §12.1: the external address, and that of the remote peer.
    let options = match opcode & 0x7f {
        0 => 24,
        1 => {
            exchange_ip(bytes, 44, by);
            60
        }
        2 => {
            exchange_ip(bytes, 44, by);
            exchange_ip(bytes, 64, by);
            80
        }
        _ => return blank_from(bytes, 24),
    };
    pcp_options(bytes, options, by);
}

/// RFC 6887 §7.3: a code, a byte that is reserved, a length, and so many bytes and then some until
/// there are four times as many.
fn pcp_options(bytes: &mut [u8], mut at: usize, by: &mut impl Retell) {
    while let Some(&[code, _, high, low]) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let (start, len) = (at + 4, usize::from(u16::from_be_bytes([high, low])));
        at = start + len.next_multiple_of(4);
        let end = at.min(bytes.len());
        let content = &mut bytes[start..end];
        match code {
            // RFC 6887 §13.1: whom it is for.
            1 => exchange_ip(content, 0, by),
            // RFC 6887 §13.3: behind a prefix and a port, who may send.
            3 => exchange_ip(content, 4, by),
            _ => content.fill(0),
        }
    }
}

fn blank_from(bytes: &mut [u8], at: usize) {
    if let Some(rest) = bytes.get_mut(at..) {
        rest.fill(0);
    }
}

fn exchange_ip4(bytes: &mut [u8], at: usize, by: &mut impl Retell) {
    let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>()) else {
        return;
    };
    if let IpAddr::V4(other) = by.ip(Ipv4Addr::from(*place).into()) {
        *place = other.octets();
    }
}

/// An IPv6 address, or an IPv4 address that is written as one (RFC 6887 §5).
fn exchange_ip(bytes: &mut [u8], at: usize, by: &mut impl Retell) {
    let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<16>()) else {
        return;
    };
    let ip = Ipv6Addr::from(*place);
    let other = match ip.to_ipv4_mapped() {
        Some(ip) => by.ip(ip.into()),
        None => by.ip(ip.into()),
    };
    *place = match other {
        IpAddr::V4(other) => other.to_ipv6_mapped().octets(),
        IpAddr::V6(other) => other.octets(),
    };
}

/// A text with another IP in the place of each that stands between other characters than letters
/// and digits. It may hold any bytes.
fn text(body: &Bytes, by: &mut impl Retell) -> Bytes {
    let is_part = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':');
    let mut other = Vec::with_capacity(body.len());
    let mut rest = &body[..];
    while let Some(first) = rest.first() {
        let whole = rest.iter().take_while(|byte| is_part(byte)).count();
        if whole == 0 {
            other.push(*first);
            rest = &rest[1..];
            continue;
        }
        let (run, behind) = rest.split_at(whole);
        let free = |byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric());
        let bounds = (free(other.last()), free(behind.first()));
        run_of_text(run, bounds, &mut other, by);
        rest = behind;
    }
    other.into()
}

/// What may be an IPv6 address, or IPv4 addresses and ports between colons. `bounds` says whether
/// it begins and ends where a word does.
fn run_of_text(run: &[u8], bounds: (bool, bool), out: &mut Vec<u8>, by: &mut impl Retell) {
    let Ok(run) = core::str::from_utf8(run) else {
        return;
    };
    let (from_start, to_end) = bounds;
    let bare = run.trim_end_matches('.');
    if from_start
        && to_end
        && let Ok(ip) = bare.parse::<Ipv6Addr>()
    {
        out.extend_from_slice(by.ip(ip.into()).to_string().as_bytes());
        out.extend_from_slice(&run.as_bytes()[bare.len()..]);
        return;
    }
    let count = run.split(':').count();
    for (index, piece) in run.split(':').enumerate() {
        if index > 0 {
            out.push(b':');
        }
        let is_word = (index > 0 || from_start) && (index + 1 < count || to_end);
        let bare = piece.trim_end_matches('.');
        match bare.parse::<Ipv4Addr>() {
            Ok(ip) if is_word => {
                out.extend_from_slice(by.ip(ip.into()).to_string().as_bytes());
                out.extend_from_slice(&piece.as_bytes()[bare.len()..]);
            }
            Ok(_) | Err(_) => out.extend_from_slice(piece.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::checkpoint::Exchange;
    use crate::{PeerId, PublicKey};
    use alloc::format;
    use alloc::string::String;

    /// Counts every IP up by one, and remembers which they were.
    #[derive(Default)]
    struct Next(Vec<IpAddr>);

    impl Exchange for Next {
        fn ip(&mut self, ip: IpAddr) -> IpAddr {
            self.0.push(ip);
            match ip {
                IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits().wrapping_add(1)).into(),
                IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits().wrapping_add(1)).into(),
            }
        }

        fn peer(&mut self, peer: PeerId) -> PeerId {
            peer
        }

        fn key(&mut self, key: &PublicKey) -> PublicKey {
            key.clone()
        }
    }

    impl Retell for Next {
        fn host(&mut self, name: &str) -> String {
            name.into()
        }

        fn text(&mut self, text: &str) -> String {
            text.into()
        }
    }

    fn sent(body: &[u8]) -> Bytes {
        datagram(&Bytes::copy_from_slice(body), &mut Next::default())
    }

    #[test]
    fn texts_have_another_ip_in_the_place_of_each() {
        for (given, other) in [
            (
                "LOCATION: http://192.168.1.1:5000/d.xml\r\n",
                "LOCATION: http://192.168.1.2:5000/d.xml\r\n",
            ),
            ("HOST:239.1.2.3:1900", "HOST:239.1.2.4:1900"),
            ("Host: [fe80::1]:1900", "Host: [fe80::2]:1900"),
            ("http://[fe80::1%252]/", "http://[fe80::2%252]/"),
            ("<IP>44.1.2.3</IP><IP>44.1.2.3</IP>", "<IP>44.1.2.4</IP><IP>44.1.2.4</IP>"),
            ("<IP>2600::9</IP>", "<IP>2600::a</IP>"),
            ("at 44.1.2.3.", "at 44.1.2.4."),
            ("::ffff:44.1.2.3", "::ffff:44.1.2.4"),
            ("44.1.2.3", "44.1.2.4"),
            // No IPs: versions, names of services, a link's address, a time, a number too large.
            ("Linux/2.6.36 UPnP/1.0", "Linux/2.6.36 UPnP/1.0"),
            (
                "urn:schemas-upnp-org:service:WANIPConnection:1",
                "urn:schemas-upnp-org:service:WANIPConnection:1",
            ),
            ("uuid:0a1b2c3d-1234::upnp:rootdevice", "uuid:0a1b2c3d-1234::upnp:rootdevice"),
            ("00:11:22:33:44:55", "00:11:22:33:44:55"),
            (
                "12:34:56 1.2.3.4.5 v1.2.3.4 1.2.3.4x 300.1.1.1",
                "12:34:56 1.2.3.4.5 v1.2.3.4 1.2.3.4x 300.1.1.1",
            ),
        ] {
            assert_eq!(sent(given.as_bytes()), Bytes::from(String::from(other)), "{given}");
        }
        let odd = [b"<", &b"\xff\x00 44.1.2.3 \xfe"[..]].concat();
        assert_eq!(sent(&odd), [b"<", &b"\xff\x00 44.1.2.4 \xfe"[..]].concat());
    }

    #[test]
    fn nat_pmp_tells_one_ip_and_no_more() {
        let told = [0, 128, 0, 0, 0, 0, 0, 9, 44, 1, 2, 3];
        assert_eq!(sent(&told), [0, 128, 0, 0, 0, 0, 0, 9, 44, 1, 2, 4][..]);
        let mapped = [0, 129, 0, 0, 0, 0, 0, 9, 44, 1, 2, 3, 0, 0, 28, 32];
        assert_eq!(sent(&mapped), mapped[..]);
        let long = [&mapped[..], b"secret"].concat();
        assert_eq!(sent(&long), [&mapped[..], &[0; 6]].concat());
        for len in 0..12 {
            assert_eq!(sent(&told[..len]), told[..len], "what is too short holds none");
        }
    }

    #[test]
    fn pcp_tells_ips_at_their_places() {
        let mapped = |last: u8| Ipv4Addr::new(44, 1, 2, last).to_ipv6_mapped().octets();
        let six = |last: u16| Ipv6Addr::new(0x2600, 0, 0, 0, 0, 0, 0, last).octets();
        let header =
            |opcode: u8, client: [u8; 16]| [&[2, opcode, 0, 0, 0, 0, 28, 32][..], &client].concat();
        let map = |external: [u8; 16]| [&[7; 20][..], &external].concat();
        // A request: from a client, with a wish.
        let asked = [header(1, mapped(3)), map(six(3))].concat();
        assert_eq!(sent(&asked), [header(1, mapped(4)), map(six(4))].concat());
        // An answer has no client in it.
        let answer = [header(129, mapped(3)), map(mapped(9))].concat();
        assert_eq!(sent(&answer), [header(129, mapped(3)), map(mapped(10))].concat());
        let option = |code: u8, content: &[u8]| {
            let [.., high, low] = content.len().to_be_bytes();
            [&[code, 0, high, low][..], content].concat()
        };
        let filter = |ip: [u8; 16]| [&[0, 120, 0, 80][..], &ip].concat();
        let options = |last: u8, unknown: &[u8]| {
            [option(1, &mapped(last)), option(99, unknown), option(3, &filter(mapped(last)))]
                .concat()
        };
        let with = |options: Vec<u8>| [&answer[..44], &mapped(9), &options].concat();
        let other = [&answer[..44], &mapped(10), &options(4, &[0; 8])].concat();
        assert_eq!(sent(&with(options(3, b"secret!!"))), other);
        // Announcements, and what nobody knows.
        let announced = header(128, [0; 16]);
        assert_eq!(sent(&announced), announced);
        let unknown = [header(255, [0; 16]), b"secret".to_vec()].concat();
        assert_eq!(sent(&unknown), [header(255, [0; 16]), [0; 6].to_vec()].concat());
        for len in 0..answer.len() {
            assert_eq!(sent(&answer[..len]).len(), len);
        }
    }

    #[test]
    fn what_nobody_reads_says_nothing() {
        assert_eq!(sent(b""), Bytes::new());
        assert_eq!(
            sent(b"\x01\x80\0\x01\0\0\0\0secret"),
            &b"\x01\x80\0\x01\0\0\0\0\0\0\0\0\0\0"[..]
        );
        assert_eq!(sent(b"\x80secret"), [0xff; 7][..]);
    }

    #[test]
    fn gateways_channels_and_sockets_are_others() {
        let ip = |last| IpAddr::from([10, 0, 0, last]);
        let socket = |last| SocketAddr::new(ip(last), 5350);
        let tale = |first: u8| {
            let channel =
                Channel::Group { group: socket(first), source: ip(first + 1), interface: 2 };
            let from = format!("[fe80::{first}%7]:5351").parse().expect("a socket");
            let gateways = [Gateway { router: ip(first), interface: 2, source: ip(first + 2) }];
            [
                MappingEvent::GatewaysChanged { gateways: gateways.into() },
                MappingEvent::DatagramReceived { channel, from, body: Bytes::new() },
                MappingEvent::DatagramRefused { channel, to: Some(socket(first)) },
                MappingEvent::DatagramRefused {
                    channel: Channel::Client { source: ip(first), interface: 1 },
                    to: None,
                },
                MappingEvent::Closing,
            ]
        };
        let mut next = Next::default();
        let others = tale(1).map(|told| event(&told, &mut next));
        assert_eq!(others, tale(2));
        assert_eq!(next.0.len(), 9);
    }
}
