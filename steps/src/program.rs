//! What `command`, `shell` and `wait` share: from an exit to outputs, or to an error with its sentence. Unaware of their settings.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    process::{Exit, Program},
    setting::Secret,
    step::{Error, Tool},
    world::{View, World},
};

/// Bytes of one stream that become an output; the record's files hold more.
const OUTPUT: usize = 64 << 10;
/// Lines of the error output that an error repeats.
const LAST_LINES: usize = 5;
/// Characters of each of them.
const LINE: usize = 300;

/// How the output of a program is read.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Parse {
    /// As text: `stdout`.
    #[default]
    Text,
    /// Also as a list of lines: `lines`.
    Lines,
    /// Also as one JSON value: `json`.
    Json,
}

/// Where the program was found.
#[derive(Serialize, Deserialize)]
pub(crate) struct Found {
    program: PathBuf,
}

/// What a program gave.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Ran {
    /// Its exit code.
    pub(crate) exit_code: i32,
    /// Its output without the last newline, secrets taken out; of more than 64 KiB the beginning and the end, with a line between them that says so.
    pub(crate) stdout: String,
    /// Its error output, in the same way.
    pub(crate) stderr: String,
    /// The lines of its output; null unless `parse` is `lines`.
    pub(crate) lines: Option<Vec<String>>,
    /// The value of its output; null unless `parse` is `json`.
    pub(crate) json: Option<Value>,
    /// Seconds from its start to its end.
    pub(crate) duration_s: f64,
}

/// Finds the program, so that a missing one is said before anything is done.
pub(crate) fn find(view: &View, argv: &[String]) -> Result<Found, Error> {
    match argv.first() {
        Some(name) if !name.is_empty() => Ok(Found { program: view.program(name)? }),
        _ => Err(Error::Final("the program's name is empty; a template may have given no text".into())),
    }
}

/// Runs a program to its end. Errors: it ended otherwise than with a code of `success`, or its output cannot be read.
/// `name` is what people know it by.
pub(crate) async fn run(world: &World, name: &str, mut program: Program, parse: Parse, success: &[u8]) -> Result<Ran, Error> {
    let file = program.stdout_to.take();
    if let Some(file) = &file
        && world.symlink_metadata(file)?.is_some_and(|there| !there.is_file())
    {
        return Err(Error::Final(format!("{} is no plain file: `stdout_to` would put one in its place", world.path(file).display())));
    }
    let part = file.as_deref().map(part_of);
    program.stdout_to.clone_from(&part);
    let ran = match world.run(program).await {
        Ok(exit) => judge(name, exit, success).and_then(|exit| outputs(name, exit, parse)),
        Err(e) => Err(e),
    };
    if let (Some(file), Some(part)) = (file, part) {
        // What a failed program put out must not pass for a dump.
        if ran.is_ok() { world.rename(part, file)? } else { world.remove_file(part)? }
    }
    ran
}

/// Takes away what a run that was cut off may have left beside `stdout_to`.
pub(crate) fn tidy(world: &World, stdout_to: Option<&Path>) -> Result<(), Error> {
    stdout_to.map_or(Ok(()), |file| world.remove_file(part_of(file)))
}

/// What is wrong with settings that only together are wrong, and with names.
pub(crate) fn check(env: &BTreeMap<String, Secret>, parse: Parse, stdout_to: Option<&Path>) -> Result<(), String> {
    if let Some(name) = env.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
        return Err(format!("`{name}` is not a name that an environment variable can have"));
    }
    match (parse, stdout_to) {
        (Parse::Lines | Parse::Json, Some(_)) => {
            Err("`parse` reads the output and `stdout_to` sends it to a file; leave one of them out".into())
        }
        _ => Ok(()),
    }
}

/// The program of an argument list, with its package where that is known.
pub(crate) fn tool(argv: &[String]) -> Vec<Tool> {
    argv.iter().take(1).map(|name| Tool { name: name.clone(), package: crate::package_of(name) }).collect()
}

/// The outputs of an exit, whatever its code. Errors: the output is not what `parse` wants.
pub(crate) fn outputs(name: &str, exit: Exit, parse: Parse) -> Result<Ran, Error> {
    if parse != Parse::Text && exit.left_out > 0 {
        let bytes = exit.left_out + exit.stdout.len() as u64;
        return Err(Error::Final(format!(
            "{name} put out about {bytes} bytes, more than `parse` can take; send it to a file by `stdout_to`"
        )));
    }
    let lines = (parse == Parse::Lines).then(|| exit.stdout.lines().map(str::to_owned).collect());
    let json = if parse == Parse::Json { Some(json(name, &exit.stdout)?) } else { None };
    let duration_s = exit.duration.as_secs_f64();
    Ok(Ran { exit_code: exit.code.unwrap_or(-1), stdout: capped(exit.stdout), stderr: capped(exit.stderr), lines, json, duration_s })
}

