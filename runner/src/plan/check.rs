//! Every check of a playbook. Problems are collected, never thrown: a person wants all of them at once.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
    sync::Arc,
};

use minijinja::Value;
use petgraph::{algo, graph::DiGraph};
use serde_json::{Value as Json, json};
use steps::step::{Effect, Reversal, Tool};

use super::{Action, Each, Facets, Facts, KINDS, Plan, RetryOn, Sources, Step, Uses, param, settings};
use crate::{
    book::{Book, HandlerText, Node, OnUnknown, Problem, Purpose, StepText, Tree, Type, nearest},
    expression::{self, Expression, Reference, Wrong},
};

/// Plans the playbook with the key `root`. A plan comes back only when nothing is wrong beyond warnings.
pub fn plan(sources: &Sources, root: &str) -> (Option<Arc<Plan>>, Vec<Problem>) {
    let mut planner = Planner { sources, plans: HashMap::new(), open: Vec::new(), problems: Vec::new() };
    let plan = planner.plan(root);
    let mut problems = planner.problems;
    problems.sort_by_key(|p| (p.source.name.clone(), p.at.start));
    let good = problems.iter().all(|p| p.warning);
    (plan.filter(|_| good), problems)
}

struct Planner<'s> {
    sources: &'s Sources,
    plans: HashMap<String, Option<Arc<Plan>>>,
    open: Vec<String>,
    problems: Vec<Problem>,
}

impl Planner<'_> {
    fn plan(&mut self, key: &str) -> Option<Arc<Plan>> {
        if let Some(plan) = self.plans.get(key) {
            return plan.clone();
        }
        let source = self.sources.0.get(key)?.clone();
        self.open.push(key.to_owned());
        let plan = Book::read(source, &mut self.problems).and_then(|book| self.check(key, book)).map(Arc::new);
        self.open.pop();
        self.plans.insert(key.to_owned(), plan.clone());
        plan
    }

    fn check(&mut self, key: &str, book: Book) -> Option<Plan> {
        let mut actions = Vec::new();
        for text in book.steps.iter().chain(&book.always) {
            actions.push(self.action(key, &book, text));
        }
        let checker = Checker::new(&book, &actions);
        let (steps, order, problems) = checker.steps();
        self.problems.extend(problems);
        let params = param::schema(book.params.iter().map(|(name, param)| (name.name.as_str(), param)));
        let forward = book.steps.len();
        let plan = Plan { key: key.to_owned(), steps: steps?, forward, order: order?, params, book };
        if plan.book.head.purpose == Some(Purpose::Drill) && !plan.verifies() {
            let hint =
                "add a verification such as `sqlite.integrity` or `file.verify`, or say `verifies = true` on the step that proves it";
            self.problems.push(plan.problem(
                0..0,
                "this drill verifies nothing: it could never fail for the right reason".into(),
                Some(hint.into()),
            ));
        }
        Some(plan)
    }

    fn action(&mut self, key: &str, book: &Book, text: &StepText) -> Option<Action> {
        let uses = &text.head.uses;
        let mut say = |says: String, hint: Option<String>| {
            self.problems.push(Problem { source: book.source.clone(), at: uses.span(), says, hint, warning: false });
        };
        match Sources::resolve(key, uses.get_ref()) {
            Uses::Kind(name) => {
                let found = KINDS.get(name.as_str());
                if found.is_none() {
                    let near = nearest(&name, KINDS.keys().copied()).map(|near| format!("did you mean `{near}`?"));
                    say(format!("there is no kind `{name}`"), Some(near.unwrap_or_else(|| "`runsheet kinds` lists them".into())));
                }
                found.map(Action::Kind)
            }
            Uses::Playbook(used) if self.open.contains(&used) => {
                let path: Vec<&str> =
                    self.open.iter().skip_while(|open| **open != used).map(String::as_str).chain([used.as_str()]).collect();
                say(format!("this playbook uses itself: {}", path.join(" → ")), None);
                None
            }
            Uses::Playbook(used) if !self.sources.0.contains_key(&used) => {
                match used.strip_prefix("library:") {
                    Some(name) => {
                        let near =
                            nearest(name, playbooks::LIBRARY.iter().map(|(name, _)| *name)).map(|near| format!("did you mean `{near}`?"));
                        say(
                            format!("the library has no playbook `{name}`"),
                            Some(near.unwrap_or_else(|| "`runsheet library` lists them".into())),
                        );
                    }
                    None => say(format!("there is no file {used}"), Some("the path starts at the folder of this playbook".into())),
                }
                None
            }
            Uses::Playbook(used) => self.plan(&used).map(Action::Playbook),
        }
    }
}

/// Where a name stands, which decides what it may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// `locks`: before the run.
    Lock,
    /// `when`, `for_each`: before the step.
    Before,
    /// `with`.
    Settings,
    /// `expect`, `until`: also `out`.
    After,
    /// `rollback`, `probe`: also `before`; the step's own outputs need a `default`.
    Handler,
    /// `outputs`, `objectives`: after all steps.
    End,
}

struct Checker<'b> {
    book: &'b Book,
    texts: Vec<&'b StepText>,
    actions: &'b [Option<Action>],
    ids: HashMap<&'b str, usize>,
    always: HashMap<&'b str, usize>,
    params: Value,
    secrets: Value,
    samples: HashMap<*const Facets, Value>,
    problems: Vec<Problem>,
}

