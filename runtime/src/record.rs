//! Flight records on disk: what the driver tells core, so that it can be told again.
//!
//! A record is a file of frames, each with its length and checksum; `portolan_core::flight` knows
//! what is in them. Here is only where they go: files that nobody else may read, of a bounded size
//! and number.
//!
//! ```text
//!  FILE ─► full ─► FILE.1 ─► FILE.2 ─► … ─► the oldest is removed
//!  every part begins with all that is needed to replay it alone
//! ```

use crate::private_file;
use portolan_core::flight::{self, Recorder};
use portolan_core::{Agent, Cx, Event, Instant, UnixTime};
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Bytes of a part before the next one begins, number; ours: some hours of a busy server, replayed
/// in seconds. Memory of whoever reads a part grows with it.
const PART_MAX: u64 = 64 << 20;
/// The least that a part may be limited to, bytes; ours: room for a head with its checkpoint.
const PART_MIN: u64 = 256 << 10;
/// Parts that are kept, number; ours. Disk space grows with it.
const PARTS_MAX: u32 = 4;

/// Where a flight record goes, and how much of it is kept.
///
/// Files are readable by their owner only. A record that is there already is kept as an older
/// part; a file that is no record is never replaced, nor one that another node is writing.
///
/// Whenever the node has told its core something, it writes once to the file before it sleeps, and
/// waits for that: a file on a slow disk slows the node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a recording does nothing until a node is built with it"]
pub struct Recording {
    path: PathBuf,
    part_max: u64,
    parts_max: u32,
}

impl Recording {
    /// Write to this file. When it is full it becomes `FILE.1`, and what was that `FILE.2`.
    pub fn to(path: impl Into<PathBuf>) -> Recording {
        Recording { path: path.into(), part_max: PART_MAX, parts_max: PARTS_MAX }
    }

    /// Begin the next part after so many bytes (64 MiB unless said, 256 KiB at least). A part
    /// grows beyond it by what one wake-up of the node tells core, and until half of it is news:
    /// it begins with the state of the agent, which may take a megabyte on a busy node.
    pub fn part_max(self, bytes: u64) -> Recording {
        Recording { part_max: bytes.max(PART_MIN), ..self }
    }

    /// Keep so many parts, the one being written among them (4 unless said, 1 at least).
    pub fn parts_max(self, parts: u32) -> Recording {
        Recording { parts_max: parts.max(1), ..self }
    }

    /// The file that is written to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Look at every name that the record may need, before it begins: what is in the way is found
    /// now rather than when the first part is full.
    fn survey(&self) -> Result<(), RecordError> {
        (0..self.parts_max).try_for_each(|part| self.is_taken(part).map(|_| ()))
    }

    /// Make room for a new part: every older one moves on by one, and the oldest goes. The first
    /// `ours` are known to be there.
    fn make_room(&self, ours: u32) -> Result<(), RecordError> {
        let mut at = ours;
        while at < self.parts_max && self.is_taken(at)? {
            at += 1;
        }
        if at >= self.parts_max {
            at = self.parts_max - 1;
            let oldest = self.part(at);
            fs::remove_file(&oldest).map_err(|error| failed(oldest, error))?;
        }
        while at > 0 {
            let (from, to) = (self.part(at - 1), self.part(at));
            match fs::rename(&from, to) {
                // Somebody took it away; so much the better.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                moved => moved.map_err(|error| failed(from, error))?,
            }
            at -= 1;
        }
        Ok(())
    }

    /// Whether there is such a part. A file that is no record, or is being written by somebody
    /// else, stays where it is; so does anything else that bears the name.
    fn is_taken(&self, part: u32) -> Result<bool, RecordError> {
        let path = self.part(part);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() => {}
            Ok(_) => return Err(RecordError::InTheWay { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed(path, error)),
        }
        let file = File::open(&path).map_err(|error| failed(path.clone(), error))?;
        // Where files cannot be locked, nobody else has locked it.
        if matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) {
            return Err(RecordError::InUse { path });
        }
        let mut beginning = Vec::new();
        let read = file.take(flight::MAGIC.len() as u64).read_to_end(&mut beginning);
        match read {
            Ok(_) if beginning == flight::MAGIC => Ok(true),
            // Somebody made room for us, or a machine stopped before anything was written.
            Ok(0) => fs::remove_file(&path).map(|()| false).map_err(|e| failed(path, e)),
            Ok(_) => Err(RecordError::InTheWay { path }),
            Err(error) => Err(failed(path, error)),
        }
    }

    fn part(&self, part: u32) -> PathBuf {
        if part == 0 {
            return self.path.clone();
        }
        let mut name = OsString::from(&self.path);
        name.push(format!(".{part}"));
        name.into()
    }

    fn create(&self, ours: u32) -> Result<File, RecordError> {
        self.make_room(ours)?;
        let file = private_file::create(&self.path);
        let file = file.map_err(|error| failed(self.path.clone(), error))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(RecordError::InUse { path: self.path.clone() }),
            // A file system without locks has to do.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
        }
    }
}

