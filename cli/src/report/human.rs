//! The report for people: a sentence, then tables.

use super::{AddressReport, DistantReport, HearsayReport, Outcomes, PeerFate, Report};
use crate::address::short;
use crate::relays;
use crate::thousands;
use portolan_core::NodeState;
use std::fmt;

impl fmt::Display for Report {
    /// Lines of text, each ended by a newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({}).", self.sentence(), self.reason)?;
        writeln!(f, "{} after {}.", self.peer_id, span(self.elapsed_ms))?;
        self.addresses_table(f)?;
        self.nat_table(f)?;
        self.mapping_table(f)?;
        self.relay_table(f)?;
        self.server_table(f)?;
        self.hearsay_table(f)?;
        self.distant_table(f)?;
        self.source_table(f)?;
        self.peer_table(f)
    }
}

impl Report {
    /// How the node stands, without a full stop.
    pub(crate) fn sentence(&self) -> &'static str {
        match self.reachability {
            NodeState::Public => "Public: anybody can dial this node",
            NodeState::Limited => "Limited: this node can be dialled, but perhaps not by strangers",
            NodeState::Private if self.is_relayed() => {
                "Relayed: nobody can dial this node, and a relay leads others to it"
            }
            NodeState::Private => "Private: nobody can dial this node",
            NodeState::Unknown => "Unknown: nothing is proved, either way",
        }
    }

    fn addresses_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nAddresses")?;
        if self.addresses.is_empty() {
            return writeln!(f, "  none is known that others could dial");
        }
        let mut table =
            Table::new(["address", "verdict", "scope", "how learnt", "proved by", "when"]);
        for address in &self.addresses {
            table.row([
                address.address.clone(),
                address.verdict.to_owned(),
                address.scope.unwrap_or("-").to_owned(),
                address.sources.join(", "),
                proved_by(address),
                address.first_verdict_ms.map_or_else(|| "-".to_owned(), span),
            ]);
            // The verdict sentence above already gives the reason of what is reachable.
            if address.scope.is_none() {
                table.remark(format!("because: {}", address.reason));
            }
        }
        table.write(f)
    }

    fn nat_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nNAT and firewall")?;
        if self.nat.is_empty() {
            return writeln!(f, "  nothing is listened on");
        }
        let mut table = Table::new(["class", "reachability", "mapping", "filtering", "because"]);
        for (nat, class) in self.nat.iter().zip(&self.classes) {
            table.row([
                format!("{}/{}", nat.family, nat.transport),
                class.reachability.name().to_owned(),
                nat.mapping.to_owned(),
                nat.filtering.to_owned(),
                class.reason.clone(),
            ]);
        }
        table.write(f)
    }

    fn mapping_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mappings.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nMapped ports")?;
        let mut table = Table::new(["ours", "outside", "protocol", "because"]);
        for mapping in &self.mappings {
            table.row([
                mapping.internal.clone(),
                mapping.external.clone().unwrap_or_else(|| "-".to_owned()),
                mapping.protocol.unwrap_or("-").to_owned(),
                mapping.reason.clone(),
            ]);
        }
        table.write(f)
    }

    fn relay_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.relays.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nRelays")?;
        let mut table = Table::new(["relay", "state", "latency", "ends in", "a circuit may"]);
        let dash = || "-".to_owned();
        for relay in &self.relays {
            table.row([
                relay.peer_id.clone(),
                relay.state.to_owned(),
                relay.latency_ms.map_or_else(dash, span),
                relay.expires_s.map_or_else(dash, |span| format!("{span} s")),
                if relay.expires_s.is_some() {
                    relays::limits(relay.limit_s, relay.limit_bytes)
                } else {
                    dash()
                },
            ]);
            for address in &relay.addresses {
                table.remark(format!("give to others: {address}"));
            }
            if let Some(reason) = &relay.reason {
                table.remark(format!("because: {reason}"));
            }
        }
        table.write(f)
    }

    fn source_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bootstrap.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nLists of peers")?;
        let mut table = Table::new(["list", "peers"]);
        for source in &self.bootstrap {
            let peers = source.peers.map_or_else(|| "-".to_owned(), |peers| peers.to_string());
            table.row([source.url.clone(), peers]);
            if let Some(error) = &source.error {
                table.remark(format!("because: {error}"));
            }
            if let Some(peers) = source.remembered {
                table.remark(format!("its last good list, kept on disk, names {peers}"));
            }
        }
        table.write(f)
    }

    fn server_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nServers")?;
        if self.servers.is_empty() {
            return writeln!(f, "  no peer offers to dial back (AutoNAT v2)");
        }
        let mut table = Table::new(["server", "address", "what it said"]);
        for server in &self.servers {
            let mut said = said(&server.outcomes);
            if server.distrusted {
                said.push_str("; trusted no more");
            }
            table.row([server.peer_id.clone(), server.address.clone(), said]);
        }
        table.write(f)
    }

    fn hearsay_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HearsayReport { reachability, servers } = &self.hearsay;
        if servers.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nHearsay (AutoNAT v1), which proves nothing: {}", reachability.name())?;
        let mut table = Table::new(["server", "address", "it says that we are"]);
        for server in servers {
            let said = match server.answer {
                "nothing" => "-".to_owned(),
                said => said.to_owned(),
            };
            table.row([server.peer_id.clone(), server.address.clone(), said]);
        }
        table.write(f)
    }

    fn distant_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.distant_servers.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nServers asked through relays, whether strangers get in")?;
        let mut table = Table::new(["server", "relay", "dial data", "what it said"]);
        for server in &self.distant_servers {
            let DistantReport { peer_id, relay, outcomes, dial_data_bytes } = server;
            let paid = format!("{} bytes", thousands((*dial_data_bytes).into()));
            table.row([peer_id.clone(), relay.clone(), paid, said(outcomes)]);
        }
        table.write(f)
    }

    /// Peers that are no servers; the others are in the table of servers.
    fn peer_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(["peer", "what became of it"]);
        for peer in &self.peers {
            let fate = match &peer.fate {
                PeerFate::Server(_) => continue,
                PeerFate::Dialling => "no answer yet".to_owned(),
                PeerFate::Connected(_) => "connected; it may still tell about itself".to_owned(),
                PeerFate::Silent(_) => "connected; it tells nothing about itself".to_owned(),
                PeerFate::NoServer(_) => "connected; it does not offer to dial back".to_owned(),
                PeerFate::Failed(error) => format!("not reached: {error}"),
            };
            table.row([peer.address.clone(), fate]);
        }
        if table.rows.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nOther peers")?;
        table.write(f)
    }
}

