//! Rules about the text of Rust files.

use super::source::{Split, Token, Tree, split, tokens};

/// The most lines of a file of Rust.
const LINES_MAX: usize = 600;

/// Core's sources.
const CORE: &str = "core/src/";

/// The file with every bound.
const CONFIG: &str = "core/src/words/config.rs";

/// Names that core cannot have: they need a clock, a socket, a thread, a hash seed or a float.
const WORLD: [&str; 9] = [
    "HashMap",
    "HashSet",
    "SystemTime",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "f32",
    "f64",
    "rand",
];
/// Modules of the standard library that core cannot name.
const STD: [&str; 7] = ["time", "net", "thread", "env", "fs", "collections", "sync"];

/// Words that mean something else, or nothing, in Portolan; and the word to use.
const WORDS: [(&str, &str); 12] = [
    ("manager", "name what the room decides"),
    ("component", "room"),
    ("voter", "observer"),
    ("reporter", "observer"),
    ("prober", "server"),
    ("callback", "dial_back"),
    ("padding", "dial_data"),
    ("cone", "mapping and filtering behaviour"),
    ("publish", "advertise"),
    ("announce", "advertise"),
    ("traverse", "punch"),
    ("traversal", "punch"),
];

/// Files that are too long.
pub(crate) fn check_lengths(tree: &Tree) -> Vec<String> {
    tree.under("", ".rs")
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines >= LINES_MAX)
        .map(|(path, lines)| format!("{path}: {lines} lines"))
        .collect()
}

/// Stubs, skipped tests, tests that cannot fail, and notes to oneself.
pub(crate) fn check_stubs(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, text) in tree.under("", ".rs") {
        let Split { code, comments } = split(text);
        for (number, line) in code.lines().enumerate() {
            let dense: String = line.chars().filter(|c| !c.is_whitespace()).collect();
            for stub in ["todo!(", "unimplemented!(", "#[ignore", "assert!(true", "dbg!("] {
                if dense.contains(stub) {
                    problems.push(format!("{path}:{}: `{stub}`", number + 1));
                }
            }
        }
        for (number, line) in comments.lines().enumerate() {
            let mut words = line.split(|c: char| !c.is_alphanumeric());
            if let Some(note) =
                words.find(|word| matches!(*word, "FIXME" | "XXX" | "TODO" | "HACK"))
            {
                problems.push(format!("{path}:{}: {note} in a comment", number + 1));
            }
        }
    }
    problems
}

/// Names in core that belong to the world outside.
pub(crate) fn check_core(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    let lib = tree.get("core/src/lib.rs").unwrap_or_default();
    for fence in ["#![no_std]", "#![forbid(unsafe_code)]"] {
        if !lib.contains(fence) {
            problems.push(format!("core/src/lib.rs lacks `{fence}`"));
        }
    }
    for (path, text) in tree.under(CORE, ".rs") {
        let tokens = tokens(&split(text).code);
        for (at, (line, token)) in tokens.iter().enumerate() {
            let Some(word) = token.word() else { continue };
            let path_of = |ahead: usize| match (tokens.get(at + ahead), tokens.get(at + ahead + 1))
            {
                (Some((_, Token::Path)), Some((_, Token::Word(next)))) => Some(next.as_str()),
                _ => None,
            };
            if WORLD.contains(&word) {
                problems.push(format!("{path}:{line}: `{word}`"));
            }
            match (word, path_of(1)) {
                ("std", Some(module)) if STD.contains(&module) => {
                    problems.push(format!("{path}:{line}: `std::{module}`"));
                }
                ("Instant", Some("now")) => problems.push(format!("{path}:{line}: `Instant::now`")),
                _ => {}
            }
        }
    }
    problems
}

/// Sleeps in test code without a reason.
pub(crate) fn check_sleeps(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, text) in tree.under("", ".rs") {
        let Split { code, comments } = split(text);
        let all_tests = path.starts_with("tests/") || path.contains("/tests/");
        let mut in_tests = all_tests;
        let comments: Vec<&str> = comments.lines().collect();
        for (number, line) in code.lines().enumerate() {
            in_tests |= line.trim_start().starts_with("#[cfg(test)]");
            let explained = comments[number.saturating_sub(3)..=number.min(comments.len() - 1)]
                .iter()
                .any(|comment| comment.contains("sleep: "));
            let sleeps = line
                .split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '('))
                .any(|word| word.starts_with("sleep(") || word.starts_with("sleep_until("));
            let defines = line.contains("fn sleep");
            if in_tests && sleeps && !explained && !defines {
                problems.push(format!("{path}:{}: sleeps", number + 1));
            }
        }
    }
    problems
}

/// Declarations in core that use a word in a sense that it does not have here.
pub(crate) fn check_words(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, text) in tree.under(CORE, ".rs") {
        let tokens = tokens(&split(text).code);
        for pair in tokens.windows(2) {
            let [(_, keyword), (line, name)] = pair else {
                continue;
            };
            let (Some(keyword), Some(name)) = (keyword.word(), name.word()) else {
                continue;
            };
            if !matches!(keyword, "fn" | "struct" | "enum" | "trait" | "type" | "mod" | "const") {
                continue;
            }
            for part in parts(name) {
                if let Some((_, better)) = WORDS.iter().find(|(word, _)| *word == part) {
                    problems
                        .push(format!("{path}:{line}: `{name}` says {part:?}; write {better:?}"));
                }
            }
        }
    }
    problems
}

