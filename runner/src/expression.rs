//! Expressions and templates: minijinja's expressions, made strict. An undefined result, a comparison of unlike types
//! and an `if` without `else` are errors; a value that is not known yet makes the result unknown, never true or false.
//! Unaware of playbooks; what names mean is the caller's.

use std::{collections::BTreeMap, ops::Range, sync::LazyLock};

use minijinja::{
    Environment, UndefinedBehavior, Value,
    machinery::{ast, parse_expr},
    value::{Kwargs, Object, ValueKind},
};
use serde_json::Value as Json;

/// A name that an expression uses: `steps.health.database_bytes`.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// The names from the root down, as far as they are literal.
    pub path: Vec<String>,
    /// Whether `default` stands directly behind it.
    pub defaulted: bool,
    /// Bytes of the expression.
    pub at: Range<usize>,
}

/// What is wrong with an expression, and where in its text.
#[derive(Clone, Debug, PartialEq)]
pub struct Wrong {
    /// In words.
    pub says: String,
    /// Bytes of the text it was found in.
    pub at: Range<usize>,
}

/// An expression that has been read.
#[derive(Clone, Debug)]
pub struct Expression {
    text: String,
    /// Every name it uses.
    pub references: Vec<Reference>,
    comparisons: Vec<(Range<usize>, Range<usize>)>,
}

/// Marks a value that is not known yet.
#[derive(Debug)]
struct Unknown;

impl Object for Unknown {
    fn get_value(self: &std::sync::Arc<Self>, _: &Value) -> Option<Value> {
        Some(unknown())
    }
}

/// A value from data.
pub fn value(data: impl serde::Serialize) -> Value {
    Value::from(minijinja::value::Serde(data))
}

/// A value that is not known yet, whatever is asked of it.
pub fn unknown() -> Value {
    Value::from_object(Unknown)
}

fn is_unknown(value: &Value) -> bool {
    value.downcast_object_ref::<Unknown>().is_some()
}

/// The filters that an expression may use, each with a sentence for the reference.
pub const FILTERS: &[(&str, &str)] = &[
    ("abs", "the number without its sign"),
    ("default", "the value given, when there is none: `steps.x.y | default(0)`"),
    ("duration", "seconds as text: `90 | duration` is `1m 30s`"),
    ("first", "the first item"),
    ("float", "as a number with a fraction"),
    ("int", "as a whole number"),
    ("join", "the items as one text: `| join(\", \")`"),
    ("last", "the last item"),
    ("length", "how many items or characters"),
    ("lower", "in small letters"),
    ("max", "the largest item"),
    ("min", "the smallest item"),
    ("replace", "a text with one part replaced by another"),
    ("round", "rounded: `| round(1)`"),
    ("size", "bytes as text: `2048 | size` is `2.0 KiB`"),
    ("sort", "the items in order"),
    ("split", "a text cut into items"),
    ("string", "as text"),
    ("sum", "the sum of the items"),
    ("timestamp", "seconds of the epoch as RFC 3339 text"),
    ("trim", "without blanks around it"),
    ("unique", "each item once"),
    ("upper", "in capital letters"),
];

static LANGUAGE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    use minijinja::{filters as f, tests as t};
    let mut env = Environment::empty();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_fuel(Some(20_000));
    env.add_filter("abs", f::abs);
    env.add_filter("default", |value: Value, other: Value| if value.is_undefined() || value.is_none() { other } else { value });
    env.add_filter("duration", |seconds: f64| print_duration(seconds));
    env.add_filter("first", f::first);
    env.add_filter("float", f::float);
    env.add_filter("int", f::int);
    env.add_filter("join", f::join);
    env.add_filter("last", f::last);
    env.add_filter("length", f::length);
    env.add_filter("lower", f::lower);
    env.add_filter("max", f::max);
    env.add_filter("min", f::min);
    env.add_filter("replace", f::replace);
    env.add_filter("round", f::round);
    env.add_filter("size", |bytes: u64| bytesize::ByteSize::b(bytes).display().iec().to_string());
    env.add_filter("sort", |state: &minijinja::State, value: Value, options: Kwargs| f::sort(state, value, options));
    env.add_filter("split", f::split);
    env.add_filter("string", f::string);
    env.add_filter("sum", f::sum);
    env.add_filter("timestamp", |seconds: f64| print_timestamp(seconds));
    env.add_filter("trim", f::trim);
    env.add_filter("unique", |state: &minijinja::State, value: Value, options: Kwargs| f::unique(state, value, options));
    env.add_filter("upper", f::upper);
    env.add_test("defined", t::is_defined);
    env.add_test("none", t::is_none);
    env.add_test("number", t::is_number);
    env.add_test("string", t::is_string);
    env.add_test("startingwith", t::is_startingwith);
    env.add_test("endingwith", t::is_endingwith);
    env.add_test("in", t::is_in);
    env
});

