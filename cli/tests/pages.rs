//! The pages of `serve --http` and `watch --http`, in a real browser: they are live, they say what goes on,
//! they look as they should in every light and width, and nothing that a peer says is taken for markup.

mod support;

use portolan_core::{Config, DialBackConfig, State};
use portolan_runtime::{Node, Notices, identity};
use portolan_tokio::Tokio;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use support::browser::{Browser, LOOKS};
use support::{BOUND, Running, code, portolan, run, stderr};

/// What would do something if it were markup.
const HOSTILE_AGENT: &str =
    "</td></table><script>alert(1)</script><img src=x onerror=alert(2)><b>bold</b>";

/// What a server needs to prove addresses of this host.
const SERVE: [&str; 7] = [
    "--allow-private",
    "--listen",
    "/ip4/127.0.0.1/tcp/0",
    "--dial-from",
    "127.1.0.1",
    "--http",
    "127.0.0.1:0",
];

/// A server with its page and its address.
fn serve() -> (Running, String, String) {
    let (server, lines) = Running::serve(&SERVE, 2);
    let page = lines[0].strip_suffix("status").expect("where HTTP is served").to_owned();
    (server, page, lines[1].clone())
}

fn socket(page: &str) -> SocketAddr {
    let addr = page.trim_start_matches("http://").trim_end_matches('/');
    addr.parse().expect("an address")
}

/// Nothing of what is shown is anything but text, and nothing was asked of others.
#[track_caller]
fn assert_harmless(browser: &mut Browser, page: &str) {
    assert_eq!(browser.count("main img, main script, main b, main a, main iframe"), 0);
    let (complaints, requests) = browser.heard();
    assert_eq!(complaints, Vec::<String>::new());
    let ours = |url: &String| url.starts_with(page) || url.starts_with("data:");
    assert!(!requests.is_empty() && requests.iter().all(ours), "{requests:?}");
}

/// The page fits every width, and is light or dark as it is wanted.
#[track_caller]
fn assert_looks(browser: &mut Browser, page: &str, name: &str, text: &str) {
    let mut grounds = Vec::new();
    for look in LOOKS {
        browser.open(page, look);
        browser.wait("#state", text);
        let found = browser.measure();
        assert_eq!(found["overflow"], 0, "{look:?}");
        let ground = found["background"].as_str().expect("a colour");
        let sum: u32 =
            ground.split(|one: char| !one.is_ascii_digit()).flat_map(str::parse::<u32>).sum();
        assert_eq!(sum < 3 * 128, look.dark, "{look:?}: {ground}");
        grounds.push(ground.to_owned());
        browser.shoot(name, look);
    }
    assert_eq!((&grounds[0], &grounds[1]), (&grounds[2], &grounds[3]));
}

