//! Hands a record to an agent again, and compares what comes out.

use super::{Drawn, Head, NOW_MAX, Step, checkpoint, digest};
use crate::{Actions, Agent, ConfigError, Cx, Deadline, Draw, Explanation, Signer};
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;
use core::slice::Iter;

/// An agent that lives through a record. It never leaves: whatever a file makes it believe, it
/// can act on nothing.
#[derive(Clone, Debug)]
pub struct Replay {
    agent: Agent,
    steps: u64,
    digest: u64,
    drawn: Vec<Drawn>,
    signatures: Vec<Bytes>,
}

/// Why a record cannot be replayed at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// A configuration that this core refuses.
    #[error("the record's configuration is refused: {0}")]
    Config(#[from] ConfigError),
    /// A part that is not the first, without a state or with one that this program cannot read.
    #[error("the state that this part of a record begins with is of another version, or damaged")]
    Checkpoint,
}

/// A step that went otherwise than recorded. Whatever comes after the first one may be a
/// consequence of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("step {step} diverges: {what}")]
pub struct Divergence {
    /// The number of the step; the first is 1.
    pub step: u64,
    /// What was different.
    pub what: Difference,
}

/// What was different; the first thing in the order in which a step happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Difference {
    /// Core asked for something else of chance than what was recorded.
    Draw {
        /// What was asked for.
        asked: Asked,
        /// What was drawn then; `None` if nothing more was.
        recorded: Option<Drawn>,
    },
    /// Core drew less than was recorded.
    DrawsLeft {
        /// How many were not used.
        left: usize,
    },
    /// Core wanted one more signature than was recorded.
    Signature,
    /// Core signed less than was recorded.
    SignaturesLeft {
        /// How many were not used.
        left: usize,
    },
    /// The actions are not those that were recorded, or the deadline behind them is not.
    Actions {
        /// The digest then.
        recorded: u64,
        /// The digest now.
        found: u64,
    },
}

/// What core asked of chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A number below this one.
    Below(u64),
    /// A nonce.
    Nonce,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Draw { asked, recorded: None } => {
                write!(f, "core draws {asked}, which it did not")
            }
            Difference::Draw { asked, recorded: Some(Drawn::Nonce(_)) } => {
                write!(f, "core draws {asked}, where it drew a nonce")
            }
            Difference::Draw { asked, recorded: Some(Drawn::Below { n, value }) } => {
                write!(f, "core draws {asked}, where it drew {value} below {n}")
            }
            Difference::DrawsLeft { left } => write!(f, "core draws {left} times less"),
            Difference::Signature => f.write_str("core signs something, which it did not"),
            Difference::SignaturesLeft { left } => write!(f, "core signs {left} times less"),
            Difference::Actions { recorded, found } => {
                write!(f, "what comes out has digest {found:016x}, not {recorded:016x}")
            }
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Asked::Below(n) => write!(f, "a number below {n}"),
            Asked::Nonce => f.write_str("a nonce"),
        }
    }
}

impl Replay {
    /// The agent as the record found it.
    pub fn new(head: &Head) -> Result<Replay, ReplayError> {
        let agent = checkpoint::restore(head)?;
        Ok(Replay { agent, steps: 0, digest: 0, drawn: Vec::new(), signatures: Vec::new() })
    }

    /// Feed one step, and append what comes of it to `actions`, on a divergence too. The replay
    /// goes on from wherever the agent is then.
    pub fn step(&mut self, step: &Step, actions: &mut Actions) -> Result<(), Divergence> {
        self.steps += 1;
        let first = actions.as_slice().len();
        let (recorded, spare) = (step.drawn.iter(), self.steps << 16);
        let mut draw = Drawer { recorded, drawn: Vec::new(), fault: None, spare };
        let mut sign =
            Hand { recorded: step.signatures.iter(), signatures: Vec::new(), short: false };
        let mut cx = Cx {
            now: step.now.min(NOW_MAX).max(self.agent.now),
            unix: step.unix,
            draw: &mut draw,
            sign: &mut sign,
            actions,
        };
        self.agent.handle(&mut cx, step.event.clone());
        self.digest = digest::of(&actions.as_slice()[first..], &self.agent, None);
        let (recorded, found) = (step.digest, self.digest);
        let actions = (recorded != found).then_some(Difference::Actions { recorded, found });
        let what = draw.difference().or(sign.difference()).or(actions);
        (self.drawn, self.signatures) = (draw.drawn, sign.signatures);
        what.map_or(Ok(()), |what| Err(Divergence { step: self.steps, what }))
    }

