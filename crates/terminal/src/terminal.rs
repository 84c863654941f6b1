//! Output to the terminal. Text from files can't move the cursor, change colours or the order of letters, or start a
//! line or column.

use std::borrow::Cow;
use std::io::Write;

/// Text for a place within a line. Escapes every character that a terminal acts on.
pub fn word(text: &str) -> Cow<'_, str> {
    shown(text, |c, _| !acts(c))
}

/// Text of several lines. Line ends and tabs stay.
pub fn lines(text: &str) -> Cow<'_, str> {
    // A line of CSV ends with two characters.
    shown(text, |c, next| !acts(c) || c == '\n' || c == '\t' || c == '\r' && next == Some('\n'))
}

/// JSON with the characters that a terminal acts on escaped in JSON's way. Only its strings contain these characters.
pub fn json(text: &str) -> Cow<'_, str> {
    let plain = |c: char| !acts(c) || c == '\n';
    if text.chars().all(plain) {
        return Cow::Borrowed(text);
    }
    let escaped = |c: char| if plain(c) { c.to_string() } else { format!("\\u{:04x}", u32::from(c)) };
    Cow::Owned(text.chars().map(escaped).collect())
}

fn shown(text: &str, plain: impl Fn(char, Option<char>) -> bool) -> Cow<'_, str> {
    let pairs = || text.chars().zip(text.chars().skip(1).map(Some).chain([None]));
    if pairs().all(|(c, next)| plain(c, next)) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for (c, next) in pairs() {
        match plain(c, next) {
            true => safe.push(c),
            false => safe.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(safe)
}

/// Returns true for a character that a terminal acts on: controls, and characters that reverse the order of text.
fn acts(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Standard output. A reader that has gone away (`klpx diff ... | head`) is no failure.
pub struct Output<W> {
    to: W,
    /// The first bytes of a character, or of a line end, whose rest has not arrived.
    cut: Vec<u8>,
}

impl<W: Write> Output<W> {
    /// A writer that passes text on to `to`, with everything that a terminal acts on escaped.
    pub fn new(to: W) -> Output<W> {
        Output { to, cut: Vec::new() }
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut text = std::mem::take(&mut self.cut);
        text.extend_from_slice(bytes);
        if let Err(error) = std::str::from_utf8(&text)
            && error.error_len().is_none()
        {
            self.cut = text.split_off(error.valid_up_to());
        }
        if text.last() == Some(&b'\r') {
            self.cut.insert(0, b'\r');
            text.pop();
        }
        match self.to.write_all(lines(&String::from_utf8_lossy(&text)).as_bytes()) {
            Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e),
            _ => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self.to.flush() {
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_does_nothing_to_a_terminal() {
        for (name, shown) in [
            ("md_run", "md_run"),
            ("f.part.0", "f.part.0"),
            ("\u{1b}]0;owned\u{7}", "\\u{1b}]0;owned\\u{7}"),
            ("a\u{9b}31m", "a\\u{9b}31m"),
            ("a\u{202e}b", "a\\u{202e}b"),
            ("a\tb\nc", "a\\u{9}b\\u{a}c"),
            ("ünïcode", "ünïcode"),
        ] {
            assert_eq!(word(name), shown);
        }
        assert_eq!(json("{\n\"a\": \"\u{9b}\u{202e}\u{7f}\"}"), "{\n\"a\": \"\\u009b\\u202e\\u007f\"}");
        assert_eq!(lines("a\tb\r\n\u{1b}[2J\rx"), "a\tb\r\n\\u{1b}[2J\\u{d}x");
    }

    #[test]
    fn output_is_safe_wherever_it_is_cut() {
        let text = "ä\u{9b}1m\u{1b}[0m\u{202e}€\r\n";
        for chunk in 1..text.len() {
            let mut out = Output::new(Vec::new());
            for part in text.as_bytes().chunks(chunk) {
                out.write_all(part).expect("written");
            }
            assert_eq!(String::from_utf8_lossy(&out.to), "ä\\u{9b}1m\\u{1b}[0m\\u{202e}€\r\n", "{chunk}");
        }
    }
}