/// What a step waits for, as found while checking it.
#[derive(Default)]
struct Edges {
    needs: Vec<usize>,
    after: Vec<usize>,
    reads: Vec<usize>,
}

impl<'b> Checker<'b> {
    fn new(book: &'b Book, actions: &'b [Option<Action>]) -> Self {
        let index = |steps: &'b [StepText], from: usize| steps.iter().enumerate().map(|(i, s)| (s.id.name.as_str(), i + from)).collect();
        Self {
            book,
            texts: book.steps.iter().chain(&book.always).collect(),
            actions,
            ids: index(&book.steps, 0),
            always: index(&book.always, book.steps.len()),
            params: Value::from_pairs(book.params.iter().map(|(name, param)| (name.name.clone(), param::sample(param)))),
            secrets: Value::from_pairs(book.secrets.iter().map(|(name, _)| (name.name.clone(), "sample"))),
            samples: HashMap::new(),
            problems: Vec::new(),
        }
    }

    fn say(&mut self, at: Range<usize>, says: impl Into<String>, hint: impl Into<Option<String>>) {
        self.problems.push(Problem { source: self.book.source.clone(), at, says: says.into(), hint: hint.into(), warning: false });
    }

    fn warn(&mut self, at: Range<usize>, says: impl Into<String>, hint: &str) {
        let hint = Some(hint.to_owned());
        self.problems.push(Problem { source: self.book.source.clone(), at, says: says.into(), hint, warning: true });
    }

    fn steps(mut self) -> (Option<Vec<Step>>, Option<Vec<usize>>, Vec<Problem>) {
        self.head();
        let (mut steps, mut whole) = (Vec::with_capacity(self.texts.len()), true);
        for at in 0..self.texts.len() {
            match self.step(at) {
                Some(step) => steps.push(step),
                None => whole = false,
            }
        }
        for (name, node) in &self.book.outputs {
            let mut edges = Edges::default();
            self.values(node, &json!({}), Scope::End, None, &mut edges, &format!("outputs.{}", name.name));
        }
        self.objectives();
        if !whole {
            return (None, None, self.problems);
        }
        let order = self.order(&steps);
        for at in 0..steps.len() {
            let needed: Vec<usize> = steps[at].needs.iter().chain(&steps[at].after).copied().collect();
            needed.into_iter().for_each(|on| steps[on].dependents.push(at));
        }
        (Some(steps), order, self.problems)
    }

    fn head(&mut self) {
        let book = self.book;
        if book.head.purpose == Some(Purpose::Recovery) && book.head.on_failure.is_none() {
            let hint = "add `on_failure = \"pause\"` (a person decides), \"rollback\" or \"stop\" to [playbook]".to_owned();
            self.say(0..0, "a recovery has to say what happens after a failure", hint);
        }
        if let Some(parallel) = book.head.parallel.as_ref().filter(|p| *p.get_ref() == 0) {
            self.say(parallel.span(), "`parallel` is at least 1", None);
        }
        for lock in &book.head.locks {
            let node = Node { at: lock.span(), value: Tree::Leaf(Json::String(lock.get_ref().clone())) };
            self.values(&node, &json!({ "type": "string" }), Scope::Lock, None, &mut Edges::default(), "locks");
        }
        for (name, param) in &book.params {
            if param.kind == Type::Choice && param.choices.is_empty() {
                self.say(name.at.clone(), "a choice needs `choices`", "choices = [\"full\", \"incremental\"]".to_owned());
            }
            if param.kind != Type::Choice && !param.choices.is_empty() {
                self.say(name.at.clone(), "only a param of type `choice` has `choices`", None);
            }
            if let Some(default) = &param.default {
                if let Err(says) = param::coerce(param, &crate::book::json(default.get_ref())) {
                    self.say(default.span(), says, None);
                }
                if param.kind == Type::Secret {
                    self.say(default.span(), "a secret has no default: it would stand in the text", None);
                }
            }
        }
        for (_, secret) in &book.secrets {
            let (scheme, rest) = secret.from.get_ref().split_once(':').unwrap_or((secret.from.get_ref(), ""));
            if !["env", "file", "command", "credential"].contains(&scheme) || rest.is_empty() {
                let hint = "from = \"env:PGPASSWORD\", \"file:/etc/runsheet/pg\", \"command:pass show pg\" or \"credential:pg\"".to_owned();
                self.say(secret.from.span(), "a secret comes from `env:`, `file:`, `command:` or `credential:`", hint);
            }
        }
    }

    fn objectives(&mut self) {
        let book = self.book;
        let mut expressions = Vec::new();
        if let Some(rto) = &book.objectives.rto {
            expressions.extend(&rto.from);
            let until = rto.until.get_ref();
            if !until.strip_prefix("steps.").is_some_and(|id| self.ids.contains_key(id)) {
                let hint = until.strip_prefix("steps.").and_then(|id| nearest(id, self.ids.keys().copied()));
                let hint = hint
                    .map_or("name a step of this playbook: until = \"steps.verify\"".to_owned(), |n| format!("did you mean `steps.{n}`?"));
                self.say(rto.until.span(), format!("`{until}` is not a step"), hint);
            }
        }
        if let Some(rpo) = &book.objectives.rpo {
            expressions.push(&rpo.recovered_to);
            expressions.extend(&rpo.lost_at);
        }
        for text in expressions {
            self.expression(text, Scope::End, None, &mut Edges::default(), false);
        }
    }

