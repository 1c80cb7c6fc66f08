//! Direct connection upgrade through relay (DCUtR): the two messages of `/libp2p/dcutr`.
//!
//! Every frame is a [`PunchMessage`]. Beside what the specification has, a `CONNECT` of ours says how
//! the NATs in front of us behave, in field 1000, which others skip: two peers then know at once
//! whether their NATs can be punched at all. Field 1001 of both messages is for those who predict
//! ports (see [`Prediction`]).

mod prediction;

pub use prediction::{PredictedPorts, Prediction};

use super::{DecodeError, read_bytes};
use crate::{Class, Family, FilteringBehavior, MappingBehavior, Transport};
use alloc::vec::Vec;
use bytes::{Buf, BufMut, Bytes};
use prost::Message as _;
use prost::encoding::{self, DecodeContext, wire_type::WireType};

/// Addresses that are kept of one message, number; ours. When full, the rest is ignored, in the
/// order it came.
pub const PUNCH_ADDRS_MAX: usize = 16;

const CONNECT: i32 = 100;
const SYNC: i32 = 300;
/// Where behaviours stand; ours.
const BEHAVIORS: u32 = 1_000;
/// Where a prediction stands; ours.
const PREDICTION: u32 = 1_001;

/// One message of a stream of `/libp2p/dcutr`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PunchMessage {
    /// Both ways: here I may be reached.
    Connect {
        /// Binary multiaddrs, observed or predicted; at most [`PUNCH_ADDRS_MAX`].
        addrs: Vec<Bytes>,
        /// How the NATs in front of the sender behave; Portolan alone says so.
        behaviors: Behaviors,
        /// Whether the sender takes part in the prediction of ports; Portolan alone says so.
        prediction: Prediction,
    },
    /// From who began: dial now.
    Sync {
        /// What the sender predicts; Portolan alone says so.
        prediction: Prediction,
    },
}

/// How the NAT in front of somebody behaves, in one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Behavior {
    /// How it maps.
    pub mapping: MappingBehavior,
    /// What it lets in.
    pub filtering: FilteringBehavior,
}

impl Behavior {
    /// Nothing is known.
    pub const UNKNOWN: Behavior =
        Behavior { mapping: MappingBehavior::Unknown, filtering: FilteringBehavior::Unknown };
}

/// The behaviours in all four classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Behaviors([Behavior; Class::ALL.len()]);

impl Default for Behaviors {
    fn default() -> Behaviors {
        Behaviors([Behavior::UNKNOWN; Class::ALL.len()])
    }
}

impl From<[Behavior; Class::ALL.len()]> for Behaviors {
    /// In the order of [`Class::ALL`].
    fn from(all: [Behavior; Class::ALL.len()]) -> Behaviors {
        Behaviors(all)
    }
}

impl Behaviors {
    /// What is known of every class.
    pub fn of(known: impl Fn(Class) -> Behavior) -> Behaviors {
        Behaviors(Class::ALL.map(known))
    }

    /// The behaviour in one class.
    pub fn get(&self, class: Class) -> Behavior {
        self.0[place(class)]
    }

    /// One number of eight bits for each class, in their order: the mapping in the upper half.
    fn written(&self) -> u32 {
        let code = |one: &Behavior| mapping_code(one.mapping) << 4 | filtering_code(one.filtering);
        self.0.iter().rev().fold(0, |all, one| all << 8 | code(one))
    }

    fn read(all: u32) -> Behaviors {
        Behaviors::of(|class| {
            let code = all >> (8 * place(class)) & 0xff;
            Behavior { mapping: mapping_of(code >> 4), filtering: filtering_of(code & 0xf) }
        })
    }
}

const fn place(class: Class) -> usize {
    let family = match class.family {
        Family::Ip4 => 0,
        Family::Ip6 => 2,
    };
    let transport = match class.transport {
        Transport::Tcp => 0,
        Transport::Quic => 1,
    };
    family + transport
}

const fn mapping_code(mapping: MappingBehavior) -> u32 {
    match mapping {
        MappingBehavior::Unknown => 0,
        MappingBehavior::None => 1,
        MappingBehavior::EndpointIndependent => 2,
        MappingBehavior::AddressDependent => 3,
        MappingBehavior::AddressAndPortDependent => 4,
    }
}

/// What a later version may say means nothing to us.
const fn mapping_of(code: u32) -> MappingBehavior {
    match code {
        1 => MappingBehavior::None,
        2 => MappingBehavior::EndpointIndependent,
        3 => MappingBehavior::AddressDependent,
        4 => MappingBehavior::AddressAndPortDependent,
        _ => MappingBehavior::Unknown,
    }
}

