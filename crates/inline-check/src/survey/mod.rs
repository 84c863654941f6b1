//! Which functions exist out of line and are inlined too: a whole file's DWARF in one pass.
//!
//! Owns the definitions, the merge over units, the counts. Never decides what changed, and reads no instruction.
//!
//! # Definitions
//!
//! A **function** is what a person reads in the source: a name, declared at one line of one file. A `static inline`
//! function of a header is one function, however many units compiled it; two static functions of one name in two files
//! are two. Assembly has no functions here.
//!
//! An **out-of-line copy** is a `DW_TAG_subprogram` that has an address in a section of code. A clone (`f.constprop.0`,
//! `f.part.0`) and each unit's own copy of a header's function are copies of one function.
//!
//! An **inlined copy** is a `DW_TAG_inlined_subroutine`, at any depth, in an out-of-line copy, which is its **holder**.
//! It counts also when it has no instruction any more: a probe misses that call all the same. But compilers mostly
//! leave such an entry out, and then nobody can count it: a small function whose instructions were merged with others
//! around them may be inlined at more places than the DWARF knows.
//!
//! A **call site** is a place in the source (file, line, column) that at least one inlined copy came from. A loop that
//! was unrolled, or a caller that was inlined itself, gives one call site several copies.
//!
//! A function is **half-inlined** when it has an out-of-line copy and an inlined one, anywhere in the file. Counted
//! [unit by unit](Summary::by_unit) it has both in the same unit's definition of it; a header's function that is out of
//! line in one unit and inlined in others only is half-inlined, but not by unit.
//!
//! An inlined copy is **across files** when the unit that defines the function is another than its holder's: only LTO
//! makes such copies. What came along inside a function from another unit is across files too.
//!
//! **always_inline** can't be told apart. Clang writes `DW_INL_inlined` for everything; GCC tells functions that are
//! declared `inline` from others, and `always_inline` is one of the ways to be. Nearly all such functions are among
//! those that are [only inlined](Summary::only_inlined), which are counted apart.

mod compare;
mod count;
mod merge;
pub mod paths;
mod places;
mod scan;
mod steps;
mod texts;
mod units;

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use klpx_diagnosis::{Class, Diagnosis, Result};
use klpx_normalize::arch::Arch;
use klpx_normalize::elf::{Elf, SectionId};
use object::elf::ET_REL;

pub use compare::{Change, State, compare};
pub use count::{Linkage, Summary, Tally};

use crate::lines::Lines;
use crate::reach::Unreachable;
use crate::sections::Sections;
use places::Places;
use scan::Trouble;
use texts::Texts;

/// Index of a function in [`Survey::functions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionId(u32);

impl FunctionId {
    /// For indexing.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Index of an out-of-line copy in [`Survey::copies`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CopyId(u32);

/// Index of an inlined copy in [`Survey::inlined`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InlinedId(u32);

/// Index of a text that several things share: a function's name, a symbol's, a file's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TextId(u32);

/// A function: see the [definitions](self).
#[derive(Clone, Debug)]
pub struct Function {
    /// Its name in the source.
    pub name: TextId,
    /// The file that declares it; its unit's own file when the DWARF does not say.
    pub file: TextId,
    /// The line there, from 1; 0 when the DWARF does not say.
    pub line: u32,
    /// It is visible to other units.
    pub external: bool,
    /// The file that declares it is no unit: a header, or a file that units include.
    pub included: bool,
    /// It is declared `inline`. Only GCC says so.
    pub declared_inline: bool,
    copies: Range<u32>,
    inlined: Range<u32>,
    /// It has both kinds of copies in one unit's definition of it.
    by_unit: bool,
}

/// An out-of-line copy of a function.
#[derive(Clone, Debug)]
pub struct OutOfLine {
    /// What it is a copy of.
    pub function: FunctionId,
    /// The file of the unit that it was compiled in.
    pub unit: TextId,
    /// The symbol at its first byte; its function's name when there is none.
    pub symbol: TextId,
    /// There is one. GNU ld keeps the code of a weak definition that another one took the name of; nothing leads there.
    pub named: bool,
    /// The section's name.
    pub section: TextId,
    /// The section.
    pub section_id: SectionId,
    /// Where it begins: an address in a linked image, an offset in its section in an object.
    pub address: u64,
    /// Its length in bytes; 0 unless the survey was [measured](Survey::measured).
    pub bytes: u32,
    /// Whether ftrace reaches it.
    pub reach: Reach,
}

/// Whether ftrace can reach an out-of-line copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It has a trace site, this many bytes from its entry.
    Site(i64),
    /// It has none.
    No(Unreachable),
    /// The file does not say: a linked image without the symbols that bound its trace sites.
    Unknown,
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reach::Site(offset) => write!(f, "reached at {offset:+}"),
            Reach::No(why) => write!(f, "not reached: {why}"),
            Reach::Unknown => write!(f, "unknown: the file does not say where its trace sites are"),
        }
    }
}

