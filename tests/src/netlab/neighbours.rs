//! Who is across a link, told to everybody in advance.
//!
//! In the lab the whole Internet is on one cable, and hosts ask it for each other by ARP and NDP. A
//! host of the real one asks its router, which is near. Across a link that question would cost a
//! round trip, or be lost; so both sides are given permanent entries instead.

use super::namespace::{self, Namespace};
use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// A side of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shore {
    /// Where the site is.
    Near,
    /// Where the public hosts are.
    Far,
    /// Where another site is, with a link of its own.
    Other,
}

/// The hosts on all sides of the links.
#[derive(Clone, Debug, Default)]
pub struct Neighbours(Arc<Mutex<Sides>>);

#[derive(Debug, Default)]
struct Sides(Vec<(Shore, Seat)>);

/// An interface on a side, and the addresses for which it answers.
#[derive(Debug)]
struct Seat {
    space: String,
    interface: &'static str,
    mac: String,
    ips: Vec<IpAddr>,
}

impl Neighbours {
    /// Somebody is there, with this interface towards the link, or answers for more addresses than
    /// before: it and everybody across get to know each other.
    ///
    /// # Errors
    /// If a command fails.
    pub fn add(
        &self,
        shore: Shore,
        (space, interface): (&Namespace, &'static str),
        ips: &[IpAddr],
    ) -> io::Result<()> {
        let mut sides = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seat = Seat::new(space, interface, ips);
        let across = sides.0.iter().filter(|(other, _)| *other != shore).map(|(_, seat)| seat);
        seat.learn(across.clone())?;
        for other in across {
            other.learn(std::iter::once(&seat))?;
        }
        sides.0.push((shore, seat));
        Ok(())
    }
}

impl Seat {
    fn new(space: &Namespace, interface: &'static str, ips: &[IpAddr]) -> Seat {
        let (space, mac) = (space.name().to_owned(), super::mac(space));
        Seat { space, interface, mac, ips: ips.to_vec() }
    }

    /// Let it know others.
    fn learn<'a>(&self, others: impl Iterator<Item = &'a Seat>) -> io::Result<()> {
        let mut commands = String::new();
        for Seat { mac, ips, .. } in others {
            for ip in ips {
                let to = self.interface;
                let _ =
                    writeln!(commands, "neigh replace {ip} lladdr {mac} dev {to} nud permanent");
            }
        }
        // Who is gone by now needs to know nobody.
        if commands.is_empty() || !namespace::exists(&self.space) {
            return Ok(());
        }
        namespace::ip(&self.space, &commands)
    }
}
