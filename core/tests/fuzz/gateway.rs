//! Targets: what gateways say, in NAT-PMP, PCP and UPnP.

use crate::trail::{Trail, magnitude, variant};
use portolan_core::wire::upnp::description::{Description, SERVICES_MAX};
use portolan_core::wire::upnp::http::{
    BODY_MAX, HttpError, HttpResponse, Progress, ResponseReader,
};
use portolan_core::wire::upnp::soap::{Action, Answer};
use portolan_core::wire::upnp::{HttpUrl, ssdp};
use portolan_core::wire::{MapTransport, nat_pmp, pcp, version};

/// Both directions; what was read is written and read alike.
pub(crate) fn nat_pmp(bytes: &[u8], trail: &mut Trail) {
    match nat_pmp::Request::decode(bytes) {
        Ok(request) => {
            trail.saw(format_args!("request {}", variant(&request)));
            assert_eq!(nat_pmp::Request::decode(&request.encode()), Ok(request));
            assert!(nat_pmp::Response::decode(bytes).is_err() || bytes.len() < 4);
        }
        Err(error) => trail.saw(format_args!("request {}", variant(&error))),
    }
    match nat_pmp::Response::decode(bytes) {
        Ok(response) => {
            trail.saw(format_args!("response {}", variant(&response)));
            assert_eq!(version(bytes), Some(nat_pmp::VERSION));
            let written = response.encode();
            assert!(written.len() <= 16);
            assert_eq!(nat_pmp::Response::decode(&written), Ok(response));
        }
        Err(error) => trail.saw(format_args!("response {}", variant(&error))),
    }
    if let Some(echoed) = nat_pmp::unsupported_opcode(bytes) {
        assert!(nat_pmp::Response::decode(&echoed).is_ok());
    }
}

/// Both directions; what was read is written and read alike.
pub(crate) fn pcp(bytes: &[u8], trail: &mut Trail) {
    match pcp::Request::decode(bytes) {
        Ok(request) => {
            trail.saw(format_args!("request {}", variant(&request.body)));
            let written = request.encode();
            assert!(written.len() <= pcp::DATAGRAM_MAX && written.len() % 4 == 0);
            if let pcp::RequestBody::Map(map) = &request.body {
                trail.saw(format_args!("{} filters", magnitude(map.filters.len())));
                trail.saw(format_args!("{} {:?}", map.prefer_failure, map.third_party.is_some()));
            }
            assert_eq!(pcp::Request::decode(&written), Ok(request));
        }
        Err(error) => {
            trail.saw(format_args!("request {} {:?}", variant(&error), error.result_code()))
        }
    }
    match pcp::Response::decode(bytes) {
        Ok(response) => {
            trail.saw(format_args!("{} {}", variant(&response.code), variant(&response.body)));
            assert_eq!(version(bytes), Some(pcp::VERSION));
            assert_eq!(pcp::Response::decode(&response.encode()), Ok(response));
        }
        Err(error) => trail.saw(format_args!("response {}", variant(&error))),
    }
    if let Some(refused) = pcp::refusal(bytes, pcp::ResultCode::NotAuthorized, 1, 2) {
        let read = pcp::Response::decode(&refused).expect("a refusal is a response");
        assert_eq!((read.code, read.epoch), (pcp::ResultCode::NotAuthorized, 2));
    }
}

/// A device that was read can be told again.
pub(crate) fn ssdp(bytes: &[u8], trail: &mut Trail) {
    match ssdp::Message::decode(bytes) {
        Ok(message) => {
            trail.saw(format_args!("{}", variant(&message)));
            if let ssdp::Message::Found(device) | ssdp::Message::Notify { device, .. } = message {
                let texts = [&device.target, &device.usn, &device.server];
                assert!(texts.iter().all(|text| text.len() <= ssdp::NAME_MAX));
                let again = ssdp::Message::decode(&device.answer());
                assert_eq!(again, Ok(ssdp::Message::Found(device)));
            }
        }
        Err(error) => trail.saw(format_args!("{}", variant(&error))),
    }
}

/// The first byte says how the stream is cut, which must make no difference.
pub(crate) fn http(bytes: &[u8], trail: &mut Trail) {
    let [cut, stream @ ..] = bytes else { return };
    let whole = response(stream, stream.len().max(1));
    assert_eq!(whole, response(stream, usize::from(*cut) + 1));
    match whole {
        Ok(response) => {
            assert!(response.body.len() <= BODY_MAX && response.body.len() <= stream.len());
            assert!(!(300..400).contains(&response.status));
            trail.saw(format_args!("{} {}", response.status / 100, magnitude(response.body.len())));
        }
        Err(error) => trail.saw(format_args!("{}", variant(&error))),
    }
}

fn response(stream: &[u8], by: usize) -> Result<HttpResponse, HttpError> {
    let mut reader = ResponseReader::default();
    for part in stream.chunks(by) {
        if reader.push(part)? == Progress::Done {
            assert_eq!(reader.push(b"more"), Ok(Progress::Done));
        }
    }
    reader.finish()
}

/// A description, and as a text the URLs in it.
pub(crate) fn description(bytes: &[u8], trail: &mut Trail) {
    let location = HttpUrl::parse("http://192.168.1.1:5000/a/root.xml").expect("a URL");
    match Description::decode(bytes, &location) {
        Ok(read) => {
            trail.saw(format_args!("{:?} {}", read.device_type, read.friendly_name.len()));
            assert!(read.services.len() <= SERVICES_MAX);
            for service in read.services {
                trail.saw(format_args!("{:?}", service.service_type));
                let text = service.control_url.to_string();
                assert_eq!(HttpUrl::parse(&text), Ok(service.control_url));
            }
        }
        Err(error) => trail.saw(format_args!("{}", variant(&error))),
    }
    let text = String::from_utf8_lossy(bytes);
    for url in [HttpUrl::parse(&text), location.join(&text)] {
        match url {
            Ok(url) => assert_eq!(HttpUrl::parse(&url.to_string()), Ok(url)),
            Err(error) => trail.saw(format_args!("{}", variant(&error))),
        }
    }
}

/// The first two bytes say what was asked, and the status.
pub(crate) fn soap(bytes: &[u8], trail: &mut Trail) {
    let [asked, status, body @ ..] = bytes else { return };
    let transport = MapTransport::Udp;
    let action = match asked % 8 {
        0 => Action::GetStatusInfo,
        1 => Action::GetExternalIpAddress,
        2 => Action::DeletePortMapping { external_port: 1, transport },
        3 => Action::GetSpecificPortMappingEntry { external_port: 1, transport },
        4 => Action::GetGenericPortMappingEntry { index: 0 },
        5 => Action::GetFirewallStatus,
        6 => Action::CheckPinholeWorking { id: 1 },
        _ => Action::DeletePinhole { id: 1 },
    };
    let status = [200, 500, 404][usize::from(*status) % 3];
    match Answer::decode(&action, status, body) {
        Ok(answer) => trail.saw(format_args!("{} {}", action.name(), variant(&answer))),
        Err(error) => trail.saw(format_args!("{} {}", action.name(), variant(&error))),
    }
}
