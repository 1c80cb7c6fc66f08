//! Stories that every corpus begins with, told in the bytes that `story` reads.

use super::story::code;

/// Addresses: TCP port 4001 on a global IP of ours, on the wildcard, and at servers.
const HOME: [u8; 2] = [1, 0];
const ANY: [u8; 2] = [14, 0];
const PLAIN: [u8; 3] = [0, 0, 3];

/// What happens often, in bytes.
const PROVED: &[u8] = &[code::DIALS_BACK, 0, 0, 0, 0, 9, 4];
const SAID_OK: &[u8] = &[code::RESPONDS, 0, 0, 0, 0];
const FAILED: &[u8] = &[code::RESPONDS, 0, 0, 2, 0];
const REFUSED: &[u8] = &[code::RESPONDS, 0, 3, 0, 0];
const WAKE: &[u8] = &[code::WAKE];
const INBOUND: &[u8] = &[code::INBOUND, 3, 0, 7, 0];
const REQUEST: &[u8] = &[code::REQUEST, 0, 9, 0];

/// A node that listens on all interfaces, one of them global, and meets servers that see it there.
fn at_home(servers: u8) -> Vec<u8> {
    let mut bytes = PLAIN.to_vec();
    bytes.extend([code::INTERFACES, 2, 0, 1]);
    bytes.push(code::LISTEN);
    bytes.extend(ANY);
    for server in 0..servers {
        // Peer, listener, where it is (one network each), and where it sees us.
        bytes.extend([code::SERVER, server, 0, 5 + server, 0]);
        bytes.extend(HOME);
    }
    bytes
}

/// The stories by their names.
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    [asking(), serving(), others(), mapping(), relaying()].concat()
}

fn then(begin: &[u8], rest: &[&[u8]]) -> Vec<u8> {
    [begin, &rest.concat()].concat()
}

/// Stories of a node that asks others.
fn asking() -> Vec<(&'static str, Vec<u8>)> {
    let home = at_home(1);
    let many = at_home(4);
    vec![
        ("nothing-happens", PLAIN.to_vec()),
        ("one-server", home.clone()),
        ("proved-and-told-so", then(&home, &[PROVED, SAID_OK, WAKE, WAKE])),
        ("told-so-without-a-nonce", then(&home, &[SAID_OK, WAKE, WAKE])),
        ("four-servers-fail", then(&many, &[FAILED, FAILED, FAILED, FAILED, WAKE, FAILED])),
        ("data-is-paid", then(&home, &[&[code::WANTS_DATA, 0, 0, 0], PROVED, SAID_OK])),
        (
            "refused-and-rejected",
            then(&many, &[&[code::RESPONDS, 0, 3, 0, 0, code::RESPONDS, 1, 2, 0, 0], WAKE]),
        ),
        (
            "proof-renewed",
            then(
                &home,
                &[PROVED, SAID_OK, &[code::PASS, 4], PROVED, SAID_OK, &[code::PASS, 5], WAKE],
            ),
        ),
        ("listener-closes", then(&home, &[PROVED, SAID_OK, &[code::UNLISTEN, 0], WAKE])),
        ("network-changes", then(&many, &[PROVED, SAID_OK, &[code::INTERFACES, 1, 2], WAKE])),
        (
            "a-night-asleep",
            then(&many, &[PROVED, SAID_OK, &[code::PASS, 6, code::RESUMED, 6], WAKE, WAKE]),
        ),
        (
            "refused-and-hearsay",
            then(&many, &[&REFUSED.repeat(4), &[code::ANSWER, 0, 0, code::ANSWER, 1, 1], WAKE]),
        ),
        ("a-nap-amid-a-probe", then(&home, &[&[code::RESUMED, 2], SAID_OK, PROVED])),
    ]
}

/// Stories of a node that dials back for others.
fn serving() -> Vec<(&'static str, Vec<u8>)> {
    let mut serving = at_home(1);
    serving[1] = 1;
    vec![
        (
            "serves-a-request",
            then(
                &serving,
                &[INBOUND, REQUEST, &[code::DIALLED, 0, 2, code::OPENED, 0, code::TAKEN, 0], WAKE],
            ),
        ),
        (
            "serves-a-dial-that-fails",
            then(&serving, &[INBOUND, REQUEST, &[code::DIAL_FAILED, 0, 0], WAKE]),
        ),
        (
            "serves-for-dial-data",
            then(
                &serving,
                &[
                    INBOUND,
                    &[code::REQUEST, 0, 9, 1, 8, 0],
                    &[code::DATA, 0, 0, 25, code::DIALLED, 0, 2],
                ],
            ),
        ),
        (
            "serves-the-old-way",
            then(
                &serving,
                &[INBOUND, &[code::INCOMING, 0, 8, code::ANSWER, 0, code::DIALLED, 0, 0], WAKE],
            ),
        ),
        (
            "requester-leaves",
            then(
                &serving,
                &[INBOUND, REQUEST, &[code::DISCONNECTED, 0, code::DIALLED, 0, 2], WAKE],
            ),
        ),
    ]
}