/// One line that shows an argument list as a shell would take it: for eyes, never for a shell.
pub(crate) fn shown(argv: &[String]) -> String {
    argv.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// In the same directory, so that it can take its place in one move.
fn part_of(file: &Path) -> PathBuf {
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    part.into()
}

fn judge(name: &str, exit: Exit, success: &[u8]) -> Result<Exit, Error> {
    match exit.code {
        Some(code) if success.iter().any(|good| i32::from(*good) == code) => Ok(exit),
        code => Err(Error::Exit { code, says: failure(name, &exit, success) }),
    }
}

fn failure(name: &str, exit: &Exit, success: &[u8]) -> String {
    let mut says = format!("{name} ended with {}", exit.how());
    if success != [0] && exit.code.is_some() {
        let good: Vec<String> = success.iter().map(u8::to_string).collect();
        says += &format!(", where success is {}", good.join(" or "));
    }
    if exit.signal == Some(9) {
        says += "; somebody killed it, or the kernel did for want of memory: `journalctl -k` tells";
    }
    let (what, last) = match last_lines(&exit.stderr) {
        last if last.is_empty() => ("output", last_lines(&exit.stdout)),
        last => ("error output", last),
    };
    match last.as_slice() {
        [] => says + "; it wrote nothing",
        [one] => says + ": " + one,
        several => format!("{says}; its {what} ends with:\n  {}", several.join("\n  ")),
    }
}

/// The last lines that hold anything, without what would move a terminal's cursor.
fn last_lines(text: &str) -> Vec<String> {
    let mut last: Vec<String> = text.lines().rev().filter(|line| !line.trim().is_empty()).take(LAST_LINES).map(tame).collect();
    last.reverse();
    last
}

fn tame(line: &str) -> String {
    let mut shown = line.trim_end().chars().filter(|c| !c.is_control() || *c == '\t');
    let short: String = shown.by_ref().take(LINE).collect();
    if shown.next().is_some() { short + "…" } else { short }
}

fn json(name: &str, text: &str) -> Result<Value, Error> {
    if text.trim().is_empty() {
        return Err(Error::Final(format!("{name} put out nothing, where `parse = \"json\"` wants a value")));
    }
    serde_json::from_str(text).map_err(|e| Error::Final(format!("what {name} put out is not JSON: {e}")))
}

/// Without the last newline; of a long text the beginning and the end.
fn capped(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.len() <= OUTPUT {
        return text;
    }
    let head = (0..=OUTPUT / 2).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let tail = (text.len() - OUTPUT / 2..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    format!("{}\n… {} bytes left out …\n{}", &text[..head], tail - head, &text[tail..])
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else if word.chars().any(char::is_control) {
        let escape = |c: char| if c.is_control() || c == '\'' || c == '\\' { c.escape_default().to_string() } else { c.to_string() };
        format!("$'{}'", word.chars().map(escape).collect::<String>())
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: Option<i32>, stdout: &str, stderr: &str) -> Exit {
        let (stdout, stderr) = (stdout.to_owned(), stderr.to_owned());
        Exit { code, signal: code.is_none().then_some(9), stdout, stderr, left_out: 0, duration: std::time::Duration::from_secs(1) }
    }
    fn read(stdout: &str, parse: Parse) -> Result<Ran, Error> {
        outputs("`x`", exit(Some(0), stdout, ""), parse)
    }

    #[test]
    fn one_newline_is_cut_and_a_long_text_says_that_it_was() {
        for (given, text) in [("a\n\n", "a\n"), ("a\r\n", "a"), ("a", "a"), ("\n", ""), ("", "")] {
            assert_eq!(read(given, Parse::Text).unwrap().stdout, text);
        }
        let long = read(&"ü".repeat(OUTPUT), Parse::Text).unwrap().stdout;
        assert!(long.len() < OUTPUT + 100 && long.contains("\n… 65536 bytes left out …\n"));
    }

    #[test]
    fn lines_and_json_are_whole_or_an_error() {
        assert_eq!(read("a\n\nb\r\n", Parse::Lines).unwrap().lines.unwrap(), ["a", "", "b"]);
        assert_eq!(read("", Parse::Lines).unwrap().lines.unwrap(), [""; 0]);
        assert_eq!(read(" {\"n\": 1}\n", Parse::Json).unwrap().json, Some(serde_json::json!({ "n": 1 })));
        for (given, why) in [("{\n  1}", "line 2 column 3"), ("1 2", "trailing characters at line 1 column 3"), ("\n", "put out nothing")] {
            assert!(matches!(read(given, Parse::Json), Err(Error::Final(says)) if says.contains(why)), "{given}");
        }
        let cut = Exit { left_out: 7, ..exit(Some(0), "[]", "") };
        assert!(matches!(outputs("`x`", cut, Parse::Json), Err(Error::Final(says)) if says.contains("stdout_to")));
    }

    #[test]
    fn a_failure_says_how_it_ended_and_what_it_said_last() {
        let says = |exit: Exit, success: &[u8]| judge("`x`", exit, success).err().unwrap().says().to_owned();
        assert_eq!(says(exit(Some(1), "out", "bad\u{1b}[31m thing\n\n"), &[0]), "`x` ended with exit status 1: bad[31m thing");
        let many: String = (1..9).map(|n| format!("{n}\n")).collect();
        assert_eq!(
            says(exit(Some(2), "", &many), &[0]),
            "`x` ended with exit status 2; its error output ends with:\n  4\n  5\n  6\n  7\n  8"
        );
        assert_eq!(says(exit(Some(0), "", ""), &[1, 3]), "`x` ended with exit status 0, where success is 1 or 3; it wrote nothing");
        assert!(says(exit(None, "", ""), &[0]).starts_with("`x` ended with signal 9 (KILL); somebody killed it"));
        assert!(says(exit(Some(1), "", &"y".repeat(999)), &[0]).chars().count() < LINE + 50);
        assert!(judge("`x`", exit(Some(3), "", ""), &[0, 3]).is_ok());
    }

    #[test]
    fn words_are_shown_as_a_shell_would_take_them() {
        let argv = ["a-b", "c d", "e'f", "", "g\nh\u{1b}'", "ä"].map(str::to_owned);
        assert_eq!(shown(&argv), r"a-b 'c d' 'e'\''f' '' $'g\nh\u{1b}\'' 'ä'");
    }
}
