//! The kind's half of a step: rendering it by its schema, and what the schema says of each place. The same code renders
//! with sample values for `check` and with real ones for a run.

use std::ops::Range;

use minijinja::Value;
use serde_json::{Map, Value as Json};

use crate::{
    book::{Node, Tree, nearest},
    expression::{Expression, Reference, Template, Wrong, unknown},
};

/// Something wrong in settings: bytes of the playbook, what, and what to do.
pub type Complaint = (Range<usize>, String, Option<String>);

/// What the schema says of a place that matters to rendering.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A value; templates are rendered.
    Plain,
    /// A value that may hold a secret.
    Secret,
    /// An expression that the kind evaluates.
    Expression,
    /// A text without templates.
    Literal,
}

/// One part of a schema, with the whole for its `$ref`s.
#[derive(Clone, Copy)]
struct Schema<'s> {
    root: &'s Json,
    part: Option<&'s Json>,
}

impl<'s> Schema<'s> {
    fn of(root: &'s Json) -> Self {
        Self { root, part: Some(root) }
    }
    /// Follows `$ref`, and the one alternative of an `anyOf` that is not null.
    fn resolved(self) -> Self {
        let mut part = self.part;
        for _ in 0..8 {
            let Some(now) = part else { break };
            if let Some(name) = now.get("$ref").and_then(Json::as_str) {
                part = name.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            } else if let Some(any) = now.get("anyOf").and_then(Json::as_array) {
                let mut others = any.iter().filter(|one| one["type"] != "null");
                match (others.next(), others.next()) {
                    (Some(one), None) => part = Some(one),
                    _ => break,
                }
            } else {
                break;
            }
        }
        Self { part, ..self }
    }
    fn place(self) -> Place {
        let Some(part) = self.resolved().part else { return Place::Plain };
        match part.get("format").and_then(Json::as_str) {
            Some("password") => Place::Secret,
            Some("expression") => Place::Expression,
            Some("literal") => Place::Literal,
            _ => Place::Plain,
        }
    }
    fn properties(self) -> Option<&'s Map<String, Json>> {
        self.resolved().part?.get("properties")?.as_object()
    }
    fn closed(self) -> bool {
        self.resolved().part.is_some_and(|part| part.get("additionalProperties") == Some(&Json::Bool(false)))
    }
    fn key(self, name: &str) -> Self {
        let part = self.properties().and_then(|p| p.get(name));
        let part = part.or_else(|| self.resolved().part?.get("additionalProperties").filter(|p| p.is_object()));
        Self { part, ..self }
    }
    fn item(self) -> Self {
        Self { part: self.resolved().part.and_then(|part| part.get("items")), ..self }
    }
}

/// Settings with every template rendered.
pub struct Rendered {
    /// The value; a place whose value is not known yet holds null.
    pub value: Json,
    /// Whether anything was not known yet.
    pub unknown: bool,
}

/// Renders settings by their schema. Errors: the first complaint, at its place.
pub fn render(node: &Node, schema: &Json, names: &Value) -> Result<Rendered, Complaint> {
    let mut unknown = false;
    let value = render_part(node, Schema::of(schema), names, &mut unknown)?;
    Ok(Rendered { value: value.unwrap_or(Json::Null), unknown })
}

fn render_part(node: &Node, schema: Schema<'_>, names: &Value, unknown: &mut bool) -> Result<Option<Json>, Complaint> {
    match &node.value {
        Tree::Leaf(Json::String(text)) if Template::is_in(text) && matches!(schema.place(), Place::Plain | Place::Secret) => {
            let rendered = Template::parse(text).and_then(|template| template.render(names));
            match rendered.map_err(|wrong| complaint(node, wrong))? {
                // A whole expression that gives none leaves its key out.
                Some(Json::Null) => Ok(None),
                Some(value) => Ok(Some(value)),
                None => {
                    *unknown = true;
                    Ok(Some(Json::Null))
                }
            }
        }
        Tree::Leaf(value) => Ok(Some(value.clone())),
        Tree::List(items) => {
            let mut list = Vec::with_capacity(items.len());
            for item in items {
                list.extend(render_part(item, schema.item(), names, unknown)?);
            }
            Ok(Some(Json::Array(list)))
        }
        Tree::Table(entries) => {
            let mut table = Map::new();
            for (name, value) in entries {
                if let Some(value) = render_part(value, schema.key(&name.name), names, unknown)? {
                    table.insert(name.name.clone(), value);
                }
            }
            Ok(Some(Json::Object(table)))
        }
    }
}

fn complaint(node: &Node, wrong: Wrong) -> Complaint {
    (within(node, &wrong.at), wrong.says, None)
}

/// The bytes of a part of a string's value. Exact for a string on one line without escapes; else the whole string.
fn within(node: &Node, part: &Range<usize>) -> Range<usize> {
    let Tree::Leaf(Json::String(text)) = &node.value else { return node.at.clone() };
    if node.at.len() == text.len() + 2 { node.at.start + 1 + part.start..node.at.start + 1 + part.end } else { node.at.clone() }
}

/// A name that settings use.
pub struct Used {
    /// The name.
    pub reference: Reference,
    /// Bytes of the playbook.
    pub at: Range<usize>,
    /// Whether a secret may stand there.
    pub secret_place: bool,
    /// Whether it stands in an expression of the kind, which also knows `out`.
    pub expression: bool,
}

