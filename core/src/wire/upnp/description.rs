//! What a device says of itself: the document that its LOCATION leads to. Only services that map
//! ports or open pinholes are kept.

use super::xml::{self, Piece};
use super::{HttpUrl, ServiceType, XmlError, printable};
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

/// Bytes of a document; ours, since those of routers have under ten thousand.
pub const DOCUMENT_MAX: usize = 65_536;
/// Services that are looked at, number; further ones are skipped.
pub const SERVICES_MAX: usize = 64;
/// Characters of a name; the rest is cut off.
pub const NAME_MAX: usize = 64;

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Description {
    /// What the root device is.
    pub device_type: DeviceType,
    /// What its owner may call it: printable ASCII, at most [`NAME_MAX`].
    pub friendly_name: String,
    /// Who made it, likewise.
    pub manufacturer: String,
    /// What it was sold as, likewise.
    pub model_name: String,
    /// Its services of use, in the order of the document.
    pub services: Vec<Service>,
}

/// What a root device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DeviceType {
    /// InternetGatewayDevice:1.
    Igd1,
    /// InternetGatewayDevice:2.
    Igd2,
    /// Something else.
    Other,
}

/// A service and where it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Service {
    /// What it is.
    pub service_type: ServiceType,
    /// Where actions are posted. It may lead to another host than the document came from.
    pub control_url: HttpUrl,
}

/// What stands between the tags, before it is known what the URLs are relative to.
#[derive(Default)]
struct Found {
    base: Option<String>,
    device_type: Option<String>,
    friendly_name: Option<String>,
    manufacturer: Option<String>,
    model_name: Option<String>,
    services: Vec<(ServiceType, String)>,
    seen: usize,
    service_type: String,
    control_url: String,
}

impl Description {
    /// Read a document that was fetched from `location`. A service whose control URL cannot be
    /// followed is left out.
    pub fn decode(document: &[u8], location: &HttpUrl) -> Result<Description, XmlError> {
        let mut found = Found::default();
        xml::read(document, DOCUMENT_MAX, |piece| found.take(piece))?;
        // UPnP Device Architecture 1.0 §2.1: relative to URLBase, or else to LOCATION.
        let base = found.base.and_then(|base| HttpUrl::parse(&base).ok());
        let base = base.as_ref().unwrap_or(location);
        let services = found.services.into_iter().filter_map(|(service_type, url)| {
            let control_url = base.join(&url).ok()?;
            Some(Service { service_type, control_url })
        });
        Ok(Description {
            device_type: device_type(found.device_type.as_deref().unwrap_or_default()),
            services: services.collect(),
            friendly_name: found.friendly_name.unwrap_or_default(),
            manufacturer: found.manufacturer.unwrap_or_default(),
            model_name: found.model_name.unwrap_or_default(),
        })
    }
}

impl Found {
    fn take(&mut self, piece: Piece<'_>) {
        let (name, text) = match piece {
            Piece::Open("service") => {
                self.service_type.clear();
                return self.control_url.clear();
            }
            Piece::Open(_) => return,
            Piece::Close(name, text) => (name, text),
        };
        // Of what stands once in every device the first counts: the root's.
        let shown = |field: &mut Option<String>| {
            field.get_or_insert_with(|| printable(text, NAME_MAX));
        };
        match name {
            "URLBase" if !text.is_empty() => self.base = Some(text.to_owned()),
            "deviceType" => shown(&mut self.device_type),
            "friendlyName" => shown(&mut self.friendly_name),
            "manufacturer" => shown(&mut self.manufacturer),
            "modelName" => shown(&mut self.model_name),
            "serviceType" => text.clone_into(&mut self.service_type),
            "controlURL" => text.clone_into(&mut self.control_url),
            "service" => {
                self.seen += 1;
                let service_type = ServiceType::from_urn(&self.service_type);
                let usable = self.seen <= SERVICES_MAX && !self.control_url.is_empty();
                if let Some(service_type) = service_type.filter(|_| usable) {
                    self.services.push((service_type, self.control_url.clone()));
                }
            }
            _ => {}
        }
    }
}

