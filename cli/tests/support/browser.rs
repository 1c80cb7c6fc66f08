//! A real browser, headless: Debian's Chromium, driven through tests/browser/browser.mjs.

use super::BOUND;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

/// A browser with one page.
pub(crate) struct Browser {
    child: Child,
    /// None once it is to end.
    commands: Option<ChildStdin>,
    answers: Receiver<String>,
}

/// How a page is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) width: u32,
    pub(crate) dark: bool,
}

/// Every way in which pages are looked at.
pub(crate) const LOOKS: [Look; 4] = [
    Look { width: 1_280, dark: false },
    Look { width: 1_280, dark: true },
    Look { width: 390, dark: false },
    Look { width: 390, dark: true },
];

impl Browser {
    /// Start one. Where there is none it says so, which is a failure where the lab is required.
    #[allow(clippy::print_stdout, reason = "a test that is skipped says so")]
    #[track_caller]
    pub(crate) fn start() -> Option<Browser> {
        let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests");
        let program = ["/usr/bin/chromium", "/usr/bin/chromium-browser"];
        let program = program.into_iter().find(|path| PathBuf::from(path).exists());
        let has_driver = tests.join("browser/node_modules/playwright-core").exists();
        let (Some(program), true) = (program, has_driver) else {
            let missing = "Chromium, or its driver, is missing: tests/install-lab.sh installs both";
            let required =
                std::env::var_os("PORTOLAN_REQUIRE_LAB").is_some_and(|value| value == "1");
            assert!(!required, "the lab is required: {missing}");
            println!("skipped: {missing}");
            return None;
        };
        let mut child = Command::new("node")
            .arg(tests.join("browser/browser.mjs"))
            .arg(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Node.js is there, since npm was");
        let commands = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().expect("stdout is a pipe")).lines();
        let (sender, answers) = channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Some(Browser { child, commands, answers })
    }

    #[track_caller]
    fn ask(&mut self, command: &Value) -> Value {
        let mut commands = self.commands.as_ref().expect("stdin is a pipe");
        writeln!(commands, "{command}").expect("the browser takes commands");
        let line = self.answers.recv_timeout(BOUND).expect("the browser answers");
        let mut answer: Value = serde_json::from_str(&line).expect("a document a line");
        assert!(answer.get("error").is_none(), "{command}: {answer}");
        answer["ok"].take()
    }

    #[track_caller]
    pub(crate) fn open(&mut self, url: &str, Look { width, dark }: Look) {
        let command = json!({ "open": url, "width": width, "height": 900, "dark": dark });
        assert_eq!(self.ask(&command), 200);
    }

    /// Wait until the text of something holds these words.
    #[track_caller]
    pub(crate) fn wait(&mut self, selector: &str, text: &str) {
        self.ask(&json!({ "wait": selector, "text": text }));
    }

    /// The text of everything that the selector finds.
    #[track_caller]
    pub(crate) fn read(&mut self, selector: &str) -> Vec<String> {
        let all = self.ask(&json!({ "read": selector }));
        serde_json::from_value(all).expect("texts")
    }

    #[track_caller]
    pub(crate) fn count(&mut self, selector: &str) -> u64 {
        self.ask(&json!({ "count": selector })).as_u64().expect("a number")
    }

    #[track_caller]
    pub(crate) fn measure(&mut self) -> Value {
        self.ask(&json!({ "measure": true }))
    }

    /// What the page complained of, and the addresses that it asked.
    #[track_caller]
    pub(crate) fn heard(&mut self) -> (Vec<String>, Vec<String>) {
        let mut heard = self.ask(&json!({ "heard": true }));
        let mut part = |name: &str| serde_json::from_value(heard[name].take()).expect("texts");
        (part("complaints"), part("requests"))
    }

    /// Take a picture, for people, if `PORTOLAN_PICTURES` names a folder for them.
    #[track_caller]
    pub(crate) fn shoot(&mut self, name: &str, Look { width, dark }: Look) {
        if let Some(folder) = std::env::var_os("PORTOLAN_PICTURES") {
            let colours = if dark { "dark" } else { "light" };
            let file = PathBuf::from(folder).join(format!("{name}-{width}-{colours}.png"));
            self.ask(&json!({ "shoot": file }));
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its input ends: it closes the browser, and removes what that has left.
        self.commands = None;
        let _ = self.child.wait();
    }
}