/// A call of a function that was inlined.
#[derive(Clone, Debug)]
pub struct Inlined {
    /// What was inlined.
    pub function: FunctionId,
    /// The out-of-line copy that holds it.
    pub holder: CopyId,
    /// The inlined copy around it, when it is not directly in its holder.
    pub parent: Option<InlinedId>,
    /// The file of the call; `None` when the DWARF does not say.
    pub file: Option<TextId>,
    /// The line of the call, from 1; 0 when the DWARF does not say.
    pub line: u32,
    /// The column of the call, from 1; 0 when the DWARF does not say.
    pub column: u32,
    /// The unit that defines the function is another than the holder's.
    pub across: bool,
    /// The file of the unit that defines the function.
    pub home: TextId,
    /// The bytes of code that are left of it, those of calls inlined into it included; 0 unless the survey was
    /// [measured](Survey::measured).
    pub bytes: u32,
}

/// What a file's DWARF says about inlining.
pub struct Survey {
    /// Of the file.
    pub arch: Arch,
    /// The compilers that made it, by number of units, the most frequent first.
    pub producers: Vec<(String, usize)>,
    /// DWARF versions, ascending.
    pub versions: Vec<u16>,
    /// How many units of a compiler it has.
    pub units: usize,
    /// True for a linked image, whose addresses are those of the running kernel without KASLR.
    pub linked: bool,
    /// The folder that files are named from, with a `/` at its end: where the source tree was. Empty when there is
    /// none.
    pub root: String,
    /// Every function with a copy, by file, line and name.
    functions: Vec<Function>,
    /// Every out-of-line copy, by function and address.
    copies: Vec<OutOfLine>,
    /// Every inlined copy, by function and holder.
    inlined: Vec<Inlined>,
    /// Every unit's own file, by name.
    unit_files: Vec<TextId>,
    texts: Texts,
}

/// What to read of a file.
#[derive(Default)]
struct Wanted<'a> {
    /// The folder that paths are given from; found out without it.
    tree: Option<&'a Path>,
    /// Line programs of the units to read, and of what these refer to; all without it.
    programs: Option<HashSet<usize>>,
    /// The size of each copy.
    sizes: bool,
}

impl Survey {
    /// Reads a file's DWARF. Paths are given from the folder that nearly all files are in.
    ///
    /// # Errors
    /// `klpx::no-dwarf`, `klpx::split-dwarf`, `klpx::supplementary-dwarf`, `klpx::bad-dwarf`, `klpx::unknown-machine`.
    pub fn read(elf: &Elf<'_>) -> Result<Survey> {
        Survey::of(&Sections::read(elf)?, Wanted::default())
    }

    /// The same with paths that are given from the folder `tree`.
    ///
    /// # Errors
    /// As for [`Survey::read`].
    pub fn read_in(elf: &Elf<'_>, tree: &Path) -> Result<Survey> {
        Survey::of(&Sections::read(elf)?, Wanted { tree: Some(tree), ..Wanted::default() })
    }

    /// The same of an object, for those units only that have code at these places (section, offset), and what these
    /// refer to.
    ///
    /// # Errors
    /// As for [`Survey::read`].
    pub fn read_units(elf: &Elf<'_>, tree: &Path, places: &[(SectionId, u64)]) -> Result<Survey> {
        let sections = Sections::read(elf)?;
        let lines = Lines::read(&sections);
        let programs = places.iter().filter_map(|&(section, offset)| lines.program_start(section, offset));
        let programs = Some(programs.collect());
        Survey::of(&sections, Wanted { tree: Some(tree), programs, sizes: false })
    }

    /// Reads a file's DWARF with the size of each copy, which takes longer.
    ///
    /// # Errors
    /// As for [`Survey::read`].
    pub fn measured(elf: &Elf<'_>) -> Result<Survey> {
        Survey::of(&Sections::read(elf)?, Wanted { sizes: true, ..Wanted::default() })
    }

    fn of(sections: &Sections<'_>, wanted: Wanted<'_>) -> Result<Survey> {
        sections.require_info()?;
        let elf = sections.elf();
        let arch = Arch::of_machine(elf.machine())?;
        let scan = || match elf.file_type() == ET_REL.0 {
            true => units::read(&sections.relocated(), sections, &wanted),
            false => units::read(&sections.plain(), sections, &wanted),
        };
        let (units, places) = rayon::join(scan, || Places::read(elf, arch));
        merge::merge(arch, sections, wanted.tree, &units.map_err(refusal)?, &places)
    }

