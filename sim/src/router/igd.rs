//! UPnP's port mappings: WANIPConnection of both versions, WANPPPConnection, and the old names.

use super::profiles::{Leases, UpnpProfile, WanService};
use super::soap::{
    ACTION_FAILED, Arguments, Fault, INVALID_ACTION, INVALID_ARGS, NO_SUCH_ENTRY, NOT_AUTHORIZED,
    fault, fault_response, response,
};
use super::table::{Held, PortKey};
use super::{Router, end};
use portolan_core::{Instant, MappingProtocol, Soap, Transport};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// A service with the path at which it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) urn: &'static str,
    pub(super) path: &'static str,
    pub(super) kind: ServiceKind,
}

/// What a service does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServiceKind {
    /// Maps ports, on a connection that is up.
    Wan,
    /// Would, but is not connected.
    IdleWan,
    /// Opens pinholes.
    Firewall,
}

const IP_1: &str = "urn:schemas-upnp-org:service:WANIPConnection:1";
const IP_2: &str = "urn:schemas-upnp-org:service:WANIPConnection:2";
const PPP_1: &str = "urn:schemas-upnp-org:service:WANPPPConnection:1";
const LEGACY: &str = "urn:dslforum-org:service:WANPPPConnection:1";
const FIREWALL: &str = "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1";

/// One week: the longest lease of the second version, in seconds.
const WEEK_S: u32 = 604_800;

/// The services of a kind of router, in the order of its description.
pub(super) fn services(upnp: &UpnpProfile) -> Vec<Service> {
    let wan = |urn, path| Service { urn, path, kind: ServiceKind::Wan };
    let mut all = match upnp.service {
        WanService::Ip1 => vec![wan(IP_1, "/ctl/IPConn")],
        WanService::Ip2 => vec![wan(IP_2, "/ctl/IPConn")],
        WanService::Ppp1 => vec![wan(PPP_1, "/ctl/PPPConn")],
        WanService::Legacy => vec![wan(LEGACY, "upnp/control?WANPPPConnection")],
        WanService::IdleIpAndPpp => vec![
            Service { urn: IP_1, path: "/ctl/IPConn", kind: ServiceKind::IdleWan },
            wan(PPP_1, "/ctl/PPPConn"),
        ],
    };
    if upnp.pinholes {
        all.push(Service { urn: FIREWALL, path: "/ctl/IP6FCtl", kind: ServiceKind::Firewall });
    }
    all
}

/// The arguments of AddPortMapping, in the order of its description.
const ADD: [&str; 8] = [
    "NewRemoteHost",
    "NewExternalPort",
    "NewProtocol",
    "NewInternalPort",
    "NewInternalClient",
    "NewEnabled",
    "NewPortMappingDescription",
    "NewLeaseDuration",
];

