//! The ledgers of `docs/spec`: requirement, code, test.

use super::source::{Tree, split};
use std::collections::BTreeSet;

/// The columns of every ledger.
const HEADER: [&str; 5] = ["id", "requirement", "level", "code", "test"];
/// The last stage of the plan.
const LAST_STAGE: u32 = 8;
/// Words that a reason has at least.
const REASON_WORDS: usize = 4;
/// Stands for a cell that the other cell already settles.
const NOTHING: &str = "–";

/// One row of a ledger.
struct Row<'a> {
    file: &'a str,
    line: usize,
    id: &'a str,
    level: &'a str,
    code: &'a str,
    test: &'a str,
}

/// The rows of a file; a table with other columns is not a ledger.
fn rows_of<'a>(file: &'a str, text: &'a str) -> Vec<Row<'a>> {
    let mut rows = Vec::new();
    let mut in_ledger = false;
    for (index, line) in text.lines().enumerate() {
        let Some(inner) = line.trim().strip_prefix('|') else {
            in_ledger = false;
            continue;
        };
        let cells: Vec<&str> = inner.trim_end_matches('|').split('|').map(str::trim).collect();
        if cells == HEADER {
            in_ledger = true;
        } else if let (true, [id, _, level, code, test]) = (in_ledger, cells.as_slice())
            && !id.starts_with('-')
        {
            rows.push(Row { file, line: index + 1, id, level, code, test });
        } else if in_ledger && cells.len() != HEADER.len() {
            rows.push(Row { file, line: index + 1, id: "", level: "", code: "", test: "" });
        }
    }
    rows
}

/// How many rows all ledgers have together.
pub(crate) fn rows(tree: &Tree) -> usize {
    tree.under("docs/spec/", ".md").map(|(file, text)| rows_of(file, text).len()).sum()
}

/// Rows that name nothing, or what does not exist; ledgers without rows; ids used twice.
pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    let mut ids = BTreeSet::new();
    for (file, text) in tree.under("docs/spec/", ".md") {
        let rows = rows_of(file, text);
        if rows.is_empty() && !file.ends_with("/README.md") {
            problems.push(format!("{file}: no row under `| {} |`", HEADER.join(" | ")));
        }
        for row in rows {
            if !ids.insert(row.id) {
                problems.push(format!("{}:{}: {} is there twice", row.file, row.line, row.id));
            }
            let found = objection(tree, &row);
            problems.extend(found.map(|why| format!("{file}:{}: {}: {why}", row.line, row.id)));
        }
    }
    problems
}

/// What is wrong with a row, if anything is.
fn objection(tree: &Tree, row: &Row<'_>) -> Option<String> {
    if row.id.is_empty() {
        return Some("not five columns".into());
    }
    let must = row.level.starts_with("MUST");
    if let Some(name) = row.code.strip_prefix("library: ") {
        return no_library(tree, name);
    }
    if let Some(stage) = row.code.strip_prefix("stage ") {
        let planned = stage.parse::<u32>().is_ok_and(|stage| (2..=LAST_STAGE).contains(&stage));
        return (!planned).then(|| format!("{stage:?} is no later stage"));
    }
    if let Some(reason) = row.code.strip_prefix("exception: ") {
        return too_short(reason);
    }
    if let Some(why) = no_place(tree, row.code) {
        return Some(format!("code: {why}"));
    }
    if let Some(reason) = row.test.strip_prefix("untested: ") {
        return if must { Some("a MUST needs a test".into()) } else { too_short(reason) };
    }
    if let Some(name) = row.test.strip_prefix("library: ") {
        return no_library(tree, name);
    }
    let place = row.test.split(',').find(|place| !place.contains("::") && !is_story(place));
    if let Some(place) = place.filter(|place| *place != NOTHING) {
        return Some(format!("test: {} names neither a test nor a scenario", place.trim()));
    }
    no_place(tree, row.test)
        .or_else(|| no_function(tree, row.test))
        .map(|why| format!("test: {why}"))
}

/// The first of the comma-separated tests in Rust that is no function.
fn no_function(tree: &Tree, cell: &str) -> Option<String> {
    cell.split(',').find_map(|place| {
        let (path, name) = place.trim().trim_matches('`').split_once("::")?;
        let code = split(tree.get(path).filter(|_| path.ends_with(".rs"))?).code;
        let defined = code.split("fn ").skip(1).any(|rest| {
            rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next() == Some(name)
        });
        (!defined).then(|| format!("{path} has no function `{name}`"))
    })
}

