//! Hosts of the LAN that mean no good: false routers, false answers, false announcements.

use super::{
    ALL_HOSTS_4, CLIENT_PORT, HttpReply, Output, Requests, SERVER_PORT, SSDP_4, SSDP_PORT, nat_pmp,
    pcp,
};
use crate::dice::Dice;
use bytes::Bytes;
use portolan_core::{Draw, Duration, Fetch, Instant};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The port of its HTTP server.
const HTTP_PORT: u16 = 5_000;
/// An error's lifetime: 136 years.
const FOR_EVER: [u8; 4] = [0xff; 4];

/// What an attacker does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Answers every search with a descriptor that is somewhere else.
    LocationElsewhere {
        /// Where.
        location: String,
    },
    /// Answers every search, and is a trap to whoever reads its descriptor.
    Descriptor(Trap),
    /// Answers every search from so many addresses.
    Crowd(u16),
    /// Answers whatever the router is asked, at once, and from its own address.
    AnswersItself,
    /// The same with the router's address as the source; it does not read along, so that nonces
    /// and ports are guesses.
    AnswersAsRouter,
    /// Reads along, and denies everything for ever with the router's address as the source.
    DeniesAsRouter,
    /// Tells all hosts that the router lost its state.
    Announces {
        /// Whether with the router's address as the source.
        as_router: bool,
        /// How often.
        interval: Duration,
    },
}

/// What is bad about a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// Entities that grow to gigabytes.
    Entities,
    /// Elements within elements, without an end.
    Depth,
    /// Services without number.
    Services,
    /// A body that does not end.
    Endless,
    /// A redirect to somebody else.
    Redirect,
    /// A gateway whose control URL is at somebody else's.
    ControlElsewhere,
    /// A gateway whose base is somebody else.
    BaseElsewhere,
    /// No HTTP.
    Noise,
    /// No response.
    Hang,
}

impl Trap {
    /// Every one.
    pub const ALL: [Trap; 9] = [
        Trap::Entities,
        Trap::Depth,
        Trap::Services,
        Trap::Endless,
        Trap::Redirect,
        Trap::ControlElsewhere,
        Trap::BaseElsewhere,
        Trap::Noise,
        Trap::Hang,
    ];
}

/// A host of the LAN that means no good.
#[derive(Clone, Debug)]
pub struct Attacker {
    ip: Ipv4Addr,
    router: IpAddr,
    /// Whom requests are to be steered to.
    victim: SocketAddr,
    attack: Attack,
    dice: Dice,
    next_at: Option<Instant>,
    requests: Requests,
}

impl Attacker {
    /// An attacker at an address beside a router.
    pub fn new(
        (ip, router): (Ipv4Addr, IpAddr),
        victim: SocketAddr,
        attack: Attack,
        now: Instant,
        seed: u64,
    ) -> Attacker {
        let next_at = match &attack {
            Attack::Announces { interval, .. } => Some(now + *interval),
            Attack::LocationElsewhere { .. }
            | Attack::Descriptor(_)
            | Attack::Crowd(_)
            | Attack::AnswersItself
            | Attack::AnswersAsRouter
            | Attack::DeniesAsRouter => None,
        };
        let (dice, requests) = (Dice::new(seed), Requests::default());
        Attacker { ip, router, victim, attack, dice, next_at, requests }
    }

    /// What it does.
    pub const fn attack(&self) -> &Attack {
        &self.attack
    }

    /// Who asked it.
    pub const fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Whether an address is one of its own.
    pub fn is_at(&self, ip: IpAddr) -> bool {
        let IpAddr::V4(ip) = ip else { return false };
        let own = self.ip.to_bits();
        (own..=own + u32::from(self.heads() - 1)).contains(&ip.to_bits())
    }

    fn heads(&self) -> u16 {
        if let Attack::Crowd(heads) = self.attack { heads.max(1) } else { 1 }
    }

