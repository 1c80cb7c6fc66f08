//! One question to DNS servers, over UDP, and over TCP where the answer is too long for that.
//!
//! A server that does not answer, or cannot, is passed over for the next; all are asked twice. That
//! there is no such name is an answer.

use super::NameError;
use crate::sockets;
use crate::time::timeout;
use crate::traits::Runtime;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use portolan_core::Duration;
use rand::TryRng;
use rand::rngs::SysRng;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How often every server is asked, number; resolv.conf(5): 2.
const ROUNDS: usize = 2;
/// How long one server may take for one question, seconds; ours: beyond what a resolver takes that
/// has to ask around. resolv.conf(5) has 5, which nobody wants to wait.
const TRY: Duration = Duration::from_secs(2);
/// The longest answer over UDP that we ask for, bytes; what the DNS flag day of 2020 settled on:
/// longer ones may be cut up on the way, and pieces be lost.
const UDP_ANSWER: u16 = 1_232;
/// The longest answer that is read, bytes; ours: hundreds of addresses fit. When full, the answer is
/// not read, and the error says how long it was.
pub(super) const ANSWER_MAX: usize = 16_384;
/// Names that one answer may lead through (CNAME), number; ours, as in most resolvers. When full, the
/// name counts as a loop.
const ALIASES_MAX: usize = 8;
/// Datagrams that are looked at for one answer, number; ours: some may be forged or late. When full,
/// the server counts as silent.
const DATAGRAMS_MAX: usize = 64;

/// What servers answered.
#[derive(Debug)]
pub(super) struct Answer {
    /// The records of the name, or of the one that it is another name for.
    pub(super) records: Vec<RData>,
    /// Where to ask on: the name is another name for this one, of which the answer says nothing.
    pub(super) alias: Option<Name>,
}

/// Why one server was of no use.
enum Useless {
    /// It failed, or the way to it did: another may do better.
    Failed(String),
    /// No other will say anything else.
    Final(NameError),
}

impl From<io::Error> for Useless {
    fn from(error: io::Error) -> Useless {
        Useless::Failed(error.to_string())
    }
}

/// Ask until a server answers.
pub(super) async fn ask<R: Runtime>(
    runtime: &R,
    servers: &[SocketAddr],
    name: &Name,
    wanted: RecordType,
) -> Result<Answer, NameError> {
    let mut last = NameError::NoServers;
    for server in servers.iter().copied().cycle().take(servers.len() * ROUNDS) {
        last = match timeout(runtime, TRY, ask_one(runtime, server, name, wanted)).await {
            Some(Ok(message)) => match follow(&message, name, wanted) {
                Ok(answer) => return Ok(answer),
                Err(Useless::Final(error)) => return Err(error),
                Err(Useless::Failed(said)) => failed(name, server, said),
            },
            Some(Err(Useless::Final(error))) => return Err(error),
            Some(Err(Useless::Failed(said))) => failed(name, server, said),
            None => NameError::TimedOut { name: name.to_ascii() },
        };
        tracing::debug!(%server, error = %last, "a DNS server is of no use");
    }
    Err(last)
}

fn failed(name: &Name, server: SocketAddr, said: String) -> NameError {
    NameError::Failed { name: name.to_ascii(), server, said }
}

async fn ask_one<R: Runtime>(
    runtime: &R,
    server: SocketAddr,
    name: &Name,
    wanted: RecordType,
) -> Result<Message, Useless> {
    let id = SysRng.try_next_u32().map_err(|error| Useless::Failed(error.to_string()))?;
    let id = u16::try_from(id & u32::from(u16::MAX)).unwrap_or_default();
    let question = Query::query(name.clone(), wanted);
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(question.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_ANSWER);
    message.set_edns(edns);
    let bytes = message.to_vec().map_err(|error| Useless::Failed(error.to_string()))?;
    let is_answer = |message: &Message| {
        message.metadata.id == id
            && message.metadata.message_type == MessageType::Response
            && message.queries == [question.clone()]
    };
    let answer = over_udp(runtime, server, &bytes, is_answer).await?;
    if !answer.metadata.truncation {
        return Ok(answer);
    }
    let answer = over_tcp(runtime, server, &bytes, name).await?;
    if is_answer(&answer) {
        Ok(answer)
    } else {
        Err(Useless::Failed("it answered another question".into()))
    }
}

