//! A command line in one text, cut into its words.

use std::str::FromStr;

/// A program and its arguments. No shell is involved unless it is the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argv(Vec<String>);

/// A text that is no command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadCommand {
    /// There is no word in it.
    #[error("names no program")]
    Empty,
    /// A quote that is not closed.
    #[error("has a quote that is not closed")]
    OpenQuote,
    /// A backslash with nothing behind it.
    #[error("ends with a backslash")]
    OpenEscape,
}

impl Argv {
    /// The program.
    pub fn program(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    /// Its arguments.
    pub fn args(&self) -> &[String] {
        self.0.get(1..).unwrap_or_default()
    }
}

impl FromStr for Argv {
    type Err = BadCommand;

    /// Words are parted by white space. Single quotes keep everything as it is, double quotes keep white
    /// space; outside of single quotes a backslash keeps the next character. Nothing else is special.
    fn from_str(text: &str) -> Result<Argv, BadCommand> {
        let mut words = Vec::new();
        let mut word: Option<String> = None;
        let mut quote = None;
        let mut chars = text.chars();
        while let Some(char) = chars.next() {
            match (char, quote) {
                ('\\', None | Some('"')) => {
                    let kept = chars.next().ok_or(BadCommand::OpenEscape)?;
                    word.get_or_insert_default().push(kept);
                }
                ('\'' | '"', None) => {
                    quote = Some(char);
                    word.get_or_insert_default();
                }
                (_, Some(open)) if open == char => quote = None,
                (_, None) if char.is_whitespace() => words.extend(word.take()),
                _ => word.get_or_insert_default().push(char),
            }
        }
        if quote.is_some() {
            return Err(BadCommand::OpenQuote);
        }
        words.extend(word);
        match words.first() {
            Some(program) if !program.is_empty() => Ok(Argv(words)),
            _ => Err(BadCommand::Empty),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_as_people_expect() {
        let words = |text: &str| text.parse::<Argv>().map(|argv| argv.0);
        for (text, wanted) in [
            ("cat", &["cat"][..]),
            ("  tail  -n 5 ", &["tail", "-n", "5"]),
            ("sh -c 'echo \"$HOME\" | wc'", &["sh", "-c", "echo \"$HOME\" | wc"]),
            ("a \"b c\"'d e' f\\ g \\\\ ''", &["a", "b cd e", "f g", "\\", ""]),
            ("a \"b \\\" c\" *.txt", &["a", "b \" c", "*.txt"]),
        ] {
            let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
            assert_eq!(words(text), Ok(wanted), "{text}");
        }
        for (text, wrong) in [
            ("", BadCommand::Empty),
            ("  ", BadCommand::Empty),
            ("'' a", BadCommand::Empty),
            ("a 'b", BadCommand::OpenQuote),
            ("a \"b'", BadCommand::OpenQuote),
            ("a \\", BadCommand::OpenEscape),
        ] {
            assert_eq!(words(text), Err(wrong), "{text}");
        }
        let argv: Argv = "nc -l".parse().expect("a program");
        assert_eq!((argv.program(), argv.args()), ("nc", &["-l".to_owned()][..]));
    }
}
