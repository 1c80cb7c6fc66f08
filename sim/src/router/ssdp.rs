//! SSDP: how a router is found by UPnP, and how it tells that it is there.

use super::profiles::{SearchProfile, UpnpProfile, WanService};
use super::{Output, Router, SSDP_4, SSDP_6, SSDP_PORT};
use portolan_core::Instant;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// How long its presence holds, in seconds.
const MAX_AGE_S: u32 = 1_800;
const SERVER: &str = "Linux/5.10 UPnP/1.1 Simulated/1.0";
/// What every device of it is named by, before its number.
const UUID: &str = "5f9c0b4e-7d3a-4c1b-9e2f-00000000000";

/// One thing that can be searched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// What it is searched by.
    pub(super) urn: &'static str,
    /// Which device of the tree it belongs to.
    device: u8,
    /// The path of the descriptor.
    path: &'static str,
}

/// The descriptor of the gateway.
pub(super) const ROOT_PATH: &str = "/rootDesc.xml";
/// A descriptor without any WAN service.
pub(super) const OTHER_PATH: &str = "/wps_device.xml";
/// The root of that.
const OTHER_URN: &str = "urn:schemas-wifialliance-org:device:WFADevice:1";

impl Router {
    /// A search, or something else, reaches the port of SSDP.
    pub(super) fn searched(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        body: &[u8],
    ) -> Vec<Output> {
        let Some(upnp) = self.profile.upnp else { return Vec::new() };
        let text = String::from_utf8_lossy(body).into_owned();
        if !text.starts_with("M-SEARCH * HTTP/1.1\r\n") {
            return Vec::new();
        }
        let Some(wanted) = self.well_formed(to, &text) else { return Vec::new() };
        let heard =
            if to.ip().is_multicast() { upnp.search.multicast } else { upnp.search.unicast };
        if !heard {
            return Vec::new();
        }
        let mut found: Vec<Target> = targets(&upnp)
            .into_iter()
            .filter(|target| wanted == "ssdp:all" || target.urn == wanted)
            .collect();
        if wanted == "ssdp:all" && upnp.search.all_is_first {
            found = vec![Target { urn: OTHER_URN, device: 9, path: OTHER_PATH }];
        }
        if upnp.search.alternates && !found.is_empty() {
            self.searches += 1;
            if self.searches % 2 == 1 {
                found.iter_mut().for_each(|target| target.path = OTHER_PATH);
            }
        }
        let at = if from.is_ipv4() { self.ip4 } else { self.ip6 };
        let port = match upnp.search.random_port {
            true => 30_000 + u16::try_from(self.dice.index(20_000)).unwrap_or(0),
            false => SSDP_PORT,
        };
        let answer = |target: &Target| Output::Datagram {
            from: SocketAddr::new(at, port),
            to: from,
            body: self.answer(&upnp.search, at, target).into_bytes().into(),
        };
        found.iter().map(answer).collect()
    }

