//! Addresses of devices on the local network.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of a path with its query; ours, since routers have some dozens.
pub const PATH_MAX: usize = 512;
/// Bytes of a whole text that is looked at: scheme, IP, zone, port and path.
const TEXT_MAX: usize = PATH_MAX + 128;

/// A URL whose host is an IP. Where it leads is for the caller to judge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct HttpUrl {
    /// The host. A zone is dropped: it means something on the other machine alone.
    pub host: IpAddr,
    /// The port, 80 if none is named; never 0.
    pub port: u16,
    /// Path and query: begins with `/`, printable ASCII without spaces, at most [`PATH_MAX`].
    pub path: String,
}

/// A text that is no URL of the kind that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// Not `http://`.
    #[error("the scheme is not http")]
    Scheme,
    /// A name, or no host at all.
    #[error("the host is not an IP")]
    Host,
    /// Not a number from 1 to 65,535.
    #[error("the port is not a port")]
    Port,
    /// Too long, or with characters that do not belong there.
    #[error("the path is longer than {PATH_MAX} bytes or not printable")]
    Path,
}

impl HttpUrl {
    /// Read an absolute URL.
    pub fn parse(text: &str) -> Result<HttpUrl, UrlError> {
        let text = text.trim();
        if text.len() > TEXT_MAX {
            return Err(UrlError::Path);
        }
        let rest = without_scheme(text).ok_or(UrlError::Scheme)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (ip, port) = rest.split_once(']').ok_or(UrlError::Host)?;
                let ip = ip.split_once('%').map_or(ip, |(ip, _)| ip);
                let ip: Ipv6Addr = ip.parse().map_err(|_| UrlError::Host)?;
                (IpAddr::V6(ip), port)
            }
            None => {
                let end = authority.find(':').unwrap_or(authority.len());
                let (ip, port) = authority.split_at(end);
                let ip: Ipv4Addr = ip.parse().map_err(|_| UrlError::Host)?;
                (IpAddr::V4(ip), port)
            }
        };
        let port = if port.is_empty() { 80 } else { read_port(port).ok_or(UrlError::Port)? };
        HttpUrl { host, port, path: String::new() }.at(path)
    }

    /// Where a reference leads that stands in a document from here (RFC 3986 §5.2).
    pub fn join(&self, reference: &str) -> Result<HttpUrl, UrlError> {
        let reference = reference.trim();
        if reference.len() > TEXT_MAX {
            return Err(UrlError::Path);
        }
        if let Some(authority) = reference.strip_prefix("//") {
            return HttpUrl::parse(&alloc::format!("http://{authority}"));
        }
        // RFC 3986 §3.1: a colon before the first slash ends a scheme.
        let first = reference.split(['/', '?', '#']).next().unwrap_or_default();
        if first.contains(':') {
            return HttpUrl::parse(reference);
        }
        let base = self.path.split('?').next().unwrap_or_default();
        match reference.chars().next() {
            None | Some('#') => Ok(self.clone()),
            Some('/') => self.at(reference),
            Some('?') => self.at(&alloc::format!("{base}{reference}")),
            Some(_) => {
                let folder = base.rsplit_once('/').map_or("", |(folder, _)| folder);
                self.at(&alloc::format!("{folder}/{reference}"))
            }
        }
    }

    /// The same on another host: some routers name an address that is not theirs.
    pub fn with_host(&self, host: IpAddr) -> HttpUrl {
        HttpUrl { host, ..self.clone() }
    }

    /// What stands in a `Host` header: without the port if that is 80.
    pub fn authority(&self) -> String {
        match (self.host, self.port) {
            (IpAddr::V4(ip), 80) => alloc::format!("{ip}"),
            (IpAddr::V4(ip), port) => alloc::format!("{ip}:{port}"),
            (IpAddr::V6(ip), 80) => alloc::format!("[{ip}]"),
            (IpAddr::V6(ip), port) => alloc::format!("[{ip}]:{port}"),
        }
    }

    /// Another path on the same host.
    fn at(&self, path: &str) -> Result<HttpUrl, UrlError> {
        let path = path.split('#').next().unwrap_or_default();
        let (path, query) = path.find('?').map_or((path, ""), |at| path.split_at(at));
        let path = without_dots(path) + query;
        let printable = path.bytes().all(|byte| byte.is_ascii_graphic());
        if !printable || path.len() > PATH_MAX {
            return Err(UrlError::Path);
        }
        Ok(HttpUrl { host: self.host, port: self.port, path })
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.path)
    }
}

