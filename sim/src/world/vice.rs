//! The catalogue of bad servers. They identify and ping as everybody does; what is wrong is how
//! they answer dial requests, or where they say they see us.

use super::conn::{EndId, Purpose};
use super::{Occurrence, World};
use bytes::Bytes;
use portolan_core::wire::autonat::{DialBack, DialStatus, Message, ResponseStatus, v1};
use portolan_core::wire::identify::Identify;
use portolan_core::wire::multiaddr::{self, Decoded};
use portolan_core::{Addr, Duration, Family, Instant, Protocol, StreamId};
use std::net::IpAddr;

/// What is wrong with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vice {
    /// Answers `E_REQUEST_REJECTED`.
    Rejects,
    /// Answers `E_DIAL_REFUSED`.
    Refuses,
    /// Answers `E_INTERNAL_ERROR`.
    Errs,
    /// Never answers.
    Silent,
    /// Does what it is asked, after so long.
    Slow(Duration),
    /// Claims success and never dials.
    LiesOk,
    /// Claims failure and never dials.
    LiesFailure,
    /// Dials back with another nonce, and claims success.
    WrongNonce,
    /// Delivers the nonce on the connection that it was asked on, and claims success.
    NonceOnOldConnection,
    /// Delivers the nonce where it sees the client, whatever address it was asked about.
    NonceElsewhere,
    /// Connects, says nothing, and claims success.
    NoNonce,
    /// Serves honestly, and says that it sees everybody at this address.
    Poisons(Addr),
    /// Is honest for so long, then claims failures for as long, and so on.
    Flaps(Duration),
    /// Serves AutoNAT v1 alone, honestly.
    V1Alone,
    /// Serves AutoNAT v1 alone, and says anything at all, every time anew.
    V1Unreliable,
}

impl Vice {
    /// The word in scenarios and reports.
    pub const fn name(&self) -> &'static str {
        match self {
            Vice::Rejects => "rejects",
            Vice::Refuses => "refuses",
            Vice::Errs => "errs",
            Vice::Silent => "silent",
            Vice::Slow(_) => "slow",
            Vice::LiesOk => "lies-ok",
            Vice::LiesFailure => "lies-failure",
            Vice::WrongNonce => "wrong-nonce",
            Vice::NonceOnOldConnection => "nonce-on-old-connection",
            Vice::NonceElsewhere => "nonce-elsewhere",
            Vice::NoNonce => "no-nonce",
            Vice::Poisons(_) => "poisons",
            Vice::Flaps(_) => "flaps",
            Vice::V1Alone => "v1-alone",
            Vice::V1Unreliable => "v1-unreliable",
        }
    }

    /// Whether the server says the truth about every address that it is asked about, always, and in
    /// good time.
    pub const fn is_honest(&self) -> bool {
        match self {
            Vice::Poisons(_) => true,
            // They are asked about no address.
            Vice::V1Alone | Vice::V1Unreliable => false,
            Vice::Slow(_)
            | Vice::Flaps(_)
            | Vice::Rejects
            | Vice::Refuses
            | Vice::Errs
            | Vice::Silent
            | Vice::LiesOk
            | Vice::LiesFailure
            | Vice::WrongNonce
            | Vice::NonceOnOldConnection
            | Vice::NonceElsewhere
            | Vice::NoNonce => false,
        }
    }

    /// Whether it serves AutoNAT v1 and not v2.
    pub const fn is_v1_alone(&self) -> bool {
        matches!(self, Vice::V1Alone | Vice::V1Unreliable)
    }

    /// The same of AutoNAT v1: whatever it does with nonces, it says the same with and without one.
    fn plan_v1(&self, now: Instant) -> Option<Hearsay> {
        match self {
            Vice::Rejects | Vice::Refuses => Some(Hearsay::Says(v1::Status::DialRefused)),
            Vice::Errs => Some(Hearsay::Says(v1::Status::InternalError)),
            Vice::Silent => Some(Hearsay::Nothing),
            Vice::LiesFailure => Some(Hearsay::Says(v1::Status::DialError)),
            Vice::LiesOk
            | Vice::WrongNonce
            | Vice::NonceOnOldConnection
            | Vice::NonceElsewhere
            | Vice::NoNonce => Some(Hearsay::Says(v1::Status::Ok)),
            Vice::Flaps(span) if !is_honest_phase(now, *span) => {
                Some(Hearsay::Says(v1::Status::DialError))
            }
            Vice::V1Unreliable => Some(Hearsay::Anything),
            Vice::Flaps(_) | Vice::Poisons(_) | Vice::Slow(_) | Vice::V1Alone => None,
        }
    }

    /// What it does with a request, where core's own service does not answer.
    fn plan(&self, now: Instant) -> Option<Plan> {
        let answer = |status, dial| Plan::Answer(status, dial);
        match self {
            Vice::Rejects => Some(answer(ResponseStatus::Rejected, DialStatus::Unused)),
            Vice::Refuses => Some(answer(ResponseStatus::Refused, DialStatus::Unused)),
            Vice::Errs => Some(answer(ResponseStatus::InternalError, DialStatus::Unused)),
            Vice::Silent => Some(Plan::Nothing),
            Vice::Slow(wait) => {
                Some(Plan::Dial { wait: *wait, to: To::Requested, deliver: Deliver::Nonce })
            }
            Vice::LiesOk => Some(answer(ResponseStatus::Ok, DialStatus::Ok)),
            Vice::LiesFailure => Some(answer(ResponseStatus::Ok, DialStatus::DialError)),
            Vice::WrongNonce => Some(dial(To::Requested, Deliver::AnotherNonce)),
            Vice::NonceOnOldConnection => Some(Plan::OnOldConnection),
            Vice::NonceElsewhere => Some(dial(To::Observed, Deliver::Nonce)),
            Vice::NoNonce => Some(dial(To::Requested, Deliver::Nothing)),
            Vice::Flaps(span) if !is_honest_phase(now, *span) => {
                Some(answer(ResponseStatus::Ok, DialStatus::DialError))
            }
            Vice::Flaps(_) | Vice::Poisons(_) | Vice::V1Alone | Vice::V1Unreliable => None,
        }
    }
}

