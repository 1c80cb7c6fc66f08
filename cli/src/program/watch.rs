//! What `portolan watch` prints: lines, or JSON, or on a terminal the present picture below them.

use crate::program::args::WatchArgs;
use crate::program::jobs::{Job, http, stop_signal};
use crate::program::{Failed, lists, print};
use crate::{Hook, Report, WatchNews, WatchOptions};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use portolan_core::{Duration, Notice};
use portolan_runtime::traits::Runtime;
use serde_json::{Value, json};
use std::io::{self, IsTerminal};
use std::net::SocketAddr;

impl Job for WatchArgs {
    async fn run<R: Runtime>(self, runtime: R) -> Result<u8, Failed> {
        let bootstrap = lists::bootstrap(self.bootstrap, self.asking.allow_private);
        let mut check = self.asking.options(&runtime).await?;
        check.bootstrap = bootstrap;
        let options = WatchOptions { check, state: self.state, http: http(self.page) };
        let mut hook = self.on_change.map(Hook::new);
        let screen = Screen::new(self.json);
        let stop = stop_signal()?;
        let news = |news: WatchNews| {
            if let (Some(hook), WatchNews::Stands(report)) = (&mut hook, &news) {
                hook.stands(report);
            }
            if let Err(error) = screen.show(&news) {
                tracing::warn!(%error, "the news could not be printed");
            }
        };
        crate::watch(runtime, options, news, stop).await?;
        Ok(0)
    }
}

/// Where news go.
enum Screen {
    /// A document a line.
    Json,
    /// A line for people.
    Lines,
    /// The same above the present picture.
    Live(ProgressBar),
}

impl Screen {
    fn new(json: bool) -> Screen {
        if json {
            return Screen::Json;
        }
        if !(io::stdout().is_terminal() && io::stderr().is_terminal()) {
            return Screen::Lines;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        Screen::Live(bar)
    }

    fn show(&self, news: &WatchNews) -> io::Result<()> {
        match self {
            Screen::Json => print(&format!("{}\n", document(news))),
            Screen::Lines => line(news).map_or(Ok(()), |line| print(&format!("{line}\n"))),
            Screen::Live(bar) => {
                if let WatchNews::Stands(report) = news {
                    bar.set_message(picture(report));
                }
                let printed = line(news).map(|line| bar.suspend(|| print(&format!("{line}\n"))));
                printed.unwrap_or(Ok(()))
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Screen::Live(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// News in a line; the picture is none.
fn line(news: &WatchNews) -> Option<String> {
    match news {
        WatchNews::Noticed { at, text, .. } | WatchNews::Peer { at, text } => {
            Some(format!("{:>10.3}  {text}", at.as_secs_f64()))
        }
        WatchNews::Shown(addr) => Some(format!("{:>10.3}  shown at {}", 0.0, page(*addr))),
        WatchNews::Stands(_) => None,
    }
}

/// Where the page is.
fn page(addr: SocketAddr) -> String {
    format!("http://{addr}/")
}

/// How the node stands, in some lines.
fn picture(report: &Report) -> String {
    let mut lines = vec![format!("{}: {}", report.reachability.name(), report.reason)];
    for one in &report.addresses {
        let scope = one.scope.map_or_else(String::new, |scope| format!(" ({scope})"));
        lines.push(format!("  {} {}{scope}: {}", one.address, one.verdict, one.reason));
    }
    for one in &report.mappings {
        let external = one.external.as_deref().unwrap_or("nothing");
        lines.push(format!("  {} is mapped to {external}: {}", one.internal, one.reason));
    }
    let reserved = report.relays.iter().flat_map(|relay| &relay.addresses);
    lines.extend(reserved.map(|address| format!("  {address}")));
    lines.join("\n")
}

/// News as a document.
fn document(news: &WatchNews) -> Value {
    let at_ms = |at: &Duration| u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
    match news {
        WatchNews::Peer { at, text } => {
            json!({ "at_ms": at_ms(at), "event": "peer", "text": text })
        }
        WatchNews::Shown(addr) => {
            let url = page(*addr);
            json!({ "at_ms": 0, "event": "shown", "url": url, "text": format!("shown at {url}") })
        }
        WatchNews::Noticed { at, notice, text } => {
            let mut document = json!({ "at_ms": at_ms(at), "event": "notice", "text": text });
            let more = notice.as_ref().and_then(details);
            if let (Value::Object(document), Some(Value::Object(more))) = (&mut document, more) {
                document.extend(more);
            }
            document
        }
        WatchNews::Stands(report) => json!({ "event": "stands", "report": report }),
    }
}

/// What programs want to know of a notice, beyond its words; none of those that only tell how it came.
#[allow(clippy::wildcard_enum_match_arm, reason = "of all notices, these have fields of their own")]
fn details(notice: &Notice) -> Option<Value> {
    let document = match notice {
        Notice::VerdictChanged { addr, state, scope, reason } => json!({
            "event": "verdict",
            "address": addr.to_string(),
            "verdict": state.name(),
            "scope": scope.map(|scope| scope.name()),
            "reason": reason.to_string(),
        }),
        Notice::ClassChanged { class, state, reason } => json!({
            "event": "class",
            "family": class.family.name(),
            "transport": class.transport.name(),
            "reachability": state.name(),
            "reason": reason.to_string(),
        }),
        Notice::NodeChanged { state, reason } => json!({
            "event": "node",
            "reachability": state.name(),
            "reason": reason.to_string(),
        }),
        Notice::ProbeEnded { peer, addr, outcome } => json!({
            "event": "probe",
            "peer_id": peer.to_string(),
            "address": addr.to_string(),
            "outcome": outcome.name(),
        }),
        Notice::AdvertisedChanged { added, removed } => json!({
            "event": "advertised",
            "added": added.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "removed": removed.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }),
        _ => return None,
    };
    Some(document)
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_core::{NodeState, Reason};

    #[test]
    fn news_are_lines_for_people_and_documents_for_programs() {
        let notice = Notice::NodeChanged { state: NodeState::Public, reason: Reason::JustStarted };
        let text = "the node is public: just started".to_owned();
        let at = Duration::from_millis(1_250);
        let news = WatchNews::Noticed { at, notice: Some(notice), text };
        assert_eq!(line(&news).as_deref(), Some("     1.250  the node is public: just started"));
        let told = document(&news);
        assert_eq!(told["at_ms"], 1_250);
        assert_eq!((&told["event"], &told["reachability"]), (&json!("node"), &json!("public")));
        let peer = WatchNews::Peer { at, text: "cannot reach x".into() };
        assert_eq!(document(&peer)["event"], "peer");
        assert_eq!(line(&peer).as_deref(), Some("     1.250  cannot reach x"));
    }
}
