//! `portolan watch` from end to end: what it tells, what it runs, and what it knows at the next start;
//! and what the program says to files that will not do.

mod support;

use serde_json::Value;
use std::fs;
use std::process::{Command, Stdio};
use support::schema::assert_report;
use support::{BOUND, Folder, Running, code, portolan, run, stderr, stdout};

/// What servers listen on, and what they dial back from.
const SERVE: [&str; 5] =
    ["--allow-private", "--listen", "/ip4/127.0.0.1/tcp/0", "--dial-from", "127.1.0.1"];

fn watch(args: &[&str]) -> Running {
    let child = portolan(&["watch", "--allow-private"])
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    Running::new(child)
}

/// Ask a program to end, as Ctrl-C does, and see that it ends well.
#[track_caller]
fn stop(running: Running) -> String {
    let pid = running.pid().to_string();
    let asked = Command::new("kill").args(["-INT", &pid]).status().expect("kill is there");
    assert!(asked.success());
    let output = running.finish();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    stdout(&output).to_owned()
}

/// Every document up to one of which this holds, with that one.
#[track_caller]
fn until(running: &Running, holds: impl Fn(&Value) -> bool) -> Vec<Value> {
    let begun = std::time::Instant::now();
    let mut all = Vec::new();
    while begun.elapsed() < BOUND {
        let line = running.line();
        let document: Value = serde_json::from_str(&line).expect("a document a line");
        let found = holds(&document);
        all.push(document);
        if found {
            return all;
        }
    }
    panic!("it does not come: {all:?}");
}

fn is_probe(news: &Value) -> bool {
    news["event"] == "probe"
}

/// How the first probe ended, and when the first address was proved, up to then.
fn first_probe(all: &[Value]) -> (&str, Option<u64>) {
    let outcome = all.last().and_then(|news| news["outcome"].as_str()).expect("an outcome");
    let is_proved = |news: &&Value| news["event"] == "verdict" && news["verdict"] == "reachable";
    (outcome, all.iter().find(is_proved).and_then(|news| news["at_ms"].as_u64()))
}

