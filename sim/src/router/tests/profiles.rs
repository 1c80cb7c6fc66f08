//! What each quirk looks like from the LAN.

use super::*;
use std::collections::BTreeSet;

#[test]
fn every_name_is_there_once() {
    let names: BTreeSet<&str> = PROFILES.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), PROFILES.len());
    assert!(PROFILES.len() >= 40);
    assert_eq!(Profile::named("nobody"), None);
}

#[test]
fn a_router_that_speaks_nothing_is_silent_or_refuses() {
    assert_eq!(router("none").datagram(at(1), client(), server(), &[0, 0]), []);
    let refused = router("none-refusing").datagram(at(1), client(), server(), &[0, 0]);
    assert_eq!(refused, [Output::Refused { at: server(), to: client() }]);
    let mut none = router("none");
    let fetch = fetch(&none, "/rootDesc.xml", None);
    assert_eq!(none.request(at(1), client().ip(), fetch.to.port(), &fetch), HttpReply::Hang);
    assert_eq!(found(&mut none, GROUP, "ssdp:all"), [""; 0]);
}

#[test]
fn denials_come_in_the_words_of_each_protocol() {
    let mut router = router("denying");
    assert_eq!(answer(&mut router, at(1), &nat_pmp_map(4001, 0, 600))[..4], [0, 130, 0, 2]);
    assert_eq!(answer(&mut router, at(1), &pcp_map(client().ip(), 1, 4001, 0, 600))[3], 2);
    assert_eq!(error_code(&add(&mut router, at(1), 6000, 600).1), Some(606));
}

#[test]
fn a_nat_in_between_is_an_address_mismatch() {
    let mut router = router("nested");
    assert_eq!(answer(&mut router, at(1), &pcp_map(client().ip(), 1, 4001, 0, 600))[3], 12);
}

#[test]
fn quirks_1_to_5_concern_how_it_is_found() {
    let unicast = "192.168.1.1:1900";
    let mut one = router("multicast-only");
    assert_eq!(
        (found(&mut one, GROUP, IGD_1).len(), found(&mut one, unicast, IGD_1).len()),
        (1, 0)
    );
    let mut one = router("unicast-only");
    assert_eq!(
        (found(&mut one, GROUP, IGD_1).len(), found(&mut one, unicast, IGD_1).len()),
        (0, 1)
    );
    let mut one = router("first-descriptor");
    let all = found(&mut one, GROUP, "ssdp:all");
    assert!(all.len() == 1 && all[0].contains("WFADevice") && all[0].contains("/wps_device.xml"));
    assert!(found(&mut one, GROUP, IGD_1)[0].contains("/rootDesc.xml"));
    assert!(!get(&mut one, "/wps_device.xml").1.contains("WANIPConnection"));
    let mut one = router("random-port");
    let outputs = one.datagram(at(1), client(), socket(GROUP), search(IGD_1).as_bytes());
    let [Output::Datagram { from, .. }] = outputs.as_slice() else { panic!("{outputs:?}") };
    assert!(from.ip() == IpAddr::V4(LAN.0) && from.port() != 1_900);
    let mut one = router("location-elsewhere");
    assert!(found(&mut one, GROUP, IGD_1)[0].contains("LOCATION: http://192.168.1.2:49152/"));
    let mut one = router("alternating");
    assert!(found(&mut one, GROUP, IGD_1)[0].contains("/wps_device.xml"));
    assert!(found(&mut one, GROUP, IGD_1)[0].contains("/rootDesc.xml"));
}

#[test]
fn quirks_6_to_11_are_codes() {
    let code = |name: &str, protocol: &str, lease_s: u32| {
        error_code(&add_as(&mut router(name), at(1), protocol, 6000, lease_s).1)
    };
    assert_eq!(code("capitals", "tcp", 600), Some(402));
    assert_eq!(code("capitals", "TCP", 600), None);
    assert_eq!((code("permanent", "TCP", 600), code("permanent", "TCP", 0)), (Some(725), None));
    let name = "finite-invalid";
    assert_eq!((code(name, "TCP", 600), code(name, "TCP", 0)), (Some(402), None));
    let name = "one-week";
    assert_eq!((code(name, "TCP", 0), code(name, "TCP", 604_801)), (Some(402), Some(402)));
    assert_eq!(code(name, "TCP", 604_800), None);
    assert_eq!(code("full-invalid", "TCP", 600), Some(402));
    let mut strict = router("strict-order");
    assert_eq!(error_code(&add(&mut strict, at(1), 6000, 600).1), None);
    let shuffled = [
        ("NewProtocol", "TCP"),
        ("NewRemoteHost", ""),
        ("NewExternalPort", "6000"),
        ("NewInternalPort", "4001"),
        ("NewInternalClient", "192.168.1.7"),
        ("NewEnabled", "1"),
        ("NewPortMappingDescription", "test"),
        ("NewLeaseDuration", "600"),
    ];
    let call_it = ("/ctl/IPConn", IP_1, "AddPortMapping");
    assert_eq!(error_code(&call(&mut strict, at(1), call_it, &shuffled).1), Some(402));
}

