//! `#line` directives in patched C files, so that the lines below a hunk keep their numbers. Works on text only,
//! without IO.
//!
//! `__LINE__` is in the code: WARN_ON, BUG_ON, pr_debug, initcall names. Without directives, a patch that adds a line
//! at the top of a file would change every function below that uses one of these macros.

use std::ops::Range;

use diffy::DiffOptions;

use super::lexer::{Lexer, LexerState};

/// A patched text with its directives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// The patched text with directives.
    pub text: String,
    /// Lines of the original (from 1) at which wrong numbers begin because no directive could be placed.
    pub unplaced: Vec<u32>,
    /// The edited lines, as the compiler numbers them.
    pub edited: Vec<Range<u32>>,
    /// The lines of the original (from 1) that the patch removes or replaces. An empty range marks a place where lines
    /// are added before its line.
    pub replaced: Vec<Range<u32>>,
    /// The lines of the original (from 1) that the patched text lacks.
    pub removed: Vec<Range<u32>>,
    /// The lines that the original lacks: the compiler's number and the text of each.
    pub added: Vec<(u32, String)>,
}

/// Adds `#line` directives to `patched`. Every line that is also in `original` keeps its number there, from the first
/// possible place for a directive after each change.
pub fn number(original: &str, patched: &str) -> Numbered {
    let edits = edits(original, patched);
    let lines: Vec<&str> = patched.split_inclusive('\n').collect();
    let states = Lexer::states(&lines);
    let mut out = String::with_capacity(patched.len() + 64);
    let (mut unplaced, mut edited) = (Vec::new(), Vec::new());
    let originals: Vec<&str> = original.split_inclusive('\n').collect();
    let replaced =
        edits.iter().enumerate().map(|(n, edit)| edit.replaced(&originals, &lines, edits.get(n + 1)));
    let replaced = replaced.collect();
    let removed = edits.iter().map(Edit::removed).collect();
    let mut added = Vec::new();
    let mut copied = 0;
    let mut scan = DirectiveScan::default();
    for (n, edit) in edits.iter().enumerate() {
        edited.push(edit.lines(scan.offset));
        let texts = lines.iter().skip(edit.new_start).take(edit.new_len);
        added.extend((edit.lines(scan.offset).start..).zip(texts.map(|text| (*text).to_owned())));
        scan.offset += edit.new_len as i64 - edit.old_len as i64;
        let end = edits.get(n + 1).map_or(lines.len(), |next| next.new_start);
        let begin = edit.new_start + edit.new_len;
        // Line `at` of the patched text is line `original_of(at)` of the original. Both count from 0.
        let original_of = |at: usize| edit.old_start + edit.old_len + (at - begin);
        for at in scan.places(&states, begin, end) {
            out.extend(lines[copied..at].iter().copied());
            copied = at;
            out.push_str(&format!("#line {}\n", original_of(at) + 1));
        }
        if scan.offset != 0 && begin < end {
            unplaced.push(u32::try_from(original_of(begin) + 1).unwrap_or(u32::MAX));
        }
    }
    out.extend(lines[copied..].iter().copied());
    Numbered { text: out, unplaced, edited, replaced, removed, added }
}

/// A run of differing lines: `old_len` lines at `old_start` became `new_len` lines at `new_start` (from 0).
struct Edit {
    old_start: usize,
    old_len: usize,
    new_start: usize,
    new_len: usize,
}

impl Edit {
    /// The lines of the edit as the compiler numbers them, if earlier numbers are too high by `offset`. A pure deletion
    /// is at the following line.
    fn lines(&self, offset: i64) -> Range<u32> {
        let start = self.old_start as i64 + 1 + offset;
        let line = |n: i64| u32::try_from(n.max(1)).unwrap_or(u32::MAX);
        line(start)..line(start + self.old_len.max(self.new_len).max(1) as i64)
    }

    /// The lines of the edit in the original, as the diff gives them.
    fn removed(&self) -> Range<u32> {
        let line = |n: usize| u32::try_from(n + 1).unwrap_or(u32::MAX);
        line(self.old_start)..line(self.old_start + self.old_len)
    }

    /// The lines of the edit in the original. If a function is added or removed below another function, a diff can
    /// place the edit inside the other function, because both end with the same brace. Of all equivalent places, the
    /// last counts.
    fn replaced(&self, old: &[&str], new: &[&str], next: Option<&Edit>) -> Range<u32> {
        let moves = match (self.old_len, self.new_len) {
            (0, length) => slide(new, self.new_start, length, next.map(|next| next.new_start)),
            (length, 0) => slide(old, self.old_start, length, next.map(|next| next.old_start)),
            _ => 0,
        };
        let line = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let start = self.old_start + moves + 1;
        line(start)..line(start + self.old_len)
    }
}

