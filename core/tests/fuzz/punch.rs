//! The messages of DCUtR.

use crate::trail::{Trail, variant};
use bytes::Bytes;
use portolan_core::config::PREDICTED_PORTS_MAX;
use portolan_core::wire::multiaddr;
use portolan_core::wire::punch::{
    Behavior, Behaviors, PUNCH_ADDRS_MAX, PredictedPorts, Prediction, PunchMessage,
};
use portolan_core::{Addr, Class, FilteringBehavior, MappingBehavior};

/// A message: what is understood is written and read again as the same.
pub(crate) fn run(bytes: &[u8], trail: &mut Trail) {
    let message = match PunchMessage::decode(&Bytes::copy_from_slice(bytes)) {
        Ok(message) => message,
        Err(error) => return trail.saw(format_args!("{}", variant(&error))),
    };
    assert_eq!(PunchMessage::decode(&message.encode()).as_ref(), Ok(&message));
    match message {
        PunchMessage::Connect { addrs, behaviors, prediction } => {
            assert!(addrs.len() <= PUNCH_ADDRS_MAX);
            assert!(addrs.iter().map(Bytes::len).sum::<usize>() <= bytes.len());
            let known = Class::ALL.map(|class| behaviors.get(class) != Behavior::UNKNOWN);
            trail.saw(format_args!("{} {known:?} {}", addrs.len(), ports(prediction)));
        }
        PunchMessage::Sync { prediction } => {
            trail.saw(format_args!("sync {}", ports(prediction)));
        }
        other => panic!("{other:?} has no law yet"),
    }
}

/// How many ports are predicted: never more than may be.
fn ports(prediction: Prediction) -> usize {
    let Prediction::Ports(ports) = prediction else { return 0 };
    let all: Vec<u16> = ports.ports().collect();
    assert!(all.len() <= PREDICTED_PORTS_MAX && all.iter().all(|port| *port >= 1_024));
    all.len()
}

/// What its corpus begins with.
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let addr = multiaddr::encode(Addr::quic([44, 0, 1, 1].into(), 4_001));
    let connect = |count: usize, behaviors| {
        let addrs = vec![addr.clone(); count];
        let prediction = Prediction::Off;
        PunchMessage::Connect { addrs, behaviors, prediction }.encode().to_vec()
    };
    let predicts = |first, step, count| {
        let ports = PredictedPorts { class: Class::ALL[1], first, step, count };
        PunchMessage::Sync { prediction: Prediction::Ports(ports) }.encode().to_vec()
    };
    let behind = Behaviors::of(|_| Behavior {
        mapping: MappingBehavior::AddressAndPortDependent,
        filtering: FilteringBehavior::AddressDependent,
    });
    vec![
        ("connect", connect(2, Behaviors::default())),
        ("connect-without-addresses", connect(0, Behaviors::default())),
        ("connect-with-20-addresses", connect(20, Behaviors::default())),
        ("connect-behind-nats", connect(1, behind)),
        ("sync", PunchMessage::Sync { prediction: Prediction::Off }.encode().to_vec()),
        ("sync-with-ports", predicts(5_000, 1, 32)),
        ("sync-with-many-ports", predicts(80, -32_768, 255)),
        ("no-type", b"\x12\x00".to_vec()),
        ("unknown-type", b"\x08\x65".to_vec()),
    ]
}
