//! The configuration file: one TOML file for `serve` and `watch`, a table for each. A key is an option
//! without its dashes; what the command line says replaces what the file says.
//!
//! The file is turned into arguments in front of the others, so that both are read by the same rules.

use crate::program::args::Args;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command, CommandFactory, Parser};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The commands that read a file.
const COMMANDS: [&str; 2] = ["serve", "watch"];
/// The flag that names it.
const FLAG: &str = "config";
/// The largest file that is read, bytes; ours: thousands of addresses.
const FILE_MAX: u64 = 256 * 1_024;
/// From which likeness on a name is taken for a misspelt one (Jaro-Winkler, of 1).
const LIKENESS: f64 = 0.7;

/// What is wrong with a configuration file, in one line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadConfig {
    #[error("cannot read the configuration {path}: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the configuration {0} has more than {FILE_MAX} bytes")]
    TooLong(PathBuf),
    #[error("{path}:{line}: {detail}")]
    Syntax { path: PathBuf, line: usize, detail: String },
    #[error("{path}: there is no [{table}]; {hint}")]
    UnknownTable { path: PathBuf, table: String, hint: String },
    #[error("{path}: [{table}] has no `{key}`; {hint}")]
    UnknownKey { path: PathBuf, table: String, key: String, hint: String },
    #[error("{path}: `{key}` in [{table}] wants {wanted}")]
    Type { path: PathBuf, table: String, key: String, wanted: &'static str },
    #[error("{path}: [{table}]: {detail}")]
    Value { path: PathBuf, table: String, detail: String },
}

/// The arguments with those of the file in them that they name, if they name one.
pub(crate) fn expand(args: Vec<OsString>) -> Result<Vec<OsString>, BadConfig> {
    let Some(name) = args.get(1).and_then(|name| COMMANDS.into_iter().find(|one| name == one))
    else {
        return Ok(args);
    };
    let Some(path) = named(&args) else { return Ok(args) };
    let tables = read(&path)?;
    let mut all = args[..2].to_vec();
    let said = |key: &str| args.iter().any(|arg| is_flag(arg, key));
    let keys = tables.into_iter().filter(|(table, _)| *table == name).flat_map(|(_, keys)| keys);
    all.extend(keys.filter(|(key, _)| !said(key)).flat_map(|(_, words)| words));
    all.extend_from_slice(&args[2..]);
    Ok(all)
}

/// Whether a file may be used as it is.
pub(crate) fn check(path: &Path) -> Result<(), BadConfig> {
    read(path).map(drop)
}

/// The file that the arguments name.
fn named(args: &[OsString]) -> Option<PathBuf> {
    let mut args = args.iter().skip(2);
    while let Some(arg) = args.next() {
        if arg == "--" {
            return None;
        }
        if is_flag(arg, FLAG) {
            let text = arg.to_string_lossy();
            let inline = text.split_once('=').map(|(_, path)| PathBuf::from(path));
            return inline.or_else(|| args.next().map(PathBuf::from));
        }
    }
    None
}

/// Whether an argument is this option.
fn is_flag(arg: &OsStr, key: &str) -> bool {
    let rest = arg.to_str().and_then(|text| text.strip_prefix("--")?.strip_prefix(key));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
}

/// The arguments that each key of a table stands for.
type Keys = Vec<(String, Vec<OsString>)>;

/// The tables of a file as arguments, each found to be good.
fn read(path: &Path) -> Result<Vec<(&'static str, Keys)>, BadConfig> {
    let text = text(path)?;
    let tables: Table = text.parse().map_err(|error: toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = text.get(..at).unwrap_or_default().matches('\n').count() + 1;
        let detail = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
        BadConfig::Syntax { path: path.into(), line, detail }
    })?;
    let mut all = Vec::new();
    for (table, value) in &tables {
        let Some(name) = COMMANDS.into_iter().find(|name| name == table) else {
            let hint = hint(table, COMMANDS.into_iter());
            return Err(BadConfig::UnknownTable { path: path.into(), table: table.clone(), hint });
        };
        let Value::Table(values) = value else {
            let hint = format!("write [{table}] above its options");
            return Err(BadConfig::UnknownTable { path: path.into(), table: table.clone(), hint });
        };
        let keys = keys(path, name, values)?;
        is_good(path, name, &keys)?;
        all.push((name, keys));
    }
    Ok(all)
}

