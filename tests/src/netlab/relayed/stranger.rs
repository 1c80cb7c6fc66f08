//! Somebody who never met the node, and talks with it through relays again and again.

use super::world::now;
use crate::netlab::application::Application;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What came of talking.
#[derive(Debug, Default)]
pub(super) struct Talks {
    /// How often the node answered.
    pub(super) answered: u64,
    /// Why it did not, each time.
    pub(super) failed: Vec<String>,
    /// The longest that it took, milliseconds.
    pub(super) most_ms: u64,
}

/// A stranger at work. Dropping it ends the work.
#[derive(Debug)]
pub(super) struct Stranger {
    addrs: Arc<Mutex<Vec<String>>>,
    talks: Arc<Mutex<Talks>>,
    /// The thread ends when this is dropped.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Stranger {
    /// Talk with the node at the first of these addresses that leads to it, every so often.
    pub(super) fn talking(peer: Application, addrs: Vec<String>, pace: Duration) -> Stranger {
        let addrs = Arc::new(Mutex::new(addrs));
        let talks = Arc::<Mutex<Talks>>::default();
        let (stop, stopped) = mpsc::channel();
        let (to, told) = (addrs.clone(), talks.clone());
        let thread = thread::spawn(move || work(peer, &to, &told, pace, &stopped));
        Stranger { addrs, talks, stop: Some(stop), thread: Some(thread) }
    }

    /// From now on the node is said to be there.
    pub(super) fn told(&self, addrs: Vec<String>) {
        *self.addrs.lock().unwrap_or_else(PoisonError::into_inner) = addrs;
    }

    /// How often the node has answered.
    pub(super) fn answered(&self) -> u64 {
        self.talks.lock().unwrap_or_else(PoisonError::into_inner).answered
    }

    /// Stop, and say what came of it.
    pub(super) fn stop(mut self) -> io::Result<Talks> {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| io::Error::other("a stranger panicked"))??;
        }
        Ok(std::mem::take(&mut *self.talks.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(
    mut peer: Application,
    addrs: &Mutex<Vec<String>>,
    talks: &Mutex<Talks>,
    pace: Duration,
    stopped: &mpsc::Receiver<()>,
) -> io::Result<()> {
    loop {
        let all = addrs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut why = vec!["nobody says where it is".to_owned()];
        let mut took = None;
        for addr in &all {
            match peer.ask("ask", addr)? {
                Ok(said) => {
                    took = Some(said["took_ms"].as_u64().unwrap_or(u64::MAX));
                    break;
                }
                Err(error) => why.push(error),
            }
        }
        let mut talks = talks.lock().unwrap_or_else(PoisonError::into_inner);
        match took {
            Some(took) => {
                talks.answered += 1;
                talks.most_ms = talks.most_ms.max(took);
            }
            None => {
                let why = why.pop().unwrap_or_default();
                talks.failed.push(format!("at {} ms: {why}", now()));
            }
        }
        drop(talks);
        match stopped.recv_timeout(pace) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}
