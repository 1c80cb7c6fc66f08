//! UPnP: searches, descriptions, mappings, pinholes.

use super::*;

const FIREWALL: &str = "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1";
const IP_2: &str = "urn:schemas-upnp-org:service:WANIPConnection:2";

#[test]
fn it_is_found_by_what_it_is() {
    let mut router = router("upnp-v1-only");
    let all = found(&mut router, GROUP, "ssdp:all");
    assert_eq!(all.len(), 5);
    for st in [IGD_1, IP_1, "upnp:rootdevice"] {
        let one = found(&mut router, GROUP, st);
        assert_eq!(one.len(), 1, "{st}");
        assert!(one[0].starts_with("HTTP/1.1 200 OK\r\n") && one[0].ends_with("\r\n\r\n"));
        assert!(one[0].contains(&format!("\r\nST: {st}\r\n")));
        assert!(one[0].contains("LOCATION: http://192.168.1.1:49152/rootDesc.xml\r\n"));
        assert!(one[0].contains("BOOTID.UPNP.ORG: 1\r\n"));
    }
    assert_eq!(found(&mut router, GROUP, IP_2), [""; 0]);
    assert_eq!(found(&mut router, "192.168.1.1:1900", IGD_1).len(), 1);
    assert_eq!(router.complaints(), [""; 0]);
    let bad = search(IGD_1).replace('"', "");
    assert_eq!(ask(&mut router, at(1), socket(GROUP), bad.as_bytes()), [""; 0]);
    assert_eq!(router.complaints().len(), 1);
    let mut second = super::router("upnp-v2-only");
    assert_eq!(found(&mut second, GROUP, IGD_1).len(), 1, "version 2 answers for 1");
    let six = second.datagram(
        at(1),
        socket("[fe80::7]:40000"),
        socket("[ff02::c]:1900"),
        search(IGD_1).replace(GROUP, "[FF02::C]:1900").as_bytes(),
    );
    let [Output::Datagram { body, .. }] = six.as_slice() else { panic!("{six:?}") };
    assert!(String::from_utf8_lossy(body).contains("LOCATION: http://[fe80::1]:49152/"));
}

#[test]
fn the_tree_holds_the_services() {
    for (name, urns) in [
        ("upnp-v1-only", &[IP_1][..]),
        ("upnp-v2-only", &[IP_2, FIREWALL]),
        ("ppp", &["urn:schemas-upnp-org:service:WANPPPConnection:1"]),
        ("legacy", &["urn:dslforum-org:service:WANPPPConnection:1"]),
    ] {
        let (status, text) = get(&mut router(name), "/rootDesc.xml");
        assert_eq!(status, 200);
        for urn in urns {
            assert!(text.contains(&format!("<serviceType>{urn}</serviceType>")), "{name} {text}");
        }
        assert_eq!(text.matches('<').count(), text.matches('>').count());
        assert_eq!(text.matches("<device>").count(), text.matches("</device>").count());
    }
    assert_eq!(get(&mut router("upnp-v1-only"), "/nothing").0, 404);
}

