//! Params: from what was typed or written to a value of the declared type, and a sample of each type for `check`.

use minijinja::Value;
use serde_json::{Value as Json, json};
use steps::setting::{Length, Size};

use crate::{
    book::{Param, Type},
    expression,
};

/// A value of the declared type: sizes become bytes, durations seconds, timestamps seconds of the epoch.
/// Errors: in words, what is wanted.
pub fn coerce(param: &Param, value: &Json) -> Result<Json, String> {
    let wanted = |what: &str| format!("{} is not {what}", shown(value));
    let text = value.as_str();
    match param.kind {
        Type::String | Type::Path | Type::Secret => text.map(|t| json!(t)).ok_or_else(|| wanted("a text")),
        Type::Int => match (value.as_i64(), text) {
            (Some(n), _) => Ok(json!(n)),
            (None, Some(t)) => t.parse::<i64>().map(|n| json!(n)).map_err(|_| wanted("a whole number")),
            _ => Err(wanted("a whole number")),
        },
        Type::Float => match (value.as_f64(), text) {
            (Some(n), _) => Ok(json!(n)),
            (None, Some(t)) => t.parse::<f64>().ok().filter(|n| n.is_finite()).map(|n| json!(n)).ok_or_else(|| wanted("a number")),
            _ => Err(wanted("a number")),
        },
        Type::Bool => match (value, text) {
            (Json::Bool(b), _) => Ok(json!(b)),
            (_, Some("true")) => Ok(json!(true)),
            (_, Some("false")) => Ok(json!(false)),
            _ => Err(wanted("true or false")),
        },
        Type::Duration => match (value.as_f64(), text) {
            (Some(seconds), _) if seconds >= 0.0 => Ok(json!(seconds)),
            (_, Some(t)) => Length::parse(t).map(|l| json!(l.0.as_secs_f64())),
            _ => Err(wanted("a length of time such as \"10m\"")),
        },
        Type::Size => match (value.as_u64(), text) {
            (Some(bytes), _) => Ok(json!(bytes)),
            (_, Some(t)) => Size::parse(t).map(|s| json!(s.0)),
            _ => Err(wanted("a size such as \"200GiB\"")),
        },
        Type::Timestamp => match (value.as_f64(), text) {
            (Some(seconds), _) => Ok(json!(seconds)),
            (_, Some(t)) => timestamp(t).map(|s| json!(s)),
            _ => Err(wanted("a timestamp")),
        },
        Type::Choice => match text {
            Some(t) if param.choices.iter().any(|c| c == t) => Ok(json!(t)),
            _ => Err(wanted(&format!("one of {}", param.choices.join(", ")))),
        },
        Type::List => match (value, text) {
            (Json::Array(_), _) => Ok(value.clone()),
            (_, Some(t)) => Ok(t.split(',').map(str::trim).filter(|item| !item.is_empty()).collect()),
            _ => Err(wanted("a list")),
        },
    }
}

fn shown(value: &Json) -> String {
    value.as_str().map_or_else(|| format!("`{value}`"), |text| format!("`{text}`"))
}

/// Seconds of the epoch. Errors: no zone, or no timestamp.
fn timestamp(text: &str) -> Result<f64, String> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(at.as_microsecond() as f64 / 1e6);
    }
    if let Ok(at) = text.parse::<jiff::Zoned>() {
        return Ok(at.timestamp().as_microsecond() as f64 / 1e6);
    }
    if text.parse::<jiff::civil::DateTime>().is_ok() {
        return Err(format!("`{text}` has no zone: write {text}Z for UTC, or {text}+02:00"));
    }
    Err(format!("`{text}` is not a timestamp; write it as 2026-11-23T03:00:00Z"))
}

/// A value such as a run might be given, for `check`.
pub fn sample(param: &Param) -> Value {
    if let Some(Ok(value)) = param.default.as_ref().map(|default| coerce(param, &crate::book::json(default.get_ref()))) {
        return expression::value(value);
    }
    match param.kind {
        Type::String | Type::Secret => Value::from("sample"),
        Type::Path => Value::from("/sample"),
        Type::Int => Value::from(1),
        Type::Float | Type::Duration | Type::Timestamp => Value::from(1.0),
        Type::Size => Value::from(1_u64 << 30),
        Type::Bool => Value::from(true),
        Type::Choice => param.choices.first().map_or_else(expression::unknown, |choice| Value::from(choice.as_str())),
        Type::List => Value::from(vec!["sample"]),
    }
}

/// The schema of the settings of a step that uses a playbook with these params.
pub fn schema<'p>(params: impl IntoIterator<Item = (&'p str, &'p Param)>) -> Json {
    let (mut properties, mut required) = (serde_json::Map::new(), Vec::new());
    for (name, param) in params {
        let kinds = match param.kind {
            Type::String | Type::Path => json!({ "type": "string" }),
            Type::Secret => json!({ "type": "string", "format": "password", "writeOnly": true }),
            Type::Int => json!({ "type": "integer" }),
            Type::Float => json!({ "type": "number" }),
            Type::Bool => json!({ "type": "boolean" }),
            Type::Duration => json!({ "type": ["string", "number"] }),
            Type::Size => json!({ "type": ["string", "integer"] }),
            Type::Timestamp => json!({ "type": ["string", "number"] }),
            Type::Choice => json!({ "type": "string", "enum": param.choices }),
            Type::List => json!({ "type": "array" }),
        };
        properties.insert(name.to_owned(), kinds);
        if !param.optional && param.default.is_none() {
            required.push(name.to_owned());
        }
    }
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_becomes_what_is_meant() {
        let param = |kind: &str| -> Param { toml::from_str(&format!("type = \"{kind}\"\nchoices = [\"a\", \"b\"]")).unwrap() };
        for (kind, typed, wanted) in [
            ("int", json!("42"), Ok(json!(42))),
            ("int", json!("4.2"), Err("whole number")),
            ("bool", json!("true"), Ok(json!(true))),
            ("bool", json!("yes"), Err("true or false")),
            ("size", json!("2KiB"), Ok(json!(2048))),
            ("size", json!("two"), Err("not a size")),
            ("duration", json!("1h30m"), Ok(json!(5400.0))),
            ("duration", json!("1d"), Ok(json!(86400.0))),
            ("duration", json!("soon"), Err("not a length of time")),
            ("timestamp", json!("1970-01-01T01:00:00+01:00"), Ok(json!(0.0))),
            ("timestamp", json!("2026-11-23T03:00:00"), Err("has no zone")),
            ("choice", json!("c"), Err("one of a, b")),
            ("list", json!("x, y"), Ok(json!(["x", "y"]))),
        ] {
            match (coerce(&param(kind), &typed), wanted) {
                (Ok(got), Ok(wanted)) => assert_eq!(got, wanted, "{kind} {typed}"),
                (Err(says), Err(wanted)) => assert!(says.contains(wanted), "{kind} {typed}: {says}"),
                (got, wanted) => panic!("{kind} {typed}: {got:?}, wanted {wanted:?}"),
            }
        }
    }
}
