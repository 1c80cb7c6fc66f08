//! A js-libp2p peer out of the published packages: a process that speaks JSON lines (see
//! `tests/interop/js/peer.mjs`).

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Mutex, watch};

/// Starting Node and loading js-libp2p takes about a second of one core.
const START_WITHIN: Duration = Duration::from_secs(30);

/// The folder of the scripts.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/js")
}

/// The version of an npm package that is installed, or a question mark.
pub fn version(package: &str) -> String {
    let path = folder().join("node_modules").join(package).join("package.json");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let read: Value = serde_json::from_str(&text).unwrap_or_default();
    read["version"].as_str().unwrap_or("?").to_owned()
}

/// Whether js-libp2p and the Node that it needs are installed.
///
/// # Errors
/// If not: what to do about it.
pub fn installed() -> Result<(), String> {
    let missing = ["node_modules/.bin/node", "node_modules/libp2p/package.json"]
        .into_iter()
        .find(|path| !folder().join(path).exists());
    match missing {
        None => Ok(()),
        Some(path) => Err(format!(
            "no js-libp2p: tests/interop/js/{path} is missing; install it with tests/install-lab.sh"
        )),
    }
}

/// A running js-libp2p peer. Dropping it kills the process.
#[derive(Debug)]
pub struct JsPeer {
    /// Its peer id.
    pub id: PeerId,
    /// What it listens on, with `/p2p/`.
    pub full_addrs: Vec<Multiaddr>,
    log: watch::Receiver<Vec<Value>>,
    forgotten: usize,
    stdin: Mutex<ChildStdin>,
    task: tokio::task::JoinHandle<()>,
    _process: Child,
}

impl JsPeer {
    /// Start a peer with the options of `peer.mjs`, and wait until it listens.
    ///
    /// # Errors
    /// Those of js-libp2p.
    ///
    /// # Panics
    /// If it is not installed.
    pub async fn start(options: &Value) -> Result<JsPeer, String> {
        let folder = folder();
        let mut process = Command::new(folder.join("node_modules/.bin/node"))
            .arg("peer.mjs")
            .arg(options.to_string())
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Node is installed: the caller has checked");
        let stdin = process.stdin.take().expect("it is piped");
        let stdout = process.stdout.take().expect("it is piped");
        let (writer, log) = watch::channel(Vec::new());
        let task = tokio::spawn(read(stdout, writer));
        let mut peer = JsPeer {
            id: PeerId::random(),
            full_addrs: Vec::new(),
            log,
            forgotten: 0,
            stdin: Mutex::new(stdin),
            task,
            _process: process,
        };
        let first = |event: &Value| event["event"] == "ready" || event["event"] == "failed";
        let ready = peer.wait("start", START_WITHIN, first).await?;
        if let Some(error) = ready["error"].as_str() {
            return Err(format!("it does not start: {error}"));
        }
        peer.id = ready["peer"].as_str().and_then(|id| id.parse().ok()).expect("a peer id");
        peer.full_addrs = strings(&ready["addrs"])
            .iter()
            .map(|addr| addr.parse().expect("js-libp2p writes multiaddrs"))
            .collect();
        Ok(peer)
    }

    /// Dial an address, and wait until the connection stands.
    ///
    /// # Errors
    /// If it fails, with what js-libp2p says.
    pub async fn dial(&self, id: u64, addr: &Multiaddr) -> Result<(), String> {
        self.begin_dial(id, addr).await;
        self.done("dialled", id).await
    }

    /// Dial an address; the answer is an event `dialled` or `failed`.
    pub async fn begin_dial(&self, id: u64, addr: &Multiaddr) {
        self.order(&json!({ "do": "dial", "id": id, "addr": addr.to_string() })).await;
    }

    /// Ping a peer that it is connected to.
    ///
    /// # Errors
    /// If it fails, with what js-libp2p says.
    pub async fn ping(&self, id: u64, peer: PeerId) -> Result<(), String> {
        self.order(&json!({ "do": "ping", "id": id, "peer": peer.to_string() })).await;
        self.done("pinged", id).await
    }

