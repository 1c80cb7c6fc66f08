//! PCP.

use super::*;

fn head(bytes: &[u8]) -> (u8, u32, u32) {
    assert_eq!(bytes[0], 2);
    assert!(bytes[1] & 128 != 0 && bytes.len().is_multiple_of(4));
    (bytes[3], number(&bytes[4..8]), number(&bytes[8..12]))
}

#[test]
fn a_mapping_belongs_to_its_nonce() {
    let mut router = router("pcp-only");
    let own = client().ip();
    let granted = answer(&mut router, at(9), &pcp_map(own, 1, 4001, 6000, 600));
    assert_eq!(head(&granted), (0, 600, 9));
    assert_eq!(granted[24..42], pcp_map(own, 1, 4001, 6000, 600)[24..42]);
    assert_eq!(number(&granted[42..44]), 6000);
    assert_eq!(granted[44..], Ipv4Addr::new(44, 7, 0, 1).to_ipv6_mapped().octets());
    let inside = Some(socket("192.168.1.7:4001"));
    assert_eq!(router.forwards(at(9), Transport::Quic, 6000), inside);
    // Another nonce neither renews nor deletes it.
    for lifetime_s in [600, 0] {
        let refused = answer(&mut router, at(10), &pcp_map(own, 2, 4001, 0, lifetime_s));
        assert_eq!(head(&refused), (2, 1_800, 10));
    }
    let renewed = answer(&mut router, at(300), &pcp_map(own, 1, 4001, 0, 600));
    assert_eq!((head(&renewed), number(&renewed[42..44])), ((0, 600, 300), 6000));
    assert_eq!(router.forwards(at(899), Transport::Quic, 6000), inside);
    let gone = answer(&mut router, at(400), &pcp_map(own, 1, 4001, 0, 0));
    assert_eq!(head(&gone), (0, 0, 400));
    assert!(router.table().is_empty());
    assert_eq!(head(&answer(&mut router, at(401), &pcp_map(own, 3, 4001, 0, 0))).0, 0);
    assert_eq!(router.complaints(), [""; 0]);
}

#[test]
fn lifetimes_are_clamped() {
    let mut router = router("pcp-only");
    let own = client().ip();
    let lifetime =
        |router: &mut Router, s| head(&answer(router, at(1), &pcp_map(own, 1, 4001, 0, s))).1;
    assert_eq!(lifetime(&mut router, 5), 120);
    assert_eq!(lifetime(&mut router, u32::MAX), 86_400);
}

#[test]
fn pinholes_open_for_the_address_that_asks() {
    let mut router = router("pcp-only");
    let own = socket("[2600:7::7]:40000");
    let to = socket("[fe80::1]:5351");
    let map = |nonce, lifetime_s| pcp_map(own.ip(), nonce, 4001, 0, lifetime_s);
    let outputs = router.datagram(at(1), own, to, &map(1, 600));
    let [Output::Datagram { body, .. }] = outputs.as_slice() else { panic!("{outputs:?}") };
    assert_eq!((head(body), number(&body[42..44])), ((0, 600, 1), 4001));
    let hole = socket("[2600:7::7]:4001");
    assert!(router.pinhole(at(2), Transport::Quic, hole));
    assert!(!router.pinhole(at(2), Transport::Tcp, hole));
    assert!(!router.pinhole(at(601), Transport::Quic, hole));
    router.datagram(at(3), own, to, &map(2, 0));
    assert!(router.pinhole(at(4), Transport::Quic, hole), "another nonce does not close it");
    router.datagram(at(5), own, to, &map(1, 0));
    assert!(router.table().is_empty());
    assert_eq!(router.complaints(), [""; 0]);
}

#[test]
fn errors_name_what_is_wrong() {
    let mut router = router("pcp-only");
    let own = client().ip();
    let good = pcp_map(own, 1, 4001, 0, 600);
    let mut code = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut request = good.clone();
        change(&mut request);
        head(&answer(&mut router, at(1), &request)).0
    };
    assert_eq!(code(&|r| r[0] = 0), 1);
    assert_eq!(code(&|r| r[0] = 1), 1);
    assert_eq!(code(&|r| r.truncate(58)), 3);
    assert_eq!(code(&|r| r.truncate(40)), 3);
    assert_eq!(code(&|r| r[1] = 5), 4);
    assert_eq!(code(&|r| r.extend_from_slice(&[1, 0, 0, 16])), 6);
    assert_eq!(code(&|r| r.extend_from_slice(&[1, 0, 0, 0])), 5);
    assert_eq!(code(&|r| r.extend_from_slice(&[200, 0, 0, 0])), 0);
    assert_eq!(code(&|r| r[36] = 33), 9);
    assert_eq!(code(&|r| r[36] = 0), 3);
    assert_eq!(code(&|r| r[23] = 9), 12);
    assert_eq!(ask(&mut router, at(1), server(), &[2, 129]), [""; 0]);
}

#[test]
fn a_preference_can_fail() {
    let mut router = router("pcp-only");
    router.occupy(at(0), Transport::Quic, 6000, socket("192.168.1.9:80"));
    let mut request = pcp_map(client().ip(), 1, 4001, 6000, 600);
    request.extend_from_slice(&[2, 0, 0, 0]);
    assert_eq!(head(&answer(&mut router, at(1), &request)).0, 11);
    request[43] += 1;
    assert_eq!(head(&answer(&mut router, at(1), &request)).0, 0);
}

#[test]
fn a_reboot_without_state_starts_the_epoch_anew_and_is_told() {
    for keeps_state in [true, false] {
        let mut router = router("all");
        let own = client().ip();
        answer(&mut router, at(100), &pcp_map(own, 1, 4001, 6000, 600));
        let reboot = Reboot { takes: Duration::from_secs(20), keeps_state, announces: true };
        let gone = router.reboot(at(100), reboot);
        assert!(gone.iter().all(|output| matches!(output, Output::Multicast { .. })));
        assert_eq!(ask(&mut router, at(110), server(), &[0, 0]), [""; 0]);
        assert_eq!(router.forwards(at(110), Transport::Quic, 6000), None);
        assert_eq!(router.deadline(), Some(at(120)));
        let told = router.advance(at(120));
        let groups: Vec<String> = told
            .iter()
            .map(|output| match output {
                Output::Multicast { group, .. } => group.to_string(),
                Output::Datagram { .. } | Output::Refused { .. } => panic!("{output:?}"),
            })
            .collect();
        assert!(groups.iter().filter(|group| *group == "224.0.0.1:5350").count() == 2);
        assert!(groups.iter().any(|group| group == "[ff02::1]:5350"));
        assert!(groups.iter().any(|group| group == GROUP));
        let epoch = answer(&mut router, at(130), &[2, 0, 0, 0].map(u8::from));
        assert_eq!(epoch[3], 3, "a header is 24 bytes");
        let epoch_s = head(&epoch).2;
        assert_eq!(epoch_s, if keeps_state { 130 } else { 10 });
        assert_eq!(router.forwards(at(130), Transport::Quic, 6000).is_some(), keeps_state);
    }
}

#[test]
fn whether_it_lost_its_state_can_be_asked() {
    let mut router = router("pcp-only");
    let mut request = vec![2, 0, 0, 0, 0, 0, 0, 0];
    request.extend_from_slice(&Ipv4Addr::new(192, 168, 1, 7).to_ipv6_mapped().octets());
    assert_eq!(head(&answer(&mut router, at(77), &request)), (0, 0, 77));
    assert_eq!(router.complaints(), [""; 0]);
}
