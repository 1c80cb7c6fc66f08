//! `portolan replay`: a flight record through the same core, with no sockets.
//!
//! What is written out depends on the record, the options and this version of core alone: no
//! clock, and nothing of the machine. So two transcripts can be compared.

use crate::thousands;
use portolan_core::flight::{self, Divergence, Reader, Replay, Step, Tail, Writer};
use portolan_core::transcript::{Mark, Scribe, ShortNames};
use portolan_core::{Actions, Addr, Duration, Event, Explanation, Instant, Reason};
use std::fmt;
use std::io::{self, Write};
use std::time::Instant as Moment;

/// How to replay. Built by `ReplayOptions::default()` and assignment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplayOptions {
    /// Stop after the event of this number; 0 stops before the first.
    pub until: Option<u64>,
    /// The address whose verdict to explain in the end, in place of all verdicts.
    pub explain: Option<Addr>,
    /// Leave out the transcript.
    pub quiet: bool,
    /// Where the replay diverges, take what comes out now for right, and make a record of it.
    pub bless: bool,
}

/// What was replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replayed {
    /// How many events.
    pub events: u64,
    /// The time from the beginning of the record to the last of them.
    pub span: Duration,
    /// How long reading and replaying them took, without what was written out.
    pub took: Duration,
    /// What lies behind the last event of the record; `None` if the replay stopped before.
    pub tail: Option<Tail>,
    /// The record that replays without divergence on this version of core, if that was wanted.
    pub blessed: Option<Blessed>,
}

/// A record with other digests.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Blessed {
    /// The whole record, without a torn tail.
    pub bytes: Vec<u8>,
    /// How many events went otherwise than recorded.
    pub diverged: u64,
}

/// Why a record was not replayed, or not to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayFailed {
    /// It cannot be read from some point on.
    #[error("{error}{}", after(*.events))]
    Read {
        /// What is wrong, and where.
        error: flight::ReadError,
        /// How many events were replayed before.
        events: u64,
    },
    /// This version of core cannot begin as the record does.
    #[error(transparent)]
    Begin(#[from] flight::ReplayError),
    /// An event went otherwise than recorded.
    #[error("{0}")]
    Diverged(Box<Diverged>),
    /// The address to explain is not a candidate at that moment.
    #[error("{addr} is not known after event {event}; known are: {}", list(.known))]
    UnknownAddress {
        /// The address.
        addr: Addr,
        /// The number of the last event replayed.
        event: u64,
        /// The addresses that are candidates then.
        known: Vec<Addr>,
    },
    /// The transcript could not be written.
    #[error("the transcript cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// The first event that went otherwise than recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diverged {
    /// The number of the event, and what was different.
    pub divergence: Divergence,
    /// When, counted from the beginning of the record.
    pub at: Duration,
    /// The event, as a line of the transcript.
    pub event: String,
    /// What came of it now, as lines of the transcript.
    pub actions: Vec<String>,
    /// The program that wrote the record.
    pub software: String,
}

impl fmt::Display for Diverged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Divergence { step, what } = self.divergence;
        let seconds = self.at.as_secs_f64();
        writeln!(f, "event {step}, at {seconds:.3} s, went otherwise than recorded: {what}")?;
        writeln!(f, "{}", self.event)?;
        match self.actions.as_slice() {
            [] => writeln!(f, "now nothing comes of it")?,
            actions => writeln!(f, "now this comes of it:\n{}", actions.join("\n"))?,
        }
        // The file says who wrote it, and a file may say anything.
        write!(f, "the record was written by {:?}", self.software)
    }
}

impl fmt::Display for Replayed {
    /// The summary, in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = self.span.as_secs_f64();
        let took = match self.took.as_secs_f64() {
            seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1_000.0),
            seconds => format!("{seconds:.2} s"),
        };
        let events = counted(self.events);
        let times = thousands(self.span.as_nanos() / self.took.as_nanos().max(1));
        write!(f, "replayed {events} over {span:.1} s in {took}: ")?;
        write!(f, "{times} times real time; ")?;
        match &self.blessed {
            None | Some(Blessed { diverged: 0, .. }) => f.write_str("every digest matched"),
            Some(Blessed { diverged, .. }) => {
                write!(f, "{} went otherwise than recorded", counted(*diverged))
            }
        }
    }
}