    /// Every function that has a copy of either kind.
    pub fn functions(&self) -> impl ExactSizeIterator<Item = (FunctionId, &Function)> {
        self.functions.iter().enumerate().map(|(n, function)| (FunctionId(n as u32), function))
    }

    /// The functions of a name that a file declares.
    pub fn declared<'s>(
        &'s self,
        file: &'s str,
        name: &'s str,
    ) -> impl Iterator<Item = (FunctionId, &'s Function)> {
        let start = self.functions.partition_point(|function| self.text(function.file) < file);
        let in_file = move |(_, function): &(usize, &Function)| self.text(function.file) == file;
        let all = self.functions[start..].iter().enumerate().take_while(in_file);
        let named = all.filter(move |(_, function)| self.text(function.name) == name);
        named.map(move |(n, function)| (FunctionId((start + n) as u32), function))
    }

    /// Every out-of-line copy.
    pub fn out_of_line(&self) -> impl ExactSizeIterator<Item = (CopyId, &OutOfLine)> {
        self.copies.iter().enumerate().map(|(n, copy)| (CopyId(n as u32), copy))
    }

    /// A function.
    pub fn function(&self, id: FunctionId) -> &Function {
        &self.functions[id.0 as usize]
    }

    /// An out-of-line copy.
    pub fn copy(&self, id: CopyId) -> &OutOfLine {
        &self.copies[id.0 as usize]
    }

    /// An inlined copy.
    pub fn inlined_copy(&self, id: InlinedId) -> &Inlined {
        &self.inlined[id.0 as usize]
    }

    /// A function's out-of-line copies, by address.
    pub fn copies(&self, function: &Function) -> &[OutOfLine] {
        &self.copies[function.copies.start as usize..function.copies.end as usize]
    }

    /// A function's inlined copies, by holder.
    pub fn inlined(&self, function: &Function) -> &[Inlined] {
        &self.inlined[function.inlined.start as usize..function.inlined.end as usize]
    }

    /// The same by number.
    pub fn inlined_ids(&self, function: &Function) -> impl Iterator<Item = InlinedId> + use<> {
        function.inlined.clone().map(InlinedId)
    }

    /// True when a function is out of line and inlined too.
    pub fn is_half_inlined(&self, function: &Function) -> bool {
        !function.copies.is_empty() && !function.inlined.is_empty()
    }

    /// The files of all units, by name.
    pub fn unit_files(&self) -> &[TextId] {
        &self.unit_files
    }

    /// The places in the source that a function's inlined copies came from: file, line, column.
    pub fn call_sites(&self, function: &Function) -> usize {
        let place = |call: &Inlined| (call.file, call.line, call.column);
        let mut places: Vec<_> = self.inlined(function).iter().map(place).collect();
        places.sort_unstable();
        places.dedup();
        places.len()
    }

    /// The out-of-line copies that hold inlined ones of a function.
    pub fn holders(&self, function: &Function) -> Vec<CopyId> {
        let mut holders: Vec<CopyId> = self.inlined(function).iter().map(|call| call.holder).collect();
        holders.dedup();
        holders
    }

    /// The inlined copies around one, from the holder's own call inwards; empty when it is directly in its holder.
    pub fn chain(&self, call: &Inlined) -> Vec<&Inlined> {
        let around = std::iter::successors(call.parent, |&id| self.inlined_copy(id).parent);
        let mut chain: Vec<&Inlined> = around.map(|id| self.inlined_copy(id)).collect();
        chain.reverse();
        chain
    }

    /// A text.
    pub fn text(&self, id: TextId) -> &str {
        self.texts.get(id)
    }
}

fn refusal(trouble: Trouble) -> Diagnosis {
    let refused = |code, what: &str| Diagnosis::new(code, Class::Input, what);
    match trouble {
        Trouble::Broken(error, at) => refused("klpx::bad-dwarf", "the debug information can't be read")
            .why(format!("unit at {at:#x} of .debug_info: {error}"))
            .remedy("build the file again; if it came from a package, check its integrity"),
        Trouble::Split(file) => refused("klpx::split-dwarf", "the debug information lies in other files")
            .why(match file.as_str() {
                "" => "the file has only the skeleton of split DWARF".to_owned(),
                file => format!("a unit leads to {file}"),
            })
            .remedy("build without CONFIG_DEBUG_INFO_SPLIT (-gsplit-dwarf)"),
        Trouble::Supplementary => {
            refused("klpx::supplementary-dwarf", "part of the debug information lies in another file")
                .why("dwz moved what several files share into a supplementary file")
                .remedy("take the file from before dwz: the kernel's own build tree has it")
        }
    }
}