    /// The digest of what came out of the last step.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The agent's state, as a part that begins here would carry it along: together with `config`
    /// and `identity` of the head it goes into another [`Head`].
    #[must_use]
    pub fn checkpoint(&self) -> Bytes {
        checkpoint::copy(&self.agent)
    }

    /// Whether both agents are in the same state: so it is where one part of a record ends and the
    /// next one begins.
    #[must_use]
    pub fn agrees_with(&self, other: &Replay) -> bool {
        self.agent == other.agent
    }

    /// The last step, which was `step`, as this core takes it: with all that it drew and signed,
    /// and the digest of what it did. A record of such steps replays without a divergence.
    #[must_use]
    pub fn renewed(&self, step: &Step) -> Step {
        Step {
            drawn: self.drawn.clone(),
            signatures: self.signatures.clone(),
            digest: self.digest,
            ..step.clone()
        }
    }

    /// How many steps were fed.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Why the verdicts are what they are by now.
    pub fn explain(&self) -> Explanation {
        self.agent.explain()
    }

    /// When the agent wants to be woken, and why.
    pub fn deadline(&self) -> Option<Deadline> {
        self.agent.deadline()
    }
}

/// Chance as it was.
struct Drawer<'a> {
    recorded: Iter<'a, Drawn>,
    drawn: Vec<Drawn>,
    /// The first thing that was asked otherwise.
    fault: Option<Difference>,
    /// The next nonce where none was recorded: no two probes shall share one.
    spare: u64,
}

impl Drawer<'_> {
    fn difference(&self) -> Option<Difference> {
        let left = self.recorded.len();
        self.fault.or((left > 0).then_some(Difference::DrawsLeft { left }))
    }

    fn otherwise(&mut self, asked: Asked, recorded: Option<Drawn>) {
        self.fault.get_or_insert(Difference::Draw { asked, recorded });
    }
}

impl Draw for Drawer<'_> {
    fn below(&mut self, n: u64) -> u64 {
        let recorded = self.recorded.next().copied();
        let fits = |value: u64| value < n || value == 0;
        let value = match recorded {
            Some(Drawn::Below { n: bound, value }) if bound == n && fits(value) => value,
            Some(Drawn::Below { .. } | Drawn::Nonce(_)) | None => {
                self.otherwise(Asked::Below(n), recorded);
                0
            }
        };
        self.drawn.push(Drawn::Below { n, value });
        value
    }

    fn nonce(&mut self) -> u64 {
        let recorded = self.recorded.next().copied();
        let nonce = match recorded {
            Some(Drawn::Nonce(nonce)) => nonce,
            Some(Drawn::Below { .. }) | None => {
                self.otherwise(Asked::Nonce, recorded);
                self.spare += 1;
                self.spare
            }
        };
        self.drawn.push(Drawn::Nonce(nonce));
        nonce
    }
}

/// Signatures as they were.
struct Hand<'a> {
    recorded: Iter<'a, Bytes>,
    signatures: Vec<Bytes>,
    /// Whether more was signed than recorded.
    short: bool,
}

impl Hand<'_> {
    fn difference(&self) -> Option<Difference> {
        let left = self.recorded.len();
        let more = self.short.then_some(Difference::Signature);
        more.or((left > 0).then_some(Difference::SignaturesLeft { left }))
    }
}

impl Signer for Hand<'_> {
    fn sign(&mut self, _message: &[u8]) -> Vec<u8> {
        let recorded = self.recorded.next();
        self.short |= recorded.is_none();
        let signature = recorded.cloned().unwrap_or_default();
        self.signatures.push(signature.clone());
        signature.into()
    }
}
