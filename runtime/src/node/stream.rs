//! Streams of the application's own protocols.

use crate::net::RawStream;
use async_channel::{Receiver, Sender, TrySendError};
use futures::io::{AsyncRead, AsyncWrite};
use portolan_core::{ConnId, PeerId, Protocol};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// Application protocols that are accepted, number; ours. multistream-select offers at most
/// 1,000. When full, accepting another is an error.
pub const PROTOCOLS_MAX: usize = 256;
/// The longest protocol name, bytes; rust-libp2p's value for what it accepts in identify.
pub const PROTOCOL_NAME_MAX: usize = 140;

/// A stream of an application protocol: bytes both ways, each way with its own end.
///
/// Closing ends the sending side only, and what was written is still delivered. Dropping a stream
/// that was not closed resets it. A reset by the peer reads as an error of kind
/// `ConnectionReset`. While a stream is held its connection is not idle.
pub struct Stream {
    raw: RawStream,
    peer: PeerId,
    conn: ConnId,
    protocol: String,
    _held: Held,
}

impl Stream {
    pub(crate) fn new(
        raw: RawStream,
        peer: PeerId,
        conn: ConnId,
        protocol: String,
        held: Held,
    ) -> Stream {
        Stream { raw, peer, conn, protocol, _held: held }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// The connection that carries it.
    pub fn conn(&self) -> ConnId {
        self.conn
    }

    /// The name of its protocol.
    pub fn protocol(&self) -> &str {
        &self.protocol
    }

    /// Drop both directions at once and tell the peer.
    pub fn reset(mut self) {
        self.raw.reset();
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.raw).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.raw).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.raw).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.raw).poll_close(cx)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("protocol", &self.protocol)
            .field("peer", &self.peer)
            .field("conn", &self.conn)
            .finish_non_exhaustive()
    }
}

/// How much the application uses one connection. Shared by its streams, its task and the driver.
#[derive(Debug)]
pub(crate) struct Uses {
    held: AtomicUsize,
    ever: AtomicU64,
    returned: Sender<()>,
}

/// One use, which ends when dropped.
#[derive(Debug)]
pub(crate) struct Held(Arc<Uses>);

impl Uses {
    /// The counters, and what says that a use may have ended.
    pub(crate) fn new() -> (Arc<Uses>, Receiver<()>) {
        let (returned, returns) = async_channel::bounded(1);
        let uses = Uses { held: AtomicUsize::new(0), ever: AtomicU64::new(0), returned };
        (Arc::new(uses), returns)
    }

    pub(crate) fn hold(self: &Arc<Self>) -> Held {
        self.held.fetch_add(1, Ordering::Relaxed);
        self.ever.fetch_add(1, Ordering::Relaxed);
        Held(self.clone())
    }

    /// How many streams are held now.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// How many streams were ever held.
    pub(crate) fn ever(&self) -> u64 {
        self.ever.load(Ordering::Relaxed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
        // One word that waits already says the same.
        let _ = self.0.returned.try_send(());
    }
}

/// Why a protocol cannot be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// Somebody in this program accepts it already.
    #[error("{0} is accepted already")]
    Taken(String),
    /// Portolan itself speaks it.
    #[error("{0} is a protocol of the node itself")]
    Reserved(String),
    /// Not a protocol name: it must start with `/`, must not hold a line feed, and must be of
    /// 2 to [`PROTOCOL_NAME_MAX`] bytes.
    #[error("{0:?} is not a protocol name")]
    BadName(String),
    /// [`PROTOCOLS_MAX`] are accepted already.
    #[error("no more than {PROTOCOLS_MAX} protocols can be accepted")]
    TooMany,
}

/// Whether peers can agree on such a name.
pub(crate) fn is_name(protocol: &str) -> bool {
    protocol.starts_with('/')
        && (2..=PROTOCOL_NAME_MAX).contains(&protocol.len())
        && !protocol.contains('\n')
}

/// The inbound streams of one application protocol, in order of arrival, each with the peer that
/// opened it. Dropping it ends the acceptance. The stream ends with the node.
pub struct Incoming {
    protocol: String,
    queue: Pin<Box<Receiver<(PeerId, Stream)>>>,
    doors: Arc<Doors>,
}

impl futures::Stream for Incoming {
    type Item = (PeerId, Stream);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.queue.as_mut().poll_next(cx)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.doors.lock().open.remove(&self.protocol);
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

/// The application protocols that are accepted, and who takes their streams.
#[derive(Debug, Default)]
pub(crate) struct Doors(Mutex<Accepted>);

#[derive(Debug, Default)]
struct Accepted {
    open: BTreeMap<String, Sender<(PeerId, Stream)>>,
    /// Whether the node is over.
    ended: bool,
}

impl Doors {
    /// Accept a protocol from now on; `queue_max` streams may wait to be taken.
    pub(crate) fn open(
        self: &Arc<Self>,
        protocol: &str,
        queue_max: usize,
    ) -> Result<Incoming, AcceptError> {
        if !is_name(protocol) {
            return Err(AcceptError::BadName(protocol.into()));
        }
        if Protocol::from_name(protocol).is_some() {
            return Err(AcceptError::Reserved(protocol.into()));
        }
        let mut doors = self.lock();
        if doors.open.contains_key(protocol) {
            return Err(AcceptError::Taken(protocol.into()));
        }
        if doors.open.len() >= PROTOCOLS_MAX {
            return Err(AcceptError::TooMany);
        }
        let (sender, receiver) = async_channel::bounded(queue_max.max(1));
        if doors.ended {
            sender.close();
        }
        doors.open.insert(protocol.into(), sender);
        let (protocol, queue) = (protocol.into(), Box::pin(receiver));
        Ok(Incoming { protocol, queue, doors: self.clone() })
    }

    /// The names of what is accepted, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().open.keys().cloned().collect()
    }

    /// Hand a stream over. When nobody takes it, or too many wait already, it is reset.
    pub(crate) fn deliver(&self, stream: Stream) {
        let Some(door) = self.lock().open.get(&stream.protocol).cloned() else { return };
        let peer = stream.peer;
        match door.try_send((peer, stream)) {
            Ok(()) => {}
            Err(TrySendError::Full((peer, stream))) => {
                let protocol = stream.protocol();
                tracing::debug!(%peer, protocol, "reset a stream: too many wait to be taken");
            }
            Err(TrySendError::Closed(_)) => {}
        }
    }

    /// The node is over: every acceptance ends after what already waits.
    pub(crate) fn close(&self) {
        let mut doors = self.lock();
        doors.ended = true;
        for door in doors.open.values() {
            door.close();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Accepted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_and_taken_once() {
        let doors = Arc::new(Doors::default());
        for bad in ["", "/", "echo/1", "/a\nb", &format!("/{}", "x".repeat(PROTOCOL_NAME_MAX))] {
            let refused = doors.open(bad, 1).map(|_| ()).expect_err("not a name");
            assert_eq!(refused, AcceptError::BadName(bad.into()));
        }
        let core = Protocol::Ping.name();
        let refused = doors.open(core, 1).map(|_| ()).expect_err("core speaks it");
        assert_eq!(refused, AcceptError::Reserved(core.into()));
        let first = doors.open("/echo/1", 1).expect("a fresh name");
        let refused = doors.open("/echo/1", 1).map(|_| ()).expect_err("it is taken");
        assert_eq!(refused, AcceptError::Taken("/echo/1".into()));
        drop(first);
        assert!(doors.names().is_empty());
        doors.open("/echo/1", 1).map(|_| ()).expect("it is free again");
    }
}
