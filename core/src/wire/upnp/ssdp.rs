//! SSDP: how devices are found. One datagram is one message, in the form of an HTTP head.

use super::{HttpUrl, UrlError, printable};
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The port of SSDP, UPnP Device Architecture 1.1 §1.
pub const PORT: u16 = 1900;
/// The group over IPv4, UPnP Device Architecture 1.1 §1.
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
/// The group of the link over IPv6, UPnP Device Architecture 1.1 annex A.
pub const GROUP_LINK_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x0c);
/// The group of the site over IPv6, UPnP Device Architecture 1.1 annex A.
pub const GROUP_SITE_V6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0x0c);
/// Bytes of a message that is looked at; ours, since they fill one datagram on a LAN.
pub const DATAGRAM_MAX: usize = 2_048;
/// Lines of a head, number; ours, since devices have about ten.
pub const HEADERS_MAX: usize = 32;
/// Characters of a name; the rest is cut off. Ours.
pub const NAME_MAX: usize = 256;
/// The longest wait that a search asks for, in seconds, UPnP Device Architecture 1.1 §1.3.2.
pub const MX_MAX: u8 = 5;

/// What may be searched for to find a router, likelier ones first. Some answer to one of them alone.
pub const SEARCH_TARGETS: [&str; 6] = [
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
    "ssdp:all",
];

/// A message that was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// The answer to a search.
    Found(Device),
    /// A device tells of itself.
    Notify {
        /// What happened.
        kind: NotifyKind,
        /// Which device.
        device: Device,
    },
    /// Somebody searches.
    Search {
        /// For what.
        target: String,
    },
}

/// What happened to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum NotifyKind {
    /// It is there.
    Alive,
    /// It leaves.
    ByeBye,
    /// It is about to change its boot id.
    Update,
}

/// A device or one of its services, as it tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// Where its description is; not there where it leaves.
    pub location: Option<HttpUrl>,
    /// What it is: ST or NT.
    pub target: String,
    /// Its unique name.
    pub usn: String,
    /// What software it has.
    pub server: String,
    /// How long this holds, in seconds.
    pub max_age_s: Option<u32>,
    /// Changes when it restarts.
    pub boot_id: Option<u32>,
}

/// A datagram that is no message of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SsdpError {
    /// Longer than [`DATAGRAM_MAX`].
    #[error("a message of more than {DATAGRAM_MAX} bytes")]
    TooLong,
    /// No head of HTTP, or one of more than [`HEADERS_MAX`] lines.
    #[error("not a message of SSDP")]
    Malformed,
    /// An answer other than yes.
    #[error("a response with status {status}")]
    Status {
        /// The status.
        status: u16,
    },
    /// Neither a search, nor news of a known kind.
    #[error("a message of another kind")]
    Kind,
    /// Its description is where we do not look.
    #[error("a location that is not followed: {0}")]
    Location(#[from] UrlError),
}

/// A search, to be sent to `to`: a group, or one host. `mx` is how many seconds devices may take to
/// answer, from 1 to [`MX_MAX`].
pub fn search(to: SocketAddr, target: &str, mx: u8) -> Bytes {
    // UPnP Device Architecture 1.1 §1.3.2: the quotes around the extension MUST be there.
    let host = match to.ip() {
        IpAddr::V4(ip) => alloc::format!("{ip}:{}", to.port()),
        IpAddr::V6(ip) if ip.is_multicast() => {
            let [scope, .., group] = ip.segments();
            alloc::format!("[{scope:X}::{group:X}]:{}", to.port())
        }
        IpAddr::V6(ip) => alloc::format!("[{ip}]:{}", to.port()),
    };
    let mut out =
        alloc::format!("M-SEARCH * HTTP/1.1\r\nHOST: {host}\r\nMAN: \"ssdp:discover\"\r\n");
    // §1.3.2: one host answers at once, and is told no MX.
    if to.ip().is_multicast() {
        out += &alloc::format!("MX: {}\r\n", mx.clamp(1, MX_MAX));
    }
    out += &alloc::format!("ST: {}\r\n\r\n", printable(target, NAME_MAX));
    out.into()
}

