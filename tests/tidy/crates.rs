//! Which package may depend on what, read from the manifests.

use super::source::{Tree, root};
use std::collections::BTreeMap;
use std::process::Command;

/// What a package may use.
struct Rule {
    folder: &'static str,
    package: &'static str,
    /// Packages of the workspace.
    inside: &'static [&'static str],
    outside: Outside,
}

/// Which packages from elsewhere are allowed.
enum Outside {
    /// These and no more, beside those for tests.
    Only { always: &'static [&'static str], for_tests: &'static [&'static str] },
    /// All but these.
    Not(&'static [&'static str]),
}

const RUNTIMES: &[&str] = &["tokio", "tokio-util", "smol", "async-io", "async-std", "libp2p"];

/// One rule a package, downwards.
const RULES: [Rule; 7] = [
    Rule {
        folder: "core",
        package: "portolan-core",
        inside: &[],
        outside: Outside::Only {
            always: &[
                "bytes",
                "prost",
                "thiserror",
                "unsigned-varint",
                "multiaddr",
                "libp2p-identity",
                "crc32fast",
                "siphasher",
                "httparse",
                "quick-xml",
            ],
            for_tests: &["proptest"],
        },
    },
    Rule {
        folder: "sim",
        package: "portolan-sim",
        inside: &["portolan-core"],
        outside: Outside::Not(RUNTIMES),
    },
    Rule {
        folder: "runtime",
        package: "portolan-runtime",
        inside: &["portolan-core"],
        outside: Outside::Not(RUNTIMES),
    },
    Rule {
        folder: "runtime-tokio",
        package: "portolan-tokio",
        inside: &["portolan-core", "portolan-runtime"],
        outside: Outside::Not(&["smol", "async-io", "async-std", "libp2p"]),
    },
    Rule {
        folder: "runtime-smol",
        package: "portolan-smol",
        inside: &["portolan-core", "portolan-runtime"],
        outside: Outside::Not(&["tokio", "tokio-util", "async-std", "libp2p"]),
    },
    Rule {
        folder: "cli",
        package: "portolan",
        inside: &[
            "portolan-core",
            "portolan-sim",
            "portolan-runtime",
            "portolan-tokio",
            "portolan-smol",
        ],
        outside: Outside::Not(&["libp2p"]),
    },
    Rule {
        folder: "tests",
        package: "portolan-tests",
        inside: &[
            "portolan-core",
            "portolan-sim",
            "portolan-runtime",
            "portolan-tokio",
            "portolan-smol",
            "portolan",
        ],
        outside: Outside::Not(&[]),
    },
];

/// A manifest's lines by section, comments left out.
fn sections(manifest: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut section = String::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']').trim_matches('[').to_owned();
            found.entry(section.clone()).or_default();
        } else if !line.is_empty() && !line.starts_with('#') {
            found.entry(section.clone()).or_default().push(line.to_owned());
        }
    }
    found
}

/// The dependencies of a manifest: name, the line that declares it, and whether tests alone use it.
fn dependencies(manifest: &str) -> Vec<(String, String, bool)> {
    let mut found = Vec::new();
    for (section, lines) in sections(manifest) {
        let table = section.rsplit('.').next().unwrap_or_default();
        let for_tests = table == "dev-dependencies";
        if !for_tests && !matches!(table, "dependencies" | "build-dependencies") {
            continue;
        }
        for line in lines {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            // The continued lines of a list of features are no names.
            if name.starts_with(|c: char| c.is_alphabetic()) {
                found.push((name.trim_matches('"').to_owned(), line.clone(), for_tests));
            }
        }
    }
    found
}

/// The value of a key in a section.
pub(crate) fn value(manifest: &str, section: &str, key: &str) -> Option<String> {
    let sections = sections(manifest);
    let line = sections.get(section)?.iter().find(|line| {
        line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
    })?;
    Some(line.split_once('=')?.1.trim().trim_matches('"').to_owned())
}

/// Dependencies and settings of packages that break the rules.
pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    let root = tree.get("Cargo.toml").unwrap_or_default();
    let members = value(root, "workspace", "members").unwrap_or_default();
    for member in members.split('"').filter(|part| part.contains(char::is_alphabetic)) {
        if !RULES.iter().any(|rule| rule.folder == member) {
            problems.push(format!("`{member}` has no rule: give it one in tests/tidy/crates.rs"));
        }
    }
    for rule in RULES {
        let path = format!("{}/Cargo.toml", rule.folder);
        match tree.get(&path) {
            Some(manifest) => problems.extend(objections(&rule, &path, manifest)),
            None => problems.push(format!("{path} is missing")),
        }
    }
    problems
}

/// What is wrong with one manifest.
fn objections(rule: &Rule, path: &str, manifest: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, line, for_tests) in dependencies(manifest) {
        let allowed = if RULES.iter().any(|rule| rule.package == name) {
            rule.inside.contains(&name.as_str())
        } else {
            match &rule.outside {
                Outside::Only { always, for_tests: more } => {
                    always.contains(&name.as_str()) || for_tests && more.contains(&name.as_str())
                }
                Outside::Not(never) => !never.contains(&name.as_str()),
            }
        };
        if !allowed {
            problems.push(format!("{path}: may not depend on `{name}`"));
        }
        if !line.contains("workspace = true") {
            problems.push(format!("{path}: `{name}` is not shared through the workspace"));
        }
        if rule.folder == "runtime" && line.contains("runtime-tokio") {
            problems.push(format!("{path}: `{name}` is bound to one runtime"));
        }
    }
    if value(manifest, "lints", "workspace").as_deref() != Some("true") {
        problems.push(format!("{path}: does not inherit the workspace's lints"));
    }
    for key in
        ["version.workspace", "edition.workspace", "rust-version.workspace", "license.workspace"]
    {
        if value(manifest, "package", key).as_deref() != Some("true") {
            problems.push(format!("{path}: lacks `{key} = true`"));
        }
    }
    problems
}

