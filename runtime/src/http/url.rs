//! URLs of documents.

use hyper::Uri;
use hyper::http::uri::Scheme;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// Where a URL without a path leads.
const PATH: &str = "/status";
/// The longest URL, bytes; ours. When full, it is an error.
const URL_MAX: usize = 1_024;

/// What is wrong with a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// It is none, or too long.
    #[error("is not a URL such as https://example.org/status")]
    Malformed,
    /// It is neither of the two.
    #[error("must begin with https:// (or http://)")]
    Scheme,
    /// Names and passwords are not sent.
    #[error("has a user in it, which is not supported")]
    User,
}

/// The URL of a document: `https://HOST[:PORT][/PATH]`, or `http://…`. Without a path `/status` is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    is_secure: bool,
    host: Host,
    port: u16,
    path: String,
}

/// Whom a URL names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Host {
    Ip(IpAddr),
    Name(String),
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Url, UrlError> {
        if text.len() > URL_MAX {
            return Err(UrlError::Malformed);
        }
        let uri: Uri = text.parse().map_err(|_| UrlError::Malformed)?;
        let is_secure = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(_) => return Err(UrlError::Scheme),
            None => return Err(UrlError::Malformed),
        };
        let authority = uri.authority().ok_or(UrlError::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::User);
        }
        let name = authority.host();
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let host = match (bare, name.parse()) {
            (Some(ip), _) => {
                Host::Ip(ip.parse::<Ipv6Addr>().map_err(|_| UrlError::Malformed)?.into())
            }
            (None, Ok(ip)) => Host::Ip(ip),
            (None, Err(_)) => Host::Name(name.to_ascii_lowercase()),
        };
        let has_port = authority.as_str().len() > name.len();
        let port = match authority.port_u16() {
            Some(0) => return Err(UrlError::Malformed),
            Some(port) => port,
            None if has_port => return Err(UrlError::Malformed),
            None if is_secure => 443,
            None => 80,
        };
        let path = uri.path_and_query().map_or(PATH, |path| path.as_str());
        let path = if path == "/" { PATH } else { path };
        Ok(Url { is_secure, host, port, path: path.into() })
    }
}

impl Url {
    /// Whether the way there is private and proves who answers.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// Whether it leads to this host itself: then nobody is between.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Ip(ip) => ip.to_canonical().is_loopback(),
            Host::Name(name) => name == "localhost" || name.ends_with(".localhost"),
        }
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// What the `Host` header says.
    pub(crate) fn authority(&self) -> String {
        let is_usual = self.port == if self.is_secure { 443 } else { 80 };
        if is_usual { self.host.to_string() } else { format!("{}:{}", self.host, self.port) }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Ip(IpAddr::V4(ip)) => fmt::Display::fmt(ip, f),
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Host::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_shown_alike() {
        for (text, shown) in [
            ("https://Example.org", "https://example.org/status"),
            ("https://example.org:443/", "https://example.org/status"),
            ("https://example.org/list.json?a=b", "https://example.org/list.json?a=b"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/status"),
            ("http://[::1]:80/x", "http://[::1]/x"),
        ] {
            let url: Url = text.parse().expect("a URL");
            assert_eq!(url.to_string(), shown);
            assert_eq!(shown.parse(), Ok(url));
        }
    }

    #[test]
    fn what_is_no_url_for_us_is_named() {
        let long = format!("https://example.org/{}", "a".repeat(URL_MAX));
        for (text, error) in [
            ("example.org", UrlError::Malformed),
            ("/status", UrlError::Malformed),
            ("https://", UrlError::Malformed),
            ("https://example.org:0/", UrlError::Malformed),
            ("https://example.org:99999/", UrlError::Malformed),
            ("https://[::g]/", UrlError::Malformed),
            (&long, UrlError::Malformed),
            ("ftp://example.org/", UrlError::Scheme),
            ("https://me:secret@example.org/", UrlError::User),
        ] {
            assert_eq!(text.parse::<Url>(), Err(error), "{text}");
        }
    }

    #[test]
    fn only_this_host_is_loopback() {
        let is = |text: &str| text.parse::<Url>().expect("a URL").is_loopback();
        assert!(is("http://127.9.9.9/") && is("http://localhost/") && is("http://[::1]/"));
        assert!(is("http://[::ffff:127.0.0.1]/"));
        assert!(!is("http://localhost.example.org/") && !is("http://10.0.0.1/"));
    }
}
