//! The JSON Schema of a playbook, with the settings of every kind, for editors: draft 07, which all of them know.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value as Json, json};

use crate::book::{HandlerHead, Head, Objectives, Param, SecretText, StepHead};

/// The schema.
pub fn schema() -> Json {
    let mut definitions = Map::new();
    let mut part = |name: &str, schema: Json| {
        let mut schema = schema;
        hoist(&mut schema, &mut definitions);
        definitions.insert(name.to_owned(), schema);
    };
    part("Head", of::<Head>());
    part("Param", of::<Param>());
    part("SecretText", of::<SecretText>());
    part("Objectives", of::<Objectives>());
    part("Handler", with_kinds(of::<HandlerHead>(), false));
    let mut step = with_kinds(of::<StepHead>(), true);
    for (name, about) in [("rollback", "The step that undoes this one."), ("probe", "The step that tells whether this one happened.")] {
        step["properties"][name] = json!({ "description": about, "allOf": [{ "$ref": "#/definitions/Handler" }] });
    }
    part("Step", step);
    let table = |of: &str, about: &str| json!({ "description": about, "type": "object", "additionalProperties": { "$ref": format!("#/definitions/{of}") } });
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Runsheet playbook",
        "type": "object",
        "required": ["runsheet", "playbook", "steps"],
        "additionalProperties": false,
        "properties": {
            "runsheet": { "description": "The version of the language.", "const": crate::book::LANGUAGE },
            "playbook": { "$ref": "#/definitions/Head" },
            "params": table("Param", "What a run has to be given."),
            "secrets": table("SecretText", "Where secrets come from."),
            "steps": table("Step", "The steps, by id."),
            "always": table("Step", "Steps that run whatever happened, after the rollback."),
            "outputs": { "description": "What the playbook gives, by name.", "type": "object" },
            "objectives": { "$ref": "#/definitions/Objectives" },
        },
        "definitions": definitions,
    })
}

fn of<T: schemars::JsonSchema>() -> Json {
    SchemaSettings::draft07().into_generator().into_root_schema_for::<T>().to_value()
}

/// Adds `with`, whose shape depends on `uses`.
fn with_kinds(mut schema: Json, playbooks: bool) -> Json {
    schema["properties"]["with"] = json!({ "description": "Settings of the kind, or params of the playbook.", "type": "object" });
    let names: Vec<Json> =
        steps::KINDS.iter().map(|kind| json!({ "const": kind.name, "description": steps::reference::summary(kind) })).collect();
    let mut uses = names;
    if playbooks {
        uses.push(json!({ "description": "A playbook of the library (a/b) or a file (./x.toml).", "type": "string", "pattern": "/" }));
    }
    schema["properties"]["uses"] = json!({ "description": "What the step does.", "anyOf": uses });
    let cases: Vec<Json> = steps::KINDS
        .iter()
        .map(|kind| {
            let mut settings = (kind.settings)().to_value();
            templated(&mut settings);
            json!({ "if": { "properties": { "uses": { "const": kind.name } } }, "then": { "properties": { "with": settings } } })
        })
        .collect();
    schema["allOf"] = Json::Array(cases);
    schema
}

/// A setting that is not text may also be one whole template.
fn templated(schema: &mut Json) {
    for key in ["$defs", "definitions"] {
        if let Some(definitions) = schema.get_mut(key).and_then(Json::as_object_mut) {
            definitions.values_mut().for_each(templated);
        }
    }
    let Some(properties) = schema.get_mut("properties").and_then(Json::as_object_mut) else { return };
    for property in properties.values_mut() {
        templated(property);
        if property["type"] != "string" {
            let was = property.take();
            let description = was.get("description").cloned().unwrap_or_default();
            *property = json!({ "description": description, "anyOf": [was, { "type": "string", "pattern": "^\\{\\{.*\\}\\}$" }] });
        }
    }
}

/// Moves definitions to the top, where their references look for them.
fn hoist(schema: &mut Json, to: &mut Map<String, Json>) {
    match schema {
        Json::Object(fields) => {
            fields.remove("$schema");
            for key in ["$defs", "definitions"] {
                if let Some(Json::Object(definitions)) = fields.remove(key) {
                    for (name, mut definition) in definitions {
                        hoist(&mut definition, to);
                        to.insert(name, definition);
                    }
                }
            }
            if let Some(Json::String(reference)) = fields.get_mut("$ref") {
                *reference = reference.replace("#/$defs/", "#/definitions/");
            }
            fields.values_mut().for_each(|field| hoist(field, to));
        }
        Json::Array(items) => items.iter_mut().for_each(|item| hoist(item, to)),
        _ => {}
    }
}
