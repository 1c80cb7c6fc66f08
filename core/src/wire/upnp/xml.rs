//! The little of XML that devices need: elements and their text. Prefixes and attributes are not
//! looked at, for routers make mistakes in both.

use alloc::string::String;
use quick_xml::Reader;
use quick_xml::events::Event;

/// How deep elements may stand in each other, number; ours: descriptions of routers have about ten.
pub const DEPTH_MAX: usize = 32;

/// A document that is not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum XmlError {
    /// Not well-formed, or cut short.
    #[error("not a well-formed document")]
    Malformed,
    /// It declares a document type, which may declare entities: none is accepted.
    #[error("a document type is declared")]
    Doctype,
    /// An entity other than the five that every document has.
    #[error("an unknown entity")]
    Entity,
    /// Elements in elements, more than [`DEPTH_MAX`].
    #[error("more than {DEPTH_MAX} elements in each other")]
    TooDeep,
    /// More bytes than the limit.
    #[error("a document of more than {max} bytes")]
    TooLong {
        /// The limit in bytes.
        max: usize,
    },
}

/// What a reader of a document is told, in order.
pub(super) enum Piece<'a> {
    /// An element begins. Its name is without the prefix.
    Open(&'a str),
    /// An element ends; with what stood before that since the last begin or end, trimmed.
    Close(&'a str, &'a str),
}

/// Read a document up to the end of its root, whatever follows. Bytes that are not UTF-8 are
/// replaced: routers claim one encoding and use another.
pub(super) fn read(
    document: &[u8],
    max: usize,
    mut on: impl FnMut(Piece<'_>),
) -> Result<(), XmlError> {
    if document.len() > max {
        return Err(XmlError::TooLong { max });
    }
    let text = String::from_utf8_lossy(document);
    let mut reader = Reader::from_str(text.trim_start_matches(['\u{feff}', '\0', ' ', '\r', '\n']));
    let mut depth = 0;
    let mut content = String::new();
    loop {
        match reader.read_event().map_err(|_| XmlError::Malformed)? {
            Event::Start(element) => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(XmlError::TooDeep);
                }
                content.clear();
                on(Piece::Open(element.local_name().as_ref()));
            }
            Event::Empty(element) => {
                content.clear();
                let name = element.local_name();
                on(Piece::Open(name.as_ref()));
                on(Piece::Close(name.as_ref(), ""));
                if depth == 0 {
                    return Ok(());
                }
            }
            Event::End(element) => {
                on(Piece::Close(element.local_name().as_ref(), content.trim()));
                content.clear();
                depth = depth.checked_sub(1).ok_or(XmlError::Malformed)?;
                if depth == 0 {
                    return Ok(());
                }
            }
            Event::Text(text) => content.push_str(&text),
            Event::CData(text) => content.push_str(&text),
            Event::GeneralRef(name) => content.push(match &*name {
                "amp" => '&',
                "lt" => '<',
                "gt" => '>',
                "quot" => '"',
                "apos" => '\'',
                _ => match name.resolve_char_ref() {
                    Ok(Some(c)) => c,
                    Ok(None) | Err(_) => return Err(XmlError::Entity),
                },
            }),
            Event::DocType(_) => return Err(XmlError::Doctype),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof => return Err(XmlError::Malformed),
        }
    }
}

/// A text as content of an element.
pub(super) fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            // XML 1.0 §2.2: no other control characters can be said at all.
            c if c.is_control() && !matches!(c, '\t' | '\n' | '\r') => {}
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn texts(document: &str) -> Result<Vec<String>, XmlError> {
        let mut found = Vec::new();
        read(document.as_bytes(), 4_096, |piece| {
            if let Piece::Close(name, text) = piece {
                found.push(alloc::format!("{name}={text}"));
            }
        })?;
        Ok(found)
    }

    #[test]
    fn names_lose_their_prefix_and_text_its_escapes() {
        let document = "\u{feff}<?xml version=\"1.0\"?><!-- a --><u:a x='1'>\
            <b> 1 &lt; <![CDATA[2 &]]> &#x33;&#52; </b><c/></u:a>junk";
        let expected = ["b=1 < 2 & 34", "c=", "a="];
        assert_eq!(texts(document).expect("a document"), expected);
    }

    #[test]
    fn what_could_grow_is_refused() {
        let bomb = "<!DOCTYPE a [<!ENTITY b \"bb\">]><a>&b;</a>";
        assert_eq!(texts(bomb), Err(XmlError::Doctype));
        assert_eq!(texts("<a>&b;</a>"), Err(XmlError::Entity));
        assert_eq!(texts("<a>&#0;</a>"), Err(XmlError::Entity));
        let nested = |depth: usize| texts(&("<a>".repeat(depth) + &"</a>".repeat(depth)));
        assert_eq!(nested(DEPTH_MAX).map(|found| found.len()), Ok(DEPTH_MAX));
        assert_eq!(nested(DEPTH_MAX + 1), Err(XmlError::TooDeep));
        assert_eq!(texts(&" ".repeat(4_097)), Err(XmlError::TooLong { max: 4_096 }));
    }

    #[test]
    fn cut_documents_are_malformed() {
        let document = "<a><b x=\"1\">text &amp; more</b><!-- c --></a>";
        for len in 0..document.len() {
            assert!(texts(&document[..len]).is_err(), "{}", &document[..len]);
        }
        assert_eq!(texts("<a><b></a></b>"), Err(XmlError::Malformed));
        assert_eq!(texts("</a>"), Err(XmlError::Malformed));
    }
}
