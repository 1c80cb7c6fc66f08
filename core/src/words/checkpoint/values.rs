//! How the words are saved.

use super::{BadCheckpoint, Kind, Loader, Saved, Saver, saved};
use crate::words::addr::{Addr, Class, Family, Transport};
use crate::words::deadline::{Deadline, Wake};
use crate::words::event::DialFailure;
use crate::words::id::{ConnId, DialId, ListenerId, PeerId, Side, StreamId};
use crate::words::judgement::{
    FilteringBehavior, MappingBehavior, NodeState, Outcome, Reason, Scope, Source, Sources,
};
use crate::words::mapping::{
    Channel, FetchId, Gateway, GatewayAnswer, Lease, Mapping, MappingProtocol, MappingReason,
    MappingState,
};
use crate::words::protocol::{Protocol, ProtocolSet};
use crate::words::punch::{PunchFailure, PunchId};
use crate::words::relay::{CircuitAddr, CircuitId, CircuitLimit, RelayFailure};
use crate::words::time::{Duration, Instant, UnixTime};
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

impl Saved for IpAddr {
    fn save(&self, out: &mut Saver<'_>) {
        let ip = out.exchanged(*self);
        out.ip(ip);
    }

    fn load(from: &mut Loader<'_>) -> Result<IpAddr, BadCheckpoint> {
        Ok(match Family::load(from)? {
            Family::Ip4 => Ipv4Addr::from(from.octets::<4>()?).into(),
            Family::Ip6 => Ipv6Addr::from(from.octets::<16>()?).into(),
        })
    }
}

impl Saved for PeerId {
    fn save(&self, out: &mut Saver<'_>) {
        let exchange = out.exchange.as_mut();
        let bytes = exchange.map_or(*self, |exchange| exchange.by.peer(*self)).to_bytes();
        out.len(bytes.len());
        out.raw(&bytes);
    }

    fn load(from: &mut Loader<'_>) -> Result<PeerId, BadCheckpoint> {
        let len = from.len()?;
        PeerId::from_bytes(from.raw(len)?).map_err(|_| BadCheckpoint)
    }
}

impl Saved for Instant {
    fn save(&self, out: &mut Saver<'_>) {
        out.moment(*self);
    }

    fn load(from: &mut Loader<'_>) -> Result<Instant, BadCheckpoint> {
        from.number().map(Instant::from_nanos)
    }
}

impl Saved for UnixTime {
    fn save(&self, out: &mut Saver<'_>) {
        out.number(self.as_millis());
    }

    fn load(from: &mut Loader<'_>) -> Result<UnixTime, BadCheckpoint> {
        from.number().map(UnixTime::from_millis)
    }
}

impl Saved for SocketAddr {
    /// Without a zone, which means nothing elsewhere.
    fn save(&self, out: &mut Saver<'_>) {
        self.ip().save(out);
        self.port().save(out);
    }

    fn load(from: &mut Loader<'_>) -> Result<SocketAddr, BadCheckpoint> {
        Ok(SocketAddr::new(IpAddr::load(from)?, u16::load(from)?))
    }
}

impl Saved for String {
    fn save(&self, out: &mut Saver<'_>) {
        out.len(self.len());
        out.raw(self.as_bytes());
    }

    fn load(from: &mut Loader<'_>) -> Result<String, BadCheckpoint> {
        let len = from.len()?;
        String::from_utf8(Vec::from(from.raw(len)?)).map_err(|_| BadCheckpoint)
    }
}

impl Saved for Duration {
    /// In nanoseconds: no span in the state is longer than the time there is.
    fn save(&self, out: &mut Saver<'_>) {
        out.number(u64::try_from(self.as_nanos()).unwrap_or(u64::MAX));
    }

    fn load(from: &mut Loader<'_>) -> Result<Duration, BadCheckpoint> {
        from.number().map(Duration::from_nanos)
    }
}

impl Saved for Sources {
    fn save(&self, out: &mut Saver<'_>) {
        self.iter().collect::<BTreeSet<Source>>().save(out);
    }

    fn load(from: &mut Loader<'_>) -> Result<Sources, BadCheckpoint> {
        let all = BTreeSet::<Source>::load(from)?;
        Ok(all.into_iter().fold(Sources::NONE, Sources::with))
    }
}

impl Saved for ProtocolSet {
    fn save(&self, out: &mut Saver<'_>) {
        self.iter().collect::<BTreeSet<Protocol>>().save(out);
    }

    fn load(from: &mut Loader<'_>) -> Result<ProtocolSet, BadCheckpoint> {
        let all = BTreeSet::<Protocol>::load(from)?;
        Ok(all.into_iter().fold(ProtocolSet::NONE, ProtocolSet::with))
    }
}

macro_rules! saved_id {
    ($($name:ident is $kind:expr)*) => {$(
        impl Saved for $name {
            fn save(&self, out: &mut Saver<'_>) {
                out.id(&self.0, $kind);
            }

            fn load(from: &mut Loader<'_>) -> Result<$name, BadCheckpoint> {
                from.number().map($name)
            }
        }
    )*};
}