/// Seconds as people read them: `1h 30m`, `12.4s`.
pub fn print_duration(seconds: f64) -> String {
    if !seconds.is_finite() {
        return seconds.to_string();
    }
    let (sign, seconds) = if seconds < 0.0 { ("-", -seconds) } else { ("", seconds) };
    if seconds < 1.0 {
        return format!("{sign}{:.0}ms", seconds * 1e3);
    }
    if seconds < 60.0 {
        let text = format!("{seconds:.1}");
        return format!("{sign}{}s", text.strip_suffix(".0").unwrap_or(&text));
    }
    let whole = seconds.round() as u64;
    let parts = [(whole / 86_400, "d"), (whole / 3600 % 24, "h"), (whole / 60 % 60, "m"), (whole % 60, "s")];
    let parts: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).take(2).map(|(n, unit)| format!("{n}{unit}")).collect();
    format!("{sign}{}", parts.join(" "))
}

/// Seconds of the epoch as RFC 3339 text.
pub fn print_timestamp(seconds: f64) -> String {
    match jiff::Timestamp::from_microsecond((seconds * 1e6) as i64) {
        Ok(at) => at.to_string(),
        Err(_) => format!("{seconds}"),
    }
}

impl Expression {
    /// Reads an expression. Errors: not minijinja's syntax, an `if` without `else`, an unknown filter.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let parsed = parse_expr(text)
            .map_err(|e| Wrong { says: e.detail().unwrap_or("this is not an expression").to_owned(), at: 0..text.len() })?;
        let mut found = Found { references: Vec::new(), comparisons: Vec::new(), wrong: None };
        found.walk(&parsed, false);
        match found.wrong {
            Some(wrong) => Err(wrong),
            None => {
                let both = |(left, right)| Ok((whole(text, left)?, whole(text, right)?));
                let comparisons = found.comparisons.into_iter().map(both).collect::<Result<_, Wrong>>()?;
                Ok(Self { text: text.to_owned(), references: found.references, comparisons })
            }
        }
    }
    /// The text it was read from.
    pub fn text(&self) -> &str {
        &self.text
    }
    /// The value; nothing when it depends on what is not known yet.
    pub fn eval(&self, names: &Value) -> Result<Option<Value>, Wrong> {
        for (left, right) in &self.comparisons {
            // A side that cannot be evaluated may stand behind an `and` that is false: then it is never compared.
            let (Ok(a), Ok(b)) = (part(&self.text[left.clone()], names), part(&self.text[right.clone()], names)) else { continue };
            if let Some(says) = unlike(&a, &b) {
                return Err(Wrong { says, at: left.start..right.end });
            }
        }
        if self.references.iter().any(|r| lookup(names, &r.path).is_some_and(|value| is_unknown(&value))) {
            return Ok(None);
        }
        let value = part(&self.text, names).map_err(|e| self.wrong(&e, names))?;
        if value.is_undefined() {
            return Err(self.wrong(&minijinja::Error::new(minijinja::ErrorKind::UndefinedError, "it has no value"), names));
        }
        Ok(Some(value))
    }
    /// Whether it holds; nothing when that is not known yet. Errors: it gives no bool.
    pub fn holds(&self, names: &Value) -> Result<Option<bool>, Wrong> {
        match self.eval(names)? {
            None => Ok(None),
            Some(value) if value.kind() == ValueKind::Bool => Ok(Some(value.is_true())),
            Some(value) => {
                Err(Wrong { says: format!("this gives {}, where true or false is wanted", describe(&value)), at: 0..self.text.len() })
            }
        }
    }
    /// The values of the names that it uses, for a message: `out.rows is 0`.
    pub fn seen(&self, names: &Value) -> String {
        let mut seen: Vec<String> = Vec::new();
        for reference in &self.references {
            let shown = lookup(names, &reference.path).map_or_else(|| "nothing".to_owned(), |v| shortened(&written(&v)));
            let line = format!("{} is {shown}", reference.path.join("."));
            if !seen.contains(&line) {
                seen.push(line);
            }
        }
        if seen.is_empty() { "that is never so".to_owned() } else { seen.join(", ") }
    }
    fn wrong(&self, e: &minijinja::Error, names: &Value) -> Wrong {
        let missing = self.references.iter().find(|r| !r.defaulted && lookup(names, &r.path).is_none());
        if let Some(reference) = missing {
            return Wrong { says: format!("`{}` has no value", reference.path.join(".")), at: reference.at.clone() };
        }
        Wrong { says: e.detail().map_or_else(|| e.kind().to_string(), str::to_owned), at: 0..self.text.len() }
    }
}

