//! TOML text → `Book`: what was written, with the place of everything. Unaware of what it means: ids are not resolved,
//! kinds not known, nothing is rendered.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value as Json;
use steps::{setting::Length, step::Effect};
use toml::{
    Spanned,
    de::{DeTable, DeValue, ValueDeserializer},
};

/// The version of the language that this runner reads.
pub const LANGUAGE: i64 = 1;

/// A text with the name by which people know it.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// Path or library name.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// Something wrong with a playbook, at its place.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The text it is in.
    pub source: Arc<Source>,
    /// Bytes of that text.
    pub at: Range<usize>,
    /// What is wrong.
    pub says: String,
    /// What to do.
    pub hint: Option<String>,
    /// Whether only `check --strict` refuses it.
    pub warning: bool,
}

/// A value as it was written, with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Bytes of the text.
    pub at: Range<usize>,
    /// The value.
    pub value: Tree,
}

/// A value whose parts have places.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    /// A string, number, bool or date.
    Leaf(Json),
    /// A list.
    List(Vec<Node>),
    /// A table, in the order of the text.
    Table(Vec<(Name, Node)>),
}

/// A key, with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Name {
    /// Bytes of the text.
    pub at: Range<usize>,
    /// The key.
    pub name: String,
}

/// What a playbook is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Makes backups.
    Backup,
    /// Verifies backups.
    Verification,
    /// Proves that a recovery would work.
    Drill,
    /// Recovers; it has to say `on_failure`.
    Recovery,
    /// Anything else.
    Maintenance,
}

/// What happens after a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Everything attempted is undone.
    #[default]
    Rollback,
    /// The run waits for a person's decision.
    Pause,
    /// Nothing more is started, nothing is undone.
    Stop,
}

/// What happens to a step of which nobody knows whether it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnUnknown {
    /// The step's `probe` tells.
    Probe,
    /// It runs again.
    Rerun,
    /// A person decides.
    Ask,
    /// It has failed.
    Fail,
}

/// `[playbook]`: what the playbook is, and how a run of it behaves.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// What people call it.
    pub title: String,
    /// What it does, when to use it, what it does not cover.
    pub about: Option<String>,
    /// The role that owns it.
    pub owner: Option<String>,
    /// What it is for.
    pub purpose: Option<Purpose>,
    /// Free labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What happens after a failure: `rollback` when not said; a recovery has to say it.
    pub on_failure: Option<OnFailure>,
    /// How many steps may run side by side; 4 when not said.
    #[schemars(with = "Option<u32>")]
    pub parallel: Option<Spanned<u32>>,
    /// The longest time for the whole run, before its rollback.
    pub timeout: Option<Length>,
    /// Runs that share a lock never overlap.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub locks: Vec<Spanned<String>>,
    /// How long to wait for the locks; refused at once when not said.
    pub lock_wait: Option<Length>,
}

/// The type of a param.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Type {
    /// Text.
    String,
    /// A whole number.
    Int,
    /// A number.
    Float,
    /// True or false.
    Bool,
    /// A length of time, `"90s"`; in expressions its seconds.
    Duration,
    /// A size, `"200GiB"`; in expressions its bytes.
    Size,
    /// A path; a relative one given on the command line starts where the command is typed.
    Path,
    /// A point in time with its zone; in expressions seconds of the epoch.
    Timestamp,
    /// One of `choices`.
    Choice,
    /// A list of texts.
    List,
    /// A secret of the playbook that uses this one.
    Secret,
}

/// `[params.NAME]`: what a run has to be given.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Param {
    /// The type of its values.
    #[serde(rename = "type")]
    pub kind: Type,
    /// What it is, for the person who has to give it.
    pub about: Option<String>,
    /// Whether it may be left out.
    #[serde(default)]
    pub optional: bool,
    /// The value when it is left out.
    #[schemars(with = "Option<Json>")]
    pub default: Option<Spanned<toml::Value>>,
    /// The values of a `choice`.
    #[serde(default)]
    pub choices: Vec<String>,
}

