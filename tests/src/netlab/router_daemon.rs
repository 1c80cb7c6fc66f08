//! miniupnpd: what home routers answer NAT-PMP, PCP and UPnP with, run on a router of the lab.
//!
//! It keeps its mappings as rules in chains that must be there before it starts; they outlive it.

use super::namespace::{Namespace, succeed};
use super::rules::Layer;
use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

/// The programs, each with its package.
const TOOLS: [(&str, &str); 3] =
    [("miniupnpd", "miniupnpd"), ("upnpc", "miniupnpc"), ("natpmpc", "natpmpc")];
/// What it says when it serves all its protocols.
const SERVES: &str = "Listening for NAT-PMP/PCP traffic";
/// How long it may take to say so, ours: a hundred times what it takes.
const STARTS_WITHIN: Duration = Duration::from_secs(10);
/// How it says that it is asked for a port by NAT-PMP.
const REQUEST: &str = "NAT-PMP port mapping request : ";
/// Lines of what it said that are told when it does not start, number.
const SAID_MAX: usize = 20;
/// Its chains, empty; what it opens of IPv6 leads through a stateful firewall (RFC 6092).
const TABLE: &str = "table inet miniupnpd {
chain miniupnpd {}
chain prerouting_miniupnpd {}
chain postrouting_miniupnpd {}
chain forward {
type filter hook forward priority filter; jump miniupnpd;
meta nfproto ipv4 accept; ct state established,related accept; iifname lan accept;
meta l4proto icmpv6 accept; drop;
}
chain prerouting { type nat hook prerouting priority dstnat; jump prerouting_miniupnpd; }
chain postrouting { type nat hook postrouting priority srcnat; jump postrouting_miniupnpd; }
}
";
/// One switch serves NAT-PMP and PCP. The uptime is its own: that of the machine never begins anew.
const CONFIG: &str = "ext_ifname=wan
listening_ip=lan
http_port=0
enable_natpmp=yes
enable_upnp=yes
secure_mode=yes
system_uptime=no
upnp_table_name=miniupnpd
upnp_nat_table_name=miniupnpd
upnp_forward_chain=miniupnpd
upnp_nat_chain=prerouting_miniupnpd
upnp_nat_postrouting_chain=postrouting_miniupnpd
uuid=0f0e0d0c-0b0a-4908-8706-050403020100
allow 1024-65535 192.168.1.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
";

/// Why it cannot be run here, in words.
///
/// # Errors
/// If a program is missing.
pub fn available() -> Result<(), String> {
    let runs = |tool: &str| {
        let command = Command::new(tool).arg("-h").stdin(Stdio::null()).output();
        command.map_or_else(|error| error.kind() != io::ErrorKind::NotFound, |_| true)
    };
    let missing: Vec<&str> =
        TOOLS.into_iter().filter(|(tool, _)| !runs(tool)).map(|(_, package)| package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(", ");
    Err(format!("not installed: {missing}; tests/install-lab.sh installs them"))
}

/// A folder that vanishes with its owner.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// An empty one.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new() -> io::Result<Folder> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("portolan-lab-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path)?;
        Ok(Folder(path))
    }

    /// A file in it, as an argument of a program.
    pub fn file(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The daemon, running. Dropping it is as kill -9: its rules stay.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    requests: Arc<Mutex<Vec<String>>>,
    _folder: Folder,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    /// Start it on a router whose interfaces are called `wan` and `lan`, with an empty table, and
    /// wait until it serves.
    ///
    /// # Errors
    /// If it does not; what it said is in the error.
    pub fn start(router: &Namespace) -> io::Result<Daemon> {
        // A table that is there is deleted, one that is not is no error.
        router.nft(&format!("table inet miniupnpd\ndelete table inet miniupnpd\n{TABLE}"))?;
        let folder = Folder::new()?;
        let config = folder.file("conf");
        fs::write(&config, CONFIG)?;
        let mut command = Command::new("miniupnpd");
        command.args(["-d", "-f", &config, "-P", &folder.file("pid")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = router.inside(|| command.spawn())?;
        let requests = Arc::default();
        let mut daemon = Daemon { child, requests, _folder: folder };
        let stderr = daemon.child.stderr.take();
        let stderr = stderr.ok_or_else(|| io::Error::other("stderr is a pipe"))?;
        let (sender, lines) = mpsc::channel();
        let requests = daemon.requests.clone();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.contains(REQUEST) {
                    requests.lock().unwrap_or_else(PoisonError::into_inner).push(line.clone());
                }
                // What is said later is read all the same, so that it never waits to be heard.
                let _ = sender.send(line);
            }
        });
        let mut said = VecDeque::new();
        while let Ok(line) = lines.recv_timeout(STARTS_WITHIN) {
            if line.contains(SERVES) {
                return Ok(daemon);
            }
            said.push_back(line);
            if said.len() > SAID_MAX {
                said.pop_front();
            }
        }
        let said: Vec<String> = said.into();
        Err(io::Error::other(format!("miniupnpd does not serve: {}", said.join("\n"))))
    }

    /// Its lines about requests for ports by NAT-PMP, so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A port that a router forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Forward {
    /// Of which protocol.
    pub layer: Layer,
    /// The external port.
    pub port: u16,
    /// Where it leads.
    pub to: SocketAddrV4,
}

