//! The inliner's remarks: which call was inlined where. Clang prints them (`-Rpass=inline`). A link writes them to a
//! YAML file (`--opt-remarks-filename`); unlike LLVM options, this flag is no part of the ThinLTO cache's keys.
//!
//! LLVM writes a call site as `g:3:5 @ f:10:2`: the call is in line 3, column 5 of `g`, which was inlined into `f` at
//! line 10, column 2. Lines count from the line of the function's definition.

/// One inlined call. Names are LLVM's, including promotion suffixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InlineRemark<'t> {
    /// The function that holds the copy.
    pub caller: &'t str,
    /// The function that was copied.
    pub callee: &'t str,
    /// The call site, innermost function first.
    pub site: &'t str,
}

/// All inlined calls in the output of a compiler or linker, in the order of the output. Other lines are skipped.
pub fn parse(output: &str) -> Vec<InlineRemark<'_>> {
    output.lines().filter_map(line).collect()
}

/// A link's remark file, as the lines that Clang would print. Each YAML document describes one call; its text is the
/// concatenation of its arguments (llvm/lib/Remarks/YAMLRemarkSerializer.cpp).
pub fn from_yaml(file: &str) -> String {
    let mut text = String::new();
    for document in file.split("--- ").filter(|document| document.starts_with("!Passed")) {
        let arguments = document.lines().skip_while(|line| *line != "Args:");
        // Lines that are indented further say where a name is defined.
        let values = arguments.filter_map(|line| line.strip_prefix("  - ")?.split_once(':'));
        for (_, value) in values {
            text.push_str(&unquoted(value.trim_start()));
        }
        text.push('\n');
    }
    text
}

/// A YAML scalar. LLVM escapes nothing that occurs in names or in the inliner's remarks.
fn unquoted(scalar: &str) -> String {
    match scalar.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        Some(inner) => inner.replace("''", "'"),
        None => scalar.trim_matches('"').to_owned(),
    }
}

/// `FILE:L:C: remark: 'callee' inlined into 'caller' with (cost=...) at callsite SITE; [-Rpass=inline]`
fn line(text: &str) -> Option<InlineRemark<'_>> {
    let (head, tail) = text.split_once("' inlined into '")?;
    let (_, callee) = head.rsplit_once('\'')?;
    let (caller, rest) = tail.split_once('\'')?;
    let (_, site) = rest.split_once(" at callsite ")?;
    let (site, _) = site.split_once(';')?;
    Some(InlineRemark { caller, callee, site })
}

#[cfg(test)]
mod tests {
    use klpx_testkit::{command, said};

    use super::*;

    #[test]
    fn a_remark_names_callee_caller_and_site() {
        let output = "\
a.c:2:2: remark: 'leaf' inlined into 'f' with (cost=-30, threshold=487) at callsite mid:1:8 @ f:5:2; [-Rpass=inline]
      2 |  leaf();
a.c:9:2: remark: 'big' not inlined into 'f' because too costly to inline (cost=65, threshold=45) [-Rpass-missed=inline]
ld.lld: remark: a.c:7:4: 'x.llvm.12' inlined into 'g' with (cost=always): always inline attribute at callsite g:2:4;
r.c:6:8: remark: 'hot' inlined into 'h' to match profiling context with (cost=-15020, threshold=3000) at callsite h:3:8; [-Rpass=sample-profile-inline]
";
        let found = parse(output);
        let expected = [
            InlineRemark { caller: "f", callee: "leaf", site: "mid:1:8 @ f:5:2" },
            InlineRemark { caller: "g", callee: "x.llvm.12", site: "g:2:4" },
            InlineRemark { caller: "h", callee: "hot", site: "h:3:8" },
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_links_file_tells_the_same_as_its_lines() {
        let folder = tempfile::tempdir().expect("a folder");
        let run =
            |program: &str, words: &[&str]| said(command(program).args(words).current_dir(folder.path()));
        let source =
            "static int leaf(int n) { return n * 3; } static inline int mid(int n) { return leaf(n) + 1; }
            int entry(int n) { return mid(n) + leaf(4); }";
        let importer = "int entry(int); int holder(int n) { return entry(n) - entry(3); }";
        for (name, text) in [("a.c", source), ("b.c", importer)] {
            std::fs::write(folder.path().join(name), text).expect("a file");
            run("clang-22", &["-O2", "-g", "-flto=thin", "-c", name]);
        }
        let link = ["-r", "a.o", "b.o", "-o", "linked.o", "--thinlto-single-module=b.o"];
        let printed = run("ld.lld-22", &[&link[..], &["-mllvm", "-pass-remarks=inline"]].concat());
        run(
            "ld.lld-22",
            &[&link[..], &["--opt-remarks-filename", "r", "--opt-remarks-passes", "inline"]].concat(),
        );
        let written = std::fs::read_to_string(folder.path().join("r.thin.1.")).expect("remarks");
        let written = from_yaml(&written);
        assert!(parse(&printed).iter().any(|call| call.callee == "entry"), "{printed}");
        assert_eq!(parse(&written), parse(&printed));
    }

    #[test]
    fn other_text_gives_nothing() {
        for text in
            ["", "' inlined into '", "'a' inlined into 'b' at", "x 'a' inlined into 'b' at callsite f"]
        {
            assert!(parse(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn only_what_was_done_counts_and_names_are_without_quotes() {
        let document = |kind: &str, callee: &str| {
            let lines = [
                ("String", "''''"),
                ("Callee", callee),
                ("String", "''' inlined into '''"),
                ("Caller", "f"),
                ("String", "''' with (cost=1) at callsite '"),
                ("String", "f"),
                ("String", "':'"),
                ("Line", "'3'"),
                ("String", "';'"),
            ];
            let lines: String = lines
                .map(|(name, value)| format!("  - {name}:  {value}\n    DebugLoc: {{ File: a.c }}\n"))
                .concat();
            format!("--- !{kind}\nPass:  inline\nFunction:  f\nArgs:\n{lines}...\n")
        };
        let file = [
            document("Passed", "g"),
            document("Missed", "h"),
            document("Analysis", "i"),
            document("Passed", "'k'"),
        ];
        let text = from_yaml(&file.concat());
        let found: Vec<_> = parse(&text).iter().map(|call| (call.callee, call.caller, call.site)).collect();
        assert_eq!(found, [("g", "f", "f:3"), ("k", "f", "f:3")]);
    }
}
