//! Delay and loss on the way to the site of the node. The kernel has a tool for that, but not
//! every kernel: here a thread does it.
//!
//! ```text
//!   public hosts ── br0 ── TAP ══ forwarder ══ TAP ── access ── wan or eth0 of the site
//! ```
//!
//! Frames that are read from one TAP device are written to the other, in order, when they are due;
//! some are lost, by a generator that is seeded for each direction. TAP devices take no offloads,
//! so that the kernel segments what it hands over and completes its checksums.

use super::namespace::Namespace;
use portolan_sim::Dice;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::num::NonZeroU64;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tappers::{Interface, Tap};

/// The bridge into which the site of the node is plugged where there is a link.
pub const ACCESS: &str = "access";
/// The same of another site, with a link of its own.
pub const OTHER: &str = "other";
/// Frames that a direction keeps, number; ours: 60 MB a second over 100 ms. More delay with more
/// throughput needs more.
const QUEUE_MAX: usize = 4_096;
/// Frames that are read or written in one turn of a direction, number; ours, so that neither
/// direction starves the other.
const TURN_MAX: usize = 64;
/// Bytes of the longest frame, with room: an MTU of 1,500 and a header of Ethernet.
const FRAME_MAX: usize = 2_048;
/// As much priority as there is: a forwarder that waits for its turn adds to the delay.
const NICE: i32 = -20;

/// What the way to the site is like, each direction by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Conditions {
    /// How long a frame takes one way; a round trip takes twice that.
    pub delay: Duration,
    /// How many of a hundred frames are lost.
    pub loss_percent: u8,
    /// Which ones: equal sequences of frames lose the same.
    pub seed: u64,
}

impl Conditions {
    /// No link at all: the site is on the bridge of the others.
    pub const NONE: Conditions = Conditions { delay: Duration::ZERO, loss_percent: 0, seed: 0 };

    /// Whether no link is needed.
    pub const fn is_none(self) -> bool {
        self.delay.is_zero() && self.loss_percent == 0
    }

    /// In a few words, such as `20 ms, 5 % loss`, the delay being that of one way; nothing where
    /// there is no link.
    pub fn name(self) -> String {
        let delay = format!("{} ms", self.delay.as_millis());
        let loss = format!("{} % loss", self.loss_percent);
        match (self.delay.is_zero(), self.loss_percent) {
            (true, 0) => String::new(),
            (true, _) => loss,
            (false, 0) => delay,
            (false, _) => format!("{delay}, {loss}"),
        }
    }
}

/// What became of the frames so far, both ways together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// They came across.
    pub carried: u64,
    /// They were lost as the conditions will have it.
    pub lost: u64,
    /// They came while the queue was full, or the device that was to take them was not ready.
    pub overflowed: u64,
}

/// A link that is up. Dropping it ends its thread and removes its devices.
pub struct Link {
    tally: Arc<Tally>,
    /// The thread ends when the other end of this is shut down.
    stop: UnixStream,
    forwarder: Option<JoinHandle<()>>,
}

impl Link {
    /// Join the bridge of the Internet and one of this name, which is made.
    ///
    /// # Errors
    /// If there are no TAP devices here, or a command fails.
    pub fn new(internet: &Namespace, bridge: &str, conditions: Conditions) -> io::Result<Link> {
        let [far, near] = ["far", "near"].map(|end| format!("{bridge}-{end}"));
        let taps = [tap(internet, &far)?, tap(internet, &near)?];
        internet.ip(&format!(
            "link add {bridge} type bridge forward_delay 0 mcast_snooping 0\n\
             link set {bridge} up\n\
             link set {far} txqueuelen {QUEUE_MAX} master br0 up\n\
             link set {near} txqueuelen {QUEUE_MAX} master {bridge} up\n"
        ))?;
        let (stop, stopped) = UnixStream::pair()?;
        let tally = Arc::new(Tally::default());
        let mut dice = Dice::new(conditions.seed);
        let queues = [(); 2].map(|()| Queue::new(conditions, dice.fork(), tally.clone()));
        let forwarder = thread::Builder::new()
            .name("link".into())
            .spawn(move || forward(&taps, &stopped, queues))?;
        Ok(Link { tally, stop, forwarder: Some(forwarder) })
    }