fn without_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case("http://").then_some(rest)
}

/// A colon and a port.
fn read_port(text: &str) -> Option<u16> {
    let digits = text.strip_prefix(':')?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|port| plain && *port != 0)
}

/// A path with its dot segments resolved (RFC 3986 §5.2.4); always begins with a slash.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments = path.strip_prefix('/').unwrap_or(path);
    let mut ends_in_folder = false;
    for segment in segments.split('/') {
        ends_in_folder = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    let mut out = "/".to_owned() + &kept.join("/");
    if ends_in_folder && !kept.is_empty() {
        out.push('/');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn read(text: &str) -> Result<String, UrlError> {
        HttpUrl::parse(text).map(|url| url.to_string())
    }

    #[test]
    fn urls_of_devices_are_read() {
        let cases = [
            ("http://192.168.1.1:5000/rootDesc.xml", "http://192.168.1.1:5000/rootDesc.xml"),
            (" HTTP://192.168.1.1 ", "http://192.168.1.1/"),
            ("http://192.168.1.1:80?x=1#top", "http://192.168.1.1/?x=1"),
            ("http://[fe80::1%25eth0]:80/a", "http://[fe80::1]/a"),
            ("http://[fe80::1%3]:49000/a", "http://[fe80::1]:49000/a"),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn other_urls_are_refused() {
        let cases = [
            ("", UrlError::Scheme),
            ("https://192.168.1.1/", UrlError::Scheme),
            ("http:/192.168.1.1/", UrlError::Scheme),
            ("http://router.lan/", UrlError::Host),
            ("http://user@192.168.1.1/", UrlError::Host),
            ("http://user:1@192.168.1.1/", UrlError::Host),
            ("http://192.168.1/", UrlError::Host),
            ("http://[::1/", UrlError::Host),
            ("http://::1/", UrlError::Host),
            ("http://192.168.1.1:/", UrlError::Port),
            ("http://192.168.1.1:0/", UrlError::Port),
            ("http://192.168.1.1:+80/", UrlError::Port),
            ("http://192.168.1.1:65536/", UrlError::Port),
            ("http://[::1]80/", UrlError::Port),
            ("http://192.168.1.1/a b", UrlError::Path),
            ("http://192.168.1.1/a\r\nHost: b", UrlError::Path),
            ("http://192.168.1.1/\u{fc}", UrlError::Path),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text), Err(expected), "{text}");
        }
        let long = |len: usize| read(&alloc::format!("http://192.168.1.1/{}", "a".repeat(len - 1)));
        assert!(long(PATH_MAX).is_ok());
        assert_eq!(long(PATH_MAX + 1), Err(UrlError::Path));
        assert_eq!(long(100_000), Err(UrlError::Path));
    }

    #[test]
    fn references_lead_from_where_they_stand() {
        let base = HttpUrl::parse("http://192.168.1.1:5000/a/root.xml?x").expect("a URL");
        let cases = [
            ("/ctl/IPConn", "/ctl/IPConn"),
            ("ctl/IPConn", "/a/ctl/IPConn"),
            ("../ctl", "/ctl"),
            ("../../../ctl/./x/..", "/ctl/"),
            ("?y", "/a/root.xml?y"),
            ("", "/a/root.xml?x"),
            ("//192.168.1.2/b", "other"),
            ("http://192.168.1.2/b", "other"),
        ];
        for (reference, path) in cases {
            let url = base.join(reference).expect("a URL").to_string();
            let expected = match path {
                "other" => "http://192.168.1.2/b".to_owned(),
                path => alloc::format!("http://192.168.1.1:5000{path}"),
            };
            assert_eq!(url, expected, "{reference}");
        }
        assert_eq!(base.join("ftp://192.168.1.2/b"), Err(UrlError::Scheme));
        assert_eq!(base.join("http://router/b"), Err(UrlError::Host));
    }
}
