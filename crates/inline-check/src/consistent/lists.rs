//! The choices of all builds so far, and the lines that they are kept in between two runs.

use std::collections::{BTreeMap, BTreeSet};

/// What is done with a function. A stronger choice takes the place of a weaker one, never the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Choice {
    /// It is out of line and inlined nowhere, and stays so.
    Kept,
    /// It is inlined at every call, so that no copy stays.
    Everywhere,
    /// It is inlined nowhere.
    OutOfLine,
    /// The same for a function that is declared inline, which takes more with GCC.
    Opaque,
}

/// What a compiler is told about a function. The stronger one is the later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attribute {
    /// Inline it.
    AlwaysInline,
    /// Don't inline it.
    NoInline,
    /// Don't inline it, nor replace it by a variant for some of its callers.
    NoInlineNoClone,
    /// Nor let callers rely on anything in its body.
    NoAnalysis,
}

impl Choice {
    const ALL: [(Choice, &str); 4] = [
        (Choice::Kept, "kept"),
        (Choice::Everywhere, "everywhere"),
        (Choice::OutOfLine, "out-of-line"),
        (Choice::Opaque, "opaque"),
    ];

    /// In a word.
    pub fn name(self) -> &'static str {
        Choice::ALL.iter().find(|(choice, _)| *choice == self).map_or("", |(_, name)| name)
    }

    /// What the compiler is told.
    pub fn attribute(self) -> Attribute {
        match self {
            // Its variants stay as they are, too.
            Choice::Kept => Attribute::NoInline,
            Choice::Everywhere => Attribute::AlwaysInline,
            Choice::OutOfLine => Attribute::NoInlineNoClone,
            Choice::Opaque => Attribute::NoAnalysis,
        }
    }
}

/// A function as a person knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The file that declares it.
    pub file: String,
    /// The line there.
    pub line: u32,
    /// Its name.
    pub function: String,
}

/// What was chosen for a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The choice.
    pub choice: Choice,
    /// The build that it was made from; it is in effect from the next on.
    pub build: u32,
    /// Bytes of code that it adds, by its estimate.
    pub bytes: i64,
    /// Call sites that were inlined when it was chosen.
    pub sites: usize,
    /// The units that have the function.
    pub units: BTreeSet<String>,
}

/// Every choice so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    entries: BTreeMap<Key, Entry>,
}

/// A line that is none of a list, by its number from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotALine(pub usize);

/// The first line of the file: what the columns are.
const HEADING: &str = "choice\tbuild\tbytes\tcall sites\tfunction\tfile\tline\tunits";

impl Lists {
    /// What was chosen for a function.
    pub fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Every choice, by file, line and name.
    pub fn entries(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.iter()
    }

    /// How many functions have a choice.
    pub fn count(&self, choice: Choice) -> usize {
        self.entries.values().filter(|entry| entry.choice == choice).count()
    }

    /// Adds a choice, or units to one. A weaker choice changes nothing but that.
    pub(super) fn add(&mut self, key: Key, entry: Entry) {
        let Some(known) = self.entries.get_mut(&key) else {
            self.entries.insert(key, entry);
            return;
        };
        let stronger = entry.choice > known.choice;
        let units = &known.units | &entry.units;
        // A unit that is new has the attribute from the next build on only.
        let build = if stronger || units != known.units { entry.build } else { known.build };
        if stronger {
            *known = entry;
        }
        (known.units, known.build) = (units, build);
    }

    /// Takes the choices of some functions away. How many had one.
    pub(super) fn free(&mut self, which: impl Fn(&str) -> bool) -> usize {
        let before = self.entries.len();
        self.entries.retain(|key, _| !which(&key.function));
        before - self.entries.len()
    }

