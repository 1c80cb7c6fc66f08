//! Servers that show themselves over HTTP: as a cluster to start from, and to whoever watches them.

mod support;

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};
use support::schema::assert_report;
use support::talking::{Talking, text};
use support::{BOUND, Folder, Running, code, portolan, run, stderr, stdout};

/// A server with HTTP; killed when it goes out of sight.
struct Server {
    child: Child,
    http: SocketAddr,
    addresses: Vec<String>,
    log: Receiver<String>,
}

impl Server {
    /// Start one on this IP, with everything that belongs to a cluster.
    fn start(ip: &str, http: &str, more: &[&str]) -> Server {
        let listen = [format!("/ip4/{ip}/tcp/0"), format!("/ip4/{ip}/udp/0/quic-v1")];
        let mut args = vec!["serve", "--allow-private", "--http", http];
        for listen in &listen {
            args.extend(["--listen", listen]);
        }
        args.extend(more);
        let mut child = portolan(&args)
            .env("PORTOLAN_LOG", "info")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let lines = lines_of(child.stdout.take().expect("stdout is a pipe"));
        let log = lines_of(child.stderr.take().expect("stderr is a pipe"));
        let line = || lines.recv_timeout(BOUND).expect("a line comes");
        let url = line();
        let http = url.strip_prefix("http://").and_then(|url| url.strip_suffix("/status"));
        let http = http.and_then(|addr| addr.parse().ok());
        let http = http.unwrap_or_else(|| panic!("{url:?} says where HTTP is served"));
        let addresses = vec![line(), line()];
        Server { child, http, addresses, log }
    }

    fn url(&self) -> String {
        format!("http://{}/status", self.http)
    }

    /// The document at /status.
    fn status(&self) -> Value {
        serde_json::from_str(&get(self.http, "/status").body).expect("it is JSON")
    }

    /// The figures at /metrics: by name and labels.
    fn figures(&self) -> BTreeMap<String, f64> {
        figures(&get(self.http, "/metrics").body)
    }