fn is_honest_phase(now: Instant, span: Duration) -> bool {
    (now.as_nanos() / u64::try_from(span.as_nanos().max(1)).unwrap_or(u64::MAX)).is_multiple_of(2)
}

const fn dial(to: To, deliver: Deliver) -> Plan {
    Plan::Dial { wait: Duration::ZERO, to, deliver }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    Requested,
    Observed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deliver {
    Nonce,
    AnotherNonce,
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    Answer(ResponseStatus, DialStatus),
    Nothing,
    OnOldConnection,
    Dial { wait: Duration, to: To, deliver: Deliver },
}

/// What a script does with a request of AutoNAT v1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hearsay {
    Says(v1::Status),
    Nothing,
    Anything,
}

/// A request that a script works on.
#[derive(Clone, Debug)]
pub(super) struct Request {
    stream: StreamId,
    to: Addr,
    nonce: Option<u64>,
    /// Whether it claims success however the dial ends.
    claims: bool,
}

/// How long a script's dial-back may take; as an honest server's longest.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

impl World {
    /// Whether a script of the node's, and not its core, answers on a stream of this protocol now.
    pub(super) fn is_scripted(&self, node: usize, protocol: Protocol) -> bool {
        let Some(vice) = self.nodes[node].vice else { return false };
        match protocol {
            Protocol::DialRequest => vice.plan(self.now).is_some(),
            Protocol::AutonatV1 => vice.plan_v1(self.now).is_some(),
            Protocol::Identify
            | Protocol::IdentifyPush
            | Protocol::Ping
            | Protocol::DialBack
            | Protocol::Hop
            | Protocol::Stop
            | Protocol::Punch => false,
        }
    }

    /// A dial request came in on a stream that a script answers.
    pub(super) fn script_asked(&mut self, node: usize, stream: StreamId, body: &Bytes) {
        if stream.protocol == Protocol::AutonatV1 {
            return self.script_asked_v1(node, stream, body);
        }
        let Ok(Message::DialRequest { addrs, nonce }) = Message::decode(body) else { return };
        let Some(plan) = self.nodes[node].vice.and_then(|vice| vice.plan(self.now)) else { return };
        let Some(&(conn, role)) = self.nodes[node].streams.get(&stream) else { return };
        match plan {
            Plan::Nothing => {}
            Plan::Answer(status, dial) => self.script_answer(node, stream, status, dial),
            Plan::OnOldConnection => {
                self.deliver_nonce((conn, role), nonce);
                self.script_answer(node, stream, ResponseStatus::Ok, DialStatus::Ok);
            }
            Plan::Dial { wait, to, deliver } => {
                let requested = addrs.first().and_then(|bytes| match multiaddr::decode(bytes) {
                    Ok(Decoded::Direct { addr, .. }) => Some(addr),
                    Ok(_) | Err(_) => None,
                });
                let seen = self.end((conn, role)).map(|end| end.remote);
                let to = if to == To::Observed { seen } else { requested };
                let Some(to) = to else { return };
                let nonce = match deliver {
                    Deliver::Nonce => Some(nonce),
                    Deliver::AnotherNonce => Some(nonce.wrapping_sub(1)),
                    Deliver::Nothing => None,
                };
                let number = self.fresh();
                let claims = deliver != Deliver::Nonce;
                let request = Request { stream, to, nonce, claims };
                self.nodes[node].requests.insert(number, request);
                self.later(wait, Occurrence::ScriptDials { node, number });
            }
        }
    }