    fn step(&mut self, at: usize) -> Option<Step> {
        let (text, always) = (self.texts[at], at >= self.book.steps.len());
        let mut edges = Edges::default();
        self.named(at, &text.head.needs, &mut edges.needs);
        self.named(at, &text.head.after, &mut edges.after);
        let when = text.head.when.as_ref().and_then(|when| self.expression(when, Scope::Before, Some(at), &mut edges, true));
        let each = self.each(at, &mut edges);
        let action = self.actions[at].clone()?;
        let mut facts = self.with(at, &action, &mut edges);
        let expect = text.head.expect.iter().filter_map(|e| self.expression(e, Scope::After, Some(at), &mut edges, true)).collect();
        for handler in [&text.rollback, &text.probe].into_iter().flatten() {
            facts.tools.extend(self.handler(at, handler, &mut edges));
        }
        for thing in &text.head.creates {
            self.creates(at, thing, &mut edges);
        }
        let retry_on = self.retry(text, &action);
        let on_unknown = self.on_unknown(text, &action);
        self.engine_keys(text, &action, &facts, always);
        edges.needs.sort_unstable();
        edges.needs.dedup();
        edges.after.sort_unstable();
        edges.after.dedup();
        edges.after.retain(|on| !edges.needs.contains(on));
        let kind_verifies = matches!(&action, Action::Kind(facets) if facets.kind.verifies);
        let verifies = text.head.verifies.as_ref().map_or(kind_verifies, |v| *v.get_ref());
        Some(Step {
            id: text.id.name.as_str().into(),
            action,
            needs: edges.needs,
            after: edges.after,
            dependents: Vec::new(),
            reads: edges.reads,
            when,
            expect,
            each,
            facts,
            verifies,
            on_unknown,
            retry_on,
        })
    }

    /// Ids in `needs` and `after`: of the same part of the playbook.
    fn named(&mut self, at: usize, names: &[toml::Spanned<String>], to: &mut Vec<usize>) {
        let always = at >= self.book.steps.len();
        for name in names {
            let known = if always { &self.always } else { &self.ids };
            match known.get(name.get_ref().as_str()) {
                Some(on) => to.push(*on),
                None => {
                    let near = nearest(name.get_ref(), known.keys().copied()).map(|near| format!("did you mean `{near}`?"));
                    let other = if always { &self.ids } else { &self.always };
                    let hint = match other.contains_key(name.get_ref().as_str()) {
                        true if always => {
                            Some("`always` steps run after all others in any case; they are ordered among themselves".to_owned())
                        }
                        true => Some("an `always` step runs after all others; nothing can wait for it".to_owned()),
                        false => near,
                    };
                    self.say(name.span(), format!("there is no step `{}` to wait for", name.get_ref()), hint);
                }
            }
        }
    }

    fn each(&mut self, at: usize, edges: &mut Edges) -> Option<Each> {
        let head = &self.texts[at].head;
        let Some(each) = &head.for_each else {
            if let Some(item) = &head.item {
                self.say(item.span(), "`as` names the item of a `for_each`, and there is none", None);
            }
            if let Some(parallel) = &head.parallel {
                self.say(parallel.span(), "`parallel` on a step is for a `for_each`, and there is none", None);
            }
            return None;
        };
        if let Some(parallel) = head.parallel.as_ref().filter(|p| *p.get_ref() == 0) {
            self.say(parallel.span(), "`parallel` is at least 1", None);
        }
        match each.get_ref() {
            toml::Value::Array(items) => {
                if items.is_empty() {
                    self.say(each.span(), "`for_each` over nothing", None);
                }
                Some(Each::Items(items.iter().map(crate::book::json).collect()))
            }
            toml::Value::String(text) => {
                let text = toml::Spanned::new(each.span(), text.clone());
                self.expression(&text, Scope::Before, Some(at), edges, false).map(Each::Expression)
            }
            _ => {
                self.say(each.span(), "`for_each` is a list, or an expression that gives one", None);
                None
            }
        }
    }

    fn with(&mut self, at: usize, action: &Action, edges: &mut Edges) -> Facts {
        let text = self.texts[at];
        let own = text.head.effect.as_ref().map(|e| *e.get_ref());
        match action {
            Action::Kind(facets) => {
                let facts = self.settings(facets, &text.with, &text.id.at, Scope::Settings, at, edges);
                Facts { effect: own.unwrap_or(facts.effect), ..facts }
            }
            Action::Playbook(plan) => {
                let of = text.head.uses.get_ref();
                let with = self.stripped(&text.with, &plan.params, of);
                self.values(&with, &plan.params, Scope::Settings, Some(at), edges, of);
                self.params(plan, &with, &text.id);
                let effect = plan.steps.iter().map(|s| s.facts.effect).max().unwrap_or(Effect::Read);
                let tools = plan.steps.iter().flat_map(|s| s.facts.tools.clone()).collect();
                Facts { effect, reversal: Some(Reversal::Compensates), tools, asks: plan.steps.iter().any(|s| s.facts.asks) }
            }
        }
    }

