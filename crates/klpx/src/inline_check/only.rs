//! Selects functions by a user's words: names, patterns with `*` and `?`, and files of names and patterns.

use std::path::Path;

use klpx_diagnosis::Result;
use wildmatch::WildMatch;

/// A selection of functions by name.
pub(super) struct Only {
    patterns: Vec<WildMatch>,
}

impl Only {
    /// Reads the words of a command line. The name of a file stands for the lines in it; a line that begins with `#` is
    /// a comment. Without any word, all functions are selected.
    pub(super) fn read(words: &[String]) -> Result<Only> {
        let mut patterns = Vec::new();
        for word in words {
            let path = Path::new(word);
            if !path.is_file() {
                patterns.push(WildMatch::new(word));
                continue;
            }
            let text = klpx_input::text(path)?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            patterns.extend(lines.map(WildMatch::new));
        }
        // An empty file selects no function.
        if patterns.is_empty() && words.is_empty() {
            patterns.push(WildMatch::new("*"));
        }
        Ok(Only { patterns })
    }

    /// Returns true if a function is selected.
    pub(super) fn has(&self, name: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_names() {
        for (pattern, name, yes) in [
            ("md_run", "md_run", true),
            ("md_run", "md_run2", false),
            ("md_*", "md_run", true),
            ("md_*", "xmd_run", false),
            ("*_run", "md_run", true),
            ("*a*b", "aXbXab", true),
            ("*a*b", "aXbXa", false),
            ("m?_run", "md_run", true),
            ("m?", "m", false),
            ("*", "", true),
        ] {
            let only = Only::read(&[pattern.to_owned()]).expect("a pattern");
            assert_eq!(only.has(name), yes, "{pattern} {name}");
        }
    }

    #[test]
    fn a_file_names_one_function_on_each_line() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("traced");
        std::fs::write(&file, "# what I trace\nmd_run\n\ntcp_*\n").expect("file");
        let only = Only::read(&[file.display().to_string(), "alone".to_owned()]).expect("read");
        assert_eq!(
            ["md_run", "tcp_ack", "alone", "mmput"].map(|name| only.has(name)),
            [true, true, true, false]
        );
        assert!(Only::read(&[]).expect("nothing").has("mmput"));
    }
}
