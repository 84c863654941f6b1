//! The inliner's remarks (`-Rpass=inline` of clang, `-mllvm -pass-remarks=inline` of a link): which call was inlined where.
//!
//! A call site is named by LLVM as `g:3:5 @ f:10:2`: the call stands in line 3, column 5 of `g`, which was inlined into `f` at
//! line 10, column 2. Lines count from the line of the function's definition.

/// One call that was inlined. Names are as LLVM has them, promotion suffixes included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Inlined<'t> {
    /// The function that holds the copy.
    pub caller: &'t str,
    /// The function that was copied.
    pub callee: &'t str,
    /// The call site, innermost function first.
    pub site: &'t str,
}

impl<'t> Inlined<'t> {
    /// The functions that the site names, innermost first.
    pub fn chain(&self) -> impl Iterator<Item = &'t str> {
        // A name holds no colon; the two last parts are line and column, or line, column and discriminator.
        self.site.split(" @ ").filter_map(|frame| frame.split(':').next())
    }
}

/// All inlined calls that a compiler's or linker's output tells of, in its order; other lines are passed over.
pub fn parse(output: &str) -> Vec<Inlined<'_>> {
    output.lines().filter_map(line).collect()
}

/// `FILE:L:C: remark: 'callee' inlined into 'caller' with (cost=...) at callsite SITE; [-Rpass=inline]`
fn line(text: &str) -> Option<Inlined<'_>> {
    let (head, tail) = text.split_once("' inlined into '")?;
    let (_, callee) = head.rsplit_once('\'')?;
    let (caller, rest) = tail.split_once('\'')?;
    let (_, site) = rest.split_once(" at callsite ")?;
    let (site, _) = site.split_once(';')?;
    Some(Inlined { caller, callee, site })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remark_names_callee_caller_and_site() {
        let output = "\
a.c:2:2: remark: 'leaf' inlined into 'f' with (cost=-30, threshold=487) at callsite mid:1:8 @ f:5:2; [-Rpass=inline]
      2 |  leaf();
a.c:9:2: remark: 'big' not inlined into 'f' because too costly to inline (cost=65, threshold=45) [-Rpass-missed=inline]
ld.lld: remark: a.c:7:4: 'x.llvm.12' inlined into 'g' with (cost=always): always inline attribute at callsite g:2:4;
";
        let found = parse(output);
        let expected = [
            Inlined { caller: "f", callee: "leaf", site: "mid:1:8 @ f:5:2" },
            Inlined { caller: "g", callee: "x.llvm.12", site: "g:2:4" },
        ];
        assert_eq!(found, expected);
        assert_eq!(found[0].chain().collect::<Vec<_>>(), ["mid", "f"]);
    }

    #[test]
    fn other_text_gives_nothing() {
        for text in
            ["", "' inlined into '", "'a' inlined into 'b' at", "x 'a' inlined into 'b' at callsite f"]
        {
            assert!(parse(text).is_empty(), "{text}");
        }
    }
}