    /// What became of the frames so far.
    pub fn counts(&self) -> Counts {
        Counts {
            carried: self.tally.carried.load(Ordering::Relaxed),
            lost: self.tally.lost.load(Ordering::Relaxed),
            overflowed: self.tally.overflowed.load(Ordering::Relaxed),
        }
    }

    /// What is wrong with it, if it did not do what its conditions say.
    pub fn complaint(&self) -> Option<String> {
        let overflowed = self.counts().overflowed;
        if !self.is_up() {
            return Some("the link is down".to_owned());
        }
        (overflowed > 0).then(|| format!("the link has dropped {overflowed} frames besides"))
    }

    /// Whether frames are still carried: not when the devices were taken away.
    pub fn is_up(&self) -> bool {
        self.forwarder.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // A program that is being started may share the socket for a moment: closing says nothing.
        let _ = self.stop.shutdown(Shutdown::Both);
        // It waits for nothing but the next frame and this, and looks up after every turn.
        if let Some(thread) = self.forwarder.take() {
            let _ = thread.join();
        }
    }
}

/// A TAP device. It vanishes when it is closed, and is closed in programs that are started.
fn tap(internet: &Namespace, name: &str) -> io::Result<Tap> {
    let mut tap = internet.inside(|| Tap::new_named(Interface::new(name)?))?;
    tap.set_nonblocking(true)?;
    Ok(tap)
}

