//! Two addresses of one host at one router, with the same port: Wi-Fi and a cable.

use super::*;
use portolan_core::{Addr, Lease};
use portolan_sim::router::Profile;

/// What each address of ours has, once each has something that leads to it.
fn all_served(bench: &Bench) -> Result<Vec<(Addr, Option<Lease>)>, String> {
    let mappings = bench.mappings();
    let served = mappings.iter().all(|one| bench.lets_in(one));
    if mappings.len() != 4 || !all_granted(&mappings) || !served || bench.held() != 4 {
        return Err(format!("{mappings:?} at {:?}", bench.router().table()));
    }
    Ok(mappings.iter().map(|one| (one.internal, one.lease)).collect())
}

/// One case for each protocol, and one where the router speaks all.
fn each(case: fn(&mut Bench) -> Result<(), String>) {
    let names = ["nat-pmp-only", "pcp-only", "upnp-v1-only", "upnp-v2-only", "all"];
    let cases = names.map(|name| {
        let profile = Profile::named(name).expect("a profile");
        let setting = Setting { twice: true, ..Setting::new(profile, 1) };
        (name.to_owned(), setting, Box::new(case) as Case<'_>)
    });
    run_all(cases.into_iter());
}

#[test]
fn two_addresses_at_one_router_each_have_their_own_ports() {
    each(|bench| {
        bench.run(seconds(5))?;
        let first = all_served(bench)?;
        // Watched over, and renewed.
        bench.run(seconds(7_200))?;
        if all_served(bench)? != first {
            return Err(format!("{first:?} and later {:?}", bench.mappings()));
        }
        check_budget(bench)?;
        check_release(bench)
    });
}

#[test]
fn a_later_run_renews_and_gives_back_what_both_addresses_had() {
    each(|bench| {
        bench.run(seconds(5))?;
        let first = all_served(bench)?;
        bench.crash();
        bench.start(true);
        bench.run(seconds(30))?;
        if all_served(bench)? != first {
            return Err(format!("{first:?} and in a later run {:?}", bench.mappings()));
        }
        bench.crash();
        bench.start(false);
        bench.run(seconds(60))?;
        match bench.held() {
            0 => Ok(()),
            left => Err(format!("{left} mappings are left: {:?}", bench.router().table())),
        }
    });
}
