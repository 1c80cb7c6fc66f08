//! The smallest pieces of a line: foreign texts, bytes, lists, spans.

use crate::Duration;
use alloc::format;
use alloc::string::String;
use core::fmt::Write as _;

/// Characters shown of one text that a peer chose, number; ours: agent versions, protocol names and
/// most addresses have fewer. Lines grow with it. When full, the rest is counted.
const TEXT_MAX: usize = 128;
/// Bytes shown of what cannot be decoded, number; ours: enough to see what it is not. Lines grow
/// with it. When full, the rest is counted.
const BYTES_MAX: usize = 16;

/// A text that a peer chose. As it is where nothing in it could pass for anything else; quoted and
/// escaped otherwise. Never more than its bound, never anything but ASCII and the mark of a cut.
pub(super) fn foreign(text: &str) -> String {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\' | ',' | '[' | ']');
    if text.is_empty() || !text.chars().all(plain) {
        return quoted(text);
    }
    let (shown, rest) = text.split_at(text.len().min(TEXT_MAX));
    format!("{shown}{}", cut(rest.len()))
}

/// A text that a peer chose, in quotation marks.
pub(super) fn quoted(text: &str) -> String {
    let mut shown = String::from("\"");
    let mut chars = text.chars();
    let mut left = TEXT_MAX;
    let mut hidden = 0;
    while let Some(c) = chars.next() {
        // The escapes of Rust for all but printable ASCII: they need no table of Unicode, so that
        // a transcript stays the same.
        let escaped = c.escape_default();
        match left.checked_sub(escaped.len()) {
            Some(fewer) => {
                left = fewer;
                shown.extend(escaped);
            }
            None => {
                hidden = 1 + chars.by_ref().count();
            }
        }
    }
    format!("{shown}\"{}", cut(hidden))
}

/// Bytes in hex, the first of them.
pub(super) fn hex(bytes: &[u8]) -> String {
    let (shown, rest) = bytes.split_at(bytes.len().min(BYTES_MAX));
    let mut out = String::new();
    for byte in shown {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out + &cut(rest.len())
}

/// The first `max` of some words, with `between` between them.
pub(super) fn list(
    mut words: impl ExactSizeIterator<Item = String>,
    between: &str,
    max: usize,
) -> String {
    let mut out = String::new();
    for word in words.by_ref().take(max) {
        if !out.is_empty() {
            out.push_str(between);
        }
        out.push_str(&word);
    }
    match words.len() {
        0 => out,
        rest => out + between + &cut(rest),
    }
}

/// So much is not shown.
fn cut(rest: usize) -> String {
    if rest == 0 { String::new() } else { format!("…+{rest}") }
}

/// A span as scripts write it where it is a round one: `2h`, `10m`, `25s`, `20ms`. Others lose
/// what nobody reads: `7213.482s`, `20.417ms`.
pub(super) fn span(span: Duration) -> String {
    let unit = if span.as_secs() > 0 { 1_000_000 } else { 1_000 };
    let span = span.saturating_sub(Duration::from_nanos(u64::from(span.subsec_nanos() % unit)));
    match span.as_secs() {
        0 => format!("{span:?}"),
        _ if span.subsec_nanos() > 0 => format!("{span:?}"),
        secs if secs % 3_600 == 0 => format!("{}h", secs / 3_600),
        secs if secs % 60 == 0 => format!("{}m", secs / 60),
        secs => format!("{secs}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn what_peers_choose_passes_for_nothing_else() {
        for (text, shown) in [
            ("kubo/0.39.0/", "kubo/0.39.0/"),
            ("/a=b(c)/1.0", "/a=b(c)/1.0"),
            ("", r#""""#),
            ("x key=Node", r#""x key=Node""#),
            ("a,b", r#""a,b""#),
            ("[a]", r#""[a]""#),
            ("a\"b", r#""a\"b""#),
            ("a'b", r#""a\'b""#),
            ("a\\u{1b}", r#""a\\u{1b}""#),
            ("\u{1b}[2J\u{7}", r#""\u{1b}[2J\u{7}""#),
            ("a\r\nb\tc\0\u{7f}", r#""a\r\nb\tc\u{0}\u{7f}""#),
            // A C1 control, which some terminals obey, and letters that run the other way.
            ("\u{9b}2J", r#""\u{9b}2J""#),
            ("\u{202e}edoN", r#""\u{202e}edoN""#),
            ("é…", r#""\u{e9}\u{2026}""#),
        ] {
            assert_eq!(foreign(text), shown);
        }
        assert_eq!(quoted("identify"), r#""identify""#);
    }

    #[test]
    fn what_is_long_is_cut_and_counted() {
        assert_eq!(foreign(&"a".repeat(128)), "a".repeat(128));
        assert_eq!(foreign(&"a".repeat(130)), "a".repeat(128) + "…+2");
        let quotes = "\"".repeat(100);
        assert_eq!(foreign(&quotes), alloc::format!("\"{}\"…+36", "\\\"".repeat(64)));
        // An escape is never cut in two, and nothing after it takes its place.
        let mixed = "a".repeat(127) + "\u{10ffff}bb";
        assert_eq!(foreign(&mixed), alloc::format!("\"{}\"…+3", "a".repeat(127)));
        assert_eq!(hex(&[]), "");
        assert_eq!(hex(&[0x0a, 0xff]), "0aff");
        assert_eq!(hex(&[7; 16]), "07".repeat(16));
        assert_eq!(hex(&[7; 300]), "07".repeat(16) + "…+284");
        let words = |count: usize| (0..count).map(|word| word.to_string());
        assert_eq!(list(words(0), ", ", 2), "");
        assert_eq!(list(words(2), ", ", 2), "0, 1");
        assert_eq!(list(words(5), ", ", 2), "0, 1, …+3");
    }

    #[test]
    fn spans_read_as_scripts_write_them() {
        for (nanos, shown) in [
            (0, "0ns"),
            (900, "0ns"),
            (20_000_000, "20ms"),
            (20_417_923, "20.417ms"),
            (2_500_000_000, "2.5s"),
            (25_000_000_999, "25s"),
            (7_213_482_917_001, "7213.482s"),
            (600_000_000_000, "10m"),
            (7_200_000_000_000, "2h"),
        ] {
            assert_eq!(span(Duration::from_nanos(nanos)), shown);
        }
        assert_eq!(span(Duration::MAX), "18446744073709551615.999s");
    }
}
