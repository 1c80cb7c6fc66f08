//! What a node was told and what came of it: its flight record, read while it is written.

use portolan_core::flight::{Reader, Replay, Tail};
use portolan_core::transcript::{Scribe, ShortNames};
use portolan_core::{Action, Actions, Event, Instant, PeerId};
use portolan_runtime::Builder;
use portolan_runtime::record::Recording;
use portolan_runtime::traits::Runtime;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

/// One fact, and the actions that came of it.
pub(crate) type Step = (Event, Vec<Action>);

/// The record of one node. Its file goes when it is dropped.
pub(crate) struct Record {
    path: PathBuf,
    scribe: Scribe<ShortNames>,
    /// The texts of the facts that were looked at so far.
    texts: Vec<String>,
    /// Bytes of the file that they take, its head included.
    read: usize,
}

impl Record {
    pub(crate) fn new() -> Record {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("parity-{}-{number}.rec", process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let scribe = Scribe::new(ShortNames::new(PeerId::random()), Instant::ZERO);
        Record { path, scribe, texts: Vec::new(), read: 0 }
    }

    /// Have a node write it.
    pub(crate) fn of<R: Runtime>(&self, builder: Builder<R>) -> Builder<R> {
        // No part of it may be rotated away.
        builder.record(Recording::to(&self.path).part_max(u64::MAX))
    }

    /// How many facts there are so far whose text begins like this.
    pub(crate) fn count(&mut self, beginning: &str) -> usize {
        self.read_on();
        self.texts.iter().filter(|text| text.starts_with(beginning)).count()
    }

    /// Read what has been written since. A step that is written half is left for the next time.
    fn read_on(&mut self) {
        let bytes = self.bytes();
        let (_, reader) = Reader::new(&bytes).expect("the head was written at the start");
        let head = reader.offset();
        self.read = self.read.max(head);
        // Only what is new is read again; that times are then told from the wrong moment is no
        // matter here.
        let news = [&bytes[..head], &bytes[self.read..]].concat();
        let (_, mut reader) = Reader::new(&news).expect("it is the same head");
        for step in reader.by_ref() {
            let step = step.expect("what was written is whole");
            self.texts.push(self.scribe.event(&step.event));
        }
        self.read += reader.offset() - head;
    }

    /// Every step, by the whole record of a node that has ended. It replays.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let bytes = self.bytes();
        let (head, mut reader) = Reader::new(&bytes).expect("the head was written at the start");
        let mut replay = Replay::new(&head).expect("it begins with a fresh agent");
        let mut steps = Vec::new();
        for step in reader.by_ref() {
            let step = step.expect("what was written is whole");
            let mut actions = Actions::new();
            replay.step(&step, &mut actions).expect("the same comes of the same facts");
            steps.push((step.event, actions.drain().collect()));
        }
        assert_eq!(reader.tail(), Tail::Whole, "a node that ends leaves a whole record");
        steps
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).expect("the node records")
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // A story that failed before it started a node has left none.
        let _none = fs::remove_file(&self.path);
    }
}
