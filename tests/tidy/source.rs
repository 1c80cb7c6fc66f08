//! The files of the repository, and as much understanding of Rust as the rules need: comments
//! told from code, strings blanked, and tokens with their lines.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Every text file of the repository by its path from the root, with `/` between the parts.
pub(crate) struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// A tree of these files.
    pub(crate) fn of(files: impl IntoIterator<Item = (String, String)>) -> Tree {
        Tree { files: files.into_iter().collect() }
    }

    /// The text of a file.
    pub(crate) fn get(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Whether a file or folder of this path exists.
    pub(crate) fn has(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        path.is_empty()
            || self.files.contains_key(path)
            || self.files.keys().any(|file| file.starts_with(&folder))
    }

    /// The files under `folder` (`""` is the root) whose names end with `ending`.
    pub(crate) fn under<'a>(
        &'a self,
        folder: &'a str,
        ending: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files
            .iter()
            .filter(move |(path, _)| path.starts_with(folder) && path.ends_with(ending))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The repository as it is on disk, without what is built or installed. Files that are not text
/// are kept with an empty text, so that links to them resolve.
pub(crate) fn tree() -> Tree {
    let mut files = Vec::new();
    walk(&root(), "", &mut files);
    Tree::of(files)
}

fn walk(folder: &Path, prefix: &str, files: &mut Vec<(String, String)>) {
    let entries = fs::read_dir(folder).expect("a folder of the repository can be listed");
    for entry in entries {
        let entry = entry.expect("an entry of a folder can be read");
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        let kind = entry.file_type().expect("an entry has a type");
        if kind.is_dir() {
            if !matches!(name.as_str(), "target" | "node_modules" | ".git") {
                walk(&entry.path(), &format!("{path}/"), files);
            }
        } else if kind.is_file() {
            // A file may vanish between listing and reading while an editor saves it.
            if let Ok(bytes) = fs::read(entry.path()) {
                files.push((path, String::from_utf8(bytes).unwrap_or_default()));
            }
        }
    }
}

/// Rust source taken apart. Both texts have the lines and columns of the original.
pub(crate) struct Split {
    /// The code; comments and the insides of strings and characters are blank.
    pub(crate) code: String,
    /// The comments; everything else is blank.
    pub(crate) comments: String,
}

/// Tells comments from code.
pub(crate) fn split(text: &str) -> Split {
    let chars: Vec<char> = text.chars().collect();
    let mut cutter = Cutter { chars: &chars, at: 0, code: String::new(), comments: String::new() };
    while cutter.at < chars.len() {
        cutter.step();
    }
    Split { code: cutter.code, comments: cutter.comments }
}

struct Cutter<'a> {
    chars: &'a [char],
    at: usize,
    code: String,
    comments: String,
}