/// A plain value as text; minijinja writes `True`.
fn written(value: &Value) -> String {
    if value.kind() == ValueKind::Bool { value.is_true().to_string() } else { value.to_string() }
}

fn shortened(text: &str) -> String {
    let head: String = text.chars().take(80).collect();
    if head.len() < text.len() { format!("{head}…") } else { head }
}

fn part(text: &str, names: &Value) -> Result<Value, minijinja::Error> {
    LANGUAGE.compile_expression(text)?.eval(names)
}

fn lookup(names: &Value, path: &[String]) -> Option<Value> {
    let mut value = names.clone();
    for name in path {
        value = value.get_attr(name).ok().filter(|v| !v.is_undefined())?;
    }
    Some(value)
}

fn unlike(a: &Value, b: &Value) -> Option<String> {
    if is_unknown(a) || is_unknown(b) || a.is_undefined() || b.is_undefined() || a.is_none() || b.is_none() || a.kind() == b.kind() {
        let ordered_none = (a.is_none() != b.is_none()) && !(is_unknown(a) || is_unknown(b));
        return ordered_none.then(|| format!("{} is compared with {}; use `is none`, or a `default`", describe(a), describe(b)));
    }
    Some(format!("{} is compared with {}: that is never what is meant", describe(a), describe(b)))
}

fn describe(value: &Value) -> String {
    match value.kind() {
        ValueKind::Undefined => "nothing".into(),
        ValueKind::None => "none".into(),
        ValueKind::Bool => "a bool".into(),
        ValueKind::Number => "a number".into(),
        ValueKind::String => "a text".into(),
        ValueKind::Seq | ValueKind::Iterable => "a list".into(),
        ValueKind::Map => "a table".into(),
        other => other.to_string(),
    }
}

struct Found {
    references: Vec<Reference>,
    comparisons: Vec<(Range<usize>, Range<usize>)>,
    wrong: Option<Wrong>,
}

fn range(expr: &ast::Expr<'_>) -> Range<usize> {
    start(expr)..expr.span().end_offset as usize
}

/// Where an expression begins: where its first name or constant does. minijinja's spans of what is made of parts begin
/// behind the first part (`a.b`), or at the word before it (`a > b`).
fn start(expr: &ast::Expr<'_>) -> usize {
    use ast::Expr as E;
    let first = match expr {
        E::GetAttr(e) => Some(&e.expr),
        E::GetItem(e) => Some(&e.expr),
        E::Slice(e) => Some(&e.expr),
        E::Filter(e) => e.expr.as_ref(),
        E::Test(e) => Some(&e.expr),
        E::UnaryOp(e) => Some(&e.expr),
        E::BinOp(e) => Some(&e.left),
        E::Compare(e) => Some(&e.expr),
        E::IfExpr(e) => Some(&e.true_expr),
        _ => None,
    };
    first.map_or(expr.span().start_offset as usize, start)
}

