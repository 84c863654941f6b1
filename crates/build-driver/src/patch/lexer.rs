//! A lexer for the little of C that decides where a preprocessor line can stand.

/// The lexer's state at the start of a line.
#[derive(Clone, Debug, Default)]
pub(super) struct LexerState {
    /// True if a directive can stand before this line.
    pub(super) safe: bool,
    /// The `#if` branches around the line, outermost first. Each branch has a unique number.
    pub(super) branches: Vec<u32>,
}

/// A minimal lexer for C: comments, strings, character literals, parentheses, preprocessor lines.
#[derive(Default)]
pub(super) struct Lexer {
    in_comment: bool,
    in_directive: bool,
    continued: bool,
    quote: Option<u8>,
    depth: u32,
    branches: Vec<u32>,
    /// The parenthesis depth at each open `#if`.
    depths: Vec<u32>,
    branch_count: u32,
}

impl Lexer {
    /// The state at the start of each line.
    pub(super) fn states(lines: &[&str]) -> Vec<LexerState> {
        let mut lexer = Lexer::default();
        lines
            .iter()
            .map(|line| {
                let safe = !lexer.in_comment && !lexer.continued && lexer.quote.is_none() && lexer.depth == 0;
                let state = LexerState { safe, branches: lexer.branches.clone() };
                lexer.line(line.trim_end_matches(['\n', '\r']));
                state
            })
            .collect()
    }

    fn line(&mut self, line: &str) {
        let starts_fresh = !self.continued && !self.in_comment;
        if starts_fresh {
            self.quote = None;
            let trimmed = line.trim_start();
            self.in_directive = trimmed.starts_with('#');
            if self.in_directive {
                self.conditional(trimmed[1..].trim_start());
            } else if line.starts_with('}') && !line.starts_with("})") {
                // A brace in the first column ends a function. Anything that was still open was misread.
                self.depth = 0;
            }
        }
        self.text(line.as_bytes());
        self.continued = line.ends_with('\\');
        if !self.continued {
            self.quote = None;
            if !self.in_comment {
                self.in_directive = false;
            }
        }
    }

    fn text(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let (byte, next) = (bytes[at], bytes.get(at + 1));
            if self.in_comment {
                if byte == b'*' && next == Some(&b'/') {
                    self.in_comment = false;
                    at += 1;
                }
            } else if let Some(quote) = self.quote {
                if byte == b'\\' {
                    at += 1;
                } else if byte == quote {
                    self.quote = None;
                }
            } else {
                match byte {
                    b'/' if next == Some(&b'*') => {
                        self.in_comment = true;
                        at += 1;
                    }
                    b'/' if next == Some(&b'/') => return,
                    b'"' | b'\'' => self.quote = Some(byte),
                    b'(' if !self.in_directive => self.depth += 1,
                    b')' if !self.in_directive => self.depth = self.depth.saturating_sub(1),
                    _ => {}
                }
            }
            at += 1;
        }
    }

    /// Handles `#if`, `#else` and `#endif`. Each branch starts at the parenthesis depth of its `#if`.
    fn conditional(&mut self, directive: &str) {
        let word: String = directive.chars().take_while(char::is_ascii_alphanumeric).collect();
        self.branch_count += 1;
        match word.as_str() {
            "if" | "ifdef" | "ifndef" => {
                self.branches.push(self.branch_count);
                self.depths.push(self.depth);
            }
            "elif" | "else" | "elifdef" | "elifndef" => {
                if let (Some(branch), Some(depth)) = (self.branches.last_mut(), self.depths.last()) {
                    *branch = self.branch_count;
                    self.depth = *depth;
                }
            }
            "endif" => {
                self.branches.pop();
                self.depths.pop();
            }
            _ => {}
        }
    }
}
