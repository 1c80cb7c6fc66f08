//! The punches under way, and what the listener accepts in their place.
//!
//! When both sides send their first packet at about the same moment, one of the packets may find the
//! other side's listener instead of its socket: it came too early, or between two attempts. Such a
//! connection belongs to the punch. Where we are the server there, nothing is to be done. Where we
//! are the client, the accepted socket goes to the punch:
//!
//! ```text
//!  accepted ─► a punch waits for this remote ─────────────────────────► the punch has it
//!     └──────► unspoken ─► such a punch begins before the first byte ─► the punch has it
//!                  └─────► the first byte has come ───────────────────► we are the server
//! ```
//!
//! Limits: punches, [`PUNCHES_MAX`]; unspoken connections, those in their handshakes.

use async_channel::{Receiver, Sender};
use futures::channel::oneshot;
use futures::future::{Either, select};
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// Punches under way, number; ours: some peers at a time, with a few addresses each, and beside them
/// all that may be sent to ports that peers predict. When full, a punch fails at once. Sockets and
/// packets to strangers grow with it.
pub(crate) const PUNCHES_MAX: usize = 256;
const _: () = assert!(PUNCHES_MAX >= 64 + portolan_core::config::PREDICTED_PORTS_MIN);

/// All punches of one node.
pub(super) struct Punches<T>(Arc<Mutex<Table<T>>>);

struct Table<T> {
    next: u64,
    under_way: BTreeMap<u64, Option<Waiting<T>>>,
    unspoken: BTreeMap<u64, Silent<T>>,
}

/// A punch that takes what the listener accepts from this remote.
struct Waiting<T> {
    remote: (IpAddr, u16),
    hand: Sender<T>,
}

/// A connection on which nobody has said anything.
struct Silent<T> {
    remote: (IpAddr, u16),
    claim: oneshot::Sender<Sender<T>>,
}

/// A place among the punches under way; it ends when dropped.
pub(super) struct Place<T> {
    punches: Punches<T>,
    id: u64,
}

/// An accepted connection that a punch may still claim.
pub(super) struct Unspoken<T> {
    punches: Punches<T>,
    id: u64,
    claimed: oneshot::Receiver<Sender<T>>,
}

/// A connection of which the first byte has been read already.
pub(super) struct Begun<T> {
    io: T,
    first: Option<u8>,
}

impl<T> Punches<T> {
    /// A place for a punch, unless there are too many.
    pub(super) fn begin(&self) -> Option<Place<T>> {
        self.enter(None)
    }

    /// The same for one that takes what the listener accepts from `remote`, and where that comes
    /// out.
    pub(super) fn begin_waiting(&self, remote: SocketAddr) -> Option<(Place<T>, Receiver<T>)> {
        let (hand, taken) = async_channel::bounded(1);
        let remote = (remote.ip(), remote.port());
        let place = self.enter(Some(Waiting { remote, hand: hand.clone() }))?;
        let mut table = self.lock();
        let of_remote = |(id, silent): (&u64, &Silent<T>)| (silent.remote == remote).then_some(*id);
        let found: Vec<u64> = table.unspoken.iter().filter_map(of_remote).collect();
        for silent in found.iter().filter_map(|id| table.unspoken.remove(id)) {
            // Where the first byte has come meanwhile, it is no matter of ours.
            let _ = silent.claim.send(hand.clone());
        }
        drop(table);
        Some((place, taken))
    }

    /// Hand an accepted connection to the punch that waits for it, or else give it back.
    pub(super) fn accepted(&self, mut tcp: T, remote: SocketAddr) -> Option<(T, Unspoken<T>)> {
        let remote = (remote.ip(), remote.port());
        let mut table = self.lock();
        let waiting = table.under_way.values().flatten().filter(|waiting| waiting.remote == remote);
        for waiting in waiting {
            match waiting.hand.try_send(tcp) {
                Ok(()) => return None,
                // It has what it needs.
                Err(refused) => tcp = refused.into_inner(),
            }
        }
        let (claim, claimed) = oneshot::channel();
        let id = table.mint();
        table.unspoken.insert(id, Silent { remote, claim });
        Some((tcp, Unspoken { punches: self.clone(), id, claimed }))
    }

    fn enter(&self, waiting: Option<Waiting<T>>) -> Option<Place<T>> {
        let mut table = self.lock();
        if table.under_way.len() >= PUNCHES_MAX {
            return None;
        }
        let id = table.mint();
        table.under_way.insert(id, waiting);
        Some(Place { punches: self.clone(), id })
    }

