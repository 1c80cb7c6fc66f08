//! What a service answers.

use super::{ANSWER_MAX, ARGUMENTS_MAX, Action, TEXT_MAX, UpnpError};
use crate::wire::MapTransport;
use crate::wire::upnp::xml::{self, Piece};
use crate::wire::upnp::{XmlError, printable};
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

/// An answer to an action.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// It is done, and there is nothing to say.
    Done,
    /// Of GetStatusInfo.
    Status {
        /// Whether the connection is up.
        connected: bool,
        /// For how long, in seconds.
        uptime_s: Option<u32>,
    },
    /// Of GetExternalIPAddress: `None` if it has none. It may be private or unspecified.
    ExternalIp(Option<Ipv4Addr>),
    /// Of AddAnyPortMapping: the port that was mapped.
    Mapped {
        /// The port outside.
        external_port: u16,
    },
    /// Of the actions that look up a mapping.
    Entry(MappingEntry),
    /// Of GetFirewallStatus.
    Firewall {
        /// Whether it filters.
        enabled: bool,
        /// Whether pinholes may be made.
        pinholes_allowed: bool,
    },
    /// Of AddPinhole.
    Pinhole {
        /// Its number.
        id: u16,
    },
    /// Of CheckPinholeWorking.
    Working(bool),
    /// It is refused.
    Fault(UpnpError),
}

/// A mapping that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MappingEntry {
    /// The port outside.
    pub external_port: u16,
    /// UDP or TCP.
    pub transport: MapTransport,
    /// The port inside.
    pub internal_port: u16,
    /// Whose it is; `None` where the router names no IP.
    pub internal_client: Option<IpAddr>,
    /// Whether it is in use.
    pub enabled: bool,
    /// What whoever made it wrote: printable ASCII, at most [`TEXT_MAX`].
    pub description: String,
    /// How much longer, in seconds; 0 is for ever, or not told.
    pub lease_s: u32,
}

/// A response that is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SoapError {
    /// A status other than 200, and no fault that says why.
    #[error("a response with status {status}")]
    Status {
        /// The status.
        status: u16,
    },
    /// The body cannot be read.
    #[error(transparent)]
    Xml(#[from] XmlError),
    /// The body is no answer to this action.
    #[error("an answer to something else")]
    Other,
    /// An argument is missing, or not what it should be.
    #[error("the answer lacks {name}")]
    Argument {
        /// Its name.
        name: &'static str,
    },
}

/// What an answer holds, before it is known what was asked.
#[derive(Default)]
struct Found {
    answers: bool,
    faults: bool,
    code: Option<u16>,
    arguments: Vec<(String, String)>,
}

impl Answer {
    /// Read the answer to an action out of the status and the body of the response.
    pub fn decode(action: &Action, status: u16, body: &[u8]) -> Result<Answer, SoapError> {
        let mut found = Found::default();
        let read = xml::read(body, ANSWER_MAX, |piece| found.take(piece));
        // A fault may come with another status than 500, and be cut after its code.
        match (found.code.filter(|_| found.faults), status, read) {
            (Some(code), ..) => return Ok(Answer::Fault(UpnpError(code))),
            (None, 200, Ok(())) => {}
            (None, 200, Err(_)) if body.trim_ascii().is_empty() && is_silent(action) => {
                return Ok(Answer::Done);
            }
            (None, 200, Err(error)) => return Err(error.into()),
            (None, status, _) => return Err(SoapError::Status { status }),
        }
        if !found.answers || found.faults {
            return Err(SoapError::Other);
        }
        found.answer(action)
    }
}

/// Whether there is nothing to say to an action.
fn is_silent(action: &Action) -> bool {
    matches!(
        action,
        Action::AddPortMapping(_)
            | Action::DeletePortMapping { .. }
            | Action::UpdatePinhole { .. }
            | Action::DeletePinhole { .. }
    )
}

