//! The result codes of AutoNAT v2. Three of them, never merged: what became of a request, how the
//! dial went, and what the client said to the nonce. A code that nobody has defined stays what it
//! is: `Unknown` never holds a code that has a name, when it comes from `from_code`.

/// What became of a dial request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ResponseStatus {
    /// `E_INTERNAL_ERROR`, 0: also what an empty response says.
    InternalError,
    /// `E_REQUEST_REJECTED`, 100: rate limit, resource limit or blacklist.
    Rejected,
    /// `E_DIAL_REFUSED`, 101: no address that the server can or will dial.
    Refused,
    /// `OK`, 200: an address was dialled, whether or not anything answered.
    Ok,
    /// Any other code. autonat-v2 §Requirements For ResponseStatus: such a response MUST be
    /// discarded.
    Unknown(i32),
}

/// How a dial went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DialStatus {
    /// `UNUSED`, 0: nothing was dialled.
    Unused,
    /// `E_DIAL_ERROR`, 100: no connection.
    DialError,
    /// `E_DIAL_BACK_ERROR`, 101: a connection, but the nonce could not be delivered.
    DialBackError,
    /// `OK`, 200: the nonce was delivered.
    Ok,
    /// Any other code; such a response must be discarded.
    Unknown(i32),
}

/// What a client says to a dial-back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DialBackStatus {
    /// `OK`, 0: which makes the body of the response empty.
    Ok,
    /// Any other code: not an acceptance.
    Unknown(i32),
}

impl ResponseStatus {
    /// The status with this code.
    pub const fn from_code(code: i32) -> ResponseStatus {
        match code {
            0 => ResponseStatus::InternalError,
            100 => ResponseStatus::Rejected,
            101 => ResponseStatus::Refused,
            200 => ResponseStatus::Ok,
            code => ResponseStatus::Unknown(code),
        }
    }

    /// Its code on the wire.
    pub const fn code(self) -> i32 {
        match self {
            ResponseStatus::InternalError => 0,
            ResponseStatus::Rejected => 100,
            ResponseStatus::Refused => 101,
            ResponseStatus::Ok => 200,
            ResponseStatus::Unknown(code) => code,
        }
    }
}

impl DialStatus {
    /// The status with this code.
    pub const fn from_code(code: i32) -> DialStatus {
        match code {
            0 => DialStatus::Unused,
            100 => DialStatus::DialError,
            101 => DialStatus::DialBackError,
            200 => DialStatus::Ok,
            code => DialStatus::Unknown(code),
        }
    }

    /// Its code on the wire.
    pub const fn code(self) -> i32 {
        match self {
            DialStatus::Unused => 0,
            DialStatus::DialError => 100,
            DialStatus::DialBackError => 101,
            DialStatus::Ok => 200,
            DialStatus::Unknown(code) => code,
        }
    }
}

impl DialBackStatus {
    /// The status with this code.
    pub const fn from_code(code: i32) -> DialBackStatus {
        match code {
            0 => DialBackStatus::Ok,
            code => DialBackStatus::Unknown(code),
        }
    }

    /// Its code on the wire.
    pub const fn code(self) -> i32 {
        match self {
            DialBackStatus::Ok => 0,
            DialBackStatus::Unknown(code) => code,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_the_one_that_is_deployed() {
        let response = [
            (0, ResponseStatus::InternalError),
            (100, ResponseStatus::Rejected),
            (101, ResponseStatus::Refused),
            (200, ResponseStatus::Ok),
            (102, ResponseStatus::Unknown(102)),
            (-1, ResponseStatus::Unknown(-1)),
        ];
        for (code, status) in response {
            assert_eq!((ResponseStatus::from_code(code), status.code()), (status, code));
        }
        let dial = [
            (0, DialStatus::Unused),
            (100, DialStatus::DialError),
            (101, DialStatus::DialBackError),
            (200, DialStatus::Ok),
            (1, DialStatus::Unknown(1)),
        ];
        for (code, status) in dial {
            assert_eq!((DialStatus::from_code(code), status.code()), (status, code));
        }
        for (code, status) in [(0, DialBackStatus::Ok), (200, DialBackStatus::Unknown(200))] {
            assert_eq!((DialBackStatus::from_code(code), status.code()), (status, code));
        }
    }
}
