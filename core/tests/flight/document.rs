//! `docs/flight-record.md` says what the code does: a number that changed in one of them alone
//! fails here, and so do the examples.

use crate::round_trip::read;
use crate::values;
use portolan_core::flight::{Head, Step, Writer};
use portolan_core::{Config, Event, Instant, UnixTime};
use std::collections::BTreeSet;

const DOCUMENT: &str = include_str!("../../../docs/flight-record.md");
const VALUES: &str = include_str!("../../src/flight/proto/values.rs");
const ACTION: &str = include_str!("../../src/flight/proto/action.rs");
const MAPPING: &str = include_str!("../../src/flight/proto/mapping.rs");
const RELAY: &str = include_str!("../../src/flight/proto/relay.rs");
const PUNCH: &str = include_str!("../../src/flight/proto/punch.rs");
const CODE: [&str; 7] = [
    VALUES,
    ACTION,
    MAPPING,
    RELAY,
    PUNCH,
    include_str!("../../src/flight/proto/head.rs"),
    include_str!("../../src/flight/proto/step.rs"),
];

/// A field as protobuf has it, after the name of its message.
type Field = (String, String);

fn snake(name: &str) -> String {
    let mut out = String::new();
    for (at, c) in name.char_indices() {
        if c.is_uppercase() && at > 0 {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// The fields in the document. A message may always be absent on the wire, so that `optional`
/// says something to the reader only.
fn documented() -> BTreeSet<Field> {
    let mut fields = BTreeSet::new();
    for block in DOCUMENT.split("```proto\n").skip(1) {
        let block = block.split("```").next().expect("a block ends");
        let mut message = "";
        for line in block.lines() {
            let line = line.split("//").next().expect("there is always a first part").trim();
            if let Some(rest) = line.strip_prefix("message ") {
                message = rest.trim_end_matches('{').trim();
            } else if let Some(field) = line.strip_suffix(';') {
                let words: Vec<&str> = field.split_whitespace().collect();
                let is_message = words.iter().rev().nth(3).is_some_and(|kind| is_message(kind));
                let label = |word: &&&str| !(is_message && **word == "optional");
                let field: Vec<&str> = words.iter().filter(label).copied().collect();
                fields.insert((message.to_owned(), field.join(" ")));
            }
        }
    }
    fields
}

fn is_message(kind: &str) -> bool {
    kind.starts_with(char::is_uppercase)
}

/// The fields in the code: an attribute, and the line below it.
fn coded() -> BTreeSet<Field> {
    let mut fields = BTreeSet::new();
    let mut message = String::new();
    for code in CODE {
        let mut lines = code.lines().map(str::trim);
        while let Some(line) = lines.next() {
            if let Some(name) = line.strip_prefix("/// `portolan.flight.") {
                message = name.split(['`', '.']).next().expect("a name").to_owned();
            }
            let Some(attribute) = line.strip_prefix("#[prost(") else { continue };
            // A long one has its words on lines of its own.
            if attribute.is_empty() || attribute.starts_with("oneof") {
                continue;
            }
            let declared = lines.next().expect("a field follows its attribute");
            fields.insert((message.clone(), field(attribute, declared)));
        }
    }
    fields
}

fn field(attribute: &str, declared: &str) -> String {
    let words: Vec<&str> = attribute.split([',', ' ', '(', ')', '=', '"', ']']).collect();
    let has = |word: &str| words.contains(&word);
    let number = words.iter().find(|word| word.parse::<u32>().is_ok()).expect("a number");
    let declared = declared.trim_end_matches(',').rsplit("pub(in crate::flight) ").next();
    let declared = declared.expect("there is always a last part");
    let (name, held) = match declared.split_once(": ") {
        Some((name, held)) => (name.to_owned(), held),
        None => {
            let (name, held) = declared.split_once('(').expect("a variant with one field");
            (snake(name), held.strip_suffix(')').expect("a variant with one field"))
        }
    };
    let held = ["Option<", "Vec<", "Box<"]
        .iter()
        .fold(held, |held, around| held.trim_start_matches(around));
    let held = held.trim_end_matches('>');
    let kind = match (has("message"), held) {
        (true, "()") => "Empty",
        (true, held) => held.strip_suffix("Message").unwrap_or(held),
        (false, _) => words[0],
    };
    let label = match (has("repeated"), has("optional") && !has("message")) {
        (true, _) => "repeated ",
        (_, true) => "optional ",
        (false, false) => "",
    };
    format!("{label}{kind} {name} = {number}")
}

#[test]
fn every_field_is_documented_as_it_is() {
    let (documented, coded) = (documented(), coded());
    let missing: Vec<&Field> = coded.difference(&documented).collect();
    let invented: Vec<&Field> = documented.difference(&coded).collect();
    assert!(missing.is_empty() && invented.is_empty(), "{missing:#?} is said to be {invented:#?}");
    assert!(coded.len() > 90, "only {} fields were found", coded.len());
}

/// The numbers in the table of the document: the name, and each number with what it stands for.
fn documented_numbers() -> BTreeSet<(String, String)> {
    let rows = DOCUMENT.lines().skip_while(|line| !line.starts_with("## Numbers"));
    let rows =
        rows.filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "));
    let numbers = rows.filter(|(name, _)| *name != "name").flat_map(|(name, numbers)| {
        numbers.split(", ").map(move |number| (name.to_owned(), number.to_owned()))
    });
    numbers.collect()
}

fn coded_numbers() -> BTreeSet<(String, String)> {
    let mut numbers = BTreeSet::new();
    let table = VALUES.split("\nnumbers! {").nth(1).expect("a table").split("\n}").next();
    let mut name = "";
    for line in table.expect("the table ends").lines().map(str::trim) {
        if let Some(of) = line.strip_suffix(" {") {
            name = of;
        } else if let Some((variant, number)) = line.trim_end_matches(',').split_once(" = ") {
            numbers.insert((name.to_owned(), format!("{number} {variant}")));
        }
    }
    // Reasons and notices have content; their number follows where they are taken apart.
    let taken_apart = [
        ("Reason", ACTION),
        ("Notice", ACTION),
        ("MappingReason", MAPPING),
        ("CircuitFailure", RELAY),
        ("RelayFailure", RELAY),
    ];
    for (name, code) in taken_apart {
        for arm in code.split(&format!(" {name}::")).skip(1) {
            let variant = arm.split(|c: char| !c.is_alphanumeric()).next().expect("a name");
            let calls = ["of(", "told("].into_iter().flat_map(|call| arm.match_indices(call));
            let mut calls: Vec<_> = calls.map(|(at, call)| (at, &arm[at + call.len()..])).collect();
            calls.sort_unstable();
            let number = |(_, rest): (usize, &str)| {
                let number = rest.split([')', ',']).next()?;
                number.parse::<u32>().ok()
            };
            let number = calls.into_iter().find_map(number);
            let number = number.expect("a number follows");
            numbers.insert((name.to_owned(), format!("{number} {variant}")));
        }
    }
    numbers
}

#[test]
fn every_number_is_documented_as_it_is() {
    let (documented, coded) = (documented_numbers(), coded_numbers());
    let missing: Vec<_> = coded.difference(&documented).collect();
    let invented: Vec<_> = documented.difference(&coded).collect();
    assert!(missing.is_empty() && invented.is_empty(), "{missing:#?} is said to be {invented:#?}");
    assert!(coded.len() > 100, "only {} numbers were found", coded.len());
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The document without spaces, to find bytes in it.
fn dense() -> String {
    DOCUMENT.split_whitespace().collect()
}

#[test]
fn the_idle_tick_is_the_one_in_the_document() {
    let head = Head {
        software: String::new(),
        config: Config::default(),
        identity: values::key(1).public(),
        part: 0,
        now: Instant::from_millis(500),
        unix: UnixTime::from_millis(9),
        checkpoint: None,
    };
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&head, &mut bytes);
    let begins = bytes.len();
    let step = Step {
        now: Instant::from_millis(2_500),
        unix: UnixTime::from_millis(2_009),
        event: Event::Tick,
        drawn: Vec::new(),
        signatures: Vec::new(),
        digest: 0,
    };
    writer.step(&step, &mut bytes);
    assert_eq!(read(&bytes).1, [step]);
    assert_eq!(bytes.len() - begins, 16);
    let shown = hex(&bytes[begins..]);
    assert!(dense().contains(&shown), "the document does not show {shown}");
}
