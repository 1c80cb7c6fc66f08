//! Texts as routers have them.

use super::*;
use crate::wire::MapTransport;
use crate::wire::upnp::{ServiceType, XmlError};
use alloc::format;
use alloc::string::{String, ToString};

const SERVICE: ServiceType = ServiceType::WanIpConnection1;

fn body(action: &Action) -> String {
    String::from_utf8(action.encode(SERVICE).to_vec()).expect("text")
}

fn mapping() -> PortMapping {
    PortMapping {
        external_port: 4002,
        transport: MapTransport::Udp,
        internal_port: 4001,
        internal_client: [192, 168, 1, 2].into(),
        description: "<a> & \"b\"\u{1}".into(),
        lease_s: 7_200,
    }
}

fn answer(action: &Action, arguments: &str) -> Result<Answer, SoapError> {
    let name = action.name();
    let text = format!(
        "<?xml version=\"1.0\"?><SOAP-ENV:Envelope><SOAP-ENV:Body><m:{name}Response>{arguments}\
         </m:{name}Response></SOAP-ENV:Body></SOAP-ENV:Envelope>"
    );
    Answer::decode(action, 200, text.as_bytes())
}

fn fault(code: &str) -> String {
    format!(
        "<s:Envelope><s:Body><s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError\
         </faultstring><detail><e:UPnPError><e:errorCode> {code} </e:errorCode><errorDescription/>\
         </e:UPnPError></detail></s:Fault></s:Body></s:Envelope>"
    )
}

#[test]
fn arguments_stand_in_the_order_of_the_service() {
    let action = Action::AddPortMapping(mapping());
    let arguments = "<NewRemoteHost></NewRemoteHost><NewExternalPort>4002</NewExternalPort>\
        <NewProtocol>UDP</NewProtocol><NewInternalPort>4001</NewInternalPort>\
        <NewInternalClient>192.168.1.2</NewInternalClient><NewEnabled>1</NewEnabled>\
        <NewPortMappingDescription>&lt;a&gt; &amp; &quot;b&quot;</NewPortMappingDescription>\
        <NewLeaseDuration>7200</NewLeaseDuration>";
    let expected = format!(
        "<u:AddPortMapping xmlns:u=\"urn:schemas-upnp-org:service:WANIPConnection:1\">{arguments}\
         </u:AddPortMapping></s:Body></s:Envelope>\r\n"
    );
    assert!(body(&action).ends_with(&expected), "{}", body(&action));
    let header = "urn:schemas-upnp-org:service:WANIPConnection:1#AddPortMapping";
    assert_eq!(action.header(SERVICE), header);
    let pinhole = Action::AddPinhole {
        client: "2001:db8::1".parse().expect("an address"),
        port: 4001,
        transport: MapTransport::Tcp,
        lease_s: 3_600,
    };
    let arguments = "<RemoteHost></RemoteHost><RemotePort>0</RemotePort>\
        <InternalClient>2001:db8::1</InternalClient><InternalPort>4001</InternalPort>\
        <Protocol>6</Protocol><LeaseTime>3600</LeaseTime>";
    assert!(body(&pinhole).contains(arguments), "{}", body(&pinhole));
}

