//! The commands that move bytes: stdout is theirs, so that all there is to tell goes to stderr.

use crate::program::args::{ConnectArgs, ListenArgs, Place};
use crate::program::jobs::{Job, stop_signal};
use crate::program::lists;
use crate::program::names::Names;
use crate::program::{Failed, USAGE, keypair};
use crate::{ConnectOptions, ListenOptions, PipeNews};
use portolan_runtime::pipe::Allow;
use portolan_runtime::record::Recording;
use portolan_runtime::traits::Runtime;
use std::io::{self, Write};

/// What to say where nobody is allowed.
const NOBODY: &str = "say who may connect: --allow PEER_ID, as often as there are peers, or \
                      --allow-anyone";

impl Job for ListenArgs {
    async fn run<R: Runtime>(self, runtime: R) -> Result<u8, Failed> {
        let wrong = |error: &str| Failed { code: USAGE, error: error.into() };
        let allow = match (self.allow_anyone, self.allow.is_empty()) {
            (true, _) => Allow::Anyone,
            (false, false) => Allow::Only(self.allow.into_iter().collect()),
            (false, true) => return Err(wrong(NOBODY)),
        };
        let addresses = self.places.iter().filter_map(|place| match place {
            Place::Address(addr) => Some(addr.clone()),
            Place::Standard => None,
        });
        let listen: Vec<_> = addresses.collect();
        if self.exec.is_some() && listen.len() < self.places.len() {
            return Err(wrong("a session has either - (stdin and stdout) or --exec"));
        }
        let mut options = ListenOptions::new(allow);
        options.listen = listen;
        let pipe = self.pipe;
        options.bootstrap = lists::bootstrap(pipe.bootstrap, pipe.allow_private);
        options.allow_private = pipe.allow_private;
        options.predict_ports = pipe.predict_ports;
        let mut names = Names::new(&runtime, pipe.names);
        options.relays = names.relays(&self.relay).await?;
        (options.names, options.contacted) = names.done();
        options.exec = self.exec;
        options.keypair = keypair(pipe.key.as_deref())?;
        options.record = pipe.on.record.map(Recording::to);
        crate::listen(runtime, options, teller(pipe.json), stop_signal()?).await?;
        Ok(0)
    }
}

impl Job for ConnectArgs {
    async fn run<R: Runtime>(self, runtime: R) -> Result<u8, Failed> {
        let mut options = ConnectOptions::new(self.peer);
        options.explain = self.explain;
        let pipe = self.pipe;
        options.bootstrap = lists::bootstrap(pipe.bootstrap, pipe.allow_private);
        options.allow_private = pipe.allow_private;
        options.predict_ports = pipe.predict_ports;
        (options.names, _) = Names::new(&runtime, pipe.names).done();
        options.keypair = keypair(pipe.key.as_deref())?;
        options.record = pipe.on.record.map(Recording::to);
        crate::connect(runtime, options, teller(pipe.json), stop_signal()?).await?;
        Ok(0)
    }
}

/// Tells news on stderr, as lines for people or as JSON.
fn teller(json: bool) -> impl FnMut(&PipeNews) {
    move |news| {
        let line = if json { serde_json::to_string(news).ok() } else { Some(news.to_string()) };
        // Where stderr is gone, the bytes still go where they belong.
        let _ = writeln!(io::stderr(), "{}", line.unwrap_or_default());
    }
}