    /// Params given to a playbook: all that it wants, and of the right types where they are written down.
    fn params(&mut self, plan: &Plan, with: &Node, id: &crate::book::Name) {
        let Tree::Table(given) = &with.value else {
            self.say(with.at.clone(), "`with` is a table", None);
            return;
        };
        for (name, param) in &plan.book.params {
            match given.iter().find(|(key, _)| key.name == name.name) {
                None if param.optional || param.default.is_some() => {}
                None => self.say(id.at.clone(), format!("`{}` wants the param `{}`", plan.book.head.title, name.name), param.about.clone()),
                Some((_, node)) => {
                    let whole = json!({});
                    if settings::place_of(node, &[]).1 {
                        continue;
                    }
                    if let Ok(rendered) = settings::render(node, &whole, &Value::UNDEFINED)
                        && let Err(says) = param::coerce(param, &rendered.value)
                    {
                        self.say(node.at.clone(), says, None);
                    }
                }
            }
        }
    }

    fn stripped(&mut self, with: &Node, schema: &Json, of: &str) -> Node {
        let mut complaints = Vec::new();
        let stripped = settings::unknown_settings(with, schema, of, &mut complaints);
        complaints.into_iter().for_each(|(at, says, hint)| self.say(at, says, hint));
        stripped
    }

    /// The settings of a kind: names, types, templates, and what the kind says of them.
    fn settings(&mut self, facets: &'static Facets, with: &Node, or: &Range<usize>, scope: Scope, at: usize, edges: &mut Edges) -> Facts {
        let unread = Facts { effect: Effect::Write, reversal: None, tools: Vec::new(), asks: false };
        if !matches!(with.value, Tree::Table(_)) {
            self.say(with.at.clone(), "`with` is a table", None);
            return unread;
        }
        let with = self.stripped(with, &facets.settings, facets.kind.name);
        let Some(value) = self.values(&with, &facets.settings, scope, Some(at), edges, facets.kind.name) else { return unread };
        match (facets.kind.read)(value.value) {
            Ok(step) => {
                Facts { effect: step.effect(), reversal: Some(step.reversal()), tools: step.tools(), asks: step.question().is_some() }
            }
            Err(refused) => {
                let (place, templated) = settings::place_of(&with, &refused.path);
                if !(templated && value.unknown) {
                    let whole = refused.path.is_empty() || matches!(&with.value, Tree::Table(entries) if entries.is_empty());
                    let place = if whole { or.clone() } else { place };
                    let says = format!("`{}` in `{}`: {}", facets.kind.name, self.texts[at].id.name, refused.says);
                    self.say(place, says, format!("`runsheet kinds {}` shows its settings", facets.kind.name));
                }
                unread
            }
        }
    }

    /// Checks the names of values and renders them with samples. Nothing comes back when something is wrong.
    fn values(
        &mut self,
        node: &Node,
        schema: &Json,
        scope: Scope,
        at: Option<usize>,
        edges: &mut Edges,
        of: &str,
    ) -> Option<settings::Rendered> {
        let mut complaints = Vec::new();
        let used = settings::used(node, schema, &mut complaints);
        let before = self.problems.len();
        complaints.into_iter().for_each(|(at, says, hint)| self.say(at, says, hint));
        let mut references = Vec::new();
        for name in used {
            let scope = if name.expression { Scope::After } else { scope };
            if name.reference.path[0] == "secrets" || self.is_secret_param(&name.reference.path) {
                self.secret(&name, of);
            }
            self.reference(&name.reference, name.at, scope, at, edges);
            references.push(name.reference);
        }
        if self.problems.len() > before {
            return None;
        }
        let names = if references.is_empty() { Value::UNDEFINED } else { self.names(&references, scope, at) };
        match settings::render(node, schema, &names) {
            Ok(rendered) => Some(rendered),
            Err((at, says, hint)) => {
                self.say(at, says, hint);
                None
            }
        }
    }

    fn is_secret_param(&self, path: &[String]) -> bool {
        path[0] == "params"
            && path.get(1).is_some_and(|name| self.book.params.iter().any(|(n, p)| n.name == *name && p.kind == Type::Secret))
    }

    fn secret(&mut self, name: &settings::Used, of: &str) {
        if !name.secret_place {
            let hint =
                format!("secrets go where `{of}` takes one, such as `env`, `stdin` or a password; there they are kept out of every record");
            self.say(name.at.clone(), "a secret may not stand here: it would be seen in the process list or in a record", hint);
        }
    }

    /// Checks a handler, and gives the programs that it needs.
    fn handler(&mut self, at: usize, handler: &HandlerText, edges: &mut Edges) -> Vec<Tool> {
        let name = handler.head.uses.get_ref();
        match KINDS.get(name.as_str()) {
            Some(facets) => self.settings(facets, &handler.with, &handler.head.uses.span(), Scope::Handler, at, edges).tools,
            None => {
                let near = nearest(name, KINDS.keys().copied()).map(|near| format!("did you mean `{near}`?"));
                self.say(handler.head.uses.span(), format!("there is no kind `{name}`; a handler is a step of some kind"), near);
                Vec::new()
            }
        }
    }

