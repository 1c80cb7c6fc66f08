//! SOAP: actions of the services that map ports and open pinholes, and what is answered.

mod action;
mod answer;
#[cfg(test)]
mod tests;

pub use action::{Action, PortMapping};
pub use answer::{Answer, MappingEntry, SoapError};

use core::fmt;

/// Bytes of an answer; ours, since those of routers have under a thousand.
pub const ANSWER_MAX: usize = 16_384;
/// Characters of a text in an answer; the rest is cut off. Ours.
pub const TEXT_MAX: usize = 256;
/// Arguments of an answer that are looked at, number; ours, since none has more than eight.
pub const ARGUMENTS_MAX: usize = 32;

/// Why a service refuses: the number of a UPnPError. Firewalls use 7xx of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UpnpError(pub u16);

impl UpnpError {
    /// The service does not know the action.
    pub const INVALID_ACTION: UpnpError = UpnpError(401);
    /// Arguments are missing, or not as the service likes them: often the lease.
    pub const INVALID_ARGS: UpnpError = UpnpError(402);
    /// It did not work.
    pub const ACTION_FAILED: UpnpError = UpnpError(501);
    /// It may not be done for us.
    pub const NOT_AUTHORIZED: UpnpError = UpnpError(606);
    /// There is no entry of this number.
    pub const INVALID_INDEX: UpnpError = UpnpError(713);
    /// There is no such entry.
    pub const NO_SUCH_ENTRY: UpnpError = UpnpError(714);
    /// Another has the port, or (in secure mode) it is not for the sender.
    pub const CONFLICT: UpnpError = UpnpError(718);
    /// The port outside has to be that inside.
    pub const SAME_PORTS_REQUIRED: UpnpError = UpnpError(724);
    /// Mappings last for ever there.
    pub const ONLY_PERMANENT_LEASES: UpnpError = UpnpError(725);
    /// No port is left.
    pub const NO_PORT_MAPS_AVAILABLE: UpnpError = UpnpError(728);
}

impl fmt::Display for UpnpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = match self.0 {
            401 => "invalid action",
            402 => "invalid arguments",
            404 => "invalid variable",
            501 => "action failed",
            605 => "text too long",
            606 => "not authorized",
            713 => "no entry of this index",
            714 => "no such entry",
            715 => "the remote host must be one",
            716 => "the external port must be one",
            718 => "conflict with another mapping",
            724 => "both ports must be the same",
            725 => "only permanent leases",
            726 => "the remote host must be any",
            727 => "the external port must be any",
            728 => "no port is left",
            729 => "conflict with another mechanism",
            _ => return write!(f, "error {}", self.0),
        };
        write!(f, "error {}: {meaning}", self.0)
    }
}
