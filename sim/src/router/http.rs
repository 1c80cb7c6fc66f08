//! HTTP as a router reads and writes it.

use bytes::Bytes;
use portolan_core::{Duration, Fetch, FetchId, Soap};
use std::net::{IpAddr, SocketAddr};

/// What becomes of an HTTP request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpReply {
    /// A response.
    Answer {
        /// The status code.
        status: u16,
        /// The body.
        body: Bytes,
        /// Whether it comes in chunks.
        chunked: bool,
    },
    /// A redirect.
    Redirect {
        /// Where to.
        location: String,
    },
    /// A body in chunks that never ends.
    Endless,
    /// Bytes that are no HTTP.
    Noise,
    /// Nothing, although the connection stands or is tried.
    Hang,
    /// The connection is refused.
    Refused,
    /// The connection is reset.
    Reset,
}

/// Bytes of each chunk; ours.
const CHUNK: usize = 500;
/// Bytes of an endless body before its reader has to have given up; ours: more than any takes.
const ENDLESS: usize = 1 << 20;

impl HttpReply {
    /// The bytes that come over the connection before it is closed; `None` where there is none, or
    /// where nothing comes.
    pub fn bytes(&self) -> Option<Bytes> {
        Some(match self {
            HttpReply::Answer { status, body, chunked } => answer(*status, body, *chunked).into(),
            HttpReply::Redirect { location } => {
                let head = format!(
                    "HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
                );
                head.into_bytes().into()
            }
            HttpReply::Endless => {
                let mut out = head(200, "Transfer-Encoding: chunked");
                while out.len() < ENDLESS {
                    out.extend_from_slice(b"8\r\n<a><b/>\n\r\n");
                }
                out.into()
            }
            HttpReply::Noise => Bytes::from_static(b"\0\x01\x02SSH-2.0-nobody\r\n"),
            HttpReply::Hang | HttpReply::Refused | HttpReply::Reset => return None,
        })
    }
}

fn head(status: u16, length: &str) -> Vec<u8> {
    let word = match status {
        200 => "OK",
        404 => "Not Found",
        500 => "Internal Server Error",
        _ => "Error",
    };
    format!(
        "HTTP/1.1 {status} {word}\r\nContent-Type: text/xml; charset=\"utf-8\"\r\n\
         Connection: close\r\n{length}\r\nServer: Linux/5.10 UPnP/1.1 Simulated/1.0\r\nExt:\r\n\r\n",
    )
    .into_bytes()
}

fn answer(status: u16, body: &[u8], chunked: bool) -> Vec<u8> {
    if !chunked {
        let mut out = head(status, &format!("Content-Length: {}", body.len()));
        out.extend_from_slice(body);
        return out;
    }
    let mut out = head(status, "Transfer-Encoding: chunked");
    for chunk in body.chunks(CHUNK) {
        out.extend_from_slice(format!("{:x}; ext=1\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\nTrailer: none\r\n\r\n");
    out
}

/// Read the bytes of a request, where they are a whole one.
pub fn read_request(source: IpAddr, to: SocketAddr, bytes: &[u8]) -> Option<Fetch> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, path, version) = (first.next()?, first.next()?, first.next()?);
    if !version.starts_with("HTTP/1.") {
        return None;
    }
    let header = |name: &str| {
        head.split("\r\n").skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let soap = match method {
        "GET" => None,
        "POST" => {
            let len: usize = header("Content-Length")?.parse().ok()?;
            let action = header("SOAPAction")?.strip_prefix('"')?.strip_suffix('"')?;
            header("Host")?;
            Some(Soap {
                action: action.to_owned(),
                body: Bytes::copy_from_slice(body.as_bytes().get(..len)?),
            })
        }
        _ => return None,
    };
    Some(Fetch {
        fetch: FetchId(0),
        source,
        interface: 0,
        to,
        path: path.to_owned(),
        soap,
        timeout: Duration::from_secs(10),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_a_whole_or_not_at_all() {
        let to: SocketAddr = "192.168.1.1:5000".parse().expect("an address");
        let post =
            b"POST /ctl HTTP/1.1\r\nHost: a\r\nSOAPAction: \"u#A\"\r\ncontent-length: 3\r\n\r\nabc";
        let read = read_request(to.ip(), to, post).expect("a request");
        let soap = Soap { action: "u#A".to_owned(), body: Bytes::from_static(b"abc") };
        assert_eq!((read.path.as_str(), read.soap), ("/ctl", Some(soap)));
        assert_eq!(read_request(to.ip(), to, &post[..post.len() - 1]), None);
        assert_eq!(read_request(to.ip(), to, b"PUT / HTTP/1.1\r\n\r\n"), None);
    }

    #[test]
    fn a_body_comes_in_chunks() {
        let body = Bytes::from(vec![b'x'; 600]);
        let reply = HttpReply::Answer { status: 200, body, chunked: true };
        let bytes = reply.bytes().expect("bytes");
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("\r\n\r\n1f4; ext=1\r\nxxx") && text.contains("\r\n64; ext=1\r\nx"));
        assert!(text.ends_with("x\r\n0\r\nTrailer: none\r\n\r\n"));
        assert!(HttpReply::Endless.bytes().is_some_and(|bytes| bytes.len() > 1 << 20));
        assert_eq!(HttpReply::Hang.bytes(), None);
    }
}