    fn script_asked_v1(&mut self, node: usize, stream: StreamId, body: &Bytes) {
        let Ok(v1::Message::Dial { .. }) = v1::Message::decode(body) else { return };
        let plan = self.nodes[node].vice.and_then(|vice| vice.plan_v1(self.now));
        let all = [v1::Status::Ok, v1::Status::DialError, v1::Status::DialRefused];
        let status = match plan {
            Some(Hearsay::Says(status)) => status,
            // Two in five are the one word, two the other, and one is silence or a refusal.
            Some(Hearsay::Anything) => match self.dice.between(0, 9) {
                0..=3 => all[0],
                4..=7 => all[1],
                8 => all[2],
                _ => return,
            },
            Some(Hearsay::Nothing) | None => return,
        };
        self.say_on(node, stream, v1::Message::DialResponse { status, addr: None }.encode());
        self.finish_stream(node, stream);
    }

    pub(super) fn script_dials(&mut self, node: usize, number: u64) {
        let Some(request) = self.nodes[node].requests.get(&number) else { return };
        let to = request.to;
        let sources = self.nodes[node].serves().unwrap_or_default();
        let family = |ip: &&IpAddr| Family::of(**ip) == Family::of(to.ip);
        let source = sources.iter().find(family).copied();
        self.dial(node, to, Purpose::Scripted(number), source, DIAL_TIMEOUT);
    }

    /// The dial of a script ended; with a connection, or without.
    pub(super) fn script_dialled(&mut self, node: usize, number: u64, conn: Option<EndId>) {
        let Some(request) = self.nodes[node].requests.remove(&number) else { return };
        if let (Some(end), Some(nonce)) = (conn, request.nonce) {
            self.deliver_nonce(end, nonce);
        }
        let dial =
            if conn.is_some() || request.claims { DialStatus::Ok } else { DialStatus::DialError };
        self.script_answer(node, request.stream, ResponseStatus::Ok, dial);
    }

    fn script_answer(
        &mut self,
        node: usize,
        stream: StreamId,
        status: ResponseStatus,
        dial_status: DialStatus,
    ) {
        let body =
            Message::DialResponse { status, addr_idx: 0, dial_status, failed_from: None }.encode();
        self.say_on(node, stream, body);
        self.finish_stream(node, stream);
    }

    fn deliver_nonce(&mut self, end: EndId, nonce: u64) {
        self.script_opens(end, DialBack { nonce }.encode());
    }

    /// What a node really says when it describes itself: where it sees the other side, and, unless
    /// the world has them, no keys and signed records, whose arithmetic takes longer than all the rest.
    pub(super) fn twisted(&self, node: usize, body: Bytes) -> Bytes {
        let poison = match self.nodes[node].vice {
            Some(Vice::Poisons(addr)) => Some(addr),
            _ => None,
        };
        let load = self.nodes[node].mood.claims_load;
        let is_old = self.nodes[node].vice.is_some_and(|vice| vice.is_v1_alone());
        if poison.is_none() && load.is_none() && !is_old && self.signs {
            return body;
        }
        let Ok(mut identify) = Identify::decode(&body) else { return body };
        if !self.signs {
            identify.public_key = None;
            identify.signed_peer_record = None;
        }
        let new = Protocol::DialRequest.name();
        identify.protocols.retain(|name| !is_old || name != new);
        // Only who relays says how full it is.
        identify.relay_load = identify.relay_load.map(|told| load.unwrap_or(told));
        // A word about another protocol would be ignored.
        let seen = identify.observed.as_ref().and_then(|bytes| multiaddr::decode(bytes).ok());
        if let (Some(addr), Some(Decoded::Direct { addr: seen, .. })) = (poison, seen) {
            identify.observed = Some(multiaddr::encode(Addr { transport: seen.transport, ..addr }));
        }
        identify.encode_split().messages.into_iter().next().unwrap_or(body)
    }
}