impl Cutter<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn step(&mut self) {
        match (self.peek(0), self.peek(1)) {
            (Some('/'), Some('/')) => self.line_comment(),
            (Some('/'), Some('*')) => self.block_comment(),
            (Some('"'), _) => self.string(),
            (Some('r'), Some('"' | '#')) if !self.within_word() => self.raw_string(),
            (Some('\''), _) => self.quote(),
            _ => self.keep(),
        }
    }

    /// Whether the character before this one belongs to the same word (`b` and `c` are prefixes
    /// of raw strings, not words).
    fn within_word(&self) -> bool {
        let is_word = |back: usize| {
            let c = self.at.checked_sub(back).map(|at| self.chars[at]);
            c.is_some_and(|c| c.is_alphanumeric() || c == '_')
        };
        let prefixed = matches!(self.at.checked_sub(1).map(|at| self.chars[at]), Some('b' | 'c'));
        is_word(1) && (!prefixed || is_word(2))
    }

    fn keep(&mut self) {
        let c = self.chars[self.at];
        self.code.push(c);
        self.comments.push(if c == '\n' { c } else { ' ' });
        self.at += 1;
    }

    fn blank(&mut self) {
        let c = self.chars[self.at];
        let shown = if c == '\n' { c } else { ' ' };
        self.code.push(shown);
        self.comments.push(shown);
        self.at += 1;
    }

    fn comment(&mut self) {
        let c = self.chars[self.at];
        self.code.push(if c == '\n' { c } else { ' ' });
        self.comments.push(c);
        self.at += 1;
    }

    fn line_comment(&mut self) {
        while self.peek(0).is_some_and(|c| c != '\n') {
            self.comment();
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        while let Some(c) = self.peek(0) {
            match (c, self.peek(1)) {
                ('/', Some('*')) => depth += 1,
                ('*', Some('/')) => depth -= 1,
                _ => {
                    self.comment();
                    continue;
                }
            }
            self.comment();
            self.comment();
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        self.keep();
        while let Some(c) = self.peek(0) {
            match c {
                '"' => return self.keep(),
                '\\' if self.peek(1).is_some() => {
                    self.blank();
                    self.blank();
                }
                _ => self.blank(),
            }
        }
    }

    fn raw_string(&mut self) {
        let hashes = self.chars[self.at + 1..].iter().take_while(|c| **c == '#').count();
        if self.peek(1 + hashes) != Some('"') {
            return self.keep(); // A raw identifier.
        }
        for _ in 0..hashes + 2 {
            self.keep();
        }
        while let Some(c) = self.peek(0) {
            let ends = c == '"' && (1..=hashes).all(|n| self.peek(n) == Some('#'));
            if ends {
                for _ in 0..=hashes {
                    self.keep();
                }
                return;
            }
            self.blank();
        }
    }

    /// A character, or the mark of a lifetime.
    fn quote(&mut self) {
        let inside = match (self.peek(1), self.peek(2)) {
            (Some('\\'), _) => {
                self.chars[self.at + 3..].iter().take_while(|c| **c != '\'').count() + 2
            }
            (Some(_), Some('\'')) => 1,
            _ => return self.keep(),
        };
        self.keep();
        for _ in 0..inside.min(self.chars.len() - self.at) {
            self.blank();
        }
        if self.peek(0).is_some() {
            self.keep();
        }
    }
}

/// What code is made of, as far as the rules care.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// An identifier, a keyword or a number.
    Word(String),
    /// `::`
    Path,
    /// Any other character that is not white space.
    Mark(char),
}

impl Token {
    /// The word, if it is one.
    pub(crate) fn word(&self) -> Option<&str> {
        match self {
            Token::Word(word) => Some(word),
            Token::Path | Token::Mark(_) => None,
        }
    }
}

/// The tokens of code that went through [`split`], each with its line, counted from 1.
pub(crate) fn tokens(code: &str) -> Vec<(usize, Token)> {
    let mut found = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let length =
                rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            let taken = if length > 0 {
                found.push((index + 1, Token::Word(rest[..length].to_owned())));
                length
            } else if rest.starts_with("::") {
                found.push((index + 1, Token::Path));
                2
            } else {
                if !first.is_whitespace() {
                    found.push((index + 1, Token::Mark(first)));
                }
                first.len_utf8()
            };
            rest = &rest[taken..];
        }
    }
    found
}

#[test]
fn comments_and_strings_are_told_from_code() {
    let text = "let a = \"// no\"; // yes \"x\nlet b = r#\"todo!\"#; /* a /* b */ c */ let c = '\"';\nfn f<'a>(x: &'a u8) {} let d = '\\''; let r#type = 1;";
    let Split { code, comments } = split(text);
    assert_eq!(code.lines().count(), 3);
    assert!(!code.contains("no") && !code.contains("yes") && !code.contains("todo"), "{code}");
    assert!(code.contains("let c = ' ';") && code.contains("fn f<'a>(x: &'a u8) {}"), "{code}");
    assert!(code.contains("let d = '  '; let r#type = 1;"), "{code}");
    assert!(comments.contains("// yes \"x") && comments.contains("/* a /* b */ c */"));
    assert!(!comments.contains("let"), "{comments}");
}

#[test]
fn tokens_carry_their_lines() {
    let found = tokens("use crate::a;\n  b::<C>()");
    assert_eq!(found[1], (1, Token::Word("crate".into())));
    assert_eq!(found[2], (1, Token::Path));
    assert_eq!(found[5], (2, Token::Word("b".into())));
}
