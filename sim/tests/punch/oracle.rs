//! Whether a pair can connect directly at all: told by its gates alone, which are shown packets of
//! perfect timing in every role. Nothing of core is asked.

use crate::PORT;
use crate::site::{Pair, SERVERS, Stood, public_ip};
use portolan_core::{Addr, Instant};
use portolan_sim::Dice;
use portolan_sim::net::{Fabric, Fate, HostId, Link, Loss, Packet, PacketKind, Way};

/// How often each side sends, number: more than any order of packets needs.
const ROUNDS: usize = 3;

/// The sides on a network of their own.
#[derive(Clone)]
struct Ground {
    fabric: Fabric,
    dice: Dice,
    /// Host and listening socket of each side.
    sides: [(HostId, Addr); 2],
}

impl Ground {
    fn new(pair: &Pair) -> Ground {
        let mut pair = pair.clone();
        for side in &mut pair.sides {
            side.link.loss = Loss::default();
        }
        let mut fabric = Fabric::default();
        let sides = [0, 1].map(|side| {
            let Stood { host, ip, .. } = pair.stand(&mut fabric, side);
            (host, Addr::new(ip, PORT, pair.class.transport))
        });
        Ground { fabric, dice: Dice::new(7), sides }
    }

    /// A packet, and where it arrives as what.
    fn send(&mut self, from: HostId, src: Addr, dst: Addr) -> Option<(HostId, Packet)> {
        let packet = Packet::bare(src, dst, PacketKind::Open);
        let now = Instant::ZERO;
        let Way::Arrives { landing, packet, .. } =
            self.fabric.send(now, from, packet, &mut self.dice)
        else {
            return None;
        };
        match self.fabric.land(now, landing, packet) {
            Fate::Delivered(host, packet) => Some((host, packet)),
            Fate::Refused(..) | Fate::Lost => None,
        }
    }

    /// Where others see a side, each of whom answers.
    fn seen(&mut self, side: usize, others: &[(HostId, Addr)]) -> Vec<Addr> {
        let (host, local) = self.sides[side];
        let mut all = Vec::new();
        for (other, addr) in others {
            if let Some((_, packet)) = self.send(host, local, *addr) {
                all.push(packet.src);
                self.send(*other, *addr, packet.src);
            }
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// One side calls the other there: whether its packet arrives, and the answer comes from where
    /// it went.
    fn calls(&mut self, side: usize, to: Addr) -> bool {
        let (host, local) = self.sides[side];
        let (there, socket) = self.sides[1 - side];
        let Some((reached, packet)) = self.send(host, local, to) else { return false };
        if (reached, packet.dst) != (there, socket) {
            return false;
        }
        let back = self.send(there, socket, packet.src);
        back.is_some_and(|(home, answer)| home == host && (answer.src, answer.dst) == (to, local))
    }
}

/// Whether there is any order of packets that connects the pair.
pub(crate) fn can_connect(pair: &Pair) -> bool {
    let mut ground = Ground::new(pair);
    let others: Vec<(HostId, Addr)> = (1..=SERVERS)
        .map(|network| {
            let ip = public_ip(pair.class.family, network, 1);
            let host = ground.fabric.add_host(None, &[ip], Link::default());
            (host, Addr::new(ip, PORT, pair.class.transport))
        })
        .collect();
    let seen = [0, 1].map(|side| ground.seen(side, &others));
    // Who calls, in which order; one of both may only wait.
    for callers in [&[0, 1][..], &[1, 0], &[0], &[1]] {
        for at in &seen[0] {
            for other in &seen[1] {
                let mut ground = ground.clone();
                let targets = [*other, *at];
                let mut turns = (0..ROUNDS).flat_map(|_| callers.iter().copied());
                if turns.any(|side| ground.calls(side, targets[side])) {
                    return true;
                }
            }
        }
    }
    false
}
