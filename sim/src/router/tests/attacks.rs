//! What attackers do.

use super::*;
use crate::router::Trap;

const HERE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 66);

fn attacker(attack: Attack) -> Attacker {
    let victim = socket("192.168.1.99:80");
    Attacker::new((HERE, LAN.0.into()), victim, attack, at(0), 1)
}

fn heard(attack: Attack, to: SocketAddr, body: &[u8]) -> Vec<(SocketAddr, Bytes)> {
    let outputs = attacker(attack).hears(at(1), client(), to, body);
    let mut bodies = Vec::new();
    for output in outputs {
        let Output::Datagram { from, to, body } = output else { panic!("{output:?}") };
        assert_eq!(to, client());
        bodies.push((from, body));
    }
    bodies
}

#[test]
fn searches_are_answered_by_many() {
    let search = search(IGD_1);
    let location = "http://192.168.1.99/x".to_owned();
    let one = heard(Attack::LocationElsewhere { location }, socket(GROUP), search.as_bytes());
    assert!(String::from_utf8_lossy(&one[0].1).contains("LOCATION: http://192.168.1.99/x\r\n"));
    let crowd = heard(Attack::Crowd(1_000), socket(GROUP), search.as_bytes());
    assert_eq!(crowd.len(), 1_000);
    let crowd = attacker(Attack::Crowd(1_000));
    assert!(crowd.is_at(HERE.into()) && crowd.is_at(socket("192.168.5.0:1").ip()));
    assert!(!crowd.is_at(LAN.0.into()));
    assert_eq!(heard(Attack::Crowd(9), server(), &[0, 0]), []);
}

#[test]
fn traps_are_bad_in_their_own_ways() {
    let mut bodies = Vec::new();
    for trap in Trap::ALL {
        let mut attacker = attacker(Attack::Descriptor(trap));
        let mut request = fetch(&router("none"), "/gw.xml", None);
        request.to = SocketAddr::new(HERE.into(), 5_000);
        let reply = attacker.request(at(1), &request);
        assert_eq!(reply.bytes().is_none(), trap == Trap::Hang);
        bodies.push(format!("{reply:?}"));
        request.to.set_port(80);
        assert_eq!(attacker.request(at(1), &request), HttpReply::Refused);
        assert_eq!(attacker.requests().destinations().count(), 2);
    }
    assert!(bodies[0].contains("<!ENTITY e11") && bodies[5].contains("http://192.168.1.99:80/ctl"));
    assert!(bodies[6].contains("<URLBase>http://192.168.1.99:80/</URLBase>"));
}

#[test]
fn false_answers_look_like_answers() {
    let map = pcp_map(client().ip(), 1, 4001, 0, 600);
    let own = heard(Attack::AnswersItself, server(), &map);
    assert_eq!(own[0].0, socket("192.168.1.66:5351"));
    assert_eq!(own[0].1[24..42], map[24..42]);
    let spoofed = heard(Attack::AnswersAsRouter, server(), &map);
    assert_eq!(spoofed[0].0, server());
    assert_ne!(spoofed[0].1[24..36], map[24..36], "it cannot know the nonce");
    let spoofed = heard(Attack::AnswersAsRouter, server(), &nat_pmp_map(4001, 0, 600));
    assert_ne!(spoofed[0].1[8..10], 4_001_u16.to_be_bytes());
    let denied = heard(Attack::DeniesAsRouter, server(), &map);
    assert_eq!((denied[0].1[3], number(&denied[0].1[4..8])), (2, u32::MAX));
    assert_eq!(denied[0].1[24..], map[24..], "it reads along");
    let denied = heard(Attack::DeniesAsRouter, server(), &nat_pmp_map(4001, 0, 600));
    assert_eq!(denied[0].1[..4], [0, 130, 0, 2]);
}

#[test]
fn false_announcements_come_again_and_again() {
    let interval = Duration::from_secs(5);
    let mut attacker = attacker(Attack::Announces { as_router: true, interval });
    assert_eq!(attacker.deadline(), Some(at(5)));
    assert_eq!(attacker.advance(at(4)), []);
    let told = attacker.advance(at(5));
    assert_eq!(told.len(), 3);
    let is_spoofed =
        |output: &Output| matches!(output, Output::Multicast { from, .. } if *from == server());
    assert!(told.iter().all(is_spoofed));
    assert_eq!(attacker.deadline(), Some(at(10)));
}