/// `[secrets.NAME]`: where a secret comes from.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretText {
    /// `env:NAME`, `file:PATH`, `command:PROGRAM ARGUMENT…` or `credential:NAME` (systemd).
    #[schemars(with = "String")]
    pub from: Spanned<String>,
}

/// `retry`: what is tried again, how often, how soon.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Attempts in all, the first one counted.
    pub attempts: u32,
    /// Time before the second attempt.
    #[serde(default = "one_second")]
    pub delay: Length,
    /// By how much each later delay grows.
    #[serde(default = "one")]
    pub factor: f64,
    /// The longest delay.
    pub max_delay: Option<Length>,
    /// Whether each delay is shortened by chance, by up to half.
    #[serde(default)]
    pub jitter: bool,
    /// What is worth another try: `passing`, `timeout`, `failed`, `exit:N`.
    #[schemars(with = "Option<Vec<String>>")]
    pub on: Option<Vec<Spanned<String>>>,
}

fn one_second() -> Length {
    Length(std::time::Duration::from_secs(1))
}

fn one() -> f64 {
    1.0
}

/// The engine's half of `[steps.ID]`; `with`, `rollback` and `probe` are beside it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepHead {
    /// A kind (`file.copy`), a library playbook (`a/b`) or a file (`./x.toml`).
    #[schemars(with = "String")]
    pub uses: Spanned<String>,
    /// What people read.
    pub title: Option<String>,
    /// Groups steps for people.
    pub stage: Option<String>,
    /// Steps that must have succeeded.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub needs: Vec<Spanned<String>>,
    /// Steps that must have settled.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub after: Vec<Spanned<String>>,
    /// An expression; the step is skipped when it is false.
    #[schemars(with = "Option<String>")]
    pub when: Option<Spanned<String>>,
    /// Expressions over `out`; the step has failed when one is false.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub expect: Vec<Spanned<String>>,
    /// A list, or an expression that gives one: the step runs for each item.
    #[schemars(with = "Option<Json>")]
    pub for_each: Option<Spanned<toml::Value>>,
    /// The name of the item in templates; `item` when not said.
    #[serde(rename = "as")]
    #[schemars(with = "Option<String>")]
    pub item: Option<Spanned<String>>,
    /// How many items run side by side.
    #[schemars(with = "Option<u32>")]
    pub parallel: Option<Spanned<u32>>,
    /// The longest time for one attempt.
    pub timeout: Option<Length>,
    /// The longest time for all attempts.
    pub deadline: Option<Length>,
    /// What is tried again.
    #[schemars(with = "Option<Retry>")]
    pub retry: Option<Spanned<Retry>>,
    /// Once it has succeeded, nothing before it is undone.
    #[schemars(with = "Option<bool>")]
    pub pivot: Option<Spanned<bool>>,
    /// What happens when nobody knows whether it happened.
    #[schemars(with = "Option<OnUnknown>")]
    pub on_unknown: Option<Spanned<OnUnknown>>,
    /// What a `command` or `shell` does to the world; `write` when not said.
    #[schemars(with = "Option<Effect>")]
    pub effect: Option<Spanned<Effect>>,
    /// Things, such as `path:/srv/drill`, that must be gone when the run has ended.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub creates: Vec<Spanned<String>>,
    /// How a person undoes the step.
    pub by_hand: Option<String>,
    /// Whether its success proves something.
    #[schemars(with = "Option<bool>")]
    pub verifies: Option<Spanned<bool>>,
}

/// The engine's half of a handler: `rollback` or `probe`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HandlerHead {
    /// A kind.
    #[schemars(with = "String")]
    pub uses: Spanned<String>,
    /// The longest time it may take.
    pub timeout: Option<Length>,
    /// Whether it may run again when the runner died in it: `rerun` or `ask`; as its kind says when not said.
    pub on_unknown: Option<OnUnknown>,
}

