//! Drives an agent and writes down what happens.

use super::mask::Mask;
use super::{Drawn, Head, Step, Writer, body, checkpoint, digest};
use crate::{Agent, Cx, Draw, Event, Instant, Signer, UnixTime};
use alloc::vec::Vec;
use bytes::Bytes;

/// What is named as the writer of a record.
const SOFTWARE: &str = concat!("portolan/", env!("CARGO_PKG_VERSION"));

/// Stands between a caller and its agent, and writes down every step.
///
/// Nothing that the agent does depends on it. Whoever drives the agent past it spoils the record,
/// which then does not replay.
#[derive(Clone, Debug)]
pub struct Recorder {
    mask: Mask,
    writer: Option<Writer>,
}

impl Recorder {
    /// A recorder that masks nonces with this key. Draw it from a CSPRNG, and write it nowhere.
    pub fn new(mask: [u8; 16]) -> Recorder {
        Recorder { mask: Mask::new(mask), writer: None }
    }

    /// Begin a part: append magic, version and head to `out`. Part 0 belongs to an agent that has
    /// handled nothing; a later one carries its state along.
    pub fn begin(
        &mut self,
        agent: &Agent,
        part: u64,
        now: Instant,
        unix: UnixTime,
        out: &mut Vec<u8>,
    ) {
        let checkpoint = (part > 0).then(|| checkpoint::save(agent, &self.mask));
        let head = Head {
            software: SOFTWARE.into(),
            config: agent.config.clone(),
            identity: agent.identity.clone(),
            part,
            now,
            unix,
            checkpoint,
        };
        self.writer = Some(Writer::new(&head, out));
    }

    /// [`Agent::handle`], and the step as one frame appended to `out`. Before the first
    /// [`Recorder::begin`] nothing is written.
    pub fn handle(&mut self, agent: &mut Agent, cx: &mut Cx<'_>, event: Event, out: &mut Vec<u8>) {
        let Recorder { mask, writer: Some(writer) } = self else {
            return agent.handle(cx, event);
        };
        let first = cx.actions.as_slice().len();
        // What is written never runs backwards, and what is handed in is what is written.
        cx.now = cx.now.max(writer.now());
        let step = Step {
            now: cx.now,
            unix: cx.unix,
            event: masked(&event, mask),
            drawn: Vec::new(),
            signatures: Vec::new(),
            digest: 0,
        };
        let mut noting = Noting { step, writer, out };
        let Step { drawn, signatures, .. } = &mut noting.step;
        let mut draw = NotedDraw { draw: &mut *cx.draw, mask, drawn };
        let mut sign = NotedSigner { sign: &mut *cx.sign, signatures };
        let (draw, sign, actions) = (&mut draw, &mut sign, &mut *cx.actions);
        let mut noted = Cx { now: cx.now, unix: cx.unix, draw, sign, actions };
        agent.handle(&mut noted, event);
        cx.now = noted.now;
        noting.step.now = cx.now;
        noting.step.digest = digest::of(&cx.actions.as_slice()[first..], agent, Some(mask));
    }
}

/// A step that is under way. It is written however it ends: if core panics, the fact that made it
/// do so is the last one in the record.
struct Noting<'a> {
    step: Step,
    writer: &'a mut Writer,
    out: &'a mut Vec<u8>,
}

impl Drop for Noting<'_> {
    fn drop(&mut self) {
        self.writer.step(&self.step, self.out);
    }
}

/// An event as the record keeps it.
fn masked(event: &Event, mask: &Mask) -> Event {
    let mut event = event.clone();
    if let Event::Frame { stream, body } = &mut event {
        *body = body::normal(*stream, body, Some(mask));
    }
    event
}

/// Chance that remembers what it gave.
struct NotedDraw<'a> {
    draw: &'a mut dyn Draw,
    mask: &'a Mask,
    drawn: &'a mut Vec<Drawn>,
}

impl Draw for NotedDraw<'_> {
    fn below(&mut self, n: u64) -> u64 {
        let value = self.draw.below(n);
        self.drawn.push(Drawn::Below { n, value });
        value
    }

    fn nonce(&mut self) -> u64 {
        let nonce = self.draw.nonce();
        self.drawn.push(Drawn::Nonce(self.mask.nonce(nonce)));
        nonce
    }
}

/// A hand that remembers what it signed.
struct NotedSigner<'a> {
    sign: &'a mut dyn Signer,
    signatures: &'a mut Vec<Bytes>,
}

impl Signer for NotedSigner<'_> {
    fn sign(&mut self, message: &[u8]) -> Vec<u8> {
        let signature = self.sign.sign(message);
        self.signatures.push(Bytes::copy_from_slice(&signature));
        signature
    }
}
