//! The program of the lab: it runs experiments, a few of each or all.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is what a program says")]

use super::cells::{Site, build};
use super::experiments::{self, Run};
use super::link::Conditions;
use super::plan::{self, Task, expected_behaviour};
use super::rules::Layer;
use super::verify::Behaviour;
use super::{available, namespace, results, verify_link, versus};
use crate::js_peer;
use async_signal::{Signal, Signals};
use clap::Parser;
use futures::StreamExt as _;
use portolan_sim::workers::spread;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// The file in which the program keeps the runs that are done, so that it can be interrupted.
const KEPT: &str = "lab-runs.jsonl";
/// The same for runs beside other implementations.
const KEPT_VERSUS: &str = "lab-versus.jsonl";
/// Checks of the short pass that run at once, number; ours: nearly all of a run is waiting.
const SHORT_JOBS: usize = 8;
/// Applications that live at once beside the checks, number; ours: they do next to nothing.
const LIVE_JOBS: usize = 12;

/// Real kernels, real routers, real processes: the experiments, whole.
#[derive(Debug, Parser)]
#[command(name = "lab")]
struct Args {
    /// Only the experiments with this name, such as A4, or `versus`: beside other implementations.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// How often each cell is run.
    #[arg(long, value_name = "N", default_value_t = 20)]
    runs: u64,
    /// How many checks run at once. More than one on a machine with few cores makes times longer.
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: usize,
    /// Forget the runs that an earlier call has left.
    #[arg(long)]
    fresh: bool,
}

