//! Rules about Markdown files and the gate.

use super::crates::value;
use super::source::{Tree, root};

/// The commands that the README promises, and the check that runs the second.
const DEMO: &str = "cargo run --release -- demo";
const TEST: &str = "cargo test --workspace";
/// The file that has the README's example compiled, and how it says so.
const COMPILED: (&str, &str) = ("tests/src/lib.rs", "#[doc = include_str!(\"../../README.md\")]");
/// The gate.
const GATE: &str = ".ci/run";

/// Links to files or headings that do not exist.
pub(crate) fn check_links(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, text) in tree.under("", ".md") {
        for (line, target) in links(text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((&target, ""));
            let file = resolve(path, file);
            if !tree.has(&file) {
                problems
                    .push(format!("{path}:{line}: {target} leads to {file}, which is not there"));
            } else if !heading.is_empty()
                && !tree.get(&file).is_some_and(|text| anchors(text).iter().any(|a| a == heading))
            {
                problems.push(format!("{path}:{line}: {file} has no heading #{heading}"));
            }
        }
    }
    problems
}

/// The lines of a text that are prose, with their numbers; fenced blocks are blank.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (index + 1, if fenced || fence { "" } else { line })
    })
}

/// The lines inside fenced blocks, with their numbers.
fn fenced(text: &str) -> Vec<(usize, &str)> {
    let outside: Vec<_> = prose(text).collect();
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    lines
        .zip(outside)
        .filter(|((_, line), (_, prose))| prose.is_empty() && !line.trim_start().starts_with("```"))
        .map(|(line, _)| line)
        .collect()
}

/// The targets of inline links, with their lines. Code spans are no links.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let spoken: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for after in spoken.split("](").skip(1) {
            if let Some((target, _)) = after.split_once(')') {
                found.push((
                    number,
                    target.split_whitespace().next().unwrap_or_default().to_owned(),
                ));
            }
        }
    }
    found
}