/// The names that settings use; what is wrong with them `check` has said.
pub fn references(node: &Node, schema: &Json) -> Vec<Reference> {
    used(node, schema, &mut Vec::new()).into_iter().map(|used| used.reference).collect()
}

/// Every name that settings use, and everything that is wrong with their templates and expressions.
pub fn used(node: &Node, schema: &Json, complaints: &mut Vec<Complaint>) -> Vec<Used> {
    let mut all = Vec::new();
    used_part(node, Schema::of(schema), &mut all, complaints);
    all
}

fn used_part(node: &Node, schema: Schema<'_>, all: &mut Vec<Used>, complaints: &mut Vec<Complaint>) {
    match &node.value {
        Tree::Leaf(Json::String(text)) => {
            let place = schema.place();
            let references = match place {
                Place::Expression => Expression::parse(text).map(|e| e.references),
                Place::Literal if Template::is_in(text) => {
                    let hint = "values reach it from outside: a script by `env`, a query by `params`";
                    complaints.push((
                        node.at.clone(),
                        "a template may not stand here: a value would become syntax".into(),
                        Some(hint.into()),
                    ));
                    return;
                }
                Place::Plain | Place::Secret if Template::is_in(text) => Template::parse(text).map(|t| t.references()),
                Place::Literal | Place::Plain | Place::Secret => return,
            };
            match references {
                Err(wrong) => complaints.push(complaint(node, wrong)),
                Ok(references) => all.extend(references.into_iter().map(|reference| Used {
                    at: within(node, &reference.at),
                    reference,
                    secret_place: place == Place::Secret,
                    expression: place == Place::Expression,
                })),
            }
        }
        Tree::Leaf(_) => {}
        Tree::List(items) => items.iter().for_each(|item| used_part(item, schema.item(), all, complaints)),
        Tree::Table(entries) => {
            entries.iter().for_each(|(name, value)| used_part(value, schema.key(&name.name), all, complaints));
        }
    }
}

/// Every setting that the schema does not know; they are taken out, so that what is left can be read.
pub fn unknown_settings(node: &Node, schema: &Json, of: &str, complaints: &mut Vec<Complaint>) -> Node {
    strip(node, Schema::of(schema), of, complaints)
}

fn strip(node: &Node, schema: Schema<'_>, of: &str, complaints: &mut Vec<Complaint>) -> Node {
    let value = match &node.value {
        Tree::Leaf(value) => Tree::Leaf(value.clone()),
        Tree::List(items) => Tree::List(items.iter().map(|item| strip(item, schema.item(), of, complaints)).collect()),
        Tree::Table(entries) => {
            let none = Map::new();
            let properties = schema.properties().unwrap_or(&none);
            let mut kept = Vec::with_capacity(entries.len());
            for (name, value) in entries {
                if schema.closed() && !properties.contains_key(&name.name) {
                    let near = nearest(&name.name, properties.keys().map(String::as_str)).map(|near| format!("did you mean `{near}`?"));
                    let list = || format!("it has: {}", properties.keys().map(String::as_str).collect::<Vec<_>>().join(", "));
                    complaints.push((name.at.clone(), format!("`{of}` has no setting `{}`", name.name), Some(near.unwrap_or_else(list))));
                } else {
                    kept.push((name.clone(), strip(value, schema.key(&name.name), of, complaints)));
                }
            }
            Tree::Table(kept)
        }
    };
    Node { at: node.at.clone(), value }
}

/// The place of a setting, as near as it was written, and whether a template stands on the way or below.
pub fn place_of(node: &Node, path: &[String]) -> (Range<usize>, bool) {
    let mut here = node;
    for key in path {
        let next = match &here.value {
            Tree::Table(entries) => entries.iter().find(|(name, _)| name.name == *key).map(|(_, value)| value),
            Tree::List(items) => key.parse::<usize>().ok().and_then(|at| items.get(at)),
            Tree::Leaf(_) => None,
        };
        match next {
            Some(next) => here = next,
            None => break,
        }
    }
    (here.at.clone(), has_template(here))
}

fn has_template(node: &Node) -> bool {
    match &node.value {
        Tree::Leaf(Json::String(text)) => Template::is_in(text),
        Tree::Leaf(_) => false,
        Tree::List(items) => items.iter().any(has_template),
        Tree::Table(entries) => entries.iter().any(|(_, value)| has_template(value)),
    }
}

/// A value such as a kind with this output schema might give, for `check`.
pub fn sample(schema: &Json) -> Value {
    sample_part(Schema::of(schema), 0)
}

fn sample_part(schema: Schema<'_>, depth: usize) -> Value {
    let schema = schema.resolved();
    let Some(part) = schema.part.filter(|_| depth < 8) else { return unknown() };
    let kind = match &part["type"] {
        Json::Array(kinds) => kinds.iter().find(|k| *k != "null").and_then(Json::as_str),
        kind => kind.as_str(),
    };
    match kind {
        Some("string") => Value::from("sample"),
        Some("integer") => Value::from(1),
        Some("number") => Value::from(1.0),
        Some("boolean") => Value::from(true),
        Some("array") => unknown(),
        Some("object") => match schema.properties() {
            Some(properties) => Value::from_pairs(properties.keys().map(|name| (name.clone(), sample_part(schema.key(name), depth + 1)))),
            None => unknown(),
        },
        _ => unknown(),
    }
}
