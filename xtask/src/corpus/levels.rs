//! Counts the functions of change sets at each level of the stabilised rebuild, by cause: functions that the patch
//! edits, functions that inline an edited one, functions that depend on a changed one, and functions that only the
//! compiler changed.

use std::collections::BTreeSet;

use super::record::{Ending, FixBuild, KnownFix};
use crate::ui;

/// The report's words for causes, grouped into classes.
const CLASSES: [(&str, &[&str]); 3] = [
    ("inlines an edited one", &["inlines"]),
    ("depends on a changed one", &["relies-on", "called-by", "uses"]),
    // Debug information gives no cause, or the cause does not come from the patch.
    ("foreign", &["inlined-no-longer", "inlines-otherwise", "otherwise", ""]),
];

/// The change sets at some levels.
#[derive(Default)]
pub(super) struct LevelTable {
    levels: Vec<LevelResults>,
}

struct LevelResults {
    name: String,
    /// The builds with a livepatch, by the path of the fix.
    built: Vec<(String, FixBuild)>,
}

impl LevelTable {
    /// Adds the results of a level.
    pub(super) fn add<'a>(&mut self, name: &str, fixes: impl Iterator<Item = (&'a str, KnownFix)>) {
        let built = fixes.filter_map(|(path, known)| Some((path.to_owned(), known.build?)));
        let built = built.filter(|(_, build)| build.ending == Ending::Built).collect();
        self.levels.push(LevelResults { name: name.to_owned(), built });
    }

    /// Prints the table over the fixes that are built at every level, and every foreign function.
    pub(super) fn show(&self) {
        let paths =
            |level: &LevelResults| level.built.iter().map(|(path, _)| path.clone()).collect::<BTreeSet<_>>();
        let common = self.levels.iter().map(paths).reduce(|a, b| &a & &b).unwrap_or_default();
        ui::heading(&format!("change sets, by level: {}", ui::plural(common.len(), "module")));
        let mut head = vec!["level", "functions", "edited"];
        head.extend(CLASSES.map(|(title, _)| title));
        head.extend(["largest set", "median time"]);
        let rows: Vec<Vec<String>> = self.levels.iter().map(|level| level.row(&common)).collect();
        ui::table(&head, &rows);
        for level in &self.levels {
            for (path, build) in level.of(&common) {
                for caused in build.causes.iter().filter(|caused| is(&caused.cause) == "foreign") {
                    ui::say(&format!("  {} {path}: {}: {}", level.name, caused.function, caused.why));
                }
            }
        }
        if let [first, .., last] = &self.levels[..] {
            let sizes =
                |level: &LevelResults| level.of(&common).map(|(_, build)| size(build)).collect::<Vec<_>>();
            let smaller = sizes(first).iter().zip(sizes(last)).filter(|(first, last)| *first > last).count();
            ui::line("fixes whose set is smaller", &smaller.to_string(), None);
        }
    }
}

impl LevelResults {
    fn of<'a>(&'a self, common: &'a BTreeSet<String>) -> impl Iterator<Item = (&'a str, &'a FixBuild)> {
        let built = self.built.iter().filter(|(path, _)| common.contains(path));
        built.map(|(path, build)| (path.as_str(), build))
    }

    fn row(&self, common: &BTreeSet<String>) -> Vec<String> {
        let all: usize = self.of(common).map(|(_, build)| size(build)).sum();
        let causes = || self.of(common).flat_map(|(_, build)| &build.causes);
        let mut row = vec![self.name.clone(), all.to_string(), (all - causes().count()).to_string()];
        for (title, _) in CLASSES {
            row.push(causes().filter(|caused| is(&caused.cause) == title).count().to_string());
        }
        row.push(self.of(common).map(|(_, build)| size(build)).max().unwrap_or_default().to_string());
        let mut seconds: Vec<f64> = self.of(common).map(|(_, build)| build.seconds).collect();
        seconds.sort_by(f64::total_cmp);
        row.push(format!("{:.1} s", seconds.get(seconds.len() / 2).copied().unwrap_or_default()));
        row
    }
}

fn size(build: &FixBuild) -> usize {
    build.changed.len() + build.new.len()
}

/// Returns the class of a cause.
fn is(cause: &str) -> &'static str {
    let class = CLASSES.iter().find(|(_, causes)| causes.contains(&cause));
    class.map_or("foreign", |(title, _)| title)
}

#[cfg(test)]
mod tests {
    use super::super::record::Caused;
    use super::*;

    fn level(name: &str, foreign: usize) -> LevelResults {
        let caused = |cause: &str| Caused {
            function: "vmlinux:f".to_owned(),
            cause: cause.to_owned(),
            why: "code differs".to_owned(),
        };
        let mut causes = vec![caused("inlines"), caused("called-by")];
        causes.extend((0..foreign).map(|_| caused("otherwise")));
        let build = FixBuild {
            ending: Ending::Built,
            code: None,
            message: String::new(),
            seconds: 2.0,
            changed: vec![String::new(); 3 + foreign],
            new: Vec::new(),
            notes: Vec::new(),
            causes,
        };
        LevelResults { name: name.to_owned(), built: vec![("a.c".to_owned(), build)] }
    }

    #[test]
    fn every_function_counts_once_and_what_nothing_explains_is_foreign() {
        let common = BTreeSet::from(["a.c".to_owned()]);
        assert_eq!(level("off", 2).row(&common), ["off", "5", "1", "1", "1", "2", "5", "2.0 s"]);
        assert_eq!(level("off", 0).row(&common)[5], "0");
        assert_eq!(level("off", 2).row(&BTreeSet::new())[1], "0", "a fix that another level does not build");
        assert_eq!(is("uses"), "depends on a changed one");
        assert_eq!(is("a word of a later report"), "foreign");
    }
}