type Values = Vec<(&'static str, String)>;

impl Router {
    /// An action is called at a path.
    pub(super) fn controls(
        &mut self,
        now: Instant,
        upnp: &UpnpProfile,
        from: IpAddr,
        path: &str,
        soap: &Soap,
    ) -> (u16, String) {
        let is_it =
            |one: &&Service| one.path.trim_start_matches('/') == path.trim_start_matches('/');
        let all = services(upnp);
        let Some(service) = all.iter().find(is_it) else {
            return (404, "<html><body><h1>404 Not Found</h1></body></html>".to_owned());
        };
        let done = self.called(now, upnp, from, service, soap);
        match done {
            Ok((action, values)) => (200, response(service.urn, action, &values)),
            Err(code) => (500, fault_response(code)),
        }
    }

    fn called<'a>(
        &mut self,
        now: Instant,
        upnp: &UpnpProfile,
        from: IpAddr,
        service: &Service,
        soap: &'a Soap,
    ) -> Result<(&'a str, Values), Fault> {
        let (urn, action) = soap.action.split_once('#').ok_or(INVALID_ACTION)?;
        // Version 2 answers to version 1's name, as real ones do.
        if urn != service.urn && !(service.urn == IP_2 && urn == IP_1) {
            self.complain(format!("UPnP: {urn} is called where {} is", service.urn));
            return Err(INVALID_ACTION);
        }
        let body = String::from_utf8_lossy(&soap.body).into_owned();
        let arguments = Arguments::read(&body, action).ok_or(INVALID_ARGS)?;
        let values = match service.kind {
            ServiceKind::Firewall => self.firewall(now, upnp, from, action, &arguments)?,
            ServiceKind::IdleWan => match action {
                "GetStatusInfo" => status("Disconnected", 0),
                "GetExternalIPAddress" => vec![("NewExternalIPAddress", String::new())],
                _ => return Err(ACTION_FAILED),
            },
            ServiceKind::Wan => self.wan_action(now, upnp, from, action, &arguments)?,
        };
        Ok((action, values))
    }

    fn wan_action(
        &mut self,
        now: Instant,
        upnp: &UpnpProfile,
        from: IpAddr,
        action: &str,
        arguments: &Arguments,
    ) -> Result<Values, Fault> {
        let second = upnp.service.is_second();
        match action {
            "GetStatusInfo" => Ok(status("Connected", self.uptime_s(now))),
            "GetExternalIPAddress" => Ok(vec![("NewExternalIPAddress", self.wan.to_string())]),
            "AddPortMapping" => self.add(now, upnp, from, arguments, false).map(|_| Vec::new()),
            "AddAnyPortMapping" if second => {
                let port = self.add(now, upnp, from, arguments, true)?;
                Ok(vec![("NewReservedPort", port.to_string())])
            }
            "DeletePortMapping" => {
                let key = self.key_of(upnp, arguments)?;
                self.delete(upnp, from, key)?;
                Ok(Vec::new())
            }
            "DeletePortMappingRange" if second => self.delete_range(upnp, from, arguments),
            "GetSpecificPortMappingEntry" => {
                let key = self.key_of(upnp, arguments)?;
                let held = self.table.ports.get(&key).ok_or(NO_SUCH_ENTRY)?;
                Ok(entry(now, held))
            }
            "GetGenericPortMappingEntry" => {
                let index: usize = arguments.number("NewPortMappingIndex")?;
                let (key, held) = self
                    .table
                    .ports
                    .iter()
                    .nth(index)
                    .ok_or((713, "SpecifiedArrayIndexInvalid"))?;
                let mut values = vec![
                    ("NewRemoteHost", String::new()),
                    ("NewExternalPort", key.1.to_string()),
                    ("NewProtocol", word(key.0).to_owned()),
                ];
                values.extend(entry(now, held));
                Ok(values)
            }
            "GetListOfPortMappings" if second => self.list(now, upnp, arguments),
            _ => Err(INVALID_ACTION),
        }
    }

    /// Make or renew a mapping; returns its external port.
    fn add(
        &mut self,
        now: Instant,
        upnp: &UpnpProfile,
        from: IpAddr,
        arguments: &Arguments,
        any: bool,
    ) -> Result<u16, Fault> {
        if !arguments.are(&ADD) {
            self.complain("UPnP: arguments in another order than that of the description");
            if upnp.strict_order {
                return Err(INVALID_ARGS);
            }
        }
        let (transport, mut port) = self.key_of(upnp, arguments)?;
        let internal_port: u16 = arguments.number("NewInternalPort")?;
        let client: IpAddr = arguments.number("NewInternalClient")?;
        let lease_s = lease(upnp, arguments.number("NewLeaseDuration")?)?;
        let description = arguments.text("NewPortMappingDescription")?.to_owned();
        let _enabled: u8 = arguments.number("NewEnabled")?;
        if port == 0 || internal_port == 0 {
            self.complain("UPnP: a mapping of every port");
            return Err((716, "WildCardNotPermittedInExtPort"));
        }
        if client != from {
            self.complain(format!("UPnP: a mapping for {client}, asked from {from}"));
            if upnp.secure {
                return Err((718, "ConflictInMappingEntry"));
            }
        }
        if port < 1_024 || upnp.service.is_second() && client != from || !self.may_grant(now) {
            return Err(NOT_AUTHORIZED);
        }
        if let Some(code) = upnp.map_code {
            return Err(fault(code));
        }
        if let Some(code) = upnp.other_port_code.filter(|_| port != internal_port) {
            return Err(fault(code));
        }
        let internal = SocketAddr::new(client, internal_port);
        let is_foreign =
            |held: &Held| held.internal != internal || held.by != MappingProtocol::Upnp;
        if self.table.ports.get(&(transport, port)).is_some_and(is_foreign) {
            if !any {
                return Err((718, "ConflictInMappingEntry"));
            }
            port = self.table.free_port(transport, port);
        }
        let key = (transport, port);
        if !self.table.ports.contains_key(&key) && self.is_full() {
            return Err(fault(upnp.full_code));
        }
        let fresh = self.new_held(now, MappingProtocol::Upnp, internal, key);
        let held = self.table.ports.entry(key).or_insert(fresh);
        held.until = if lease_s == 0 { None } else { end(now, lease_s) };
        held.description = description;
        Ok(port)
    }

    fn delete(&mut self, upnp: &UpnpProfile, from: IpAddr, key: PortKey) -> Result<(), Fault> {
        let held = self.table.ports.get(&key).ok_or(NO_SUCH_ENTRY)?;
        if held.internal.ip() != from {
            self.complain(format!("UPnP: somebody else's mapping is deleted, of port {}", key.1));
            if upnp.service.is_second() || upnp.secure {
                return Err(NOT_AUTHORIZED);
            }
        }
        self.table.delete_port(key);
        Ok(())
    }

    fn delete_range(
        &mut self,
        upnp: &UpnpProfile,
        from: IpAddr,
        arguments: &Arguments,
    ) -> Result<Values, Fault> {
        let (first, last): (u16, u16) =
            (arguments.number("NewStartPort")?, arguments.number("NewEndPort")?);
        let transport = self.transport_of(upnp, arguments)?;
        if first > last {
            return Err((733, "InconsistentParameters"));
        }
        let all = self.table.ports.range((transport, first)..=(transport, last));
        let keys: Vec<PortKey> =
            all.filter(|(_, held)| held.internal.ip() == from).map(|(key, _)| *key).collect();
        if keys.is_empty() {
            return Err((730, "PortMappingNotFound"));
        }
        keys.into_iter().for_each(|key| drop(self.table.delete_port(key)));
        Ok(Vec::new())
    }

    fn list(
        &mut self,
        now: Instant,
        upnp: &UpnpProfile,
        arguments: &Arguments,
    ) -> Result<Values, Fault> {
        let (first, last): (u16, u16) =
            (arguments.number("NewStartPort")?, arguments.number("NewEndPort")?);
        let transport = self.transport_of(upnp, arguments)?;
        let mut text =
            "<p:PortMappingList xmlns:p=\"urn:schemas-upnp-org:gw:WANIPConnection\">".to_owned();
        if first > last {
            return Err((733, "InconsistentParameters"));
        }
        for ((_, port), held) in self.table.ports.range((transport, first)..=(transport, last)) {
            let _ = write!(
                text,
                "<p:PortMappingEntry><p:NewRemoteHost></p:NewRemoteHost>\
                 <p:NewExternalPort>{port}</p:NewExternalPort><p:NewProtocol>{}</p:NewProtocol>\
                 <p:NewInternalPort>{}</p:NewInternalPort>\
                 <p:NewInternalClient>{}</p:NewInternalClient><p:NewEnabled>1</p:NewEnabled>\
                 <p:NewDescription>{}</p:NewDescription><p:NewLeaseTime>{}</p:NewLeaseTime>\
                 </p:PortMappingEntry>",
                word(transport),
                held.internal.port(),
                held.internal.ip(),
                held.description,
                held.left_s(now),
            );
        }
        text.push_str("</p:PortMappingList>");
        Ok(vec![("NewPortListing", text)])
    }

    fn key_of(&mut self, upnp: &UpnpProfile, arguments: &Arguments) -> Result<PortKey, Fault> {
        if !arguments.text("NewRemoteHost")?.is_empty() {
            return Err((726, "RemoteHostOnlySupportsWildcard"));
        }
        let port = arguments.number("NewExternalPort")?;
        Ok((self.transport_of(upnp, arguments)?, port))
    }

    fn transport_of(
        &mut self,
        upnp: &UpnpProfile,
        arguments: &Arguments,
    ) -> Result<Transport, Fault> {
        let given = arguments.text("NewProtocol")?;
        if given != given.to_uppercase() {
            self.complain("UPnP: a protocol in small letters");
            if upnp.capitals {
                return Err(INVALID_ARGS);
            }
        }
        match given.to_uppercase().as_str() {
            "TCP" => Ok(Transport::Tcp),
            "UDP" => Ok(Transport::Quic),
            _ => Err(INVALID_ARGS),
        }
    }
}

