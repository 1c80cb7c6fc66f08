//! UPnP: how a router is found, described and asked. Texts of strangers on the local network, so
//! that every length and depth has a limit, and no reader follows anything it reads.
//!
//! - [`ssdp`] finds devices, [`http`] carries what is asked of them.
//! - [`description`] is what a device says it can do, [`soap`] asks it to do it.
//! - [`HttpUrl`] is where: an IP and a path, since no name is ever looked up.

pub mod description;
pub mod http;
pub mod soap;
pub mod ssdp;
mod url;
mod xml;

pub use url::{HttpUrl, PATH_MAX, UrlError};
pub use xml::{DEPTH_MAX, XmlError};

use alloc::string::String;

/// A service that maps ports or opens pinholes, better ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ServiceType {
    /// WANIPConnection:2.
    WanIpConnection2,
    /// WANIPConnection:1.
    WanIpConnection1,
    /// WANPPPConnection:1.
    WanPppConnection1,
    /// WANIPConnection:1 under the name of the DSL Forum, which some modems have alone.
    DslForumWanIpConnection1,
    /// WANPPPConnection:1 under the name of the DSL Forum.
    DslForumWanPppConnection1,
    /// WANIPv6FirewallControl:1, for pinholes.
    WanIpv6FirewallControl1,
}

impl ServiceType {
    /// All of them, better ones first.
    pub const ALL: [ServiceType; 6] = [
        ServiceType::WanIpConnection2,
        ServiceType::WanIpConnection1,
        ServiceType::WanPppConnection1,
        ServiceType::DslForumWanIpConnection1,
        ServiceType::DslForumWanPppConnection1,
        ServiceType::WanIpv6FirewallControl1,
    ];

    /// Its full name.
    pub fn urn(self) -> &'static str {
        match self {
            ServiceType::WanIpConnection2 => "urn:schemas-upnp-org:service:WANIPConnection:2",
            ServiceType::WanIpConnection1 => "urn:schemas-upnp-org:service:WANIPConnection:1",
            ServiceType::WanPppConnection1 => "urn:schemas-upnp-org:service:WANPPPConnection:1",
            ServiceType::DslForumWanIpConnection1 => "urn:dslforum-org:service:WANIPConnection:1",
            ServiceType::DslForumWanPppConnection1 => "urn:dslforum-org:service:WANPPPConnection:1",
            ServiceType::WanIpv6FirewallControl1 => {
                "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1"
            }
        }
    }

    /// The service of this name.
    pub fn from_urn(urn: &str) -> Option<ServiceType> {
        ServiceType::ALL.into_iter().find(|service| service.urn() == urn)
    }

    /// Whether it opens pinholes for IPv6, and maps nothing.
    pub fn is_firewall(self) -> bool {
        self == ServiceType::WanIpv6FirewallControl1
    }
}

/// What of a stranger's text can be shown: printable ASCII, at most `max` characters.
fn printable(text: &str, max: usize) -> String {
    let shown = text.chars().filter(|c| matches!(c, ' '..='~')).skip_while(|c| *c == ' ');
    let mut shown: String = shown.take(max).collect();
    shown.truncate(shown.trim_end().len());
    shown
}
