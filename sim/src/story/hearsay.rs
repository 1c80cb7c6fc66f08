//! AutoNAT v1: what servers say to us, and what clients want of us.

use super::script::{Name, Words, Wrong, expected};
use super::world::World;
use portolan_core::wire::autonat::v1::{Message, Status};
use portolan_core::wire::multiaddr::encode;
use portolan_core::{Addr, ConnId, Protocol};

impl World {
    /// `answer-v1`, `request-v1`.
    pub(super) fn hearsay(&mut self, verb: &str, mut words: Words<'_>) -> Result<(), Wrong> {
        let conn: ConnId = words.take()?;
        if verb == "answer-v1" {
            let status = status(&words.take::<String>()?)?;
            let addr = words.option::<Addr>("addr")?.map(encode);
            words.done()?;
            let stream = self.ours(conn, Protocol::AutonatV1)?;
            return self.speak(stream, vec![Message::DialResponse { status, addr }.encode()], true);
        }
        let named = words.option::<Name>("as")?.map(|name| self.scribe.names.peer(&name));
        let peer = named.or_else(|| self.book.conns.get(&conn).map(|facts| facts.peer));
        let mut addrs = Vec::new();
        while let Some(addr) = words.take_if::<Addr>() {
            addrs.push(encode(addr));
        }
        words.done()?;
        let stream = self.theirs(conn, Protocol::AutonatV1)?;
        self.speak(stream, vec![Message::Dial { peer, addrs }.encode()], true)
    }
}

fn status(word: &str) -> Result<Status, Wrong> {
    Ok(match word {
        "OK" => Status::Ok,
        "DIAL_ERROR" => Status::DialError,
        "REFUSED" => Status::DialRefused,
        "BAD_REQUEST" => Status::BadRequest,
        "INTERNAL" => Status::InternalError,
        code => Status::from_code(code.parse().map_err(|_| {
            expected("OK, DIAL_ERROR, REFUSED, BAD_REQUEST, INTERNAL or a code", code)
        })?),
    })
}
