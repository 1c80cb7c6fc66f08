//! What an input showed: the words of it, by which the harness tells new inputs from more of the
//! same. It takes the place that a compiler's coverage has in other fuzzers.

use std::collections::BTreeSet;
use std::fmt;

/// The words that one input, or many, have shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trail {
    words: BTreeSet<String>,
}

impl Trail {
    /// Note a word. Words are few: variants and orders of magnitude, never values.
    pub(crate) fn saw(&mut self, word: fmt::Arguments<'_>) {
        let word = word.to_string();
        self.words.insert(word);
    }

    /// Take in what `other` shows; whether some of it is new.
    pub(crate) fn learn(&mut self, other: Trail) -> bool {
        let before = self.words.len();
        self.words.extend(other.words);
        self.words.len() > before
    }

    /// Words of this trail that are not in `known`.
    pub(crate) fn news<'a>(&'a self, known: &'a Trail) -> impl Iterator<Item = &'a String> {
        self.words.difference(&known.words)
    }

    /// How many words there are.
    pub(crate) fn len(&self) -> usize {
        self.words.len()
    }
}

/// An order of magnitude: 0, 1, 2, 3 (2 to 3), 4 to 7, and so on.
pub(crate) fn magnitude(len: usize) -> u32 {
    usize::BITS - len.leading_zeros()
}

/// The first word of what `Debug` prints: the name of a variant, without what it holds.
pub(crate) fn variant(value: &impl fmt::Debug) -> String {
    let text = format!("{value:?}");
    let end = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
    text[..end].to_owned()
}
