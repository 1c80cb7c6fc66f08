//! What the errors of gateways mean.

use super::asker::{HOLD_OFF_MAX, HOLD_OFF_MIN};
use super::grant::{Fault, Remedy};
use crate::wire::{nat_pmp, pcp};
use crate::{Duration, MappingProtocol, MappingReason};

/// What an error means, and for how long (RFC 6887 §7.4).
pub(super) fn pcp_fault(code: pcp::ResultCode, lifetime_s: u32) -> Fault {
    use pcp::ResultCode as Code;
    let protocol = MappingProtocol::Pcp;
    let number = u16::from(code.code());
    let hold_off = Duration::from_secs(lifetime_s.into()).clamp(HOLD_OFF_MIN, HOLD_OFF_MAX);
    let hold_off = Remedy::HoldOff(hold_off);
    let (reason, remedy) = match code {
        Code::NotAuthorized => (MappingReason::Refused { protocol, code: number }, hold_off),
        Code::NetworkFailure => (MappingReason::GatewayOffline { protocol }, hold_off),
        Code::NoResources | Code::UserExceededQuota => {
            (MappingReason::Exhausted { protocol, code: number }, hold_off)
        }
        Code::CannotProvideExternal => (MappingReason::Conflict, Remedy::OtherPort),
        Code::AddressMismatch => (MappingReason::NestedNetwork, hold_off),
        Code::UnsupportedOpcode | Code::UnsupportedProtocol | Code::ExcessiveRemotePeers => {
            (MappingReason::Refused { protocol, code: number }, hold_off)
        }
        Code::Success
        | Code::UnsupportedVersion
        | Code::MalformedRequest
        | Code::UnsupportedOption
        | Code::MalformedOption
        | Code::Other(_) => (MappingReason::Faulty { protocol, code: number }, hold_off),
    };
    Fault { reason, remedy }
}

/// The same of NAT-PMP, whose errors name no time; `None` where it does not do what was asked at all.
pub(super) fn nat_pmp_fault(code: nat_pmp::ResultCode) -> Option<Fault> {
    use nat_pmp::ResultCode as Code;
    let protocol = MappingProtocol::NatPmp;
    let number = code.code();
    let (reason, hold_off) = match code {
        Code::UnsupportedVersion | Code::UnsupportedOpcode => return None,
        Code::NotAuthorized => (MappingReason::Refused { protocol, code: number }, HOLD_OFF_MAX),
        Code::NetworkFailure => (MappingReason::GatewayOffline { protocol }, HOLD_OFF_MIN),
        Code::OutOfResources => (MappingReason::Exhausted { protocol, code: number }, HOLD_OFF_MIN),
        Code::Other(_) => (MappingReason::Faulty { protocol, code: number }, HOLD_OFF_MAX),
    };
    Some(Fault { reason, remedy: Remedy::HoldOff(hold_off) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_off_has_a_floor_and_a_ceiling() {
        let held_off = |lifetime_s| {
            let fault = pcp_fault(pcp::ResultCode::NoResources, lifetime_s);
            let Remedy::HoldOff(span) = fault.remedy else { panic!("{fault:?}") };
            span.as_secs()
        };
        assert_eq!([0, 90, u32::MAX].map(held_off), [60, 90, 1_800]);
    }
}
