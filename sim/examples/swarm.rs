//! swarm
use portolan_sim::plan::*;
fn main() {
    let a: Vec<u64> = std::env::args().skip(1).map(|s| s.parse().unwrap()).collect();
    let t = std::time::Instant::now();
    let mut ev = 0;
    let mut fails = 0;
    let mut worst = 0;
    for seed in a[0]..a[1] {
        let plan = drawn(seed, &Odds::default());
        let mut run = Run::new(plan);
        let r = run.finish();
        ev += r.counts.events;
        if let Some(v) = r.violation {
            fails += 1;
            println!("seed {seed}: {}", v.to_string().chars().take(400).collect::<String>());
        }
        worst = worst.max(r.settled_in.map_or(0, |d| d.as_secs()));
    }
    println!("{fails} fails, {ev} events, worst settle {worst}, {:?}", t.elapsed());
}
