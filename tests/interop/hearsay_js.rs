//! AutoNAT v1 with js-libp2p, whose rules are its own. As a client it asks about public addresses
//! alone, one server of each network, and believes one that reached it, but only eight that did not.
//! As a server it answers no question about a public address: here is shown how far it gets, and that
//! one option of its own is all that is missing.

use crate::cell::Place;
use crate::cells::{self, Group};
use crate::hearsay::right;
use crate::other::{Other, WITHIN, command_id, listen_addr};
use futures::future::join_all;
use portolan_core::{Notice, Served, Transport};
use portolan_runtime::traits::Runtime;
use portolan_tests::js_peer::{JsPeer, strings};
use portolan_tests::portolan_peer::PortolanPeer;
use serde_json::{Value, json};
use std::time::Duration;

/// The IPs of servers in as many networks as js-libp2p wants to hear from before it gives an address
/// up. It tells networks apart by the first byte.
const SERVERS: [&str; 8] = [
    "45.0.0.1", "46.0.0.1", "47.0.0.1", "48.0.0.1", "49.0.0.1", "50.0.0.1", "51.0.0.1", "52.0.0.1",
];
/// The IP that those servers see everybody at: so `namespace` routes.
const SEEN_AT: &str = "44.40.0.1";
/// Another one, which they see nobody at.
const NOT_SEEN_AT: &str = "44.41.0.1";
/// Until js-libp2p has judged. It asks three servers at once, and where nobody listens a dial over
/// QUIC is given up after 2.5 s at least.
const JUDGED_WITHIN: Duration = Duration::from_secs(40);

/// What js-libp2p's server makes of a question, found in the source of `@libp2p/autonat`. It dials
/// without `force`, so its connection manager hands it the connection that the question came on;
/// and it closes what it dialled before it writes the answer.
const HANGS_UP: &str =
    "it takes the connection that it is asked on for its dial, and closes it without an answer";
/// The same where addresses are private.
const REFUSES: &str = "it dials no private address, and refuses";

impl<R: Runtime> Group<R> {
    /// js-libp2p speaking v1. What it announces it takes for verified, so it listens: at the IP that
    /// it is seen at; or at another, and then nobody is at its port where it is seen.
    pub(crate) async fn old_js(&self, is_open: bool) -> Result<JsPeer, String> {
        let ip = match (self.place, is_open) {
            (Place::Loopback, _) => self.other_ip(),
            (Place::Global, true) => SEEN_AT,
            (Place::Global, false) => NOT_SEEN_AT,
        };
        let listen = listen_addr(ip, self.transport);
        JsPeer::start(&json!({ "listen": [listen], "autonatV1": true })).await
    }

    /// js-libp2p as a server that is made to dial: then its answers are right, and Portolan takes
    /// them. Not in the table, because it is not what was published.
    pub(crate) async fn js_answers_once_it_dials(&self) -> Result<(), String> {
        let listen = listen_addr(SEEN_AT, self.transport);
        let options = json!({ "listen": [listen], "autonatV1": true, "autonatV1Dials": true });
        let other = Other::Js(Box::new(JsPeer::start(&options).await?));
        // Over QUIC it gives up a dial after ten seconds only.
        let others = if self.transport == Transport::Tcp { &[true, false][..] } else { &[true] };
        for is_open in others {
            let (_us, told) = self.asks(&other, *is_open).await?;
            if told != right(*is_open) {
                return Err(format!("it says {} of {is_open}", told.name()));
            }
        }
        Ok(())
    }

    /// Why js-libp2p as the server said nothing: by its log, and by what became of the connection.
    pub(crate) async fn js_is_silent(
        &self,
        js: &JsPeer,
        us: &PortolanPeer<R>,
    ) -> Result<String, String> {
        let wrote = async |text: &str| {
            let line = |event: &Value| event["event"] == "hearsay" && event["text"] == text;
            js.wait(text, WITHIN, line).await
        };
        wrote("incoming request from %p").await?;
        if self.place == Place::Loopback {
            wrote("refused to dial all multiaddrs for %p from message").await?;
            // There is one connection, and it stands.
            js.ping(command_id(), us.id()).await?;
            return Ok(REFUSES.to_owned());
        }
        // It says so even if nobody can get through to us.
        wrote("successfully dialed %p via %a").await?;
        wrote("error handling incoming autonat stream - %e").await?;
        let peer = us.id().to_string();
        let with_us =
            |event: &Value, what| event["event"] == what && event["peer"] == peer.as_str();
        js.wait("lost connection", WITHIN, |event| with_us(event, "closed")).await?;
        match &js.seen(|event| with_us(event, "connection"))[..] {
            [one] if one["direction"] == "inbound" => Ok(HANGS_UP.to_owned()),
            others => Err(format!("it made other connections: {others:?}")),
        }
    }

    /// Portolan is the server, or eight of them are, and js-libp2p comes to the right verdict.
    pub(crate) async fn tells_js(&self, is_open: bool) -> Result<(), String> {
        let js = self.old_js(is_open).await?;
        if self.place == Place::Loopback {
            return Err(cells::js_asks_nobody(&js).await?);
        }
        let ips = SERVERS.into_iter().take(if is_open { 1 } else { SERVERS.len() });
        let listen: Vec<String> = ips.map(|ip| listen_addr(ip, self.transport)).collect();
        let servers = join_all(listen.iter().map(|listen| self.old_server(listen))).await;
        for us in &servers {
            js.dial(command_id(), &us.full_addrs[0]).await?;
        }
        let (wanted, verdict) =
            if is_open { (Served::Connected, "verified") } else { (Served::DialFailed, "refuted") };
        let listened = js.full_addrs[0].to_string();
        let judged = js.wait("verdict", JUDGED_WITHIN, |event| {
            (event["event"] == "verified" || event["event"] == "refuted")
                && strings(&event["addrs"]).iter().any(|addr| listened.starts_with(addr))
        });
        let judged = judged.await?;
        for us in &servers {
            let served = us.wait_notice("request", WITHIN, |notice| {
                let Notice::DialBackServed { peer, answer, .. } = notice else { return None };
                (*peer == js.id).then_some(*answer)
            });
            let served = served.await?;
            if served != wanted {
                return Err(format!("it is told {served:?}"));
            }
        }
        if judged["event"] == verdict { Ok(()) } else { Err(format!("its verdict is {judged}")) }
    }
}
