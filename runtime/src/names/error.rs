//! How resolving names can fail.

use std::net::SocketAddr;

/// Why a name leads to no address, or not to all that it could lead to. Names are printed as DNS
/// writes them, so that no odd byte of theirs reaches a terminal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name is none that DNS knows.
    #[error("{name} is not a name that can be looked up")]
    BadName {
        /// The name, with odd characters escaped.
        name: String,
    },
    /// Neither was a server named, nor does this host name one.
    #[error("no DNS server is known: this host names none")]
    NoServers,
    /// There is no such name.
    #[error("there is no name {name}")]
    NoSuchName {
        /// The name.
        name: String,
    },
    /// The name exists, and has nothing of what is wanted.
    #[error("{name} has no {wanted}")]
    NoRecords {
        /// The name.
        name: String,
        /// What was wanted.
        wanted: &'static str,
    },
    /// A server could not or would not answer, and no other did.
    #[error("the DNS server {server} did not resolve {name}: {said}")]
    Failed {
        /// The name.
        name: String,
        /// The server.
        server: SocketAddr,
        /// What it, or the operating system, said.
        said: String,
    },
    /// No answer came in time.
    #[error("nobody resolved {name} in time")]
    TimedOut {
        /// The name.
        name: String,
    },
    /// The answer is longer than anybody needs. It was not read.
    #[error("the answer for {name} has {bytes} bytes, more than {max}")]
    AnswerTooLong {
        /// The name.
        name: String,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        max: usize,
    },
    /// There are more records than anybody needs. The first ones were taken.
    #[error("{name} has {given} records, of which {max} were taken")]
    TooManyRecords {
        /// The name.
        name: String,
        /// How many there are.
        given: usize,
        /// How many were taken.
        max: usize,
    },
    /// The name leads back to itself.
    #[error("{name} leads back to itself")]
    Loop {
        /// The name.
        name: String,
    },
    /// Names lead to names, and so on.
    #[error("{name} was not looked up: it is more than {max} names deep")]
    TooDeep {
        /// The name.
        name: String,
        /// How deep names may lead.
        max: usize,
    },
    /// Names lead to ever more names.
    #[error("{name} was not looked up: it would be more than {max} look-ups")]
    TooManyLookups {
        /// The first name that was left out.
        name: String,
        /// How many there may be.
        max: usize,
    },
    /// Names lead to ever more addresses. The first ones were taken.
    #[error("{name} leads to more than {max} addresses; the others were left out")]
    TooManyAddresses {
        /// The name that was asked for.
        name: String,
        /// How many were taken.
        max: usize,
    },
    /// The name leads to addresses, and none of them can be dialled from here.
    #[error("{name} leads to {given} addresses, none of which has a transport that is spoken here")]
    NothingUsable {
        /// The name that was asked for.
        name: String,
        /// How many addresses there are.
        given: usize,
    },
}
