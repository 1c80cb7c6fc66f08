//! How the state of an agent becomes bytes, and comes back: for the flight record; and how two
//! states are told apart, for explorations.
//!
//! The trait is core's own. A proof is part of the state, and whoever could read one from outside
//! could make one up; what is loaded here goes into a replay, which can act on nothing.
//!
//! ```text
//!  Agent ─► saved!(…) of each room ─► Saver: bytes, nonces masked
//!  bytes ─► Loader ─► loaded field by field ─► sound? ─► Agent, or BadCheckpoint
//! ```
//!
//! Fields stand one after the other in the order in which `saved!` names them, numbers as varints,
//! enumerations by the number given there. A field or a variant that is not named does not compile.
//! Loading is total: whatever the bytes say, it ends, holds no more than they justify, and gives a
//! state that the rooms can live with.

mod canonical;
mod values;

use super::addr::Family;
use super::config::Config;
use super::id::PeerId;
use super::time::Instant;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::IpAddr;
use libp2p_identity::PublicKey;

use canonical::Canon;
pub(crate) use canonical::{Kind, Room, canonical};

/// The most that a counter of ours is believed to have reached, number; ours: three of them can
/// be added up, and nobody counts that far.
const COUNT_MAX: u64 = u64::MAX >> 2;

/// A part of the agent's state.
pub(crate) trait Saved: Sized {
    fn save(&self, out: &mut Saver<'_>);

    /// The reverse. Never panics, whatever the bytes are.
    fn load(from: &mut Loader<'_>) -> Result<Self, BadCheckpoint>;

    /// Bytes that are equal where this part will do the same from `now` on, whatever is to come;
    /// see [`canonical`].
    fn canonical(&self, now: Instant) -> Vec<u8> {
        canonical(now, |out| self.save(out))
    }
}

/// Bytes that are no state of an agent, or not one that it could be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadCheckpoint;

/// Says what is written in the place of whatever may identify somebody. Order and class of IPs and
/// the order of peers stay, and so do the leading bits that two IPs share.
pub(crate) trait Exchange {
    fn ip(&mut self, ip: IpAddr) -> IpAddr;
    fn peer(&mut self, peer: PeerId) -> PeerId;
    fn key(&mut self, key: &PublicKey) -> PublicKey;
}

/// Where a state is written to.
pub(crate) struct Saver<'a> {
    bytes: Vec<u8>,
    mask: &'a dyn Fn(u64) -> u64,
    exchange: Option<Exchanging<'a>>,
    canon: Option<Canon>,
}

/// What is exchanged, and what must be known for it.
struct Exchanging<'a> {
    by: &'a mut dyn Exchange,
    identity: PublicKey,
    allow_private: bool,
}

impl<'a> Saver<'a> {
    /// A saver that writes `mask(nonce)` where a nonce stands.
    pub(crate) fn new(mask: &'a dyn Fn(u64) -> u64) -> Saver<'a> {
        Saver { bytes: Vec::new(), mask, exchange: None, canon: None }
    }

    /// A saver that writes nonces as they are, and others in the place of IPs and peers, of which
    /// `identity` is ourselves.
    pub(crate) fn exchanging(
        by: &'a mut dyn Exchange,
        identity: &PublicKey,
        allow_private: bool,
    ) -> Saver<'a> {
        let identity = by.key(identity);
        let exchange = Some(Exchanging { by, identity, allow_private });
        Saver { bytes: Vec::new(), mask: &|nonce| nonce, exchange, canon: None }
    }

    /// What was written.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn number(&mut self, number: u64) {
        if self.canon.is_some() {
            // Explorations write many of them, and nobody reads them.
            return self.raw(&number.to_le_bytes());
        }
        let mut buffer = unsigned_varint::encode::u64_buffer();
        self.raw(unsigned_varint::encode::u64(number, &mut buffer));
    }

    /// What stands for a nonce in this checkpoint.
    pub(crate) fn masked(&self, nonce: u64) -> u64 {
        (self.mask)(nonce)
    }

    /// What is written for an IP.
    pub(crate) fn exchanged(&mut self, ip: IpAddr) -> IpAddr {
        self.exchange.as_mut().map_or(ip, |exchange| exchange.by.ip(ip))
    }

    /// Who is written for a peer.
    pub(crate) fn exchanged_peer(&mut self, peer: PeerId) -> PeerId {
        self.exchange.as_mut().map_or(peer, |exchange| exchange.by.peer(peer))
    }

    /// Whether one IP counts as one network, where networks have to be made anew.
    pub(crate) fn network_is_ip(&self) -> Option<bool> {
        self.exchange.as_ref().map(|exchange| exchange.allow_private)
    }

    /// Who we are, where we are somebody else.
    pub(crate) fn other_identity(&self) -> Option<PublicKey> {
        self.exchange.as_ref().map(|exchange| exchange.identity.clone())
    }

    /// Write an IP as it is.
    pub(crate) fn ip(&mut self, ip: IpAddr) {
        Family::of(ip).save(self);
        match ip {
            IpAddr::V4(ip) => self.raw(&ip.octets()),
            IpAddr::V6(ip) => self.raw(&ip.octets()),
        }
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn len(&mut self, len: usize) {
        self.number(u64::try_from(len).unwrap_or(u64::MAX));
    }
}

