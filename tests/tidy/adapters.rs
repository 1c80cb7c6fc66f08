//! How much it takes to run Portolan on one more runtime.

use super::source::{Tree, split};
use std::collections::BTreeMap;

/// Lines of code of an adapter, from which on it is too thick.
const ADAPTER_LINES: usize = 600;
/// The example that brings a runtime of its own, and the most lines that it may have.
const OWN_RUNTIME: (&str, usize) = ("runtime/examples/own_runtime.rs", 200);

/// The lines of code of every adapter, by its folder: no tests, no comments, no empty lines.
pub(crate) fn lines(tree: &Tree) -> BTreeMap<&str, usize> {
    let mut found = BTreeMap::new();
    for (path, text) in tree.under("runtime-", ".rs") {
        let Some((folder, file)) = path.split_once('/') else { continue };
        if file.starts_with("src/") {
            *found.entry(folder).or_default() += code_lines(text);
        }
    }
    found
}

fn code_lines(text: &str) -> usize {
    let code = split(text).code;
    // Tests stand at the end of their file.
    let code = code.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim().is_empty()).count()
}

/// Adapters that are too thick, and an example that is too long to show how little it takes.
pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let mut problems: Vec<String> = lines(tree)
        .into_iter()
        .filter(|(_, lines)| *lines >= ADAPTER_LINES)
        .map(|(folder, lines)| format!("{folder}: {lines} lines of code"))
        .collect();
    let (path, lines_max) = OWN_RUNTIME;
    match tree.get(path).map(|text| text.lines().count()) {
        Some(lines) if lines <= lines_max => {}
        Some(lines) => problems.push(format!("{path}: {lines} lines, at most {lines_max}")),
        None => problems.push(format!("{path} is missing")),
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::super::{one_problem, snippet};
    use super::*;

    #[test]
    fn code_is_counted_without_comments_and_tests() {
        let text = "//! A.\n\nuse b;\nfn c() { // Why.\n\n    \"// no comment\";\n}\n#[cfg(test)]\nuse d;\n\n#[cfg(test)]\nmod tests {\n    fn e() {}\n}\n";
        let tree = snippet(&[
            ("runtime-a/src/lib.rs", text),
            ("runtime-a/src/b/c.rs", "a();\n/* b();\nc(); */"),
            ("runtime-a/examples/d.rs", "a();"),
            ("runtime-b/src/lib.rs", ""),
            ("runtime/src/lib.rs", "a();"),
        ]);
        assert_eq!(lines(&tree), BTreeMap::from([("runtime-a", 7), ("runtime-b", 0)]));
    }

    #[test]
    fn thick_adapters_and_a_long_example_are_found() {
        let of = |code: usize, example: usize| {
            let (code, example) = ("a();\n".repeat(code), "\n".repeat(example));
            let half = code.len() / 2 / 5 * 5;
            check(&snippet(&[
                ("runtime-a/src/a.rs", &code[..half]),
                ("runtime-a/src/b.rs", &code[half..]),
                (OWN_RUNTIME.0, &example),
            ]))
        };
        assert_eq!(of(599, 200), [""; 0]);
        one_problem(&of(600, 200), "runtime-a: 600 lines");
        one_problem(&of(599, 201), "201 lines");
        one_problem(&check(&snippet(&[])), "missing");
    }
}
