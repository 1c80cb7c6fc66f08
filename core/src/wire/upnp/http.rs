//! HTTP/1.1 as far as a router needs it: one request, one response, one connection.
//!
//! ```
//! use portolan_core::wire::upnp::http::{Progress, ResponseReader};
//!
//! let mut reader = ResponseReader::default();
//! let progress = reader.push(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")?;
//! assert_eq!(progress, Progress::Done);
//! assert_eq!(reader.finish()?.body, b"hi");
//! # Ok::<(), portolan_core::wire::upnp::http::HttpError>(())
//! ```

use super::{HttpUrl, printable};
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;

/// Bytes of a body; ours, since descriptions of routers have under ten thousand.
pub const BODY_MAX: usize = 65_536;
/// Bytes of a head; ours, since those of routers have some hundred.
pub const HEAD_MAX: usize = 8_192;
/// Lines of a head, and of what follows the last chunk, number; ours.
pub const HEADERS_MAX: usize = 48;
/// Interim responses that are skipped, number; ours, since we ask for none.
pub const INTERIM_MAX: u8 = 4;
/// Bytes of a line that begins a chunk or follows the last; ours.
pub const LINE_MAX: usize = 1_024;

/// Bytes that are taken in at once, so that a long push needs no long buffer.
const STEP: usize = 4_096;

/// A request for a document, to be written at once.
pub fn get(url: &HttpUrl, user_agent: &str) -> Bytes {
    (head("GET", url, user_agent) + "\r\n").into()
}

/// A request that posts an action of SOAP, to be written at once: some routers look at the first
/// segment alone. `action` is what stands in the header, without quotes.
pub fn post(url: &HttpUrl, user_agent: &str, action: &str, body: &[u8]) -> Bytes {
    let head = head("POST", url, user_agent)
        + &alloc::format!(
            "Content-Type: text/xml; charset=\"utf-8\"\r\nSOAPAction: \"{}\"\r\n\
             Content-Length: {}\r\n\r\n",
            printable(action, 256),
            body.len(),
        );
    let mut out = head.into_bytes();
    out.extend_from_slice(body);
    out.into()
}

fn head(method: &str, url: &HttpUrl, user_agent: &str) -> String {
    alloc::format!(
        "{method} {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {}\r\nConnection: close\r\n",
        // The fields of a URL can be assigned to, so that nothing is taken for granted here.
        url.path.bytes().filter(u8::is_ascii_graphic).map(char::from).collect::<String>(),
        url.authority(),
        printable(user_agent, 128),
    )
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpResponse {
    /// Its status; never one that redirects.
    pub status: u16,
    /// Its body, at most [`BODY_MAX`] bytes.
    pub body: Vec<u8>,
}

/// Whether a response is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// More may come, or the end of the stream.
    More,
    /// It is whole; what follows is ignored.
    Done,
}

/// Bytes that are no response of use. The connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// No head of HTTP, or of more than [`HEADERS_MAX`] lines.
    #[error("not a response of HTTP")]
    Malformed,
    /// A head of more than [`HEAD_MAX`] bytes.
    #[error("a head of more than {HEAD_MAX} bytes")]
    HeadTooLong,
    /// A body of more than [`BODY_MAX`] bytes, or one that claims to be.
    #[error("a body of more than {BODY_MAX} bytes")]
    BodyTooLong,
    /// The lengths of chunks, or the length of the body, cannot be read.
    #[error("a length that cannot be read")]
    Length,
    /// A transfer encoding other than chunks.
    #[error("an unknown transfer encoding")]
    Encoding,
    /// More than [`INTERIM_MAX`] interim responses.
    #[error("more than {INTERIM_MAX} interim responses")]
    Interim,
    /// It leads elsewhere, where we do not go.
    #[error("a redirection with status {status}")]
    Redirect {
        /// The status.
        status: u16,
    },
    /// The stream ended too early.
    #[error("the response is cut short")]
    Truncated,
}

/// Reads one response out of a stream.
#[derive(Clone, Debug, Default)]
pub struct ResponseReader {
    buffer: Vec<u8>,
    phase: Phase,
    status: u16,
    body: Vec<u8>,
    interim: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Head,
    /// So many bytes of the body are missing.
    Length(usize),
    /// The body ends with the stream.
    ToEnd,
    ChunkSize,
    Chunk(usize),
    ChunkEnd,
    /// So many lines after the last chunk were read.
    Trailers(usize),
    Done,
    Failed(HttpError),
}

