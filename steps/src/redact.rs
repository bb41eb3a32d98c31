//! Takes secrets out of everything that leaves a child or enters a record: raw, base64, URL and JSON escaped, also when
//! split over chunks. Unaware of where secrets come from and of where text goes.

use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, MatchKind};

/// What stands in a secret's place.
pub const REDACTED: &str = "‹secret›";

/// Knows the secrets of a run in every form in which they might be written.
#[derive(Default)]
pub struct Redactor {
    search: Option<AhoCorasick>,
    longest: usize,
}

impl Redactor {
    /// A redactor for these secrets.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut forms = BTreeSet::new();
        for secret in secrets.into_iter().filter(|s| !s.is_empty()) {
            forms.extend(spellings(secret));
        }
        if forms.is_empty() {
            return Self::default();
        }
        let longest = forms.iter().map(Vec::len).max().unwrap_or(0);
        let search = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&forms);
        Self { search: Some(search.expect("a set of short texts")), longest }
    }
    /// The text without secrets.
    pub fn text(&self, text: &str) -> String {
        match &self.search {
            None => text.to_owned(),
            Some(search) => search.replace_all_with_string(text),
        }
    }
    /// Every string of a value without secrets.
    pub fn value(&self, value: &mut serde_json::Value) {
        use serde_json::Value;
        if self.search.is_none() {
            return;
        }
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(fields) => fields.values_mut().for_each(|field| self.value(field)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

trait Replace {
    fn replace_all_with_string(&self, text: &str) -> String;
}

impl Replace for AhoCorasick {
    fn replace_all_with_string(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        self.replace_all_with(text, &mut out, |_, _, out| {
            out.push_str(REDACTED);
            true
        });
        out
    }
}

/// A stream of bytes from which secrets are taken, whatever the chunks.
pub struct Stream<'r> {
    redactor: &'r Redactor,
    held: Vec<u8>,
}

impl<'r> Stream<'r> {
    /// A stream through this redactor.
    pub fn new(redactor: &'r Redactor) -> Self {
        Self { redactor, held: Vec::new() }
    }
    /// Takes a chunk and gives what is sure: the end is held back while a secret might begin in it.
    pub fn feed(&mut self, chunk: &[u8]) -> Vec<u8> {
        let Some(search) = &self.redactor.search else { return chunk.to_vec() };
        self.held.extend_from_slice(chunk);
        let sure = self.held.len().saturating_sub(self.redactor.longest - 1);
        let (mut out, mut done) = (Vec::new(), 0);
        for found in search.find_iter(&self.held) {
            if found.start() >= sure {
                break;
            }
            out.extend_from_slice(&self.held[done..found.start()]);
            out.extend_from_slice(REDACTED.as_bytes());
            done = found.end();
        }
        if sure > done {
            out.extend_from_slice(&self.held[done..sure]);
            done = sure;
        }
        self.held.drain(..done);
        out
    }
    /// What was held back.
    pub fn end(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        let Some(search) = &self.redactor.search else { return held };
        let mut out = Vec::new();
        search.replace_all_with_bytes(&held, &mut out, |_, _, out| {
            out.extend_from_slice(REDACTED.as_bytes());
            true
        });
        out
    }
}

/// The forms in which a secret might be written. Base64 is given at the three alignments it can have within longer data.
fn spellings(secret: &str) -> Vec<Vec<u8>> {
    let mut forms = vec![secret.as_bytes().to_vec()];
    forms.push(url(secret, false).into_bytes());
    forms.push(url(secret, true).into_bytes());
    let json = serde_json::Value::from(secret).to_string();
    forms.push(json.as_bytes()[1..json.len() - 1].to_vec());
    for alphabet in [STANDARD, URL_SAFE] {
        forms.extend((0..3).map(|shift| base64_core(secret.as_bytes(), shift, alphabet)).filter(|form| form.len() >= 6));
    }
    forms.extend(secret.lines().filter(|line| line.len() >= 6).map(|line| line.as_bytes().to_vec()));
    forms
}

fn url(text: &str, plus: bool) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            b' ' if plus => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The base64 digits that depend on the secret alone when it begins `shift` bytes into a group of three.
fn base64_core(bytes: &[u8], shift: usize, alphabet: &[u8; 64]) -> Vec<u8> {
    let bits = bytes.len() * 8;
    let bit = |at: usize| usize::from(bytes[at / 8] >> (7 - at % 8) & 1);
    let first = (6 - (shift * 8) % 6) % 6;
    (first..).step_by(6).take_while(|at| at + 6 <= bits).map(|at| alphabet[(0..6).fold(0, |digit, i| digit << 1 | bit(at + i))]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "s3cr&t \"pass\"wörd";

    #[test]
    fn every_split_and_spelling_is_taken_out() {
        let redactor = Redactor::new([SECRET]);
        for form in spellings(SECRET) {
            let line = [b"<", form.as_slice(), b">"].concat();
            for split in 0..line.len() {
                let mut stream = Stream::new(&redactor);
                let mut out = stream.feed(&line[..split]);
                out.extend(stream.feed(&line[split..]));
                out.extend(stream.end());
                assert_eq!(String::from_utf8_lossy(&out), format!("<{REDACTED}>"), "{}", String::from_utf8_lossy(&form));
            }
        }
    }

    #[test]
    fn base64_within_longer_data_is_taken_out() {
        // `printf 'user:hunter2hunter' | base64` and the same with one and two bytes before it.
        let redactor = Redactor::new(["hunter2hunter"]);
        for line in ["dXNlcjpodW50ZXIyaHVudGVy", "eHVzZXI6aHVudGVyMmh1bnRlcg==", "eHh1c2VyOmh1bnRlcjJodW50ZXI="] {
            assert!(redactor.text(line).contains(REDACTED), "{line}");
        }
    }

    #[test]
    fn other_text_stays() {
        assert_eq!(Redactor::new([SECRET]).text("nothing here"), "nothing here");
        assert_eq!(Redactor::default().text("nothing here"), "nothing here");
    }
}
