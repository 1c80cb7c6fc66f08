//! A DNS server on loopback: it speaks UDP, and TCP for what is too long for that.

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How long answers are valid, seconds.
const TTL: u32 = 60;
/// How often a thread looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);
/// How often it is tried to get one port for both transports.
const PORT_TRIES: usize = 16;

/// The names that a server knows.
#[derive(Clone, Debug, Default)]
pub struct Zone {
    records: BTreeMap<(Name, RecordType), Vec<RData>>,
    /// Names for which it says that it failed.
    failing: Vec<Name>,
}

impl Zone {
    /// A name has this IP, beside those that it has.
    #[must_use]
    pub fn ip(mut self, of: &str, ip: &str) -> Zone {
        let data = match ip.parse().expect("an IP") {
            IpAddr::V4(ip) => RData::A(A(ip)),
            IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
        };
        self.add(of, data);
        self
    }

    /// A name is another name for this one.
    #[must_use]
    pub fn alias(mut self, of: &str, target: &str) -> Zone {
        self.add(of, RData::CNAME(CNAME(name(target))));
        self
    }

    /// What `/dnsaddr/NAME` leads to, beside what it leads to already.
    #[must_use]
    pub fn dnsaddr(self, of: &str, multiaddr: &str) -> Zone {
        self.text(&format!("_dnsaddr.{of}"), &format!("dnsaddr={multiaddr}"))
    }

    /// A name has this text, in pieces as long as DNS allows.
    #[must_use]
    pub fn text(mut self, of: &str, text: &str) -> Zone {
        let pieces = text.as_bytes().chunks(255).collect();
        self.add(of, RData::TXT(TXT::from_bytes(pieces)));
        self
    }

    /// The server fails to resolve a name.
    #[must_use]
    pub fn failing(mut self, of: &str) -> Zone {
        self.failing.push(name(of));
        self
    }

    fn add(&mut self, of: &str, data: RData) {
        self.records.entry((name(of), data.record_type())).or_default().push(data);
    }

    /// The answer to a question, as a resolver gives it: with everything that a name leads to.
    fn answer(&self, question: &Message) -> Message {
        let mut answer = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
        answer.metadata.recursion_desired = true;
        answer.metadata.recursion_available = true;
        let [query] = question.queries.as_slice() else {
            answer.metadata.response_code = ResponseCode::FormErr;
            return answer;
        };
        answer.add_query(query.clone());
        let mut owner = query.name().clone();
        if self.failing.contains(&owner) {
            answer.metadata.response_code = ResponseCode::ServFail;
            return answer;
        }
        let knows = |owner: &Name| self.records.keys().any(|(name, _)| name == owner);
        if !knows(&owner) {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        // Ten aliases are enough for any loop.
        for _ in 0..10 {
            let key = (owner.clone(), query.query_type());
            for data in self.records.get(&key).into_iter().flatten() {
                answer.add_answer(Record::from_rdata(owner.clone(), TTL, data.clone()));
            }
            let alias = self.records.get(&(owner.clone(), RecordType::CNAME));
            let Some(RData::CNAME(alias)) = alias.and_then(|all| all.first()) else { break };
            answer.add_answer(Record::from_rdata(owner, TTL, RData::CNAME(alias.clone())));
            owner = alias.0.clone();
        }
        answer
    }
}

fn name(text: &str) -> Name {
    let mut name = Name::from_utf8(text).expect("a name");
    name.set_fqdn(true);
    name
}

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct DnsServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    zone: Mutex<Zone>,
    stopped: AtomicBool,
    over_udp: AtomicUsize,
    over_tcp: AtomicUsize,
    /// Before each answer over UDP, send others that must not be believed.
    forges: AtomicBool,
}

impl DnsServer {
    /// Start a server on an IP of this host.
    ///
    /// # Panics
    /// If it cannot have sockets.
    pub fn start_on(ip: Ipv4Addr, zone: Zone) -> DnsServer {
        let (udp, tcp) = sockets(ip);
        let addr = udp.local_addr().expect("a socket");
        let shared = Arc::new(Shared {
            zone: Mutex::new(zone),
            stopped: AtomicBool::new(false),
            over_udp: AtomicUsize::new(0),
            over_tcp: AtomicUsize::new(0),
            forges: AtomicBool::new(false),
        });
        let (serves_udp, serves_tcp) = (shared.clone(), shared.clone());
        thread::spawn(move || serves_udp.serve_udp(&udp));
        thread::spawn(move || serves_tcp.serve_tcp(&tcp));
        DnsServer { addr, shared }
    }

