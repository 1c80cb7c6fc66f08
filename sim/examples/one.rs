//! one
use portolan_sim::plan::*;
use portolan_sim::world::NodeId;
fn main() {
    let a: Vec<String> = std::env::args().skip(1).collect();
    let seed: u64 = a[0].parse().unwrap();
    let plan = drawn(seed, &Odds::default());
    println!("{plan}");
    let text = plan.to_string();
    assert_eq!(Plan::read(&text).unwrap().to_string(), text);
    let mut run = Run::new(plan.clone());
    for n in 0..plan.nodes.len() {
        if a.len() > 1 && plan.nodes[n].name == a[1] {
            run.world.transcribe(NodeId(n));
        }
    }
    let r = run.finish();
    for l in run.world.transcript() {
        println!("{l}");
    }
    println!("{:?}", r);
    for n in 0..plan.nodes.len() {
        if plan.nodes[n].name.starts_with("client") {
            let e = run.world.node(NodeId(n)).agent().explain();
            println!("{:#?}", e.addresses);
            println!("{:#?}", e.servers);
            println!("{:#?}", e.classes);
        }
    }
}
