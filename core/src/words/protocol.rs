//! The protocols that core speaks: their names, and how their messages are cut out of a stream.

/// A protocol that core speaks over streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// identify: the listener of the stream describes itself.
    Identify,
    /// identify/push: the opener of the stream describes itself anew.
    IdentifyPush,
    /// ping: 32 bytes echoed.
    Ping,
    /// AutoNAT v2: a client asks a server to dial it.
    DialRequest,
    /// AutoNAT v2: the server delivers the nonce on the connection it dialled.
    DialBack,
    /// Circuit relay v2: a client asks a relay for a reservation, or for a circuit.
    Hop,
    /// Circuit relay v2: a relay brings a circuit.
    Stop,
    /// DCUtR: two peers on a circuit agree to punch.
    Punch,
    /// AutoNAT v1: a client asks a server to dial it, and believes what it says.
    AutonatV1,
}

/// How the runtime cuts one message out of a stream's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// An unsigned varint with the length of the body, then the body of at most `max` bytes.
    Varint {
        /// The largest body accepted, in bytes.
        max: usize,
    },
    /// Messages of one length without a prefix.
    Fixed {
        /// The length of every message, in bytes.
        len: usize,
    },
}

impl Protocol {
    /// Every protocol, in order.
    pub const ALL: [Protocol; 9] = [
        Protocol::Identify,
        Protocol::IdentifyPush,
        Protocol::Ping,
        Protocol::DialRequest,
        Protocol::DialBack,
        Protocol::Hop,
        Protocol::Stop,
        Protocol::Punch,
        Protocol::AutonatV1,
    ];

    /// The name that multistream-select negotiates.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Identify => "/ipfs/id/1.0.0",
            Protocol::IdentifyPush => "/ipfs/id/push/1.0.0",
            Protocol::Ping => "/ipfs/ping/1.0.0",
            Protocol::DialRequest => "/libp2p/autonat/2/dial-request",
            Protocol::DialBack => "/libp2p/autonat/2/dial-back",
            Protocol::Hop => "/libp2p/circuit/relay/0.2.0/hop",
            Protocol::Stop => "/libp2p/circuit/relay/0.2.0/stop",
            Protocol::Punch => "/libp2p/dcutr",
            Protocol::AutonatV1 => "/libp2p/autonat/1.0.0",
        }
    }

    /// The short name, as transcripts and [`StreamId`](crate::StreamId) print it.
    pub const fn word(self) -> &'static str {
        match self {
            Protocol::Identify => "identify",
            Protocol::IdentifyPush => "push",
            Protocol::Ping => "ping",
            Protocol::DialRequest => "dial-request",
            Protocol::DialBack => "dial-back",
            Protocol::Hop => "hop",
            Protocol::Stop => "stop",
            Protocol::Punch => "punch",
            Protocol::AutonatV1 => "autonat-v1",
        }
    }

    /// The protocol that goes by `name`.
    pub fn from_name(name: &str) -> Option<Protocol> {
        Protocol::ALL.into_iter().find(|protocol| protocol.name() == name)
    }

    /// How messages of this protocol are cut, and the largest one that is accepted.
    pub const fn framing(self) -> Framing {
        match self {
            // go-libp2p's and js-libp2p's read limit for one identify message (specs PR 709).
            Protocol::Identify | Protocol::IdentifyPush => Framing::Varint { max: 8_192 },
            // ping §Protocol: 32 random bytes.
            Protocol::Ping => Framing::Fixed { len: 32 },
            // go-libp2p's and js-libp2p's read limit; a dial data chunk needs 4,096 and a little.
            Protocol::DialRequest => Framing::Varint { max: 8_192 },
            // go-libp2p's read limit; a DialBack is 9 bytes.
            Protocol::DialBack => Framing::Varint { max: 1_024 },
            // The limit of all three implementations; a reservation takes some hundreds.
            // DCUtR §RPC messages has the same.
            Protocol::Hop | Protocol::Stop | Protocol::Punch => Framing::Varint { max: 4_096 },
            // go-libp2p's read limit; sixteen addresses and a text for humans take some hundreds.
            Protocol::AutonatV1 => Framing::Varint { max: 4_096 },
        }
    }
}

/// A set of the protocols that core knows, as a peer lists them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProtocolSet(u16);

impl ProtocolSet {
    /// The empty set.
    pub const NONE: ProtocolSet = ProtocolSet(0);

    /// This set and `protocol`.
    #[must_use]
    pub const fn with(self, protocol: Protocol) -> ProtocolSet {
        ProtocolSet(self.0 | 1 << protocol as u8)
    }

    /// Whether `protocol` is in the set.
    pub const fn contains(self, protocol: Protocol) -> bool {
        self.0 & 1 << protocol as u8 != 0
    }

    /// The known protocols among `names`.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> ProtocolSet {
        names.into_iter().filter_map(Protocol::from_name).fold(ProtocolSet::NONE, ProtocolSet::with)
    }

    /// The protocols of the set, in order.
    pub fn iter(self) -> impl Iterator<Item = Protocol> {
        Protocol::ALL.into_iter().filter(move |protocol| self.contains(*protocol))
    }
}
