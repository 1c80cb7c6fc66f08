//! The matrix as one page: HTML, CSS and SVG in one text that refers to nothing outside itself.
//!
//! Colour says how long a verdict took, and text says it as well. Every text is escaped.
//!
//! A good first change here: a link from each cell to its row in the table of numbers.

mod heat;
mod plot;
mod text;

use crate::matrix::Matrix;
use crate::summary::{Spread, Summary};
use portolan_core::Duration;
use text::{Escaped, millis, plural, round_trips};

const STYLE: &str = include_str!("style.css");

/// Lines of a transcript that are shown, number; ours: the page grows by some hundred bytes each.
pub const LINES_MAX: usize = 4_000;

/// One run, told in lines.
#[derive(Clone, Copy, Debug)]
pub struct Story<'a> {
    /// Which run it is, and whose transcript.
    pub title: &'a str,
    /// The command that prints the whole of it.
    pub command: &'a str,
    /// How it ended.
    pub outcome: &'a str,
    /// What the run is made of.
    pub scenario: &'a str,
    /// The transcript.
    pub lines: &'a [String],
}

/// The page. `command` is the one that makes it.
pub fn page(matrix: &Matrix, command: &str, story: &Story<'_>) -> String {
    let summary = matrix.summary();
    let mut page = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n");
    page += "<meta charset=\"utf-8\">\n";
    page += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n";
    page += "<meta name=\"color-scheme\" content=\"light dark\">\n";
    page += "<title>Portolan: the NAT matrix</title>\n";
    page += &format!("<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n");
    page += &beginning(matrix, command, &summary);
    page += &heat::section(matrix);
    page += &plot::section(matrix);
    page += &heat::numbers(matrix);
    page += &told(story);
    page += "</main>\n</body>\n</html>\n";
    page
}

/// What was measured, and what came out as a whole.
fn beginning(matrix: &Matrix, command: &str, summary: &Summary) -> String {
    let Summary { runs, right, wrong, transports, named_in } = summary;
    let undecided = runs.saturating_sub(right + wrong);
    let failed = if *wrong > 0 { " class=\"failed\"" } else { "" };
    let mut out = format!(
        "<header>\n<h1>What a node concludes behind every kind of network, and how fast</h1>\n\
         <p>{} cells, {} each, simulated: a round trip to every server takes {}, and {} % of packets \
         get lost. Every node runs Portolan’s core as it is.</p>\n\
         <p{failed}>{right} of {runs} runs came to the strongest conclusion that the evidence \
         permits, {wrong} to a false one, and {undecided} to a weaker one.</p>\n\
         <p class=\"soft\">This page was made by <code>{}</code></p>\n</header>\n",
        matrix.cells.len(),
        plural(matrix.runs(), "run"),
        millis(matrix.round_trip),
        f64::from(matrix.loss_ppm) / 10_000.0,
        Escaped(command),
    );
    out += "<section>\n<h2>As a whole</h2>\n<div class=\"wide\"><table class=\"numbers\">\n\
            <thead><tr><th scope=\"col\">from the first dial to the verdict</th>\
            <th scope=\"col\" class=\"right\">runs</th><th scope=\"col\" class=\"right\">median</th>\
            <th scope=\"col\" class=\"right\">95 of 100</th>\
            <th scope=\"col\" class=\"right\">slowest</th></tr></thead>\n<tbody>\n";
    for one in transports {
        let name = one.transport.name().to_uppercase();
        out += &row(matrix, &format!("{name}, every cell"), &one.all);
        out += &row(matrix, &format!("{name}, where no dial has to time out"), &one.prompt);
    }
    if let Some(named_in) = named_in {
        let name = "endpoint-dependent mapping named (from the second observation on)";
        out += &row(matrix, name, named_in);
    }
    out += "</tbody></table></div>\n</section>\n";
    out
}

fn row(matrix: &Matrix, name: &str, spread: &Spread) -> String {
    let Spread { runs, median, p95, max } = *spread;
    let cell = |span: Duration| {
        let rtt = round_trips(matrix, span);
        format!("<td class=\"right\">{rtt} <span class=\"soft\">{}</span></td>", millis(span))
    };
    format!(
        "<tr><th scope=\"row\">{}</th><td class=\"right\">{runs}</td>{}{}{}</tr>\n",
        Escaped(name),
        cell(median),
        cell(p95),
        cell(max)
    )
}

/// One run, and what it is made of.
fn told(story: &Story<'_>) -> String {
    let Story { title, command, outcome, scenario, lines } = story;
    let shown = &lines[..lines.len().min(LINES_MAX)];
    let mut out = format!(
        "<section>\n<h2>One run: {}</h2>\n<p>{}.</p>\n\
         <p class=\"soft\">Printed by <code>{}</code></p>\n",
        Escaped(title),
        Escaped(outcome),
        Escaped(command),
    );
    out += &format!(
        "<details><summary>The world of this run, as a scenario</summary>\n\
         <pre tabindex=\"0\">{}</pre></details>\n",
        Escaped(scenario)
    );
    out += &format!(
        "<details open><summary>The transcript, {}</summary>\n<pre tabindex=\"0\">",
        plural(lines.len(), "line")
    );
    for line in shown {
        out += &format!("{}\n", Escaped(line));
    }
    if shown.len() < lines.len() {
        let rest = plural(lines.len() - shown.len(), "line");
        out += &format!("… and {rest} more, which the command above prints\n");
    }
    out += "</pre></details>\n</section>\n";
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::{Conditions, Servers, measure};

    fn matrix() -> Matrix {
        let round_trip = Duration::from_millis(40);
        let conditions = Conditions { round_trip, loss_ppm: 0, runs: 2, jobs: 1 };
        measure(&conditions, &|cell| cell.servers == Servers::Single, &mut |_| ())
    }

    #[test]
    fn a_page_refers_to_nothing_outside_and_escapes_everything() {
        let matrix = matrix();
        let hostile = "<script>alert(\"1\" & '2')</script>".to_owned();
        let story = Story {
            title: &hostile,
            command: &hostile,
            outcome: &hostile,
            scenario: &hostile,
            lines: std::slice::from_ref(&hostile),
        };
        let page = page(&matrix, &hostile, &story);
        for outside in ["http:", "https:", "//", "src=", "href=", "url(", "@import", "<script"] {
            assert!(!page.contains(outside), "{outside}");
        }
        let escaped = "&lt;script&gt;alert(&quot;1&quot; &amp; &#39;2&#39;)&lt;/script&gt;";
        assert_eq!(page.matches(escaped).count(), 6);
        assert!(page.contains("prefers-color-scheme: dark"));
        assert_eq!(page.matches("<td class=\"cell").count(), matrix.cells.len());
    }

    #[test]
    fn a_long_transcript_is_cut_and_says_so() {
        let lines = vec!["a line".to_owned(); LINES_MAX + 5];
        let story = Story { title: "t", command: "c", outcome: "o", scenario: "s", lines: &lines };
        let told = told(&story);
        assert!(told.contains("… and 5 lines more"));
        assert_eq!(told.matches("a line").count(), LINES_MAX);
    }
}
