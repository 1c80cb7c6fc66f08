//! The heat map, and the same in numbers.

use super::text::{BOUNDS, Escaped, level, level_words, millis, plural, round_trips, size};
use crate::matrix::{CellReport, Kind, Matrix, Servers};
use crate::summary::parted;
use portolan_core::{Class, Family, Transport};

const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Quic];
const SERVERS: [Servers; 3] = [Servers::Single, Servers::Multihomed, Servers::DualStack];

/// The heat map: a table for each family, a row for each kind of network.
pub(super) fn section(matrix: &Matrix) -> String {
    let mut out = String::from(
        "<section>\n<h2>The matrix</h2>\n\
         <p>Rows are what stands between the node and the Internet: mapping × filtering of a NAT, by \
         endpoint (EI: independent, AD: by address, APD: by address and port). Columns are what it \
         listens on and which five servers it knows: all with one IP each; three that also dial back \
         from a second one; or two that it knows over the other IP family. A cell has the conclusion \
         and the median time from the first dial until it stood.</p>\n<ul class=\"legend\">\n",
    );
    for level in 0..=BOUNDS.len() {
        out += &format!("<li class=\"h{level}\">{}</li>\n", level_words(level));
    }
    out += "</ul>\n";
    for family in [Family::Ip4, Family::Ip6] {
        out += &family_table(matrix, family);
    }
    out += "</section>\n";
    out
}

fn family_table(matrix: &Matrix, family: Family) -> String {
    let of_family: Vec<&CellReport> =
        matrix.cells.iter().filter(|report| report.cell.class.family == family).collect();
    let mut kinds: Vec<Kind> = of_family.iter().map(|report| report.cell.kind).collect();
    kinds.dedup();
    if kinds.is_empty() {
        return String::new();
    }
    let name = match family {
        Family::Ip4 => "IPv4",
        Family::Ip6 => "IPv6",
    };
    let mut out = format!(
        "<div class=\"wide\"><table class=\"heat\">\n<caption>{name}</caption>\n<thead>\n\
         <tr><td></td>"
    );
    for transport in TRANSPORTS {
        out += &format!(
            "<th scope=\"colgroup\" colspan=\"{}\">{}</th>",
            SERVERS.len(),
            transport.name().to_uppercase()
        );
    }
    out += "</tr>\n<tr><th scope=\"col\">network</th>";
    for servers in TRANSPORTS.into_iter().flat_map(|_| SERVERS) {
        out += &format!("<th scope=\"col\">{}</th>", servers.name());
    }
    out += "</tr>\n</thead>\n<tbody>\n";
    for kind in kinds {
        out += &format!("<tr><th scope=\"row\">{}</th>", Escaped(&kind.name()));
        for transport in TRANSPORTS {
            for servers in SERVERS {
                let found = of_family.iter().find(|report| {
                    let cell = report.cell;
                    let class = Class::new(family, transport);
                    (cell.kind, cell.class, cell.servers) == (kind, class, servers)
                });
                out += &found.map_or("<td></td>".to_owned(), |report| cell(matrix, report));
            }
        }
        out += "</tr>\n";
    }
    out += "</tbody></table></div>\n";
    out
}

fn cell(matrix: &Matrix, report: &CellReport) -> String {
    let (took, p95) = (report.took(50), report.took(95));
    let all = report.samples.len();
    let right = report.right();
    let off = if right < all { " off" } else { "" };
    let mut title = format!(
        "{}, {}, {} servers: {}\nmedian {} = {}, 95 of 100 within {}\n{} packets, {} bytes",
        report.cell.kind.name(),
        report.cell.class,
        report.cell.servers.name(),
        report.conclusion(),
        round_trips(matrix, took),
        millis(took),
        round_trips(matrix, p95),
        report.packets(),
        report.bytes(),
    );
    title += &format!("\n{right} of {} as expected: {}", plural(all, "run"), report.expected);
    let (verdict, rest) = parted(report.conclusion());
    let rest = if verdict == "reachable" { rest.to_owned() } else { format!("{verdict}, {rest}") };
    let rest = rest.trim_end_matches(", ");
    let odd = if right < all { format!(" ({right} of {all} as expected)") } else { String::new() };
    format!(
        "<td class=\"cell h{}{off}\" title=\"{}\"><span class=\"time\">{}</span>\
         <span class=\"verdict\">{}{odd}</span></td>",
        level(matrix.round_trips(took)),
        Escaped(&title),
        round_trips(matrix, took),
        Escaped(rest),
    )
}

/// Every cell in numbers.
pub(super) fn numbers(matrix: &Matrix) -> String {
    let mut out = String::from(
        "<section>\n<h2>Every cell in numbers</h2>\n<details><summary>Show the table</summary>\n\
         <div class=\"wide\"><table class=\"numbers exact\">\n<thead><tr>",
    );
    for (name, side) in [
        ("network", ""),
        ("class", ""),
        ("servers", ""),
        ("verdict", ""),
        ("scope or reason", ""),
        ("right", "right"),
        ("wrong", "right"),
        ("undecided", "right"),
        ("median", "right"),
        ("", "right"),
        ("95 of 100", "right"),
        ("", "right"),
        ("packets", "right"),
        ("bytes", "right"),
    ] {
        out += &format!("<th scope=\"col\" class=\"{side}\">{name}</th>");
    }
    out += "</tr></thead>\n<tbody>\n";
    for report in &matrix.cells {
        let (verdict, rest) = parted(report.conclusion());
        let cell = report.cell;
        out += &format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td>",
            Escaped(&cell.kind.name()),
            cell.class,
            cell.servers.name(),
            Escaped(verdict),
            Escaped(rest)
        );
        let (took, p95) = (report.took(50), report.took(95));
        for number in [
            report.right().to_string(),
            report.wrong().to_string(),
            report.undecided().to_string(),
            round_trips(matrix, took),
            millis(took),
            round_trips(matrix, p95),
            millis(p95),
            report.packets().to_string(),
            size(report.bytes()),
        ] {
            out += &format!("<td class=\"right\">{number}</td>");
        }
        out += "</tr>\n";
    }
    out += "</tbody></table></div></details>\n</section>\n";
    out
}
