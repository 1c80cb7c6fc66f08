//! UPnP's pinholes: WANIPv6FirewallControl.

use super::profiles::UpnpProfile;
use super::soap::{Arguments, Fault, INVALID_ACTION, INVALID_ARGS, NOT_AUTHORIZED};
use super::table::HoleKey;
use super::{Router, end};
use portolan_core::{Instant, MappingProtocol, Transport};
use std::net::{IpAddr, SocketAddr};

const NO_SUCH_PINHOLE: Fault = (704, "NoSuchEntry");
/// The longest lease of a pinhole: one day, in seconds.
const DAY_S: u32 = 86_400;

type Values = Vec<(&'static str, String)>;

impl Router {
    /// An action of the firewall is called.
    pub(super) fn firewall(
        &mut self,
        now: Instant,
        upnp: &UpnpProfile,
        from: IpAddr,
        action: &str,
        arguments: &Arguments,
    ) -> Result<Values, Fault> {
        match action {
            "GetFirewallStatus" => Ok(vec![
                ("FirewallEnabled", "1".to_owned()),
                ("InboundPinholeAllowed", "1".to_owned()),
            ]),
            "AddPinhole" => self.add_pinhole(now, upnp, from, arguments),
            "UpdatePinhole" => {
                let key = self.hole_named(upnp, from, arguments)?;
                let lease_s = lease(arguments.number("NewLeaseTime")?)?;
                if !self.may_grant(now) {
                    return Err(NOT_AUTHORIZED);
                }
                let held = self.table.holes.get_mut(&key).ok_or(NO_SUCH_PINHOLE)?;
                held.until = end(now, lease_s);
                Ok(Vec::new())
            }
            "DeletePinhole" => {
                let key = self.hole_named(upnp, from, arguments)?;
                self.table.holes.remove(&key);
                self.table.deleted.push((key.1, (key.0, key.1.port())));
                Ok(Vec::new())
            }
            "CheckPinholeWorking" => {
                let key = self.hole_named(upnp, from, arguments)?;
                let works = self.pinhole(now, key.0, key.1);
                if works {
                    Ok(vec![("IsWorking", "1".to_owned())])
                } else {
                    Err((709, "NoTraffic"))
                }
            }
            "GetPinholePackets" => {
                self.hole_named(upnp, from, arguments)?;
                Ok(vec![("PinholePackets", "0".to_owned())])
            }
            _ => Err(INVALID_ACTION),
        }
    }

    fn add_pinhole(
        &mut self,
        now: Instant,
        upnp: &UpnpProfile,
        from: IpAddr,
        arguments: &Arguments,
    ) -> Result<Values, Fault> {
        if !arguments.text("RemoteHost")?.is_empty() || arguments.number::<u16>("RemotePort")? != 0
        {
            return Err((703, "InboundPinholeNotAllowed"));
        }
        let client: IpAddr = arguments.number("InternalClient")?;
        let port: u16 = arguments.number("InternalPort")?;
        let transport = match arguments.number::<u16>("Protocol")? {
            6 => Transport::Tcp,
            17 => Transport::Quic,
            65_535 => return Err((706, "ProtocolWildcardingNotAllowed")),
            _ => return Err((705, "ProtocolNotSupported")),
        };
        let lease_s = lease(arguments.number("LeaseTime")?)?;
        if port == 0 {
            self.complain("UPnP: a pinhole for every port");
            return Err((707, "InternalPortWildcardingNotAllowed"));
        }
        if client != from {
            self.complain(format!("UPnP: a pinhole for {client}, asked from {from}"));
            if upnp.pinholes_for_asker {
                return Err(NOT_AUTHORIZED);
            }
        }
        if !client.is_ipv6() || !self.may_grant(now) {
            return Err(NOT_AUTHORIZED);
        }
        let key = (transport, SocketAddr::new(client, port), MappingProtocol::Upnp);
        if !self.table.holes.contains_key(&key) && self.is_full() {
            return Err((701, "PinholeSpaceExhausted"));
        }
        let mut fresh = self.new_held(now, MappingProtocol::Upnp, key.1, (transport, port));
        self.table.last_unique += 1;
        fresh.unique = self.table.last_unique;
        let held = self.table.holes.entry(key).or_insert(fresh);
        held.until = end(now, lease_s);
        Ok(vec![("UniqueID", held.unique.to_string())])
    }

    fn hole_named(
        &mut self,
        upnp: &UpnpProfile,
        from: IpAddr,
        arguments: &Arguments,
    ) -> Result<HoleKey, Fault> {
        let unique: u16 = arguments.number("UniqueID")?;
        let key = self.table.hole_of(unique).ok_or(NO_SUCH_PINHOLE)?;
        if key.1.ip() != from {
            self.complain(format!("UPnP: the pinhole of {} is asked about from {from}", key.1));
            if upnp.pinholes_for_asker {
                return Err(NOT_AUTHORIZED);
            }
        }
        Ok(key)
    }
}

fn lease(wanted_s: u32) -> Result<u32, Fault> {
    if (1..=DAY_S).contains(&wanted_s) { Ok(wanted_s) } else { Err(INVALID_ARGS) }
}
