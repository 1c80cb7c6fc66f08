//! A session and what it is joined to: stdin and stdout, or those of a program. Both are read and
//! written by threads, since no runtime can wait for them everywhere.

use super::argv::Argv;
use futures::channel::oneshot;
use futures::executor::block_on;
use futures::{AsyncReadExt, AsyncWriteExt};
use portolan_runtime::pipe::{Pipe, PipeError};
use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;

/// Bytes moved at once; ours.
const CHUNK: usize = 65_536;

/// Why bytes could not be moved between a session and its local ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MoveFailed {
    /// The session ended before its end.
    #[error(transparent)]
    Session(#[from] PipeError),
    /// The program could not be run.
    #[error("cannot run {program}: {error}")]
    Exec {
        /// The program.
        program: String,
        /// What the operating system said.
        error: io::Error,
    },
    /// What is to be sent could not be read, or what arrived could not be written.
    #[error("cannot {what}: {error}")]
    Local {
        /// What could not be done.
        what: &'static str,
        /// What the operating system said.
        error: io::Error,
    },
}

/// Where bytes come from, and where they go.
pub(super) struct Ends {
    input: Box<dyn Read + Send>,
    output: Box<dyn Write + Send>,
    /// Whether what arrives when nobody takes it any more is thrown away; else it is a failure.
    may_close: bool,
}

impl Ends {
    /// Those of this program.
    pub(super) fn standard() -> Ends {
        let (input, output) = (Box::new(io::stdin()), Box::new(io::stdout()));
        Ends { input, output, may_close: false }
    }
}

/// A program that runs for a session. It is killed when it goes out of sight before it is done.
pub(super) struct Running {
    child: Option<Child>,
    pub(super) is_done: bool,
}

impl Running {
    /// Start the program. It finds the peer id in `PORTOLAN_PEER`.
    pub(super) fn start(argv: &Argv, peer: &str) -> Result<(Running, Ends), MoveFailed> {
        let failed = |error| MoveFailed::Exec { program: argv.program().to_owned(), error };
        let mut child = Command::new(argv.program())
            .args(argv.args())
            .env("PORTOLAN_PEER", peer)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let ends = child.stdout.take().zip(child.stdin.take());
        let running = Running { child: Some(child), is_done: false };
        let (input, output) = ends.ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
        let ends = Ends { input: Box::new(input), output: Box::new(output), may_close: true };
        Ok((running, ends))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if !self.is_done {
            // It may have ended by itself.
            let _ = child.kill();
        }
        // Somebody has to ask how it ended, or it stays in the table of processes.
        thread::spawn(move || child.wait());
    }
}

/// A session that is joined to its ends.
pub(super) struct Joined {
    pub(super) pipe: Arc<Pipe>,
    sent: oneshot::Receiver<Result<u64, MoveFailed>>,
    received: oneshot::Receiver<Result<u64, MoveFailed>>,
}

/// Begin to move bytes.
pub(super) fn join(pipe: Pipe, ends: Ends) -> Joined {
    let pipe = Arc::new(pipe);
    let Ends { mut input, mut output, may_close } = ends;
    let (sender, sent) = oneshot::channel();
    let from = pipe.clone();
    // Whoever does not wait for them any more has given the session up.
    thread::spawn(move || sender.send(send(&mut *input, &from)));
    let (receiver, received) = oneshot::channel();
    let to = pipe.clone();
    thread::spawn(move || receiver.send(receive(&to, &mut *output, may_close)));
    Joined { pipe, sent, received }
}

impl Joined {
    /// Wait until both directions have ended and both sides know it; how many bytes went and came. What
    /// fails first is told at once: the other direction may be waiting for a person to type.
    pub(super) async fn done(self) -> Result<(u64, u64), MoveFailed> {
        let Joined { pipe, sent, received } = self;
        let ended = |moved: Result<Result<u64, MoveFailed>, oneshot::Canceled>| {
            moved.unwrap_or(Err(MoveFailed::Session(PipeError::Stopped)))
        };
        let sent = async { ended(sent.await) };
        let received = async { ended(received.await) };
        let moved = futures::try_join!(sent, received)?;
        pipe.finish().await?;
        Ok(moved)
    }
}

fn send(input: &mut dyn Read, mut pipe: &Pipe) -> Result<u64, MoveFailed> {
    let mut chunk = vec![0; CHUNK];
    let mut sent = 0;
    loop {
        match input.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => {
                block_on(pipe.write_all(&chunk[..count])).map_err(failed)?;
                sent += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(MoveFailed::Local { what: "read what is to be sent", error }),
        }
    }
    block_on(pipe.close()).map_err(failed)?;
    Ok(sent)
}

fn receive(mut pipe: &Pipe, output: &mut dyn Write, may_close: bool) -> Result<u64, MoveFailed> {
    let mut chunk = vec![0; CHUNK];
    let mut received = 0;
    let mut is_open = true;
    loop {
        let count = block_on(pipe.read(&mut chunk)).map_err(failed)?;
        if count == 0 {
            return Ok(received);
        }
        received += count as u64;
        if !is_open {
            continue;
        }
        match output.write_all(&chunk[..count]).and_then(|()| output.flush()) {
            Ok(()) => {}
            Err(_) if may_close => is_open = false,
            Err(error) => {
                return Err(MoveFailed::Local { what: "write what arrived", error });
            }
        }
    }
}

/// The error of the session in an error of its bytes.
fn failed(error: io::Error) -> MoveFailed {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<PipeError>()) {
        Some(error) => MoveFailed::Session(*error),
        None => MoveFailed::Local { what: "use the session", error },
    }
}
