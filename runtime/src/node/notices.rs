//! How notices reach the application: one bounded queue for each subscriber.
//!
//! The driver never waits for a subscriber. A queue that is full loses its oldest notice, and the
//! next one taken out says how many went missing before it.

use async_channel::{Receiver, Sender};
use futures::Stream;
use portolan_core::{Instant, Notice};
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

/// Notices kept for one subscriber, number; ours: a whole verdict makes some dozens. Memory grows
/// by about 200 bytes each. When full, the oldest is lost and counted.
pub const NOTICES_MAX: usize = 1_024;

/// One notice with its moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noticed {
    /// When it was issued, on the clock of [`Node::now`](crate::Node::now).
    pub at: Instant,
    /// How many notices directly before this one were lost because the subscriber was slow.
    pub missed: u64,
    /// The news.
    pub notice: Notice,
}

/// A subscription: a stream of notices that ends when the node does.
#[derive(Debug)]
pub struct Notices(Arc<Mutex<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Noticed>,
    missed: u64,
    waker: Option<Waker>,
    ended: bool,
}

impl Notices {
    /// The next notice if one is waiting; never waits itself.
    pub fn try_next(&mut self) -> Option<Noticed> {
        lock(&self.0).waiting.pop_front()
    }
}

impl Stream for Notices {
    type Item = Noticed;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Noticed>> {
        let mut queue = lock(&self.0);
        match queue.waiting.pop_front() {
            Some(noticed) => Poll::Ready(Some(noticed)),
            None if queue.ended => Poll::Ready(None),
            None => {
                queue.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Tells that the connections of a node are not what they were when it was last asked; it says
/// nothing of how often. Ends with the node.
pub struct ConnectionChanges(Pin<Box<Receiver<()>>>);

impl Stream for ConnectionChanges {
    type Item = ();

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<()>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for ConnectionChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionChanges").finish_non_exhaustive()
    }
}

/// Where the driver hands notices in. Shared by the driver and the handles.
#[derive(Debug, Default)]
pub(crate) struct Hub(Mutex<Subscribers>);

#[derive(Debug, Default)]
struct Subscribers {
    queues: Vec<Weak<Mutex<Queue>>>,
    /// Who wants to know of connections.
    changes: Vec<Sender<()>>,
    ended: bool,
}

impl Hub {
    /// A subscription to everything that is published from now on.
    pub(crate) fn subscribe(&self) -> Notices {
        let mut subscribers = lock(&self.0);
        let queue = Arc::new(Mutex::new(Queue { ended: subscribers.ended, ..Queue::default() }));
        subscribers.queues.retain(|queue| queue.strong_count() > 0);
        subscribers.queues.push(Arc::downgrade(&queue));
        Notices(queue)
    }

    /// What tells of connections from now on.
    pub(crate) fn connection_changes(&self) -> ConnectionChanges {
        let (sender, receiver) = async_channel::bounded(1);
        let mut subscribers = lock(&self.0);
        subscribers.changes.retain(|sender| !sender.is_closed());
        if !subscribers.ended {
            subscribers.changes.push(sender);
        }
        ConnectionChanges(Box::pin(receiver))
    }

    /// A connection was made, is about to close, or has ended.
    pub(crate) fn connections_changed(&self) {
        for sender in &lock(&self.0).changes {
            // One word that waits already says the same.
            let _ = sender.try_send(());
        }
    }

    /// Hand one notice to every subscriber.
    pub(crate) fn publish(&self, at: Instant, notice: &Notice) {
        for queue in lock(&self.0).queues.iter().filter_map(Weak::upgrade) {
            let mut queue = lock(&queue);
            if queue.waiting.len() >= NOTICES_MAX {
                // The loss is counted on the notice that now is the oldest: there is one, because
                // the queue was full.
                let lost = queue.waiting.pop_front().map_or(0, |lost| lost.missed + 1);
                match queue.waiting.front_mut() {
                    Some(oldest) => oldest.missed += lost,
                    None => queue.missed += lost,
                }
            }
            let missed = std::mem::take(&mut queue.missed);
            queue.waiting.push_back(Noticed { at, missed, notice: notice.clone() });
            if let Some(waker) = queue.waker.take() {
                waker.wake();
            }
        }
    }

    /// The node is over: every subscription ends after what it still holds.
    pub(crate) fn end(&self) {
        let mut subscribers = lock(&self.0);
        subscribers.ended = true;
        subscribers.changes.clear();
        for queue in subscribers.queues.drain(..).filter_map(|queue| queue.upgrade()) {
            let mut queue = lock(&queue);
            queue.ended = true;
            if let Some(waker) = queue.waker.take() {
                waker.wake();
            }
        }
    }
}

impl Drop for Hub {
    /// A node that never started publishes nothing.
    fn drop(&mut self) {
        self.end();
    }
}

/// A poisoned queue is still a queue: nothing here is left half-written by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;
    use futures::{FutureExt, StreamExt};

    fn notice(may_serve: bool) -> Notice {
        Notice::RoleChanged { may_serve }
    }

    #[test]
    fn a_slow_subscriber_loses_the_oldest_and_is_told_how_many() {
        let hub = Hub::default();
        let mut slow = hub.subscribe();
        let total = NOTICES_MAX as u64 + 7;
        for nanos in 0..total {
            hub.publish(Instant::from_nanos(nanos), &notice(true));
        }
        let first = slow.try_next().expect("the queue is full");
        assert_eq!((first.at, first.missed), (Instant::from_nanos(7), 7));
        let rest = std::iter::from_fn(|| slow.try_next()).collect::<Vec<_>>();
        assert_eq!(rest.len(), NOTICES_MAX - 1);
        assert!(rest.iter().all(|noticed| noticed.missed == 0));
    }

    #[test]
    fn a_subscription_to_a_node_that_never_starts_ends() {
        let mut early = Hub::default().subscribe();
        assert_eq!(early.next().now_or_never(), Some(None));
    }

    #[test]
    fn subscriptions_end_with_the_node_after_what_they_hold() {
        let hub = Hub::default();
        let mut early = hub.subscribe();
        drop(hub.subscribe());
        hub.publish(Instant::ZERO, &notice(false));
        hub.end();
        let mut late = hub.subscribe();
        block_on(async {
            assert_eq!(early.next().await.map(|noticed| noticed.notice), Some(notice(false)));
            assert_eq!(early.next().await, None);
            assert_eq!(late.next().await, None);
        });
    }
}
