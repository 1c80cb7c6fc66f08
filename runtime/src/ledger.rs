//! The ledger of mappings on disk: what core wants to find again after a restart or a crash.
//!
//! ```text
//!  store ─► next (a newer one takes its place) ─► FILE.new, synced ─► renamed to FILE
//! ```
//!
//! Writing waits for the disk, so that it happens in a thread of its own, which lives while there
//! is something to write. `FILE.lock` is locked for as long as the node runs: two nodes with one
//! ledger would lose each other's mappings. All three files are for their owner alone.

use crate::private_file;
use bytes::Bytes;
use futures::channel::oneshot;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// The largest ledger that is read, bytes; ours: hundreds of times what core's mappings take. A
/// longer file is something else, and is left alone.
pub(crate) const LEDGER_MAX: u64 = 64 << 10;

/// Why a ledger cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// Another node keeps its ledger there.
    #[error("the ledger {} belongs to another node that is running", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// What bears the name is no ledger: no file, or too long a one. It was left alone.
    #[error("{} is no ledger, and is not replaced by one", path.display())]
    InTheWay {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be made or read.
    #[error("cannot keep the ledger {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// A ledger that is this node's.
#[derive(Debug)]
pub(crate) struct Ledger(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Kept until the node has let go of the ledger and all of it is written.
    lock: Option<File>,
    released: bool,
    /// What is to be written next.
    next: Option<Bytes>,
    /// Whether a thread is writing. It ends only when there is nothing left to write.
    writing: bool,
    /// Who waits for that.
    waiting: Vec<oneshot::Sender<()>>,
}

impl Ledger {
    /// Take possession of a ledger, and read what an earlier run has left there.
    pub(crate) fn open(path: PathBuf) -> Result<(Ledger, Option<Bytes>), LedgerError> {
        let lock = lock(&path)?;
        let read = read(&path)?;
        let state = State {
            lock: Some(lock),
            released: false,
            next: None,
            writing: false,
            waiting: Vec::new(),
        };
        Ok((Ledger(Arc::new(Shared { path, state: Mutex::new(state) })), read))
    }

    /// Store these bytes, in the place of those before. Does not wait until they are; if others
    /// come before it is their turn, they are not.
    pub(crate) fn store(&self, bytes: Bytes) {
        let mut state = self.0.state();
        state.next = Some(bytes);
        if state.writing {
            return;
        }
        state.writing = true;
        drop(state);
        let shared = self.0.clone();
        let spawned =
            thread::Builder::new().name("ledger".into()).spawn(move || shared.write_all());
        if let Err(error) = spawned {
            tracing::debug!(%error, "no thread for the ledger");
            self.0.write_all();
        }
    }

    /// Resolves when all that was stored is on the disk, or could not be written.
    pub(crate) async fn written(&self) {
        let (tell, told) = oneshot::channel();
        {
            let mut state = self.0.state();
            if !state.writing {
                return;
            }
            state.waiting.push(tell);
        }
        let _ = told.await;
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.released = true;
        state.unlock();
    }
}

impl State {
    /// Let others have the ledger if nobody here needs it any more.
    fn unlock(&mut self) {
        if self.released && !self.writing {
            self.lock = None;
        }
    }
}

impl Shared {
    /// A poisoned state is still a state: nothing in it is left half-written by a panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Write until there is nothing left to write.
    fn write_all(&self) {
        loop {
            let mut state = self.state();
            let Some(bytes) = state.next.take() else {
                state.writing = false;
                state.unlock();
                for waiting in state.waiting.drain(..) {
                    // Who waited may have gone.
                    let _ = waiting.send(());
                }
                return;
            };
            drop(state);
            if let Err(error) = replace(&self.path, &bytes) {
                let path = self.path.display();
                tracing::warn!(%path, %error, "the ledger of mappings is not stored");
            }
        }
    }
}

/// Put a file with these bytes in the place of what was there: whoever reads finds the one or the
/// other, also after a crash.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = beside(path, ".new");
    match fs::remove_file(&new) {
        // A crash has left it.
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    private_file::write(&new, bytes)?;
    fs::rename(&new, path)?;
    sync_folder(path);
    Ok(())
}

/// Wait until the new name is on the disk as well. Some file systems cannot, and do it by
/// themselves.
#[cfg(unix)]
fn sync_folder(path: &Path) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Err(error) = File::open(folder.unwrap_or(Path::new("."))).and_then(|it| it.sync_all()) {
        tracing::debug!(path = %path.display(), %error, "the ledger's folder is not synced");
    }
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) {}

fn lock(path: &Path) -> Result<File, LedgerError> {
    let name = beside(path, ".lock");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&name).map_err(|error| LedgerError::Io { path: name, error })?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(LedgerError::InUse { path: path.into() }),
        // A file system without locks has to do.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

