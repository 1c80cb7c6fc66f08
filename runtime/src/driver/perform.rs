//! Performing core's actions.

use super::connection::Order;
use super::fact::Fact;
use super::stream::Orders;
use super::{Driver, Role};
use crate::net::{DialError, Established};
use crate::traits::Runtime;
use bytes::Bytes;
use portolan_core::{
    Action, ConnId, Dial, DialFailure, DialId, Event, Instant, Notice, StreamEnd, StreamFailure,
    StreamId,
};

impl<R: Runtime> Driver<R> {
    /// Perform one action. What is found out at once goes to `found`, after the action.
    pub(super) fn perform(&mut self, now: Instant, action: Action) {
        match action {
            Action::OpenStream { conn, stream } => self.open_stream(conn, stream),
            Action::Send { stream, body } => self.send(stream, body),
            Action::CloseStream { stream } => {
                if let Some(orders) = self.table.stream(stream) {
                    orders.finish();
                }
            }
            Action::ResetStream { stream } => {
                self.reset_stream(stream);
            }
            Action::Dial(dial) => self.dial_back(dial),
            Action::Disconnect { conn } => {
                self.table.close(conn, true);
                self.parts.hub.connections_changed();
            }
            Action::Mapping(action) => self.perform_mapping(action),
            Action::Relay(action) => self.perform_relay(action),
            Action::Punch(action) => self.perform_punch(action),
            Action::Notify(notice) => self.notify(now, &notice),
            // Core and runtime are versioned together: there is no other action.
            _ => debug_assert!(false, "an action that the driver does not know"),
        }
    }

    fn open_stream(&mut self, conn: ConnId, stream: StreamId) {
        let (orders, ordered) = Orders::channel();
        let order = Order::Open { stream, ordered };
        // A full queue means that the connection does not keep up: one stream less.
        let taken = self
            .table
            .open_conn_mut(conn)
            .is_some_and(|conn| conn.hold.orders.try_send(order).is_ok());
        if !taken || self.table.add_stream(conn, stream, orders).is_err() {
            let reason = StreamFailure::Failed;
            self.found.push_back(Event::StreamFailed { stream, reason });
        }
    }

    fn send(&mut self, stream: StreamId, body: Bytes) {
        let Some(orders) = self.table.stream(stream) else { return };
        if !orders.send(body) {
            tracing::debug!(%stream, "reset a stream: the peer reads too slowly");
            self.reset_stream(stream);
            self.found.push_back(Event::StreamClosed { stream, end: StreamEnd::Reset });
        }
    }

    fn dial_back(&mut self, dial: Dial) {
        if self.stopping.is_some() {
            let reason = DialFailure::LocalFault;
            self.found.push_back(Event::DialFailed { dial: dial.dial, reason });
            return;
        }
        let (net, facts) = (self.parts.net.clone(), self.parts.common.facts.clone());
        self.tasks.spawn(async move {
            let result = net.dial_back(dial.addr, dial.source, dial.timeout).await;
            facts.tell(Fact::DialledBack { dial: dial.dial, result }).await;
        });
    }

    /// A dial that core asked for has ended.
    pub(super) fn dialled_back(&mut self, dial: DialId, result: Result<Established, DialError>) {
        match result {
            // Dial-backs have core's own cap, so that nothing is refused here.
            Ok(established) => {
                let admitted = self.admit(established, Role::DialBack(dial));
                debug_assert!(admitted.is_ok(), "dial-backs are not counted");
            }
            Err(error) => {
                tracing::debug!(%dial, %error, "a dial-back failed");
                let reason = error.failure();
                self.feed(Event::DialFailed { dial, reason });
            }
        }
    }

    fn notify(&mut self, now: Instant, notice: &Notice) {
        tracing::debug!(?notice, "notice");
        self.parts.hub.publish(now, notice);
    }
}