/// Whether a cell names a file that is a test as a whole.
fn is_story(place: &str) -> bool {
    let place = place.trim().trim_matches('`');
    [".txt", ".mjs"].iter().any(|ending| place.ends_with(ending))
}

fn no_library(tree: &Tree, name: &str) -> Option<String> {
    let lock = tree.get("Cargo.lock").unwrap_or_default();
    (!lock.contains(&format!("name = \"{name}\"")))
        .then(|| format!("{name:?} is not in Cargo.lock"))
}

fn too_short(reason: &str) -> Option<String> {
    let words = reason.split_whitespace().count();
    (words < REASON_WORDS).then(|| format!("{reason:?} is hardly a reason"))
}

/// The first of the comma-separated places that does not exist.
fn no_place(tree: &Tree, cell: &str) -> Option<String> {
    cell.split(',').find_map(|place| {
        let place = place.trim();
        let Some(inner) = place.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) else {
            return Some(format!("{place:?} is not a place in backticks"));
        };
        let (path, name) = inner.split_once("::").map_or((inner, None), |(p, n)| (p, Some(n)));
        if !tree.has(path) {
            return Some(format!("{path} does not exist"));
        }
        let name = name?;
        let text = tree.get(path).unwrap_or_default();
        let code = if path.ends_with(".rs") { split(text).code } else { text.to_owned() };
        let named =
            code.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == name);
        (!named).then(|| format!("{path} has no `{name}`"))
    })
}

#[cfg(test)]
mod tests {
    use super::super::{one_problem, snippet};
    use super::*;

    fn of(cells: &str) -> Vec<String> {
        let ledger = format!(
            "| id | requirement | level | code | test |\n|---|---|---|---|---|\n| X-1 | does | {cells} |\n"
        );
        check(&snippet(&[
            ("docs/spec/x.md", &ledger),
            ("core/src/a.rs", "struct Sent;\nfn send() {}\n#[test]\nfn is_sent() {}\n// fn gone()"),
            ("tests/scenarios/a.txt", ""),
            ("Cargo.lock", "name = \"yamux\""),
        ]))
    }

    #[test]
    fn rows_that_name_what_exists_pass() {
        for fine in [
            "MUST | `core/src/a.rs` | `core/src/a.rs::is_sent`",
            "MUST | `core/src/a.rs::send`, `core/src` | `tests/scenarios/a.txt`, `core/src/a.rs::is_sent`",
            "MUST | library: yamux | –",
            "MUST | `core/src/a.rs` | library: yamux",
            "MUST | stage 6 | –",
            "MUST | exception: deployed peers do otherwise | –",
            "fmt | `core/src/a.rs` | untested: needs a second network card",
        ] {
            assert_eq!(of(fine), [""; 0], "{fine}");
        }
    }

    #[test]
    fn rows_that_name_nothing_are_found() {
        for (bad, about) in [
            ("MUST | pending | pending", "not a place"),
            ("MUST | `core/src/b.rs` | `core/src/a.rs::is_sent`", "does not exist"),
            ("MUST | `core/src/a.rs::gone` | `core/src/a.rs::is_sent`", "has no `gone`"),
            ("MUST | `core/src/a.rs` | `core/src/a.rs::was_sent`", "has no `was_sent`"),
            ("MUST | `core/src/a.rs` | `core/src/a.rs::Sent`", "no function"),
            ("MUST | `core/src/a.rs` | `core/src/a.rs`", "neither a test"),
            ("MUST | `core/src/a.rs` | –", "not a place"),
            ("MUST | `core/src/a.rs` | untested: needs a second network card", "needs a test"),
            ("fmt | `core/src/a.rs` | untested: hard", "hardly a reason"),
            ("MUST | library: nothing | –", "Cargo.lock"),
            ("MUST | stage 1 | –", "no later stage"),
            ("MUST | exception: no | –", "hardly a reason"),
            ("MUST | `core/src/a.rs`", "five columns"),
        ] {
            one_problem(&of(bad), about);
        }
    }

    #[test]
    fn empty_ledgers_and_doubles_are_found() {
        one_problem(&check(&snippet(&[("docs/spec/x.md", "Nothing.")])), "no row");
        let table = "| id | requirement | level | code | test |\n|---|---|---|---|---|\n\
            | X-1 | a | MAY | stage 2 | – |\n| X-1 | b | MAY | stage 2 | – |\n";
        one_problem(&check(&snippet(&[("docs/spec/x.md", table)])), "twice");
    }
}
