//! First verdicts: by each protocol, behind two kinds of NAT, with and without loss.

use super::*;

const EASY: GateConfig = GateConfig::nat(Dependence::Independent, Dependence::AddressAndPort);
const SYMMETRIC: GateConfig =
    GateConfig::nat(Dependence::AddressAndPort, Dependence::AddressAndPort);

/// How long after its first dial a node knows that its mappings let strangers in, both of them.
fn took(setting: &Setting, most: Duration) -> Result<Vec<Duration>, String> {
    let mut home = Home::new(setting);
    home.pass(BEGINS)?;
    let done = home.pass_until(most, |home| BOTH.iter().all(|one| home.is_in(*one)))?;
    if done.is_none() {
        let mappings = BOTH.map(|one| (home.mapping(one), home.standing(one)));
        return Err(format!("not in after {most:?}: {mappings:?}"));
    }
    let first = home.run.world.node(NODE).first_dial_at().ok_or("it never dialled")?;
    let spans = BOTH.into_iter().filter_map(|transport| {
        let (at, addr) = home.proven_since(Instant::ZERO, transport)?;
        (Some(addr) == home.external(transport)).then(|| at.since(first))
    });
    let spans: Vec<Duration> = spans.collect();
    home.pass(seconds(60))?;
    for transport in BOTH {
        let standing = home.standing(transport);
        if standing.state != NodeState::Public || !home.is_in(transport) {
            return Err(format!("it did not stay: {standing:?}"));
        }
    }
    home.gives_all_back()?;
    if spans.len() == 2 { Ok(spans) } else { Err(format!("other addresses first: {spans:?}")) }
}

#[test]
fn a_mapping_is_proven_within_a_second_of_the_first_dial() {
    for (kind, gate) in [("ei/apd", EASY), ("apd/apd", SYMMETRIC)] {
        for protocols in protocol_sets() {
            for (loss_percent, seeds, bound) in [(0, 3, seconds(1)), (10, 8, seconds(120))] {
                let mut spans = Vec::new();
                for seed in 0..seeds {
                    let setting = Setting {
                        protocols: protocols.clone(),
                        gate: gate.clone(),
                        loss_percent,
                        ..Setting::new(Profile::ALL, seed)
                    };
                    spans.extend(took(&setting, bound).unwrap_or_else(|fault| {
                        panic!("{kind}, {protocols:?}, {loss_percent} %, seed {seed}: {fault}")
                    }));
                }
                let most = spans.iter().copied().max().unwrap_or_default();
                let middle = median(spans);
                eprintln!(
                    "{kind}, {protocols:?}, {loss_percent} % lost: median {middle:?}, most {most:?}"
                );
                if loss_percent == 0 {
                    assert!(most < bound, "{kind}, {protocols:?}: {most:?}");
                } else {
                    assert!(middle < seconds(8), "{kind}, {protocols:?}: {middle:?}");
                }
            }
        }
    }
}
