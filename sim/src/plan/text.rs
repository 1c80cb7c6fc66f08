//! Plans as text: scenarios of a whole world, in the grammar of `docs/scenarios.md`.

use super::words::{read_gate, read_link, read_rule, say_gate, say_link, say_rule, say_vice};
use super::{Change, NodePlan, Plan, RouterPlan, Serves};
use crate::story::script::{Word, Words, expected};
use crate::world::Costs;
use portolan_core::{Addr, Class, Duration};
use std::fmt;

/// What a class of a node is to conclude in the end, in the words of the matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The number of the node.
    pub node: usize,
    /// The class.
    pub class: Class,
    /// The conclusion.
    pub words: String,
}

/// A line that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct BadScenario {
    /// The number of the line, counted from one.
    pub line: usize,
    /// What is wrong with it, and what was expected.
    pub what: String,
}

/// What the first line with words of such a scenario says.
const MARK: &str = "world";

impl Plan {
    /// Whether a text is a scenario of a world, and not the story of one node.
    pub fn is_scenario(text: &str) -> bool {
        let mut lines = text.lines().map(str::trim);
        lines.find(|line| !line.is_empty() && !line.starts_with('#')) == Some(MARK)
    }

    /// The plan that a scenario describes.
    ///
    /// # Errors
    /// The first line that is not understood.
    pub fn read(text: &str) -> Result<Plan, BadScenario> {
        let mut plan = Plan::new(1);
        let mut marked = false;
        for (index, line) in text.lines().enumerate() {
            let said = line.split('#').next().unwrap_or_default().trim();
            if said.is_empty() {
                continue;
            }
            let bad = |what| BadScenario { line: index + 1, what };
            if !std::mem::replace(&mut marked, true) {
                if said != MARK {
                    return Err(bad(expected("the word world", said)));
                }
                continue;
            }
            plan.line(said).map_err(bad)?;
        }
        Ok(plan)
    }

    fn line(&mut self, said: &str) -> Result<(), String> {
        if let Some(rest) = said.strip_prefix("expect ") {
            return self.expect(rest);
        }
        let mut words = Words::of(said);
        let verb: String = words.take()?;
        match verb.as_str() {
            "seed" => self.seed = words.take()?,
            "lasts" => self.lasts = words.take()?,
            "still" => self.still_at = Some(words.take()?),
            "twins" => self.twins = true,
            "unsigned" => self.signs = false,
            "router" => {
                let router = self.router(&mut words)?;
                self.routers.push(router);
            }
            "node" => {
                let node = self.node(&mut words)?;
                self.nodes.push(node);
            }
            "at" => {
                let at = words.take()?;
                let change = self.change(&mut words, at)?;
                self.changes.push((at, change));
            }
            other => {
                return Err(expected(
                    "seed, lasts, still, twins, unsigned, router, node, at or expect",
                    other,
                ));
            }
        }
        words.done()
    }

    fn expect(&mut self, rest: &str) -> Result<(), String> {
        let mut parts = rest.splitn(3, ' ');
        let (name, class) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let node = self.node_named(name)?;
        let class = Class::read(class).ok_or_else(|| expected(Class::EXPECTED, class))?;
        let words = parts.next().unwrap_or_default().to_owned();
        self.expects.push(Expectation { node, class, words });
        Ok(())
    }

    fn node_named(&self, name: &str) -> Result<usize, String> {
        let found = self.nodes.iter().position(|node| node.name == name);
        found.ok_or_else(|| expected("the name of a node above", name))
    }

    fn router_named(&self, name: &str) -> Result<usize, String> {
        let found = self.routers.iter().position(|router| router.name == name);
        found.ok_or_else(|| expected("the name of a router above", name))
    }

    fn behind(&self, words: &mut Words<'_>) -> Result<Option<usize>, String> {
        let name: Option<String> = words.option("behind")?;
        name.map(|name| self.router_named(&name)).transpose()
    }

    fn router(&self, words: &mut Words<'_>) -> Result<RouterPlan, String> {
        let name = words.take()?;
        let behind = self.behind(words)?;
        let outside = words.option("outside")?;
        let ip4 = read_gate(words, "")?;
        let ip6 = read_gate(words, "6")?;
        let link = read_link(words)?;
        let mut forwards = Vec::new();
        for pair in words.list::<String>("forward")? {
            let (external, inside) =
                pair.split_once('>').ok_or_else(|| expected("EXTERNAL>INSIDE", &pair))?;
            forwards.push((read_addr(external)?, read_addr(inside)?));
        }
        Ok(RouterPlan { name, behind, outside, ip4, ip6, forwards, link })
    }

    fn node(&self, words: &mut Words<'_>) -> Result<NodePlan, String> {
        let name: String = words.take()?;
        let behind = self.behind(words)?;
        let ips = words.list("ips")?;
        let listen = words.list("listen")?;
        let link = read_link(words)?;
        let costs = if words.flag("eager") { Costs::EAGER } else { Costs::PORTOLAN };
        let punches = words.flag("punches");
        let serves = words.flag("serves");
        let from = words.list("from")?;
        let vice = words.option("vice")?;
        let serves = serves.then_some(Serves { from, vice });
        Ok(NodePlan { name, behind, ips, link, listen, serves, costs, punches })
    }