/// The parts of a name in any case, in lower case.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut was_lower = false;
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && was_lower) {
            parts.push(String::new());
        }
        was_lower = c.is_lowercase();
        if let Some(part) = parts.last_mut().filter(|_| c != '_') {
            part.extend(c.to_lowercase());
        }
    }
    parts
}

/// Bounds whose doc comment does not say what happens when they are reached.
pub(crate) fn check_bounds(tree: &Tree) -> Vec<String> {
    let Some(text) = tree.get(CONFIG) else {
        return vec![format!("{CONFIG} is missing")];
    };
    let mut problems = Vec::new();
    let mut doc = String::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(comment) = line.strip_prefix("///") {
            doc.push_str(comment);
            continue;
        }
        let declares = line.trim_start_matches("pub ").trim_start_matches("pub(crate) ");
        if let Some(rest) = declares.strip_prefix("const ") {
            let name = rest.split(':').next().unwrap_or_default();
            if name.ends_with("_MAX") && !doc.contains("When full") {
                problems.push(format!("{CONFIG}:{}: {name}", number + 1));
            }
        }
        if !line.starts_with("#[") {
            doc.clear();
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::super::{one_problem, snippet};
    use super::*;

    fn of(rule: fn(&Tree) -> Vec<String>, path: &str, text: &str) -> Vec<String> {
        let lib = ("core/src/lib.rs", "#![no_std]\n#![forbid(unsafe_code)]");
        rule(&snippet(&[lib, (path, text)]))
    }

    #[test]
    fn a_long_file_is_found() {
        one_problem(&of(check_lengths, "cli/src/a.rs", &"\n".repeat(600)), "600 lines");
        assert_eq!(of(check_lengths, "cli/src/a.rs", &"\n".repeat(599)), [""; 0]);
    }

    #[test]
    fn stubs_are_found() {
        for bad in ["fn f() { todo !() }", "unimplemented!()", "#[ignore]", "assert!( true)"] {
            assert_eq!(of(check_stubs, "cli/src/a.rs", bad).len(), 1, "{bad}");
        }
        one_problem(&of(check_stubs, "cli/src/a.rs", "\n// FIXME: later"), "a.rs:2");
        assert_eq!(of(check_stubs, "cli/src/a.rs", "let a = \"todo!()\"; // not todo!()"), [""; 0]);
    }

    #[test]
    fn the_world_is_found_in_core() {
        for bad in [
            "use std::time::Duration;",
            "let a = Instant::now();",
            "let m: HashMap<u8, u8>;",
            "let x: f64 = 1.0;",
            "std::thread::spawn(f)",
        ] {
            assert_eq!(of(check_core, "core/src/probe.rs", bad).len(), 1, "{bad}");
        }
        let fine = "use core::net::IpAddr; use crate::Instant; // std::time\nfn now() {}";
        assert_eq!(of(check_core, "core/src/probe.rs", fine), [""; 0]);
        assert_eq!(of(check_core, "runtime/src/a.rs", "use std::time::Instant;"), [""; 0]);
        assert_eq!(check_core(&snippet(&[("core/src/lib.rs", "")])).len(), 2);
    }

    #[test]
    fn sleeps_are_found_in_tests() {
        one_problem(&of(check_sleeps, "tests/a.rs", "tokio::time::sleep(SECOND).await;"), "a.rs:1");
        one_problem(
            &of(check_sleeps, "cli/src/a.rs", "#[cfg(test)]\nmod t { fn f() { sleep(x) } }"),
            ":2",
        );
        let said = "// sleep: a slow peer is what is tested\nsleep(x);";
        assert_eq!(of(check_sleeps, "tests/a.rs", said), [""; 0]);
        assert_eq!(of(check_sleeps, "runtime/src/a.rs", "self.timer.sleep(x)"), [""; 0]);
    }

    #[test]
    fn strange_words_are_found() {
        one_problem(&of(check_words, "core/src/a.rs", "struct RelayManager;"), "RelayManager");
        one_problem(&of(check_words, "core/src/a.rs", "fn publish_all() {}"), "advertise");
        assert_eq!(of(check_words, "core/src/a.rs", "fn advertise() {} // publish"), [""; 0]);
    }

    #[test]
    fn a_bound_without_an_answer_is_found() {
        let of = |text: &str| check_bounds(&snippet(&[(CONFIG, text)]));
        one_problem(&of("/// Peers.\npub const PEERS_MAX: usize = 1;"), "PEERS_MAX");
        one_problem(&of("/// When full, x.\nconst A: u8 = 1;\npub const B_MAX: u8 = 1;"), "B_MAX");
        assert_eq!(
            of("/// Peers. When full, the\n/// oldest goes.\npub const P_MAX: u8 = 1;"),
            [""; 0]
        );
    }
}
