//! Documents from the web: one GET over a connection of its own, on whatever runtime there is.
//!
//! HTTP/1.1 is hyper's, TLS is rustls'. There are no redirects, no cookies, no compression and no
//! proxies; what is read is bounded, and so is the time. Servers of HTTP are not in this package: they
//! share [`Io`].

mod client;
mod io;
mod tls;
mod url;

pub use client::FetchError;
pub use io::Io;
pub use tls::AuthoritiesError;
pub use url::{Url, UrlError};

pub(crate) use client::{Client, get};
pub(crate) use tls::Tls;