    /// A datagram goes over the LAN: to a group, or to the router.
    pub fn hears(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        body: &[u8],
    ) -> Vec<Output> {
        if self.is_at(to.ip()) {
            self.requests.note(now, to);
        }
        if !from.is_ipv4() {
            return Vec::new();
        }
        let is_search = to.port() == SSDP_PORT && body.starts_with(b"M-SEARCH");
        let is_request = to.port() == SERVER_PORT && to.ip() == self.router;
        match &self.attack {
            Attack::LocationElsewhere { location } if is_search => {
                vec![found((self.ip, SSDP_PORT), from, location)]
            }
            Attack::Descriptor(_) if is_search => {
                vec![found((self.ip, SSDP_PORT), from, &location(self.ip))]
            }
            Attack::Crowd(heads) if is_search => (0..u32::from(*heads))
                .map(|head| {
                    let ip = Ipv4Addr::from_bits(self.ip.to_bits() + head);
                    found((ip, SSDP_PORT), from, &location(ip))
                })
                .collect(),
            Attack::AnswersItself if is_request => {
                let source = SocketAddr::new(self.ip.into(), SERVER_PORT);
                datagrams(source, from, answers(body, &[]))
            }
            Attack::AnswersAsRouter if is_request => {
                let nonce: Vec<u8> =
                    (0..12).map(|_| u8::try_from(self.dice.below(256)).unwrap_or(0)).collect();
                let source = SocketAddr::new(self.router, SERVER_PORT);
                datagrams(source, from, answers(body, &nonce))
            }
            Attack::DeniesAsRouter if is_request => {
                datagrams(SocketAddr::new(self.router, SERVER_PORT), from, denials(body))
            }
            Attack::LocationElsewhere { .. }
            | Attack::Descriptor(_)
            | Attack::Crowd(_)
            | Attack::AnswersItself
            | Attack::AnswersAsRouter
            | Attack::DeniesAsRouter
            | Attack::Announces { .. } => Vec::new(),
        }
    }

    /// An HTTP request reaches it.
    pub fn request(&mut self, now: Instant, request: &Fetch) -> HttpReply {
        self.requests.note(now, request.to);
        if request.to.port() != HTTP_PORT {
            return HttpReply::Refused;
        }
        let trap = match &self.attack {
            Attack::Descriptor(trap) => *trap,
            Attack::Crowd(_) => Trap::Hang,
            Attack::LocationElsewhere { .. }
            | Attack::AnswersItself
            | Attack::AnswersAsRouter
            | Attack::DeniesAsRouter
            | Attack::Announces { .. } => return HttpReply::Refused,
        };
        let body = match trap {
            Trap::Entities => entities(),
            Trap::Depth => format!("<?xml version=\"1.0\"?>{}", "<a>".repeat(20_000)),
            Trap::Services => tree("", &service("/ctl").repeat(100)),
            Trap::ControlElsewhere => tree("", &service(&format!("http://{}/ctl", self.victim))),
            Trap::BaseElsewhere => {
                tree(&format!("<URLBase>http://{}/</URLBase>", self.victim), &service("ctl"))
            }
            Trap::Endless => return HttpReply::Endless,
            Trap::Redirect => {
                return HttpReply::Redirect { location: format!("http://{}/x", self.victim) };
            }
            Trap::Noise => return HttpReply::Noise,
            Trap::Hang => return HttpReply::Hang,
        };
        HttpReply::Answer { status: 200, body: body.into_bytes().into(), chunked: false }
    }

    /// When it does something by itself.
    pub const fn deadline(&self) -> Option<Instant> {
        self.next_at
    }

    /// What is due happens.
    pub fn advance(&mut self, now: Instant) -> Vec<Output> {
        let Attack::Announces { as_router, interval } = self.attack else { return Vec::new() };
        if self.next_at.is_none_or(|at| now < at) {
            return Vec::new();
        }
        self.next_at = Some(now + interval);
        let source = if as_router { self.router } else { self.ip.into() };
        let from = SocketAddr::new(source, SERVER_PORT);
        let group = SocketAddr::new(ALL_HOSTS_4.into(), CLIENT_PORT);
        let notify = format!(
            "NOTIFY * HTTP/1.1\r\nHOST: {SSDP_4}:{SSDP_PORT}\r\nNT: upnp:rootdevice\r\n\
             NTS: ssdp:byebye\r\nUSN: uuid:5f9c0b4e-7d3a-4c1b-9e2f-000000000000::upnp:rootdevice\r\n\
             BOOTID.UPNP.ORG: {}\r\n\r\n",
            self.dice.below(1 << 31),
        );
        let ssdp = SocketAddr::new(SSDP_4.into(), SSDP_PORT);
        let address = nat_pmp::address(0, Ipv4Addr::new(44, 66, 6, 6));
        vec![
            Output::Multicast { from, group, body: address },
            Output::Multicast { from, group, body: pcp::restarted(0) },
            Output::Multicast { from, group: ssdp, body: notify.into_bytes().into() },
        ]
    }
}