/// A part of an expression, with the parentheses that it begins within. Errors: it cannot be read by itself.
fn whole(text: &str, part: Range<usize>) -> Result<Range<usize>, Wrong> {
    let mut from = part.start;
    while LANGUAGE.compile_expression(&text[from..part.end]).is_err() {
        let before = text[..from].trim_end();
        if !before.ends_with('(') {
            return Err(Wrong { says: "this comparison is too involved to be checked; write it more simply".into(), at: part });
        }
        from = before.len() - 1;
    }
    Ok(from..part.end)
}

impl Found {
    fn walk(&mut self, expr: &ast::Expr<'_>, defaulted: bool) {
        use ast::Expr as E;
        if let Some(path) = chain(expr) {
            self.references.push(Reference { path, defaulted, at: range(expr) });
            return;
        }
        match expr {
            E::Var(_) | E::Const(_) => {}
            E::Slice(e) => {
                self.walk(&e.expr, false);
                [&e.start, &e.stop, &e.step].into_iter().flatten().for_each(|part| self.walk(part, false));
            }
            E::UnaryOp(e) => self.walk(&e.expr, false),
            E::BinOp(e) => {
                self.walk(&e.left, false);
                self.walk(&e.right, false);
                use ast::BinOpKind as B;
                if matches!(e.op, B::Eq | B::Ne | B::Lt | B::Lte | B::Gt | B::Gte) {
                    self.comparisons.push((range(&e.left), range(&e.right)));
                }
            }
            E::Compare(e) => {
                self.walk(&e.expr, false);
                let mut left = range(&e.expr);
                for op in &e.ops {
                    self.walk(&op.expr, false);
                    let right = range(&op.expr);
                    if !matches!(op.op, ast::CompareOpKind::In | ast::CompareOpKind::NotIn) {
                        self.comparisons.push((left, right.clone()));
                    }
                    left = right;
                }
            }
            E::IfExpr(e) => {
                self.walk(&e.test_expr, false);
                self.walk(&e.true_expr, false);
                match &e.false_expr {
                    Some(other) => self.walk(other, false),
                    None => self.refuse("an `if` without `else` gives nothing when it is false; add `else …`", range(expr)),
                }
            }
            E::Filter(e) => {
                if !FILTERS.iter().any(|(name, _)| *name == e.name) {
                    let near = crate::book::nearest(e.name, FILTERS.iter().map(|(name, _)| *name));
                    self.refuse(
                        &format!("there is no filter `{}`{}", e.name, near.map_or(String::new(), |n| format!("; did you mean `{n}`?"))),
                        range(expr),
                    );
                }
                e.expr.iter().for_each(|inner| self.walk(inner, e.name == "default"));
                self.args(&e.args);
            }
            E::Test(e) => {
                if LANGUAGE.compile_expression_owned(format!("1 is {}", e.name)).is_err() {
                    self.refuse(&format!("there is no test `{}`", e.name), range(expr));
                }
                self.walk(&e.expr, e.name == "defined");
                self.args(&e.args);
            }
            E::GetAttr(e) => self.walk(&e.expr, defaulted),
            E::GetItem(e) => {
                self.walk(&e.expr, defaulted);
                self.walk(&e.subscript_expr, false);
            }
            E::Call(_) => self.refuse("there are no functions in expressions; use a filter", range(expr)),
            E::List(e) => e.items.iter().for_each(|item| self.walk(item, false)),
            E::Tuple(e) => e.items.iter().for_each(|item| self.walk(item, false)),
            E::Map(e) => e.keys.iter().chain(&e.values).for_each(|item| self.walk(item, false)),
        }
    }
    fn args(&mut self, args: &[ast::CallArg<'_>]) {
        for arg in args {
            match arg {
                ast::CallArg::Pos(e) | ast::CallArg::Kwarg(_, e) | ast::CallArg::PosSplat(e) | ast::CallArg::KwargSplat(e) => {
                    self.walk(e, false)
                }
            }
        }
    }
    fn refuse(&mut self, says: &str, at: Range<usize>) {
        self.wrong.get_or_insert(Wrong { says: says.to_owned(), at });
    }
}

/// `a.b.c` or `a["b"].c` as names.
fn chain(expr: &ast::Expr<'_>) -> Option<Vec<String>> {
    match expr {
        ast::Expr::Var(var) => Some(vec![var.id.to_owned()]),
        ast::Expr::GetAttr(get) => {
            let mut path = chain(&get.expr)?;
            path.push(get.name.to_owned());
            Some(path)
        }
        ast::Expr::GetItem(get) => {
            let ast::Expr::Const(key) = &get.subscript_expr else { return None };
            let mut path = chain(&get.expr)?;
            path.push(key.value.as_str()?.to_owned());
            Some(path)
        }
        _ => None,
    }
}

/// A text with `{{ expressions }}` in it.
#[derive(Clone, Debug)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
enum Piece {
    Text(String),
    Expression { expression: Expression, at: usize },
}

impl Template {
    /// Whether a text has anything to render.
    pub fn is_in(text: &str) -> bool {
        text.contains("{{")
    }
    /// Reads a text. Errors: `{{` without `}}`, or an expression that cannot be read.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let (mut pieces, mut rest) = (Vec::new(), 0);
        while let Some(open) = text[rest..].find("{{").map(|at| rest + at) {
            let inner = open + 2;
            let close = closing(&text[inner..]).map(|at| inner + at);
            let Some(close) = close else { return Err(Wrong { says: "`{{` without `}}`".into(), at: open..text.len() }) };
            if open > rest {
                pieces.push(Piece::Text(text[rest..open].to_owned()));
            }
            let expression = Expression::parse(&text[inner..close])
                .map_err(|wrong| Wrong { at: wrong.at.start + inner..wrong.at.end + inner, ..wrong })?;
            pieces.push(Piece::Expression { expression, at: inner });
            rest = close + 2;
        }
        if rest < text.len() || pieces.is_empty() {
            pieces.push(Piece::Text(text[rest..].to_owned()));
        }
        Ok(Self { pieces })
    }
    /// Every name that is used, with its bytes in the text.
    pub fn references(&self) -> Vec<Reference> {
        let mut all = Vec::new();
        for piece in &self.pieces {
            if let Piece::Expression { expression, at } = piece {
                all.extend(expression.references.iter().map(|r| Reference { at: r.at.start + at..r.at.end + at, ..r.clone() }));
            }
        }
        all
    }
    /// The value: of its own type when the text is one whole expression, else text. Nothing when it is not known yet.
    pub fn render(&self, names: &Value) -> Result<Option<Json>, Wrong> {
        let shift = |wrong: Wrong, by: usize| Wrong { at: wrong.at.start + by..wrong.at.end + by, ..wrong };
        if let [Piece::Expression { expression, at }] = self.pieces.as_slice() {
            let Some(value) = expression.eval(names).map_err(|w| shift(w, *at))? else { return Ok(None) };
            return serde_json::to_value(&value).map(Some).map_err(|e| Wrong { says: e.to_string(), at: *at..*at });
        }
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Expression { expression, at } => {
                    let Some(value) = expression.eval(names).map_err(|w| shift(w, *at))? else { return Ok(None) };
                    match value.kind() {
                        ValueKind::Bool | ValueKind::Number | ValueKind::String => out.push_str(&written(&value)),
                        _ => {
                            let says = format!("{} cannot stand within a text; use a filter such as `join` or `default`", describe(&value));
                            return Err(Wrong { says, at: *at..*at + expression.text().len() });
                        }
                    }
                }
            }
        }
        Ok(Some(Json::String(out)))
    }
}