const fn filtering_code(filtering: FilteringBehavior) -> u32 {
    match filtering {
        FilteringBehavior::Unknown => 0,
        FilteringBehavior::None => 1,
        FilteringBehavior::EndpointIndependent => 2,
        FilteringBehavior::AddressDependent => 3,
        FilteringBehavior::AddressAndPortDependent => 4,
    }
}

const fn filtering_of(code: u32) -> FilteringBehavior {
    match code {
        1 => FilteringBehavior::None,
        2 => FilteringBehavior::EndpointIndependent,
        3 => FilteringBehavior::AddressDependent,
        4 => FilteringBehavior::AddressAndPortDependent,
        _ => FilteringBehavior::Unknown,
    }
}

impl PunchMessage {
    /// Read the body of a frame. A type that is neither is an error.
    pub fn decode(body: &Bytes) -> Result<PunchMessage, DecodeError> {
        let wire = HolePunch::decode(body.clone())?;
        let prediction = wire.prediction.map(Prediction::read).unwrap_or_default();
        match wire.kind.ok_or(DecodeError::Empty)? {
            CONNECT => Ok(PunchMessage::Connect {
                addrs: wire.addrs,
                behaviors: wire.behaviors.map(Behaviors::read).unwrap_or_default(),
                prediction,
            }),
            SYNC => Ok(PunchMessage::Sync { prediction }),
            _ => Err(DecodeError::Malformed),
        }
    }

    /// The body of a frame.
    pub fn encode(&self) -> Bytes {
        let wire = match self {
            PunchMessage::Connect { addrs, behaviors, prediction } => HolePunch {
                kind: Some(CONNECT),
                addrs: addrs.clone(),
                behaviors: Some(behaviors.written()).filter(|all| *all != 0),
                prediction: prediction.written(),
            },
            PunchMessage::Sync { prediction } => HolePunch {
                kind: Some(SYNC),
                prediction: prediction.written(),
                ..HolePunch::default()
            },
        };
        wire.encode_to_vec().into()
    }
}

/// DCUtR §RPC messages. By hand, so that its list is bounded.
#[derive(Clone, Debug, Default, PartialEq)]
struct HolePunch {
    kind: Option<i32>,
    addrs: Vec<Bytes>,
    behaviors: Option<u32>,
    prediction: Option<u64>,
}