/// What cargo finds below a package: each line a package, its version, and its features.
pub(crate) fn resolved(package: &str) -> String {
    let output = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["tree", "--locked", "--offline", "--prefix", "none", "-e", "normal"])
        .args(["-f", "{p} {f}", "-p", package])
        .output()
        .expect("cargo can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Asynchronous runtimes among what cargo finds below a package. `quinn` has its channels from
/// tokio, which needs no runtime for it.
pub(crate) fn runtimes_below(resolved: &str, allowed: &[&str]) -> Vec<String> {
    let runtimes = RUNTIMES.iter().filter(|name| !allowed.contains(name));
    let runtimes: Vec<&str> = runtimes.copied().chain(["mio"]).collect();
    let mut problems = Vec::new();
    for line in resolved.lines() {
        let name = line.split(' ').next().unwrap_or_default();
        // A package that was shown before ends with a star, in place of nothing.
        let features = line.trim_end_matches(" (*)").rsplit(' ').next().unwrap_or_default();
        let is_bare = allowed.contains(&"quinn")
            && name == "tokio"
            && features.split(',').all(|feature| matches!(feature, "default" | "sync"));
        if runtimes.contains(&name) && !is_bare {
            problems.push(line.to_owned());
        }
    }
    problems.dedup();
    problems
}

#[cfg(test)]
mod tests {
    use super::super::{one_problem, snippet};
    use super::*;

    const HEAD: &str = "[package]\nversion.workspace = true\nedition.workspace = true\n\
        rust-version.workspace = true\nlicense.workspace = true\n[lints]\nworkspace = true\n";

    /// The problems of a workspace in which one manifest has these lines more.
    fn of(folder: &str, more: &str) -> Vec<String> {
        let texts: Vec<(String, String)> = RULES
            .iter()
            .map(|rule| {
                let more = if rule.folder == folder { more } else { "" };
                (format!("{}/Cargo.toml", rule.folder), format!("{HEAD}{more}"))
            })
            .collect();
        let mut files: Vec<(&str, &str)> =
            texts.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        files.push(("Cargo.toml", "[workspace]\nmembers = [\"core\", \"cli\"]"));
        check(&snippet(&files))
    }

    #[test]
    fn allowed_dependencies_pass() {
        let core =
            "[dependencies]\nbytes.workspace = true\n[dev-dependencies]\nproptest.workspace = true";
        assert_eq!(of("core", core), [""; 0]);
        assert_eq!(of("cli", "[dependencies]\nportolan-tokio.workspace = true"), [""; 0]);
    }

    #[test]
    fn arrows_that_climb_are_found() {
        one_problem(&of("core", "[dependencies]\ntokio.workspace = true"), "`tokio`");
        one_problem(&of("core", "[dependencies]\nproptest.workspace = true"), "`proptest`");
        one_problem(
            &of("runtime", "[dependencies]\nportolan-tokio.workspace = true"),
            "portolan-tokio",
        );
        one_problem(&of("runtime", "[target.x.dependencies]\ntokio.workspace = true"), "`tokio`");
        one_problem(&of("cli", "[dependencies]\nlibp2p = { workspace = true }"), "`libp2p`");
    }

    #[test]
    fn private_versions_and_lints_are_found() {
        one_problem(&of("cli", "[dependencies]\nclap = \"4\""), "not shared");
        let runtime =
            "[dependencies]\nquinn = { workspace = true, features = [\"runtime-tokio\"] }";
        one_problem(&of("runtime", runtime), "bound to one runtime");
        let bare = "[package]\nversion.workspace = true\nedition.workspace = true\n\
            rust-version.workspace = true\nlicense.workspace = true";
        one_problem(&objections(&RULES[0], "core/Cargo.toml", bare), "lints");
    }

    #[test]
    fn a_member_without_a_rule_is_found() {
        let tree = snippet(&[("Cargo.toml", "[workspace]\nmembers = [\"attic\"]")]);
        assert!(check(&tree)[0].contains("attic"));
    }

    #[test]
    fn a_runtime_below_is_found() {
        let quinn = ["quinn", "smol", "async-io"];
        let fine = "portolan-smol v0.1.0 (/a) \nsmol v2.0.2 \ntokio v1.5.0 default,sync\ntokio v1.5.0 default,sync (*)";
        assert_eq!(runtimes_below(fine, &quinn), [""; 0]);
        one_problem(&runtimes_below("tokio v1.5.0 default,net,sync", &quinn), "net");
        one_problem(&runtimes_below("tokio-util v0.7.0 codec", &quinn), "tokio-util");
        one_problem(&runtimes_below("mio v1.2.0 ", &quinn), "mio");
        one_problem(&runtimes_below("tokio v1.5.0 sync", &[]), "tokio");
        one_problem(&runtimes_below("smol v2.0.2 ", &[]), "smol");
    }
}