    /// Reserve at the relay at this address, which ends with `/p2p/`. The event that says so.
    ///
    /// # Errors
    /// If it fails, with what js-libp2p says.
    pub async fn reserve(&self, id: u64, relay: &Multiaddr) -> Result<Value, String> {
        self.order(&json!({ "do": "reserve", "id": id, "addr": relay.to_string() })).await;
        self.ended("reserved", id).await
    }

    /// Have a peer that it is connected to echo so many bytes.
    ///
    /// # Errors
    /// If they do not come back as they were sent, with what js-libp2p says.
    pub async fn echo(&self, id: u64, peer: PeerId, bytes: usize) -> Result<(), String> {
        let peer = peer.to_string();
        self.order(&json!({ "do": "echo", "id": id, "peer": peer, "bytes": bytes })).await;
        self.done("echoed", id).await
    }

    /// Who holds a reservation at it.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn reservations(&self, id: u64) -> Result<Vec<PeerId>, String> {
        self.order(&json!({ "do": "reservations", "id": id })).await;
        let answer = self.ended("reservations", id).await?;
        Ok(strings(&answer["peers"]).into_iter().filter_map(|id| id.parse().ok()).collect())
    }

    /// Give a command of `peer.mjs`; what comes of it is an event.
    pub async fn order(&self, order: &Value) {
        let line = format!("{order}\n");
        self.stdin.lock().await.write_all(line.as_bytes()).await.expect("the process listens");
    }

    async fn done(&self, event: &str, id: u64) -> Result<(), String> {
        self.ended(event, id).await.map(drop)
    }

    async fn ended(&self, event: &str, id: u64) -> Result<Value, String> {
        // js-libp2p's own limit for a command is 10 s.
        let ended = self
            .wait(event, Duration::from_secs(12), |seen| {
                seen["id"] == id && (seen["event"] == event || seen["event"] == "failed")
            })
            .await?;
        match ended["event"].as_str() {
            Some("failed") => Err(format!("js-libp2p: {}", ended["error"])),
            _ => Ok(ended),
        }
    }

    /// Forget what was seen so far: waits begin here.
    pub fn forget(&mut self) {
        self.forgotten = self.log.borrow().len();
    }

    /// The next event, which is forgotten with it. None comes after the process has ended.
    pub async fn next(&mut self) -> Option<Value> {
        let at = self.forgotten;
        let next = self.log.wait_for(|events| events.len() > at).await.ok()?.get(at).cloned();
        self.forgotten += 1;
        next
    }

    /// Every event so far that `pick` wants, oldest first.
    pub fn seen(&self, pick: impl Fn(&Value) -> bool) -> Vec<Value> {
        let events = self.log.borrow();
        events.iter().skip(self.forgotten).filter(|event| pick(event)).cloned().collect()
    }

    /// Wait for an event, from the first on. The error names `what` and shows all events.
    ///
    /// # Errors
    /// If it does not come in time.
    pub async fn wait(
        &self,
        what: &str,
        within: Duration,
        pick: impl Fn(&Value) -> bool,
    ) -> Result<Value, String> {
        let mut log = self.log.clone();
        let search = log.wait_for(|events| events.iter().skip(self.forgotten).any(&pick));
        let found = match tokio::time::timeout(within, search).await {
            Ok(Ok(events)) => events.iter().skip(self.forgotten).find(|event| pick(event)).cloned(),
            Ok(Err(_)) | Err(_) => None,
        };
        found.ok_or_else(|| {
            let events =
                self.log.borrow().iter().map(|event| format!("\n  {event}")).collect::<String>();
            format!("js-libp2p: no {what} within {within:?}, only{events}")
        })
    }
}

impl Drop for JsPeer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(stdout: ChildStdout, log: watch::Sender<Vec<Value>>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // A line that is not of the script is kept for whoever reads an error.
        let event = serde_json::from_str(&line)
            .unwrap_or_else(|_| json!({ "event": "other", "line": line }));
        log.send_modify(|log| log.push(event));
    }
}

/// The strings of a JSON array.
pub fn strings(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}
