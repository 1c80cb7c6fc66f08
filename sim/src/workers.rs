//! Many runs on as many threads as wanted.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

/// Results that wait to be heard, number; when full, the threads wait.
const WAITING_MAX: usize = 64;

/// Do every run on so many threads, each once. `heard` is told what came of it, in the order in
/// which they end; when it says no, no further run begins.
pub fn spread<T: Send>(
    runs: Range<u64>,
    jobs: usize,
    work: impl Fn(u64) -> T + Sync,
    heard: &mut dyn FnMut(u64, T) -> bool,
) {
    let next = AtomicU64::new(runs.start);
    let stop = AtomicBool::new(false);
    let (sender, results) = mpsc::sync_channel(WAITING_MAX);
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let sender = sender.clone();
            let (next, stop, work) = (&next, &stop, &work);
            scope.spawn(move || {
                loop {
                    let run = next.fetch_add(1, Ordering::Relaxed);
                    let over = run >= runs.end || stop.load(Ordering::Relaxed);
                    if over || sender.send((run, work(run))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (run, result) in results {
            if !heard(run, result) {
                stop.store(true, Ordering::Relaxed);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_is_done_once() {
        let mut seen = Vec::new();
        spread(3..200, 4, |run| run * 2, &mut |run, twice| {
            assert_eq!(twice, run * 2);
            seen.push(run);
            true
        });
        seen.sort_unstable();
        assert!(seen.into_iter().eq(3..200));
    }

    #[test]
    fn a_no_ends_it() {
        let mut count = 0;
        spread(0..u64::MAX, 2, |_| (), &mut |_, ()| {
            count += 1;
            count < 10
        });
        // What was under way is still heard: a run a thread, and what waits.
        assert!((10..=10 + 2 + WAITING_MAX).contains(&count), "{count}");
    }
}
