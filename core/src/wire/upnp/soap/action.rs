//! What a service is asked to do.

use crate::wire::MapTransport;
use crate::wire::upnp::{ServiceType, xml};
use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use bytes::Bytes;
use core::net::{Ipv4Addr, Ipv6Addr};

/// An action with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Is the connection up?
    GetStatusInfo,
    /// What is the address outside?
    GetExternalIpAddress,
    /// Map exactly this port.
    AddPortMapping(PortMapping),
    /// Map this port, or any other (version 2).
    AddAnyPortMapping(PortMapping),
    /// Take a mapping away.
    DeletePortMapping {
        /// The port outside.
        external_port: u16,
        /// UDP or TCP.
        transport: MapTransport,
    },
    /// Who has this port?
    GetSpecificPortMappingEntry {
        /// The port outside.
        external_port: u16,
        /// UDP or TCP.
        transport: MapTransport,
    },
    /// What is the mapping of this number?
    GetGenericPortMappingEntry {
        /// Its place in the list, from 0.
        index: u16,
    },
    /// Does the firewall filter, and may pinholes be made?
    GetFirewallStatus,
    /// Open a pinhole for everybody.
    AddPinhole {
        /// The address that it leads to. The request has to come from there.
        client: Ipv6Addr,
        /// The port that it leads to.
        port: u16,
        /// UDP or TCP.
        transport: MapTransport,
        /// How long, in seconds, from 1 to 86,400.
        lease_s: u32,
    },
    /// Keep a pinhole open.
    UpdatePinhole {
        /// Which.
        id: u16,
        /// How long from now, in seconds.
        lease_s: u32,
    },
    /// Close a pinhole.
    DeletePinhole {
        /// Which.
        id: u16,
    },
    /// Has anything come in through a pinhole?
    CheckPinholeWorking {
        /// Which.
        id: u16,
    },
}

/// A mapping that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// The port outside; never 0, which some routers take for all of them.
    pub external_port: u16,
    /// UDP or TCP.
    pub transport: MapTransport,
    /// Our port.
    pub internal_port: u16,
    /// Our address.
    pub internal_client: Ipv4Addr,
    /// What the owner of the router may read.
    pub description: String,
    /// How long, in seconds; 0 is for ever.
    pub lease_s: u32,
}

impl Action {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Action::GetStatusInfo => "GetStatusInfo",
            Action::GetExternalIpAddress => "GetExternalIPAddress",
            Action::AddPortMapping(_) => "AddPortMapping",
            Action::AddAnyPortMapping(_) => "AddAnyPortMapping",
            Action::DeletePortMapping { .. } => "DeletePortMapping",
            Action::GetSpecificPortMappingEntry { .. } => "GetSpecificPortMappingEntry",
            Action::GetGenericPortMappingEntry { .. } => "GetGenericPortMappingEntry",
            Action::GetFirewallStatus => "GetFirewallStatus",
            Action::AddPinhole { .. } => "AddPinhole",
            Action::UpdatePinhole { .. } => "UpdatePinhole",
            Action::DeletePinhole { .. } => "DeletePinhole",
            Action::CheckPinholeWorking { .. } => "CheckPinholeWorking",
        }
    }

    /// What stands in the header of the request, without quotes.
    pub fn header(&self, service: ServiceType) -> String {
        alloc::format!("{}#{}", service.urn(), self.name())
    }

    /// The body of the request to this service.
    pub fn encode(&self, service: ServiceType) -> Bytes {
        let mut out = "<?xml version=\"1.0\"?>\r\n\
            <s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
            s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>"
            .to_owned();
        let name = self.name();
        out += &alloc::format!("<u:{name} xmlns:u=\"{}\">", service.urn());
        self.arguments(&mut |name, value| {
            out += &alloc::format!("<{name}>");
            xml::escape(value, &mut out);
            out += &alloc::format!("</{name}>");
        });
        out += &alloc::format!("</u:{name}></s:Body></s:Envelope>\r\n");
        out.into()
    }

    /// The arguments in the order in which the service defines them: some routers insist.
    fn arguments(&self, put: &mut dyn FnMut(&str, &str)) {
        match self {
            Action::GetStatusInfo | Action::GetExternalIpAddress | Action::GetFirewallStatus => {}
            Action::AddPortMapping(mapping) | Action::AddAnyPortMapping(mapping) => {
                mapping.arguments(put);
            }
            Action::DeletePortMapping { external_port, transport }
            | Action::GetSpecificPortMappingEntry { external_port, transport } => {
                put("NewRemoteHost", "");
                put("NewExternalPort", &external_port.to_string());
                put("NewProtocol", transport.name());
            }
            Action::GetGenericPortMappingEntry { index } => {
                put("NewPortMappingIndex", &index.to_string());
            }
            Action::AddPinhole { client, port, transport, lease_s } => {
                put("RemoteHost", "");
                put("RemotePort", "0");
                put("InternalClient", &client.to_string());
                put("InternalPort", &port.to_string());
                put("Protocol", &transport.protocol_number().to_string());
                put("LeaseTime", &lease_s.to_string());
            }
            Action::UpdatePinhole { id, lease_s } => {
                put("UniqueID", &id.to_string());
                put("NewLeaseTime", &lease_s.to_string());
            }
            Action::DeletePinhole { id } | Action::CheckPinholeWorking { id } => {
                put("UniqueID", &id.to_string());
            }
        }
    }
}

impl PortMapping {
    fn arguments(&self, put: &mut dyn FnMut(&str, &str)) {
        put("NewRemoteHost", "");
        put("NewExternalPort", &self.external_port.to_string());
        put("NewProtocol", self.transport.name());
        put("NewInternalPort", &self.internal_port.to_string());
        put("NewInternalClient", &self.internal_client.to_string());
        put("NewEnabled", "1");
        put("NewPortMappingDescription", &self.description);
        put("NewLeaseDuration", &self.lease_s.to_string());
    }
}