    fn change(&self, words: &mut Words<'_>, at: Duration) -> Result<Change, String> {
        let verb: String = words.take()?;
        if verb == "heal" {
            return Ok(Change::Heal);
        }
        if verb == "rule" {
            return Ok(Change::Rule(read_rule(words, at)?));
        }
        let name: String = words.take()?;
        let node = || self.node_named(&name);
        let router = || self.router_named(&name);
        Ok(match verb.as_str() {
            "start" => Change::Start(node()?),
            "dial" => {
                let to: String = words.take()?;
                Change::Dial { node: node()?, to: self.node_named(&to)?, addr: words.take()? }
            }
            "reboot" => Change::Reboot(router()?),
            "renumber" => Change::Renumber(router()?, words.take()?),
            "forward" => Change::Forward(router()?, words.take()?, words.take()?),
            "unforward" => Change::Unforward(router()?, words.take()?),
            "gate" => {
                let family = words.take()?;
                Change::SetGate(router()?, family, Box::new(read_gate(words, "")?))
            }
            "link" => {
                let up: String = words.take()?;
                Change::Link(node()?, up == "up")
            }
            "faults" => Change::Faults(node()?, Box::new(read_link(words)?)),
            "kill" => Change::Kill(node()?),
            "cut-off" => Change::CutOff(node()?),
            "suspend" => Change::Suspend(node()?, words.take()?),
            "readdress" => Change::Readdress(node()?, words.list("ips")?),
            "close-listener" => Change::CloseListener(node()?, words.take()?),
            "listen" => Change::Listen(node()?, words.take()?),
            "visit" => Change::Visit(node()?, words.take()?),
            other => return Err(expected("a change (see docs/scenarios.md)", other)),
        })
    }

    /// A change in the words of a scenario.
    pub fn say(&self, change: &Change) -> String {
        let node = |number: &usize| self.nodes[*number].name.as_str();
        let router = |number: &usize| self.routers[*number].name.as_str();
        match change {
            Change::Start(one) => format!("start {}", node(one)),
            Change::Dial { node: one, to, addr } => {
                format!("dial {} {} {addr}", node(one), node(to))
            }
            Change::Reboot(one) => format!("reboot {}", router(one)),
            Change::Renumber(one, ip) => format!("renumber {} {ip}", router(one)),
            Change::Forward(one, external, inside) => {
                format!("forward {} {external} {inside}", router(one))
            }
            Change::Unforward(one, external) => format!("unforward {} {external}", router(one)),
            Change::SetGate(one, family, gate) => {
                format!("gate {} {}{}", router(one), family.name(), say_gate(gate, ""))
            }
            Change::Link(one, up) => {
                format!("link {} {}", node(one), if *up { "up" } else { "down" })
            }
            Change::Faults(one, link) => format!("faults {}{}", node(one), say_link(link)),
            Change::Rule(rule) => say_rule(rule),
            Change::Kill(one) => format!("kill {}", node(one)),
            Change::CutOff(one) => format!("cut-off {}", node(one)),
            Change::Suspend(one, span) => format!("suspend {} {}", node(one), span_word(*span)),
            Change::Readdress(one, ips) => format!("readdress {}{}", node(one), list("ips", ips)),
            Change::CloseListener(one, class) => format!("close-listener {} {class}", node(one)),
            Change::Listen(one, addr) => format!("listen {} {addr}", node(one)),
            Change::Visit(one, addr) => format!("visit {} {addr}", node(one)),
            Change::Heal => "heal".to_owned(),
        }
    }
}

impl fmt::Display for Plan {
    /// As a scenario.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{MARK}\nseed {}", self.seed)?;
        if self.twins {
            writeln!(f, "twins")?;
        }
        if !self.signs {
            writeln!(f, "unsigned")?;
        }
        let behind = |number: &Option<usize>| {
            number
                .map(|number| format!(" behind={}", self.routers[number].name))
                .unwrap_or_default()
        };
        for router in &self.routers {
            let outside = router.outside.map(|ip| format!(" outside={ip}")).unwrap_or_default();
            let pairs: Vec<String> = router
                .forwards
                .iter()
                .map(|(external, inside)| format!("{external}>{inside}"))
                .collect();
            writeln!(
                f,
                "router {}{}{outside}{}{}{}{}",
                router.name,
                behind(&router.behind),
                say_gate(&router.ip4, ""),
                say_gate(&router.ip6, "6"),
                list("forward", &pairs),
                say_link(&router.link),
            )?;
        }
        for node in &self.nodes {
            let mut line = format!("node {}{}", node.name, behind(&node.behind));
            line += &list("ips", &node.ips);
            line += &list("listen", &node.listen);
            line += &say_link(&node.link);
            if node.costs == Costs::EAGER {
                line += " eager";
            }
            if node.punches {
                line += " punches";
            }
            if let Some(serves) = &node.serves {
                line += " serves";
                line += &list("from", &serves.from);
                if let Some(vice) = &serves.vice {
                    line += &format!(" vice={}", say_vice(vice));
                }
            }
            writeln!(f, "{line}")?;
        }
        for (at, change) in &self.changes {
            writeln!(f, "at {} {}", span_word(*at), self.say(change))?;
        }
        if let Some(still_at) = self.still_at {
            writeln!(f, "still {}", span_word(still_at))?;
        }
        writeln!(f, "lasts {}", span_word(self.lasts))?;
        for Expectation { node, class, words } in &self.expects {
            writeln!(f, "expect {} {class} {words}", self.nodes[*node].name)?;
        }
        Ok(())
    }
}

fn list<T: ToString>(name: &str, items: &[T]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    format!(" {name}={}", items.join(","))
}

/// A span as scenarios write it: whole seconds where they are whole.
pub(super) fn span_word(span: Duration) -> String {
    if span.subsec_millis() == 0 {
        format!("{}s", span.as_secs())
    } else {
        format!("{}ms", span.as_millis())
    }
}

fn read_addr(word: &str) -> Result<Addr, String> {
    Addr::read(word).ok_or_else(|| expected(Addr::EXPECTED, word))
}