/// Where a state is read from, and what is known of the agent beside it.
pub(crate) struct Loader<'a> {
    bytes: &'a [u8],
    pub(crate) config: &'a Config,
    pub(crate) identity: &'a PublicKey,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(bytes: &'a [u8], config: &'a Config, identity: &'a PublicKey) -> Loader<'a> {
        Loader { bytes, config, identity }
    }

    /// Nothing is left over.
    pub(crate) fn end(self) -> Result<(), BadCheckpoint> {
        if self.bytes.is_empty() { Ok(()) } else { Err(BadCheckpoint) }
    }

    pub(crate) fn number(&mut self) -> Result<u64, BadCheckpoint> {
        let read = unsigned_varint::decode::u64(self.bytes);
        let (number, rest) = read.map_err(|_| BadCheckpoint)?;
        self.bytes = rest;
        Ok(number)
    }

    fn raw(&mut self, len: usize) -> Result<&'a [u8], BadCheckpoint> {
        let (bytes, rest) = self.bytes.split_at_checked(len).ok_or(BadCheckpoint)?;
        self.bytes = rest;
        Ok(bytes)
    }

    fn octets<const N: usize>(&mut self) -> Result<[u8; N], BadCheckpoint> {
        self.raw(N)?.try_into().map_err(|_| BadCheckpoint)
    }

    /// How many values follow. Each takes a byte at least, and room is made for none in advance.
    fn len(&mut self) -> Result<usize, BadCheckpoint> {
        let len = usize::load(self)?;
        if len <= self.bytes.len() { Ok(len) } else { Err(BadCheckpoint) }
    }
}

/// Whether counters stand where counting one by one could have brought them.
pub(crate) fn are_counts(counts: &[u64]) -> bool {
    counts.iter().all(|count| *count <= COUNT_MAX)
}

/// Says how structs and enumerations are saved:
///
/// - `saved!(struct Name { a, b })`: these fields, in this order;
/// - `a as how(…)`: `Saver::how(a, …)` writes it, so that it is another in the canonical form;
/// - `… given { c } by fresh`: `c` is not saved, but taken from what `fresh(&Loader)` returns;
/// - `… if is_sound`: what was loaded is refused unless `is_sound(&it)`;
/// - `saved!(struct Name(inner))`: the one field of a tuple;
/// - `saved!(enum Name { 1 = One, 2 = Two { a }, 3 = Three(inner) })`: the variants with their numbers.
macro_rules! saved {
    (@ $out:ident $field:ident) => {
        $crate::words::checkpoint::Saved::save($field, $out);
    };
    (@ $out:ident $field:ident $how:ident($($by:expr),*)) => {
        $out.$how($field $(, $by)*);
    };
    (struct $name:ident { $($field:ident $(as $how:ident($($by:expr),* $(,)?))?),* $(,)? }
        $(given { $($given:ident),* } by $fresh:path)? $(, if $sound:path)?) => {
        impl $crate::words::checkpoint::Saved for $name {
            fn save(&self, out: &mut $crate::words::checkpoint::Saver<'_>) {
                let $name { $($field,)* $($($given: _,)*)? } = self;
                $($crate::words::checkpoint::saved!(@ out $field $($how($($by),*))?);)*
            }

            fn load(
                from: &mut $crate::words::checkpoint::Loader<'_>,
            ) -> Result<$name, $crate::words::checkpoint::BadCheckpoint> {
                $(let $field = $crate::words::checkpoint::Saved::load(from)?;)*
                let loaded = $name { $($field,)* $(..$fresh(from)?)? };
                $(if !$sound(&loaded) {
                    return Err($crate::words::checkpoint::BadCheckpoint);
                })?
                Ok(loaded)
            }
        }
    };
    (struct $name:ident($inner:ident)) => {
        impl $crate::words::checkpoint::Saved for $name {
            fn save(&self, out: &mut $crate::words::checkpoint::Saver<'_>) {
                let $name($inner) = self;
                $crate::words::checkpoint::Saved::save($inner, out);
            }

            fn load(
                from: &mut $crate::words::checkpoint::Loader<'_>,
            ) -> Result<$name, $crate::words::checkpoint::BadCheckpoint> {
                Ok($name($crate::words::checkpoint::Saved::load(from)?))
            }
        }
    };
    (enum $name:ident { $($number:literal = $variant:ident
        $(($inner:ident))? $({ $($field:ident),* })?),* $(,)? }) => {
        impl $crate::words::checkpoint::Saved for $name {
            fn save(&self, out: &mut $crate::words::checkpoint::Saver<'_>) {
                match self {
                    $($name::$variant $(($inner))? $({ $($field),* })? => {
                        out.number($number);
                        $($crate::words::checkpoint::Saved::save($inner, out);)?
                        $($($crate::words::checkpoint::Saved::save($field, out);)*)?
                    })*
                }
            }

            fn load(
                from: &mut $crate::words::checkpoint::Loader<'_>,
            ) -> Result<$name, $crate::words::checkpoint::BadCheckpoint> {
                match from.number()? {
                    $($number => {
                        $(let $inner = $crate::words::checkpoint::Saved::load(from)?;)?
                        $($(let $field = $crate::words::checkpoint::Saved::load(from)?;)*)?
                        Ok($name::$variant $(($inner))? $({ $($field),* })?)
                    })*
                    _ => Err($crate::words::checkpoint::BadCheckpoint),
                }
            }
        }
    };
}
pub(crate) use saved;