/// Why there is no record, or no more of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Something that is no flight record bears the name of one.
    #[error("{} is no flight record, and is not replaced by one", path.display())]
    InTheWay {
        /// The file.
        path: PathBuf,
    },
    /// Another node writes its record there.
    #[error("{} is being written by another node", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be made, moved or written.
    #[error("cannot record into {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

fn failed(path: PathBuf, error: io::Error) -> RecordError {
    RecordError::Io { path, error }
}

/// A record that is being written.
pub(crate) struct Record {
    recording: Recording,
    recorder: Recorder,
    file: File,
    /// Steps that are not written yet.
    buffer: Vec<u8>,
    /// Bytes in this part.
    written: u64,
    /// How many it may have before the next one begins.
    full_at: u64,
    part: u64,
}

impl Record {
    /// Begin the record of an agent that has handled nothing. `mask` is secret, and forgotten with
    /// the record.
    pub(crate) fn start(
        recording: Recording,
        mask: [u8; 16],
        agent: &Agent,
        (now, unix): (Instant, UnixTime),
    ) -> Result<Record, RecordError> {
        recording.survey()?;
        let file = recording.create(0)?;
        let recorder = Recorder::new(mask);
        let buffer = Vec::new();
        let mut record =
            Record { recording, recorder, file, buffer, written: 0, full_at: 0, part: 0 };
        record.begin(agent, (now, unix))?;
        Ok(record)
    }

    /// `agent.handle(cx, event)`, written down.
    pub(crate) fn handle(&mut self, agent: &mut Agent, cx: &mut Cx<'_>, event: Event) {
        self.recorder.handle(agent, cx, event, &mut self.buffer);
    }

    /// Write what was gathered, and begin the next part if this one is full.
    pub(crate) fn flush(
        &mut self,
        agent: &Agent,
        moment: (Instant, UnixTime),
    ) -> Result<(), RecordError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.write()?;
        if self.written < self.full_at {
            return Ok(());
        }
        let part_max = self.recording.part_max;
        match self.next_part(agent, moment) {
            // Want of file descriptors passes. Until then this part grows, but not without end.
            Err(error) if self.written > 0 && self.written < part_max.saturating_mul(4) => {
                tracing::warn!(%error, "the next part of the flight record has to wait");
                self.full_at = self.written + part_max / 8;
                Ok(())
            }
            begun => begun,
        }
    }

    fn next_part(&mut self, agent: &Agent, moment: (Instant, UnixTime)) -> Result<(), RecordError> {
        self.file = self.recording.create(1)?;
        self.part += 1;
        self.begin(agent, moment)
    }

    fn begin(
        &mut self,
        agent: &Agent,
        (now, unix): (Instant, UnixTime),
    ) -> Result<(), RecordError> {
        self.recorder.begin(agent, self.part, now, unix, &mut self.buffer);
        self.written = 0;
        self.write()?;
        // A head that is longer than a part may be must not make each step a part of its own.
        self.full_at = self.recording.part_max.max(self.written.saturating_mul(2));
        Ok(())
    }

    /// Write what was gathered. If that fails, the record ends with what was written before.
    fn write(&mut self) -> Result<(), RecordError> {
        let bytes = std::mem::take(&mut self.buffer);
        let written = self.file.write_all(&bytes).inspect_err(|_| {
            // What is left of half a frame is a torn tail, which a reader drops as well.
            let _ = self.file.set_len(self.written);
        });
        written.map_err(|error| failed(self.recording.path.clone(), error))?;
        self.written += bytes.len() as u64;
        // The memory is used again.
        self.buffer = bytes;
        self.buffer.clear();
        Ok(())
    }
}