/// A target relative to the file that names it, as a path from the root.
fn resolve(from: &str, target: &str) -> String {
    if target.is_empty() {
        return from.to_owned();
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            ".." => {
                parts.pop();
            }
            "." | "" => {}
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// The anchors of a text's headings.
fn anchors(text: &str) -> Vec<String> {
    prose(text)
        .filter(|(_, line)| line.starts_with('#'))
        .map(|(_, line)| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept =
                title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// Promises of the README that nothing keeps, and values that are quoted instead of read.
pub(crate) fn check_readme(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    let manifest = tree.get("Cargo.toml").unwrap_or_default();
    let readme = tree.get("README.md").unwrap_or_default();
    let shown: Vec<&str> = fenced(readme).into_iter().map(|(_, line)| line.trim()).collect();
    for command in [DEMO, TEST] {
        if !shown.contains(&command) {
            problems.push(format!("README.md does not show `{command}`"));
        }
    }
    if value(manifest, "workspace", "default-members").as_deref() != Some("[\"cli\"]") {
        problems.push("`cargo run` at the root does not start the cli: see default-members".into());
    }
    let (file, included) = COMPILED;
    if !tree.get(file).is_some_and(|text| text.contains(included)) {
        problems.push(format!("{file} does not compile the README's example: `{included}`"));
    }
    problems.extend(unknown_flags(tree, readme));
    for key in ["version", "rust-version"] {
        let value = value(manifest, "workspace.package", key).unwrap_or_default();
        let quoting = tree
            .under("", ".md")
            .chain(tree.under("", "clippy.toml"))
            .chain(tree.under(GATE, ""))
            .filter(|(path, _)| *path != "CHANGELOG.md");
        for (path, text) in quoting {
            if let Some(line) = text.lines().position(|line| quotes(line, &value)) {
                problems.push(format!("{path}:{}: quotes the {key} of Cargo.toml", line + 1));
            }
        }
    }
    problems
}

/// Whether a line has this number standing by itself.
fn quotes(line: &str, number: &str) -> bool {
    !number.is_empty()
        && line
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '.'))
            .any(|word| word.trim_matches(|c: char| c == '.' || c.is_alphabetic()) == number)
}

/// Subcommands and flags that the README shows and the cli does not declare.
fn unknown_flags(tree: &Tree, readme: &str) -> Vec<String> {
    let cli: String = tree.under("cli/src/", ".rs").map(|(_, text)| text).collect();
    let mut problems = Vec::new();
    for (number, line) in fenced(readme) {
        let Some(arguments) = line
            .trim()
            .strip_prefix("portolan ")
            .or_else(|| line.trim().split_once(" -- ").map(|(_, arguments)| arguments))
        else {
            continue;
        };
        let mut words = arguments.split_whitespace();
        let command = words.next().unwrap_or_default();
        let mut variant = command.to_owned();
        variant[..1.min(command.len())].make_ascii_uppercase();
        let has =
            |name: &str| cli.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|w| w == name);
        if !has(&variant) {
            problems.push(format!("README.md:{number}: the cli has no command `{command}`"));
        }
        for flag in words.filter_map(|word| word.strip_prefix("--")) {
            if !has(&flag.replace('-', "_")) {
                problems.push(format!("README.md:{number}: the cli has no flag `--{flag}`"));
            }
        }
    }
    problems
}

/// Steps that the gate lacks.
pub(crate) fn check_gate(tree: &Tree) -> Vec<String> {
    let Some(gate) = tree.get(GATE) else {
        return vec![format!("{GATE} is missing")];
    };
    let mut problems: Vec<String> = [
        "set -euo pipefail",
        "cargo fmt --all --check",
        "cargo clippy --workspace --all-targets",
        "-D warnings",
        "cargo doc --workspace --no-deps",
        TEST,
        "PORTOLAN_REQUIRE_LAB=1",
        "--locked",
        "tests/install-lab.sh",
        "tests/mutants.sh",
    ]
    .iter()
    .filter(|step| !gate.contains(**step))
    .map(|step| format!("{GATE} lacks `{step}`"))
    .collect();
    problems.extend(not_executable());
    problems
}

/// Scripts that cannot be started.
#[cfg(unix)]
fn not_executable() -> Vec<String> {
    use std::os::unix::fs::PermissionsExt;
    [GATE, "tests/install-lab.sh", "tests/full.sh", "tests/mutants.sh"]
        .iter()
        .filter(|path| {
            std::fs::metadata(root().join(path))
                .map_or(true, |m| m.permissions().mode() & 0o111 == 0)
        })
        .map(|path| format!("{path} is not executable"))
        .collect()
}

#[cfg(not(unix))]
fn not_executable() -> Vec<String> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::super::{one_problem, snippet};
    use super::*;

    #[test]
    fn dead_links_are_found() {
        let of = |text: &str| {
            check_links(&snippet(&[("docs/a.md", text), ("docs/b/c.md", "## The End, now")]))
        };
        assert_eq!(of("[b](b/c.md) [up](../docs/b/c.md#the-end-now) [x](https://x.y/z)"), [""; 0]);
        assert_eq!(
            of("`[no](link.md)`\n```\n[no](link.md)\n```\n# Here\n[h](#here) [d](b)"),
            [""; 0]
        );
        one_problem(&of("\n[gone](b/d.md)"), "docs/a.md:2");
        one_problem(&of("[gone](b/c.md#the-beginning)"), "#the-beginning");
        one_problem(&of("[gone](#nowhere)"), "#nowhere");
    }

    /// The problems of a README with this line in a block, beside the two commands.
    fn readme(line: &str) -> Vec<String> {
        let text = format!("```sh\n{DEMO}\n{TEST}\n{line}\n```\n");
        check_readme(&snippet(&[
            ("README.md", &text),
            (COMPILED.0, COMPILED.1),
            (
                "Cargo.toml",
                "[workspace]\ndefault-members = [\"cli\"]\n[workspace.package]\nversion = \"0.7.0\"\nrust-version = \"1.77\"",
            ),
            ("cli/src/main.rs", "enum Command { Demo, Check { allow_private: bool } }"),
        ]))
    }

    #[test]
    fn empty_promises_are_found() {
        assert_eq!(readme("portolan check --allow-private"), [""; 0]);
        one_problem(&readme("portolan frobnicate"), "frobnicate");
        one_problem(&readme("portolan check --fast"), "--fast");
        one_problem(&readme("# needs Rust 1.77."), "rust-version");
        one_problem(&readme("# version \"0.7.0\""), "quotes the version");
        assert!(!check_readme(&snippet(&[("README.md", "")])).is_empty());
    }

    #[test]
    fn a_gate_without_its_steps_is_found() {
        let steps = check_gate(&snippet(&[(GATE, "cargo test --workspace")]));
        assert!(steps.iter().any(|step| step.contains("cargo fmt")), "{steps:?}");
        one_problem(&check_gate(&snippet(&[])), "missing");
    }
}