/// Replay a record, the bytes of one part, and write what happens to `out`: the transcript, then
/// the verdicts or the explanation.
///
/// # Errors
/// Where the bytes are damaged, where the replay first diverges (unless it is to be blessed), if
/// the address to explain is unknown, or if `out` fails. What came before has been written out.
pub fn replay(
    record: &[u8],
    options: &ReplayOptions,
    out: &mut dyn Write,
) -> Result<Replayed, ReplayFailed> {
    let mut run = Run::new(record, options)?;
    while options.until.is_none_or(|until| run.replay.steps() < until) && run.step(out)? {}
    run.conclude(options.explain, out)?;
    Ok(run.replayed())
}

/// A replay under way.
struct Run<'a> {
    reader: Reader<'a>,
    replay: Replay,
    scribe: Scribe<ShortNames>,
    software: String,
    began: Instant,
    now: Instant,
    took: Duration,
    /// Whether the record has been read to its end.
    ended: bool,
    quiet: bool,
    blessing: Option<(Writer, Blessed)>,
    /// How things stood before the last listeners that closed one after the other.
    before_closing: Option<Stand>,
    /// Whether the last event was that a listener closed.
    closing: bool,
}

/// What was known at some moment.
struct Stand {
    /// The number of the last event.
    event: u64,
    now: Instant,
    explanation: Explanation,
}