impl Message {
    /// Read a datagram. The empty line at the end may be missing.
    pub fn decode(datagram: &[u8]) -> Result<Message, SsdpError> {
        if datagram.len() > DATAGRAM_MAX {
            return Err(SsdpError::TooLong);
        }
        let mut head = Vec::with_capacity(datagram.len() + 4);
        head.extend_from_slice(datagram);
        head.extend_from_slice(b"\r\n\r\n");
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        if head.starts_with(b"HTTP/") {
            let mut response = httparse::Response::new(&mut headers);
            let mut config = httparse::ParserConfig::default();
            config.allow_spaces_after_header_name_in_responses(true);
            let parsed = config.parse_response(&mut response, &head);
            parsed.map_err(|_| SsdpError::Malformed)?;
            return match response.code {
                Some(200) => Ok(Message::Found(device(response.headers, "st")?)),
                Some(status) => Err(SsdpError::Status { status }),
                None => Err(SsdpError::Malformed),
            };
        }
        let mut request = httparse::Request::new(&mut headers);
        request.parse(&head).map_err(|_| SsdpError::Malformed)?;
        match request.method {
            Some("NOTIFY") => {
                let kind = match text(request.headers, "nts").as_deref() {
                    Some("ssdp:alive") => NotifyKind::Alive,
                    Some("ssdp:byebye") => NotifyKind::ByeBye,
                    Some("ssdp:update") => NotifyKind::Update,
                    Some(_) | None => return Err(SsdpError::Kind),
                };
                Ok(Message::Notify { kind, device: device(request.headers, "nt")? })
            }
            Some("M-SEARCH") => match text(request.headers, "st") {
                Some(target) => Ok(Message::Search { target }),
                None => Err(SsdpError::Malformed),
            },
            Some(_) => Err(SsdpError::Kind),
            None => Err(SsdpError::Malformed),
        }
    }
}