#[test]
fn a_known_network_has_its_first_verdict_after_one_probe() {
    let folder = Folder::new("watch-again");
    // Who serves comes last, behind peers that nobody answers at.
    let (server, addresses) = Running::serve(&SERVE, 1);
    let silent: Vec<std::net::TcpListener> =
        (0..3).map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    let mut args = vec!["--json".to_owned(), "--state".to_owned(), folder.file("state")];
    args.extend(["--listen".to_owned(), "/ip4/127.0.0.1/tcp/0".to_owned()]);
    for socket in &silent {
        let port = socket.local_addr().expect("it is bound").port();
        args.extend(["--peer".to_owned(), format!("/ip4/127.0.0.1/tcp/{port}")]);
    }
    args.extend(["--peer".to_owned(), addresses[0].clone()]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let cold_run = watch(&args);
    let cold_news = until(&cold_run, is_probe);
    stop(cold_run);
    // At the next start nobody has to be named.
    let warm_run =
        watch(&["--json", "--state", &folder.file("state"), "--listen", "/ip4/127.0.0.1/tcp/0"]);
    let warm_news = until(&warm_run, is_probe);
    let (cold, warm) = (first_probe(&cold_news), first_probe(&warm_news));
    println!("the first probe: {cold:?} ms at a cold start, {warm:?} ms in a known network");
    assert!(matches!(warm, ("proved", Some(_))), "{warm_news:?}");
    let connected = |news: &&Value| news["text"].as_str().unwrap_or("").starts_with("connected to");
    let dialled: Vec<&Value> = warm_news.iter().filter(connected).collect();
    assert!(dialled.len() == 1 && dialled[0].to_string().contains(&addresses[0]), "{dialled:?}");
    stop(warm_run);
    drop(server);
}

#[test]
fn a_change_is_told_in_lines_documents_and_to_a_program() {
    let folder = Folder::new("watch-hook");
    let (_server, addresses) = Running::serve(&SERVE, 1);
    let told = folder.file("told");
    let hook = format!(
        "sh -c '(cat; echo; echo \"$PORTOLAN_STATE $PORTOLAN_ADDRESSES\") > {told}.new; mv {told}.new {told}'"
    );
    let listen = ["--listen", "/ip4/127.0.0.1/tcp/0", "--peer", &addresses[0]];
    let json = watch(&[&listen[..], &["--json", "--on-change", &hook]].concat());
    let news = until(&json, |news| {
        news["event"] == "stands" && news["report"]["addresses"][0]["verdict"] == "reachable"
    });
    let report = &news.last().expect("it came")["report"];
    assert_report(report);
    let address = report["addresses"][0]["address"].as_str().expect("an address").to_owned();
    let begun = std::time::Instant::now();
    loop {
        let text = fs::read_to_string(&told).unwrap_or_default();
        if let Some((document, said)) = text.split_once('\n')
            && said.trim_end().ends_with(&address)
        {
            let document: Value = serde_json::from_str(document).expect("the report");
            assert_report(&document);
            assert_eq!(said.split(' ').next(), document["reachability"].as_str());
            break;
        }
        assert!(begun.elapsed() < BOUND, "the program was not told: {text}");
        // sleep: between two looks, within a bound.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    stop(json);
    let lines = watch(&listen);
    let begun = std::time::Instant::now();
    while !lines.line().contains("is reachable (") {
        assert!(begun.elapsed() < BOUND, "no line tells of it");
    }
    stop(lines);
}

/// Run, and demand this exit code and one line that says all of this.
#[track_caller]
fn refused_in_a_line(args: &[&str], wanted: i32, words: &[&str]) {
    let output = run(args);
    let said = stderr(&output);
    assert_eq!(code(&output), wanted, "{args:?}: {said}");
    assert!(said.lines().count() == 1 && stdout(&output).is_empty(), "{args:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{args:?}: no {word:?} in {said}");
    }
}

#[test]
fn whatever_is_wrong_is_one_line_that_says_what_to_do() {
    let folder = Folder::new("watch-wrong");
    let file = |name: &str, text: &str| {
        fs::write(folder.file(name), text).expect("a writable folder");
        folder.file(name)
    };
    let misspelt = file("misspelt.toml", "[serve]\nlisen = '/ip4/127.0.0.1/tcp/0'\n");
    let serve = |config: &str| ["serve", "--config", config].map(str::to_owned);
    for args in [serve(&misspelt).to_vec(), vec!["config".into(), "check".into(), misspelt.clone()]]
    {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        refused_in_a_line(&args, 2, &["no `lisen`", "did you mean `listen`?", &misspelt]);
    }
    let wrong = file("wrong.toml", "[watch]\npeer = ['/ip4/127.0.0.1']\n");
    refused_in_a_line(&["watch", "--config", &wrong], 2, &["--peer", "/ip4/127.0.0.1", &wrong]);
    let missing = folder.file("missing.toml");
    refused_in_a_line(&["serve", "--config", &missing], 2, &["cannot read", &missing]);
    let (holder, held) = Running::serve(&["--listen", "/ip4/127.0.0.1/tcp/0"], 1);
    let held = held[0].split("/p2p/").next().expect("an address").to_owned();
    let words = ["in use by another program", "listen on another port", &held];
    refused_in_a_line(&["serve", "--listen", &held], 1, &words);
    drop(holder);
    let listen = ["serve", "--listen", "/ip4/127.0.0.1/tcp/0", "--key"];
    let key = folder.file("key");
    assert_eq!(code(&run(&["id", "--key", &key])), 0);
    let good =
        file("good.toml", &format!("[serve]\nlisten = '/ip4/127.0.0.1/tcp/0'\nkey = '{key}'\n"));
    assert_eq!(stdout(&run(&["config", "check", &good])), format!("{good} is good\n"));
    let shown = "http = '127.0.0.1:9'\nhttp-name = ['boot.example']\ncluster = ['https://boot.example']\nrelay = true\n";
    let watch = "[watch]\nbootstrap = ['https://boot.example']\nhttp = '7070'\nstate = '/var/lib/portolan'\n";
    let all = format!("[serve]\nlisten = ['/ip4/127.0.0.1/tcp/0']\n{shown}{watch}");
    let all = file("all.toml", &all);
    assert_eq!(stdout(&run(&["config", "check", &all])), format!("{all} is good\n"));
    let folder_as_key = folder.0.to_str().expect("plain text").to_owned();
    refused_in_a_line(
        &[&listen[..], &[&folder_as_key]].concat(),
        1,
        &["cannot access", &folder_as_key],
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("it is ours");
        refused_in_a_line(&[&listen[..], &[&key]].concat(), 1, &["mode 644", "chmod 600", &key]);
    }
}

#[test]
fn every_shell_gets_its_completions() {
    for (shell, word) in
        [("bash", "complete -F"), ("zsh", "#compdef portolan"), ("fish", "complete -c portolan")]
    {
        let output = run(&["completions", shell]);
        assert_eq!(code(&output), 0);
        assert!(stdout(&output).contains(word) && stdout(&output).contains("watch"), "{shell}");
    }
}
