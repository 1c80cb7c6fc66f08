//! try
use portolan_sim::matrix::*;
fn main() {
    let t = std::time::Instant::now();
    let m = measure(
        std::time::Duration::from_millis(40),
        std::env::args().nth(1).map_or(0, |s| s.parse().unwrap()),
        std::env::args().nth(2).map_or(1, |s| s.parse().unwrap()),
        &|_| true,
        &mut |r| {
            println!(
                "{:22} {:9} {:10} {}/{} wrong {} exp {:38} got {:40} {:?} named {:?} pk {} by {} {}",
                r.cell.kind.name(),
                r.cell.class.to_string(),
                r.cell.servers.name(),
                r.right(),
                r.samples.len(),
                r.wrong(),
                r.expected,
                r.samples[0].words,
                r.took(50).as_millis() as f64 / 40.0,
                r.samples[0].named_in,
                r.packets(),
                r.bytes(),
                r.samples
                    .iter()
                    .find_map(|s| s.violation.clone())
                    .map(|v| v.to_string())
                    .unwrap_or_default()
            );
        },
    );
    let ev: u64 = m.cells.iter().flat_map(|c| &c.samples).map(|s| s.events).sum();
    println!("{} events in {:?}", ev, t.elapsed());
}
