//! One GET.

use super::io::Io;
use super::tls::{AuthoritiesError, Tls};
use super::url::{Host, Url};
use crate::names::NameError;
use crate::sockets;
use crate::time::timeout;
use crate::traits::Runtime;
use bytes::Bytes;
use futures::future::{Either, select};
use futures::io::{AsyncRead, AsyncWrite};
use futures_rustls::TlsConnector;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_ENCODING, HOST, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use portolan_core::Duration;
use rustls::pki_types::ServerName;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;

/// How long a GET may take, from the look-up of the name to the last byte, seconds; ours: 256 KiB over a
/// slow line. A server that hangs is noticed later if it grows.
const FETCH_TIMEOUT: Duration = Duration::from_secs(15);
/// How long one IP of several may take to connect, seconds; ours: a SYN and two that follow it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// IPs that are tried, number; ours. When full, the others are not.
const IPS_MAX: usize = 8;
/// Headers of a response, number; ours: hyper's own default is 100. When full, the response is none.
const HEADERS_MAX: usize = 64;
/// What hyper holds of a response at a time, bytes; ours: headers must fit. When full, the response is
/// none.
const BUFFER_MAX: usize = 32_768;
/// Who asks.
const AGENT: &str = concat!("portolan/", env!("CARGO_PKG_VERSION"));

/// Why a document could not be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// It would be read by everybody on the way, and changed by anybody.
    #[error("is not https, and does not lead to this host itself")]
    Insecure,
    /// No certificate can be verified.
    #[error(transparent)]
    Authorities(#[from] AuthoritiesError),
    /// The host's name leads nowhere.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Nothing could be connected to.
    #[error("cannot connect to {to}: {said}")]
    Connect {
        /// Where to, last.
        to: SocketAddr,
        /// What the operating system said.
        said: String,
    },
    /// TLS did not come about.
    #[error("no TLS with {to}: {said}")]
    Tls {
        /// Where to.
        to: SocketAddr,
        /// What the library said.
        said: String,
    },
    /// What came is no HTTP, or broke off.
    #[error("the answer is no HTTP, or broke off: {0}")]
    Http(String),
    /// The server had something else to say.
    #[error("the server answered with status {code}{}", redirect(*code))]
    Status {
        /// Its number.
        code: u16,
    },
    /// The document is compressed, which was not asked for.
    #[error("the document is encoded, which was not asked for")]
    Encoded,
    /// The document is longer than it may be.
    #[error("the document has more than {max} bytes")]
    TooLong {
        /// How long it may be.
        max: usize,
    },
    /// It took too long.
    #[error("no answer came in time")]
    TimedOut,
}

/// What to say beside a status that leads elsewhere.
fn redirect(code: u16) -> &'static str {
    if (300..400).contains(&code) { " (it leads elsewhere, which is not followed)" } else { "" }
}

/// What it takes beside a URL.
pub(crate) trait Client<R: Runtime> {
    /// What everything runs on.
    fn runtime(&self) -> &R;
    /// The IPs of a name, best first.
    fn ips(&self, name: &str) -> impl Future<Output = Result<Vec<IpAddr>, NameError>> + Send;
    /// Something is about to be sent to these.
    fn about_to_contact(&self, ips: Vec<IpAddr>) -> impl Future<Output = ()> + Send;
}

/// The document at a URL, of up to `max` bytes.
pub(crate) async fn get<R: Runtime>(
    client: &impl Client<R>,
    url: &Url,
    tls: Option<&Tls>,
    max: usize,
) -> Result<Vec<u8>, FetchError> {
    // What hyper and rustls keep is large, and whoever waits for it should not be.
    let fetch = Box::pin(fetch(client, url, tls, max));
    let fetched = timeout(client.runtime(), FETCH_TIMEOUT, fetch).await;
    fetched.unwrap_or(Err(FetchError::TimedOut))
}

async fn fetch<R: Runtime>(
    client: &impl Client<R>,
    url: &Url,
    tls: Option<&Tls>,
    max: usize,
) -> Result<Vec<u8>, FetchError> {
    let mut ips = match url.host() {
        Host::Ip(ip) => vec![*ip],
        Host::Name(name) => client.ips(name).await?,
    };
    ips.truncate(IPS_MAX);
    client.about_to_contact(ips.clone()).await;
    let (tcp, to) = connect(client.runtime(), url, &ips).await?;
    if !url.is_secure() {
        return exchange(tcp, url, max).await;
    }
    let Some(Tls(config)) = tls else { return Err(AuthoritiesError::None.into()) };
    let failed = |said: String| FetchError::Tls { to, said };
    let name = match url.host() {
        Host::Ip(ip) => ServerName::IpAddress((*ip).into()),
        Host::Name(name) => {
            ServerName::try_from(name.clone()).map_err(|error| failed(error.to_string()))?
        }
    };
    let tls = TlsConnector::from(config.clone()).connect(name, tcp).await;
    exchange(tls.map_err(|error| failed(error.to_string()))?, url, max).await
}

/// A connection with the first IP that answers.
async fn connect<R: Runtime>(
    runtime: &R,
    url: &Url,
    ips: &[IpAddr],
) -> Result<(R::Tcp, SocketAddr), FetchError> {
    let mut last = FetchError::TimedOut;
    for ip in ips {
        let to = SocketAddr::new(*ip, url.port());
        let dial = async { runtime.connected(sockets::dial_fresh(to, None)?.socket).await };
        let dialled = timeout(runtime, CONNECT_TIMEOUT, dial).await;
        let silent = || io::Error::new(io::ErrorKind::TimedOut, "nothing answered in time");
        match dialled.unwrap_or_else(|| Err(silent())) {
            Ok(tcp) => return Ok((tcp, to)),
            Err(error) => last = FetchError::Connect { to, said: error.to_string() },
        }
    }
    Err(last)
}

async fn exchange<T>(io: T, url: &Url, max: usize) -> Result<Vec<u8>, FetchError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| FetchError::Http(error.to_string());
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.max_headers(HEADERS_MAX).max_buf_size(BUFFER_MAX);
    let (mut sender, connection) = builder.handshake(Io(io)).await.map_err(broken)?;
    let request = Request::get(url.path())
        .header(HOST, url.authority())
        .header(USER_AGENT, AGENT)
        .header(ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|error| FetchError::Http(error.to_string()))?;
    let ask = async move {
        let response = sender.send_request(request).await.map_err(broken)?;
        body(response, max).await
    };
    // Nothing moves but by polling the connection; it may be over before the last of it is read.
    let (ask, connection) = (pin!(ask), pin!(connection));
    match select(ask, connection).await {
        Either::Left((read, _)) => read,
        Either::Right((_, ask)) => ask.await,
    }
}

async fn body(response: Response<Incoming>, max: usize) -> Result<Vec<u8>, FetchError> {
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status { code: response.status().as_u16() });
    }
    if response.headers().get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(FetchError::Encoded);
    }
    let mut body = response.into_body();
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| FetchError::Http(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        if read.len() + data.len() > max {
            return Err(FetchError::TooLong { max });
        }
        read.extend_from_slice(&data);
    }
    Ok(read)
}
