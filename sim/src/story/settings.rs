//! The knobs of a story: `config` lines, which stand before the first fact.

use super::names::Names;
use super::script::{Word, Words, Wrong};
use super::{relays, routers};
use portolan_core::{Addr, Class, Config, DialBackConfig, Duration, NodeState, PunchConfig};
use std::net::IpAddr;

/// How numbers below a bound are drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Spread {
    /// Always zero: round times.
    Lowest,
    /// Always the greatest.
    Highest,
    /// From a seed.
    Seed(u64),
}

/// What the node of a story is made with.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) config: Config,
    pub(super) spread: Spread,
    /// The peers that the knobs name.
    pub(super) names: Names,
}

impl Default for Settings {
    fn default() -> Settings {
        let mut config = Config::default();
        // The version changes with every release; transcripts do not.
        config.agent_version = "portolan/story".to_owned();
        Settings { config, spread: Spread::Lowest, names: Names::default() }
    }
}

impl Settings {
    /// Take in the words after `config`.
    pub(super) fn set(&mut self, mut words: Words<'_>) -> Result<(), Wrong> {
        let knob: String = words.take()?;
        match knob.as_str() {
            "allow-private" => self.config.allow_private = true,
            "no-identify" => self.config.identify = false,
            "no-hearsay" => self.config.hearsay = false,
            "no-ping" => self.config.ping_interval = None,
            "ping" => self.config.ping_interval = Some(words.take::<Duration>()?),
            "addrs-per-request" => {
                self.config.addrs_per_request =
                    usize::try_from(words.take::<u32>()?).unwrap_or(usize::MAX);
            }
            "external" => self.config.external.push(words.take::<Addr>()?),
            "protocol" => self.config.protocols.push(words.take()?),
            "force" => {
                let class: Option<Class> = words.take_if();
                let state: NodeState = words.take()?;
                match class {
                    Some(class) => self.config.force_class.push((class, state)),
                    None => self.config.force_node = Some(state),
                }
            }
            "draw" => self.spread = words.take()?,
            "mapping" => self.config.mapping = Some(routers::mapping(&mut words)?),
            "dial-back" => self.config.dial_back = Some(dial_back(&mut words)?),
            "punch" => {
                let mut punch = PunchConfig::default();
                punch.predict_ports = words.flag("predict");
                self.config.punch = Some(punch);
            }
            "relay" => self.config.relay = Some(relays::used(&mut words, &mut self.names)?),
            "relay-server" => {
                let offered = relays::offered(&mut words, &mut self.names)?;
                self.config.relay_server = Some(offered);
            }
            other => {
                return Err(super::script::expected("a knob (see docs/scenarios.md)", other));
            }
        }
        words.done()
    }
}

fn dial_back(words: &mut Words<'_>) -> Result<DialBackConfig, Wrong> {
    let mut config = if words.flag("unlimited") {
        DialBackConfig::unlimited()
    } else {
        DialBackConfig::default()
    };
    config.sources = words.list::<IpAddr>("sources")?;
    let mut set = |name, field: &mut u32| match words.option(name) {
        Ok(Some(value)) => {
            *field = value;
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(wrong) => Err(wrong),
    };
    set("global", &mut config.global_per_min)?;
    set("peer", &mut config.peer_per_min)?;
    set("prefix", &mut config.prefix_per_min)?;
    set("target", &mut config.target_per_min)?;
    set("target-prefix", &mut config.target_prefix_per_min)?;
    if let Some(dials) = words.option::<u32>("dials")? {
        config.dials_max = usize::try_from(dials).map_err(|error| error.to_string())?;
    }
    Ok(config)
}

impl Word for NodeState {
    const EXPECTED: &'static str = "public, limited, private or unknown";

    fn read(word: &str) -> Option<NodeState> {
        let all = [NodeState::Unknown, NodeState::Private, NodeState::Limited, NodeState::Public];
        all.into_iter().find(|state| state.name() == word)
    }
}

impl Word for Spread {
    const EXPECTED: &'static str = "lowest, highest or a seed";

    fn read(word: &str) -> Option<Spread> {
        match word {
            "lowest" => Some(Spread::Lowest),
            "highest" => Some(Spread::Highest),
            seed => seed.parse().ok().map(Spread::Seed),
        }
    }
}