/// Carry frames until told to stop, or until a device is gone. The first queue is of what comes
/// from the first device.
fn forward(taps: &[Tap; 2], stopped: &UnixStream, mut queues: [Queue; 2]) {
    // Where it may not be more precise than others, it is as precise as others.
    let _ = rustix::process::setpriority_process(None, NICE);
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let mut buffer = vec![0; FRAME_MAX];
    let [far, near] = taps;
    loop {
        let mut fds = [
            PollFd::new(far, PollFlags::IN),
            PollFd::new(near, PollFlags::IN),
            PollFd::new(stopped, PollFlags::IN),
        ];
        let due = queues.iter().filter_map(Queue::due).min();
        let wait = due.map(|due| due.saturating_duration_since(Instant::now()));
        // A wait that is too long to be written down is as good as none.
        let wait = wait.and_then(|wait| Timespec::try_from(wait).ok());
        match poll(&mut fds, wait.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        let [from_far, from_near, told] = fds.each_ref().map(PollFd::revents);
        let gone = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
        if !told.is_empty() || (from_far | from_near).intersects(gone) {
            return;
        }
        for (queue, from, to) in [(0, far, near), (1, near, far)] {
            let queue = &mut queues[queue];
            queue.fill(from, &mut buffer);
            queue.drain(to);
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    carried: AtomicU64,
    lost: AtomicU64,
    overflowed: AtomicU64,
}

/// One direction: the frames under way, and chance.
struct Queue {
    delay: Duration,
    loss_percent: u32,
    dice: Dice,
    /// When they are due, in order.
    frames: VecDeque<(Instant, Vec<u8>)>,
    tally: Arc<Tally>,
}

impl Queue {
    fn new(conditions: Conditions, dice: Dice, tally: Arc<Tally>) -> Queue {
        let Conditions { delay, loss_percent, .. } = conditions;
        Queue { delay, loss_percent: loss_percent.into(), dice, frames: VecDeque::new(), tally }
    }

    /// When the next frame is to be written.
    fn due(&self) -> Option<Instant> {
        self.frames.front().map(|(due, _)| *due)
    }

    /// A frame comes. When the queue is full it is dropped.
    fn push(&mut self, now: Instant, frame: &[u8]) {
        // Drawn for every frame, so that what overflows does not move what is lost.
        if self.dice.percent(self.loss_percent) {
            count(&self.tally.lost);
        } else if self.frames.len() >= QUEUE_MAX {
            count(&self.tally.overflowed);
        } else {
            self.frames.push_back((now + self.delay, frame.to_vec()));
        }
    }

    /// The next frame, if it is due.
    fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.frames.pop_front_if(|(due, _)| *due <= now).map(|(_, frame)| frame)
    }

    /// Read what there is. A device that is gone says so at the next look.
    fn fill(&mut self, from: &Tap, buffer: &mut [u8]) {
        for _ in 0..TURN_MAX {
            match from.recv(buffer) {
                Ok(len) => self.push(Instant::now(), &buffer[..len.min(FRAME_MAX)]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// Write what is due.
    fn drain(&mut self, to: &Tap) {
        for _ in 0..TURN_MAX {
            let Some(frame) = self.pop(Instant::now()) else { return };
            let written = to.send(&frame).is_ok();
            count(if written { &self.tally.carried } else { &self.tally.overflowed });
        }
    }
}

fn count(what: &AtomicU64) {
    what.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(20);

    fn queue(loss_percent: u8, seed: u64) -> Queue {
        let conditions = Conditions { delay: DELAY, loss_percent, seed };
        Queue::new(conditions, Dice::new(seed), Arc::default())
    }

    fn counted(what: &AtomicU64) -> usize {
        usize::try_from(what.load(Ordering::Relaxed)).expect("few")
    }

    #[test]
    fn frames_leave_in_order_each_after_its_own_delay() {
        let (mut queue, start) = (queue(0, 1), Instant::now());
        let step = Duration::from_millis(3);
        assert_eq!(queue.due(), None);
        queue.push(start, b"first");
        queue.push(start + step, b"second");
        assert_eq!(queue.due(), Some(start + DELAY));
        assert_eq!(queue.pop(start + DELAY - Duration::from_nanos(1)), None);
        assert_eq!(queue.pop(start + DELAY).as_deref(), Some(b"first".as_slice()));
        assert_eq!(queue.pop(start + DELAY), None);
        assert_eq!(queue.pop(start + DELAY + step).as_deref(), Some(b"second".as_slice()));
        assert_eq!(queue.due(), None);
    }

    #[test]
    fn equal_seeds_lose_the_same_frames_and_as_many_as_asked() {
        let kept = |percent, seed| {
            let (mut queue, now) = (queue(percent, seed), Instant::now());
            let number = |frame: Vec<u8>| u16::from_be_bytes([frame[0], frame[1]]);
            (0..4_000_u16).for_each(|number| queue.push(now, &number.to_be_bytes()));
            std::iter::from_fn(|| queue.pop(now + DELAY).map(number)).collect::<Vec<u16>>()
        };
        assert_eq!(kept(10, 1), kept(10, 1));
        assert_ne!(kept(10, 1), kept(10, 2));
        assert!((3_500..3_700).contains(&kept(10, 1).len()), "{}", kept(10, 1).len());
        assert_eq!(kept(0, 1).len(), 4_000);
        assert_eq!(kept(100, 1).len(), 0);
    }

    #[test]
    fn what_comes_while_the_queue_is_full_is_dropped_and_counted() {
        let (mut queue, now) = (queue(0, 1), Instant::now());
        (0..QUEUE_MAX + 5).for_each(|number| queue.push(now, &number.to_be_bytes()));
        assert_eq!(queue.frames.len(), QUEUE_MAX);
        assert_eq!(counted(&queue.tally.overflowed), 5);
        // The newest: the oldest is still there.
        assert_eq!(queue.pop(now + DELAY), Some(0_usize.to_be_bytes().to_vec()));
        queue.push(now, b"again");
        assert_eq!(counted(&queue.tally.overflowed), 5);
    }

    #[test]
    fn conditions_are_called_by_what_they_do() {
        let name = |millis, loss_percent| {
            Conditions { delay: Duration::from_millis(millis), loss_percent, seed: 9 }.name()
        };
        assert_eq!(name(50, 0), "50 ms");
        assert_eq!(name(0, 10), "10 % loss");
        assert_eq!(name(20, 5), "20 ms, 5 % loss");
        assert_eq!(Conditions::NONE.name(), "");
        assert!(Conditions::NONE.is_none());
    }
}
