//! `portolan replay`: the files and the terminal around it.

use crate::program::args::ReplayArgs;
use crate::program::{FAILURE, Failed};
use crate::{Blessed, ReplayOptions, Replayed};
use portolan_core::flight::{self, Divergence, ReadError, Reader, Tail};
use portolan_runtime::private_file;
use rand::TryRng;
use rand::rngs::SysRng;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, StdoutLock, Write};
use std::path::Path;

/// The largest record that is read, bytes; ours: sixteen parts as they are written by default. It
/// is held in memory as a whole.
const RECORD_MAX: u64 = 1 << 30;

/// Bytes that show that a file is no record, number; ours: more than what records begin with, and
/// too few for a whole head.
const FIRST_BYTES: u64 = 16;

/// Replay a record, or what it becomes when it is redacted, and say how it went.
pub(crate) fn replay(args: &ReplayArgs) -> Result<u8, Failed> {
    let record = read(&args.file).map_err(|error| about(&args.file, &error))?;
    let said = match &args.redact {
        None => replayed(args, &args.file, &record)?,
        Some(out) => {
            let (redacted, mut said) = redact(&args.file, &record, out)?;
            said.extend(replayed(args, out, &redacted)?);
            said
        }
    };
    // Where stderr is gone as well, the exit code has to do.
    let _ = writeln!(io::stderr(), "{}", said.join("\n"));
    Ok(0)
}

/// A failure that has to do with a file.
fn about(path: &Path, error: &dyn Display) -> Failed {
    Failed { code: FAILURE, error: format!("{}: {error}", path.display()) }
}

/// Write a redacted record into a new file. Returns it, and what there is to say about it.
fn redact(path: &Path, record: &[u8], out: &Path) -> Result<(Vec<u8>, Vec<String>), Failed> {
    let mut salt = [0; 16];
    SysRng.try_fill_bytes(&mut salt)?;
    let redacted = flight::redact(record, salt).map_err(|error| about(path, &error))?;
    private_file::write(out, &redacted.record).map_err(|error| about(out, &error))?;
    let mut said = Vec::from_iter(torn(redacted.steps, redacted.tail));
    said.extend(redacted.diverged.map(|Divergence { step, what }| {
        format!("event {step} went otherwise than recorded: {what}; it is redacted as it goes now")
    }));
    said.push(format!("the redacted record is in {}", out.display()));
    Ok((redacted.record, said))
}

/// Replay a record. Returns what there is to say about that.
fn replayed(args: &ReplayArgs, path: &Path, record: &[u8]) -> Result<Vec<String>, Failed> {
    let options = ReplayOptions {
        until: args.until,
        explain: args.explain,
        quiet: args.quiet,
        bless: args.bless,
    };
    let mut out = BufWriter::new(Stdout(io::stdout().lock()));
    let replayed = crate::replay(record, &options, &mut out);
    out.flush()?;
    let replayed = replayed.map_err(|error| about(path, &error))?;
    let mut said = remarks(&replayed, args.until);
    if let Some(blessed) = &replayed.blessed {
        said.push(bless(path, blessed).map_err(|error| about(path, &error))?);
    }
    said.push(replayed.to_string());
    Ok(said)
}

/// What there is to say about the end of the record.
fn remarks(replayed: &Replayed, until: Option<u64>) -> Vec<String> {
    let events = replayed.events;
    let mut remarks = Vec::from_iter(replayed.tail.and_then(|tail| torn(events, tail)));
    if until.is_some_and(|until| until > events) {
        remarks.push(format!("the record ends with event {events}"));
    }
    remarks
}

fn torn(events: u64, tail: Tail) -> Option<String> {
    match tail {
        Tail::Whole => None,
        Tail::Torn { offset, bytes } => Some(format!(
            "the record is cut off after event {events}: what begins at byte {offset} is not \
             whole, and its {bytes} bytes were dropped"
        )),
    }
}

/// Write the blessed record in place of the other one, unless they are the same.
fn bless(path: &Path, blessed: &Blessed) -> io::Result<String> {
    if blessed.diverged == 0 {
        return Ok("there was nothing to bless".into());
    }
    replace(path, &blessed.bytes)?;
    Ok(format!("{} was written anew", path.display()))
}

/// Why a record could not be read from its file.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("it has more than {RECORD_MAX} bytes")]
    TooLong,
}

/// The bytes of a record. What is none is refused after its first bytes.
fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    Read::by_ref(&mut file).take(FIRST_BYTES).read_to_end(&mut bytes)?;
    match Reader::new(&bytes) {
        // A file that ends here is judged when it is replayed.
        Ok(_) | Err(ReadError::TornHead { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    file.take(RECORD_MAX).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > RECORD_MAX {
        return Err(FileError::TooLong);
    }
    Ok(bytes)
}

/// Put a file with these bytes in the place of another one, in one step: whoever looks finds the
/// old one or the new one, whole. Where the path is a link, what it leads to is replaced.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let fresh = path.with_file_name(name);
    private_file::write(&fresh, bytes)?;
    fs::rename(&fresh, &path).inspect_err(|_| {
        // That the removal may fail as well changes nothing.
        let _ = fs::remove_file(&fresh);
    })
}

/// Stdout. When its reader has gone away, what is left is dropped without a word: the record is
/// still to be verified, for the exit code.
struct Stdout(StdoutLock<'static>);

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(bytes.len()),
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0.flush() {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            flushed => flushed,
        }
    }
}