/// The number of lines by which a run can move down in a text without changing the result, up to the next edit.
fn slide(lines: &[&str], start: usize, length: usize, limit: Option<usize>) -> usize {
    let end = limit.unwrap_or(lines.len()).min(lines.len());
    let same = |&at: &usize| lines[at] == lines[at - length];
    (start + length..end).take_while(same).count()
}

/// The last line (from 1) of the function that is declared in line `first` of a text. `next` is the line that declares
/// the next function. The last line before `next` with a brace in the first column ends the function. Without such a
/// brace, the function extends to `next`.
pub fn end_of_function(text: &str, first: u32, next: Option<u32>) -> u32 {
    let before = next.map_or(u32::MAX, |next| next.saturating_sub(1)).max(first);
    let numbered = (1..=before).zip(text.lines()).skip(first.saturating_sub(1) as usize);
    let braces = numbered.filter(|(_, line)| line.starts_with('}')).map(|(number, _)| number);
    braces.last().unwrap_or(before)
}

fn edits(original: &str, patched: &str) -> Vec<Edit> {
    let patch = DiffOptions::new().set_context_len(0).create_patch(original, patched).to_string();
    patch.lines().filter_map(hunk_header).collect()
}

/// Parses `@@ -A,B +C,D @@`. A missing length means 1. An empty range names the line before it.
fn hunk_header(line: &str) -> Option<Edit> {
    let (old, rest) = line.strip_prefix("@@ -")?.split_once(" +")?;
    let (new, _) = rest.split_once(" @@")?;
    let range = |text: &str| -> Option<(usize, usize)> {
        let (start, len) = text.split_once(',').unwrap_or((text, "1"));
        let (start, len): (usize, usize) = (start.parse().ok()?, len.parse().ok()?);
        Some((if len == 0 { start } else { start.checked_sub(1)? }, len))
    };
    let ((old_start, old_len), (new_start, new_len)) = (range(old)?, range(new)?);
    Some(Edit { old_start, old_len, new_start, new_len })
}

/// The effect of the directives so far.
#[derive(Default)]
struct DirectiveScan {
    /// By how much the numbers are too high, if the last directive was compiled.
    offset: i64,
    /// The `#if` branches around the last directive. Empty if the directive is always compiled.
    branch: Vec<u32>,
}