saved_id! {
    ConnId is Kind::Conn
    ListenerId is Kind::Listener
    DialId is Kind::Stream(Side::Outbound, Protocol::DialBack)
}

saved!(struct FetchId(id));
saved!(enum MappingProtocol { 1 = Pcp, 2 = NatPmp, 3 = Upnp });
saved!(struct Gateway { router, interface, source });
saved!(enum Channel {
    1 = Client { source, interface },
    2 = Group { group, source, interface },
});
saved!(struct GatewayAnswer { router, protocol, external });
saved!(struct Lease { router, protocol, external, lifetime });
saved!(struct Mapping { internal, state, reason, lease });
saved!(enum MappingState { 1 = Asking, 2 = Granted, 3 = Failed });
saved!(enum MappingReason {
    1 = Asking,
    2 = Granted,
    3 = NoGateway,
    4 = Silent,
    5 = Refused { protocol, code },
    6 = Exhausted { protocol, code },
    7 = GatewayOffline { protocol },
    8 = NestedNetwork,
    9 = Faulty { protocol, code },
    10 = Conflict,
    11 = GatewayBehindNat { external },
    12 = NotForwarding,
});
saved!(struct PunchId(id));
saved!(struct CircuitId(id));
saved!(struct CircuitAddr { relay, addr });
saved!(struct CircuitLimit { duration, bytes });
saved!(enum DialFailure { 1 = Refused, 2 = TimedOut, 3 = Handshake, 4 = LocalFault });
saved!(enum RelayFailure {
    1 = Unreachable(reason),
    2 = Unsupported,
    3 = TimedOut,
    4 = Full,
    5 = Denied,
    6 = BadAnswer,
    7 = BadVoucher,
    8 = Disconnected,
});
saved!(struct StreamId { side, protocol, number as id(Kind::Stream(*side, *protocol)) });
saved!(struct Addr { ip, port, transport });
saved!(struct Class { family, transport });
saved!(struct Deadline { at, wake });
saved!(enum Side { 1 = Inbound, 2 = Outbound });
saved!(enum Protocol { 1 = Identify, 2 = IdentifyPush, 3 = Ping, 4 = DialRequest, 5 = DialBack, 6 = Hop, 7 = Stop, 8 = Punch, 9 = AutonatV1 });
saved!(enum Family { 1 = Ip4, 2 = Ip6 });
saved!(enum Transport { 1 = Tcp, 2 = Quic });
saved!(enum Source { 1 = Configured, 2 = Mapped, 3 = Observed, 4 = Interface, 5 = Guess });
saved!(enum Scope { 1 = ContactedOnly, 2 = Contacted, 3 = Anywhere });
saved!(enum NodeState { 1 = Unknown, 2 = Private, 3 = Limited, 4 = Public });
saved!(enum Outcome {
    1 = Proved,
    2 = DialFailed,
    3 = Refused,
    4 = Rejected,
    5 = Error,
    6 = DialBackError,
    7 = Timeout,
    8 = Lie,
    9 = Declined,
});
saved!(enum MappingBehavior {
    1 = Unknown,
    2 = None,
    3 = EndpointIndependent,
    4 = AddressDependent,
    5 = AddressAndPortDependent,
});
saved!(enum FilteringBehavior {
    1 = Unknown,
    2 = None,
    3 = EndpointIndependent,
    4 = AddressDependent,
    5 = AddressAndPortDependent,
});
saved!(enum Reason {
    1 = ProvedByStranger,
    2 = StrangerConnected,
    3 = ProvedByContacted,
    4 = StrangersRefused,
    5 = PresumedOpen,
    6 = DialFailed { servers },
    7 = Probing,
    8 = NoServers,
    9 = ServersRefused,
    10 = ServersUnhelpful,
    11 = ServersDistrusted,
    12 = Expired,
    13 = EndpointDependentMapping { provisional },
    14 = NoCandidates,
    15 = Forced,
    16 = NotListening,
    17 = JustStarted,
    18 = Hearsay,
});
saved!(enum PunchFailure {
    1 = EndpointDependent,
    2 = NoCommonAddress,
    3 = Unsupported,
    4 = BadAnswer,
    5 = NotReached,
    6 = CircuitLost,
    7 = Unpredictable,
});
saved!(enum Wake {
    1 = IdentifyOverdue,
    2 = Ping,
    3 = VoteDecays,
    4 = ProbeOverdue,
    5 = NonceOverdue,
    6 = ServerRested,
    7 = ProbeAgain,
    8 = VerdictExpires,
    9 = HoldDownEnds,
    10 = UploadOverdue,
    11 = DialBackOverdue,
    12 = PushOverdue,
    13 = IdentifyAgain,
    14 = MappingDue,
    15 = LeaseExpires,
    16 = RelayNeed,
    17 = RelayDue,
    18 = RelayOverdue,
    19 = ReservationExpires,
    20 = CircuitOverdue,
    21 = RelayExchangeOverdue,
    22 = CircuitOvertime,
    23 = PunchDue,
    24 = PunchOverdue,
    25 = HearsayDue,
    26 = HearsayOverdue,
});