/// The lease that is granted, in seconds; 0 is for ever.
fn lease(upnp: &UpnpProfile, wanted_s: u32) -> Result<u32, Fault> {
    match upnp.leases {
        Leases::Any if upnp.service.is_second() => {
            Ok(if wanted_s == 0 { WEEK_S } else { wanted_s.min(WEEK_S) })
        }
        Leases::Any => Ok(wanted_s),
        Leases::PermanentOnly if wanted_s != 0 => Err(fault(725)),
        Leases::PermanentOnlyInvalid if wanted_s != 0 => Err(INVALID_ARGS),
        Leases::PermanentOnly | Leases::PermanentOnlyInvalid => Ok(0),
        Leases::UpToOneWeek if (1..=WEEK_S).contains(&wanted_s) => Ok(wanted_s),
        Leases::UpToOneWeek => Err(INVALID_ARGS),
    }
}

fn status(word: &str, uptime_s: u64) -> Values {
    vec![
        ("NewConnectionStatus", word.to_owned()),
        ("NewLastConnectionError", "ERROR_NONE".to_owned()),
        ("NewUptime", uptime_s.to_string()),
    ]
}

fn entry(now: Instant, held: &Held) -> Values {
    vec![
        ("NewInternalPort", held.internal.port().to_string()),
        ("NewInternalClient", held.internal.ip().to_string()),
        ("NewEnabled", "1".to_owned()),
        ("NewPortMappingDescription", held.description.clone()),
        ("NewLeaseDuration", held.left_s(now).to_string()),
    ]
}

fn word(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "TCP",
        Transport::Quic => "UDP",
    }
}
