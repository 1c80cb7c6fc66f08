//! The description of a router: its tree of devices and services, as real ones word it.

use super::Router;
use super::igd::{Service, services};
use super::profiles::{UpnpProfile, WanService};
use super::ssdp::{OTHER_PATH, ROOT_PATH};
use std::net::IpAddr;

/// Descriptions of services, which nobody needs to read.
const SCPD_PATH: &str = "/scpd.xml";

impl Router {
    /// The document at a path.
    pub(super) fn describes(
        &mut self,
        upnp: &UpnpProfile,
        from: IpAddr,
        path: &str,
    ) -> (u16, String) {
        match path {
            ROOT_PATH => (200, self.root(upnp, from)),
            OTHER_PATH => (200, other()),
            SCPD_PATH => (200, "<?xml version=\"1.0\"?><scpd><actionList/></scpd>".to_owned()),
            _ => (404, "<html><body><h1>404 Not Found</h1></body></html>".to_owned()),
        }
    }

    fn root(&self, upnp: &UpnpProfile, from: IpAddr) -> String {
        let legacy = upnp.service == WanService::Legacy;
        let house = if legacy { "urn:dslforum-org" } else { "urn:schemas-upnp-org" };
        let version = if upnp.service.is_second() { 2 } else { 1 };
        let connection: String = services(upnp).iter().map(service).collect();
        // Some old ones have a base, which is as absolute as it is superfluous.
        let base = match (legacy, from) {
            (true, IpAddr::V4(_)) => {
                format!("<URLBase>http://{}:{}/</URLBase>", self.ip4, self.http_port)
            }
            _ => String::new(),
        };
        format!(
            "<?xml version=\"1.0\"?>\n\
             <root xmlns=\"urn:schemas-upnp-org:device-1-0\" configId=\"1337\">\
             <specVersion><major>1</major><minor>{version}</minor></specVersion>{base}\
             <device><deviceType>{house}:device:InternetGatewayDevice:{version}</deviceType>\
             <friendlyName>Router &amp; Modem</friendlyName><manufacturer>Simulated</manufacturer>\
             <modelName>Simulated</modelName><UDN>uuid:5f9c0b4e-7d3a-4c1b-9e2f-000000000000</UDN>\
             <serviceList><service>\
             <serviceType>{house}:service:Layer3Forwarding:1</serviceType>\
             <serviceId>urn:upnp-org:serviceId:L3Forwarding1</serviceId>\
             <SCPDURL>{SCPD_PATH}</SCPDURL><controlURL>/ctl/L3F</controlURL>\
             <eventSubURL>/evt/L3F</eventSubURL></service></serviceList>\
             <deviceList><device><deviceType>{house}:device:WANDevice:{version}</deviceType>\
             <friendlyName>WANDevice</friendlyName>\
             <UDN>uuid:5f9c0b4e-7d3a-4c1b-9e2f-000000000001</UDN>\
             <serviceList><service>\
             <serviceType>{house}:service:WANCommonInterfaceConfig:1</serviceType>\
             <serviceId>urn:upnp-org:serviceId:WANCommonIFC1</serviceId>\
             <SCPDURL>{SCPD_PATH}</SCPDURL><controlURL>/ctl/CmnIfCfg</controlURL>\
             <eventSubURL>/evt/CmnIfCfg</eventSubURL></service></serviceList>\
             <deviceList><device><deviceType>{house}:device:WANConnectionDevice:{version}</deviceType>\
             <friendlyName>WANConnectionDevice</friendlyName>\
             <UDN>uuid:5f9c0b4e-7d3a-4c1b-9e2f-000000000002</UDN>\
             <serviceList>{connection}</serviceList>\
             </device></deviceList></device></deviceList>\
             <presentationURL>http://{}/</presentationURL></device></root>\r\n",
            self.ip4,
        )
    }
}

fn service(service: &Service) -> String {
    let Service { urn, path, .. } = service;
    format!(
        "<service><serviceType>{urn}</serviceType>\
         <serviceId>urn:upnp-org:serviceId:{}</serviceId>\
         <SCPDURL>{SCPD_PATH}</SCPDURL><controlURL>{path}</controlURL>\
         <eventSubURL>{}</eventSubURL></service>",
        urn.rsplit(':').nth(1).unwrap_or_default(),
        path.replace("ctl", "evt"),
    )
}

/// A descriptor that is none of a gateway.
fn other() -> String {
    "<?xml version=\"1.0\"?><root xmlns=\"urn:schemas-upnp-org:device-1-0\">\
     <specVersion><major>1</major><minor>0</minor></specVersion><device>\
     <deviceType>urn:schemas-wifialliance-org:device:WFADevice:1</deviceType>\
     <friendlyName>WPS</friendlyName><UDN>uuid:5f9c0b4e-7d3a-4c1b-9e2f-000000000009</UDN>\
     <serviceList><service>\
     <serviceType>urn:schemas-wifialliance-org:service:WFAWLANConfig:1</serviceType>\
     <serviceId>urn:wifialliance-org:serviceId:WFAWLANConfig1</serviceId>\
     <SCPDURL>/wps_scpd.xml</SCPDURL><controlURL>/wps_control</controlURL>\
     <eventSubURL>/wps_event</eventSubURL></service></serviceList></device></root>"
        .to_owned()
}