    fn creates(&mut self, at: usize, thing: &toml::Spanned<String>, edges: &mut Edges) {
        if !thing.get_ref().starts_with("path:") {
            self.say(thing.span(), "`creates` lists things as `path:/srv/drill`", None);
        }
        let node = Node { at: thing.span(), value: Tree::Leaf(Json::String(thing.get_ref().clone())) };
        self.values(&node, &json!({ "type": "string" }), Scope::Settings, Some(at), edges, "creates");
    }

    fn retry(&mut self, text: &StepText, action: &Action) -> Vec<RetryOn> {
        let tells = match action {
            Action::Kind(facets) => facets.kind.tells_passing,
            Action::Playbook(_) => true,
        };
        let Some(retry) = &text.head.retry else { return Vec::new() };
        if retry.get_ref().attempts == 0 {
            self.say(retry.span(), "`attempts` counts the first one too: it is at least 1", None);
        }
        if retry.get_ref().factor < 1.0 {
            self.say(retry.span(), "`factor` is at least 1", None);
        }
        if matches!(action, Action::Playbook(_)) {
            self.say(retry.span(), "a playbook is not tried again as a whole", "put `retry` on the steps inside it".to_owned());
        }
        let Some(on) = &retry.get_ref().on else {
            return if tells { vec![RetryOn::Passing, RetryOn::Timeout] } else { vec![RetryOn::Failed] };
        };
        let mut all = Vec::new();
        for word in on {
            match word.get_ref().as_str() {
                "passing" => all.push(RetryOn::Passing),
                "timeout" => all.push(RetryOn::Timeout),
                "failed" => all.push(RetryOn::Failed),
                other => match other.strip_prefix("exit:").and_then(|code| code.parse().ok()) {
                    Some(code) => all.push(RetryOn::Exit(code)),
                    None => self.say(
                        word.span(),
                        format!("`{other}` is not worth another try"),
                        "`passing`, `timeout`, `failed` or `exit:75`".to_owned(),
                    ),
                },
            }
        }
        all
    }

    fn on_unknown(&mut self, text: &StepText, action: &Action) -> OnUnknown {
        let said = text.head.on_unknown.as_ref();
        match (said.map(|s| *s.get_ref()), &text.probe) {
            (Some(OnUnknown::Probe), None) => {
                let hint = format!("add [steps.{}.probe] with a step that succeeds when it happened", text.id.name);
                self.say(said.map_or(0..0, |s| s.span()), "there is no `probe` to ask", hint);
                OnUnknown::Ask
            }
            (Some(other), Some(probe)) if other != OnUnknown::Probe => {
                self.say(
                    probe.at.clone(),
                    "this probe would never be asked",
                    "say `on_unknown = \"probe\"`, or take one of them out".to_owned(),
                );
                other
            }
            (Some(said), _) => said,
            (None, Some(_)) => OnUnknown::Probe,
            (None, None) if matches!(action, Action::Kind(facets) if facets.kind.rerun) => OnUnknown::Rerun,
            (None, None) => OnUnknown::Ask,
        }
    }

    /// Keys of a playbook, or of a step that uses one, that would not be honoured there.
    fn playbook_keys(&mut self, text: &StepText, plan: &Plan) {
        let head = &text.head;
        let given = [
            (head.timeout.is_some(), "timeout"),
            (head.deadline.is_some(), "deadline"),
            (head.on_unknown.is_some(), "on_unknown"),
            (head.by_hand.is_some(), "by_hand"),
            (head.verifies.is_some(), "verifies"),
            (!head.creates.is_empty(), "creates"),
            (head.pivot.is_some(), "pivot"),
        ];
        for (_, key) in given.iter().filter(|(is, _)| *is) {
            self.say(
                text.id.at.clone(),
                format!("`{key}` is not for a step that uses a playbook"),
                "put it on the steps inside it".to_owned(),
            );
        }
        let inner = &plan.book.head;
        for (_, key) in [(inner.timeout.is_some(), "timeout"), (!inner.locks.is_empty(), "locks")].iter().filter(|(is, _)| *is) {
            let says = format!("the `{key}` of `{}` holds only when it is run by itself", inner.title);
            self.warn(head.uses.span(), says, "say it in this playbook too, if it is wanted here");
        }
    }

