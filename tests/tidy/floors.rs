//! The floors of core: every room has a rank, and reads only what lies below.

use super::source::{Token, Tree, split, tokens};
use std::collections::{BTreeMap, BTreeSet};

/// Core's sources.
const HERE: &str = "core/src/";
/// The most lines of a room's module comment.
const INTRODUCTION_MAX: usize = 25;
/// The heading that ends it.
const FIRST_CHANGE: &str = "A good first change here";

/// Where a room stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Floor {
    /// A floor of the main building. The second number ranks the two rooms of floor 0, of which
    /// the codecs may use the words.
    Main(u8, u8),
    /// The service wing, which reads the ground floor and what lies below it.
    Beside,
    /// Where everything meets.
    Door,
}

/// The rank of each room; the door's parts are one room.
fn floor(room: &str) -> Option<Floor> {
    Some(match room {
        "words" => Floor::Main(0, 0),
        "wire" => Floor::Main(0, 1),
        "transcript" => Floor::Main(0, 2),
        "local" | "peers" => Floor::Main(1, 0),
        "observed" | "mapping" => Floor::Main(2, 0),
        "candidates" => Floor::Main(3, 0),
        "probe" => Floor::Main(4, 0),
        "reachability" => Floor::Main(5, 0),
        "relay" => Floor::Main(6, 0),
        "punch" | "advertise" => Floor::Main(7, 0),
        "service" => Floor::Beside,
        "agent" | "explain" | "flight" | "exhaustive" => Floor::Door,
        _ => return None,
    })
}

/// Whether a room on one floor may read a room on the other.
fn may_read(reader: Floor, read: Floor) -> bool {
    match (reader, read) {
        (Floor::Door, _) => true,
        (Floor::Main(..) | Floor::Beside, Floor::Door | Floor::Beside) => false,
        (Floor::Beside, Floor::Main(floor, _)) => floor <= 1,
        (Floor::Main(..), Floor::Main(..)) => read < reader,
    }
}

/// The rooms that have files.
pub(crate) fn rooms(tree: &Tree) -> BTreeSet<String> {
    tree.under(HERE, ".rs").map(|(path, _)| room_of(path)).filter(|room| room != "lib").collect()
}

/// The arrows that climb or run level.
pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let Some(lib) = tree.get("core/src/lib.rs") else {
        return vec!["core/src/lib.rs is missing".into()];
    };
    let names = names_at_root(lib);
    let mut problems = Vec::new();
    for room in rooms(tree) {
        if floor(&room).is_none() {
            problems
                .push(format!("room `{room}` has no floor: give it one in tests/tidy/floors.rs"));
        }
    }
    for (path, text) in tree.under(HERE, ".rs") {
        let room = room_of(path);
        let Some(reader) = floor(&room) else { continue };
        for (line, target) in paths(&modules_of(path), text) {
            let Some(first) = target.first() else {
                continue;
            };
            if let Some(why) = objection(&room, reader, first, &names) {
                problems.push(format!("{path}:{line}: `crate::{}` {why}", target.join("::")));
            }
        }
    }
    problems
}

/// Why a room may not use a name of the crate's root; `None` when it may.
fn objection(
    room: &str,
    reader: Floor,
    name: &str,
    names: &BTreeMap<String, Option<String>>,
) -> Option<String> {
    if name == "*" {
        return Some("hides which floor it reads: name what is used".into());
    }
    let origin = match names.get(name) {
        Some(Some(origin)) => origin.as_str(),
        Some(None) => return None, // A re-export from outside.
        None => name,
    };
    if origin == room {
        return None;
    }
    let Some(read) = floor(origin) else {
        return Some("is not a room, and lib.rs does not re-export it".into());
    };
    (!may_read(reader, read)).then(|| format!("reads {read:?} from {reader:?}"))
}

/// The room that a file belongs to.
fn room_of(path: &str) -> String {
    modules_of(path).into_iter().next().unwrap_or_else(|| "lib".into())
}

/// The module path of a file, from the crate's root.
fn modules_of(path: &str) -> Vec<String> {
    let inner = path.trim_start_matches(HERE).trim_end_matches(".rs");
    let inner = inner.trim_end_matches("/mod");
    inner.split('/').filter(|part| *part != "lib").map(str::to_owned).collect()
}

