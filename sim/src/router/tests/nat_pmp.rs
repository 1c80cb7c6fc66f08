//! NAT-PMP.

use super::*;

#[test]
fn the_external_address_is_told() {
    let mut router = router("nat-pmp-only");
    let told = answer(&mut router, at(70), &[0, 0]);
    assert_eq!(told, [0, 128, 0, 0, 0, 0, 0, 70, 44, 7, 0, 1]);
    router.set_wan(at(80), Ipv4Addr::new(44, 7, 0, 2), false, false);
    assert_eq!(answer(&mut router, at(81), &[0, 0])[4..], [0, 0, 0, 81, 44, 7, 0, 2]);
    router.set_wan(at(90), Ipv4Addr::new(44, 7, 0, 3), true, false);
    assert_eq!(answer(&mut router, at(91), &[0, 0])[4..], [0, 0, 0, 1, 44, 7, 0, 3]);
    assert_eq!(router.complaints(), [""; 0]);
}

#[test]
fn a_mapping_lives_as_long_as_it_was_granted() {
    let mut router = router("nat-pmp-only");
    let granted = answer(&mut router, at(10), &nat_pmp_map(4001, 6000, 200_000));
    assert_eq!(granted[..8], [0, 130, 0, 0, 0, 0, 0, 10]);
    let (internal, external) = (number(&granted[8..10]), number(&granted[10..12]));
    assert_eq!((internal, external, number(&granted[12..])), (4001, 6000, 86_400));
    let inside = Some(socket("192.168.1.7:4001"));
    assert_eq!(router.forwards(at(11), Transport::Tcp, 6000), inside);
    assert_eq!(router.forwards(at(11), Transport::Quic, 6000), None);
    // The same again is a renewal, with the port that it has.
    let renewed = answer(&mut router, at(20), &nat_pmp_map(4001, 0, 60));
    assert_eq!((number(&renewed[10..12]), number(&renewed[12..])), (6000, 60));
    assert_eq!(router.deadline(), Some(at(80)));
    assert_eq!(router.forwards(at(79), Transport::Tcp, 6000), inside);
    assert_eq!(router.forwards(at(80), Transport::Tcp, 6000), None);
    router.advance(at(80));
    assert!(router.table().is_empty());
}

#[test]
fn deletions_succeed_whatever_was_there() {
    let mut router = router("nat-pmp-only");
    answer(&mut router, at(1), &nat_pmp_map(4001, 0, 600));
    answer(&mut router, at(1), &nat_pmp_map(4002, 0, 600));
    for _ in 0..2 {
        let gone = answer(&mut router, at(2), &nat_pmp_map(4001, 0, 0));
        assert_eq!((&gone[..4], number(&gone[10..])), (&[0, 130, 0, 0][..], 0));
        assert_eq!(router.table().len(), 1);
    }
    assert_eq!(router.complaints(), [""; 0]);
    answer(&mut router, at(3), &nat_pmp_map(0, 0, 0));
    assert!(router.table().is_empty());
    answer(&mut router, at(3), &nat_pmp_map(4001, 9, 0));
    assert_eq!(router.complaints().len(), 1);
}

#[test]
fn somebody_elses_port_is_passed_over() {
    let mut router = router("nat-pmp-only");
    router.occupy(at(0), Transport::Tcp, 4001, socket("192.168.1.9:80"));
    let granted = answer(&mut router, at(1), &nat_pmp_map(4001, 4001, 600));
    assert_eq!(number(&granted[10..12]), 4002);
}

#[test]
fn what_it_cannot_read_has_its_answer() {
    let mut router = router("nat-pmp-only");
    // PCP on a router that has none: the way to fall back.
    let pcp = pcp_map(client().ip(), 1, 4001, 0, 600);
    assert_eq!(answer(&mut router, at(5), &pcp), [0, 0, 0, 1, 0, 0, 0, 5]);
    assert_eq!(answer(&mut router, at(5), &[0, 9, 1, 1]), [0, 137, 0, 5, 0, 0, 0, 5]);
    assert_eq!(ask(&mut router, at(5), server(), &[0, 128, 0, 0]), [""; 0]);
    assert_eq!(ask(&mut router, at(5), server(), &[0, 2, 0]), [""; 0]);
    assert_eq!(router.complaints().len(), 2);
}

#[test]
fn a_change_is_told_to_all_with_growing_spans() {
    let mut router = router("nat-pmp-only");
    router.set_wan(at(10), Ipv4Addr::new(44, 7, 0, 9), true, true);
    let mut times = Vec::new();
    while let Some(due) = router.deadline() {
        for output in router.advance(due) {
            let Output::Multicast { from, group, body } = output else { panic!("{output:?}") };
            assert_eq!((from, group), (server(), socket("224.0.0.1:5350")));
            assert_eq!(body[..4], [0, 128, 0, 0]);
            assert_eq!(body[8..], [44, 7, 0, 9]);
            times.push(due.since(at(10)).as_millis());
        }
    }
    assert_eq!(times, [0, 250, 750, 1_750]);
}