#[test]
fn quirks_12_and_22_concern_the_outside() {
    assert_eq!(answer(&mut router("wan-unspecified"), at(1), &[0, 0])[..4], [0, 128, 0, 3]);
    let mut offline = router("wan-unspecified");
    assert_eq!(answer(&mut offline, at(1), &pcp_map(client().ip(), 1, 4001, 0, 600))[3], 7);
    assert_eq!(answer(&mut router("wan-private"), at(1), &[0, 0])[8..], [192, 168, 178, 20]);
    assert_eq!(answer(&mut router("wan-shared"), at(1), &[0, 0])[8..], [100, 64, 9, 1]);
    let mut fails = router("private-wan-fails");
    assert_eq!(answer(&mut fails, at(1), &[0, 0])[..4], [0, 128, 0, 3]);
    assert_eq!(answer(&mut fails, at(1), &nat_pmp_map(4001, 0, 60))[..4], [0, 130, 0, 3]);
}

#[test]
fn quirk_13_lists_what_it_does_not_forward() {
    let lets_in = |router: &Router| router.forwards(at(5), Transport::Tcp, 6000).is_some();
    let mut never = router("forwards-never");
    add(&mut never, at(1), 6000, 600);
    assert!(!lets_in(&never) && never.table().len() == 1);
    let mut later = router("forwards-later");
    answer(&mut later, at(1), &nat_pmp_map(4001, 6000, 600));
    assert!(!lets_in(&later));
    answer(&mut later, at(2), &nat_pmp_map(4001, 0, 0));
    answer(&mut later, at(3), &nat_pmp_map(4001, 6000, 600));
    assert!(lets_in(&later));
    let mut other = router("forwards-other");
    answer(&mut other, at(1), &nat_pmp_map(4001, 6001, 600));
    add(&mut other, at(2), 6000, 600);
    assert!(lets_in(&other) && other.forwards(at(5), Transport::Tcp, 6001).is_none());
}

#[test]
fn quirk_14_forgets_without_a_word() {
    let mut router = router("purging");
    answer(&mut router, at(1), &nat_pmp_map(4001, 6000, 7_200));
    router.advance(at(599));
    assert_eq!(router.table().len(), 1);
    router.advance(at(600));
    assert!(router.table().is_empty());
    assert_eq!(number(&answer(&mut router, at(601), &[0, 0])[4..8]), 601, "the epoch goes on");
}

#[test]
fn quirk_15_moves_its_control_port() {
    let mut router = router("moving-port");
    let old = fetch(&router, "/rootDesc.xml", None);
    let reboot = Reboot { takes: Duration::from_secs(10), keeps_state: true, announces: false };
    router.reboot(at(1), reboot);
    assert_eq!(router.request(at(5), client().ip(), old.to.port(), &old), HttpReply::Hang);
    assert_eq!(router.request(at(12), client().ip(), old.to.port(), &old), HttpReply::Refused);
    assert!(found(&mut router, GROUP, IGD_1)[0].contains(&format!(":{}/", router.http_port())));
    assert_eq!(router.advance(at(12)), [], "it was not to tell");
}

#[test]
fn quirks_16_and_17_concern_how_http_is_spoken() {
    let request = b"GET /rootDesc.xml HTTP/1.1\r\nHost: 192.168.1.1\r\n\r\n";
    let to = socket("192.168.1.1:49152");
    let mut first = router("first-segment");
    let whole = first.segments(at(1), client(), to, &[request]);
    assert!(matches!(whole, HttpReply::Answer { status: 200, chunked: false, .. }));
    let split = [&request[..20], &request[20..]];
    assert_eq!(first.segments(at(1), client(), to, &split), HttpReply::Reset);
    let mut chunked = router("chunked");
    let split = chunked.segments(at(1), client(), to, &split);
    assert!(matches!(split, HttpReply::Answer { status: 200, chunked: true, .. }));
    let bad = chunked.segments(at(1), client(), to, &[b"hello\r\n\r\n"]);
    assert!(matches!(bad, HttpReply::Answer { status: 400, .. }));
}

#[test]
fn quirk_18_has_its_own_names() {
    let mut legacy = router("legacy");
    assert_eq!(found(&mut legacy, GROUP, IGD_1), [""; 0]);
    assert!(
        found(&mut legacy, GROUP, "ssdp:all")
            .iter()
            .all(|one| !one.contains("schemas-upnp-org:device"))
    );
    let (_, text) = get(&mut legacy, "/rootDesc.xml");
    assert!(text.contains("<URLBase>http://192.168.1.1:49152/</URLBase>"));
    let urn = "urn:dslforum-org:service:WANPPPConnection:1";
    let told = call(
        &mut legacy,
        at(1),
        ("/upnp/control?WANPPPConnection", urn, "GetExternalIPAddress"),
        &[],
    );
    assert!(told.1.contains("44.7.0.1"), "{told:?}");
}

