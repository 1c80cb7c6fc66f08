//! The text of a story: lines of facts, the divider, the expected transcript; and the words of
//! one line.

use portolan_core::wire::multiaddr::{Decoded, Multiaddr, from_multiaddr};
use portolan_core::{Addr, Class, ConnId, DialId, Duration, ListenerId, Protocol, Side, StreamId};
use std::collections::VecDeque;
use std::net::IpAddr;

/// What stands between the facts and the transcript.
pub(crate) const DIVIDER: &str = "----";

/// A story, cut into its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Script {
    /// Every line above the divider.
    facts: Vec<String>,
    /// Every line below it.
    pub(crate) expected: Vec<String>,
    /// The number of the first line below the divider.
    pub(crate) expected_from: usize,
}

impl Script {
    pub(crate) fn read(text: &str) -> Script {
        let mut facts: Vec<String> = text.lines().map(|line| line.trim_end().to_owned()).collect();
        let divider = facts.iter().position(|line| line == DIVIDER).unwrap_or(facts.len());
        let expected = facts.split_off(divider).into_iter().skip(1).collect();
        Script { facts, expected, expected_from: divider + 2 }
    }

    /// Whether the first line says what the story tells.
    pub(crate) fn is_titled(&self) -> bool {
        self.facts.first().is_some_and(|line| line.len() > 2 && line.starts_with("# "))
    }

    /// The lines that say something, with their numbers; comments are cut off.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (usize, &str)> {
        let cut = |line: &'_ str| line.split(" #").next().map_or(0, str::len);
        self.facts.iter().enumerate().filter_map(move |(index, line)| {
            let said = if line.starts_with('#') { "" } else { line[..cut(line)].trim() };
            (!said.is_empty()).then_some((index + 1, said))
        })
    }

    /// Everything above the divider, as it was written.
    pub(crate) fn facts_text(&self) -> String {
        self.facts.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// The words of one line, taken off one by one. A word with `=` in it is an option and may stand
/// anywhere.
#[derive(Clone, Debug)]
pub(crate) struct Words<'a> {
    plain: VecDeque<&'a str>,
    options: Vec<(&'a str, &'a str)>,
}

/// What is wrong with a line.
pub(crate) type Wrong = String;

impl<'a> Words<'a> {
    pub(crate) fn of(line: &'a str) -> Words<'a> {
        let mut words = Words { plain: VecDeque::new(), options: Vec::new() };
        for word in line.split_whitespace() {
            match word.split_once('=') {
                Some(option) => words.options.push(option),
                None => words.plain.push_back(word),
            }
        }
        words
    }

    /// The next plain word, read as a `T`.
    pub(crate) fn take<T: Word>(&mut self) -> Result<T, Wrong> {
        match self.plain.pop_front() {
            Some(word) => T::read(word).ok_or_else(|| expected(T::EXPECTED, word)),
            None => Err(format!("expected {} here, found the end of the line", T::EXPECTED)),
        }
    }

    /// The next plain word, if it reads as a `T`.
    pub(crate) fn take_if<T: Word>(&mut self) -> Option<T> {
        let value = T::read(self.plain.front()?)?;
        self.plain.pop_front();
        Some(value)
    }

    /// Whether the plain word `flag` is there; takes it off.
    pub(crate) fn flag(&mut self, flag: &str) -> bool {
        let at = self.plain.iter().position(|word| *word == flag);
        at.and_then(|at| self.plain.remove(at)).is_some()
    }

    /// The value of the option `name`.
    pub(crate) fn option<T: Word>(&mut self, name: &str) -> Result<Option<T>, Wrong> {
        let Some(at) = self.options.iter().position(|(option, _)| *option == name) else {
            return Ok(None);
        };
        let (_, value) = self.options.remove(at);
        let read = T::read(value).ok_or_else(|| expected(T::EXPECTED, value));
        read.map(Some).map_err(|wrong| format!("{name}: {wrong}"))
    }

    /// The values of the option `name`, separated by commas.
    pub(crate) fn list<T: Word>(&mut self, name: &str) -> Result<Vec<T>, Wrong> {
        let Some(all) = self.option::<String>(name)? else {
            return Ok(Vec::new());
        };
        let read = |value| T::read(value).ok_or_else(|| expected(T::EXPECTED, value));
        all.split(',').filter(|value| !value.is_empty()).map(read).collect()
    }

    /// Nothing may be left over.
    pub(crate) fn done(self) -> Result<(), Wrong> {
        let option = self.options.first().map(|(name, value)| format!("{name}={value}"));
        match self.plain.front().map(|word| (*word).to_owned()).or(option) {
            None => Ok(()),
            Some(word) => Err(expected("the end of the line", &word)),
        }
    }
}

pub(crate) fn expected(what: &str, found: &str) -> Wrong {
    format!("expected {what}, found {found:?}")
}

/// Something that one word can say.
pub(crate) trait Word: Sized {
    /// What to write, for the error.
    const EXPECTED: &'static str;