/// Every outcome that occurred, with its count.
pub(crate) fn said(outcomes: &Outcomes) -> String {
    let all = [
        (outcomes.proved, "proved"),
        (outcomes.dial_failed, "dial failed"),
        (outcomes.refused, "refused"),
        (outcomes.rejected, "rejected"),
        (outcomes.error, "error"),
        (outcomes.dial_back_error, "dial-back error"),
        (outcomes.timeout, "timeout"),
        (outcomes.lie, "lie"),
    ];
    let said: Vec<String> = all
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{word} {count}"))
        .collect();
    if said.is_empty() { "was not asked, or has not answered".to_owned() } else { said.join(", ") }
}

/// The last prover and how many proofs there are.
fn proved_by(address: &AddressReport) -> String {
    match (address.proofs, address.proved_by) {
        (0, _) => "-".to_owned(),
        (1, Some(peer)) => short(&peer.to_string()),
        (proofs, Some(peer)) => format!("{} and {} more", short(&peer.to_string()), proofs - 1),
        (proofs, None) => format!("{proofs} proofs"),
    }
}

/// Milliseconds as people read them.
fn span(millis: u64) -> String {
    if millis < 10_000 {
        format!("{millis} ms")
    } else {
        format!("{}.{} s", millis / 1_000, millis % 1_000 / 100)
    }
}

/// Columns as wide as their widest cell, under a heading.
struct Table<const N: usize> {
    heading: [&'static str; N],
    rows: Vec<Row<N>>,
}

enum Row<const N: usize> {
    Cells([String; N]),
    Remark(String),
}

impl<const N: usize> Table<N> {
    fn new(heading: [&'static str; N]) -> Self {
        Table { heading, rows: Vec::new() }
    }

    fn row(&mut self, cells: [String; N]) {
        self.rows.push(Row::Cells(cells));
    }

    /// A line of its own below the last row.
    fn remark(&mut self, text: String) {
        self.rows.push(Row::Remark(text));
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths = self.heading.map(str::len);
        for row in &self.rows {
            if let Row::Cells(cells) = row {
                for (width, cell) in widths.iter_mut().zip(cells) {
                    *width = (*width).max(cell.chars().count());
                }
            }
        }
        write_row(f, &widths, &self.heading)?;
        for row in &self.rows {
            match row {
                Row::Cells(cells) => write_row(f, &widths, cells)?,
                Row::Remark(text) => writeln!(f, "      {text}")?,
            }
        }
        Ok(())
    }
}

fn write_row<const N: usize>(
    f: &mut fmt::Formatter<'_>,
    widths: &[usize; N],
    cells: &[impl AsRef<str>; N],
) -> fmt::Result {
    let mut line = String::new();
    for (width, cell) in widths.iter().zip(cells) {
        line.push_str("  ");
        line.push_str(&format!("{:<width$}", cell.as_ref()));
    }
    writeln!(f, "{}", line.trim_end())
}
