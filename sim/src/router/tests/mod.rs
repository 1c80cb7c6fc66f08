//! The router by itself, asked by hand.

mod attacks;
mod nat_pmp;
mod pcp;
mod profiles;
mod upnp;

use super::*;
use portolan_core::Soap;

const LAN: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(192, 168, 1, 1), Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

fn at(seconds: u64) -> Instant {
    Instant::from_millis(seconds * 1_000)
}

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn client() -> SocketAddr {
    socket("192.168.1.7:40000")
}

fn server() -> SocketAddr {
    socket("192.168.1.1:5351")
}

/// A router of a named profile that started at 0.
fn router(name: &str) -> Router {
    Router::new(Profile::named(name).expect("a profile"), LAN, at(0), 1)
}

/// The bodies of what comes back to a client's datagram.
fn ask(router: &mut Router, now: Instant, to: SocketAddr, body: &[u8]) -> Vec<Bytes> {
    let outputs = router.datagram(now, client(), to, body);
    let body_of = |output: Output| match output {
        Output::Datagram { to, body, .. } => {
            assert_eq!(to, client());
            body
        }
        Output::Multicast { .. } | Output::Refused { .. } => panic!("{output:?}"),
    };
    outputs.into_iter().map(body_of).collect()
}

/// The one answer.
fn answer(router: &mut Router, now: Instant, body: &[u8]) -> Vec<u8> {
    let mut all = ask(router, now, server(), body);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0).to_vec()
}

/// A NAT-PMP request for a mapping of TCP.
fn nat_pmp_map(internal: u16, external: u16, lifetime_s: u32) -> Vec<u8> {
    let ports = [internal.to_be_bytes(), external.to_be_bytes()].concat();
    [&[0, 2, 0, 0][..], &ports, &lifetime_s.to_be_bytes()].concat()
}

/// A PCP request for a mapping of UDP, from an address, with a nonce of equal bytes.
fn pcp_map(from: IpAddr, nonce: u8, internal: u16, external: u16, lifetime_s: u32) -> Vec<u8> {
    let (own, any) = match from {
        IpAddr::V4(ip) => (ip.to_ipv6_mapped(), Ipv4Addr::UNSPECIFIED.to_ipv6_mapped()),
        IpAddr::V6(ip) => (ip, Ipv6Addr::UNSPECIFIED),
    };
    let mut out = vec![2, 1, 0, 0];
    out.extend_from_slice(&lifetime_s.to_be_bytes());
    out.extend_from_slice(&own.octets());
    out.extend_from_slice(&[nonce; 12]);
    out.extend_from_slice(&[17, 0, 0, 0]);
    out.extend_from_slice(&internal.to_be_bytes());
    out.extend_from_slice(&external.to_be_bytes());
    out.extend_from_slice(&any.octets());
    out
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

/// A search, as it goes to the group.
fn search(st: &str) -> String {
    format!(
        "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\n\
         ST: {st}\r\n\r\n"
    )
}

/// The answers to a search, as text.
fn found(router: &mut Router, to: &str, st: &str) -> Vec<String> {
    let bodies = ask(router, at(1), socket(to), search(st).as_bytes());
    bodies.iter().map(|body| String::from_utf8_lossy(body).into_owned()).collect()
}

const GROUP: &str = "239.255.255.250:1900";
const IGD_1: &str = "urn:schemas-upnp-org:device:InternetGatewayDevice:1";

fn fetch(router: &Router, path: &str, soap: Option<Soap>) -> Fetch {
    Fetch {
        fetch: portolan_core::FetchId(1),
        source: client().ip(),
        interface: 2,
        to: SocketAddr::new(LAN.0.into(), router.http_port()),
        path: path.to_owned(),
        soap,
        timeout: Duration::from_secs(5),
    }
}

fn get(router: &mut Router, path: &str) -> (u16, String) {
    let fetch = fetch(router, path, None);
    read(router.request(at(1), client().ip(), fetch.to.port(), &fetch))
}

/// Call an action, with arguments in order.
fn call(
    router: &mut Router,
    now: Instant,
    (path, urn, action): (&str, &str, &str),
    arguments: &[(&str, &str)],
) -> (u16, String) {
    let inner: String =
        arguments.iter().map(|(name, value)| format!("<{name}>{value}</{name}>")).collect();
    let body = format!(
        "<?xml version=\"1.0\"?><s:Envelope><s:Body><u:{action} xmlns:u=\"{urn}\">{inner}\
         </u:{action}></s:Body></s:Envelope>"
    );
    let soap = Soap { action: format!("{urn}#{action}"), body: body.into_bytes().into() };
    let fetch = fetch(router, path, Some(soap));
    read(router.request(now, client().ip(), fetch.to.port(), &fetch))
}

fn read(reply: HttpReply) -> (u16, String) {
    let HttpReply::Answer { status, body, .. } = reply else { panic!("{reply:?}") };
    (status, String::from_utf8_lossy(&body).into_owned())
}

const IP_1: &str = "urn:schemas-upnp-org:service:WANIPConnection:1";

/// AddPortMapping of WANIPConnection:1, for the client.
fn add(router: &mut Router, now: Instant, external: u16, lease_s: u32) -> (u16, String) {
    add_as(router, now, "TCP", external, lease_s)
}

fn add_as(
    router: &mut Router,
    now: Instant,
    protocol: &str,
    external: u16,
    lease_s: u32,
) -> (u16, String) {
    let (external, lease) = (external.to_string(), lease_s.to_string());
    let arguments = [
        ("NewRemoteHost", ""),
        ("NewExternalPort", external.as_str()),
        ("NewProtocol", protocol),
        ("NewInternalPort", "4001"),
        ("NewInternalClient", "192.168.1.7"),
        ("NewEnabled", "1"),
        ("NewPortMappingDescription", "test"),
        ("NewLeaseDuration", lease.as_str()),
    ];
    call(router, now, ("/ctl/IPConn", IP_1, "AddPortMapping"), &arguments)
}

fn error_code(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("<errorCode>")?;
    rest.split_once('<')?.0.parse().ok()
}