    /// What a search is for, where it is one; what is wrong with it is complained of.
    fn well_formed(&mut self, to: SocketAddr, text: &str) -> Option<String> {
        let header = |name: &str| {
            text.split("\r\n").skip(1).find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        if !text.ends_with("\r\n\r\n") {
            self.complain("SSDP: a search without an end");
            return None;
        }
        if header("MAN").as_deref() != Some("\"ssdp:discover\"") {
            self.complain("SSDP: MAN is not \"ssdp:discover\"");
            return None;
        }
        if header("HOST").is_none() {
            self.complain("SSDP: HOST is missing");
        }
        let mx = header("MX").and_then(|mx| mx.parse::<u8>().ok());
        if to.ip().is_multicast() && !mx.is_some_and(|mx| (1..=5).contains(&mx)) {
            self.complain("SSDP: MX is not 1 to 5");
            return None;
        }
        header("ST")
    }

    fn answer(&self, search: &SearchProfile, at: IpAddr, target: &Target) -> String {
        let mut text = "HTTP/1.1 200 OK\r\n".to_owned();
        let _ = write!(text, "CACHE-CONTROL: max-age={MAX_AGE_S}\r\nST: {}\r\n", target.urn);
        self.write_rest(&mut text, search, at, target);
        text.push_str("\r\n");
        text
    }

    fn write_rest(&self, text: &mut String, search: &SearchProfile, at: IpAddr, target: &Target) {
        let location = match at {
            IpAddr::V4(ip) if search.location_elsewhere => IpAddr::V4(neighbour(ip)),
            IpAddr::V4(_) | IpAddr::V6(_) => at,
        };
        let location = SocketAddr::new(location, self.http_port);
        let (urn, device, path) = (target.urn, target.device, target.path);
        let _ = write!(
            text,
            "USN: uuid:{UUID}{device}::{urn}\r\nEXT:\r\nSERVER: {SERVER}\r\n\
             LOCATION: http://{location}{path}\r\nOPT: \"http://schemas.upnp.org/upnp/1/0/\"; ns=01\r\n\
             01-NLS: {boot}\r\nBOOTID.UPNP.ORG: {boot}\r\nCONFIGID.UPNP.ORG: 1337\r\n",
            boot = self.boot_id,
        );
    }

    /// It is there, or goes away: to everybody who listens.
    pub(super) fn tells_presence(&mut self, alive: bool, outputs: &mut Vec<Output>) {
        let Some(upnp) = self.profile.upnp else { return };
        for (at, group) in [(self.ip4, IpAddr::V4(SSDP_4)), (self.ip6, IpAddr::V6(SSDP_6))] {
            let group = SocketAddr::new(group, SSDP_PORT);
            for target in targets(&upnp) {
                let mut text = format!("NOTIFY * HTTP/1.1\r\nHOST: {group}\r\n");
                if alive {
                    let _ = write!(text, "CACHE-CONTROL: max-age={MAX_AGE_S}\r\n");
                }
                let kind = if alive { "ssdp:alive" } else { "ssdp:byebye" };
                let _ = write!(text, "NT: {}\r\nNTS: {kind}\r\n", target.urn);
                self.write_rest(&mut text, &upnp.search, at, &target);
                text.push_str("\r\n");
                let from = SocketAddr::new(at, SSDP_PORT);
                outputs.push(Output::Multicast { from, group, body: text.into_bytes().into() });
            }
        }
    }

    /// When it started, as it counts.
    pub(super) fn uptime_s(&self, now: Instant) -> u64 {
        now.since(self.booted_at).as_secs()
    }
}

/// The address beside one.
fn neighbour(ip: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from_bits(ip.to_bits() + 1)
}

/// Everything that a router of this kind can be found by, in its own order.
pub(super) fn targets(upnp: &UpnpProfile) -> Vec<Target> {
    let device_urns: [&'static str; 3] = match upnp.service {
        WanService::Ip2 => [
            "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
            "urn:schemas-upnp-org:device:WANDevice:2",
            "urn:schemas-upnp-org:device:WANConnectionDevice:2",
        ],
        WanService::Legacy => [
            "urn:dslforum-org:device:InternetGatewayDevice:1",
            "urn:dslforum-org:device:WANDevice:1",
            "urn:dslforum-org:device:WANConnectionDevice:1",
        ],
        WanService::Ip1 | WanService::Ppp1 | WanService::IdleIpAndPpp => [
            "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
            "urn:schemas-upnp-org:device:WANDevice:1",
            "urn:schemas-upnp-org:device:WANConnectionDevice:1",
        ],
    };
    let [root, wan, connection] = device_urns;
    let target = |urn, device| Target { urn, device, path: ROOT_PATH };
    let mut all =
        vec![target("upnp:rootdevice", 0), target(root, 0), target(wan, 1), target(connection, 2)];
    all.extend(super::igd::services(upnp).iter().map(|service| target(service.urn, 2)));
    if upnp.service.is_second() {
        // UPnP Device Architecture 1.1 §1.3.3: who is of version 2 answers for version 1, too.
        all.push(target("urn:schemas-upnp-org:device:InternetGatewayDevice:1", 0));
        all.push(target("urn:schemas-upnp-org:service:WANIPConnection:1", 2));
    }
    all
}