impl Saved for u64 {
    fn save(&self, out: &mut Saver<'_>) {
        out.number(*self);
    }

    fn load(from: &mut Loader<'_>) -> Result<u64, BadCheckpoint> {
        from.number()
    }
}

macro_rules! narrow {
    ($($integer:ident)*) => {$(
        impl Saved for $integer {
            fn save(&self, out: &mut Saver<'_>) {
                out.number(u64::try_from(*self).unwrap_or(u64::MAX));
            }

            fn load(from: &mut Loader<'_>) -> Result<$integer, BadCheckpoint> {
                $integer::try_from(from.number()?).map_err(|_| BadCheckpoint)
            }
        }
    )*};
}

narrow!(u8 u16 u32 usize);

impl Saved for bool {
    fn save(&self, out: &mut Saver<'_>) {
        out.number((*self).into());
    }

    fn load(from: &mut Loader<'_>) -> Result<bool, BadCheckpoint> {
        match from.number()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(BadCheckpoint),
        }
    }
}

impl<T: Saved> Saved for Option<T> {
    fn save(&self, out: &mut Saver<'_>) {
        self.is_some().save(out);
        if let Some(value) = self {
            value.save(out);
        }
    }

    fn load(from: &mut Loader<'_>) -> Result<Option<T>, BadCheckpoint> {
        bool::load(from)?.then(|| T::load(from)).transpose()
    }
}

impl<T: Saved> Saved for Vec<T> {
    fn save(&self, out: &mut Saver<'_>) {
        out.len(self.len());
        self.iter().for_each(|value| value.save(out));
    }

    fn load(from: &mut Loader<'_>) -> Result<Vec<T>, BadCheckpoint> {
        let mut values = Vec::new();
        for _ in 0..from.len()? {
            values.push(T::load(from)?);
        }
        Ok(values)
    }
}

impl<T: Saved, const N: usize> Saved for [T; N] {
    fn save(&self, out: &mut Saver<'_>) {
        self.iter().for_each(|value| value.save(out));
    }

    fn load(from: &mut Loader<'_>) -> Result<[T; N], BadCheckpoint> {
        let mut values = Vec::new();
        for _ in 0..N {
            values.push(T::load(from)?);
        }
        values.try_into().map_err(|_| BadCheckpoint)
    }
}

impl<K: Saved + Ord, V: Saved> Saved for BTreeMap<K, V> {
    fn save(&self, out: &mut Saver<'_>) {
        out.len(self.len());
        for (key, value) in self {
            key.save(out);
            value.save(out);
        }
    }

    fn load(from: &mut Loader<'_>) -> Result<BTreeMap<K, V>, BadCheckpoint> {
        let mut map = BTreeMap::new();
        for _ in 0..from.len()? {
            let (key, value) = <(K, V)>::load(from)?;
            // Nothing stands twice, and there is one order.
            if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(BadCheckpoint);
            }
            map.insert(key, value);
        }
        Ok(map)
    }
}

impl<T: Saved + Ord> Saved for BTreeSet<T> {
    fn save(&self, out: &mut Saver<'_>) {
        out.len(self.len());
        self.iter().for_each(|value| value.save(out));
    }

    fn load(from: &mut Loader<'_>) -> Result<BTreeSet<T>, BadCheckpoint> {
        let mut set = BTreeSet::new();
        for _ in 0..from.len()? {
            let value = T::load(from)?;
            if set.last().is_some_and(|last| *last >= value) {
                return Err(BadCheckpoint);
            }
            set.insert(value);
        }
        Ok(set)
    }
}