    /// Start a server on 127.0.0.1.
    pub fn start(zone: Zone) -> DnsServer {
        DnsServer::start_on(Ipv4Addr::LOCALHOST, zone)
    }

    /// Where it listens, over both transports.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Know other names from now on.
    pub fn change(&self, zone: Zone) {
        *self.shared.zone.lock().unwrap_or_else(PoisonError::into_inner) = zone;
    }

    /// Send forged answers before the right ones, over UDP.
    pub fn forge(&self) {
        self.shared.forges.store(true, Ordering::Relaxed);
    }

    /// Questions that came over UDP, and over TCP.
    pub fn asked(&self) -> (usize, usize) {
        let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        (count(&self.shared.over_udp), count(&self.shared.over_tcp))
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }
}

/// A UDP and a TCP socket with one port of the kernel's choice.
fn sockets(ip: Ipv4Addr) -> (UdpSocket, TcpListener) {
    for _ in 0..PORT_TRIES {
        let udp = UdpSocket::bind((ip, 0)).expect("an IP of this host");
        let port = udp.local_addr().expect("a socket").port();
        if let Ok(tcp) = TcpListener::bind((ip, port)) {
            udp.set_read_timeout(Some(LOOK)).expect("a socket");
            tcp.set_nonblocking(true).expect("a socket");
            return (udp, tcp);
        }
    }
    panic!("no port is free for both transports");
}

impl Shared {
    fn serve_udp(&self, udp: &UdpSocket) {
        let mut buf = [0; 4_096];
        while !self.stopped.load(Ordering::Relaxed) {
            let Ok((count, from)) = udp.recv_from(&mut buf) else { continue };
            let Ok(question) = Message::from_vec(&buf[..count]) else { continue };
            self.over_udp.fetch_add(1, Ordering::Relaxed);
            let answer = self.answer(&question);
            if self.forges.load(Ordering::Relaxed) {
                for forged in forged(&answer) {
                    let _ = udp.send_to(&forged, from);
                }
            }
            let mut bytes = answer.to_vec().expect("it can be written");
            if bytes.len() > usize::from(question.max_payload()) {
                bytes = answer.truncate().to_vec().expect("it can be written");
            }
            let _ = udp.send_to(&bytes, from);
        }
    }

    fn serve_tcp(&self, tcp: &TcpListener) {
        while !self.stopped.load(Ordering::Relaxed) {
            match tcp.accept() {
                Ok((stream, _)) => {
                    // Whoever asked in vain says so.
                    let _ = self.serve_stream(stream);
                }
                // sleep: between two looks at whether the server is still wanted.
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn serve_stream(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut question)?;
        let Ok(question) = Message::from_vec(&question) else { return Ok(()) };
        self.over_tcp.fetch_add(1, Ordering::Relaxed);
        let answer = self.answer(&question).to_vec().expect("it can be written");
        let length = u16::try_from(answer.len()).expect("a test's answer fits");
        stream.write_all(&length.to_be_bytes())?;
        stream.write_all(&answer)
    }

    fn answer(&self, question: &Message) -> Message {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner).answer(question)
    }
}

/// What somebody sends who guesses: nonsense, another id, another question, a question.
fn forged(answer: &Message) -> Vec<Vec<u8>> {
    let evil = || RData::A(A(Ipv4Addr::new(6, 6, 6, 6)));
    let owner = answer.queries.first().map(|query| query.name().clone()).unwrap_or_default();
    let mut other_id = answer.clone();
    other_id.metadata.id = answer.metadata.id.wrapping_add(1);
    other_id.answers = vec![Record::from_rdata(owner.clone(), TTL, evil())];
    let mut other_question = answer.clone();
    other_question.answers = vec![Record::from_rdata(owner, TTL, evil())];
    for query in &mut other_question.queries {
        query.set_name(name("other.example"));
    }
    let mut no_answer = other_id.clone();
    no_answer.metadata.id = answer.metadata.id;
    no_answer.metadata.message_type = MessageType::Query;
    let messages = [other_id, other_question, no_answer];
    let messages = messages.iter().map(|message| message.to_vec().expect("it can be written"));
    [b"nonsense".to_vec()].into_iter().chain(messages).collect()
}
