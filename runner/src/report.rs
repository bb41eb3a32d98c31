//! A run for people and for other programs: each format is a reader of the folded events. Unaware of the engine.

pub mod draw;
pub mod json;
pub mod junit;
pub mod line;
pub mod schema;
pub mod text;

/// A text that cannot move the cursor, change colours or imitate other lines: control and bidi characters are shown.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push('\n'),
            '\t' => out.push(' '),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push_str(&c.escape_default().to_string()),
            c => out.push(c),
        }
    }
    out
}

/// The same on one line.
pub fn plain_line(text: &str) -> String {
    plain(text).replace('\n', " ⏎ ")
}