    fn read(word: &str) -> Option<Self>;
}

impl Word for String {
    const EXPECTED: &'static str = "a word";

    fn read(word: &str) -> Option<String> {
        Some(word.to_owned())
    }
}

impl Word for Addr {
    const EXPECTED: &'static str = "an address such as /ip4/44.0.0.1/tcp/4001";

    fn read(word: &str) -> Option<Addr> {
        let read = from_multiaddr(&word.parse::<Multiaddr>().ok()?);
        if let Decoded::Direct { addr, peer: None } = read { Some(addr) } else { None }
    }
}

impl Word for IpAddr {
    const EXPECTED: &'static str = "an IP address";

    fn read(word: &str) -> Option<IpAddr> {
        word.parse().ok()
    }
}

impl Word for u64 {
    const EXPECTED: &'static str = "a number";

    fn read(word: &str) -> Option<u64> {
        word.parse().ok()
    }
}

impl Word for u32 {
    const EXPECTED: &'static str = "a number";

    fn read(word: &str) -> Option<u32> {
        word.parse().ok()
    }
}

impl Word for Duration {
    const EXPECTED: &'static str = "a span such as 50ms, 2s, 10m or 24h";

    fn read(word: &str) -> Option<Duration> {
        let digits = word.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = word[..digits].parse().ok()?;
        let millis = match &word[digits..] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        Some(Duration::from_millis(number.checked_mul(millis)?))
    }
}

/// By how much a clock is set forward or back, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shift(pub(crate) i64);

impl Word for Shift {
    const EXPECTED: &'static str = "a span with its sign such as +10m or -24h";

    fn read(word: &str) -> Option<Shift> {
        let (sign, span) = word.split_at_checked(1)?;
        let millis = i64::try_from(Duration::read(span)?.as_millis()).ok()?;
        match sign {
            "+" => Some(Shift(millis)),
            "-" => Some(Shift(-millis)),
            _ => None,
        }
    }
}

impl Word for Class {
    const EXPECTED: &'static str = "a class such as ip4/tcp or ip6/quic";

    fn read(word: &str) -> Option<Class> {
        Class::ALL.into_iter().find(|class| class.to_string() == word)
    }
}

fn numbered(word: &str, letter: char) -> Option<u64> {
    word.strip_prefix(letter)?.parse().ok()
}

impl Word for ConnId {
    const EXPECTED: &'static str = "a connection such as c1";

    fn read(word: &str) -> Option<ConnId> {
        numbered(word, 'c').map(ConnId)
    }
}

impl Word for ListenerId {
    const EXPECTED: &'static str = "a listener such as l1";

    fn read(word: &str) -> Option<ListenerId> {
        numbered(word, 'l').map(ListenerId)
    }
}

impl Word for DialId {
    const EXPECTED: &'static str = "a dial such as d1";

    fn read(word: &str) -> Option<DialId> {
        numbered(word, 'd').map(DialId)
    }
}

impl Word for Protocol {
    const EXPECTED: &'static str = "a protocol such as dial-request or push";

    fn read(word: &str) -> Option<Protocol> {
        let named = |protocol: &Protocol| protocol.word() == word;
        Protocol::ALL.into_iter().find(named)
    }
}

impl Word for StreamId {
    const EXPECTED: &'static str = "a stream such as >dial-request:1 or <push:2";

    fn read(word: &str) -> Option<StreamId> {
        let (side, rest) = match word.split_at_checked(1)? {
            (">", rest) => (Side::Outbound, rest),
            ("<", rest) => (Side::Inbound, rest),
            _ => return None,
        };
        let (protocol, number) = rest.split_once(':')?;
        let protocol = Protocol::read(protocol)?;
        Some(StreamId { side, protocol, number: number.parse().ok()? })
    }
}

/// A name of a peer: letters and digits, at most 16, starting with a capital.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name(pub(crate) String);

impl Word for Name {
    const EXPECTED: &'static str = "a peer's name such as S1";

    fn read(word: &str) -> Option<Name> {
        let fits = word.len() <= 16 && word.chars().all(|c| c.is_ascii_alphanumeric());
        (fits && word.starts_with(|c: char| c.is_ascii_uppercase())).then(|| Name(word.to_owned()))
    }
}