impl DirectiveScan {
    /// The places for directives in the unchanged lines `begin..end`: the first safe line, and, if that line is inside
    /// `#if`, a place after the end of each branch. A directive in a branch that is not compiled has no effect.
    fn places(&mut self, states: &[LexerState], begin: usize, end: usize) -> Vec<usize> {
        let mut places = Vec::new();
        for (at, state) in states.iter().enumerate().take(end).skip(begin) {
            if self.offset == 0 && self.branch.is_empty() {
                break;
            }
            let left = !state.branches.starts_with(&self.branch);
            if (self.offset != 0 || left) && state.safe {
                places.push(at);
                self.offset = 0;
                self.branch.clone_from(&state.branches);
            }
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a line is compiled. Bit `n` of `taken` tells whether branch `n` is compiled.
    fn compiled(state: &LexerState, taken: u64) -> bool {
        state.branches.iter().all(|branch| taken >> (branch % 64) & 1 == 1)
    }

    /// The number of each line after the compiled directives. The directives themselves are left out. `states` belong
    /// to the lines without directives.
    fn numbers(text: &str, states: &[LexerState], taken: u64) -> Vec<(String, usize)> {
        let mut number = 1;
        let mut found = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("#line ") {
                // The directive is in the same branch as the following line.
                if compiled(&states[found.len()], taken) {
                    number = rest.parse().expect("a number");
                } else {
                    number += 1;
                }
            } else {
                found.push((line.to_owned(), number));
                number += 1;
            }
        }
        found
    }

    struct Case {
        name: &'static str,
        original: &'static str,
        patched: &'static str,
        expected: &'static str,
        unplaced: &'static [u32],
    }

    const CASES: &[Case] = &[
        Case {
            name: "nothing changed",
            original: "a\nb\n",
            patched: "a\nb\n",
            expected: "a\nb\n",
            unplaced: &[],
        },
        Case {
            name: "a line added",
            original: "a\nb\nc\n",
            patched: "a\nnew\nb\nc\n",
            expected: "a\nnew\n#line 2\nb\nc\n",
            unplaced: &[],
        },
        Case {
            name: "a line removed",
            original: "a\nb\nc\n",
            patched: "a\nc\n",
            expected: "a\n#line 3\nc\n",
            unplaced: &[],
        },
        Case {
            name: "a line replaced by one",
            original: "a\nb\nc\n",
            patched: "a\nB\nc\n",
            expected: "a\nB\nc\n",
            unplaced: &[],
        },
        Case {
            name: "two hunks that add",
            original: "a\nb\nc\nd\n",
            patched: "a\nx\nb\nc\ny\nz\nd\n",
            expected: "a\nx\n#line 2\nb\nc\ny\nz\n#line 4\nd\n",
            unplaced: &[],
        },
        Case {
            name: "at the end of the file",
            original: "a\n",
            patched: "a\nb\n",
            expected: "a\nb\n",
            unplaced: &[],
        },
        Case {
            name: "not inside a block comment",
            original: "/*\n * b\n * c\n */\nd\n",
            patched: "/*\n * new\n * b\n * c\n */\nd\n",
            expected: "/*\n * new\n * b\n * c\n */\n#line 5\nd\n",
            unplaced: &[],
        },
        Case {
            name: "not inside a macro definition",
            original: "#define M(x) \\\n\tf(x); \\\n\tg(x)\nd\n",
            patched: "#define M(x) \\\n\tnew(x); \\\n\tf(x); \\\n\tg(x)\nd\n",
            expected: "#define M(x) \\\n\tnew(x); \\\n\tf(x); \\\n\tg(x)\n#line 4\nd\n",
            unplaced: &[],
        },
        Case {
            name: "not between parentheses",
            original: "f(a,\n  b,\n  c);\nd\n",
            patched: "f(a,\n  new,\n  b,\n  c);\nd\n",
            expected: "f(a,\n  new,\n  b,\n  c);\n#line 4\nd\n",
            unplaced: &[],
        },
        Case {
            name: "a parenthesis in a string or a character does not count",
            original: "a = \"(\";\nb = '(';\nc = '\\'';\nd\n",
            patched: "new\na = \"(\";\nb = '(';\nc = '\\'';\nd\n",
            expected: "new\n#line 1\na = \"(\";\nb = '(';\nc = '\\'';\nd\n",
            unplaced: &[],
        },
        Case {
            name: "no safe place before the next hunk: the next directive puts it right",
            original: "f(a,\n  b,\n  c,\n  d);\ne\n",
            patched: "f(a,\n  new,\n  b,\n  new2,\n  c,\n  d);\ne\n",
            expected: "f(a,\n  new,\n  b,\n  new2,\n  c,\n  d);\n#line 5\ne\n",
            unplaced: &[2],
        },
        Case {
            name: "inside #if it is said again after #endif",
            original: "a\n#ifdef X\nb\nc\n#endif\nd\n",
            patched: "a\n#ifdef X\nnew\nb\nc\n#endif\nd\n",
            expected: "a\n#ifdef X\nnew\n#line 3\nb\nc\n#endif\n#line 6\nd\n",
            unplaced: &[],
        },
        Case {
            name: "inside #if it is said in the other branch too",
            original: "#if X\nb\n#else\nc\n#endif\nd\n",
            patched: "#if X\nnew\nb\n#else\nc\n#endif\nd\n",
            expected: "#if X\nnew\n#line 2\nb\n#else\n#line 4\nc\n#endif\n#line 6\nd\n",
            unplaced: &[],
        },
        Case {
            name: "branches that open the same parenthesis twice",
            original: "#if X\nif (a &&\n#else\nif (b &&\n#endif\n    c)\nd\ne\n",
            patched: "new\n#if X\nif (a &&\n#else\nif (b &&\n#endif\n    c)\nd\nnew\ne\n",
            expected: "new\n#line 1\n#if X\nif (a &&\n#else\nif (b &&\n#endif\n    c)\nd\nnew\n#line 8\ne\n",
            unplaced: &[],
        },
    ];

    #[test]
    fn directives_stand_where_they_may() {
        for case in CASES {
            let got = number(case.original, case.patched);
            assert_eq!(got.text, case.expected, "{}", case.name);
            assert_eq!(got.unplaced, case.unplaced, "{}", case.name);
        }
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "one edit is one range")]
    fn edited_lines_have_the_compilers_numbers() {
        assert_eq!(number("a\nb\nc\n", "a\nx\ny\nb\nC\n").edited, [2..4, 3..4]);
        assert_eq!(number("a\nb\nc\n", "a\nc\n").edited, [2..3]);
        let unplaced = number("f(a,\n  b,\n  c,\n  d);\n", "f(a,\n  new,\n  b,\n  new2,\n  c,\n  d);\n");
        assert_eq!(
            unplaced.edited,
            [2..3, 4..5],
            "the second edit is one line further down for the compiler"
        );
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "one edit is one range")]
    fn replaced_lines_are_the_originals_and_an_added_function_is_no_edit_of_the_one_above() {
        let function = |name: &str, body: &str| format!("int {name}(void)\n{{\n\treturn {body};\n}}\n\n");
        let (a, b) = (function("a", "1"), function("b", "2"));
        let text = format!("{a}{b}");
        let replaced = |to: String| number(&text, &to).replaced;
        assert_eq!(replaced(format!("{a}{}", function("b", "3"))), [8..9]);
        assert_eq!(
            replaced(format!("{a}{}{b}", function("new", "1"))),
            [6..6],
            "before line 6, which is `int b`"
        );
        assert_eq!(replaced(format!("{a}{b}{}", function("new", "2"))), [11..11]);
        assert_eq!(replaced(b.clone()), [1..6]);
        assert_eq!(replaced(text.replace("\treturn 2;", "\tif (x)\n\t\treturn 0;\n\treturn 2;")), [8..8]);
        assert_eq!(number(&with_another(&text), &text).replaced, [6..11], "removed again");
    }

    /// Adds a function between the two functions.
    fn with_another(text: &str) -> String {
        text.replace("int b", "int new(void)\n{\n\treturn 1;\n}\n\nint b")
    }

    #[test]
    fn a_function_ends_with_the_last_brace_before_the_next() {
        let text = "int a(void)\n{\n#if X\n}\n#else\n}\n#endif\nint b(void) { return 1; }\nint c;\n";
        for ((first, next), last) in [
            ((1, Some(8)), 6),
            ((1, None), 6),
            ((8, None), u32::MAX),
            ((8, Some(9)), 8),
            ((20, None), u32::MAX),
        ] {
            assert_eq!(end_of_function(text, first, next), last, "{first} {next:?}");
        }
    }

    mod property {
        use proptest::prelude::*;

        use super::super::*;
        use super::{compiled, numbers};

        /// Lines that produce every kind of state. The index makes each line unique.
        const SHAPES: [&str; 12] = [
            "int v%;",
            "f%(a,",
            "  b%);",
            "/* open %",
            " close % */",
            "#define M% \\",
            "\tx% \\",
            "s% = \"(\";",
            "#ifdef C%",
            "#endif /* % */",
            "#else /* % */",
            "}%",
        ];

        fn text() -> impl Strategy<Value = Vec<usize>> {
            prop::collection::vec(0..SHAPES.len(), 1..60)
        }

        proptest! {
            /// Whichever branches are compiled, unchanged lines have their original numbers, from the first possible
            /// place for a directive after each change.
            #[test]
            fn unchanged_lines_keep_their_numbers(
                shapes in text(),
                changes in prop::collection::vec((0..60usize, 0..4usize, 0..4usize), 0..6),
                taken in any::<u64>(),
            ) {
                let original: Vec<String> =
                    shapes.iter().enumerate().map(|(n, s)| SHAPES[*s].replace('%', &n.to_string())).collect();
                let mut patched = original.clone();
                let mut changes = changes;
                changes.sort_unstable();
                changes.reverse();
                for (n, (at, remove, add)) in changes.into_iter().enumerate() {
                    let at = at.min(patched.len());
                    let end = (at + remove).min(patched.len());
                    patched.splice(at..end, (0..add).map(|k| format!("new {n} {k}")));
                }
                let join = |lines: &[String]| lines.iter().map(|l| format!("{l}\n")).collect::<String>();
                let result = number(&join(&original), &join(&patched));
                let plain: String =
                    result.text.lines().filter(|l| !l.starts_with("#line ")).map(|l| format!("{l}\n")).collect();
                prop_assert_eq!(&plain, &join(&patched));

                let lines: Vec<&str> = plain.split_inclusive('\n').collect();
                let states = Lexer::states(&lines);
                let mut settled = true;
                let mut next = 0;
                for (n, (text, number)) in numbers(&result.text, &states, taken).iter().enumerate() {
                    let Some(old) = original.iter().position(|l| l == text) else {
                        settled = false;
                        continue;
                    };
                    // A change or the end of a branch: numbers may be wrong up to the next line that can follow a
                    // directive.
                    settled &= next == old && (n == 0 || states[n].branches == states[n - 1].branches);
                    next = old + 1;
                    if compiled(&states[n], taken) {
                        settled |= states[n].safe;
                        if settled {
                            prop_assert_eq!(old + 1, *number, "line {} {}", n, text);
                        }
                    }
                }
            }
        }
    }
}