    fn lock(&self) -> MutexGuard<'_, Table<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Table<T> {
    fn mint(&mut self) -> u64 {
        let id = self.next;
        self.next += 1;
        id
    }
}

impl<T> Default for Punches<T> {
    fn default() -> Self {
        let (under_way, unspoken) = (BTreeMap::new(), BTreeMap::new());
        Punches(Arc::new(Mutex::new(Table { next: 0, under_way, unspoken })))
    }
}

impl<T> Clone for Punches<T> {
    fn clone(&self) -> Self {
        Punches(self.0.clone())
    }
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        self.punches.lock().under_way.remove(&self.id);
    }
}

impl<T> Drop for Unspoken<T> {
    fn drop(&mut self) {
        self.punches.lock().unspoken.remove(&self.id);
    }
}

impl<T: AsyncRead + Unpin> Unspoken<T> {
    /// Wait until the other side has said something; nothing if a punch takes the connection before
    /// that.
    pub(super) async fn first_word(mut self, mut tcp: T) -> io::Result<Option<Begun<T>>> {
        let mut first = [0];
        let hand = match select(pin!(tcp.read(&mut first)), &mut self.claimed).await {
            Either::Left((count, _)) => {
                let first = (count? > 0).then_some(first[0]);
                return Ok(Some(Begun { io: tcp, first }));
            }
            Either::Right((hand, _)) => hand,
        };
        let Ok(hand) = hand else { return Ok(Some(Begun { io: tcp, first: None })) };
        match hand.try_send(tcp) {
            Ok(()) => Ok(None),
            // The punch is over, or has a connection.
            Err(refused) => Ok(Some(Begun { io: refused.into_inner(), first: None })),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Begun<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match (buffer.first_mut(), self.first.take()) {
            (Some(place), Some(first)) => {
                *place = first;
                Poll::Ready(Ok(1))
            }
            (_, first) => {
                self.first = first;
                Pin::new(&mut self.io).poll_read(cx, buffer)
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Begun<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;
    use futures::io::Cursor;

    fn remote(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn word(text: &str) -> Cursor<Vec<u8>> {
        Cursor::new(text.into())
    }

    /// Never anything to read.
    #[derive(Debug)]
    struct Quiet;

    impl AsyncRead for Quiet {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }

    #[test]
    fn what_is_accepted_goes_to_the_punch_that_waits_for_it() {
        let punches = Punches::default();
        let (place, taken) = punches.begin_waiting(remote(1)).expect("there is room");
        let _server = punches.begin().expect("there is room");
        assert!(punches.accepted("other", remote(2)).is_some(), "another port");
        assert!(punches.accepted("first", remote(1)).is_none());
        assert!(punches.accepted("second", remote(1)).is_some(), "it has one");
        assert_eq!(taken.try_recv(), Ok("first"));
        drop(place);
        assert!(punches.accepted("third", remote(1)).is_some(), "it is over");
    }

    #[test]
    fn what_came_early_is_claimed_while_nobody_has_spoken() {
        let punches = Punches::default();
        let (tcp, unspoken) = punches.accepted(Quiet, remote(1)).expect("nobody waits");
        let (_place, taken) = punches.begin_waiting(remote(1)).expect("there is room");
        assert!(block_on(unspoken.first_word(tcp)).expect("it is open").is_none());
        assert!(taken.try_recv().is_ok());
    }

    #[test]
    fn who_has_spoken_is_a_client() {
        let punches = Punches::default();
        let (tcp, unspoken) = punches.accepted(word("hello"), remote(1)).expect("nobody waits");
        let begun = block_on(unspoken.first_word(tcp)).expect("it is open");
        let (_place, taken) = punches.begin_waiting(remote(1)).expect("there is room");
        let mut text = String::new();
        let mut begun = begun.expect("nobody claims it");
        block_on(begun.read_to_string(&mut text)).expect("it is open");
        assert_eq!(text, "hello");
        assert!(taken.try_recv().is_err());
        assert!(punches.lock().unspoken.is_empty());
    }

    #[test]
    fn there_are_so_many_and_no_more() {
        let punches = Punches::<Quiet>::default();
        let mut places: Vec<_> = (0..PUNCHES_MAX).map_while(|_| punches.begin()).collect();
        assert_eq!(places.len(), PUNCHES_MAX);
        assert!(punches.begin().is_none());
        assert!(punches.begin_waiting(remote(1)).is_none());
        places.pop();
        assert!(punches.begin_waiting(remote(1)).is_some());
    }
}