fn read(path: &Path) -> Result<Option<Bytes>, LedgerError> {
    let failed = |error| LedgerError::Io { path: path.into(), error };
    match fs::metadata(path) {
        Ok(found) if found.is_file() && found.len() <= LEDGER_MAX => {}
        Ok(_) => return Err(LedgerError::InTheWay { path: path.into() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(LEDGER_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(bytes.into()))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use futures::executor::block_on;

    fn names(scratch: &Scratch) -> Vec<String> {
        scratch.files().into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn the_last_one_wins_and_is_for_its_owner_alone() {
        let scratch = Scratch::new("ledger-last");
        let path = scratch.path("ledger");
        fs::write(scratch.path("ledger.new"), "left by a crash").expect("a writable directory");
        let (ledger, before) = Ledger::open(path.clone()).expect("a writable directory");
        assert_eq!(before, None);
        for number in 0..100_u32 {
            ledger.store(number.to_string().into());
        }
        block_on(ledger.written());
        assert_eq!(fs::read(&path).expect("it was stored"), b"99");
        assert_eq!(names(&scratch), ["ledger", "ledger.lock"]);
        #[cfg(unix)]
        for file in ["ledger", "ledger.lock"] {
            use std::os::unix::fs::PermissionsExt;
            let found = fs::metadata(scratch.path(file)).expect("it exists");
            assert_eq!(found.permissions().mode() & 0o777, 0o600, "{file}");
        }
        drop(ledger);
        let (_, before) = Ledger::open(path).expect("it is free at once");
        assert_eq!(before.as_deref(), Some(&b"99"[..]));
    }

    #[test]
    fn what_was_there_stays_whole_until_the_new_one_is() {
        let scratch = Scratch::new("ledger-whole");
        let path = scratch.path("ledger");
        let (ledger, _) = Ledger::open(path.clone()).expect("a writable directory");
        ledger.store("old".into());
        block_on(ledger.written());
        // Whoever has it open sees the old one to its end: it is replaced, not overwritten.
        let mut open = File::open(&path).expect("it exists");
        ledger.store("newer and longer".into());
        block_on(ledger.written());
        let mut text = String::new();
        open.read_to_string(&mut text).expect("it is open");
        assert_eq!(text, "old");
        assert_eq!(fs::read(&path).expect("it exists"), b"newer and longer");

        // What cannot be written leaves it alone, and the node alive.
        fs::create_dir(scratch.path("ledger.new")).expect("a writable directory");
        ledger.store("lost".into());
        block_on(ledger.written());
        assert_eq!(fs::read(&path).expect("it exists"), b"newer and longer");
        fs::remove_dir(scratch.path("ledger.new")).expect("it is empty");
        ledger.store("found".into());
        block_on(ledger.written());
        assert_eq!(fs::read(&path).expect("it exists"), b"found");
    }

    #[test]
    fn two_nodes_do_not_share_one() {
        let scratch = Scratch::new("ledger-lock");
        let path = scratch.path("ledger");
        let (ledger, _) = Ledger::open(path.clone()).expect("a writable directory");
        let refused = Ledger::open(path.clone()).expect_err("it is taken");
        assert!(matches!(&refused, LedgerError::InUse { path: at } if *at == path), "{refused}");
        // The lock lasts until the last byte is written.
        ledger.store("bytes".into());
        drop(ledger);
        let again = loop {
            match Ledger::open(path.clone()) {
                Ok((_, read)) => break read,
                Err(LedgerError::InUse { .. }) => thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(again.as_deref(), Some(&b"bytes"[..]));
    }

    #[test]
    fn what_can_be_no_ledger_is_left_alone() {
        let scratch = Scratch::new("ledger-way");
        let longest = usize::try_from(LEDGER_MAX).expect("it is small");
        for (length, taken) in [(0, true), (longest, true), (longest + 1, false)] {
            let path = scratch.path("ledger");
            fs::write(&path, vec![7; length]).expect("a writable directory");
            match Ledger::open(path.clone()) {
                Ok((_, read)) => assert_eq!((read.map(|it| it.len()), taken), (Some(length), true)),
                Err(error) => assert!(matches!(error, LedgerError::InTheWay { .. }) && !taken),
            }
            assert_eq!(fs::metadata(&path).expect("it is there").len(), length as u64);
        }
        let folder = scratch.path("folder");
        fs::create_dir(&folder).expect("a writable directory");
        let refused = Ledger::open(folder).expect_err("it is no file");
        assert!(matches!(refused, LedgerError::InTheWay { .. }), "{refused}");
        let nowhere = Ledger::open(scratch.path("missing/ledger")).expect_err("no folder");
        assert!(matches!(nowhere, LedgerError::Io { .. }), "{nowhere}");
    }
}