impl ResponseReader {
    /// Take in what arrived. After an error the same comes again.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Progress, HttpError> {
        for step in bytes.chunks(STEP) {
            if self.phase == Phase::Done {
                break;
            }
            self.buffer.extend_from_slice(step);
            if let Err(error) = self.advance() {
                self.phase = Phase::Failed(error);
                self.buffer = Vec::new();
            }
        }
        match self.phase {
            Phase::Failed(error) => Err(error),
            Phase::Done => Ok(Progress::Done),
            Phase::Head
            | Phase::Length(_)
            | Phase::ToEnd
            | Phase::ChunkSize
            | Phase::Chunk(_)
            | Phase::ChunkEnd
            | Phase::Trailers(_) => Ok(Progress::More),
        }
    }

    /// The response, once it is whole or the stream has ended.
    pub fn finish(self) -> Result<HttpResponse, HttpError> {
        match self.phase {
            // Some routers leave out the line that ends the last chunk.
            Phase::Done | Phase::ToEnd | Phase::Trailers(_) => {
                Ok(HttpResponse { status: self.status, body: self.body })
            }
            Phase::Failed(error) => Err(error),
            Phase::Head
            | Phase::Length(_)
            | Phase::ChunkSize
            | Phase::Chunk(_)
            | Phase::ChunkEnd => Err(HttpError::Truncated),
        }
    }

    /// Use up the buffer as far as it goes.
    fn advance(&mut self) -> Result<(), HttpError> {
        loop {
            let next = match self.phase {
                Phase::Head => self.read_head()?,
                Phase::Length(left) | Phase::Chunk(left) => {
                    let taken = left.min(self.buffer.len());
                    self.take_body(taken)?;
                    match (self.phase, left - taken) {
                        (Phase::Length(_), 0) => Some(Phase::Done),
                        (_, 0) => Some(Phase::ChunkEnd),
                        (Phase::Length(_), left) => {
                            self.phase = Phase::Length(left);
                            None
                        }
                        (_, left) => {
                            self.phase = Phase::Chunk(left);
                            None
                        }
                    }
                }
                Phase::ToEnd => {
                    self.take_body(self.buffer.len())?;
                    None
                }
                Phase::ChunkSize => match self.line()? {
                    Some(line) => Some(self.chunk(&line)?),
                    None => None,
                },
                Phase::ChunkEnd => match self.line()? {
                    Some(line) if line.is_empty() => Some(Phase::ChunkSize),
                    Some(_) => return Err(HttpError::Length),
                    None => None,
                },
                Phase::Trailers(lines) => match self.line()? {
                    Some(line) if line.is_empty() => Some(Phase::Done),
                    Some(_) if lines == HEADERS_MAX => return Err(HttpError::Malformed),
                    Some(_) => Some(Phase::Trailers(lines + 1)),
                    None => None,
                },
                Phase::Done => {
                    self.buffer = Vec::new();
                    None
                }
                Phase::Failed(error) => return Err(error),
            };
            match next {
                Some(next) => self.phase = next,
                None => return Ok(()),
            }
        }
    }

    /// The head, if it is whole: what kind of body follows.
    fn read_head(&mut self) -> Result<Option<Phase>, HttpError> {
        let end = end_of_head(&self.buffer);
        if end.unwrap_or(self.buffer.len()) > HEAD_MAX {
            return Err(HttpError::HeadTooLong);
        }
        let Some(end) = end else { return Ok(None) };
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let mut config = httparse::ParserConfig::default();
        config.allow_spaces_after_header_name_in_responses(true);
        let parsed = config.parse_response(&mut response, &self.buffer[..end]);
        let status = response.code.ok_or(HttpError::Malformed)?;
        if !matches!(parsed, Ok(httparse::Status::Complete(_))) {
            return Err(HttpError::Malformed);
        }
        let next = match status {
            100..=199 if self.interim == INTERIM_MAX => return Err(HttpError::Interim),
            100..=199 => {
                self.interim += 1;
                Phase::Head
            }
            300..=399 => return Err(HttpError::Redirect { status }),
            204 => Phase::Done,
            _ => body(response.headers)?,
        };
        self.status = status;
        self.buffer.drain(..end);
        Ok(Some(next))
    }

    /// What follows a line that begins a chunk (RFC 9112 §7.1); extensions are ignored.
    fn chunk(&self, line: &str) -> Result<Phase, HttpError> {
        let size = line.split(';').next().unwrap_or_default().trim();
        if !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(HttpError::Length);
        }
        match usize::from_str_radix(size, 16) {
            Ok(0) => Ok(Phase::Trailers(0)),
            Ok(size) if size <= BODY_MAX - self.body.len() => Ok(Phase::Chunk(size)),
            Ok(_) => Err(HttpError::BodyTooLong),
            Err(_) => Err(HttpError::Length),
        }
    }

    fn take_body(&mut self, len: usize) -> Result<(), HttpError> {
        if self.body.len() + len > BODY_MAX {
            return Err(HttpError::BodyTooLong);
        }
        self.body.extend(self.buffer.drain(..len));
        Ok(())
    }

    /// The next line without its end, if it is whole.
    fn line(&mut self) -> Result<Option<String>, HttpError> {
        let end = self.buffer.iter().take(LINE_MAX).position(|byte| *byte == b'\n');
        let Some(end) = end else {
            let too_long = self.buffer.len() >= LINE_MAX;
            return if too_long { Err(HttpError::Length) } else { Ok(None) };
        };
        let line = core::str::from_utf8(&self.buffer[..end]).map_err(|_| HttpError::Length)?;
        let line = line.strip_suffix('\r').unwrap_or(line).to_owned();
        self.buffer.drain(..=end);
        Ok(Some(line))
    }
}