/// A client with a hostile name that has itself dialled back until its address is proved; it stays.
async fn ask_with_hostile_name(server: &str) -> Node<Tokio> {
    let (node, mut notices) = hostile(None).await;
    node.dial(server.parse().expect("a multiaddr")).await.expect("the server is there");
    let proved = async {
        loop {
            let explanation = node.explain().await.expect("it runs");
            if explanation.addresses.iter().any(|one| one.state == State::Reachable) {
                return;
            }
            futures::StreamExt::next(&mut notices).await.expect("it runs");
        }
    };
    tokio::time::timeout(BOUND, proved).await.expect("it is proved in time");
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_server_is_live_and_takes_nothing_for_markup() {
    let Some(mut browser) = Browser::start() else { return };
    let (_server, page, address) = serve();
    browser.open(&page, LOOKS[0]);
    browser.wait("#line", "live");
    browser.wait("#state", "Serving");
    browser.wait("#section-asked .empty", "Nobody has asked yet.");
    let peer = address.rsplit('/').next().expect("a peer id");
    assert_eq!(browser.read("#peer"), [peer]);

    // The page is not loaded again: what happens comes by itself, and is shown as it was said.
    let client = ask_with_hostile_name(&address).await;
    browser.wait("#section-asked tbody tr", HOSTILE_AGENT);
    browser.wait("#section-asked tbody tr .badge", "delivered");
    browser.wait("#section-times tbody tr", "up to 50 ms");
    let figures = browser.read("#figures > div");
    assert!(figures.iter().any(|figure| figure == "addresses proved1"), "{figures:?}");
    assert_harmless(&mut browser, &page);
    assert_looks(&mut browser, &page, "serve", "Serving");
    client.shutdown().await;
}

/// A node with a hostile name, that may be asked to dial back, in a network of its own.
async fn hostile(dial_back: Option<DialBackConfig>) -> (Node<Tokio>, Notices) {
    let mut config = Config::default();
    config.allow_private = true;
    config.agent_version = HOSTILE_AGENT.into();
    config.dial_back = dial_back;
    let runtime = Tokio::new(tokio::runtime::Handle::current());
    let builder = Node::<Tokio>::builder(runtime, identity::generate()).config(config);
    let builder = builder.listen("/ip4/127.9.0.1/tcp/0".parse().expect("a multiaddr"));
    let notices = builder.notices();
    (builder.start().await.expect("a free port"), notices)
}

// The browser is waited for in a thread of its own.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_watch_is_live_and_takes_nothing_for_markup() {
    let Some(mut browser) = Browser::start() else { return };
    let (server, _, address) = serve();
    let (other, _) = hostile(Some(DialBackConfig::default())).await;
    let others = other.listeners().await[0].to_string();
    let args = [
        "watch",
        "--allow-private",
        "--listen",
        "/ip4/127.0.0.1/tcp/0",
        "--peer",
        &address,
        "--peer",
        &others,
        "--http",
        "127.0.0.1:0",
    ];
    let child = portolan(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let watch = Running::new(child.expect("the program starts"));
    let first = watch.line();
    let page = first.rsplit(' ').next().expect("a word").to_owned();
    assert!(page.starts_with("http://127.0.0.1:"), "{first}");

    browser.open(&page, LOOKS[0]);
    browser.wait("#state", "Public: anybody can dial this node.");
    browser.wait("#section-addresses tbody tr", "/ip4/127.0.0.1/tcp/");
    browser.wait("#section-addresses tbody tr .badge", "reachable");
    browser.wait("#section-addresses tbody tr td:nth-child(6)", "probed in");
    browser.wait("#section-servers tbody tr", "proved");
    browser.wait("#section-servers tbody tr", HOSTILE_AGENT);
    assert_harmless(&mut browser, &page);
    assert_looks(&mut browser, &page, "watch", "Public");

    // Nobody is left to ask, and then nobody is left at all.
    drop(server);
    other.shutdown().await;
    browser.wait("#figures > div", "servers in reach0");
    browser.wait("#section-addresses tbody tr td:nth-child(6)", "when a server can be asked");
    let pid = watch.pid().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill is there").success());
    let output = watch.finish();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    browser.wait("#line", "not connected");
}

/// Ask for the events, and wait for the head of the answer.
fn follow(addr: SocketAddr) -> (TcpStream, String) {
    let mut tcp = TcpStream::connect(addr).expect("it listens");
    tcp.set_read_timeout(Some(BOUND)).expect("a socket");
    let request = format!("GET /events HTTP/1.1\r\nHost: {addr}\r\n\r\n");
    tcp.write_all(request.as_bytes()).expect("it is open");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tcp.read_exact(&mut byte).expect("an answer comes");
        head.extend(byte);
    }
    (tcp, String::from_utf8(head).expect("text").to_ascii_lowercase())
}

#[test]
fn so_many_follow_a_page_and_no_more() {
    let (_server, page, _) = serve();
    let addr = socket(&page);
    let mut all: Vec<TcpStream> = Vec::new();
    for _ in 0..16 {
        let (tcp, head) = follow(addr);
        assert!(head.starts_with("http/1.1 200") && head.contains("text/event-stream"), "{head}");
        all.push(tcp);
    }
    let (_, head) = follow(addr);
    assert!(head.starts_with("http/1.1 503") && head.contains("retry-after: 5"), "{head}");
    // One leaves: its place is free as soon as somebody notices, which is with the next event.
    all.pop();
    let end = std::time::Instant::now() + BOUND;
    while follow(addr).1.starts_with("http/1.1 503") {
        assert!(std::time::Instant::now() < end, "its place is never free");
        // sleep: between two tries, within a bound.
        thread::sleep(std::time::Duration::from_millis(50));
    }
    // Whatever else it does is none of theirs.
    let mut tcp = TcpStream::connect(addr).expect("it listens");
    let request = format!("GET / HTTP/1.1\r\nHost: {addr}\r\n\r\n");
    tcp.write_all(request.as_bytes()).expect("it is open");
    let mut text = String::new();
    tcp.read_to_string(&mut text).expect("an answer comes");
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("<title>"), "{text}");
}

#[test]
fn a_watch_says_that_its_port_is_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = taken.local_addr().expect("a socket").to_string();
    let peer = "/ip4/127.0.0.1/tcp/1";
    let output = run(&["watch", "--peer", peer, "--http", &addr]);
    let said = stderr(&output);
    assert_eq!(code(&output), 1, "{said}");
    assert!(said.contains(&addr) && said.contains("another port"), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
}
