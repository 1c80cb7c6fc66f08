//! Two runtimes, one behaviour: each story is played with the node on tokio and with the node on
//! smol, over TCP and over QUIC, and core must have been told the same, in the same order on each
//! connection, and have said the same.
//!
//! The scripted peers are the same every time, run on tokio, and do one thing after the other:
//! a story goes on once core has been told what came of its last step. So there is one right
//! order of what happens on a connection, and whatever differs is the runtime's doing.
//! [`told`] says what is compared and what is not.

#![allow(clippy::print_stdout, reason = "what was told helps to see why a story fails")]

#[path = "parity/peer.rs"]
mod peer;
#[path = "parity/record.rs"]
mod record;
#[path = "parity/stage.rs"]
mod stage;
#[path = "parity/stories.rs"]
mod stories;
#[path = "parity/told.rs"]
mod told;
#[path = "parity/told_tests.rs"]
mod told_tests;
#[path = "parity/wire.rs"]
mod wire;

use portolan_core::Transport;
use portolan_tests::lab::{Lab, OnSmol, OnTokio};
use stage::Stage;
use told::{Told, difference};

/// Two tests for each story, named after it.
macro_rules! parity {
    ($($story:ident),+ $(,)?) => {$(
        mod $story {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_tcp() {
                compare(Transport::Tcp).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_quic() {
                compare(Transport::Quic).await;
            }

            async fn compare(transport: Transport) {
                let on_tokio = play(transport, stories::$story::<OnTokio>).await;
                let on_smol = play(transport, stories::$story::<OnSmol>).await;
                assert_same(&on_tokio, &on_smol);
            }
        }
    )+};
}

parity! {
    an_ordinary_probe,
    dial_before_listen,
    a_reset_in_the_middle_of_a_frame,
    a_listener_on_a_wildcard,
    ipv6_only,
    a_thousand_connections,
    shutdown_while_a_probe_is_in_flight,
    dialling_back,
    what_takes_too_long,






}

async fn play<L: Lab>(transport: Transport, story: impl AsyncFnOnce(&mut Stage<L>)) -> Told {
    let mut stage = Stage::<L>::new(transport);
    story(&mut stage).await;
    let told = stage.told();
    println!("{told}");
    told
}

fn assert_same(on_tokio: &Told, on_smol: &Told) {
    if let Some(difference) = difference(on_tokio, on_smol) {
        panic!("tokio (-) and smol (+) differ:\n{difference}");
    }
}