/// `objectives.rto`: how long the recovery may take.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rto {
    /// The longest time.
    pub limit: Length,
    /// An expression: when the incident began; the run's start when not said.
    #[schemars(with = "Option<String>")]
    pub from: Option<Spanned<String>>,
    /// `steps.ID`: the step at whose end the service is back.
    #[schemars(with = "String")]
    pub until: Spanned<String>,
}

/// `objectives.rpo`: how much data may be lost.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rpo {
    /// The longest time.
    pub limit: Length,
    /// An expression: when the newest recovered data were committed.
    #[schemars(with = "String")]
    pub recovered_to: Spanned<String>,
    /// An expression: when data were lost; the run's start when not said.
    #[schemars(with = "Option<String>")]
    pub lost_at: Option<Spanned<String>>,
}

/// `[objectives]`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Objectives {
    /// How long the recovery may take.
    pub rto: Option<Rto>,
    /// How much data may be lost.
    pub rpo: Option<Rpo>,
}

/// A handler as it was written.
#[derive(Debug)]
pub struct HandlerText {
    /// Where its table stands.
    pub at: Range<usize>,
    /// The engine's half.
    pub head: HandlerHead,
    /// The kind's half.
    pub with: Node,
}

/// A step as it was written.
#[derive(Debug)]
pub struct StepText {
    /// Its id, with its place.
    pub id: Name,
    /// The engine's half.
    pub head: StepHead,
    /// The kind's half.
    pub with: Node,
    /// The handler that undoes it.
    pub rollback: Option<Box<HandlerText>>,
    /// The handler that tells whether it happened.
    pub probe: Option<Box<HandlerText>>,
}

/// A playbook as it was written.
#[derive(Debug)]
pub struct Book {
    /// The text.
    pub source: Arc<Source>,
    /// `[playbook]`.
    pub head: Head,
    /// `[params.…]`.
    pub params: Vec<(Name, Param)>,
    /// `[secrets.…]`.
    pub secrets: Vec<(Name, SecretText)>,
    /// `[steps.…]`, in the order of the text.
    pub steps: Vec<StepText>,
    /// `[always.…]`, in the order of the text.
    pub always: Vec<StepText>,
    /// `[outputs]`.
    pub outputs: Vec<(Name, Node)>,
    /// `[objectives]`.
    pub objectives: Objectives,
}

const TOP: &[&str] = &["runsheet", "playbook", "params", "secrets", "steps", "always", "outputs", "objectives"];
const HEAD: &[&str] = &["title", "about", "owner", "purpose", "labels", "on_failure", "parallel", "timeout", "locks", "lock_wait"];
const STEP: &[&str] = &[
    "uses",
    "title",
    "stage",
    "needs",
    "after",
    "when",
    "expect",
    "for_each",
    "as",
    "parallel",
    "timeout",
    "deadline",
    "retry",
    "pivot",
    "on_unknown",
    "effect",
    "creates",
    "by_hand",
    "verifies",
    "with",
    "rollback",
    "probe",
];
const HANDLER: &[&str] = &["uses", "timeout", "on_unknown", "with"];
const PARAM: &[&str] = &["type", "about", "optional", "default", "choices"];

impl Book {
    /// Reads a playbook. What is wrong goes to `problems`; nothing comes back when the whole is not a playbook.
    pub fn read(source: Arc<Source>, problems: &mut Vec<Problem>) -> Option<Self> {
        Reader { source, problems }.book()
    }
}

type Table<'t> = toml::map::Map<Spanned<std::borrow::Cow<'t, str>>, Spanned<DeValue<'t>>>;

struct Reader<'p> {
    source: Arc<Source>,
    problems: &'p mut Vec<Problem>,
}

