//! As much of JSON Schema as `docs/report.schema.json` uses. A keyword that is not known here is
//! an error, so that the schema cannot demand what is not checked.

use serde_json::{Map, Value};

/// The documented form of the report.
pub(crate) fn report_schema() -> Value {
    let text = include_str!("../../../docs/report.schema.json");
    serde_json::from_str(text).expect("the schema is JSON")
}

/// Every way in which `document` is not of the form that `schema` describes.
pub(crate) fn problems(schema: &Value, document: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    Check { root: schema, problems: &mut problems }.value("$", schema, document);
    problems
}

/// Fails unless `document` has the documented form of the report.
#[track_caller]
pub(crate) fn assert_report(document: &Value) {
    let problems = problems(&report_schema(), document);
    assert!(problems.is_empty(), "{problems:#?}\n{document:#}");
}

struct Check<'a> {
    root: &'a Value,
    problems: &'a mut Vec<String>,
}

impl Check<'_> {
    fn value(&mut self, path: &str, schema: &Value, value: &Value) {
        let Some(keywords) = schema.as_object() else {
            return self.say(path, "its schema is not an object");
        };
        for (keyword, wanted) in keywords {
            match keyword.as_str() {
                "$schema" | "title" | "$defs" => {}
                "$ref" => self.reference(path, wanted, value),
                "type" => self.kind(path, wanted, value),
                "enum" => self.one_of(path, wanted, value),
                "minimum" => self.minimum(path, wanted, value),
                "required" => self.required(path, wanted, value),
                "properties" => self.properties(path, wanted, value),
                "additionalProperties" => self.additional(path, keywords, value),
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.value(&format!("{path}[{index}]"), wanted, item);
                    }
                }
                unknown => self.say(path, &format!("the keyword {unknown:?} is not checked")),
            }
        }
    }

    fn say(&mut self, path: &str, problem: &str) {
        self.problems.push(format!("{path}: {problem}"));
    }

    fn reference(&mut self, path: &str, wanted: &Value, value: &Value) {
        let pointer = wanted.as_str().and_then(|text| text.strip_prefix('#'));
        match pointer.and_then(|pointer| self.root.pointer(pointer)) {
            Some(schema) => self.value(path, schema, value),
            None => self.say(path, &format!("nothing is at {wanted}")),
        }
    }

    fn kind(&mut self, path: &str, wanted: &Value, value: &Value) {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let fits = wanted
            .as_array()
            .map_or_else(|| wanted == kind, |kinds| kinds.iter().any(|wanted| wanted == kind));
        if !fits {
            self.say(path, &format!("is of type {kind}, not {wanted}"));
        }
    }

    fn one_of(&mut self, path: &str, wanted: &Value, value: &Value) {
        if !wanted.as_array().is_some_and(|all| all.contains(value)) {
            self.say(path, &format!("{value} is none of {wanted}"));
        }
    }

    fn minimum(&mut self, path: &str, wanted: &Value, value: &Value) {
        if value.as_i64().is_some_and(|number| Some(number) < wanted.as_i64()) {
            self.say(path, &format!("{value} is below {wanted}"));
        }
    }

    fn required(&mut self, path: &str, wanted: &Value, value: &Value) {
        for name in wanted.as_array().into_iter().flatten().filter_map(Value::as_str) {
            if value.is_object() && value.get(name).is_none() {
                self.say(path, &format!("{name:?} is missing"));
            }
        }
    }

    fn properties(&mut self, path: &str, wanted: &Value, value: &Value) {
        for (name, schema) in wanted.as_object().into_iter().flatten() {
            if let Some(value) = value.get(name) {
                self.value(&format!("{path}.{name}"), schema, value);
            }
        }
    }

    /// The schema knows `"additionalProperties": false` alone: nothing beside what is named.
    fn additional(&mut self, path: &str, keywords: &Map<String, Value>, value: &Value) {
        if keywords.get("additionalProperties") != Some(&Value::Bool(false)) {
            return self.say(path, "`additionalProperties` can only be false");
        }
        let named = keywords.get("properties").and_then(Value::as_object);
        for name in value.as_object().into_iter().flatten().map(|(name, _)| name) {
            if !named.is_some_and(|named| named.contains_key(name)) {
                self.say(path, &format!("{name:?} is not documented"));
            }
        }
    }
}
