//! What peers want of us: dial requests, dial data, and how our dials and dial-backs go.

use crate::ops::{ip, peer_id, pick};
use crate::world::World;
use bytes::Bytes;
use portolan_core::wire::autonat::{Message, dial_data_chunk};
use portolan_core::wire::multiaddr;
use portolan_core::{
    Addr, ConnId, Connected, DialFailure, Event, Protocol, Side, StreamEnd, StreamFailure,
};

impl World {
    pub(crate) fn request(&mut self, which: u8, target: u8, more: u8) {
        let Some(conn) = pick(self.conns.keys().copied(), which) else { return };
        let Some(stream) = self.open_on(conn, Protocol::DialRequest) else { return };
        let remote = self.conns[&conn].facts.remote;
        let all = [
            remote,
            Addr { port: 4001, ..remote },
            Addr::tcp(ip("44.0.77.1"), 4001),
            Addr::tcp(ip("10.0.0.1"), 80),
            Addr::tcp(ip("192.168.1.2"), 4001),
            Addr::quic(ip("2600:1::1"), 4001),
            Addr::tcp(ip("127.0.0.9"), 4001),
            Addr::tcp(ip("2002:a00:1::1"), 4001),
        ];
        let at = |n: u8| all[usize::from(n) % all.len()];
        let addrs: Vec<Addr> = (0..=more % 3).map(|n| at(target.wrapping_add(n * 3))).collect();
        self.requested.insert(stream, addrs.clone());
        let nonce = u64::from(more) << 32 | u64::from(target);
        let addrs = addrs.into_iter().map(multiaddr::encode).collect();
        let body = Message::DialRequest { addrs, nonce }.encode();
        self.step(Event::Frame { stream, body });
    }

    pub(crate) fn chunks(&mut self, which: u8, len: u16, count: u8) {
        let Some(stream) = pick(self.requested.keys().copied(), which) else { return };
        let chunk = dial_data_chunk(len.into());
        for _ in 0..count {
            if !self.requested.contains_key(&stream) {
                return;
            }
            self.step(Event::Frame { stream, body: chunk.clone() });
        }
    }

    pub(crate) fn dialled(&mut self, which: u8, how: u8) {
        let Some((dial, _)) = pick(self.dials.clone(), which) else { return };
        let reasons = [
            DialFailure::Refused,
            DialFailure::TimedOut,
            DialFailure::Handshake,
            DialFailure::LocalFault,
        ];
        if let Some(reason) = reasons.get(usize::from(how % 16)) {
            self.step(Event::DialFailed { dial: dial.dial, reason: *reason });
            return;
        }
        let waiting = self.requested.iter().find(|(_, addrs)| addrs.contains(&dial.addr));
        let conn = waiting.and_then(|(stream, _)| self.streams.get(stream)).map(|one| one.conn);
        let honest = conn.and_then(|conn| self.conns.get(&conn)).map(|conn| conn.facts.peer);
        let peer = honest.filter(|_| how % 16 > 5).unwrap_or_else(|| peer_id(how));
        let conn = ConnId(self.fresh());
        self.step(Event::Connected(Connected {
            conn,
            peer,
            side: Side::Outbound,
            local: Addr { port: 55_555, ..dial.addr },
            remote: dial.addr,
            relayed: false,
            dial: Some(dial.dial),
            rtt: None,
        }));
    }

    pub(crate) fn back_answered(&mut self, which: u8, how: u8) {
        let ours = self
            .streams
            .keys()
            .filter(|one| one.protocol == Protocol::DialBack && one.side == Side::Outbound);
        let Some(stream) = pick(ours.copied(), which) else { return };
        self.step(match how % 4 {
            0 => Event::Frame { stream, body: Bytes::new() },
            1 => Event::Frame { stream, body: Bytes::from_static(&[8, 7]) },
            2 => Event::StreamClosed { stream, end: StreamEnd::Finished },
            _ => Event::StreamFailed { stream, reason: StreamFailure::Unsupported },
        });
    }
}