fn text(path: &Path) -> Result<String, BadConfig> {
    let unreadable = |source| BadConfig::Unreadable { path: path.into(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_MAX {
        return Err(BadConfig::TooLong(path.into()));
    }
    Ok(text)
}

fn command(name: &str) -> Command {
    let mut command = Args::command();
    command.build();
    command.find_subcommand(name).cloned().unwrap_or(command)
}

fn keys(path: &Path, name: &str, values: &Table) -> Result<Keys, BadConfig> {
    let command = command(name);
    let is_option = |arg: &&Arg| !matches!(arg.get_long(), None | Some("help" | "version" | FLAG));
    let options: Vec<&Arg> = command.get_arguments().filter(is_option).collect();
    let mut all = Vec::new();
    for (key, value) in values {
        let Some(arg) = options.iter().find(|arg| arg.get_long() == Some(key)) else {
            let hint = hint(key, options.iter().filter_map(|arg| arg.get_long()));
            let (path, table, key) = (path.into(), name.to_owned(), key.clone());
            return Err(BadConfig::UnknownKey { path, table, key, hint });
        };
        let words = words(arg, key, value).map_err(|wanted| {
            let (path, table, key) = (path.into(), name.to_owned(), key.clone());
            BadConfig::Type { path, table, key, wanted }
        })?;
        all.push((key.clone(), words));
    }
    Ok(all)
}

/// The arguments for one key, or what its value should be.
fn words(arg: &Arg, key: &str, value: &Value) -> Result<Vec<OsString>, &'static str> {
    let word = |value: &Value| match value {
        Value::String(text) => Some(format!("--{key}={text}").into()),
        Value::Integer(number) => Some(format!("--{key}={number}").into()),
        Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Array(_)
        | Value::Table(_) => None,
    };
    match (arg.get_action(), value) {
        (ArgAction::SetTrue, Value::Boolean(true)) => Ok(vec![format!("--{key}").into()]),
        (ArgAction::SetTrue, Value::Boolean(false)) => Ok(Vec::new()),
        (ArgAction::SetTrue, _) => Err("true or false"),
        (ArgAction::Append, Value::Array(all)) => {
            all.iter().map(|one| word(one).ok_or("a list of texts")).collect()
        }
        (ArgAction::Append, one) => Ok(vec![word(one).ok_or("a text, or a list of texts")?]),
        (_, one) => Ok(vec![word(one).ok_or("a text or a number")?]),
    }
}

/// Whether the options of a table are good, but for those that the command line may still name.
fn is_good(path: &Path, name: &str, keys: &Keys) -> Result<(), BadConfig> {
    let words = keys.iter().flat_map(|(_, words)| words.iter().cloned());
    let args = ["portolan", name].into_iter().map(OsString::from).chain(words);
    match Args::try_parse_from(args) {
        Err(error) if error.kind() != ErrorKind::MissingRequiredArgument => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            let detail = first.strip_prefix("error: ").unwrap_or(first).to_owned();
            Err(BadConfig::Value { path: path.into(), table: name.to_owned(), detail })
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// What may have been meant.
fn hint<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let likeness = |one: &str| strsim::jaro_winkler(name, one);
    let nearest = known.clone().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest.filter(|nearest| likeness(nearest) >= LIKENESS) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!("there are {}", known.collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A file with this text, removed when dropped.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(text: &str) -> Scratch {
            let name = format!("portolan-config-{}-{}", std::process::id(), rand::random::<u64>());
            let path = std::env::temp_dir().join(name);
            fs::write(&path, text).expect("a writable directory");
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    fn expanded(text: &str, args: &[&str]) -> Result<Vec<String>, String> {
        let file = Scratch::new(text);
        let path = file.0.to_string_lossy().into_owned();
        let args = args.iter().map(|arg| arg.replace("FILE", &path).into()).collect();
        let told = |error: BadConfig| error.to_string().replace(&path, "FILE");
        let all = expand(args).map_err(told)?;
        Ok(all.iter().map(|arg| arg.to_string_lossy().replace(&path, "FILE")).collect())
    }

    #[test]
    fn a_file_says_what_flags_say_and_flags_say_it_louder() {
        let text = "[serve]\nlisten = ['/ip4/127.0.0.1/tcp/0', '/ip4/127.0.0.1/tcp/1']\nrelay = true\n\
                    max-circuits = 7\nallow-private = false\n";
        let all = expanded(text, &["portolan", "serve", "--max-circuits", "9", "--config", "FILE"]);
        let wanted = [
            "portolan",
            "serve",
            "--listen=/ip4/127.0.0.1/tcp/0",
            "--listen=/ip4/127.0.0.1/tcp/1",
            "--relay",
            "--max-circuits",
            "9",
            "--config",
            "FILE",
        ];
        assert_eq!(all, Ok(wanted.map(str::to_owned).to_vec()));
        let untouched = ["portolan", "serve", "--listen", "/ip4/127.0.0.1/tcp/0"];
        assert_eq!(expanded("", &untouched), Ok(untouched.map(str::to_owned).to_vec()));
        let other = ["portolan", "connect", "--config", "FILE"];
        assert_eq!(expanded("nonsense", &other), Ok(other.map(str::to_owned).to_vec()));
    }

    #[test]
    fn what_is_wrong_is_said_in_a_line_with_what_may_have_been_meant() {
        let told = |text| expanded(text, &["portolan", "serve", "--config=FILE"]).expect_err("bad");
        for (text, says) in [
            ("[serve]\nlisten = [\n", "FILE:2: unclosed array"),
            ("[sevre]\n", "FILE: there is no [sevre]; did you mean `serve`?"),
            ("serve = 5\n", "FILE: there is no [serve]; write [serve] above its options"),
            ("[serve]\nlisen = 'x'\n", "FILE: [serve] has no `lisen`; did you mean `listen`?"),
            ("[serve]\nconfig = 'x'\n", "FILE: [serve] has no `config`; "),
            ("[serve]\nrelay = 'yes'\n", "FILE: `relay` in [serve] wants true or false"),
            ("[serve]\nlisten = [5.5]\n", "FILE: `listen` in [serve] wants a list of texts"),
            (
                "[serve]\nmax-circuits = true\n",
                "FILE: `max-circuits` in [serve] wants a text or a number",
            ),
            (
                "[serve]\nlisten = ['/ip4/1.2.3.4']\n",
                "FILE: [serve]: invalid value '/ip4/1.2.3.4' for",
            ),
            ("[serve]\nmax-circuits = 0\nrelay = true\n", "FILE: [serve]: invalid value '0' for"),
        ] {
            let said = told(text);
            assert!(said.starts_with(says) && !said.contains('\n'), "{said}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_or_too_long_is_named() {
        let missing = expand(
            ["portolan", "watch", "--config", "/nowhere/at/all"].map(OsString::from).to_vec(),
        );
        let said = missing.expect_err("there is none").to_string();
        assert!(said.starts_with("cannot read the configuration /nowhere/at/all: "), "{said}");
        let long = "#".repeat(usize::try_from(FILE_MAX).expect("it is small") + 1);
        let said =
            expanded(&long, &["portolan", "serve", "--config", "FILE"]).expect_err("too long");
        assert_eq!(said, "the configuration FILE has more than 262144 bytes");
    }
}
