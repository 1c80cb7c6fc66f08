//! A record that can be shown around: the same story, told of other addresses and peers.
//!
//! ```text
//!  a record ─► first reading:  which IPs and peers there are ─► Others: what stands for each
//!           └► second reading: each step with the others in it, lived through and written anew
//! ```
//!
//! Hidden: IPs, peer ids, public keys, DNS names, signatures, signed peer records and vouchers,
//! whatever components of an address may name its owner otherwise, and what does not decode. Kept: times,
//! ports, transports, the class of each IP and how many leading bits any two of them share, agent
//! versions and names of protocols, round-trip times, masked nonces, and the order of everything.
//!
//! Orders are kept because core decides by them: it goes through peers and addresses as they are
//! sorted, and another order would be another story. What cannot be hidden follows from that, and
//! `ips.rs` says it for IPs: who knows some of the addresses may recognise their neighbours.
//! `docs/flight-record.md` §Redaction tells it to those who give a record away.

mod frames;
mod ips;
mod mapping;
mod others;
mod relay;
mod steps;

use super::{
    Divergence, Head, ReadError, Reader, Replay, ReplayError, Step, Tail, Writer, checkpoint,
};
use crate::{Action, Actions, Notice, Oddity, RelayFailure, RelayNotice};
use alloc::vec::Vec;
use frames::Refused;
use others::{Found, Others};

/// A record without addresses and identities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redacted {
    /// The new record. It replays on this core to its last digest, whatever the old one did.
    pub record: Vec<u8>,
    /// How many steps it has: all that could be read.
    pub steps: u64,
    /// What lay behind the last step of the old record, and was dropped.
    pub tail: Tail,
    /// The first step that this core takes otherwise than the old record says. The new record
    /// cannot tell, since its digests are this core's.
    pub diverged: Option<Divergence>,
}

/// Why a record cannot be redacted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedactError {
    /// It cannot be read, or not to its end.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It cannot be replayed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// What stands for a step's names takes more room than a step may have.
    #[error("step {step} would be too long with other names in it")]
    TooLong {
        /// The number of the step; the first is 1.
        step: u64,
    },
}

/// The same record with other addresses and peers in it.
///
/// What stands for what follows from `salt`: draw it from a CSPRNG, and forget it. Whoever has it
/// can try addresses until one fits.
pub fn redact(bytes: &[u8], salt: [u8; 16]) -> Result<Redacted, RedactError> {
    let (head, reader) = Reader::new(bytes)?;
    let agent = checkpoint::restore(&head)?;
    let mut found = Found::default();
    steps::head(&head, &agent, &mut found);
    for step in reader.clone() {
        // Whether a signed record is good makes no difference to what is found: it is dropped.
        steps::event(&step?.event, Refused::default(), &mut found);
    }
    let mut others = Others::new(salt, found);
    let other_head = steps::head(&head, &agent, &mut others);
    rewritten((&head, &other_head), reader, others)
}

/// The second reading.
fn rewritten(
    (head, other_head): (&Head, &Head),
    mut reader: Reader<'_>,
    mut others: Others,
) -> Result<Redacted, RedactError> {
    let (mut before, mut after) = (Replay::new(head)?, Replay::new(other_head)?);
    let mut record = Vec::new();
    let mut writer = Writer::new(other_head, &mut record);
    let mut actions = Actions::new();
    let mut diverged = None;
    for step in reader.by_ref() {
        let step = step?;
        diverged = diverged.or(before.step(&step, &mut actions).err());
        let bad = actions.drain().fold(Refused::default(), |bad, action| bad.heard(&action));
        let other = Step {
            event: steps::event(&step.event, bad, &mut others),
            signatures: step.signatures.iter().map(frames::blank).collect(),
            ..step
        };
        // The digest is that of the old actions: of course it differs.
        let _ = after.step(&other, &mut actions);
        actions.drain().for_each(drop);
        writer.step(&after.renewed(&other), &mut record);
        if writer.has_left_out() {
            return Err(RedactError::TooLong { step: after.steps() });
        }
    }
    Ok(Redacted { record, steps: after.steps(), tail: reader.tail(), diverged })
}

impl Refused {
    /// What is known after this order as well.
    fn heard(self, action: &Action) -> Refused {
        let Action::Notify(notice) = action else { return self };
        let Refused { record, voucher } = self;
        Refused {
            record: record
                || matches!(notice, Notice::Ignored { oddity: Oddity::BadPeerRecord, .. }),
            voucher: voucher
                || matches!(notice, Notice::Relay(RelayNotice::Changed(relay))
                    if relay.failure == Some(RelayFailure::BadVoucher)),
        }
    }
}