impl Reader<'_> {
    fn say(&mut self, at: Range<usize>, says: impl Into<String>, hint: Option<String>) {
        self.problems.push(Problem { source: self.source.clone(), at, says: says.into(), hint, warning: false });
    }

    fn book(mut self) -> Option<Book> {
        let source = self.source.clone();
        let newer = newer_than_1_0(&source.text);
        let (document, errors) = DeTable::parse_recoverable(&source.text);
        for e in &errors {
            self.say(e.span().unwrap_or(0..0), e.message(), None);
        }
        if !errors.is_empty() {
            return None;
        }
        for (at, what) in newer {
            self.say(at, format!("{what} is TOML 1.1"), Some("playbooks are TOML 1.0, so that every editor reads them".into()));
        }
        let mut top = document.into_inner();
        self.known(&mut top, TOP, "a playbook");
        match top.remove("runsheet") {
            None => {
                self.say(0..0, "`runsheet = 1` is missing", Some("the first line says the version of the language: runsheet = 1".into()))
            }
            Some(version) => self.version(&version),
        }
        let head = match top.remove("playbook") {
            None => {
                self.say(0..0, "`[playbook]` is missing", Some("add:\n[playbook]\ntitle = \"…\"".into()));
                None
            }
            Some(table) => self.read(table, HEAD, "[playbook]", &(0..0)),
        };
        let params = self.each(&mut top, "params", PARAM);
        let secrets = self.each(&mut top, "secrets", &["from"]);
        let steps = self.steps(&mut top, "steps");
        let always = self.steps(&mut top, "always");
        let outputs = match top.remove("outputs").map(node) {
            None => Vec::new(),
            Some(Node { value: Tree::Table(outputs), .. }) => outputs,
            Some(Node { at, .. }) => {
                self.say(at, "`outputs` is a table of names and values", None);
                Vec::new()
            }
        };
        let objectives = top.remove("objectives").and_then(|o| self.read(o, &["rto", "rpo"], "[objectives]", &(0..0))).unwrap_or_default();
        if steps.is_empty() && self.problems.is_empty() {
            self.say(
                0..0,
                "the playbook has no steps",
                Some("add a step:\n[steps.first]\nuses = \"command\"\nwith.argv = [\"true\"]".into()),
            );
        }
        Some(Book { source, head: head?, params, secrets, steps, always, outputs, objectives })
    }

    fn version(&mut self, version: &Spanned<DeValue<'_>>) {
        match version.get_ref().as_integer().and_then(|i| i.as_str().parse::<i64>().ok()) {
            Some(LANGUAGE) => {}
            Some(newer) if newer > LANGUAGE => self.say(
                version.span(),
                format!("this playbook is written in version {newer} of the language; this runsheet reads version {LANGUAGE}"),
                Some("use a newer runsheet".into()),
            ),
            _ => self.say(version.span(), "`runsheet` is the version of the language, a whole number", Some("write: runsheet = 1".into())),
        }
    }

    /// Says every unknown key and takes it out.
    fn known(&mut self, table: &mut Table<'_>, known: &[&str], of: &str) {
        let unknown: Vec<_> = table.keys().filter(|k| !known.contains(&k.get_ref().as_ref())).cloned().collect();
        for key in unknown {
            let name = key.get_ref().as_ref();
            let hint = match (of, name) {
                (_, "host") => Some("steps on other hosts come with a later version of runsheet; run it on this host".into()),
                _ => nearest(name, known.iter().copied()).map(|near| format!("did you mean `{near}`?")),
            };
            let hint = hint.or_else(|| Some(format!("{of} knows: {}", known.join(", "))));
            self.say(key.span(), format!("{of} has no key `{name}`"), hint);
            table.remove(name);
        }
    }

    fn read<T: DeserializeOwned>(&mut self, mut value: Spanned<DeValue<'_>>, known: &[&str], of: &str, or: &Range<usize>) -> Option<T> {
        let at = value.span();
        let DeValue::Table(table) = value.get_mut() else {
            self.say(at, format!("{of} is a table"), None);
            return None;
        };
        self.known(table, known, of);
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(read) => Some(read),
            Err(e) => {
                let at = e.span().filter(|at| !at.is_empty()).unwrap_or(if or.is_empty() { at } else { or.clone() });
                self.say(at, format!("{of}: {}", e.message()), None);
                None
            }
        }
    }

    /// The tables below `[section.…]`, in the order of the text.
    fn entries<'t>(&mut self, top: &mut Table<'t>, section: &str) -> Vec<(Name, Spanned<DeValue<'t>>)> {
        let mut entries = Vec::new();
        match top.remove(section).map(|s| (s.span(), s.into_inner())) {
            None => {}
            Some((_, DeValue::Table(table))) => {
                for (key, value) in table {
                    let name = Name { at: key.span(), name: key.into_inner().into_owned() };
                    if is_id(&name.name) {
                        entries.push((name, value));
                    } else {
                        let hint = "an id is small letters, digits and `_`, and begins with a letter: `check_health`";
                        self.say(name.at, format!("`{}` is not an id", name.name), Some(hint.into()));
                    }
                }
            }
            Some((at, _)) => self.say(at, format!("`{section}` is a table of tables: [{section}.name]"), None),
        }
        entries.sort_by_key(|(name, _)| name.at.start);
        entries
    }

    fn each<T: DeserializeOwned>(&mut self, top: &mut Table<'_>, section: &str, known: &[&str]) -> Vec<(Name, T)> {
        let entries = self.entries(top, section);
        let read = |(name, value): (Name, _)| {
            let of = format!("[{section}.{}]", name.name);
            self.read(value, known, &of, &name.at).map(|read| (name, read))
        };
        entries.into_iter().filter_map(read).collect()
    }

    fn steps(&mut self, top: &mut Table<'_>, section: &str) -> Vec<StepText> {
        let entries = self.entries(top, section);
        entries.into_iter().filter_map(|(id, value)| self.step(section, id, value)).collect()
    }

    fn step(&mut self, section: &str, id: Name, mut value: Spanned<DeValue<'_>>) -> Option<StepText> {
        let of = format!("[{section}.{}]", id.name);
        let (mut with, mut rollback, mut probe) = (empty(&id.at), None, None);
        if let DeValue::Table(keys) = value.get_mut() {
            self.known(keys, STEP, &of);
            with = keys.remove("with").map_or(with, node);
            rollback = keys.remove("rollback").and_then(|h| self.handler(h, &format!("[{section}.{}.rollback]", id.name)));
            probe = keys.remove("probe").and_then(|h| self.handler(h, &format!("[{section}.{}.probe]", id.name)));
        }
        let head = self.read(value, STEP, &of, &id.at)?;
        Some(StepText { id, head, with, rollback, probe })
    }

    fn handler(&mut self, mut value: Spanned<DeValue<'_>>, of: &str) -> Option<Box<HandlerText>> {
        let at = value.span();
        let mut with = empty(&at);
        if let DeValue::Table(keys) = value.get_mut() {
            with = keys.remove("with").map_or(with, node);
        }
        let head = self.read(value, HANDLER, of, &at)?;
        Some(Box::new(HandlerText { at, head, with }))
    }
}