/// What `lib.rs` makes nameable at the root: a module or re-export, and the room it is from
/// (`None` for other crates).
fn names_at_root(lib: &str) -> BTreeMap<String, Option<String>> {
    let tokens = tokens(&split(lib).code);
    let mut names = BTreeMap::new();
    let mut at = 0;
    while at < tokens.len() {
        let next = tokens.get(at + 1).map(|(_, token)| token);
        match (tokens[at].1.word(), next) {
            (Some("mod"), Some(Token::Word(name))) => {
                names.insert(name.clone(), Some(name.clone()));
            }
            (Some("use"), Some(_)) => {
                let mut found = Vec::new();
                at = follow(&tokens, at + 1, &mut Vec::new(), &mut found);
                for (_, path, alias) in found {
                    let path: Vec<String> =
                        path.into_iter().filter(|part| part != "crate").collect();
                    if let (Some(first), Some(last)) = (path.first(), path.last()) {
                        let room = floor(first).map(|_| first.clone());
                        names.insert(alias.unwrap_or_else(|| last.clone()), room);
                    }
                }
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    names
}

/// Every path of a file that leaves its module, from the crate's root, with its line.
fn paths(modules: &[String], text: &str) -> Vec<(usize, Vec<String>)> {
    let tokens = tokens(&split(text).code);
    let mut here = modules.to_vec();
    // For each open brace, whether it opened an inline module.
    let mut braces = Vec::new();
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at].1 {
            Token::Mark('{') => {
                let opened = at.checked_sub(2).and_then(|back| tokens[back].1.word());
                let name = at.checked_sub(1).and_then(|back| tokens[back].1.word());
                let is_module = opened == Some("mod") && name.is_some();
                if is_module {
                    here.extend(name.map(str::to_owned));
                }
                braces.push(is_module);
            }
            Token::Mark('}') => {
                if braces.pop() == Some(true) {
                    here.pop();
                }
            }
            Token::Word(word) => {
                let continues = matches!(tokens.get(at + 1), Some((_, Token::Path)));
                let begins = at == 0 || tokens[at - 1].1 != Token::Path;
                if continues && begins && matches!(word.as_str(), "crate" | "super" | "self") {
                    let mut prefix = if word == "crate" { Vec::new() } else { here.clone() };
                    if word == "super" {
                        prefix.pop();
                    }
                    let mut ends = Vec::new();
                    at = follow(&tokens, at + 2, &mut prefix, &mut ends);
                    found.extend(ends.into_iter().map(|(line, path, _)| (line, path)));
                    continue;
                }
            }
            Token::Path | Token::Mark(_) => {}
        }
        at += 1;
    }
    found
}

/// A path's line, its segments, and the name that `as` gives it.
type End = (usize, Vec<String>, Option<String>);

/// Follows a path or a tree of paths from `at`, and returns where it stops.
fn follow(
    tokens: &[(usize, Token)],
    mut at: usize,
    prefix: &mut Vec<String>,
    ends: &mut Vec<End>,
) -> usize {
    let depth = prefix.len();
    while let Some((line, token)) = tokens.get(at) {
        match token {
            Token::Word(word) if word == "super" => {
                prefix.pop();
            }
            Token::Word(word) if word == "self" => {}
            Token::Word(word) => prefix.push(word.clone()),
            Token::Mark('*') => prefix.push("*".into()),
            Token::Mark('{') => {
                at += 1;
                while let Some((_, token)) = tokens.get(at) {
                    match token {
                        Token::Mark('}') => break,
                        Token::Mark(',') => at += 1,
                        Token::Word(_) | Token::Path | Token::Mark(_) => {
                            let before = at;
                            at = follow(tokens, at, &mut prefix.clone(), ends);
                            at = at.max(before + 1);
                        }
                    }
                }
                prefix.truncate(depth);
                return at + 1;
            }
            Token::Path | Token::Mark(_) => return at,
        }
        let more = matches!(tokens.get(at + 1), Some((_, Token::Path)))
            && !matches!(tokens.get(at + 2), Some((_, Token::Mark('<'))));
        if !more {
            let alias = match (tokens.get(at + 1), tokens.get(at + 2)) {
                (Some((_, Token::Word(word))), Some((_, Token::Word(name)))) if word == "as" => {
                    Some(name.clone())
                }
                _ => None,
            };
            at += if alias.is_some() { 3 } else { 1 };
            ends.push((*line, prefix.clone(), alias));
            return at;
        }
        at += 2;
    }
    at
}

/// The rooms whose module comment is missing, too long, or does not invite a first change.
pub(crate) fn check_introductions(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for room in rooms(tree) {
        let ground = matches!(floor(&room), Some(Floor::Main(0, _)));
        if ground || room == "explain" {
            continue;
        }
        let paths = [format!("{HERE}{room}/mod.rs"), format!("{HERE}{room}.rs")];
        let Some((path, text)) = paths.iter().find_map(|path| Some((path, tree.get(path)?))) else {
            problems.push(format!("room `{room}` has neither {} nor {}", paths[0], paths[1]));
            continue;
        };
        let comment: Vec<&str> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        if comment.is_empty() || comment.len() > INTRODUCTION_MAX {
            problems.push(format!("{path}: {} lines of module comment", comment.len()));
        } else if !comment.iter().any(|line| line.contains(FIRST_CHANGE)) {
            problems.push(format!("{path}: the module comment lacks {FIRST_CHANGE:?}"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::super::{one_problem, snippet};
    use super::*;

    const LIB: &str = "mod words; mod wire; mod local; mod peers; mod probe; mod agent; mod service;\n\
        pub use words::addr::{Addr, ip_scope as scope};\npub use agent::Agent;\n\
        pub use outside::Key;\npub use words::config::{self, Config};";

    fn of(path: &str, text: &str) -> Vec<String> {
        check(&snippet(&[("core/src/lib.rs", LIB), (path, text)]))
    }

    #[test]
    fn lower_floors_may_be_read() {
        let text = "use crate::{Addr, Config, config, scope, Key, peers::{self, Peers}};\n\
            use crate::words::time::Instant; use super::local::Local; use super::exchange::Exchange;\n\
            mod tests { use super::*; use super::super::Other; use crate::probe::x::*; }";
        assert_eq!(of("core/src/probe/client.rs", text), Vec::<String>::new());
    }

    #[test]
    fn an_arrow_that_climbs_is_found() {
        one_problem(
            &of("core/src/peers.rs", "use crate::probe::Probe;"),
            "peers.rs:1: `crate::probe",
        );
        one_problem(&of("core/src/peers.rs", "\nfn f() { crate::agent::g() }"), "peers.rs:2");
        one_problem(
            &of("core/src/peers/mod.rs", "use super::probe::Probe;"),
            "crate::probe::Probe",
        );
        one_problem(&of("core/src/probe/a.rs", "use crate::{Addr, Agent};"), "crate::Agent");
        one_problem(
            &of("core/src/words/a.rs", "use crate::{Addr, wire::{decode}};"),
            "crate::wire",
        );
    }

    #[test]
    fn an_arrow_that_runs_level_is_found() {
        one_problem(&of("core/src/peers.rs", "use crate::local::Local;"), "crate::local");
        one_problem(
            &of("core/src/local.rs", "mod tests { use super::super::peers::P; }"),
            "crate::peers",
        );
    }

    #[test]
    fn the_service_wing_reads_the_ground_only() {
        assert_eq!(of("core/src/service/a.rs", "use crate::{peers::Peers, wire::x};"), [""; 0]);
        one_problem(&of("core/src/service/a.rs", "use crate::probe::Probe;"), "Beside");
        one_problem(&of("core/src/probe/a.rs", "use crate::service::Ping;"), "Beside");
    }

    #[test]
    fn hiding_and_unknown_names_are_found() {
        one_problem(&of("core/src/peers.rs", "use crate::*;"), "name what is used");
        one_problem(&of("core/src/peers.rs", "use crate::nowhere::X;"), "not a room");
        one_problem(&of("core/src/attic.rs", ""), "no floor");
    }

    #[test]
    fn comments_and_visibilities_are_no_arrows() {
        let text = "//! See [x](crate::agent).\npub(crate) fn f(x: &str) { g(\"crate::agent\") }";
        assert_eq!(of("core/src/peers.rs", text), [""; 0]);
    }

    #[test]
    fn an_introduction_can_be_wrong() {
        let of = |text: &str| check_introductions(&snippet(&[("core/src/peers/mod.rs", text)]));
        assert_eq!(of("//! Peers.\n//!\n//! A good first change here: x.\nmod a;"), [""; 0]);
        one_problem(&of("//! Peers.\nmod a;"), "lacks");
        one_problem(&of("mod a;"), "0 lines");
        one_problem(&of(&"//! A good first change here\n".repeat(26)), "26 lines");
        one_problem(&check_introductions(&snippet(&[("core/src/peers/a.rs", "")])), "neither");
    }
}