#[test]
fn quirk_19_is_for_the_asker_alone() {
    let arguments = [
        ("NewRemoteHost", ""),
        ("NewExternalPort", "6000"),
        ("NewProtocol", "TCP"),
        ("NewInternalPort", "4001"),
        ("NewInternalClient", "192.168.1.8"),
        ("NewEnabled", "1"),
        ("NewPortMappingDescription", "test"),
        ("NewLeaseDuration", "600"),
    ];
    let add = ("/ctl/IPConn", IP_1, "AddPortMapping");
    let (_, text) = call(&mut router("secure"), at(1), add, &arguments);
    assert_eq!(error_code(&text), Some(718));
    let mut open = router("upnp-v1-only");
    assert_eq!(call(&mut open, at(1), add, &arguments).0, 200);
    assert_eq!(open.complaints().len(), 1);
}

#[test]
fn quirks_20_to_25_concern_the_small_protocols() {
    assert_eq!(answer(&mut router("two-bytes"), at(1), &[0, 0]), [0, 128]);
    let map = pcp_map(client().ip(), 1, 4001, 0, 600);
    let refused = answer(&mut router("errors-without-lifetime"), at(1), &map);
    assert_eq!((refused[3], number(&refused[4..8])), (2, 0));
    let refused = answer(&mut router("no-resources"), at(1), &map);
    assert_eq!((refused[3], number(&refused[4..8])), (8, 30));
    let mut drifting = router("drifting");
    let mut ports = BTreeSet::new();
    for second in [10, 20, 30, 40, 50] {
        let granted = answer(&mut drifting, at(second), &nat_pmp_map(4001, 6000, 60));
        ports.insert(number(&granted[10..12]));
        let port = u16::try_from(number(&granted[10..12])).expect("a port");
        let lets_in = |now| drifting.forwards(now, Transport::Tcp, port).is_some();
        assert_eq!((lets_in(at(second)), lets_in(at(second + 1))), (second == 10, true));
        assert_eq!(drifting.table().len(), 1);
    }
    assert!(ports.len() > 1, "it drifts: {ports:?}");
    let mut six = router("no-renewal-6");
    let own = socket("[2600:7::7]:40000");
    let mut code = |second| {
        let map = pcp_map(own.ip(), 1, 4001, 0, 600);
        let outputs = six.datagram(at(second), own, socket("[fe80::1]:5351"), &map);
        let [Output::Datagram { body, .. }] = outputs.as_slice() else { panic!("{outputs:?}") };
        body[3]
    };
    assert_eq!([code(1), code(300), code(601)], [0, 8, 0]);
}

#[test]
fn quirks_26_and_27_concern_the_nat() {
    let gate = Profile::named("short-udp").expect("a profile").gate();
    assert_eq!((gate.udp.absolute, gate.tcp.absolute), (Some(Duration::from_secs(60)), None));
    let nat = Profile::named("rebinding").expect("a profile").nat;
    assert_eq!(nat.rebinds_after, Some(Duration::from_secs(300)));
    assert_eq!(Profile::ALL.gate().udp.absolute, None);
}

#[test]
fn codes_beside_the_catalogue() {
    let mut same = router("same-port");
    assert_eq!(error_code(&add(&mut same, at(1), 6000, 600).1), Some(724));
    assert_eq!(error_code(&add(&mut same, at(1), 4001, 600).1), None);
    let code = |name| error_code(&add(&mut router(name), at(1), 6000, 600).1);
    assert_eq!((code("action-failed"), code("unauthorized")), (Some(501), Some(606)));
}

#[test]
fn the_world_can_spoil_its_mood() {
    let mut router = router("nat-pmp-only");
    router.set_mood(Mood::Silent, Some(at(10)));
    assert_eq!(ask(&mut router, at(9), server(), &[0, 0]), [""; 0]);
    assert_eq!(ask(&mut router, at(10), server(), &[0, 0]).len(), 1);
    router.set_mood(Mood::Refuses, None);
    let refused = router.datagram(at(11), client(), server(), &[0, 0]);
    assert_eq!(refused, [Output::Refused { at: server(), to: client() }]);
    router.set_mood(Mood::Answers, None);
    router.deny_after(Some(1));
    assert_eq!(answer(&mut router, at(12), &nat_pmp_map(4001, 0, 60))[3], 0);
    assert_eq!(answer(&mut router, at(12), &nat_pmp_map(4001, 0, 60))[3], 2);
    router.deny_after(None);
    assert_eq!(answer(&mut router, at(12), &nat_pmp_map(4001, 0, 60))[3], 0);
    router.set_forwarding(Forwarding::Never);
    assert_eq!(router.forwards(at(13), Transport::Tcp, 4001), None);
    router.set_forwarding(Forwarding::Works);
    assert!(router.forwards(at(13), Transport::Tcp, 4001).is_some());
    router.purge();
    assert!(router.table().is_empty());
    let here = [IpAddr::V4(LAN.0)];
    assert_eq!(router.requests().busiest_minute(&here), 6);
    assert!(router.requests().strangers(&here).is_empty());
}