/// The first datagram of the server's that is the answer. The port is the kernel's choice, a
/// fresh one for each question, and only the server's datagrams reach it.
async fn over_udp<R: Runtime>(
    runtime: &R,
    server: SocketAddr,
    question: &[u8],
    is_answer: impl Fn(&Message) -> bool,
) -> Result<Message, Useless> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = sockets::bind_udp(SocketAddr::new(any, 0))?;
    socket.connect(server)?;
    socket.send(question)?;
    let udp = runtime.udp(socket)?;
    let mut buf = [0; UDP_ANSWER as usize];
    for _ in 0..DATAGRAMS_MAX {
        let count = runtime.read_udp(&udp, |socket| socket.recv(&mut buf)).await?;
        let datagram = buf.get(..count).unwrap_or_default();
        match Message::from_vec(datagram) {
            Ok(message) if is_answer(&message) => return Ok(message),
            Ok(_) => tracing::debug!(%server, "a datagram answers another question"),
            Err(error) => tracing::debug!(%server, %error, "a datagram is no answer"),
        }
    }
    Err(Useless::Failed("it sends anything but the answer".into()))
}

async fn over_tcp<R: Runtime>(
    runtime: &R,
    server: SocketAddr,
    question: &[u8],
    name: &Name,
) -> Result<Message, Useless> {
    let mut tcp = runtime.connected(sockets::dial_fresh(server, None)?.socket).await?;
    // RFC 1035 §4.2.2: a length of two bytes goes before each message.
    let length = u16::try_from(question.len()).unwrap_or(u16::MAX);
    let mut whole = length.to_be_bytes().to_vec();
    whole.extend_from_slice(question);
    tcp.write_all(&whole).await?;
    tcp.flush().await?;
    let mut length = [0; 2];
    tcp.read_exact(&mut length).await?;
    let bytes = usize::from(u16::from_be_bytes(length));
    if bytes > ANSWER_MAX {
        let name = name.to_ascii();
        return Err(Useless::Final(NameError::AnswerTooLong { name, bytes, max: ANSWER_MAX }));
    }
    let mut answer = vec![0; bytes];
    tcp.read_exact(&mut answer).await?;
    Message::from_vec(&answer).map_err(|error| Useless::Failed(format!("no answer: {error}")))
}

/// The records that are wanted in an answer, through the aliases that it names.
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "of two dozen codes and kinds of records, these alone are told apart"
)]
fn follow(message: &Message, name: &Name, wanted: RecordType) -> Result<Answer, Useless> {
    match message.metadata.response_code {
        ResponseCode::NoError => {}
        ResponseCode::NXDomain => {
            return Err(Useless::Final(NameError::NoSuchName { name: name.to_ascii() }));
        }
        other => return Err(Useless::Failed(other.to_string())),
    }
    let mut owner = name;
    for _ in 0..=ALIASES_MAX {
        let mut of_owner = message.answers.iter().filter(|record| record.name == *owner);
        let alias = of_owner.clone().find_map(|record| match &record.data {
            RData::CNAME(alias) => Some(&alias.0),
            _ => None,
        });
        match alias {
            Some(alias) => owner = alias,
            None => {
                let is_wanted = |data: &&RData| data.record_type() == wanted;
                let records: Vec<RData> = of_owner
                    .by_ref()
                    .map(|record| &record.data)
                    .filter(is_wanted)
                    .cloned()
                    .collect();
                let alias = (records.is_empty() && owner != name).then(|| owner.clone());
                return Ok(Answer { records, alias });
            }
        }
    }
    Err(Useless::Final(NameError::Loop { name: name.to_ascii() }))
}
