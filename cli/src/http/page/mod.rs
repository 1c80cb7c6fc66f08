//! The one page that a program shows, and the events that fill it.
//!
//! The page is one document without any request outside itself: its style and its script stand in it, and
//! the policy it comes with names them by their hashes, so that a browser runs nothing else. The data come
//! as server-sent events, each a whole [`View`]; the script draws them as text, never as markup.

mod live;
mod view;

pub(crate) use live::Live;
pub(crate) use view::{Cell, Clock, Figure, Headline, Section, Tone, View};

use super::{Answer, document};
use hyper::StatusCode;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue};
use multibase::Base;
use sha2::{Digest, Sha256};

const FRAME: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page itself, which is always the same.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    html: String,
    policy: HeaderValue,
}

impl Page {
    /// The page. `elsewhere` is where the same is to be had without a script.
    pub(crate) fn new(elsewhere: &str) -> Page {
        let html = FRAME.replace("{style}", STYLE).replace("{script}", SCRIPT);
        let html = html.replace("{elsewhere}", elsewhere);
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash(SCRIPT),
            hash(STYLE),
        );
        // Hashes and the words around them are plain ASCII.
        let policy = HeaderValue::from_str(&policy)
            .unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"));
        Page { html, policy }
    }

    /// The page as an answer.
    pub(crate) fn answer(&self) -> Answer {
        let mut answer = document(StatusCode::OK, "text/html; charset=utf-8", self.html.clone());
        answer.headers_mut().insert(CONTENT_SECURITY_POLICY, self.policy.clone());
        answer
    }
}

/// What a policy names a script or a style by.
fn hash(text: &str) -> String {
    format!("sha256-{}", Base::Base64Pad.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_what_stands_in_the_page_and_nothing_is_fetched() {
        let page = Page::new("/status");
        for (open, close, text) in
            [("<script>", "</script>", SCRIPT), ("<style>", "</style>", STYLE)]
        {
            let inside = page.html.split_once(open).and_then(|(_, rest)| rest.split_once(close));
            let inside = inside.expect("it stands in the page").0;
            assert_eq!(inside, text);
            let policy = page.policy.to_str().expect("plain text");
            assert!(policy.contains(&hash(inside)), "{policy}");
        }
        assert!(!page.html.contains("http:") && !page.html.contains("https:"));
        assert!(!page.html.contains("{elsewhere}"));
        // Browsers make line feeds of them before they look at the hashes.
        assert!(!page.html.contains('\r'));
        // What would be markup if it were not text.
        assert!(!SCRIPT.contains("innerHTML") && !SCRIPT.contains("insertAdjacentHTML"));
        assert_eq!(page.answer().headers()[CONTENT_SECURITY_POLICY], page.policy);
    }
}
