//! Reference models beside the agent: each is too simple to be wrong, and knows one thing.
//!
//! proptest-state-machine draws facts from the one generator; after every fact a model that took in
//! the same facts says what must be. Seed and cases are fixed and printed; `PORTOLAN_MODEL_SEED`
//! and `PORTOLAN_MODEL_CASES` ask for another run. What fails is printed as a story.

#![allow(clippy::wildcard_enum_match_arm, reason = "each model follows a few of many facts")]

#[path = "model/admission.rs"]
mod admission;
#[path = "model/advertised.rs"]
mod advertised;
#[path = "model/machine.rs"]
mod machine;
#[path = "model/observed.rs"]
mod observed;
#[path = "model/verdicts.rs"]
mod verdicts;

use machine::run;

#[test]
fn observations_add_up_to_what_the_votes_say() {
    run::<observed::Observed>("observed", 200, 40..160).demand(&[
        "value",
        "guess",
        "two networks agree",
        "mapping none",
        "mapping endpoint-independent",
        "mapping endpoint-dependent, provisional",
        "mapping endpoint-dependent, firm",
        "a vote is gone",
    ]);
}

#[test]
fn verdicts_follow_from_proofs_and_failures_alone() {
    run::<verdicts::Verdicts>("verdicts", 320, 40..160).demand(&[
        "proved",
        "dial_failed",
        "refused",
        "rejected",
        "error",
        "dial_back_error",
        "timeout",
        "lie",
        "proved late",
        "reachable anywhere",
        "reachable contacted",
        "reachable contacted-only",
        "unreachable",
        "refuted after a proof",
        "expired",
    ]);
}

#[test]
fn peers_are_told_what_is_proven_and_no_more() {
    run::<advertised::Advertised>("advertised", 160, 40..140).demand(&[
        "told",
        "withdrawn",
        "answered",
        "pushed",
        "contacted-only is not told",
    ]);
}

#[test]
fn requesters_are_served_by_counting() {
    run::<admission::Admission>("admission", 320, 40..160).demand(&[
        "dial",
        "data asked for",
        "rejected: everybody",
        "rejected: peer",
        "rejected: network",
        "rejected: target",
        "rejected: no slot",
        "rejected: busy",
        "refused",
        "reset: too many streams",
        "answered OK OK",
        "answered OK DIAL_ERROR",
        "answered OK DIAL_BACK_ERROR",
        "answered INTERNAL",
        "overdue",
        "broke a rule",
    ]);
}