    /// Keys that only some steps may have.
    fn engine_keys(&mut self, text: &StepText, action: &Action, facts: &Facts, always: bool) {
        let head = &text.head;
        if let Action::Playbook(plan) = action {
            self.playbook_keys(text, plan);
        }
        let said = |handler: &Option<Box<HandlerText>>| handler.as_ref().and_then(|h| h.head.on_unknown.map(|o| (h.at.clone(), o)));
        if let Some((at, other)) = said(&text.rollback).filter(|(_, o)| !matches!(o, OnUnknown::Rerun | OnUnknown::Ask)) {
            self.say(at, format!("a rollback's `on_unknown` is `rerun` or `ask`, not {}", json!(other)), None);
        }
        if let Some((at, _)) = said(&text.probe) {
            self.say(at, "a probe only looks: it has no `on_unknown`", None);
        }
        let open = matches!(action, Action::Kind(facets) if ["command", "shell", "http"].contains(&facets.kind.name));
        if let Some(effect) = head.effect.as_ref().filter(|_| !open) {
            self.say(
                effect.span(),
                format!("`{}` says its effect itself", head.uses.get_ref()),
                "only `command` and `shell` take `effect`".to_owned(),
            );
        }
        if let (true, Some(pivot)) = (always, &head.pivot) {
            self.say(pivot.span(), "an `always` step is no pivot: there is nothing after it", None);
        }
        if let (true, Some(rollback)) = (always, &text.rollback) {
            self.say(rollback.at.clone(), "an `always` step is never undone: it runs after the rollback", None);
        }
        if let (true, Some(Action::Playbook(_))) = (text.probe.is_some(), Some(action)) {
            self.say(text.id.at.clone(), "a playbook has no probe: each of its steps is asked", None);
        }
        if head.deadline.is_some() && head.retry.is_none() {
            self.say(
                text.id.at.clone(),
                "`deadline` is for all attempts, and there is only one",
                "say `timeout`, or add `retry`".to_owned(),
            );
        }
        if open && !always && facts.effect > Effect::Read && text.rollback.is_none() && head.by_hand.is_none() {
            let says = format!("`{}` changes something and has no way back: a rollback will leave it as it is", text.id.name);
            self.warn(text.id.at.clone(), says, "add [….rollback], or `by_hand = \"…\"`, or `effect = \"read\"` if it only looks");
        }
    }

    /// Reads an expression and evaluates it with samples.
    fn expression(
        &mut self,
        text: &toml::Spanned<String>,
        scope: Scope,
        at: Option<usize>,
        edges: &mut Edges,
        boolean: bool,
    ) -> Option<Expression> {
        let start = text.span().start + usize::from(text.span().len() == text.get_ref().len() + 2);
        let place = |at: &Range<usize>| start + at.start..start + at.end;
        let complain = |this: &mut Self, wrong: Wrong| this.say(place(&wrong.at), wrong.says, None);
        if text.get_ref().contains("{{") {
            self.say(text.span(), "this is an expression already: it is written without {{ }}", None);
            return None;
        }
        let expression = match Expression::parse(text.get_ref()) {
            Ok(expression) => expression,
            Err(wrong) => {
                complain(self, wrong);
                return None;
            }
        };
        let before = self.problems.len();
        for reference in &expression.references {
            if reference.path[0] == "secrets" || self.is_secret_param(&reference.path) {
                self.say(place(&reference.at), "a secret may not stand in an expression", None);
            }
            self.reference(reference, place(&reference.at), scope, at, edges);
        }
        if self.problems.len() > before {
            return None;
        }
        let names = self.names(&expression.references, scope, at);
        let result = if boolean { expression.holds(&names).map(drop) } else { expression.eval(&names).map(drop) };
        match result {
            Ok(()) => Some(expression),
            Err(wrong) => {
                complain(self, wrong);
                None
            }
        }
    }

    /// Checks one name, and notes what it makes the step wait for.
    fn reference(&mut self, reference: &Reference, at: Range<usize>, scope: Scope, step: Option<usize>, edges: &mut Edges) {
        let path = &reference.path;
        let second = path.get(1).map(String::as_str);
        let item = step.and_then(|s| self.texts[s].head.for_each.as_ref().map(|_| self.item_name(s)));
        if scope == Scope::Lock && path[0] != "params" && *path != ["run", "id"] {
            self.say(at, "a lock's name is made of `params.…` and `run.id`", None);
            return;
        }
        match path[0].as_str() {
            "params" => self.one_of(second, self.book.params.iter().map(|(n, _)| n.name.as_str()).collect(), "params", at),
            "secrets" => self.one_of(second, self.book.secrets.iter().map(|(n, _)| n.name.as_str()).collect(), "secrets", at),
            "run" => {
                let mut known = vec!["id", "started_at", "scheduled_at", "home"];
                if step.is_some_and(|s| s >= self.book.steps.len()) {
                    known.push("outcome");
                }
                self.one_of(second, known, "run", at);
            }
            "playbook" => self.one_of(second, vec!["dir"], "playbook", at),
            "out" if scope == Scope::After => {
                if let Some(step) = step.filter(|s| !matches!(&self.actions[*s], Some(Action::Kind(f)) if f.kind.name == "wait")) {
                    self.output(step, second, &path[0], at);
                }
            }
            "out" => self.say(at, "`out` is known only after the step: in `expect` and `until`", None),
            "before" if scope == Scope::Handler => {}
            "before" => self.say(at, "`before` is known only to a handler", None),
            "index" if item.is_some() => {}
            name if item.as_deref() == Some(name) => {}
            "steps" => self.step_reference(reference, at, scope, step, edges),
            name => {
                let mut known = vec!["params", "secrets", "steps", "run", "playbook"];
                if scope == Scope::After {
                    known.push("out");
                }
                let near = nearest(name, known.iter().copied()).map(|near| format!("did you mean `{near}`?"));
                let hint = near.unwrap_or_else(|| format!("names begin with one of: {}", known.join(", ")));
                self.say(at, format!("there is nothing called `{name}` here"), hint);
            }
        }
    }

