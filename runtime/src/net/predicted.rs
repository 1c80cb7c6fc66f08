//! Dials for ports that are predicted: the next mapping of a NAT belongs to a port that nothing used.
//!
//! ```text
//!  open       one packet from the listener's port; who comes in meets the listener
//!  sample     one dial from a fresh port, to somebody who says where that is seen
//!  predicted  dials from one fresh port, until one is answered
//! ```
//!
//! Limits: as for every punch.

use super::error::DialError;
use super::punch::{may_pass, no_listener, random_datagram, redial, too_many};
use super::{Established, Net, Patience, circuit, quic};
use crate::sockets;
use crate::time::{Stopwatch, timeout};
use crate::traits::Runtime;
use portolan_core::{Addr, Duration, PeerId, PunchWay, Side, Transport};
use quinn::Endpoint;
use std::net::SocketAddr;

/// The shortest time between two dials to which a port was predicted; ours. Packets to a NAT that
/// does not know us grow with it.
const PREDICTED_INTERVAL: Duration = Duration::from_millis(200);

impl<R: Runtime> Net<R> {
    /// Open our own NAT for one port, by one packet; how that ended. Whoever comes in there meets the
    /// listener, so that it ends as timed out where the packet has left.
    pub(super) fn open_alone(&self, to: Addr) -> DialError {
        let sent = match to.transport {
            // A socket that has not connected is closed without a word.
            Transport::Tcp => {
                self.port_towards(to).map(|from| sockets::dial_shared(to.socket(), from).map(drop))
            }
            Transport::Quic => self
                .listening_endpoint(to)
                .and_then(|(_, udp)| udp.upgrade())
                .map(|udp| udp.send_to(&random_datagram(), to.socket()).map(drop)),
        };
        match sent {
            None => no_listener(),
            Some(Ok(())) => DialError::TimedOut,
            Some(Err(error)) => DialError::at_once(error),
        }
    }

    /// Dial from a port that nothing used; once, or again and again from the same port where our NAT
    /// is expected there.
    pub(super) async fn dial_from_fresh(
        &self,
        to: Addr,
        peer: PeerId,
        way: PunchWay,
        patience: Duration,
    ) -> Result<Established, DialError> {
        let _place = self.shared.punches.begin().ok_or_else(too_many)?;
        let again = (way == PunchWay::Predicted).then_some(PREDICTED_INTERVAL);
        match to.transport {
            Transport::Tcp => {
                let runtime = &self.shared.runtime;
                let mut refusal = None;
                let connecting = connect_from_fresh(runtime, to.socket(), again, &mut refusal);
                let connected = timeout(runtime, patience, connecting).await;
                let tcp = match connected {
                    Some(result) => result?,
                    None => return Err(refusal.unwrap_or(DialError::TimedOut)),
                };
                let local = runtime.local_addr(&tcp).map_err(DialError::LocalFault)?;
                let ends = (Addr::tcp(local.ip(), local.port()), to);
                circuit::shake_hands(&self.shared, tcp, peer, Side::Outbound, ends).await
            }
            Transport::Quic => {
                let any = SocketAddr::new(sockets::unspecified(to.socket()), 0);
                let socket = quic::dialler(&self.shared, any).map_err(DialError::LocalFault)?;
                self.dial_quic_from(&socket.endpoint, to, peer, (again, patience)).await
            }
        }
    }

    async fn dial_quic_from(
        &self,
        endpoint: &Endpoint,
        to: Addr,
        peer: PeerId,
        (again, patience): (Option<Duration>, Duration),
    ) -> Result<Established, DialError> {
        match again {
            Some(every) => redial(&self.shared, endpoint, (to, peer), patience, every).await,
            None => {
                let client = &self.shared.keys.quic_client;
                let step = Patience { connect: patience, handshake: patience, total: patience };
                quic::dial(&self.shared, client, endpoint, to, Some(peer), step).await
            }
        }
    }
}

/// A socket that is connected to `to`, from a port of the kernel's choice.
async fn connect_from_fresh<R: Runtime>(
    runtime: &R,
    to: SocketAddr,
    again: Option<Duration>,
    refusal: &mut Option<DialError>,
) -> Result<R::Tcp, DialError> {
    let mut socket = sockets::dial_fresh(to, None).map_err(DialError::at_once)?.socket;
    loop {
        let watch = Stopwatch::start(runtime);
        let local = socket.local_addr().map_err(DialError::LocalFault)?;
        let error = match runtime.connected(socket).await {
            Ok(tcp) => return Ok(tcp),
            Err(error) => error,
        };
        let every = again.filter(|_| may_pass(&error));
        let error = DialError::later(error);
        let Some(every) = every else { return Err(error) };
        tracing::trace!(%local, %to, %error, "a SYN was refused");
        *refusal = Some(error);
        runtime.sleep(every.saturating_sub(watch.elapsed())).await;
        // Our NAT has the mapping of this port.
        socket = sockets::dial_bound_to(to, local).map_err(DialError::at_once)?;
    }
}