impl Found {
    fn take(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Open("Fault") => self.faults = true,
            Piece::Open(name) => self.answers |= name.ends_with("Response"),
            Piece::Close("errorCode", text) => self.code = self.code.or(text.parse().ok()),
            Piece::Close(name, text) => {
                if self.arguments.len() < ARGUMENTS_MAX && name.len() <= TEXT_MAX {
                    self.arguments.push((name.to_owned(), printable(text, TEXT_MAX)));
                }
            }
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.arguments.iter().find(|(found, _)| found == name).map(|(_, text)| text.as_str())
    }

    fn number<T: core::str::FromStr>(&self, name: &'static str) -> Result<T, SoapError> {
        let number = self.text(name).and_then(|text| text.parse().ok());
        number.ok_or(SoapError::Argument { name })
    }

    /// UPnP Device Architecture 1.1 §2.5: a boolean may be said in three ways.
    fn flag(&self, name: &'static str) -> Result<bool, SoapError> {
        match self.text(name) {
            Some("1" | "true" | "yes" | "True" | "TRUE") => Ok(true),
            Some("0" | "false" | "no" | "False" | "FALSE") => Ok(false),
            Some(_) | None => Err(SoapError::Argument { name }),
        }
    }

    fn answer(&self, action: &Action) -> Result<Answer, SoapError> {
        Ok(match action {
            Action::AddPortMapping(_)
            | Action::DeletePortMapping { .. }
            | Action::UpdatePinhole { .. }
            | Action::DeletePinhole { .. } => Answer::Done,
            Action::GetStatusInfo => {
                let name = "NewConnectionStatus";
                let status = self.text(name).ok_or(SoapError::Argument { name })?;
                let up = ["connected", "up"].iter().any(|up| status.eq_ignore_ascii_case(up));
                Answer::Status { connected: up, uptime_s: self.number("NewUptime").ok() }
            }
            Action::GetExternalIpAddress => {
                let name = "NewExternalIPAddress";
                match self.text(name).ok_or(SoapError::Argument { name })? {
                    "" => Answer::ExternalIp(None),
                    text => match text.parse() {
                        Ok(ip) => Answer::ExternalIp(Some(ip)),
                        Err(_) => return Err(SoapError::Argument { name }),
                    },
                }
            }
            Action::AddAnyPortMapping(_) => {
                Answer::Mapped { external_port: self.number("NewReservedPort")? }
            }
            Action::GetSpecificPortMappingEntry { external_port, transport } => {
                Answer::Entry(self.entry(*external_port, *transport)?)
            }
            Action::GetGenericPortMappingEntry { .. } => {
                let name = "NewProtocol";
                let said = self.text(name).unwrap_or_default();
                let is_said = |one: &MapTransport| one.name().eq_ignore_ascii_case(said);
                let transport = MapTransport::ALL.into_iter().find(is_said);
                let transport = transport.ok_or(SoapError::Argument { name })?;
                Answer::Entry(self.entry(self.number("NewExternalPort")?, transport)?)
            }
            Action::GetFirewallStatus => Answer::Firewall {
                enabled: self.flag("FirewallEnabled")?,
                pinholes_allowed: self.flag("InboundPinholeAllowed")?,
            },
            Action::AddPinhole { .. } => Answer::Pinhole { id: self.number("UniqueID")? },
            Action::CheckPinholeWorking { .. } => Answer::Working(self.flag("IsWorking")?),
        })
    }

    fn entry(
        &self,
        external_port: u16,
        transport: MapTransport,
    ) -> Result<MappingEntry, SoapError> {
        Ok(MappingEntry {
            external_port,
            transport,
            internal_port: self.number("NewInternalPort")?,
            internal_client: self.number("NewInternalClient").ok(),
            enabled: self.flag("NewEnabled").unwrap_or(true),
            description: self.text("NewPortMappingDescription").unwrap_or_default().to_owned(),
            lease_s: self.number("NewLeaseDuration").unwrap_or(0),
        })
    }
}
