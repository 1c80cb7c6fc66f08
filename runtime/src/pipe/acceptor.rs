//! The side that is opened to: it waits for carriers.

use super::carrier::Carrier;
use super::error::PipeError;
use super::holder::{Change, Holder};
use crate::traits::Runtime;
use async_channel::Receiver;
use futures::Stream;
use portolan_core::wire::pipe::ResetCode;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A carrier whose opener has said what it is for.
pub(super) struct Arrival {
    pub(super) carrier: Carrier,
    /// Its number.
    pub(super) number: u32,
    /// What the opener has received.
    pub(super) received: u64,
    /// The opener's window, where it is said.
    pub(super) window: Option<u32>,
}

/// The task of one session.
pub(super) struct Acceptor<R: Runtime> {
    pub(super) holder: Holder<R>,
    pub(super) arrivals: Pin<Box<Receiver<Arrival>>>,
}

impl<R: Runtime> Acceptor<R> {
    pub(super) async fn run(mut self) {
        loop {
            let arrival = poll_fn(|cx| self.poll(cx)).await;
            let Some(arrival) = arrival else { break };
            if self.arrived(arrival) {
                break;
            }
        }
        self.arrivals.close();
        // Carriers that came too late are told so.
        while let Ok(arrival) = self.arrivals.try_recv() {
            arrival.carrier.dismiss(ResetCode::Unknown, &self.holder.runtime);
        }
    }

    /// The next carrier; none when the session has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arrival>> {
        // A carrier that has come takes over before anything else is done on the one before.
        match self.arrivals.as_mut().poll_next(cx) {
            Poll::Ready(Some(arrival)) => return Poll::Ready(Some(arrival)),
            // The node is over.
            Poll::Ready(None) if !self.holder.is_carried() => {
                self.holder.stop();
                return Poll::Ready(None);
            }
            Poll::Ready(None) | Poll::Pending => {}
        }
        loop {
            match std::task::ready!(self.holder.poll(cx)) {
                Change::Lost if self.arrivals.is_closed() => {
                    self.holder.stop();
                    return Poll::Ready(None);
                }
                Change::Lost => self.holder.shared.set_path(None),
                // The other side may still come to learn that everything has arrived.
                Change::Lingered => {}
                Change::Ended => return Poll::Ready(None),
            }
        }
    }

    /// Go over to another carrier; whether that ended the session.
    fn arrived(&mut self, arrival: Arrival) -> bool {
        let Arrival { mut carrier, number, received, window } = arrival;
        let runtime = self.holder.runtime.clone();
        let answer = self.holder.shared.lock().session.admit(number, received, window);
        match answer {
            Ok(Some(answer)) => {
                carrier.ask(&answer, runtime.now());
                self.holder.carry(carrier, None);
                false
            }
            Ok(None) => {
                carrier.dismiss(ResetCode::Superseded, &runtime);
                false
            }
            Err(violation) => {
                carrier.dismiss(ResetCode::Protocol, &runtime);
                let error = Err(PipeError::Violated(violation));
                self.holder.end(error, Some(ResetCode::Protocol));
                true
            }
        }
    }
}