impl<A: Saved, B: Saved> Saved for (A, B) {
    fn save(&self, out: &mut Saver<'_>) {
        let (a, b) = self;
        a.save(out);
        b.save(out);
    }

    fn load(from: &mut Loader<'_>) -> Result<(A, B), BadCheckpoint> {
        Ok((A::load(from)?, B::load(from)?))
    }
}

impl<A: Saved, B: Saved, C: Saved> Saved for (A, B, C) {
    fn save(&self, out: &mut Saver<'_>) {
        let (a, b, c) = self;
        a.save(out);
        b.save(out);
        c.save(out);
    }

    fn load(from: &mut Loader<'_>) -> Result<(A, B, C), BadCheckpoint> {
        Ok((A::load(from)?, B::load(from)?, C::load(from)?))
    }
}

impl Saved for Bytes {
    fn save(&self, out: &mut Saver<'_>) {
        out.len(self.len());
        out.raw(self);
    }

    fn load(from: &mut Loader<'_>) -> Result<Bytes, BadCheckpoint> {
        let len = from.len()?;
        from.raw(len).map(Bytes::copy_from_slice)
    }
}

/// What comes back of a state that is saved; for tests of what is refused.
#[cfg(test)]
pub(crate) fn reloaded<T: Saved>(value: &T) -> Result<T, BadCheckpoint> {
    let mut out = Saver::new(&|nonce| nonce);
    value.save(&mut out);
    tests::loaded(&out.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::addr::Addr;
    use crate::words::id::{Side, StreamId};
    use crate::words::judgement::{Reason, Source, Sources};
    use crate::words::protocol::Protocol;
    use alloc::vec;
    use core::net::Ipv4Addr;

    fn bytes_of(value: &impl Saved) -> Vec<u8> {
        let mut out = Saver::new(&|nonce| nonce);
        value.save(&mut out);
        out.into_bytes()
    }

    pub(super) fn loaded<T: Saved>(bytes: &[u8]) -> Result<T, BadCheckpoint> {
        let key = PublicKey::try_decode_protobuf(
            &[&[0x08, 0x01, 0x12, 0x20][..], &[0xd7; 32], &[]].concat(),
        );
        let (config, key) = (Config::default(), key.expect("a point of the curve"));
        let mut from = Loader::new(bytes, &config, &key);
        let value = T::load(&mut from)?;
        from.end().map(|()| value)
    }

    #[test]
    fn values_are_these_bytes() {
        assert_eq!(bytes_of(&300u64), [0xac, 2]);
        assert_eq!(bytes_of(&Some(true)), [1, 1]);
        assert_eq!(bytes_of(&None::<u64>), [0]);
        assert_eq!(bytes_of(&vec![7u32, 8]), [2, 7, 8]);
        assert_eq!(bytes_of(&Sources::NONE.with(Source::Guess).with(Source::Mapped)), [2, 2, 5]);
        let addr = Addr::quic(Ipv4Addr::new(44, 0, 0, 1).into(), 4001);
        assert_eq!(bytes_of(&addr), [1, 44, 0, 0, 1, 0xa1, 0x1f, 2]);
        assert_eq!(loaded(&bytes_of(&addr)), Ok(addr));
        let stream = StreamId::outbound(Protocol::Ping, 3);
        assert_eq!(bytes_of(&(stream, Reason::DialFailed { servers: 9 })), [2, 3, 3, 6, 9]);
    }

    #[test]
    fn what_is_no_value_is_refused() {
        assert_eq!(loaded::<u8>(&[0x80, 2]), Err(BadCheckpoint), "256");
        assert_eq!(loaded::<u64>(&[0x80]), Err(BadCheckpoint), "cut off");
        assert_eq!(loaded::<u64>(&[1, 2]), Err(BadCheckpoint), "left over");
        assert_eq!(loaded::<bool>(&[2]), Err(BadCheckpoint));
        assert_eq!(loaded::<Side>(&[3]), Err(BadCheckpoint));
        assert_eq!(loaded::<BTreeSet<u8>>(&[2, 5, 5]), Err(BadCheckpoint), "twice");
        assert_eq!(loaded::<BTreeMap<u8, u8>>(&[2, 6, 0, 5, 0]), Err(BadCheckpoint), "order");
        let many = bytes_of(&u64::MAX);
        assert_eq!(loaded::<Vec<u64>>(&many), Err(BadCheckpoint), "more than there is");
        assert_eq!(loaded::<Bytes>(&many), Err(BadCheckpoint));
        assert_eq!(loaded::<PeerId>(&[3, 1, 2, 3]), Err(BadCheckpoint));
    }

    #[test]
    fn counters_can_be_added_up() {
        assert!(are_counts(&[0, COUNT_MAX]) && !are_counts(&[0, COUNT_MAX + 1]));
        assert!(COUNT_MAX.checked_mul(4).is_some(), "with room for what is counted after");
    }
}
