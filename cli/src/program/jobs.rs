//! The commands that run nodes, on whichever runtime there is.

use crate::program::args::{
    Args, AskingArgs, CheckArgs, DemoArgs, MapArgs, PageArgs, Protocols, RelayingArgs, ServeArgs,
};
use crate::program::lists;
use crate::program::names::Names;
use crate::program::progress::Bar;
use crate::program::{FAILURE, Failed, USAGE, keypair, print};
use crate::{
    CheckOptions, ClusterOptions, DemoOptions, HttpOptions, MapOptions, MappingReport, Ready,
    Report, ServeError, ServeOptions,
};
use async_signal::{Signal, Signals};
use clap::{CommandFactory, error::ErrorKind};
use futures::StreamExt;
use portolan_core::{Duration, GatewayAnswer, MappingProtocol, RelayServerConfig, Transport};
use portolan_runtime::record::Recording;
use portolan_runtime::traits::Runtime;
use std::io;

/// A command that needs a runtime.
pub(crate) trait Job {
    /// Do it, and say the exit code.
    async fn run<R: Runtime>(self, runtime: R) -> Result<u8, Failed>;
}

impl Job for DemoArgs {
    async fn run<R: Runtime>(self, runtime: R) -> Result<u8, Failed> {
        let options = DemoOptions { record: self.on.record.map(Recording::to) };
        let mut bar = Bar::new();
        let report = crate::demo(runtime, options, |progress| bar.show(progress)).await;
        bar.finish();
        print_report(&report?, self.json)
    }
}

impl Job for CheckArgs {
    async fn run<R: Runtime>(self, runtime: R) -> Result<u8, Failed> {
        if self.asking.peer.is_empty() && self.bootstrap.bootstrap.is_empty() {
            no_peers();
        }
        let asked = self.asking.options(&runtime).await?;
        let options = CheckOptions {
            bootstrap: lists::bootstrap(self.bootstrap, asked.allow_private),
            timeout: Duration::from_secs(self.timeout),
            ..asked
        };
        let mut bar = Bar::new();
        let report = crate::check(runtime, options, |progress| bar.show(progress)).await;
        bar.finish();
        print_report(&report?, self.json)
    }
}

impl AskingArgs {
    /// What they say, with names resolved.
    pub(crate) async fn options<R: Runtime>(self, runtime: &R) -> Result<CheckOptions, Failed> {
        let mut names = Names::new(runtime, self.names);
        let relays = names.relays(&self.relay).await?;
        let distant = names.distant(&self.distant).await?;
        let (names, contacted) = names.done();
        Ok(CheckOptions {
            peers: self.peer,
            listen: self.listen,
            keypair: keypair(self.key.as_deref())?,
            allow_private: self.allow_private,
            map: !self.no_map && !self.allow_private,
            relay: !self.no_relay,
            relays,
            distant,
            names,
            contacted,
            record: self.on.record.map(Recording::to),
            ..CheckOptions::default()
        })
    }
}

/// The usage error of a check that has nobody to ask; ends the program.
fn no_peers() -> ! {
    let mut command = Args::command();
    command.build();
    let problem = "check needs a peer to ask: --peer MULTIADDR, or --bootstrap URL, as often as there are \
                   peers or lists of them\n\n\
                   To see it at work without any, run `portolan demo`.";
    let check = command.find_subcommand_mut("check");
    match check {
        Some(check) => check.error(ErrorKind::MissingRequiredArgument, problem),
        None => command.error(ErrorKind::MissingRequiredArgument, problem),
    }
    .exit()
}

/// What is shown over HTTP, if anything.
pub(crate) fn http(args: PageArgs) -> Option<HttpOptions> {
    let mut http = HttpOptions::on(args.http?);
    http.names = args.http_name;
    Some(http)
}

impl Job for ServeArgs {
    async fn run<R: Runtime>(self, runtime: R) -> Result<u8, Failed> {
        let drain = drain_signal(self.relaying.relay)?;
        let mut names = Names::new(&runtime, self.names);
        let reserve_at = names.relays(&self.relaying.reserve_at).await?;
        let (names, contacted) = names.done();
        let mut cluster = ClusterOptions::default();
        cluster.members = self.cluster.cluster;
        cluster.insecure_http = self.cluster.insecure_http;
        let options = ServeOptions {
            http: http(self.page),
            cluster,
            listen: self.listen,
            keypair: keypair(self.key.as_deref())?,
            allow_private: self.allow_private,
            dial_from: self.dial_from,
            relay: relay_server(&self.relaying),
            reserve_at,
            names,
            contacted,
            record: self.on.record.map(Recording::to),
        };
        // Asked for before anything is printed: who reads the addresses may stop us at once.
        let stop = stop_signal()?;
        let ready = |one: Ready<'_>| {
            let text: String = match one {
                Ready::Http(addr) => format!("http://{addr}/status\n"),
                Ready::Addresses(addresses) => {
                    addresses.iter().map(|address| format!("{address}\n")).collect()
                }
            };
            if let Err(error) = print(&text) {
                tracing::warn!(%error, "the addresses could not be printed");
            }
        };
        match crate::serve(runtime, options, ready, drain, stop).await {
            Ok(()) => Ok(0),
            Err(error) => {
                let code = if error.is_usage() { USAGE } else { FAILURE };
                Err(Failed { code, error: format!("{error}{}", at_fault(&error)) })
            }
        }
    }
}

