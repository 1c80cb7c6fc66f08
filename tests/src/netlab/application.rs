//! An application that embeds a node, from outside: what it is told to do, and what it tells.

use super::Host;
use super::faces::APPLICATION;
use super::peers::{On, STARTS_WITHIN, complaint, each, launch, lines};
use serde_json::{Value, json};
use std::io::{self, Write as _};
use std::process::Child;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A command that takes longer than this hangs; dials have a time-out of their own.
const DONE_WITHIN: Duration = Duration::from_secs(20);

/// A running application. It ends when it is dropped.
#[derive(Debug)]
pub struct Application {
    child: Child,
    lines: mpsc::Receiver<String>,
    /// Everything that it has told, in order.
    pub told: Vec<Value>,
}

impl Drop for Application {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Application {
    /// Start one, and wait until it listens.
    ///
    /// # Errors
    /// If it does not start; what it said is in the error.
    pub fn start(host: &Host, listen: &[String], on: On) -> io::Result<Application> {
        Application::start_with(host, listen, &[], on)
    }

    /// Start one with further options, and wait until it listens.
    ///
    /// # Errors
    /// If it does not start; what it said is in the error.
    pub fn start_with(
        host: &Host,
        listen: &[String],
        options: &[String],
        on: On,
    ) -> io::Result<Application> {
        let mut args = each("--listen", listen);
        args.extend(options.iter().cloned());
        args.extend(["--runtime".to_owned(), on.name().to_owned()]);
        Application::launch(host, APPLICATION, &args)
    }

    /// Start what speaks like one, whatever it is, and wait until it listens.
    ///
    /// # Errors
    /// If it does not start; what it said is in the error.
    pub fn launch(host: &Host, face: &str, args: &[String]) -> io::Result<Application> {
        let mut child = launch(host, face, args)?;
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("stdout is a pipe"))?;
        let lines = lines(stdout, usize::MAX);
        let mut started = Application { child, lines, told: Vec::new() };
        match started.wait(0, STARTS_WITHIN, |event| event["event"] == "ready") {
            Some(_) => Ok(started),
            None => Err(io::Error::other(complaint(&mut started.child))),
        }
    }

    /// The peer id of its node.
    pub fn peer(&self) -> &str {
        let ready = self.told.iter().find_map(|event| event["peer"].as_str());
        ready.unwrap_or_default()
    }

    /// What it listened on when it was ready, with its peer id.
    pub fn addrs(&self) -> Vec<String> {
        let ready = self.told.iter().find(|event| event["event"] == "ready");
        let addrs = ready.and_then(|event| event["addrs"].as_array()).into_iter().flatten();
        addrs.filter_map(|addr| addr.as_str().map(str::to_owned)).collect()
    }

    /// Have it do something with an address, and return whether it could; if not, with what it said.
    ///
    /// # Errors
    /// If it has ended or hangs.
    pub fn order(&mut self, verb: &str, addr: &str) -> io::Result<Result<(), String>> {
        Ok(self.ask(verb, addr)?.map(drop))
    }

    /// Have it do something with an address, and return what it said of it; if it could not, why.
    ///
    /// # Errors
    /// If it has ended or hangs.
    pub fn ask(&mut self, verb: &str, addr: &str) -> io::Result<Result<Value, String>> {
        let from = self.told.len();
        let stdin = self.child.stdin.as_mut().ok_or_else(|| io::Error::other("stdin is a pipe"))?;
        writeln!(stdin, "{}", json!({ "do": verb, "addr": addr }))?;
        let ended = |event: &Value| {
            (event["event"] == "done" || event["event"] == "failed") && event["addr"] == addr
        };
        let event = self.wait(from, DONE_WITHIN, ended);
        let event = event.ok_or_else(|| io::Error::other(format!("{verb} {addr} hangs")))?;
        Ok(match event["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(event),
        })
    }

    /// Have it shut its node down, and wait until it is gone.
    ///
    /// # Errors
    /// If it does not end, or not well.
    pub fn close(mut self) -> io::Result<()> {
        drop(self.child.stdin.take());
        // Its stdout ends with it.
        let until = Instant::now() + DONE_WITHIN;
        while let Ok(line) =
            self.lines.recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            self.told.extend(serde_json::from_str::<Value>(&line));
        }
        if Instant::now() < until && self.child.wait()?.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("it does not end well: {}", complaint(&mut self.child))))
    }

    /// Wait for an event, from this number on, and return it if it comes.
    pub fn wait(
        &mut self,
        from: usize,
        within: Duration,
        is: impl Fn(&Value) -> bool,
    ) -> Option<Value> {
        let until = Instant::now() + within;
        let mut next = from;
        loop {
            while let Some(event) = self.told.get(next) {
                if is(event) {
                    return Some(event.clone());
                }
                next += 1;
            }
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).ok()?;
            self.told.extend(serde_json::from_str::<Value>(&line));
        }
    }
}
