//! The choices of all builds so far, and the text form that stores them between two runs.

use std::collections::{BTreeMap, BTreeSet};

/// A decision about a function. A stronger choice replaces a weaker one, never the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Choice {
    /// The function is out of line and inlined nowhere, and stays so.
    Kept,
    /// The function is inlined at every call, so that no out-of-line copy remains.
    Everywhere,
    /// The function is inlined nowhere.
    OutOfLine,
    /// The function is inlined nowhere, although it is declared inline: with GCC this needs a stronger attribute.
    Opaque,
}

/// An instruction to the compiler about a function, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attribute {
    /// Inline the function.
    AlwaysInline,
    /// Don't inline the function.
    NoInline,
    /// Don't inline the function, and don't clone it for some of its callers.
    NoInlineNoClone,
    /// Don't inline or clone the function, and don't let callers rely on anything in its body.
    NoAnalysis,
}

impl Choice {
    const ALL: [(Choice, &str); 4] = [
        (Choice::Kept, "kept"),
        (Choice::Everywhere, "everywhere"),
        (Choice::OutOfLine, "out-of-line"),
        (Choice::Opaque, "opaque"),
    ];

    /// Returns the choice in a word.
    pub fn name(self) -> &'static str {
        Choice::ALL.iter().find(|(choice, _)| *choice == self).map_or("", |(_, name)| name)
    }

    /// Returns the instruction for the compiler.
    pub fn attribute(self) -> Attribute {
        match self {
            // The function's variants also stay as they are.
            Choice::Kept => Attribute::NoInline,
            Choice::Everywhere => Attribute::AlwaysInline,
            Choice::OutOfLine => Attribute::NoInlineNoClone,
            Choice::Opaque => Attribute::NoAnalysis,
        }
    }
}

/// A function's identity in the source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FunctionKey {
    /// The file that declares the function.
    pub file: String,
    /// The line in the file.
    pub line: u32,
    /// The function's name.
    pub function: String,
}

/// The choice for a function, with its origin and cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListEntry {
    /// The choice.
    pub choice: Choice,
    /// The build that the choice was made from. The choice takes effect in the next build.
    pub build: u32,
    /// Estimated bytes of code that the choice adds.
    pub bytes: i64,
    /// Call sites that were inlined when the choice was made.
    pub sites: usize,
    /// The units that have the function.
    pub units: BTreeSet<String>,
}

/// Every choice so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChoiceLists {
    entries: BTreeMap<FunctionKey, ListEntry>,
}

/// A line that does not belong to a list, by its number from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotALine(pub usize);

/// The first line of the file, which names the columns.
const HEADING: &str = "choice\tbuild\tbytes\tcall sites\tfunction\tfile\tline\tunits";

impl ChoiceLists {
    /// Returns the choice for a function.
    pub fn get(&self, key: &FunctionKey) -> Option<&ListEntry> {
        self.entries.get(key)
    }

    /// Returns every choice, by file, line and name.
    pub fn entries(&self) -> impl Iterator<Item = (&FunctionKey, &ListEntry)> {
        self.entries.iter()
    }

    /// Returns the number of functions with this choice.
    pub fn count(&self, choice: Choice) -> usize {
        self.entries.values().filter(|entry| entry.choice == choice).count()
    }

    /// Adds a choice, or adds units to an existing choice. A weaker choice only adds its units.
    pub(super) fn add(&mut self, key: FunctionKey, entry: ListEntry) {
        let Some(known) = self.entries.get_mut(&key) else {
            self.entries.insert(key, entry);
            return;
        };
        let stronger = entry.choice > known.choice;
        let units = &known.units | &entry.units;
        // A new unit has the attribute only from the next build on.
        let build = if stronger || units != known.units { entry.build } else { known.build };
        if stronger {
            *known = entry;
        }
        (known.units, known.build) = (units, build);
    }

    /// Removes the choices of some functions and returns their number.
    pub(super) fn free(&mut self, which: impl Fn(&str) -> bool) -> usize {
        let before = self.entries.len();
        self.entries.retain(|key, _| !which(&key.function));
        before - self.entries.len()
    }

