//! The reference of the kinds, written from the kinds themselves.

use serde_json::Value as Json;

use crate::step::Kind;

/// A kind's first sentence.
pub fn summary(kind: &Kind) -> String {
    let about = about(&(kind.settings)().to_value());
    about.split_once(". ").map_or(about.clone(), |(first, _)| format!("{first}.")).replace('\n', " ")
}

/// A kind's page, in Markdown.
pub fn page(kind: &Kind) -> String {
    let settings = (kind.settings)().to_value();
    let mut out = format!("## `{}`\n\n{}\n", kind.name, about(&settings));
    if kind.verifies {
        out += "\nIts success is a proof: it verifies.\n";
    }
    out += &table("Settings (`with.`)", &settings, true);
    out += &table("Outputs", &(kind.output)().to_value(), false);
    for example in kind.examples {
        let lines: String = example.lines().map(|line| format!("{line}\n")).collect();
        out += &format!("\n```toml\n[steps.example]\nuses = \"{}\"\n[steps.example.with]\n{lines}```\n", kind.name);
    }
    out
}

/// The whole reference, in Markdown.
pub fn reference() -> String {
    let mut out =
        String::from("# Kinds of steps\n\nWritten from the kinds by `UPDATE=1 cargo test`; `runsheet kinds NAME` prints the same.\n\n");
    for kind in crate::KINDS {
        out += &format!("- [`{}`](#{}): {}\n", kind.name, kind.name.replace('.', ""), summary(kind));
    }
    for kind in crate::KINDS {
        out += &format!("\n{}", page(kind));
    }
    out
}

fn about(schema: &Json) -> String {
    schema["description"].as_str().unwrap_or_default().to_owned()
}

fn table(title: &str, schema: &Json, settings: bool) -> String {
    let Some(properties) = schema["properties"].as_object().filter(|p| !p.is_empty()) else { return String::new() };
    let required = |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|r| r == name));
    let mut out = format!("\n{title}:\n\n| name | type | |\n|---|---|---|\n");
    for (name, property) in properties {
        let needed = if settings && required(name) { " **required**" } else { "" };
        let default = property.get("default").filter(|d| settings && !d.is_null()).map_or(String::new(), |d| format!(" Default: `{d}`."));
        out += &format!(
            "| `{name}` | {}{needed} | {}{default} |\n",
            kind_of(property, schema),
            about(property).replace('\n', " ").replace('|', "\\|")
        );
    }
    out
}

/// The type of a property, in a word or two.
fn kind_of(property: &Json, root: &Json) -> String {
    if let Some(format @ ("duration" | "size" | "expression" | "literal" | "password")) = property["format"].as_str() {
        return match format {
            "duration" => "length of time",
            "password" => "text, may be a secret",
            "literal" => "text, literal",
            other => other,
        }
        .to_owned();
    }
    if let Some(target) = property["$ref"].as_str().and_then(|r| r.strip_prefix('#')).and_then(|pointer| root.pointer(pointer)) {
        return kind_of(target, root);
    }
    if let Some(any) = property.get("anyOf").or_else(|| property.get("oneOf")).and_then(Json::as_array) {
        let mut kinds: Vec<String> = any.iter().filter(|one| one["type"] != "null").map(|one| kind_of(one, root)).collect();
        kinds.dedup();
        return kinds.join(" or ");
    }
    if let Some(value) = property.get("const") {
        return format!("`{value}`").replace('"', "");
    }
    if let Some(values) = property["enum"].as_array() {
        return values.iter().filter_map(Json::as_str).map(|v| format!("`{v}`")).collect::<Vec<_>>().join(" or ");
    }
    let word = |kind: &str| match kind {
        "string" => "text".to_owned(),
        "boolean" => "bool".to_owned(),
        "integer" => "whole number".to_owned(),
        "array" => format!("list of {}", property.get("items").map_or("anything".to_owned(), |items| kind_of(items, root))),
        "object" => "table".to_owned(),
        other => other.to_owned(),
    };
    match &property["type"] {
        Json::String(kind) => word(kind),
        Json::Array(kinds) => kinds.iter().filter_map(Json::as_str).filter(|k| *k != "null").map(word).collect::<Vec<_>>().join(" or "),
        _ => "anything".to_owned(),
    }
}