fn datagrams(from: SocketAddr, to: SocketAddr, bodies: Vec<Bytes>) -> Vec<Output> {
    bodies.into_iter().map(|body| Output::Datagram { from, to, body }).collect()
}

fn location(ip: Ipv4Addr) -> String {
    format!("http://{ip}:{HTTP_PORT}/gw.xml")
}

fn found((ip, port): (Ipv4Addr, u16), to: SocketAddr, location: &str) -> Output {
    let urn = "urn:schemas-upnp-org:device:InternetGatewayDevice:1";
    let body = format!(
        "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=3600\r\nST: {urn}\r\n\
         USN: uuid:{ip}::{urn}\r\nEXT:\r\nSERVER: Linux/5.10 UPnP/1.1 Router/1.0\r\n\
         LOCATION: {location}\r\n\r\n"
    );
    let from = SocketAddr::new(ip.into(), port);
    Output::Datagram { from, to, body: body.into_bytes().into() }
}

/// Success to whatever was asked, with an address that is not the router's. Without a nonce, that
/// of the request.
fn answers(request: &[u8], nonce: &[u8]) -> Vec<Bytes> {
    let elsewhere = Ipv4Addr::new(44, 66, 6, 6);
    match request {
        [0, 0] => vec![nat_pmp::address(7, elsewhere)],
        [0, op @ (1 | 2), ..] if request.len() == 12 => {
            let mut out = vec![0, op | 128, 0, 0, 0, 0, 0, 7];
            // Without the request's port at hand, a guess.
            out.extend_from_slice(if nonce.is_empty() { &request[4..6] } else { &[0, 1] });
            out.extend_from_slice(&[0x17, 0x70, 0, 0, 0x1c, 0x20]);
            vec![out.into()]
        }
        [2, 1, ..] if request.len() >= 60 => {
            let mut out = request[..60].to_vec();
            out[1] |= 128;
            out[3] = 0;
            out[4..8].copy_from_slice(&7_200_u32.to_be_bytes());
            out[8..24].fill(0);
            out[24..24 + nonce.len()].copy_from_slice(nonce);
            out[42..44].copy_from_slice(&6_000_u16.to_be_bytes());
            out[44..60].copy_from_slice(&elsewhere.to_ipv6_mapped().octets());
            vec![out.into()]
        }
        _ => Vec::new(),
    }
}

/// *No*, for ever.
fn denials(request: &[u8]) -> Vec<Bytes> {
    match request {
        [0, op, ..] => {
            let mut out = request.to_vec();
            out.resize(16, 0);
            out[..8].copy_from_slice(&[0, op | 128, 0, 2, 0, 0, 0, 7]);
            out[8..10].copy_from_slice(request.get(4..6).unwrap_or(&[0, 0]));
            out[10..16].fill(0xff);
            vec![out.into()]
        }
        [2, op, ..] => {
            let mut out = request.to_vec();
            out[1] = op | 128;
            out[3] = 2;
            out[4..8].copy_from_slice(&FOR_EVER);
            out[8..24].fill(0);
            vec![out.into()]
        }
        _ => Vec::new(),
    }
}

fn entities() -> String {
    let mut text = "<?xml version=\"1.0\"?><!DOCTYPE r [<!ENTITY e0 \"ha\">".to_owned();
    for level in 1..12 {
        let below = format!("&e{};", level - 1).repeat(10);
        text.push_str(&format!("<!ENTITY e{level} \"{below}\">"));
    }
    text.push_str("]><root><device>&e11;</device></root>");
    text
}

fn service(control: &str) -> String {
    format!(
        "<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>\
         <serviceId>a</serviceId><SCPDURL>/a</SCPDURL><controlURL>{control}</controlURL>\
         <eventSubURL>/a</eventSubURL></service>"
    )
}

fn tree(base: &str, services: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><root xmlns=\"urn:schemas-upnp-org:device-1-0\">{base}<device>\
         <deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType>\
         <deviceList><device><deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType>\
         <deviceList><device>\
         <deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType>\
         <serviceList>{services}</serviceList></device></deviceList></device></deviceList>\
         </device></root>"
    )
}