    /// Wait until a line of the log holds this.
    fn says(&self, words: &str) {
        let until = Instant::now() + BOUND;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.log.recv_timeout(left);
            if line.unwrap_or_else(|_| panic!("it never says {words:?}")).contains(words) {
                return;
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// What came over HTTP.
struct Got {
    status: u16,
    head: String,
    body: String,
}

/// Send a request as it is, and read to the end.
fn ask(to: SocketAddr, request: &str) -> Got {
    let mut tcp = TcpStream::connect(to).expect("it listens");
    tcp.set_read_timeout(Some(BOUND)).expect("a socket");
    tcp.write_all(request.as_bytes()).expect("it is open");
    let mut text = String::new();
    tcp.read_to_string(&mut text).expect("an answer comes");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head ends");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("{head:?} has a status"));
    Got { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

fn get(to: SocketAddr, path: &str) -> Got {
    ask(to, &format!("GET {path} HTTP/1.1\r\nHost: {to}\r\n\r\n"))
}

/// Every figure, by its name and labels, as a library for them reads it.
fn figures(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().map(|line| Ok(line.to_owned()));
    let scrape = prometheus_parse::Scrape::parse(lines).expect("Prometheus can read it");
    let mut figures = BTreeMap::new();
    for sample in scrape.samples {
        let labels: BTreeMap<&str, &str> =
            sample.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let labels: Vec<String> =
            labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let key = format!("{}{{{}}}", sample.metric, labels.join(","));
        let value = match sample.value {
            prometheus_parse::Value::Counter(value)
            | prometheus_parse::Value::Gauge(value)
            | prometheus_parse::Value::Untyped(value) => value,
            prometheus_parse::Value::Histogram(buckets) => {
                buckets.last().map_or(0.0, |bucket| bucket.count)
            }
            prometheus_parse::Value::Summary(_) => continue,
        };
        figures.insert(key, value);
    }
    figures
}

/// Wait until something holds.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + BOUND;
    while !holds() {
        assert!(Instant::now() < end, "it does not come to it that {what}");
        // sleep: a page tells nobody that it is another one now, so that it is asked again.
        thread::sleep(Duration::from_millis(50));
    }
}

/// A port that is free on an IP of this host's, for somebody who has to know it beforehand.
fn free(ip: &str) -> String {
    let listener = TcpListener::bind((ip, 0)).expect("an IP of this host");
    listener.local_addr().expect("a socket").to_string()
}

/// An HTTP server that answers the requests with these documents, and with the last one for as long as the test
/// runs.
fn offer(listener: TcpListener, documents: Vec<String>) {
    thread::spawn(move || {
        let last = documents.last().cloned().unwrap_or_default();
        let mut documents = documents.into_iter();
        for tcp in listener.incoming().map_while(Result::ok) {
            let _ = answer(tcp, &documents.next().unwrap_or_else(|| last.clone()));
        }
    });
}

fn answer(mut tcp: TcpStream, document: &str) -> std::io::Result<()> {
    let mut request = BufReader::new(tcp.try_clone()?).lines();
    while request.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    write!(tcp, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{document}", document.len())
}

fn check(runtime: &str, more: &[&str]) -> Output {
    let listen = ["/ip4/127.0.0.60/tcp/0", "/ip4/127.0.0.60/udp/0/quic-v1"];
    let mut args = vec!["check", "--allow-private", "--json", "--runtime", runtime];
    for listen in &listen {
        args.extend(["--listen", listen]);
    }
    args.extend(more);
    run(&args)
}

#[track_caller]
fn report_in(output: &Output) -> Value {
    let document = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", stdout(output), stderr(output)));
    assert_report(&document);
    document
}

#[track_caller]
fn assert_proved(output: &Output) -> Value {
    assert_eq!(code(output), 0, "{}{}", stdout(output), stderr(output));
    let report = report_in(output);
    let addresses = report["addresses"].as_array().expect("a list");
    assert!(!addresses.is_empty());
    for address in addresses {
        assert_eq!(
            (&address["verdict"], &address["scope"]),
            (&"reachable".into(), &"anywhere".into())
        );
    }
    report
}

/// Three servers that know each other by their URLs.
fn cluster() -> Vec<Server> {
    let ips = ["127.0.0.61", "127.0.0.62", "127.0.0.63"];
    let https = ips.map(free);
    let urls: Vec<String> = https.iter().map(|addr| format!("http://{addr}")).collect();
    let one = |(number, runtime): (usize, &str)| {
        let source = format!("127.1.0.6{}", number + 1);
        let mut more = vec!["--relay", "--dial-from", &source, "--runtime", runtime];
        for (_, url) in urls.iter().enumerate().filter(|(other, _)| *other != number) {
            more.extend(["--cluster", url]);
        }
        Server::start(ips[number], &https[number], &more)
    };
    let servers: Vec<Server> =
        ["tokio", "smol", "tokio"].into_iter().enumerate().map(one).collect();
    for server in &servers {
        until("everybody lists everybody", || {
            server.status()["peers"].as_array().is_some_and(|peers| peers.len() == 3)
        });
    }
    servers
}

#[test]
fn a_cluster_is_a_place_to_start_from() {
    let folder = Folder::new("cluster");
    let cache = folder.file("lists.json");
    let mut servers = cluster();
    let urls: Vec<String> = servers.iter().map(Server::url).collect();

    // Round robin; the others of the cluster may ask in between, which takes a turn.
    let mut first: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..100 {
        let status = servers[0].status();
        let addr = status["peers"][0]["addrs"][0].as_str().expect("an address").to_owned();
        let peer = addr.rsplit('/').next().expect("a peer id").to_owned();
        *first.entry(peer).or_default() += 1;
    }
    let counts: Vec<usize> = first.values().copied().collect();
    assert!(counts.len() == 3 && counts.iter().all(|count| (32..=35).contains(count)), "{first:?}");
    let status = servers[0].status();
    for peer in status["peers"].as_array().expect("a list") {
        assert!(peer["version"].as_str().is_some_and(|version| version.starts_with("portolan/")));
        assert!(peer["uptime_s"].is_u64() && peer["load"].is_u64(), "{peer}");
        assert!(peer["reachability"].is_string(), "{peer}");
    }

    // Each of them uses the others, and is used.
    for server in &servers {
        server.says("fully connected");
        until("that is a figure", || {
            server.figures().get("portolan_fully_connected{}") == Some(&1.0)
        });
    }

    let keep = ["--bootstrap-cache", cache.as_str()];
    for runtime in ["tokio", "smol"] {
        let output = check(runtime, &[&["--bootstrap", &urls[0]], keep.as_slice()].concat());
        let report = assert_proved(&output);
        assert_eq!(report["bootstrap"][0]["peers"], 3);
    }

    // One is killed, and another serves junk.
    drop(servers.remove(0));
    let junked = servers.remove(0);
    let addr = junked.http.to_string();
    drop(junked);
    let listener = TcpListener::bind(&addr).expect("the port is free again");
    offer(listener, vec!["<html>\n</html>".to_owned()]);
    let all: Vec<&str> = urls.iter().flat_map(|url| ["--bootstrap", url.as_str()]).collect();
    let report = assert_proved(&check("tokio", &[&all, keep.as_slice()].concat()));
    let of = |report: &Value, url: &String| {
        let sources = report["bootstrap"].as_array().expect("a list").clone();
        sources.into_iter().find(|source| source["url"] == url.as_str()).expect("it was asked")
    };
    let error =
        |report: &Value, url| of(report, url)["error"].as_str().unwrap_or("none").to_owned();
    assert!(error(&report, &urls[0]).contains("cannot connect"), "{report:#}");
    assert!(error(&report, &urls[1]).contains("is no bootstrap document"), "{report:#}");
    assert_eq!(error(&report, &urls[2]), "none");

    // Nobody has a list any more: the last good ones are taken, and lead nowhere now.
    drop(servers);
    let output = check("smol", &[&all, keep.as_slice()].concat());
    assert_eq!(code(&output), 12, "{}", stdout(&output));
    let last = report_in(&output);
    assert_eq!(of(&last, &urls[0])["remembered"], 3, "{last:#}");
    assert!(of(&last, &urls[1])["remembered"].is_null(), "it never had a good one");
}

#[test]
fn sessions_and_watches_start_from_lists_as_well() {
    let server = Server::start("127.0.0.75", "127.0.0.75:0", &["--dial-from", "127.1.0.75"]);
    let url = server.url();
    let lists = ["--bootstrap", url.as_str(), "--no-bootstrap-cache", "--allow-private"];
    let named = format!("the list at {url} names 1 peers");
    let delivered = || server.figures()["portolan_dial_requests_total{outcome=delivered}"];

    let args = [&["/ip4/127.0.0.76/tcp/0", "--allow-anyone"], lists.as_slice()].concat();
    let (mut listener, addresses) = Talking::listen(&args, 1);
    assert_eq!(listener.line(), named);
    until("who listens is dialled back", || delivered() >= 1.0);
    let mut connector = Talking::start(&[&["connect", &addresses[0]], lists.as_slice()].concat());
    connector.line_with(&named);
    for one in [&mut listener, &mut connector] {
        one.tell(text(7, 10_000)).join().expect("it was read");
    }
    assert!(listener.finish() == (Some(0), text(7, 10_000)));
    assert!(connector.finish() == (Some(0), text(7, 10_000)));

    let before = delivered();
    let args = [&["watch", "--listen", "/ip4/127.0.0.77/tcp/0"], lists.as_slice()].concat();
    let child = portolan(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let watch = Running::new(child.expect("the program starts"));
    let mut lines: Vec<String> = Vec::new();
    while !lines.last().is_some_and(|line| line.contains("the node is public")) {
        lines.push(watch.line());
    }
    assert!(lines.iter().any(|line| line.ends_with(&named)), "{lines:#?}");
    until("that is a figure", || delivered() > before);
}

#[test]
fn a_watch_reads_its_list_again_where_it_led_to_nobody_and_keeps_whom_it_found() {
    let mut server = Server::start("127.0.0.78", "127.0.0.78:0", &["--dial-from", "127.1.0.78"]);
    let good = server.addresses[0].clone();
    let (_, peer) = good.split_once("/p2p/").expect("it ends with a peer id");
    let nobody = format!("/ip4/127.0.0.79/tcp/{}/p2p/{peer}", server.http.port());
    let naming = |addr: &String| {
        json!({ "format": "portolan-bootstrap/1", "peers": [{ "addrs": [addr] }] }).to_string()
    };
    let listener = TcpListener::bind("127.0.0.78:0").expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("it is bound"));
    offer(listener, vec![naming(&nobody), naming(&good)]);
    let args = ["watch", "--allow-private", "--no-bootstrap-cache", "--bootstrap", &url];
    let child = portolan(&[&args[..], &["--listen", "/ip4/127.0.0.80/tcp/0"]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let watch = Running::new(child.expect("the program starts"));
    let until_said = |words: &str| while !watch.line().contains(words) {};
    until_said(&format!("cannot reach {nobody}: "));
    until_said(&format!("connected to {good} "));
    until_said("the node is public");
    // Whom a list named is dialled again where the connection is lost.
    server.child.kill().expect("it runs");
    until_said(&format!("cannot reach {good}: "));
}

#[test]
fn figures_are_those_of_what_was_done() {
    let server =
        Server::start("127.0.0.71", "127.0.0.71:0", &["--relay", "--dial-from", "127.1.0.71"]);
    let before = server.figures();
    assert_eq!(before["portolan_dial_requests_total{outcome=delivered}"], 0.0);
    assert_eq!(before["portolan_reservations{}"], 0.0);

    let peers: Vec<&str> =
        server.addresses.iter().flat_map(|addr| ["--peer", addr.as_str()]).collect();
    let report = assert_proved(&check("tokio", &[&peers, ["--no-relay"].as_slice()].concat()));
    let outcomes = &report["servers"][0]["outcomes"];
    let count = |outcome: &str| outcomes[outcome].as_u64().expect("a number") as f64;
    let figure = |name: &str| server.figures().get(name).copied().unwrap_or(-1.0);
    until("what was proved was delivered", || {
        figure("portolan_dial_requests_total{outcome=delivered}") == count("proved")
    });
    // Whoever leaves may leave in the middle of another one.
    until("none is under way", || figure("portolan_dial_backs_in_flight{}") == 0.0);
    let served: f64 = server
        .figures()
        .iter()
        .filter(|(name, _)| name.starts_with("portolan_dial_requests_total"))
        .map(|(_, value)| value)
        .sum();
    assert_eq!(figure("portolan_dial_request_answer_seconds{}"), served);
}

#[test]
fn figures_of_relays_are_those_of_what_was_relayed() {
    let server = Server::start("127.0.0.74", "127.0.0.74:0", &["--relay"]);
    let figure = |name: &str| server.figures().get(name).copied().unwrap_or(-1.0);
    assert_eq!(figure("portolan_reservations{}"), 0.0);

    // Another server holds a reservation, and is met through it.
    let relay = server.addresses[0].as_str();
    let other = Server::start("127.0.0.72", "127.0.0.72:0", &["--reserve-at", relay]);
    until("there is a reservation", || figure("portolan_reservations{}") == 1.0);
    assert_eq!(figure("portolan_reservations_granted_total{kind=new}"), 1.0);
    let peer = other.addresses[0].rsplit('/').next().expect("a peer id");
    let through = format!("{relay}/p2p-circuit/p2p/{peer}");
    // It does not listen for sessions, and says so over the circuit.
    let output = run(&["connect", &through]);
    assert!(stderr(&output).contains("does not speak"), "{}", stderr(&output));
    until("the circuit has ended", || {
        figure("portolan_circuits{}") == 0.0
            && figure("portolan_circuit_bytes_total{direction=forth}") > 0.0
            && figure("portolan_circuit_bytes_total{direction=back}") > 0.0
    });
    // As many as the log tells of: who connects may come twice.
    let opened = server.log.try_iter().filter(|line| line.contains("circuit opened")).count();
    assert!(opened > 0);
    assert_eq!(figure("portolan_circuits_opened_total{}"), opened as f64);

    // What is refused is told with its reason.
    let nobody = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    let output = run(&["connect", &format!("{relay}/p2p-circuit/p2p/{nobody}")]);
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    until("the refusal is counted", || {
        figure("portolan_refusals_total{reason=the target has no reservation,service=circuit}")
            == 1.0
    });
}

#[test]
fn only_what_is_asked_for_in_the_right_way_is_answered() {
    let server = Server::start("127.0.0.73", "0", &["--http-name", "boot.example"]);
    let to = server.http;
    assert!(to.ip().is_loopback(), "a port alone is for this host");
    let with = |method: &str, path: &str, host: &str| {
        ask(to, &format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"))
    };
    let health = get(to, "/healthz");
    assert_eq!((health.status, health.body.as_str()), (200, "ok\n"));
    assert_eq!(with("GET", "/status", "Boot.Example:80").status, 200);
    for host in ["evil.example", "127.0.0.1.evil.example", "user@127.0.0.1"] {
        assert_eq!(with("GET", "/status", host).status, 421, "{host}");
    }
    assert_eq!(ask(to, "GET /status HTTP/1.1\r\n\r\n").status, 400);
    let head = with("HEAD", "/status", "127.0.0.1");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let refused = with("POST", "/status", "127.0.0.1");
    assert!(refused.status == 405 && refused.head.contains("allow: get, head"), "{}", refused.head);
    assert_eq!(get(to, "/other").status, 404);
    let status = get(to, "/status");
    for header in ["cache-control: no-store", "nosniff", "default-src 'none'", "application/json"] {
        assert!(status.head.contains(header), "{}", status.head);
    }
    assert!(!status.head.contains("access-control"), "{}", status.head);
    let long = format!("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    assert_eq!(ask(to, &long).status, 431);

    // Many that say nothing keep nobody else out for ever, and no more than so many stay.
    let silent: Vec<TcpStream> =
        (0..80).map(|_| TcpStream::connect(to).expect("it listens")).collect();
    drop(silent);
    until("it answers again", || {
        let tcp = TcpStream::connect(to);
        let asked = tcp.and_then(|mut tcp| {
            tcp.write_all(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")?;
            let mut text = String::new();
            tcp.read_to_string(&mut text)?;
            Ok(text)
        });
        asked.is_ok_and(|text| text.starts_with("HTTP/1.1 200"))
    });
}

#[test]
fn a_port_in_use_is_one_line_that_says_what_to_do() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = taken.local_addr().expect("a socket").port().to_string();
    let output = run(&["serve", "--listen", "/ip4/127.0.0.1/tcp/0", "--http", &port]);
    assert_eq!(code(&output), 1);
    let said = stderr(&output);
    assert!(
        said.contains(&port) && said.contains("in use") && said.contains("another port"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    let listen = ["serve", "--listen", "/ip4/127.0.0.1/tcp/0"];
    for (more, value) in [
        (["--http", "localhost:80"].as_slice(), "localhost:80"),
        (&["--http", "0", "--cluster", "ftp://example.org"], "ftp://example.org"),
        (&["--cluster", "https://example.org"], "--http"),
    ] {
        let output = run(&[&listen, more].concat());
        assert!(code(&output) == 2 && stderr(&output).contains(value), "{}", stderr(&output));
    }
}

#[test]
fn a_list_over_plain_http_from_elsewhere_is_not_taken() {
    let args = ["check", "--bootstrap", "http://192.0.2.1/", "--no-bootstrap-cache", "--json"];
    let output = run(&[&args, ["--timeout", "20", "--no-map"].as_slice()].concat());
    let report = report_in(&output);
    let error = report["bootstrap"][0]["error"].as_str().expect("it failed");
    assert!(error.contains("not https"), "{error}");
    let output = run(&["check", "--bootstrap", "example.org"]);
    assert!(code(&output) == 2 && stderr(&output).contains("example.org"), "{}", stderr(&output));
}
