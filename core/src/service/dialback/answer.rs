//! How a request that was served ends, in the protocol's words and in ours.

use super::session::Pick;
use crate::Served;
use crate::wire::autonat::{DialStatus, Message, ResponseStatus};
use core::net::IpAddr;

/// Whether the requester got what it asked for: a dial.
pub(super) fn was_dialled(served: Served) -> bool {
    match served {
        Served::Delivered | Served::Connected | Served::DialFailed | Served::DialBackFailed => true,
        Served::Refused | Served::Rejected | Served::InternalError | Served::Aborted => false,
    }
}

/// How a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Too many requests of this peer are open; this one has not even come.
    Busy,
    /// A limit was reached.
    Rejected,
    /// There is nothing that we can or will dial, or the fault of the failure may be ours.
    Refused,
    /// The runtime let us down.
    InternalError,
    /// An address was dialled.
    Dialled(DialStatus),
    /// AutoNAT v1: the request makes no sense.
    BadRequest,
    /// AutoNAT v1: a dial reached the requester.
    Reached,
    /// AutoNAT v1: none did.
    Unreached,
    /// An address was dialled in vain from this IP, which is not the one that the requester is
    /// connected to.
    FailedFrom(IpAddr),
}

impl Verdict {
    /// What is left of it where the dial ran while we slept: that it failed may be our doing.
    pub(super) fn after_sleep(self) -> Verdict {
        match self {
            Verdict::Dialled(status) if status != DialStatus::Ok => Verdict::InternalError,
            Verdict::FailedFrom(_) | Verdict::Unreached => Verdict::InternalError,
            Verdict::Dialled(_)
            | Verdict::Busy
            | Verdict::Rejected
            | Verdict::Refused
            | Verdict::BadRequest
            | Verdict::Reached
            | Verdict::InternalError => self,
        }
    }

    /// The message that says so (autonat-v2 §Requirements for ResponseStatus) and the word for
    /// the operator.
    pub(super) fn answer(self, pick: Option<Pick>) -> (Message, Served) {
        let (status, dial_status, served) = match self {
            Verdict::Busy | Verdict::Rejected => {
                (ResponseStatus::Rejected, DialStatus::Unused, Served::Rejected)
            }
            Verdict::Refused => (ResponseStatus::Refused, DialStatus::Unused, Served::Refused),
            // The last three are never said to a client of v2.
            Verdict::InternalError
            | Verdict::BadRequest
            | Verdict::Reached
            | Verdict::Unreached => {
                (ResponseStatus::InternalError, DialStatus::Unused, Served::InternalError)
            }
            Verdict::Dialled(status) => (ResponseStatus::Ok, status, served_as(status)),
            Verdict::FailedFrom(_) => {
                (ResponseStatus::Ok, DialStatus::DialError, Served::DialFailed)
            }
        };
        // autonat-v2 §Requirements for DialStatus: the index means something with OK alone.
        let addr_idx = match (self, pick) {
            (Verdict::Dialled(_) | Verdict::FailedFrom(_), Some(pick)) => pick.index,
            (_, _) => 0,
        };
        let failed_from = match self {
            Verdict::FailedFrom(from) => Some(from),
            Verdict::Dialled(_)
            | Verdict::Busy
            | Verdict::Rejected
            | Verdict::Refused
            | Verdict::BadRequest
            | Verdict::Reached
            | Verdict::Unreached
            | Verdict::InternalError => None,
        };
        (Message::DialResponse { status, addr_idx, dial_status, failed_from }, served)
    }
}

fn served_as(status: DialStatus) -> Served {
    match status {
        DialStatus::Ok => Served::Delivered,
        DialStatus::DialError => Served::DialFailed,
        DialStatus::DialBackError => Served::DialBackFailed,
        DialStatus::Unused | DialStatus::Unknown(_) => Served::InternalError,
    }
}