impl Drop for Record {
    /// A node that ends, however it does, leaves all that it told core.
    fn drop(&mut self) {
        if let Err(error) = self.write() {
            tracing::warn!(%error, "the end of the flight record is lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Chance, KeySigner};
    use crate::identity;
    use crate::scratch::Scratch;
    use portolan_core::flight::{Reader, Replay, Tail};
    use portolan_core::{Actions, Config, config};
    use std::net::Ipv6Addr;

    const NOW: (Instant, UnixTime) = (Instant::from_millis(5), UnixTime::from_millis(5));

    fn record(recording: Recording, ticks: usize) -> Result<(), RecordError> {
        told(recording, std::iter::repeat_n(Event::Tick, ticks))
    }

    fn told(recording: Recording, events: impl Iterator<Item = Event>) -> Result<(), RecordError> {
        let keypair = identity::generate();
        let mut agent = Agent::new(Config::default(), keypair.public()).expect("a good config");
        let mut chance = Chance::new().expect("the system gives randomness");
        let mut signer = KeySigner(keypair);
        let mut record = Record::start(recording, chance.key(), &agent, NOW)?;
        for event in events {
            let mut actions = Actions::new();
            let (now, unix) = NOW;
            let (draw, sign) = (&mut chance, &mut signer);
            let mut cx = Cx { now, unix, draw, sign, actions: &mut actions };
            record.handle(&mut agent, &mut cx, event);
            record.flush(&agent, NOW)?;
        }
        Ok(())
    }

    /// How many steps a part holds, having replayed them all.
    fn steps(path: &Path) -> usize {
        let bytes = fs::read(path).expect("it exists");
        let (head, mut reader) = Reader::new(&bytes).expect("a whole head");
        let mut replay = Replay::new(&head).expect("a state that can be read");
        let mut steps = 0;
        for step in reader.by_ref() {
            let step = step.expect("a whole step");
            replay.step(&step, &mut Actions::new()).expect("the same as then");
            steps += 1;
        }
        assert_eq!(reader.tail(), Tail::Whole);
        steps
    }

    #[test]
    fn a_record_is_for_its_owner_alone_and_an_older_one_is_kept() {
        let scratch = Scratch::new("record-kept");
        let path = scratch.path("a.rec");
        for ticks in [3, 5, 7] {
            record(Recording::to(&path).parts_max(2), ticks).expect("a writable directory");
        }
        assert_eq!(steps(&path), 7);
        assert_eq!(steps(&scratch.path("a.rec.1")), 5);
        assert_eq!(scratch.files().len(), 2, "two are kept, and no more");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(&path).expect("it exists").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn what_is_no_record_is_never_replaced() {
        let scratch = Scratch::new("record-way");
        let path = scratch.path("a.rec");
        fs::write(&path, "a novel").expect("a writable directory");
        let refused = record(Recording::to(&path), 1).expect_err("something is in the way");
        assert!(matches!(&refused, RecordError::InTheWay { path: at } if *at == path), "{refused}");
        assert_eq!(fs::read(&path).expect("it is there still"), b"a novel");

        // It is found in the place of an older part too, before anything was recorded.
        fs::rename(&path, scratch.path("a.rec.1")).expect("a writable directory");
        let refused = record(Recording::to(&path), 1).expect_err("something is in the way");
        assert!(matches!(refused, RecordError::InTheWay { .. }), "{refused}");
        assert_eq!(scratch.files().len(), 1, "nothing was begun");

        fs::write(&path, "").expect("a writable directory");
        record(Recording::to(&path).parts_max(1), 2).expect("an empty file is in nobody's way");
        assert_eq!(steps(&path), 2);
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_neither_replaced_nor_waited_for() {
        let scratch = Scratch::new("record-odd");
        let [file, link] = ["elsewhere", "link"].map(|name| scratch.path(name));
        fs::write(&file, "").expect("a writable directory");
        std::os::unix::fs::symlink(&file, &link).expect("a writable directory");
        for path in [Path::new("/dev/null"), link.as_path(), scratch.path("").as_path()] {
            let refused = record(Recording::to(path), 1).expect_err("it is no file");
            assert!(matches!(refused, RecordError::InTheWay { .. }), "{refused}");
        }
        assert!(link.is_symlink() && file.is_file());
    }

    #[test]
    fn a_record_that_is_being_written_is_left_alone() {
        let scratch = Scratch::new("record-live");
        let path = scratch.path("a.rec");
        let keypair = identity::generate();
        let agent = Agent::new(Config::default(), keypair.public()).expect("a good config");
        let recording = Recording::to(&path);
        let live = Record::start(recording.clone(), [7; 16], &agent, NOW).expect("it is free");
        let refused = record(recording.clone(), 1).expect_err("somebody writes there");
        assert!(matches!(refused, RecordError::InUse { .. }), "{refused}");
        drop(live);
        record(recording, 3).expect("nobody writes there any more");
        assert_eq!((steps(&path), steps(&scratch.path("a.rec.1"))), (3, 0));
    }

    #[test]
    fn a_full_part_makes_room_for_the_next_and_each_replays_alone() {
        let scratch = Scratch::new("record-parts");
        let path = scratch.path("a.rec");
        let recording = Recording::to(&path).part_max(0).parts_max(3);
        record(recording, 120_000).expect("a writable directory");
        let files = scratch.files();
        assert_eq!(files.len(), 3, "{files:?}");
        // A step takes a few dozen bytes at most.
        for (name, size) in &files[1..] {
            assert!((PART_MIN..PART_MIN + 64).contains(size), "{name} has {size} bytes");
        }
        for (name, _) in &files {
            assert!(steps(&scratch.path(name)) > 0, "{name}");
        }
    }

    #[test]
    fn a_state_that_is_longer_than_a_part_is_not_written_with_each_step() {
        let scratch = Scratch::new("record-state");
        let path = scratch.path("a.rec");
        // As many as core remembers, and as long as IPs are.
        let contacted = (0..config::CONTACTED_MAX as u128)
            .map(|n| Event::Contacted { ip: Ipv6Addr::from_bits(0x2600 << 112 | n).into() });
        let events = contacted.chain(std::iter::repeat_n(Event::Tick, 1_000));
        let recording = Recording::to(&path).part_max(0).parts_max(9);
        told(recording, events).expect("a writable directory");
        let files = scratch.files();
        assert!((2..=4).contains(&files.len()), "{files:?}");
        assert!(steps(&path) > 1_000, "the last part has more than its head");
    }
}