    fn item_name(&self, step: usize) -> String {
        self.texts[step].head.item.as_ref().map_or_else(|| "item".to_owned(), |item| item.get_ref().clone())
    }

    fn one_of(&mut self, name: Option<&str>, known: Vec<&str>, of: &str, at: Range<usize>) {
        let Some(name) = name else {
            self.say(at, format!("name one: `{of}.…`"), None);
            return;
        };
        if !known.contains(&name) {
            let near = nearest(name, known.iter().copied()).map(|near| format!("did you mean `{of}.{near}`?"));
            let list = if known.is_empty() { "the playbook declares none".to_owned() } else { format!("there are: {}", known.join(", ")) };
            self.say(at, format!("there is no `{of}.{name}`"), near.unwrap_or(list));
        }
    }

    fn step_reference(&mut self, reference: &Reference, at: Range<usize>, scope: Scope, step: Option<usize>, edges: &mut Edges) {
        let Some(id) = reference.path.get(1) else {
            self.say(at, "name a step and an output: `steps.backup.path`", None);
            return;
        };
        let Some(&on) =
            self.ids.get(id.as_str()).or_else(|| self.always.get(id.as_str()).filter(|_| step.is_some_and(|s| s >= self.book.steps.len())))
        else {
            let near = nearest(id, self.ids.keys().copied()).map(|near| format!("did you mean `steps.{near}`?"));
            self.say(at, format!("there is no step `{id}`"), near);
            return;
        };
        let output = reference.path.get(2).map(String::as_str);
        let always = step.is_some_and(|s| s >= self.book.steps.len());
        if always && output == Some("state") {
            return;
        }
        self.output(on, output, &format!("steps.{id}"), at.clone());
        if scope == Scope::End {
            return;
        }
        if always && on < self.book.steps.len() {
            edges.reads.push(on);
            return;
        }
        if scope == Scope::Handler && step == Some(on) {
            if !reference.defaulted {
                let hint =
                    format!("the step may have failed before it had any: `{} | default(…)`, or use `before.…`", reference.path.join("."));
                self.say(at, "a handler may read its own step's outputs only with a `default`", hint);
            }
            return;
        }
        let needed = step.is_some_and(|s| self.texts[s].head.needs.iter().any(|n| n.get_ref() == id));
        if reference.defaulted {
            edges.after.push(on);
            return;
        }
        // With `needs` the reader is not reached when the step is skipped: it never sees an empty value.
        if self.texts[on].head.when.is_some() && !needed {
            let hint = format!("say `needs = [\"{id}\"]` to go only with it, or give a value: `{} | default(…)`", reference.path.join("."));
            self.say(at, format!("`{id}` may be skipped, and then has no outputs"), hint);
        }
        edges.needs.push(on);
    }

    /// Whether a step declares an output.
    fn output(&mut self, step: usize, output: Option<&str>, of: &str, at: Range<usize>) {
        let declared: Vec<String> = if self.texts[step].head.for_each.is_some() && of != "out" {
            vec!["items".into(), "count".into()]
        } else {
            match &self.actions[step] {
                None => return,
                Some(Action::Kind(facets)) => {
                    facets.output.get("properties").and_then(Json::as_object).map(|p| p.keys().cloned().collect()).unwrap_or_default()
                }
                Some(Action::Playbook(plan)) => plan.book.outputs.iter().map(|(name, _)| name.name.clone()).collect(),
            }
        };
        let declared: Vec<&str> = declared.iter().map(String::as_str).collect();
        match output {
            None => self.say(at, format!("name an output: `{of}.…`"), format!("it has: {}", declared.join(", "))),
            Some(name) if declared.contains(&name) => {}
            Some(name) => {
                let near = nearest(name, declared.iter().copied()).map(|near| format!("did you mean `{of}.{near}`?"));
                let uses = self.texts[step].head.uses.get_ref();
                self.say(
                    at,
                    format!("`{uses}` has no output `{name}`"),
                    near.unwrap_or_else(|| format!("it has: {}", declared.join(", "))),
                );
            }
        }
    }

    /// Sample values for the names that are used.
    fn names(&mut self, references: &[Reference], scope: Scope, step: Option<usize>) -> Value {
        let mut names = BTreeMap::from([("params", self.params.clone()), ("secrets", self.secrets.clone())]);
        let (mut samples, mut seen) = (BTreeMap::new(), HashSet::new());
        for reference in references.iter().filter(|r| r.path[0] == "steps") {
            let id = reference.path[1].as_str();
            if let Some(&on) = self.ids.get(id).or_else(|| self.always.get(id)).filter(|_| seen.insert(id)) {
                samples.insert(id.to_owned(), self.sample(on, false));
            }
        }
        names.insert("steps", Value::from_pairs(samples));
        let run = ["id", "home", "outcome"].map(|name| (name, Value::from("sample")));
        names.insert("run", Value::from_pairs(run.into_iter().chain(["started_at", "scheduled_at"].map(|name| (name, Value::from(1.0))))));
        names.insert("playbook", Value::from_pairs([("dir", "/sample")]));
        if scope == Scope::Handler {
            names.insert("before", expression::unknown());
        }
        let item_name;
        if let Some(step) = step {
            if scope == Scope::After {
                let wait = matches!(&self.actions[step], Some(Action::Kind(f)) if f.kind.name == "wait");
                names.insert("out", if wait { expression::unknown() } else { self.sample(step, true) });
            }
            if let Some(each) = &self.texts[step].head.for_each {
                item_name = self.item_name(step);
                let item = match each.get_ref() {
                    toml::Value::Array(items) => {
                        items.first().map_or_else(expression::unknown, |item| expression::value(crate::book::json(item)))
                    }
                    _ => expression::unknown(),
                };
                names.insert(&item_name, item);
                names.insert("index", Value::from(0));
            }
        }
        expression::names(names)
    }

