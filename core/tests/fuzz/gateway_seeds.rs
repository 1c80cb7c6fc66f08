//! The files that the corpora of gateways begin with.

use portolan_core::wire::MapTransport;
use portolan_core::wire::{nat_pmp, pcp};
use std::net::IpAddr;

type Files = Vec<(&'static str, Vec<u8>)>;

/// By target.
pub(crate) fn all() -> Vec<(&'static str, Files)> {
    vec![
        ("nat_pmp", nat_pmps()),
        ("pcp", pcps()),
        ("ssdp", ssdps()),
        ("http", https()),
        ("description", descriptions()),
        ("soap", soaps()),
    ]
}

fn nat_pmps() -> Files {
    let map = nat_pmp::Request::Map {
        transport: MapTransport::Udp,
        internal_port: 4001,
        external_port: 4001,
        lifetime_s: 7_200,
    };
    vec![
        ("request-for-the-address", vec![0, 0]),
        ("request-for-a-mapping", map.encode().to_vec()),
        ("address", vec![0, 128, 0, 0, 0, 0, 0, 1, 203, 0, 113, 9]),
        ("mapping", vec![0, 129, 0, 0, 0, 0, 0, 1, 15, 161, 15, 161, 0, 0, 28, 32]),
        ("refused", vec![0, 130, 0, 2, 0, 0, 0, 1, 15, 161, 0, 0, 0, 0, 0, 0]),
        ("other-version", vec![0, 0, 0, 1, 0, 0, 0, 1]),
        ("echoed", vec![0, 129, 0, 5, 15, 161, 15, 161, 0, 0, 28, 32]),
        ("bare", vec![0, 128]),
    ]
}

fn pcps() -> Files {
    let client: IpAddr = [192, 168, 1, 2].into();
    let mut map = pcp::MapRequest::new([7; 12], MapTransport::Tcp, 4001, pcp::unspecified(client));
    let plain = pcp::Request::map(client, 7_200, map.clone()).encode().to_vec();
    map.prefer_failure = true;
    map.third_party = Some([192, 168, 1, 3].into());
    map.filters = vec![pcp::Filter { prefix_len: 128, port: 0, ip: client }];
    let answer = pcp::ResponseBody::Map(pcp::MapResponse::to(&map, [203, 0, 113, 9].into(), 5));
    let answer = pcp::Response::new(pcp::ResultCode::Success, 60, 7, answer).encode().to_vec();
    vec![
        ("asked", pcp::Request::announced(client).encode().to_vec()),
        ("map", plain.clone()),
        ("all-options", pcp::Request::map(client, 7_200, map).encode().to_vec()),
        ("unknown-option", [&plain[..], &[130, 0, 0, 1, 9, 0, 0, 0]].concat()),
        ("option-beyond-the-end", [&plain[..], &[3, 0, 0xff, 0xff]].concat()),
        ("mapping", answer.clone()),
        ("error-without-the-rest", [&[2, 129, 0, 8], &answer[4..24]].concat()),
    ]
}

fn ssdps() -> Files {
    let found = "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: upnp:rootdevice\r\n\
        USN: uuid:1::upnp:rootdevice\r\nEXT:\r\nSERVER: Linux UPnP/1.1 MiniUPnPd/2.3\r\n\
        LOCATION: http://192.168.1.1:5000/rootDesc.xml\r\nBOOTID.UPNP.ORG: 7\r\n\r\n";
    let alive = found
        .replace("HTTP/1.1 200 OK", "NOTIFY * HTTP/1.1\r\nNTS: ssdp:alive")
        .replace("ST:", "NT:");
    vec![
        ("found", found.into()),
        ("alive", alive.clone().into()),
        ("bye", alive.replace("alive", "byebye").replace("LOCATION", "X").into()),
        ("location-with-a-name", found.replace("192.168.1.1", "router").into()),
        ("search", "M-SEARCH * HTTP/1.1\r\nST: ssdp:all\r\nMX: 1\r\n\r\n".into()),
        ("no-end", "HTTP/1.0 200 OK\nST : a\n".into()),
        ("refused", "HTTP/1.1 404 No\r\n\r\n".into()),
    ]
}

fn https() -> Files {
    let of = |text: &str| [b"\x02", text.as_bytes()].concat();
    vec![
        ("length", of("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<a/>")),
        ("to-the-end", of("HTTP/1.0 200 OK\r\n\r\n<a/>")),
        (
            "chunks",
            of("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                2;x\r\n<a\r\n2\r\n/>\r\n0\r\nX: y\r\n\r\n"),
        ),
        (
            "interim",
            of("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"),
        ),
        ("redirected", of("HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n")),
        ("gzip", of("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n")),
        ("too-long", of("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n")),
    ]
}

fn descriptions() -> Files {
    let whole = "<?xml version=\"1.0\"?><root><URLBase>http://192.168.1.1:80/</URLBase><device>\
        <deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType>\
        <friendlyName>A &amp; B</friendlyName><serviceList><service>\
        <serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>\
        <controlURL>/ctl</controlURL></service></serviceList></device></root>";
    let forum = whole.replace("schemas-upnp-org:service:WANIP", "dslforum-org:service:WANPPP");
    vec![
        ("router", whole.into()),
        ("dsl-forum", forum.into()),
        ("bomb", "<!DOCTYPE a [<!ENTITY b \"bb\">]><a>&b;</a>".into()),
        ("unknown-entity", "<a>&b;</a>".into()),
        ("deep", "<a>".repeat(40).into()),
        ("url", "http://[fe80::1%25eth0]:49000/igd.xml?x#y".into()),
        ("reference", "../a/./b".into()),
    ]
}

fn soaps() -> Files {
    let of = |asked: u8, status: u8, body: &str| [&[asked, status], body.as_bytes()].concat();
    let ip = "<s:Envelope><s:Body><u:GetExternalIPAddressResponse><NewExternalIPAddress>\
        203.0.113.9</NewExternalIPAddress></u:GetExternalIPAddressResponse></s:Body></s:Envelope>";
    let fault = "<s:Envelope><s:Fault><detail><UPnPError><errorCode>725</errorCode></UPnPError>\
        </detail></s:Fault></s:Envelope>";
    let entry = "<a><bResponse><NewExternalPort>1</NewExternalPort><NewProtocol>UDP</NewProtocol>\
        <NewInternalPort>2</NewInternalPort><NewInternalClient>10.0.0.1</NewInternalClient>\
        </bResponse></a>";
    vec![
        ("address", of(1, 0, ip)),
        ("fault", of(2, 1, fault)),
        ("entry", of(4, 0, entry)),
        ("nothing", of(2, 0, "")),
        ("page-of-html", of(0, 2, "<html><body>404</body></html>")),
    ]
}