/// Bytes up to and with the first empty line.
fn end_of_head(buffer: &[u8]) -> Option<usize> {
    let mut start = 0;
    // An empty line before the head is none of its end.
    while let Some(b'\r' | b'\n') = buffer.get(start) {
        start += 1;
    }
    let ends = buffer.iter().enumerate().skip(start).filter(|(_, byte)| **byte == b'\n');
    ends.map(|(at, _)| at + 1).find_map(|at| match &buffer[at..] {
        [b'\n', ..] => Some(at + 1),
        [b'\r', b'\n', ..] => Some(at + 2),
        _ => None,
    })
}

/// What kind of body follows (RFC 9112 §6.3): chunks count before a length.
fn body(headers: &[httparse::Header<'_>]) -> Result<Phase, HttpError> {
    let values = |name: &'static str| {
        headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name))
    };
    let mut chunked = false;
    for header in values("transfer-encoding") {
        match header.value.trim_ascii().to_ascii_lowercase().as_slice() {
            b"chunked" => chunked = true,
            b"identity" | b"" => {}
            _ => return Err(HttpError::Encoding),
        }
    }
    if chunked {
        return Ok(Phase::ChunkSize);
    }
    let mut length = None;
    for header in values("content-length") {
        let digits = core::str::from_utf8(header.value).unwrap_or_default().trim();
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(HttpError::Length);
        }
        let claimed: usize = digits.parse().map_err(|_| HttpError::BodyTooLong)?;
        if *length.get_or_insert(claimed) != claimed {
            return Err(HttpError::Length);
        }
    }
    match length {
        None => Ok(Phase::ToEnd),
        Some(length) if length > BODY_MAX => Err(HttpError::BodyTooLong),
        Some(length) => Ok(Phase::Length(length)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same however it is cut; the stream ends after it.
    fn read(stream: &[u8]) -> Result<(u16, Vec<u8>), HttpError> {
        let by = |len: usize| {
            let mut reader = ResponseReader::default();
            for part in stream.chunks(len.max(1)) {
                reader.push(part)?;
            }
            reader.finish().map(|response| (response.status, response.body))
        };
        let whole = by(stream.len());
        assert_eq!(whole, by(1), "one by one");
        assert_eq!(whole, by(7), "seven at a time");
        whole
    }

    #[test]
    fn requests_are_one_buffer() {
        let url = HttpUrl::parse("http://192.168.1.1:5000/ctl").expect("a URL");
        let expected = "POST /ctl HTTP/1.1\r\nHost: 192.168.1.1:5000\r\nUser-Agent: x/1\r\n\
            Connection: close\r\nContent-Type: text/xml; charset=\"utf-8\"\r\n\
            SOAPAction: \"urn:a#B\"\r\nContent-Length: 4\r\n\r\n<a/>";
        assert_eq!(post(&url, "x/1", "urn:a#B", b"<a/>"), expected.as_bytes());
        let expected = "GET /ctl HTTP/1.1\r\nHost: 192.168.1.1:5000\r\nUser-Agent: xy: z\r\n\
            Connection: close\r\n\r\n";
        assert_eq!(get(&url, "x\r\ny: z"), expected.as_bytes());
    }

    #[test]
    fn bodies_end_in_three_ways() {
        let ok = |status, body: &[u8]| Ok((status, body.to_vec()));
        let length = b"HTTP/1.1 500 Internal\r\nContent-Length: 3\r\n\r\nabcd";
        assert_eq!(read(length), ok(500, b"abc"));
        assert_eq!(read(b"HTTP/1.0 200 OK\nServer : x\n\nabc"), ok(200, b"abc"));
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nContent-Length: 9\r\n\r\n\
            3;x=y\r\nabc\r\n 00a \r\n0123456789\r\n0\r\nX: y\r\n\r\nmore";
        assert_eq!(read(chunked), ok(200, b"abc0123456789"));
        let unended = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n";
        assert_eq!(read(unended), ok(200, b"a"));
        assert_eq!(read(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n"), ok(204, b""));
    }

    #[test]
    fn bad_responses_have_their_error() {
        let head = |lines: &str| read(alloc::format!("HTTP/1.1 200 OK\r\n{lines}").as_bytes());
        assert_eq!(read(b""), Err(HttpError::Truncated));
        assert_eq!(read(b"SSH-2.0\r\n\r\n"), Err(HttpError::Malformed));
        assert_eq!(read(b"HTTP/1.1 302 Found\r\n\r\n"), Err(HttpError::Redirect { status: 302 }));
        assert_eq!(read(&b"HTTP/1.1 100 Continue\r\n\r\n".repeat(5)), Err(HttpError::Interim));
        assert_eq!(head("Content-Length: 3\r\n\r\nab"), Err(HttpError::Truncated));
        assert_eq!(head("Content-Length: +3\r\n\r\nabc"), Err(HttpError::Length));
        assert_eq!(head("Content-Length: 65537\r\n\r\n"), Err(HttpError::BodyTooLong));
        let two = "Content-Length: 1\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(head(two), Err(HttpError::Length));
        assert_eq!(head("Transfer-Encoding: gzip\r\n\r\n"), Err(HttpError::Encoding));
        let chunks = |text: &str| head(&alloc::format!("Transfer-Encoding: chunked\r\n\r\n{text}"));
        assert_eq!(chunks("x\r\n"), Err(HttpError::Length));
        assert_eq!(chunks("\r\n"), Err(HttpError::Length));
        assert_eq!(chunks("1\r\nab\r\n"), Err(HttpError::Length));
        assert_eq!(chunks("10001\r\n"), Err(HttpError::BodyTooLong));
        assert_eq!(chunks("fffffffffffffffff\r\n"), Err(HttpError::Length));
        assert_eq!(chunks(&"1".repeat(LINE_MAX)), Err(HttpError::Length));
        assert_eq!(
            chunks(&alloc::format!("0\r\n{}", "a: b\r\n".repeat(49))),
            Err(HttpError::Malformed)
        );
        assert_eq!(head(&"a: b\r\n".repeat(2_000)), Err(HttpError::HeadTooLong));
        let crowded = "a: b\r\n".repeat(HEADERS_MAX + 1) + "\r\n";
        assert_eq!(head(&crowded), Err(HttpError::Malformed));
        let long = alloc::format!("\r\n{}", "a".repeat(BODY_MAX + 1));
        assert_eq!(head(&long), Err(HttpError::BodyTooLong));
        let mut reader = ResponseReader::default();
        assert_eq!(reader.push(b"x\n\n"), Err(HttpError::Malformed));
        assert_eq!(reader.push(b"x"), Err(HttpError::Malformed));
    }
}
