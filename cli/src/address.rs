//! Multiaddrs as people type them: what is wrong with one is said beside the text itself.

use multiaddr::Multiaddr;
use portolan_runtime::AddressError;

/// A multiaddr that is of no use here. Says which one, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {problem}")]
pub struct BadAddress {
    /// The text that was given.
    pub text: String,
    /// What is wrong with it.
    pub problem: AddressProblem,
}

/// What is wrong with a text that should be a multiaddr.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressProblem {
    /// It does not parse at all.
    #[error("is not a multiaddr: {0}")]
    Malformed(String),
    /// It is a multiaddr, but of no use.
    #[error(transparent)]
    Useless(#[from] AddressError),
}

/// Read the address of a peer to dial: IP, port and transport, and `/p2p/PEER-ID` at the end if
/// only that peer will do.
///
/// # Errors
/// Names the text and what is wrong with it.
pub fn peer_address(text: &str) -> Result<Multiaddr, BadAddress> {
    read(text, |addr| portolan_runtime::destination(addr).map(drop))
}

/// Read an address to listen on. The IP may be a wildcard, the port may be zero.
///
/// # Errors
/// Names the text and what is wrong with it.
pub fn listen_address(text: &str) -> Result<Multiaddr, BadAddress> {
    read(text, |addr| portolan_runtime::listen_address(addr).map(drop))
}

fn read(
    text: &str,
    check: impl FnOnce(&Multiaddr) -> Result<(), AddressError>,
) -> Result<Multiaddr, BadAddress> {
    let fault = |problem| BadAddress { text: text.to_owned(), problem };
    let addr: Multiaddr = text.parse().map_err(|error| fault(malformed(text, &error)))?;
    check(&addr).map_err(|error| fault(error.into()))?;
    Ok(addr)
}

/// The parser's own words, and what people most often get wrong.
fn malformed(text: &str, error: &multiaddr::Error) -> AddressProblem {
    let hint = if text.starts_with('/') { "" } else { " (it begins with a slash: /ip4/…)" };
    AddressProblem::Malformed(format!("{error}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named_beside_the_text() {
        for (text, problem) in [
            ("192.0.2.1:4001", "begins with a slash"),
            ("/ip4/192.0.2.300/tcp/1", "not a multiaddr"),
            ("/ip4/192.0.2.1/tcp/1/p2p/nobody", "not a multiaddr"),
            ("/dns4/example.org/tcp/1", "names are not resolved"),
            ("/ip4/192.0.2.1/tcp/1/ws", "/ws after the port"),
            ("/ip4/192.0.2.1/tcp/0", "port 0"),
        ] {
            let error = peer_address(text).expect_err("it is of no use").to_string();
            assert!(error.contains(text) && error.contains(problem), "{error}");
        }
        listen_address("/ip4/0.0.0.0/tcp/0").expect("a good address");
    }
}
