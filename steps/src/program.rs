//! What `command`, `shell` and `wait` share: from settings to a program, and from its end to outputs.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    process::{Exit, Program},
    setting::Secret,
    step::Error,
};

/// Characters of output that an output holds; the whole is in the record's files.
const CAP: usize = 64 << 10;

/// How a program's output is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Parse {
    /// As one text.
    #[default]
    Text,
    /// As a list of lines.
    Lines,
    /// As JSON.
    Json,
}

/// What a program gave.
#[derive(Serialize, JsonSchema)]
pub struct Ran {
    /// Its exit status.
    pub exit_code: i32,
    /// Its output without the last newline; a long one is cut in the middle.
    pub stdout: String,
    /// Its error output without the last newline; a long one is cut in the middle.
    pub stderr: String,
    /// Its output as lines, with `parse = "lines"`.
    pub lines: Option<Vec<String>>,
    /// Its output as JSON, with `parse = "json"`.
    pub json: Option<Value>,
    /// How long it ran, in seconds.
    pub duration_s: f64,
}

/// A program from settings.
pub(crate) fn program(
    argv: Vec<String>,
    env: &BTreeMap<String, Secret>,
    stdin: Option<&Secret>,
    directory: Option<&PathBuf>,
    stdout_to: Option<&PathBuf>,
    user: Option<&String>,
) -> Program {
    Program {
        argv,
        env: env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        stdin: stdin.cloned(),
        directory: directory.cloned(),
        stdout_to: stdout_to.cloned(),
        user: user.cloned(),
        unrecorded: false,
    }
}

/// Outputs from a program's end. Errors: its exit status is not among `success`, or its output cannot be read as wanted.
pub(crate) fn outputs(name: &str, exit: Exit, success: &[i32], parse: Parse) -> Result<Ran, Error> {
    let Some(code) = exit.code.filter(|code| success.contains(code)) else { return Err(failure(name, &exit)) };
    let stdout = trimmed(&exit.stdout);
    let json = match parse {
        Parse::Json => Some(serde_json::from_str(&exit.stdout).map_err(|e| Error::Final(format!("the output of `{name}` is not JSON: {e}")))?),
        Parse::Text | Parse::Lines => None,
    };
    let lines = (parse == Parse::Lines).then(|| stdout.lines().map(str::to_owned).collect());
    Ok(Ran { exit_code: code, stdout: capped(stdout), stderr: capped(trimmed(&exit.stderr)), lines, json, duration_s: exit.duration.as_secs_f64() })
}

fn failure(name: &str, exit: &Exit) -> Error {
    let how = match (exit.code, exit.signal) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}{}", if signal == 9 { " (KILL: perhaps out of memory)" } else { "" }),
        (None, None) => "ended in an unknown way".to_owned(),
    };
    let last: Vec<&str> = exit.stderr.trim_end().lines().rev().take(5).collect();
    let said = last.into_iter().rev().collect::<Vec<_>>().join("\n");
    let says = if said.is_empty() { format!("`{name}` {how} and said nothing") } else { format!("`{name}` {how}: {said}") };
    Error::Exit { code: exit.code, says }
}

fn trimmed(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

/// A text of at most [`CAP`] bytes, its middle left out.
fn capped(text: &str) -> String {
    if text.len() <= CAP {
        return text.to_owned();
    }
    let (head, tail) = (text.floor_char_boundary(CAP / 2), text.ceil_char_boundary(text.len() - CAP / 2));
    format!("{}\n… {} bytes left out …\n{}", &text[..head], tail - head, &text[tail..])
}

/// The words of a command as a shell would want them: for eyes, never for a shell.
pub(crate) fn shown(argv: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    let word = |w: &String| if !w.is_empty() && w.chars().all(plain) { w.clone() } else { format!("'{}'", w.replace('\'', "'\\''")) };
    argv.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32, stdout: &str) -> Exit {
        Exit { code: Some(code), signal: None, stdout: stdout.into(), stderr: "one\ntwo\n".into(), duration: std::time::Duration::from_secs(1) }
    }

    #[test]
    fn what_a_program_gives() {
        assert_eq!(outputs("x", exit(0, "a\n\n"), &[0], Parse::Text).map(|r| r.stdout).unwrap(), "a\n");
        assert_eq!(outputs("x", exit(3, "a\nb\n"), &[0, 3], Parse::Lines).map(|r| r.lines).unwrap(), Some(vec!["a".into(), "b".into()]));
        assert_eq!(outputs("x", exit(0, "{\"n\":1}"), &[0], Parse::Json).map(|r| r.json).unwrap(), Some(serde_json::json!({ "n": 1 })));
        let Err(Error::Exit { code, says }) = outputs("x", exit(1, ""), &[0], Parse::Text) else { panic!() };
        assert_eq!((code, says.as_str()), (Some(1), "`x` ended with exit status 1: one\ntwo"));
        assert!(outputs("x", exit(0, "{"), &[0], Parse::Json).is_err());
        assert!(capped(&"ü".repeat(CAP)).len() < CAP + 100);
    }

    #[test]
    fn words_are_shown_as_a_shell_would_want_them() {
        assert_eq!(shown(&["a-b".into(), "c d".into(), "e'f".into(), String::new()]), "a-b 'c d' 'e'\\''f' ''");
    }
}