/// The place of `}}`, outside of quoted text.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None if text[at..].starts_with("}}") => return Some(at),
            None => {}
        }
    }
    None
}

/// The names for an expression: a table of values.
pub fn names(values: BTreeMap<&str, Value>) -> Value {
    Value::from_pairs(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Value {
        names(BTreeMap::from([
            ("n", Value::from(5)),
            ("size", Value::from("200GiB")),
            ("none", Value::from(())),
            ("list", Value::from(vec![1, 2, 3])),
            ("later", unknown()),
            ("t", value(serde_json::json!({ "a": { "b": 7 }, "s": "x}}y" }))),
        ]))
    }

    #[test]
    fn what_expressions_give() {
        for (text, wanted) in [
            ("n > 4 and t.a.b == 7", Ok(Some("true"))),
            ("(n + 1) * 2 > (t.a.b)", Ok(Some("true"))),
            ("n is number", Ok(Some("true"))),
            ("list | length >= 3", Ok(Some("true"))),
            ("t.a.c | default(3) == 3", Ok(Some("true"))),
            ("none | default(3) == 3", Ok(Some("true"))),
            ("later.x.y > 3", Ok(None)),
            ("later.x > 'a' and n > 1", Ok(None)),
            ("n in list", Ok(Some("false"))),
            ("2 in list", Ok(Some("true"))),
            ("n > 9 and t.missing > 1", Ok(Some("false"))),
            ("'yes' if n > 9 else 'no'", Ok(Some("no"))),
            ("'yes' if n > 9", Err("without `else`")),
            ("(t.a.b + 1).x | default(1) > 0 and (n) > 1", Ok(Some("true"))),
            ("list == [1, 2, 3] and list != []", Ok(Some("true"))),
            ("-1 < n <= 5", Ok(Some("true"))),
            ("1 < n < '9'", Err("a number is compared with a text")),
            ("t.s > 1", Err("a text is compared with a number")),
            ("1 < t['s']", Err("a number is compared with a text")),
            ("n > 9 and t.s > 1", Err("a text is compared with a number")),
            ("size > 1", Err("a text is compared with a number")),
            ("'10' > 5", Err("a text is compared with a number")),
            ("n == true", Err("a number is compared with a bool")),
            ("5 > none", Err("a number is compared with none")),
            ("typo", Err("`typo` has no value")),
            ("t.a.c", Err("`t.a.c` has no value")),
            ("n | nofilter", Err("no filter `nofilter`")),
            ("n | rond", Err("did you mean `round`?")),
            ("range(3)", Err("no functions")),
            ("n >", Err("")),
        ] {
            let got = Expression::parse(text).and_then(|e| e.eval(&context()));
            match (got, wanted) {
                (Ok(got), Ok(wanted)) => assert_eq!(got.map(|v| written(&v)).as_deref(), wanted, "{text}"),
                (Err(wrong), Err(wanted)) => assert!(wrong.says.contains(wanted), "{text}: {}", wrong.says),
                (got, wanted) => panic!("{text}: {got:?}, wanted {wanted:?}"),
            }
        }
    }

    #[test]
    fn what_templates_give() {
        use serde_json::json;
        for (text, wanted) in [
            ("plain {% if %} {# #} text\n", Ok(json!("plain {% if %} {# #} text\n"))),
            ("{{ n }}", Ok(json!(5))),
            ("{{ list }}", Ok(json!([1, 2, 3]))),
            ("a{{ n }}b{{ t.a.b }}", Ok(json!("a5b7"))),
            ("{{ \"}}\" }}", Ok(json!("}}"))),
            ("{{ t.s }}!", Ok(json!("x}}y!"))),
            ("{{ 2048 | size }} in {{ 90 | duration }}", Ok(json!("2.0 KiB in 1m 30s"))),
            ("{{ n", Err("without `}}`")),
            ("a {{ none }}", Err("none cannot stand within a text")),
            ("a {{ list }}", Err("a list cannot stand within a text")),
        ] {
            let got = Template::parse(text).and_then(|t| t.render(&context()));
            match (got, wanted) {
                (Ok(got), Ok(wanted)) => assert_eq!(got, Some(wanted), "{text}"),
                (Err(wrong), Err(wanted)) => assert!(wrong.says.contains(wanted), "{text}: {}", wrong.says),
                (got, wanted) => panic!("{text}: {got:?}, wanted {wanted:?}"),
            }
        }
    }

    #[test]
    fn references_have_a_place_and_know_of_a_default() {
        let template = Template::parse("x{{ steps.a.b | default(0) }}{{ steps['c'].d + params.e }}").unwrap();
        let found: Vec<_> = template.references().into_iter().map(|r| (r.path.join("."), r.defaulted, r.at)).collect();
        assert_eq!(found[0], ("steps.a.b".into(), true, 4..13));
        assert_eq!((found[1].0.as_str(), found[1].1), ("steps.c.d", false));
        assert_eq!(found[2].0, "params.e");
    }
}