fn device_type(urn: &str) -> DeviceType {
    // The DSL Forum has its own name for the same device, as for the services.
    match urn.rsplit_once(":device:").map(|(_, name)| name) {
        Some("InternetGatewayDevice:1") => DeviceType::Igd1,
        Some("InternetGatewayDevice:2") => DeviceType::Igd2,
        Some(_) | None => DeviceType::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;

    /// The shape of miniupnpd's: three devices in each other, paths relative to the root.
    const MINIUPNPD: &str = r#"<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major><minor>1</minor></specVersion>
<device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:2</deviceType>
<friendlyName>Attic &amp; cellar</friendlyName><manufacturer>Some</manufacturer><modelName>Router</modelName>
<serviceList><service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType>
<controlURL>/ctl/L3F</controlURL></service></serviceList>
<deviceList><device><deviceType>urn:schemas-upnp-org:device:WANDevice:2</deviceType><friendlyName>WANDevice</friendlyName>
<deviceList><device><deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:2</deviceType><serviceList>
<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:2</serviceType><controlURL>/ctl/IPConn</controlURL></service>
<service><serviceType>urn:schemas-upnp-org:service:WANIPv6FirewallControl:1</serviceType><controlURL>/ctl/IP6FCtl</controlURL></service>
</serviceList></device></deviceList></device></deviceList></device></root>"#;

    fn location() -> HttpUrl {
        HttpUrl::parse("http://192.168.1.1:5000/rootDesc.xml").expect("a URL")
    }

    fn of(document: &str) -> Description {
        Description::decode(document.as_bytes(), &location()).expect("a description")
    }

    fn services(description: &Description) -> Vec<String> {
        let services = description.services.iter();
        services.map(|one| format!("{:?} {}", one.service_type, one.control_url)).collect()
    }

    #[test]
    fn a_router_of_version_2_is_read() {
        let read = of(MINIUPNPD);
        assert_eq!(read.device_type, DeviceType::Igd2);
        assert_eq!((&*read.friendly_name, &*read.model_name), ("Attic & cellar", "Router"));
        let expected = [
            "WanIpConnection2 http://192.168.1.1:5000/ctl/IPConn",
            "WanIpv6FirewallControl1 http://192.168.1.1:5000/ctl/IP6FCtl",
        ];
        assert_eq!(services(&read), expected);
    }

    #[test]
    fn modems_of_the_dsl_forum_are_read() {
        let document = "<root><URLBase>http://192.168.1.1:37215/up/</URLBase><device>\
            <deviceType>urn:dslforum-org:device:InternetGatewayDevice:1</deviceType><serviceList>\
            <service><controlURL>ctrl</controlURL>\
            <serviceType> urn:dslforum-org:service:WANPPPConnection:1 </serviceType></service>\
            <service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>\
            <controlURL>http://router/</controlURL></service>\
            </serviceList></device></root>";
        let read = of(document);
        assert_eq!(read.device_type, DeviceType::Igd1);
        let expected = ["DslForumWanPppConnection1 http://192.168.1.1:37215/up/ctrl"];
        assert_eq!(services(&read), expected);
    }

    #[test]
    fn names_are_made_fit_to_be_shown() {
        let name = format!("\u{1b}[31m{}\u{202e}", "n".repeat(100));
        let read = of(&format!("<root><friendlyName>{name}</friendlyName></root>"));
        assert_eq!(read.friendly_name, format!("[31m{}", "n".repeat(60)));
        assert_eq!(read.device_type, DeviceType::Other);
        assert_eq!(of("<root/>").services, []);
    }

    #[test]
    fn limits_hold() {
        let one = "<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1\
            </serviceType><controlURL>/c</controlURL></service>";
        let many = of(&format!("<root>{}</root>", one.repeat(100)));
        assert_eq!(many.services.len(), SERVICES_MAX);
        let long = " ".repeat(DOCUMENT_MAX + 1).to_string();
        let error = Err(XmlError::TooLong { max: DOCUMENT_MAX });
        assert_eq!(Description::decode(long.as_bytes(), &location()), error);
        for len in 0..MINIUPNPD.len() {
            assert!(Description::decode(&MINIUPNPD.as_bytes()[..len], &location()).is_err());
        }
    }
}