impl prost::Message for HolePunch {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if let Some(kind) = &self.kind {
            encoding::int32::encode(1, kind, buf);
        }
        encoding::bytes::encode_repeated(2, &self.addrs, buf);
        if let Some(behaviors) = &self.behaviors {
            encoding::fixed32::encode(BEHAVIORS, behaviors, buf);
        }
        if let Some(prediction) = &self.prediction {
            encoding::fixed64::encode(PREDICTION, prediction, buf);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        match tag {
            1 => encoding::int32::merge(wire_type, self.kind.get_or_insert_default(), buf, ctx),
            2 => {
                let addr = read_bytes(wire_type, buf, ctx)?;
                if self.addrs.len() < PUNCH_ADDRS_MAX {
                    self.addrs.push(addr);
                }
                Ok(())
            }
            BEHAVIORS if wire_type == WireType::ThirtyTwoBit => {
                let all = self.behaviors.get_or_insert_default();
                encoding::fixed32::merge(wire_type, all, buf, ctx)
            }
            PREDICTION if wire_type == WireType::SixtyFourBit => {
                let all = self.prediction.get_or_insert_default();
                encoding::fixed64::merge(wire_type, all, buf, ctx)
            }
            _ => encoding::skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        let kind = self.kind.as_ref().map_or(0, |kind| encoding::int32::encoded_len(1, kind));
        let (behaviors, prediction) = (self.behaviors.as_ref(), self.prediction.as_ref());
        kind + encoding::bytes::encoded_len_repeated(2, &self.addrs)
            + behaviors.map_or(0, |all| encoding::fixed32::encoded_len(BEHAVIORS, all))
            + prediction.map_or(0, |all| encoding::fixed64::encoded_len(PREDICTION, all))
    }

    fn clear(&mut self) {
        *self = HolePunch::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    const SYNC: PunchMessage = PunchMessage::Sync { prediction: Prediction::Off };

    fn connect(addrs: Vec<Bytes>) -> PunchMessage {
        let prediction = Prediction::Off;
        PunchMessage::Connect { addrs, behaviors: Behaviors::default(), prediction }
    }

    #[test]
    fn messages_are_the_deployed_bytes() {
        assert_eq!(SYNC.encode(), &b"\x08\xac\x02"[..]);
        assert_eq!(connect(vec![]).encode(), &b"\x08\x64"[..]);
        let addr = Bytes::from_static(b"\x04\x2c\x00\x00\x01\x06\x0f\xa1");
        let both = connect(vec![addr.clone(), addr]).encode();
        let expected = b"\x08\x64\x12\x08\x04\x2c\x00\x00\x01\x06\x0f\xa1\x12\x08\x04\x2c\x00\x00\x01\x06\x0f\xa1";
        assert_eq!(both, &expected[..]);
    }

    #[test]
    fn what_is_neither_is_refused() {
        for (body, error) in [
            (&b""[..], DecodeError::Empty),
            (b"\x08\x65", DecodeError::Malformed),
            (b"\x08", DecodeError::Malformed),
            (b"\x0a\x01\x64", DecodeError::Malformed),
            (b"\x08\x64\x12\x09\x04", DecodeError::Malformed),
        ] {
            assert_eq!(PunchMessage::decode(&Bytes::from_static(body)), Err(error), "{body:?}");
        }
    }

    #[test]
    fn behaviors_stand_in_a_field_that_others_skip() {
        let behaviors = Behaviors::of(|class| match class.transport {
            Transport::Tcp => Behavior {
                mapping: MappingBehavior::AddressAndPortDependent,
                filtering: FilteringBehavior::AddressDependent,
            },
            Transport::Quic => Behavior::UNKNOWN,
        });
        let prediction = Prediction::Off;
        let said = PunchMessage::Connect { addrs: vec![], behaviors, prediction };
        // Field 1000, 32 bits: IPv4 with TCP in the lowest byte, IPv6 with TCP in the third.
        assert_eq!(said.encode(), &b"\x08\x64\xc5\x3e\x43\x00\x43\x00"[..]);
        assert_eq!(PunchMessage::decode(&said.encode()), Ok(said));
        // A code of a later version, and the field in another form.
        for body in [&b"\x08\x64\xc5\x3e\xff\xff\xff\xff"[..], b"\x08\x64\xc0\x3e\x05"] {
            assert_eq!(PunchMessage::decode(&Bytes::from_static(body)), Ok(connect(vec![])));
        }
    }

    #[test]
    fn a_prediction_stands_in_a_field_that_others_skip() {
        let class = Class::new(Family::Ip4, Transport::Quic);
        let ports = PredictedPorts { class, first: 0x1234, step: 1, count: 32 };
        let said = PunchMessage::Sync { prediction: Prediction::Ports(ports) };
        // Field 1001, 64 bits, little-endian: port, step, how many, class.
        let bytes = b"\x08\xac\x02\xc9\x3e\x34\x12\x01\x00\x20\x01\x00\x00";
        assert_eq!(said.encode(), &bytes[..]);
        assert_eq!(PunchMessage::decode(&said.encode()), Ok(said));
        let takes_part = PunchMessage::Connect {
            addrs: vec![],
            behaviors: Behaviors::default(),
            prediction: Prediction::TakesPart,
        };
        assert_eq!(takes_part.encode(), &b"\x08\x64\xc9\x3e\0\0\0\0\0\0\0\0"[..]);
        assert_eq!(PunchMessage::decode(&takes_part.encode()), Ok(takes_part));
        // The field in another form.
        let other = Bytes::from_static(b"\x08\x64\xc8\x3e\x05");
        assert_eq!(PunchMessage::decode(&other), Ok(connect(vec![])));
    }

    #[test]
    fn a_long_list_is_cut() {
        let body = [&b"\x08\x64"[..], &b"\x12\x00".repeat(2_000)].concat();
        let said = PunchMessage::decode(&body.into());
        assert_eq!(said, Ok(connect(vec![Bytes::new(); PUNCH_ADDRS_MAX])));
    }

    fn behaviors() -> impl Strategy<Value = Behaviors> {
        let one = (0..5u32, 0..5u32).prop_map(|(mapping, filtering)| Behavior {
            mapping: mapping_of(mapping),
            filtering: filtering_of(filtering),
        });
        proptest::array::uniform4(one).prop_map(Behaviors)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read(
            addrs in proptest::collection::vec(any::<Vec<u8>>(), 0..PUNCH_ADDRS_MAX),
            behaviors in behaviors(),
            prediction in any::<Option<u64>>(),
        ) {
            let addrs = addrs.into_iter().map(Bytes::from).collect();
            let prediction = prediction.map(Prediction::read).unwrap_or_default();
            let said = PunchMessage::Connect { addrs, behaviors, prediction };
            prop_assert_eq!(PunchMessage::decode(&said.encode()), Ok(said));
        }

        #[test]
        fn nothing_panics(body in any::<Vec<u8>>()) {
            if let Ok(said) = PunchMessage::decode(&body.into()) {
                prop_assert_eq!(PunchMessage::decode(&said.encode()), Ok(said));
            }
        }
    }
}
