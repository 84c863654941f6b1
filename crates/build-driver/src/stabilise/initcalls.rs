//! The order of initcalls in a ThinLTO link. Their names hold a count of the unique names above them (`__COUNTER__`)
//! and a line, so a patch that says `min()` or `WARN_ON()` somewhere above renames them, and the linker script that
//! orders their sections has to follow (scripts/generate_initcall_order.pl).
//!
//! The symbol `__initcall__kmod_md_mod__802_11036_md_init4` is of the section
//! `.initcall4.init..kmod_md_mod__802_11036_md_init` (include/linux/init.h): module, a counter of the unit's, line,
//! function, level.

/// An initcall of a unit, as its symbol tells.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Initcall<'a> {
    /// They lie in this order.
    counter: u64,
    module: &'a str,
    /// Function and level.
    function: &'a str,
    /// The name without its level, and the level.
    section: (&'a str, &'a str),
}

impl<'a> Initcall<'a> {
    fn parse(symbol: &'a str) -> Option<Initcall<'a>> {
        let name = symbol.strip_prefix("__initcall__")?;
        let (at, counter, function) = name.rmatch_indices("__").find_map(|(at, _)| {
            let (counter, rest) = name[at + 2..].split_once('_')?;
            let (line, function) = rest.split_once('_')?;
            line.parse::<u64>().ok()?;
            Some((at, counter.parse().ok()?, function))
        })?;
        let level = level(function)?;
        let section = (&name[..name.len() - level.len()], level);
        Some(Initcall { counter, module: &name[..at], function, section })
    }

    /// Its line in the linker script.
    fn entry(&self) -> String {
        match self.section {
            (name, "con") => format!("*(.con_initcall.init..{name})"),
            (name, level) => format!("*(.initcall{level}.init..{name})"),
        }
    }
}

/// The level at the end of an initcall's name: the shortest that it can be.
fn level(name: &str) -> Option<&str> {
    let is_level = |text: &str| {
        let plain = text.strip_suffix('s').unwrap_or(text);
        matches!(text, "early" | "rootfs" | "con") || plain.len() == 1 && plain.as_bytes()[0].is_ascii_digit()
    };
    name.char_indices().rev().map(|(at, _)| &name[at..]).find(|end| is_level(end))
}

/// The initcalls among a unit's symbols, in their order. `None` when one is not understood.
fn initcalls(symbols: &[String]) -> Option<Vec<Initcall<'_>>> {
    let named = symbols.iter().filter(|symbol| symbol.starts_with("__initcall__"));
    let mut found: Vec<Initcall<'_>> = named.map(|symbol| Initcall::parse(symbol)).collect::<Option<_>>()?;
    found.sort_unstable();
    Some(found)
}

/// The script for a unit with these symbols in the place of one with those. `None` when the patch does more than to
/// rename its initcalls.
pub(crate) fn renamed(script: &str, original: &[String], patched: &[String]) -> Option<String> {
    let (original, patched) = (initcalls(original)?, initcalls(patched)?);
    if original.len() != patched.len() {
        return None;
    }
    let mut lines: Vec<String> = script.lines().map(str::to_owned).collect();
    for (old, new) in original.iter().zip(&patched) {
        if (old.module, old.function) != (new.module, new.function) {
            return None;
        }
        let (entry, mut found) = (old.entry(), None);
        for (at, line) in script.lines().enumerate().filter(|(_, line)| line.contains(&entry)) {
            if found.replace((at, line)).is_some() {
                return None;
            }
        }
        let (at, line) = found?;
        lines[at] = line.replace(&entry, &new.entry());
    }
    Some(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "SECTIONS {\n\t.initcall4.init : {\n\t\t*(.initcall4.init..kmod_md_mod__802_11036_md_init) ;\n\t}\n\
        \t.initcall7s.init : {\n\t\t*(.initcall7s.init..kmod_x__1_20_f) ;\n\t\t*(.initcall7s.init..kmod_x__10_30_g) ;\n\t}\n\
        \t.con_initcall.init : {\n\t\t*(.con_initcall.init..kmod_tty__3_9_con_con) ;\n\t}\n}\n";

    fn symbols(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn renamed(original: &str, patched: &str) -> Option<String> {
        super::renamed(SCRIPT, &symbols(original), &symbols(patched))
    }

    #[test]
    fn counters_and_lines_rename_sections() {
        let other = "md_run __initcall__kmod_md_mod__802_11036_md_init4";
        assert_eq!(renamed(other, other).as_deref(), Some(SCRIPT));
        assert_eq!(renamed("f", "g").as_deref(), Some(SCRIPT), "units without initcalls");
        let moved = renamed(other, "__initcall__kmod_md_mod__802_11038_md_init4").expect("a script");
        assert_eq!(moved, SCRIPT.replace("11036", "11038"));
        let con = ["__initcall__kmod_tty__3_9_con_concon", "__initcall__kmod_tty__3_19_con_concon"];
        assert_eq!(renamed(con[0], con[1]), Some(SCRIPT.replace("__3_9_", "__3_19_")));
    }

    #[test]
    fn several_are_matched_by_their_counters() {
        let original = "__initcall__kmod_x__10_30_g7s __initcall__kmod_x__1_20_f7s";
        let patched = "__initcall__kmod_x__1_25_f7s __initcall__kmod_x__11_35_g7s";
        let wanted = SCRIPT.replace("__1_20_", "__1_25_").replace("__10_30_", "__11_35_");
        assert_eq!(renamed(original, patched), Some(wanted));
        let turned = "__initcall__kmod_x__10_30_f7s __initcall__kmod_x__1_20_g7s";
        assert_eq!(renamed(original, turned), None, "another order");
    }

    #[test]
    fn a_name_is_cut_where_kbuilds_script_cuts_it() {
        let symbol = "__initcall__kmod_x__2_30_g__1_2_h_rootfss7s";
        let found = Initcall::parse(symbol).expect("an initcall");
        let section = ("kmod_x__2_30_g__1_2_h_rootfss", "7s");
        let module = "kmod_x__2_30_g";
        assert_eq!(found, Initcall { counter: 1, module, function: "h_rootfss7s", section });
        assert_eq!(level("f_initrootfs"), Some("rootfs"));
        assert_eq!(level("f_initearly"), Some("early"));
        assert_eq!(level("f_init"), None);
    }

    #[test]
    fn more_than_a_new_name_is_left_to_kbuild() {
        let one = "__initcall__kmod_x__1_20_f7s";
        assert_eq!(renamed(one, ""), None);
        assert_eq!(renamed("", one), None);
        assert_eq!(renamed(one, "__initcall__kmod_x__1_20_g7s"), None, "another function");
        assert_eq!(renamed(one, "__initcall__kmod_x__1_20_f7"), None, "another level");
        assert_eq!(
            renamed("__initcall__kmod_y__1_2_f7", "__initcall__kmod_y__1_2_f7"),
            None,
            "not in the script"
        );
        assert_eq!(renamed("__initcall__x", "__initcall__x"), None, "not understood");
    }
}