    /// A sample of a step's outputs.
    fn sample(&mut self, step: usize, of_one_item: bool) -> Value {
        let one = match &self.actions[step] {
            None => expression::unknown(),
            Some(Action::Kind(facets)) => {
                let key: *const Facets = *facets;
                self.samples.entry(key).or_insert_with(|| settings::sample(&facets.output)).clone()
            }
            Some(Action::Playbook(plan)) => {
                Value::from_pairs(plan.book.outputs.iter().map(|(name, _)| (name.name.clone(), expression::unknown())))
            }
        };
        let whole = if self.texts[step].head.for_each.is_some() && !of_one_item {
            Value::from_pairs([("items", expression::unknown()), ("count", Value::from(1))])
        } else {
            one
        };
        if step < self.book.steps.len() && !of_one_item { with_state(whole) } else { whole }
    }

    /// An order in which each step stands after what it waits for; the order of the text breaks ties. Says a cycle with its path.
    fn order(&mut self, steps: &[Step]) -> Option<Vec<usize>> {
        let edges: usize = steps.iter().map(|s| s.needs.len() + s.after.len()).sum();
        let mut graph: DiGraph<(), ()> = DiGraph::with_capacity(steps.len(), edges);
        let nodes: Vec<_> = steps.iter().map(|_| graph.add_node(())).collect();
        for (at, step) in steps.iter().enumerate() {
            step.needs.iter().chain(&step.after).for_each(|on| {
                graph.add_edge(nodes[*on], nodes[at], ());
            });
        }
        if algo::toposort(&graph, None).is_ok() {
            return Some(text_order(steps));
        }
        for part in algo::kosaraju_scc(&graph) {
            let inside: HashSet<usize> = part.iter().map(|n| n.index()).collect();
            let cyclic = part.len() > 1 || graph.contains_edge(part[0], part[0]);
            if cyclic {
                let path = cycle(steps, &inside);
                let first = path[0];
                let names: Vec<&str> = path.iter().chain([&first]).map(|at| &*steps[*at].id).collect();
                let shown = if names.len() > 12 {
                    format!("{} → … ({} more) … → {}", names[..6].join(" → "), names.len() - 12, names[names.len() - 6..].join(" → "))
                } else {
                    names.join(" → ")
                };
                let hint = "each waits for the one before it; take one `needs`, `after` or reference out".to_owned();
                self.say(self.texts[first].id.at.clone(), format!("these steps wait for each other: {shown}"), hint);
            }
        }
        None
    }
}

fn with_state(outputs: Value) -> Value {
    let keys: Vec<Value> = outputs.try_iter().map(Iterator::collect).unwrap_or_default();
    let named = keys.into_iter().map(|key| (key.to_string(), outputs.get_item(&key).unwrap_or_default()));
    Value::from_pairs(named.chain([("state".to_owned(), Value::from("succeeded"))]))
}

/// Kahn's algorithm with the earliest step of the text first.
fn text_order(steps: &[Step]) -> Vec<usize> {
    let mut waits: Vec<usize> = steps.iter().map(|s| s.needs.len() + s.after.len()).collect();
    let mut dependents = vec![Vec::new(); steps.len()];
    for (at, step) in steps.iter().enumerate() {
        step.needs.iter().chain(&step.after).for_each(|on| dependents[*on].push(at));
    }
    let mut ready: std::collections::BTreeSet<usize> = (0..steps.len()).filter(|at| waits[*at] == 0).collect();
    let mut order = Vec::with_capacity(steps.len());
    while let Some(at) = ready.pop_first() {
        order.push(at);
        for &dependent in &dependents[at] {
            waits[dependent] -= 1;
            if waits[dependent] == 0 {
                ready.insert(dependent);
            }
        }
    }
    order
}

/// One cycle within a strongly connected part, from its earliest step on.
fn cycle(steps: &[Step], inside: &HashSet<usize>) -> Vec<usize> {
    let start = inside.iter().copied().min().unwrap_or(0);
    let (mut path, mut seen) = (vec![start], HashMap::from([(start, 0)]));
    loop {
        let at = path[path.len() - 1];
        let Some(&next) = steps[at].needs.iter().chain(&steps[at].after).find(|on| inside.contains(on)) else { return path };
        if let Some(&from) = seen.get(&next) {
            let mut found = path.split_off(from);
            found.reverse();
            let first = found.iter().enumerate().min_by_key(|(_, step)| **step).map_or(0, |(at, _)| at);
            found.rotate_left(first);
            return found;
        }
        seen.insert(next, path.len());
        path.push(next);
    }
}