/// What the daemon of a router forwards, as the kernel has it, in order.
///
/// # Errors
/// If there are no chains of the daemon's, or a rule in them is not understood.
pub fn forwards(router: &Namespace) -> io::Result<Vec<Forward>> {
    let text = chain(router, "prerouting_miniupnpd")?;
    let rules = text.lines().filter(|line| line.contains(" dnat "));
    let understood = |line: &str| {
        forward(line).ok_or_else(|| io::Error::other(format!("what is this rule: {line}")))
    };
    let mut all = rules.map(understood).collect::<io::Result<Vec<_>>>()?;
    all.sort_unstable();
    Ok(all)
}

/// How many pinholes of IPv6 the daemon of a router has opened, as the kernel has it.
///
/// # Errors
/// If there are no chains of the daemon's.
pub fn pinholes(router: &Namespace) -> io::Result<usize> {
    // What is compared lies where IPv6 has the destination.
    let text = chain(router, "miniupnpd")?;
    Ok(text.lines().filter(|line| line.contains("@nh,192,128") && line.contains("accept")).count())
}

fn chain(router: &Namespace, name: &str) -> io::Result<String> {
    let list = ["list", "chain", "inet", "miniupnpd", name];
    let text = router.inside(|| succeed(Command::new("nft").args(list)))?;
    Ok(String::from_utf8_lossy(&text.stdout).into_owned())
}

/// `iif "wan" @nh,72,8 0x6 th dport 4001 dnat ip to 192.168.1.7:4001`, where the number after the
/// raw bytes of the header is the protocol's.
fn forward(line: &str) -> Option<Forward> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let after = |word: &str| {
        let at = words.iter().position(|one| *one == word)?;
        words.get(at + 1).copied()
    };
    let layer = match after("@nh,72,8")? {
        "0x6" | "6" => Layer::Tcp,
        "0x11" | "17" => Layer::Udp,
        _ => return None,
    };
    Some(Forward { layer, port: after("dport")?.parse().ok()?, to: after("to")?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_the_daemon_are_read() {
        let rule = "iif \"wan\" @nh,72,8 0x11 th dport 4002 dnat ip to 192.168.1.7:4001";
        let to = "192.168.1.7:4001".parse().expect("an address");
        assert_eq!(forward(rule), Some(Forward { layer: Layer::Udp, port: 4_002, to }));
        assert_eq!(forward(&rule.replace("0x11", "0x84")), None);
    }
}