#[test]
fn answers_are_read_by_their_action() {
    let delete = Action::DeletePortMapping { external_port: 1, transport: MapTransport::Tcp };
    assert_eq!(answer(&delete, ""), Ok(Answer::Done));
    assert_eq!(Answer::decode(&delete, 200, b" \r\n"), Ok(Answer::Done));
    let ip = |text: &str| {
        let text = format!("<NewExternalIPAddress>{text}</NewExternalIPAddress>");
        answer(&Action::GetExternalIpAddress, &text)
    };
    assert_eq!(ip(" 203.0.113.9\n"), Ok(Answer::ExternalIp(Some([203, 0, 113, 9].into()))));
    assert_eq!(ip(""), Ok(Answer::ExternalIp(None)));
    assert_eq!(ip("none"), Err(SoapError::Argument { name: "NewExternalIPAddress" }));
    let status = "<NewConnectionStatus>Connected</NewConnectionStatus><NewUptime>7</NewUptime>";
    let expected = Answer::Status { connected: true, uptime_s: Some(7) };
    assert_eq!(answer(&Action::GetStatusInfo, status), Ok(expected));
    let any = Action::AddAnyPortMapping(mapping());
    let reserved = "<NewReservedPort>4003</NewReservedPort>";
    assert_eq!(answer(&any, reserved), Ok(Answer::Mapped { external_port: 4003 }));
    assert_eq!(answer(&any, ""), Err(SoapError::Argument { name: "NewReservedPort" }));
}

#[test]
fn entries_are_read_as_far_as_they_go() {
    let action = Action::GetGenericPortMappingEntry { index: 0 };
    let whole = "<NewRemoteHost/><NewExternalPort>80</NewExternalPort><NewProtocol>tcp</NewProtocol>\
        <NewInternalPort>8080</NewInternalPort><NewInternalClient>192.168.1.3</NewInternalClient>\
        <NewEnabled>0</NewEnabled><NewPortMappingDescription>web</NewPortMappingDescription>\
        <NewLeaseDuration>9</NewLeaseDuration>";
    let Ok(Answer::Entry(entry)) = answer(&action, whole) else { panic!("an entry") };
    let ports = (entry.external_port, entry.internal_port, entry.transport);
    assert_eq!(ports, (80, 8_080, MapTransport::Tcp));
    assert_eq!((entry.enabled, &*entry.description, entry.lease_s), (false, "web", 9));
    let action =
        Action::GetSpecificPortMappingEntry { external_port: 5, transport: MapTransport::Udp };
    let Ok(Answer::Entry(entry)) = answer(&action, "<NewInternalPort>6</NewInternalPort>") else {
        panic!("an entry")
    };
    assert_eq!((entry.external_port, entry.internal_client, entry.lease_s), (5, None, 0));
}

#[test]
fn firewalls_answer_too() {
    let flags = "<FirewallEnabled>1</FirewallEnabled>\
        <InboundPinholeAllowed>false</InboundPinholeAllowed>";
    let expected = Answer::Firewall { enabled: true, pinholes_allowed: false };
    assert_eq!(answer(&Action::GetFirewallStatus, flags), Ok(expected));
    let working = answer(&Action::CheckPinholeWorking { id: 1 }, "<IsWorking>1</IsWorking>");
    assert_eq!(working, Ok(Answer::Working(true)));
}

#[test]
fn faults_are_told_whatever_surrounds_them() {
    let action = Action::AddPortMapping(mapping());
    for status in [500, 200, 404] {
        let read = Answer::decode(&action, status, fault("725").as_bytes());
        assert_eq!(read, Ok(Answer::Fault(UpnpError::ONLY_PERMANENT_LEASES)));
    }
    let told = UpnpError::CONFLICT.to_string();
    assert_eq!(told, "error 718: conflict with another mapping");
    assert_eq!(UpnpError(999).to_string(), "error 999");
    let none = Answer::decode(&action, 500, fault("x").as_bytes());
    assert_eq!(none, Err(SoapError::Status { status: 500 }));
    assert_eq!(Answer::decode(&action, 404, b""), Err(SoapError::Status { status: 404 }));
    assert_eq!(Answer::decode(&action, 200, b"<html/>"), Err(SoapError::Other));
    let cut = Answer::decode(&action, 200, b"<a>");
    assert_eq!(cut, Err(SoapError::Xml(XmlError::Malformed)));
    let bomb = Answer::decode(&action, 200, b"<!DOCTYPE a><a/>");
    assert_eq!(bomb, Err(SoapError::Xml(XmlError::Doctype)));
}