    /// The lines that [`Lists::parse`] reads.
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEADING}\n");
        for (Key { file, line, function }, entry) in &self.entries {
            let Entry { choice, build, bytes, sites, units } = entry;
            let units: Vec<&str> = units.iter().map(String::as_str).collect();
            let (choice, units) = (choice.name(), units.join(" "));
            text.push_str(&format!(
                "{choice}\t{build}\t{bytes}\t{sites}\t{function}\t{file}\t{line}\t{units}\n"
            ));
        }
        text
    }

    /// Reads what [`Lists::to_text`] wrote.
    ///
    /// # Errors
    /// The first line that is none.
    pub fn parse(text: &str) -> Result<Lists, NotALine> {
        let mut lines = text.lines().enumerate();
        if lines.next().is_none_or(|(_, heading)| heading != HEADING) {
            return Err(NotALine(1));
        }
        let entries = lines.map(|(n, line)| entry(line).ok_or(NotALine(n + 1)));
        Ok(Lists { entries: entries.collect::<Result<_, _>>()? })
    }
}

fn entry(line: &str) -> Option<(Key, Entry)> {
    let mut cells = line.split('\t');
    let mut cell = || cells.next();
    let choice = cell()?;
    let choice = Choice::ALL.iter().find(|(_, name)| *name == choice)?.0;
    let (build, bytes, sites) = (cell()?.parse().ok()?, cell()?.parse().ok()?, cell()?.parse().ok()?);
    let (function, file, line) = (cell()?.to_owned(), cell()?.to_owned(), cell()?.parse().ok()?);
    let units: BTreeSet<String> = cell()?.split(' ').map(str::to_owned).collect();
    cell().is_none().then_some((Key { file, line, function }, Entry { choice, build, bytes, sites, units }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(function: &str) -> Key {
        Key { file: "fs/a.c".to_owned(), line: 3, function: function.to_owned() }
    }

    fn entry(choice: Choice, build: u32, units: &[&str]) -> Entry {
        let units = units.iter().map(|&unit| unit.to_owned()).collect();
        Entry { choice, build, bytes: -7, sites: 2, units }
    }

    #[test]
    fn lists_are_read_as_they_were_written() {
        let mut lists = Lists::default();
        lists.add(key("f"), entry(Choice::OutOfLine, 1, &["fs/a.c", "fs/b.c"]));
        lists.add(key("g"), entry(Choice::Kept, 2, &["fs/a.c"]));
        lists.add(key("h"), entry(Choice::Everywhere, 2, &["fs/b.c"]));
        assert_eq!(Lists::parse(&lists.to_text()), Ok(lists.clone()));
        assert_eq!(lists.count(Choice::Everywhere), 1);
        let text = lists.to_text();
        for (broken, line) in [("", 1), ("no heading\n", 1), (&text.replace("\t2\tg", "\tg"), 3)] {
            assert_eq!(Lists::parse(broken), Err(NotALine(line)), "{broken}");
        }
    }

    #[test]
    fn a_function_can_lose_its_choice() {
        let mut lists = Lists::default();
        for function in ["f", "g"] {
            lists.add(key(function), entry(Choice::OutOfLine, 1, &["fs/a.c"]));
        }
        assert_eq!([lists.free(|name| name == "f"), lists.free(|name| name == "f")], [1, 0]);
        assert_eq!((lists.get(&key("f")), lists.get(&key("g")).is_some()), (None, true));
    }

    #[test]
    fn choices_grow_stronger_and_units_more() {
        let mut lists = Lists::default();
        lists.add(key("f"), entry(Choice::Everywhere, 1, &["fs/a.c"]));
        lists.add(key("f"), entry(Choice::Kept, 2, &["fs/a.c"]));
        assert_eq!(lists.get(&key("f")), Some(&entry(Choice::Everywhere, 1, &["fs/a.c"])));
        lists.add(key("f"), entry(Choice::Kept, 2, &["fs/b.c"]));
        assert_eq!(lists.get(&key("f")), Some(&entry(Choice::Everywhere, 2, &["fs/a.c", "fs/b.c"])));
        lists.add(key("f"), entry(Choice::OutOfLine, 3, &["fs/b.c"]));
        assert_eq!(lists.get(&key("f")), Some(&entry(Choice::OutOfLine, 3, &["fs/a.c", "fs/b.c"])));
    }
}