#[test]
fn a_mapping_is_added_listed_renewed_and_deleted() {
    let mut router = router("upnp-v1-only");
    assert_eq!(add(&mut router, at(1), 6000, 600).0, 200);
    assert_eq!(add(&mut router, at(2), 6000, 1_200).0, 200);
    let inside = Some(socket("192.168.1.7:4001"));
    assert_eq!(router.forwards(at(1_201), Transport::Tcp, 6000), inside);
    assert_eq!(router.forwards(at(1_202), Transport::Tcp, 6000), None);
    let key = [("NewRemoteHost", ""), ("NewExternalPort", "6000"), ("NewProtocol", "TCP")];
    let entry = ("/ctl/IPConn", IP_1, "GetSpecificPortMappingEntry");
    let (status, text) = call(&mut router, at(102), entry, &key);
    assert_eq!(status, 200);
    for part in [
        "<NewInternalPort>4001</NewInternalPort>",
        "<NewInternalClient>192.168.1.7</NewInternalClient>",
        "<NewEnabled>1</NewEnabled>",
        "<NewPortMappingDescription>test</NewPortMappingDescription>",
        "<NewLeaseDuration>1100</NewLeaseDuration>",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let generic = ("/ctl/IPConn", IP_1, "GetGenericPortMappingEntry");
    let (_, text) = call(&mut router, at(102), generic, &[("NewPortMappingIndex", "0")]);
    assert!(text.contains("<NewExternalPort>6000</NewExternalPort>"));
    let (_, text) = call(&mut router, at(102), generic, &[("NewPortMappingIndex", "1")]);
    assert_eq!(error_code(&text), Some(713));
    let delete = ("/ctl/IPConn", IP_1, "DeletePortMapping");
    assert_eq!(call(&mut router, at(103), delete, &key).0, 200);
    let (status, text) = call(&mut router, at(103), delete, &key);
    assert_eq!((status, error_code(&text)), (500, Some(714)));
    let (_, text) = call(&mut router, at(103), entry, &key);
    assert_eq!(error_code(&text), Some(714));
    assert_eq!(add(&mut router, at(104), 6000, 0).0, 200);
    assert!(router.forwards(at(1_000_000), Transport::Tcp, 6000).is_some(), "it is permanent");
    assert_eq!(router.complaints(), [""; 0]);
}

#[test]
fn somebody_elses_port_is_a_conflict() {
    let mut router = router("upnp-v1-only");
    router.occupy(at(0), Transport::Tcp, 6000, socket("192.168.1.9:80"));
    let (status, text) = add(&mut router, at(1), 6000, 600);
    assert_eq!((status, error_code(&text)), (500, Some(718)));
    let (_, text) = add(&mut router, at(1), 80, 600);
    assert_eq!(error_code(&text), Some(606));
    let (_, text) = add(&mut router, at(1), 0, 600);
    assert_eq!(error_code(&text), Some(716));
}

#[test]
fn the_second_version_chooses_ports_itself() {
    let mut router = router("upnp-v2-only");
    router.occupy(at(0), Transport::Tcp, 6000, socket("192.168.1.9:80"));
    let arguments = [
        ("NewRemoteHost", ""),
        ("NewExternalPort", "6000"),
        ("NewProtocol", "TCP"),
        ("NewInternalPort", "4001"),
        ("NewInternalClient", "192.168.1.7"),
        ("NewEnabled", "1"),
        ("NewPortMappingDescription", "test"),
        ("NewLeaseDuration", "0"),
    ];
    let any = ("/ctl/IPConn", IP_2, "AddAnyPortMapping");
    let (_, text) = call(&mut router, at(1), any, &arguments);
    assert!(text.contains("<NewReservedPort>6001</NewReservedPort>"), "{text}");
    let inside = Some(socket("192.168.1.7:4001"));
    assert_eq!(router.forwards(at(604_800), Transport::Tcp, 6001), inside);
    assert_eq!(router.forwards(at(604_801), Transport::Tcp, 6001), None, "a week at most");
    let range = [
        ("NewStartPort", "6000"),
        ("NewEndPort", "6010"),
        ("NewProtocol", "TCP"),
        ("NewManage", "0"),
    ];
    let list = ("/ctl/IPConn", IP_2, "GetListOfPortMappings");
    let (_, text) = call(&mut router, at(2), list, &range);
    assert!(text.contains("&lt;p:NewExternalPort&gt;6001&lt;"), "{text}");
    let delete = ("/ctl/IPConn", IP_2, "DeletePortMappingRange");
    assert_eq!(call(&mut router, at(3), delete, &range).0, 200);
    assert_eq!(router.table().len(), 1, "somebody else's stays");
    let (_, text) = call(&mut router, at(3), delete, &range);
    assert_eq!(error_code(&text), Some(730));
}

#[test]
fn status_and_address_are_told() {
    let mut router = router("two-wans");
    let ppp = "urn:schemas-upnp-org:service:WANPPPConnection:1";
    let mut ask = |path, urn, action| call(&mut router, at(9), (path, urn, action), &[]).1;
    let text = ask("/ctl/IPConn", IP_1, "GetStatusInfo");
    assert!(text.contains("<NewConnectionStatus>Disconnected</NewConnectionStatus>"));
    let text = ask("/ctl/PPPConn", ppp, "GetStatusInfo");
    assert!(text.contains("<NewConnectionStatus>Connected</NewConnectionStatus>"));
    assert!(text.contains("<NewUptime>9</NewUptime>"));
    let text = ask("/ctl/PPPConn", ppp, "GetExternalIPAddress");
    assert!(text.contains("<NewExternalIPAddress>44.7.0.1</NewExternalIPAddress>"));
    assert_eq!(error_code(&ask("/ctl/IPConn", IP_1, "AddPortMapping")), Some(501));
    assert_eq!(error_code(&ask("/ctl/PPPConn", IP_1, "GetStatusInfo")), Some(401));
    assert_eq!(error_code(&ask("/ctl/PPPConn", ppp, "Dance")), Some(401));
}

fn pinhole(
    router: &mut Router,
    from: &str,
    action: &str,
    arguments: &[(&str, &str)],
) -> (u16, String) {
    let inner: String =
        arguments.iter().map(|(name, value)| format!("<{name}>{value}</{name}>")).collect();
    let body = format!("<Body><u:{action} xmlns:u=\"{FIREWALL}\">{inner}</u:{action}></Body>");
    let soap = Soap { action: format!("{FIREWALL}#{action}"), body: body.into_bytes().into() };
    let fetch = fetch(router, "/ctl/IP6FCtl", Some(soap));
    let from = from.parse().expect("an address");
    read(router.request(at(1), from, fetch.to.port(), &fetch))
}

#[test]
fn pinholes_are_opened_updated_and_closed() {
    let mut router = router("asker-only");
    let arguments = [
        ("RemoteHost", ""),
        ("RemotePort", "0"),
        ("InternalClient", "2600:7::7"),
        ("InternalPort", "4001"),
        ("Protocol", "6"),
        ("LeaseTime", "600"),
    ];
    let (_, text) = pinhole(&mut router, "192.168.1.7", "AddPinhole", &arguments);
    assert_eq!(error_code(&text), Some(606), "28: not from another address");
    let (_, text) = pinhole(&mut router, "2600:7::7", "AddPinhole", &arguments);
    assert!(text.contains("<UniqueID>1</UniqueID>"), "{text}");
    let hole = socket("[2600:7::7]:4001");
    assert!(router.pinhole(at(600), Transport::Tcp, hole));
    assert!(!router.pinhole(at(601), Transport::Tcp, hole));
    let update = [("UniqueID", "1"), ("NewLeaseTime", "3600")];
    assert_eq!(pinhole(&mut router, "2600:7::7", "UpdatePinhole", &update).0, 200);
    assert!(router.pinhole(at(3_600), Transport::Tcp, hole));
    let named = [("UniqueID", "1")];
    let (_, text) = pinhole(&mut router, "2600:7::7", "CheckPinholeWorking", &named);
    assert!(text.contains("<IsWorking>1</IsWorking>"));
    let (_, text) = pinhole(&mut router, "2600:7::8", "DeletePinhole", &named);
    assert_eq!(error_code(&text), Some(606));
    assert_eq!(pinhole(&mut router, "2600:7::7", "DeletePinhole", &named).0, 200);
    assert!(!router.pinhole(at(2), Transport::Tcp, hole));
    let (_, text) = pinhole(&mut router, "2600:7::7", "UpdatePinhole", &update);
    assert_eq!(error_code(&text), Some(704));
    assert_eq!(router.complaints().len(), 2);
    let (_, text) = pinhole(&mut router, "2600:7::7", "GetFirewallStatus", &[]);
    assert!(text.contains("<InboundPinholeAllowed>1<"));
}

#[test]
fn presence_is_told_at_boot_and_again() {
    let mut router = router("upnp-v1-only");
    let told = router.advance(at(0));
    assert_eq!(told.len(), 10);
    for output in &told {
        let Output::Multicast { group, body, .. } = output else { panic!("{output:?}") };
        assert_eq!(group.port(), 1_900);
        let text = String::from_utf8_lossy(body);
        assert!(text.starts_with("NOTIFY * HTTP/1.1\r\n") && text.contains("NTS: ssdp:alive\r\n"));
    }
    assert_eq!(router.deadline(), Some(at(900)));
    let reboot = Reboot { takes: Duration::from_secs(30), keeps_state: false, announces: true };
    let told = router.reboot(at(100), reboot);
    assert_eq!(told.len(), 10);
    let byebye = |output: &Output| {
        matches!(output, Output::Multicast { body, .. }
        if String::from_utf8_lossy(body).contains("NTS: ssdp:byebye\r\n"))
    };
    assert!(told.iter().all(byebye));
    let told = router.advance(at(130));
    assert!(told.iter().any(|output| matches!(output, Output::Multicast { body, .. }
        if String::from_utf8_lossy(body).contains("BOOTID.UPNP.ORG: 2\r\n"))));
}