fn empty(at: &Range<usize>) -> Node {
    Node { at: at.clone(), value: Tree::Table(Vec::new()) }
}

/// Whether a text may be an id: `[a-z][a-z0-9_]*`.
pub fn is_id(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// The name most like `name`, if one is near enough to be meant.
pub fn nearest<'n>(name: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let far = 1 + name.len() / 4;
    let distances = names.into_iter().map(|n| (strsim::damerau_levenshtein(n, name), n));
    distances.filter(|(distance, _)| *distance <= far).min().map(|(_, name)| name)
}

fn node(value: Spanned<DeValue<'_>>) -> Node {
    let at = value.span();
    let value = match value.into_inner() {
        DeValue::Array(items) => Tree::List(items.into_iter().map(node).collect()),
        DeValue::Table(table) => {
            let mut entries: Vec<_> =
                table.into_iter().map(|(key, value)| (Name { at: key.span(), name: key.into_inner().into_owned() }, node(value))).collect();
            entries.sort_by_key(|(name, _)| name.at.start);
            Tree::Table(entries)
        }
        DeValue::String(text) => Tree::Leaf(Json::String(text.into_owned())),
        DeValue::Boolean(b) => Tree::Leaf(Json::Bool(b)),
        DeValue::Integer(i) => Tree::Leaf(i64::from_str_radix(i.as_str(), i.radix()).map_or(Json::Null, Json::from)),
        DeValue::Float(f) => {
            Tree::Leaf(f.as_str().parse::<f64>().ok().and_then(serde_json::Number::from_f64).map_or(Json::Null, Json::Number))
        }
        DeValue::Datetime(at) => Tree::Leaf(Json::String(at.to_string())),
    };
    Node { at, value }
}