/// What a relay grants, if there is one.
fn relay_server(args: &RelayingArgs) -> Option<RelayServerConfig> {
    let mut config = RelayServerConfig::default();
    config.reservations_max = args.max_reservations.into();
    config.circuits_max = args.max_circuits.into();
    let seconds = Some(args.circuit_seconds).filter(|seconds| *seconds > 0);
    config.limit.duration = seconds.map(|seconds| Duration::from_secs(seconds.into()));
    config.limit.bytes = Some(args.circuit_bytes).filter(|bytes| *bytes > 0);
    args.relay.then_some(config)
}

/// How long gateways may take to answer; ours: three searches of UPnP and a second.
const LIST_PATIENCE: Duration = Duration::from_secs(4);

impl Job for MapArgs {
    async fn run<R: Runtime>(self, runtime: R) -> Result<u8, Failed> {
        let tcp = self.tcp.iter().map(|port| (Transport::Tcp, *port));
        let udp = self.udp.iter().map(|port| (Transport::Quic, *port));
        let options = MapOptions {
            ports: tcp.chain(udp).collect(),
            lifetime: Duration::from_secs(self.lifetime),
            protocols: match self.protocol {
                Protocols::Auto => MappingProtocol::ALL.to_vec(),
                Protocols::Pcp => vec![MappingProtocol::Pcp],
                Protocols::NatPmp => vec![MappingProtocol::NatPmp],
                Protocols::Upnp => vec![MappingProtocol::Upnp],
            },
            ledger: self.ledger,
            record: self.on.record.map(Recording::to),
        };
        if self.list {
            let answers = crate::gateways(runtime, options, LIST_PATIENCE).await?;
            return list(&answers, self.json);
        }
        let stop = stop_signal()?;
        let json = self.json;
        let news = |mapping: &MappingReport| {
            let text =
                if json { serde_json::to_string(mapping).ok() } else { Some(sentence(mapping)) };
            if let Err(error) = print(&(text.unwrap_or_default() + "\n")) {
                tracing::warn!(%error, "the mapping could not be printed");
            }
        };
        let granted = crate::map(runtime, options, news, stop).await?;
        Ok(if granted { 0 } else { FAILURE })
    }
}

/// A mapping in words.
fn sentence(mapping: &MappingReport) -> String {
    let MappingReport { internal, external, protocol, router, lifetime_s, reason, .. } = mapping;
    let (Some(external), Some(protocol), Some(router)) = (external, protocol, router) else {
        return format!("{internal}: {reason}");
    };
    let lasts = lifetime_s.map_or_else(|| "until deleted".to_owned(), |s| format!("for {s} s"));
    format!("{internal}: {external} by {protocol} at {router} {lasts} ({reason})")
}

fn list(answers: &[GatewayAnswer], json: bool) -> Result<u8, Failed> {
    if json {
        let external = |one: &GatewayAnswer| one.external.map(|ip| ip.to_string());
        let all: Vec<_> = answers
            .iter()
            .map(|one| {
                serde_json::json!({
                    "router": one.router.to_string(),
                    "protocol": one.protocol.name(),
                    "external": external(one),
                })
            })
            .collect();
        print(&(serde_json::to_string_pretty(&all)? + "\n"))?;
    } else if answers.is_empty() {
        print("no gateway answers a mapping protocol\n")?;
    } else {
        for GatewayAnswer { router, protocol, external } in answers {
            let said = external.map_or_else(String::new, |ip| format!(", external address {ip}"));
            print(&format!("{router} speaks {protocol}{said}\n"))?;
        }
    }
    Ok(if answers.is_empty() { FAILURE } else { 0 })
}

/// The flag that an error of the library's is about, where the user might look for it in vain.
fn at_fault(error: &ServeError) -> &'static str {
    if matches!(error, ServeError::PrivateBesideGlobal { .. }) {
        " (--allow-private)"
    } else if matches!(error, ServeError::Http(_)) {
        " (--http)"
    } else if matches!(error, ServeError::ListenedSource { .. } | ServeError::Source { .. }) {
        " (--dial-from)"
    } else {
        ""
    }
}

fn print_report(report: &Report, json: bool) -> Result<u8, Failed> {
    let text = if json { serde_json::to_string_pretty(report)? + "\n" } else { report.to_string() };
    print(&text)?;
    Ok(report.exit_code())
}

/// Resolves when the operator wants the relay service to be wound down, which can be said on Unix.
/// `wanted`: there is one; without it the signal is left as it was.
fn drain_signal(wanted: bool) -> io::Result<impl Future<Output = ()>> {
    let wanted = wanted && cfg!(unix);
    let signals = wanted.then(|| Signals::new([Signal::Usr1])).transpose()?;
    Ok(async move {
        match signals {
            Some(mut signals) => drop(signals.next().await),
            None => futures::future::pending().await,
        }
    })
}

/// Resolves when the user, or the system, wants the program to end. It works on every runtime:
/// what waits for the signals is a thread of its own.
pub(crate) fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut wanted = vec![Signal::Int];
    if cfg!(unix) {
        wanted.push(Signal::Term);
    }
    let mut signals = Signals::new(wanted)?;
    Ok(async move {
        signals.next().await;
    })
}
