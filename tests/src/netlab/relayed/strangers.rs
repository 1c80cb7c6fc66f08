//! Whether strangers get in, learned from servers behind a relay that the node never contacts.

use super::tale::Tale;
use super::world::{SOON, World, at, circuits, listen, listens, started, stuck, until};
use crate::netlab::application::Application;
use crate::netlab::peers::each;
use serde_json::Value;
use std::io;
use std::time::Duration;

/// Two failed dials of two and a half seconds for each transport, one after the other, and four circuits.
const JUDGED_WITHIN: Duration = Duration::from_secs(20);
/// Dial data of two questions for each transport, bytes: the most that servers may ask for.
const PAID_MOST: u64 = 2 * 100_000;

impl World {
    /// The node learns from servers behind a relay whether strangers get in.
    pub(super) fn strangers(&mut self, open: bool, tale: &mut Tale) -> io::Result<()> {
        let relay = self.relays.first().map_or(&[][..], |relay| &relay.addrs).to_vec();
        let mut servers = Vec::new();
        for host in &self.distant {
            let mut options = each("--relay", &relay);
            options.extend(["--need".to_owned(), "always".to_owned()]);
            let at = listens(self.story, host.ip4());
            servers.push(Application::start_with(host, &at, &options, self.story.on)?);
        }
        let mut distant = Vec::new();
        for server in &mut servers {
            until(server, 0, SOON, |all| !all.is_empty())?;
            distant.extend(circuits(server).into_iter().take(1));
        }
        let met: Vec<String> =
            self.servers.iter().flat_map(|server| server.addrs.iter().cloned()).collect();
        let mut node = self.start_with(&met, &distant)?;
        let wanted = if open { "anywhere" } else { "contacted-only" };
        let began = started(&node);
        let layers = self.story.transports.layers();
        for layer in layers {
            let of = format!("/{}/", layer.name());
            let scoped = |scope: &str, event: &Value| {
                let addr = event["addr"].as_str().unwrap_or_default();
                event["event"] == "verdict" && addr.contains(&of) && event["scope"] == scope
            };
            let first = node.wait(0, SOON, |event| scoped("contacted", event));
            let first = first.ok_or_else(|| stuck("no server was let in", &node))?;
            let judged = node.wait(0, 2 * JUDGED_WITHIN, |event| scoped(wanted, event));
            let judged = judged.ok_or_else(|| stuck(&format!("not {wanted}"), &node))?;
            let what = format!("from start to {wanted}, {}, ms", layer.name());
            tale.at_most(&what, at(&judged).saturating_sub(began), JUDGED_WITHIN);
            tale.figure("from contacted to that, ms", at(&judged).saturating_sub(at(&first)));
            let other = if open { "contacted-only" } else { "anywhere" };
            listen(&mut node);
            let wrong = node.told.iter().any(|event| scoped(other, event));
            tale.expect(!wrong, || format!("{} was {other}", layer.name()));
            // What was found out is so: somebody comes who has no part in all that.
            let addr = judged["addr"].as_str().unwrap_or_default();
            let said = self.stranger()?.ask("ask", &format!("{addr}/p2p/{}", node.peer()))?;
            tale.expect(said.is_ok() == open, || format!("a stranger at {addr}: {said:?}"));
        }
        let paid = node.ask("paid", &distant[0])?.map_err(io::Error::other)?;
        let number = |field: &str| paid[field].as_u64().unwrap_or(u64::MAX);
        tale.figure("questions over circuits", number("asked"));
        tale.figure("dial data for them, bytes", number("bytes"));
        let most = PAID_MOST * layers.len() as u64;
        tale.expect(number("bytes") <= most, || format!("{paid} was paid"));
        let least = if open { 1 } else { 2 };
        let asked = number("asked");
        tale.expect(asked == least * layers.len() as u64, || format!("{asked} questions"));
        node.close()
    }
}