/// A TOML value as data; a date is its text.
pub fn json(value: &toml::Value) -> Json {
    match value {
        toml::Value::Datetime(at) => Json::String(at.to_string()),
        toml::Value::Array(items) => items.iter().map(json).collect(),
        toml::Value::Table(table) => Json::Object(table.iter().map(|(name, value)| (name.clone(), json(value))).collect()),
        plain => serde_json::to_value(plain).unwrap_or(Json::Null),
    }
}

/// Forms that only TOML 1.1 knows, with a name for each. The parser reads them; playbooks are TOML 1.0.
fn newer_than_1_0(text: &str) -> Vec<(Range<usize>, &'static str)> {
    use toml_parser::{
        Source,
        decoder::Encoding,
        parser::{Event, EventKind as K, parse_document},
    };
    // Each of these forms has one of these in it; a playbook of 100 000 plain steps is not read twice.
    if !text.contains(['{', '\\', ':']) {
        return Vec::new();
    }
    let tokens = Source::new(text).lex().into_vec();
    let mut events: Vec<Event> = Vec::new();
    parse_document(&tokens, &mut events, &mut ());
    let (mut open, mut comma, mut found) = (Vec::new(), None, Vec::new());
    for event in &events {
        let at = event.span().start()..event.span().end();
        let inline = open.last() == Some(&K::InlineTableOpen);
        let basic = matches!(event.encoding(), Some(Encoding::BasicString | Encoding::MlBasicString));
        match event.kind() {
            K::InlineTableOpen | K::ArrayOpen => open.push(event.kind()),
            K::InlineTableClose | K::ArrayClose => {
                if inline {
                    found.extend(comma.take().map(|c| (c, "a comma after the last key of an inline table")));
                }
                open.pop();
            }
            K::Newline | K::Comment if inline => found.push((at.clone(), "a line break in an inline table")),
            K::SimpleKey | K::Scalar if basic && escapes(&text[at.clone()]).any(|c| c == 'e' || c == 'x') => {
                found.push((at.clone(), "the escape \\e or \\x"));
            }
            K::Scalar if event.encoding().is_none() && short_time(&text[at.clone()]) => found.push((at.clone(), "a time without seconds")),
            _ => {}
        }
        match event.kind() {
            K::ValueSep => comma = Some(at),
            K::Whitespace | K::Newline | K::Comment => {}
            _ => comma = None,
        }
    }
    found
}

fn escapes(raw: &str) -> impl Iterator<Item = char> {
    let mut chars = raw.chars();
    std::iter::from_fn(move || {
        while chars.next()? != '\\' {}
        chars.next()
    })
}

fn short_time(raw: &str) -> bool {
    raw.find(':').is_some_and(|colon| raw.as_bytes().get(colon + 3) != Some(&b':'))
}