/// Every router measured by itself, and every cell of the short list once. Without root or the
/// tools it says what was skipped, which is a failure where `PORTOLAN_REQUIRE_LAB` is set.
pub fn short_pass() -> ExitCode {
    if std::env::args().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    if let Err(missing) = available() {
        println!("skipped: the whole lab: {missing}");
        return if is_required() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let swept = set_up();
    println!("lab: {swept} namespaces of earlier processes removed");
    let problems = verify_all();
    let (mut runs, failed) = run_all(&plan::short(), SHORT_JOBS, &|_| ());
    // A machine that is busy with other tests may be too slow to learn all that there is to be
    // learnt; what is false is false.
    let weak = |run: &Run| !run.is_right() && run.wrong.is_empty();
    let again: Vec<Task> = plan::short()
        .into_iter()
        .filter(|task| runs.iter().any(|run| weak(run) && run.cell == task.name()))
        .collect();
    println!("lab: {} cells came to less than they might, and are run again", again.len());
    let (second, failed_again) = run_all(&again, 1, &|_| ());
    let problems = problems
        + failed
        + failed_again
        + runs.iter().filter(|run| !run.wrong.is_empty()).count()
        + second.iter().filter(|run| !run.is_right()).count();
    runs.extend(second);
    print!("{}\n{}", results::table(&runs), results::figures(&runs));
    ended(problems + short_versus())
}

/// A few cells beside other implementations, and how many of them have a problem. Those that came to
/// less than they might are run again, like others.
fn short_versus() -> usize {
    let (streaks, missing) = possible(versus::short());
    let (runs, failed) = versus::run_all(&streaks, versus::JOBS, &mut |_| ());
    print!("{}", versus::table(&runs));
    let wrong = |runs: &[versus::Run]| runs.iter().filter(|run| run.is_false()).count();
    if failed > 0 || runs.iter().all(versus::Run::is_well) {
        return missing + failed + wrong(&runs);
    }
    let (second, failed) = versus::run_all(&streaks, 1, &mut |_| ());
    missing + failed + wrong(&runs) + second.iter().filter(|run| !run.is_well()).count()
}

/// Leave out what takes js-libp2p where that is not installed, which is a problem where the lab is
/// required.
fn possible(streaks: Vec<versus::Streak>) -> (Vec<versus::Streak>, usize) {
    match js_peer::installed() {
        Ok(()) => (streaks, 0),
        Err(missing) => {
            println!("skipped: {missing}");
            (versus::without_js(streaks), usize::from(is_required()))
        }
    }
}

pub(super) fn is_required() -> bool {
    std::env::var_os("PORTOLAN_REQUIRE_LAB").is_some_and(|value| value == "1")
}

/// The program.
pub fn whole() -> ExitCode {
    let args = Args::parse();
    if let Err(missing) = available() {
        eprintln!("error: {missing}");
        return ExitCode::FAILURE;
    }
    set_up();
    match whole_of(&args) {
        Ok(problems) => ended(problems),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn whole_of(args: &Args) -> io::Result<usize> {
    let (kept, kept_versus) = (kept(KEPT)?, kept(KEPT_VERSUS)?);
    let is_wanted = |name: &str| args.only.as_ref().is_none_or(|only| only == name);
    let wanted = |task: &Task| is_wanted(task.experiment());
    let tasks: Vec<Task> = plan::whole().into_iter().filter(wanted).collect();
    if tasks.is_empty() && !is_wanted(versus::NAME) {
        let names: BTreeSet<&str> = plan::whole().iter().map(Task::experiment).collect();
        let names: Vec<&str> = names.into_iter().chain([versus::NAME]).collect();
        return Err(io::Error::other(format!("the experiments are {}", names.join(", "))));
    }
    if args.fresh {
        let _ = fs::remove_file(&kept);
        let _ = fs::remove_file(&kept_versus);
    }
    let mut problems = verify_all();
    if !tasks.is_empty() {
        problems += whole_tasks(args, &tasks, &kept)?;
    }
    if is_wanted(versus::NAME) {
        problems += whole_versus(args, &kept_versus)?;
    }
    write_page(&load(&kept)?, &load(&kept_versus)?)?;
    Ok(problems)
}

/// A file beside the program, so that whoever removes what was built removes it as well.
fn kept(name: &str) -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(name))
}

/// Run what is missing of these, and say how many problems there were with all of them.
fn whole_tasks(args: &Args, tasks: &[Task], kept: &Path) -> io::Result<usize> {
    let mut runs: Vec<Run> = load(kept)?;
    let done = |task: &Task| runs.iter().filter(|run| run.cell == task.name()).count() as u64;
    let missing: Vec<Task> = tasks
        .iter()
        .flat_map(|task| {
            let left = task.runs(args.runs).saturating_sub(done(task));
            std::iter::repeat_n(*task, usize::try_from(left).unwrap_or(usize::MAX))
        })
        .collect();
    let file = Mutex::new(OpenOptions::new().create(true).append(true).open(kept)?);
    let heard = |run: &Run| keep(&mut file.lock().unwrap_or_else(PoisonError::into_inner), run);
    let (new, failed) = run_all(&missing, args.jobs, &heard);
    runs.extend(new);
    let of_these = |run: &&Run| tasks.iter().any(|task| task.name() == run.cell);
    let runs: Vec<Run> = runs.iter().filter(of_these).cloned().collect();
    print!("{}\n{}", results::table(&runs), results::figures(&runs));
    Ok(failed + runs.iter().filter(|run| !run.is_right()).count())
}

/// Run what is missing beside other implementations, and say how many problems there were.
fn whole_versus(args: &Args, kept: &Path) -> io::Result<usize> {
    let mut runs: Vec<versus::Run> = load(kept)?;
    let mut file = OpenOptions::new().create(true).append(true).open(kept)?;
    let (streaks, missing) = possible(versus::missing(&runs, args.runs));
    let heard = &mut |run: &versus::Run| keep(&mut file, run);
    let (new, failed) = versus::run_all(&streaks, versus::JOBS, heard);
    runs.extend(new);
    print!("{}", versus::table(&runs));
    Ok(missing + failed + runs.iter().filter(|run| !run.is_well()).count())
}

/// Write the page of results, if every cell has been run.
fn write_page(runs: &[Run], beside: &[versus::Run]) -> io::Result<()> {
    let all = plan::whole();
    let ours = |run: &&Run| all.iter().any(|task| task.name() == run.cell);
    let runs: Vec<Run> = runs.iter().filter(ours).cloned().collect();
    let left = all.iter().filter(|task| !runs.iter().any(|run| run.cell == task.name())).count();
    if left > 0 || !versus::is_complete(beside, js_peer::installed().is_ok()) {
        println!(
            "lab: docs/results.md is written when everything has been run: {left} cells are left"
        );
        return Ok(());
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/results.md");
    fs::write(page, results::page(&runs) + &versus::section(beside))
}

/// Keep a run, so that it need not be made again.
fn keep(file: &mut fs::File, run: &impl Serialize) {
    let line = serde_json::to_string(run).unwrap_or_default();
    if let Err(error) = writeln!(file, "{line}") {
        eprintln!("a run is not kept: {error}");
    }
}

fn load<T: DeserializeOwned>(file: &Path) -> io::Result<Vec<T>> {
    match fs::read_to_string(file) {
        Ok(text) => {
            // The last line may have been cut off in the middle.
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let parse = |line: &str| serde_json::from_str(line).map_err(io::Error::other);
            whole.lines().map(parse).collect()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Measure every kind of router with plain sockets, and count those that are not what they claim.
fn verify_all() -> usize {
    let sites: Vec<Site> =
        plan::SITES.into_iter().filter(|site| !matches!(site, Site::Blocked(..))).collect();
    let mut problems = 0;
    spread(
        0..sites.len() as u64,
        SHORT_JOBS,
        |number| {
            let site = sites.get(usize::try_from(number).ok()?)?;
            let measured = build(*site, 1, Conditions::NONE);
            let measured = measured.and_then(|place| experiments::behaviours(&place));
            Some((*site, measured))
        },
        &mut |_, measured: Option<(Site, io::Result<[Behaviour; 2]>)>| {
            if let Some((site, measured)) = measured {
                problems += misbehaved(site, measured);
            }
            true
        },
    );
    println!("lab: {} kinds of networks measured, {problems} problems", sites.len());
    let (said, wrong) = verify_link::verdict();
    println!("lab: {said}");
    problems + wrong
}

/// Say how a network differs from what it is called, and count in how many layers it does.
fn misbehaved(site: Site, measured: io::Result<[Behaviour; 2]>) -> usize {
    let expected = expected_behaviour(site);
    match measured {
        Ok(measured) => {
            let all = Layer::ALL.into_iter().zip(measured);
            let odd: Vec<(Layer, Behaviour)> = all.filter(|(_, one)| *one != expected).collect();
            for (layer, one) in &odd {
                println!("{} over {}: {one:?}, not {expected:?}", site.name(), layer.name());
            }
            odd.len()
        }
        Err(error) => {
            println!("{}: {error}", site.name());
            1
        }
    }
}

/// Run everything, checks beside applications, and count the runs that could not be made.
fn run_all(tasks: &[Task], jobs: usize, heard: &(dyn Fn(&Run) + Sync)) -> (Vec<Run>, usize) {
    let (live, checks): (Vec<Task>, Vec<Task>) =
        tasks.iter().partition(|task| matches!(task, Task::Live(_)));
    thread::scope(|scope| {
        let live = scope.spawn(move || run_some(&live, LIVE_JOBS, heard));
        let (mut runs, failed) = run_some(&checks, jobs, heard);
        let (others, more) = live.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        runs.extend(others);
        (runs, failed + more)
    })
}

fn run_some(tasks: &[Task], jobs: usize, heard: &dyn Fn(&Run)) -> (Vec<Run>, usize) {
    let (mut runs, mut failed) = (Vec::new(), 0);
    let task = |number: u64| tasks.get(usize::try_from(number).ok()?);
    spread(
        0..tasks.len() as u64,
        jobs,
        |number| task(number).map(|task| (task.name(), task.run())),
        &mut |number, ran: Option<(String, io::Result<Run>)>| {
            match ran {
                Some((_, Ok(run))) => {
                    if !run.is_right() {
                        println!("{}: {} {}", run.cell, run.short.join("; "), run.wrong.join("; "));
                    }
                    heard(&run);
                    runs.push((number, run));
                }
                Some((name, Err(error))) => {
                    failed += 1;
                    println!("{name}: {error}");
                }
                None => {}
            }
            true
        },
    );
    runs.sort_by_key(|(number, _)| *number);
    (runs.into_iter().map(|(_, run)| run).collect(), failed)
}

/// Sweep what earlier processes have left, and see to it that an interruption leaves nothing.
pub(super) fn set_up() -> usize {
    if let Ok(mut signals) = Signals::new([Signal::Int, Signal::Term]) {
        thread::spawn(move || {
            if futures::executor::block_on(signals.next()).is_some() {
                namespace::remove_own();
                std::process::exit(130);
            }
        });
    }
    namespace::remove_stale()
}

/// Live through the stories of a lab, those whose name contains the argument, if there is one: `live`
/// says how many problems there were. Where something is missing it says what was skipped, which is
/// a failure where `PORTOLAN_REQUIRE_LAB` is set.
pub(super) fn told(
    what: &str,
    available: Result<(), String>,
    live: impl FnOnce(&str) -> usize,
) -> ExitCode {
    if std::env::args().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    if let Err(missing) = available {
        println!("skipped: {what}: {missing}");
        return if is_required() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    set_up();
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    ended(live(&wanted))
}

/// How often the stories of a lab are lived, as `--runs=N` says.
pub(super) fn runs() -> usize {
    std::env::args().find_map(|arg| arg.strip_prefix("--runs=")?.parse().ok()).unwrap_or(1)
}

/// Whether all of a lab is wanted, and not only what the gate has time for.
pub(super) fn is_whole() -> bool {
    std::env::var_os("PORTOLAN_LAB_WHOLE").is_some_and(|value| value == "1")
}

pub(super) fn ended(problems: usize) -> ExitCode {
    let left = namespace::own();
    if !left.is_empty() {
        println!("lab: left behind: {}", left.join(", "));
    }
    println!("lab: {problems} problems");
    if problems == 0 && left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