    /// Writes the text that [`ChoiceLists::parse`] reads.
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEADING}\n");
        for (FunctionKey { file, line, function }, entry) in &self.entries {
            let ListEntry { choice, build, bytes, sites, units } = entry;
            let units: Vec<&str> = units.iter().map(String::as_str).collect();
            let (choice, units) = (choice.name(), units.join(" "));
            text.push_str(&format!(
                "{choice}\t{build}\t{bytes}\t{sites}\t{function}\t{file}\t{line}\t{units}\n"
            ));
        }
        text
    }

    /// Reads the text that [`ChoiceLists::to_text`] wrote.
    ///
    /// # Errors
    /// The first line that is invalid.
    pub fn parse(text: &str) -> Result<ChoiceLists, NotALine> {
        let mut lines = text.lines().enumerate();
        if lines.next().is_none_or(|(_, heading)| heading != HEADING) {
            return Err(NotALine(1));
        }
        let entries = lines.map(|(n, line)| entry(line).ok_or(NotALine(n + 1)));
        Ok(ChoiceLists { entries: entries.collect::<Result<_, _>>()? })
    }
}

fn entry(line: &str) -> Option<(FunctionKey, ListEntry)> {
    let mut cells = line.split('\t');
    let mut cell = || cells.next();
    let choice = cell()?;
    let choice = Choice::ALL.iter().find(|(_, name)| *name == choice)?.0;
    let (build, bytes, sites) = (cell()?.parse().ok()?, cell()?.parse().ok()?, cell()?.parse().ok()?);
    let (function, file, line) = (cell()?.to_owned(), cell()?.to_owned(), cell()?.parse().ok()?);
    let units: BTreeSet<String> = cell()?.split(' ').map(str::to_owned).collect();
    cell()
        .is_none()
        .then_some((FunctionKey { file, line, function }, ListEntry { choice, build, bytes, sites, units }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(function: &str) -> FunctionKey {
        FunctionKey { file: "fs/a.c".to_owned(), line: 3, function: function.to_owned() }
    }

    fn entry(choice: Choice, build: u32, units: &[&str]) -> ListEntry {
        let units = units.iter().map(|&unit| unit.to_owned()).collect();
        ListEntry { choice, build, bytes: -7, sites: 2, units }
    }

    #[test]
    fn lists_are_read_as_they_were_written() {
        let mut lists = ChoiceLists::default();
        lists.add(key("f"), entry(Choice::OutOfLine, 1, &["fs/a.c", "fs/b.c"]));
        lists.add(key("g"), entry(Choice::Kept, 2, &["fs/a.c"]));
        lists.add(key("h"), entry(Choice::Everywhere, 2, &["fs/b.c"]));
        assert_eq!(ChoiceLists::parse(&lists.to_text()), Ok(lists.clone()));
        assert_eq!(lists.count(Choice::Everywhere), 1);
        let text = lists.to_text();
        for (broken, line) in [("", 1), ("no heading\n", 1), (&text.replace("\t2\tg", "\tg"), 3)] {
            assert_eq!(ChoiceLists::parse(broken), Err(NotALine(line)), "{broken}");
        }
    }

    #[test]
    fn a_function_can_lose_its_choice() {
        let mut lists = ChoiceLists::default();
        for function in ["f", "g"] {
            lists.add(key(function), entry(Choice::OutOfLine, 1, &["fs/a.c"]));
        }
        assert_eq!([lists.free(|name| name == "f"), lists.free(|name| name == "f")], [1, 0]);
        assert_eq!((lists.get(&key("f")), lists.get(&key("g")).is_some()), (None, true));
    }

    #[test]
    fn choices_grow_stronger_and_units_more() {
        let mut lists = ChoiceLists::default();
        lists.add(key("f"), entry(Choice::Everywhere, 1, &["fs/a.c"]));
        lists.add(key("f"), entry(Choice::Kept, 2, &["fs/a.c"]));
        assert_eq!(lists.get(&key("f")), Some(&entry(Choice::Everywhere, 1, &["fs/a.c"])));
        lists.add(key("f"), entry(Choice::Kept, 2, &["fs/b.c"]));
        assert_eq!(lists.get(&key("f")), Some(&entry(Choice::Everywhere, 2, &["fs/a.c", "fs/b.c"])));
        lists.add(key("f"), entry(Choice::OutOfLine, 3, &["fs/b.c"]));
        assert_eq!(lists.get(&key("f")), Some(&entry(Choice::OutOfLine, 3, &["fs/a.c", "fs/b.c"])));
    }
}