fn device(headers: &[httparse::Header<'_>], target: &str) -> Result<Device, SsdpError> {
    let location = value(headers, "location").filter(|location| !location.is_empty());
    let location = location.map(HttpUrl::parse).transpose()?;
    let max_age = value(headers, "cache-control").and_then(|control| {
        let mut parts = control.split(',').filter_map(|part| part.split_once('='));
        let (_, age) = parts.find(|(name, _)| name.trim().eq_ignore_ascii_case("max-age"))?;
        age.trim().trim_matches('"').parse().ok()
    });
    let boot_id = value(headers, "bootid.upnp.org").and_then(|id| id.parse().ok());
    let shown = |name| text(headers, name).unwrap_or_default();
    Ok(Device {
        location,
        target: shown(target),
        usn: shown("usn"),
        server: shown("server"),
        max_age_s: max_age,
        boot_id,
    })
}

/// The first value of a header, if it is text.
fn value<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a str> {
    let header = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    core::str::from_utf8(header.value).ok().map(str::trim)
}

fn text(headers: &[httparse::Header<'_>], name: &str) -> Option<String> {
    value(headers, name).map(|value| printable(value, NAME_MAX))
}

impl Device {
    /// The answer of this device to a search, as it sends it.
    pub fn answer(&self) -> Bytes {
        let mut out = "HTTP/1.1 200 OK\r\nEXT:\r\n".to_owned();
        let mut line = |name: &str, value: &str| {
            out += &alloc::format!("{name}: {}\r\n", printable(value, 1_024));
        };
        if let Some(age) = self.max_age_s {
            line("CACHE-CONTROL", &alloc::format!("max-age={age}"));
        }
        if let Some(location) = &self.location {
            line("LOCATION", &alloc::format!("{location}"));
        }
        for (name, value) in [("SERVER", &self.server), ("ST", &self.target), ("USN", &self.usn)] {
            line(name, value);
        }
        if let Some(id) = self.boot_id {
            line("BOOTID.UPNP.ORG", &alloc::format!("{id}"));
        }
        (out + "\r\n").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALIVE: &str = "NOTIFY * HTTP/1.1\r\nHost:239.255.255.250:1900\r\n\
        cache-control:max-age = 1800 , private\r\nlocation:http://192.168.178.1:49000/igddesc.xml\r\n\
        SERVER: fritz.box UPnP/1.0 AVM\r\nNT:urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\
        NTS:ssdp:alive\r\nUSN:uuid:1::urn\r\n";

    #[test]
    fn a_search_is_what_routers_expect() {
        let to = |ip: IpAddr| search(SocketAddr::new(ip, PORT), SEARCH_TARGETS[1], 9);
        let expected = "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n\
            MAN: \"ssdp:discover\"\r\nMX: 5\r\n\
            ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n";
        assert_eq!(to(GROUP_V4.into()), expected.as_bytes());
        let has = |ip: IpAddr, part: &str| {
            let text = String::from_utf8(to(ip).to_vec()).expect("ASCII");
            assert_eq!(text.contains("MX:"), ip.is_multicast());
            assert!(text.contains(part), "{text}");
        };
        has(GROUP_LINK_V6.into(), "HOST: [FF02::C]:1900\r\n");
        has(GROUP_SITE_V6.into(), "HOST: [FF05::C]:1900\r\n");
        has([192, 168, 1, 1].into(), "HOST: 192.168.1.1:1900\r\n");
        let target = SEARCH_TARGETS[1].to_owned();
        assert_eq!(Message::decode(&to(GROUP_V4.into())), Ok(Message::Search { target }));
        let injected = search(SocketAddr::new(GROUP_V4.into(), PORT), "a\r\nb: c", 1);
        assert!(injected.ends_with(b"ST: ab: c\r\n\r\n"));
    }

    #[test]
    fn news_and_answers_are_read() {
        let Ok(Message::Notify { kind, device }) = Message::decode(ALIVE.as_bytes()) else {
            panic!("news of a device")
        };
        assert_eq!(
            (kind, device.max_age_s, device.boot_id),
            (NotifyKind::Alive, Some(1_800), None)
        );
        let location = device.location.as_ref().map(|url| url.port);
        assert_eq!((location, &*device.usn), (Some(49_000), "uuid:1::urn"));
        let found = Device { boot_id: Some(7), ..device };
        assert_eq!(Message::decode(&found.answer()), Ok(Message::Found(found)));
        let bye = ALIVE.replace("ssdp:alive", "ssdp:byebye").replace("location:", "x:");
        let read = Message::decode(bye.as_bytes()).expect("news");
        let Message::Notify { kind: NotifyKind::ByeBye, device } = read else { panic!("{read:?}") };
        assert_eq!(device.location, None);
        let spaced = b"HTTP/1.0 200 OK\nST : upnp:rootdevice\nLOCATION: http://10.0.0.1/\n\n";
        let Ok(Message::Found(device)) = Message::decode(spaced) else { panic!("an answer") };
        assert_eq!(device.target, "upnp:rootdevice");
    }

    #[test]
    fn other_messages_have_their_error() {
        let of = |text: &str| Message::decode(text.as_bytes());
        assert_eq!(of(&"a".repeat(DATAGRAM_MAX + 1)), Err(SsdpError::TooLong));
        assert_eq!(of(""), Err(SsdpError::Malformed));
        assert_eq!(of("HTTP/1.1 404 No\r\n\r\n"), Err(SsdpError::Status { status: 404 }));
        assert_eq!(of("GET / HTTP/1.1\r\n\r\n"), Err(SsdpError::Kind));
        assert_eq!(of(&ALIVE.replace("alive", "other")), Err(SsdpError::Kind));
        let name = of(&ALIVE.replace("192.168.178.1", "fritz.box"));
        assert_eq!(name, Err(SsdpError::Location(UrlError::Host)));
        let crowded = alloc::format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(33));
        assert_eq!(of(&crowded), Err(SsdpError::Malformed));
    }
}