/// Stories of other streams, and of names that are none.
fn others() -> Vec<(&'static str, Vec<u8>)> {
    let home = at_home(1);
    vec![
        (
            "identify-is-answered",
            then(
                &home,
                &[&[code::OUTBOUND, 2, 0, 6, 0, code::OPENED, 0, code::IDENTIFIED, 0, 2, 1, 0, 9]],
            ),
        ),
        (
            "pings-and-pushes",
            then(
                &home,
                &[
                    INBOUND,
                    &[code::INCOMING, 0, 2, code::ANSWER, 0, 5],
                    &[code::INCOMING, 0, 1, code::ANSWER, 0, 0, 1, 0],
                    &[code::PASS, 2, code::PONG, 0],
                ],
            ),
        ),
        (
            "names-that-are-not",
            then(
                &home,
                &[
                    &[code::NONSENSE, 1, 2, 3, 1, 0],
                    &[code::NONSENSE, 2, 2, 3, 0, 2, 0],
                    &[code::NONSENSE, 1, 1, 0, 1, 8, 1, 1, 1, 0, 3, 0, 0, 1],
                ],
            ),
        ),
    ]
}

/// Stories of a node that asks routers.
fn mapping() -> Vec<(&'static str, Vec<u8>)> {
    let mut mapping = at_home(1);
    mapping[1] = 8;
    // One gateway: the router, our address, the interface.
    mapping.extend([code::ROUTER, 0, 1, 2, 0, 2]);
    vec![
        ("a-router-appears", then(&mapping, &[WAKE, WAKE])),
        ("a-router-answers", then(&mapping, &[&[code::ROUTER, 2, 0, 3, 0, 0], WAKE])),
        ("a-router-refuses", then(&mapping, &[&[code::ROUTER, 2, 0, 2, 1, 3, 2, 0], WAKE])),
        ("a-router-is-not-there", then(&mapping, &[&[code::ROUTER, 5, 0, 0], WAKE, WAKE])),
        ("a-router-describes-itself", then(&mapping, &[&[code::ROUTER, 6, 0, 0, 2, 0, 0]])),
        ("a-router-gives-no-answer", then(&mapping, &[&[code::ROUTER, 7, 1, 0], WAKE])),
        (
            "a-ledger-and-the-end",
            [&mapping[..], &[code::ROUTER, 8, 1, 9, 2, 8, 1, 0], &[code::ROUTER, 8, 0]].concat(),
        ),
    ]
}

/// Stories of a node that is reached through relays, and that relays for others.
fn relaying() -> Vec<(&'static str, Vec<u8>)> {
    let with = |two: u8, more: &[u8]| {
        // The bytes of the ways of relaying stand behind the two of the configuration.
        let home = at_home(2);
        [&[home[0], two][..], more, &home[2..]].concat()
    };
    let held = with(16, &[1]);
    let offered = with(32, &[0]);
    let asked: &[u8] = &[code::ROUTER, 9, 0, 0, 0];
    let circuit: &[u8] = &[code::ROUTER, 9, 0, 0, 1, 1];
    vec![
        ("a-relay-grants", then(&held, &[WAKE, &[code::ROUTER, 10, 0, 0, 0, 0], WAKE])),
        ("a-relay-grants-badly", then(&held, &[WAKE, &[code::ROUTER, 10, 0, 0, 192, 1, 9, 0]])),
        ("a-relay-refuses", then(&held, &[WAKE, &[code::ROUTER, 10, 0, 3, 1, 3], WAKE])),
        ("a-circuit-is-wanted", then(&held, &[&[code::ROUTER, 11, 0, 5], WAKE])),
        ("a-circuit-comes", then(&held, &[&[code::ROUTER, 9, 0, 1, 4, 0], WAKE])),
        ("a-peer-reserves", then(&offered, &[asked, &[code::PASS, 6], WAKE])),
        (
            "a-bridge-and-its-end",
            then(
                &offered,
                &[
                    asked,
                    circuit,
                    &[code::ROUTER, 10, 0, 0],
                    &[code::ROUTER, 12, 0, 9, 9, 0],
                    &[code::ROUTER, 13, 3],
                ],
            ),
        ),
    ]
}
