//! The answering half of ping.

use crate::words::checkpoint::saved;
use crate::{Action, ConnId, Cx, Oddity, StreamEnd, StreamId};
use alloc::collections::BTreeMap;
use bytes::Bytes;

/// Ping streams of one connection, number. ping §Protocol: the listener SHOULD accept at most
/// two. Streams that a peer may hold open without a word grow with it.
const STREAMS_PER_CONN_MAX: usize = 2;

/// The ping streams that peers opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Echo {
    streams: BTreeMap<StreamId, ConnId>,
}

impl Echo {
    pub(super) fn opened(
        &mut self,
        cx: &mut Cx<'_>,
        conn: ConnId,
        stream: StreamId,
    ) -> Result<(), Oddity> {
        if self.streams.contains_key(&stream) {
            return Err(Oddity::ReusedId);
        }
        if self.streams.values().filter(|of| **of == conn).count() >= STREAMS_PER_CONN_MAX {
            cx.actions.push(Action::ResetStream { stream });
            return Err(Oddity::Full);
        }
        self.streams.insert(stream, conn);
        Ok(())
    }

    pub(super) fn conn_of(&self, stream: StreamId) -> Option<ConnId> {
        self.streams.get(&stream).copied()
    }

    pub(super) fn frame(
        &mut self,
        cx: &mut Cx<'_>,
        stream: StreamId,
        body: &Bytes,
    ) -> Result<(), Oddity> {
        if !self.streams.contains_key(&stream) {
            return Err(Oddity::UnknownStream);
        }
        // ping §Protocol: the listener SHOULD loop, since the dialer may ping again on the stream.
        cx.actions.push(Action::Send { stream, body: body.clone() });
        Ok(())
    }

    pub(super) fn closed(&mut self, cx: &mut Cx<'_>, stream: StreamId, end: StreamEnd) {
        if self.streams.remove(&stream).is_some() && end == StreamEnd::Finished {
            // ping §Protocol: the listener SHOULD finish its echoes, then close.
            cx.actions.push(Action::CloseStream { stream });
        }
    }

    pub(super) fn disconnected(&mut self, conn: ConnId) {
        self.streams.retain(|_, of| *of != conn);
    }
}

saved!(struct Echo { streams });