impl<'a> Run<'a> {
    fn new(record: &'a [u8], options: &ReplayOptions) -> Result<Run<'a>, ReplayFailed> {
        let unread = |error| ReplayFailed::Read { error, events: 0 };
        let (head, reader) = Reader::new(record).map_err(unread)?;
        let mut bytes = Vec::new();
        let blessing = options.bless.then(|| {
            let writer = Writer::new(&head, &mut bytes);
            (writer, Blessed { bytes, diverged: 0 })
        });
        Ok(Run {
            reader,
            replay: Replay::new(&head)?,
            scribe: Scribe::new(ShortNames::new(head.identity.to_peer_id()), head.now),
            software: head.software,
            began: head.now,
            now: head.now,
            took: Duration::ZERO,
            ended: false,
            quiet: options.quiet,
            blessing,
            before_closing: None,
            closing: false,
        })
    }

    /// Replay the next event; whether there was one.
    fn step(&mut self, out: &mut dyn Write) -> Result<bool, ReplayFailed> {
        let started = Moment::now();
        let Some(step) = self.reader.next() else {
            self.ended = true;
            return Ok(false);
        };
        let unread = |error| ReplayFailed::Read { error, events: self.replay.steps() };
        let step = step.map_err(unread)?;
        let closes = matches!(step.event, Event::ListenerClosed { .. });
        if closes && !self.closing {
            self.before_closing = Some(self.stand());
        }
        self.closing = closes;
        let due = self.replay.deadline().filter(|deadline| deadline.at <= step.now);
        let mut actions = Actions::new();
        let went = self.replay.step(&step, &mut actions);
        self.took += started.elapsed();

        self.now = step.now;
        let mut event = self.scribe.event(&step.event);
        if let (Event::Tick, Some(due)) = (&step.event, due) {
            event = format!("{event}: {:?}", due.wake);
        }
        let event = self.line(Mark::Event, &event);
        let mut line = |action| {
            let text = self.scribe.action(&action);
            self.line(Mark::Action, &text)
        };
        let actions: Vec<String> = actions.drain().map(&mut line).collect();
        if !self.quiet {
            writeln!(out, "{event}")?;
            actions.iter().try_for_each(|line| writeln!(out, "{line}"))?;
        }
        self.judge(&step, went, event, actions)?;
        Ok(true)
    }

    /// Take a divergence for right, or stop at it.
    fn judge(
        &mut self,
        step: &Step,
        went: Result<(), Divergence>,
        event: String,
        actions: Vec<String>,
    ) -> Result<(), ReplayFailed> {
        if let Some((writer, blessed)) = &mut self.blessing {
            writer.step(&self.replay.renewed(step), &mut blessed.bytes);
            blessed.diverged += u64::from(went.is_err());
            return Ok(());
        }
        let at = step.now.since(self.began);
        let software = || self.software.clone();
        went.map_err(|divergence| {
            let diverged = Diverged { divergence, at, event, actions, software: software() };
            ReplayFailed::Diverged(Box::new(diverged))
        })
    }

    /// Write out how everything is judged in the end, or why one address is judged so. A node that
    /// has stopped knows no addresses any more: then what counts is how it stood before.
    fn conclude(&self, explain: Option<Addr>, out: &mut dyn Write) -> Result<(), ReplayFailed> {
        let end = self.stand();
        let stopped = end.explanation.reason == Reason::NotListening;
        let before = self.before_closing.as_ref().filter(|_| stopped);
        let Some(addr) = explain else {
            for stand in before.into_iter().chain([&end]) {
                self.tell(stand, &self.scribe.explanation(&stand.explanation), out)?;
            }
            return Ok(());
        };
        for stand in [&end].into_iter().chain(before) {
            if let Some(evidence) = self.scribe.evidence(&stand.explanation, addr) {
                return self.tell(stand, &evidence, out);
            }
        }
        let Stand { event, explanation, .. } = before.unwrap_or(&end);
        let known = explanation.addresses.iter().map(|address| address.addr).collect();
        Err(ReplayFailed::UnknownAddress { addr, event: *event, known })
    }

    /// Write out some lines, and as of when they are true.
    fn tell(
        &self,
        stand: &Stand,
        lines: &[String],
        out: &mut dyn Write,
    ) -> Result<(), ReplayFailed> {
        let Stand { event, now, explanation } = stand;
        let seconds = now.since(self.began).as_secs_f64();
        let closing =
            if *event < self.replay.steps() { ", before it stopped listening" } else { "" };
        let peer = explanation.peer_id;
        writeln!(out, "\n{peer} after event {event}, at {seconds:.3} s{closing}:")?;
        lines.iter().try_for_each(|line| writeln!(out, "  {line}"))?;
        Ok(out.flush()?)
    }

    /// How things stand.
    fn stand(&self) -> Stand {
        let explanation = self.replay.explain();
        Stand { event: self.replay.steps(), now: self.now, explanation }
    }

    fn replayed(self) -> Replayed {
        Replayed {
            events: self.replay.steps(),
            span: self.now.since(self.began),
            took: self.took,
            tail: self.ended.then(|| self.reader.tail()),
            blessed: self.blessing.map(|(_, blessed)| blessed),
        }
    }

    fn line(&self, mark: Mark, text: &str) -> String {
        self.scribe.line(Some(self.replay.steps()), self.now, mark, text)
    }
}

/// How far a replay had come when something stopped it.
fn after(events: u64) -> String {
    match events {
        0 => String::new(),
        events => format!(", behind event {events}"),
    }
}

fn list(addrs: &[Addr]) -> String {
    if addrs.is_empty() {
        return "none".into();
    }
    addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn counted(events: u64) -> String {
    let plural = if events == 1 { "" } else { "s" };
    format!("{} event{plural}", thousands(events.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_one_line() {
        let mut replayed = Replayed {
            events: 1_234,
            span: Duration::from_millis(600_200),
            took: Duration::from_micros(310_000),
            tail: Some(Tail::Whole),
            blessed: None,
        };
        assert_eq!(
            replayed.to_string(),
            "replayed 1,234 events over 600.2 s in 310.0 ms: 1,936 times real time; every digest \
             matched"
        );
        replayed.took = Duration::from_millis(12_345);
        replayed.blessed = Some(Blessed { bytes: Vec::new(), diverged: 1_000 });
        assert_eq!(
            replayed.to_string(),
            "replayed 1,234 events over 600.2 s in 12.35 s: 48 times real time; 1,000 events went \
             otherwise than recorded"
        );
    }
}
