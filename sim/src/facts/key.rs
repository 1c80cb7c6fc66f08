//! The key of a state of the bench: equal only where everything goes on alike.

use super::bench::Bench;
use portolan_core::{ConnId, Duration, StreamId};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Older questions can be neither answered nor dialled back for.
const FORGOTTEN: Duration = Duration::from_secs(100);

impl Bench {
    /// Bytes that two benches of one shape share only where the same facts are enabled and the
    /// same comes of them: the canonical form of the agent, and the books with ids by their rank
    /// and moments counted back from now.
    pub fn canonical(&self) -> Vec<u8> {
        let books = self.books();
        let mut text = String::new();
        let conns: BTreeMap<ConnId, usize> =
            books.conns.keys().enumerate().map(|(rank, conn)| (*conn, rank)).collect();
        let streams: BTreeMap<StreamId, usize> =
            books.streams.keys().enumerate().map(|(rank, stream)| (*stream, rank)).collect();
        let told = self.agent().explain().at;
        // Writing into a string cannot fail.
        let _ = write!(text, "{:?}", self.now().since(told));
        let _ = write!(
            text,
            "{:?}{:?}",
            books.listeners.values().collect::<Vec<_>>(),
            books.interfaces
        );
        for facts in books.conns.values() {
            let of = (facts.peer, facts.side, facts.local, facts.remote, facts.dial.is_some());
            let _ = write!(text, "{of:?}");
        }
        for (stream, one) in &books.streams {
            let of = (stream.side, stream.protocol, conns.get(&one.conn));
            let _ = write!(text, "{of:?}{}{}{}", one.open, one.ours_over, one.theirs_over);
        }
        for (of, probe) in &books.probes {
            let (age, stream) = (self.now().since(probe.at), streams.get(&probe.stream));
            if age <= FORGOTTEN || stream.is_some() {
                let age = age.min(FORGOTTEN);
                let _ = write!(text, "{of:?}{age:?}{stream:?}{}{}", probe.delivered, probe.data);
            }
        }
        for (stream, request) in &books.requests {
            let of = (streams.get(stream), conns.get(&request.conn), &request.addrs, request.owes);
            let _ = write!(text, "{of:?}");
        }
        let _ =
            write!(text, "{:?}", books.dials.values().map(|dial| dial.addr).collect::<Vec<_>>());
        let mut key = self.agent().canonical();
        key.extend(text.into_bytes());
        key
    }
}
