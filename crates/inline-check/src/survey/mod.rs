//! Finds the functions that exist out of line and are also inlined, by reading a whole file's DWARF in one pass.
//!
//! Owns the definitions, the merge over units, and the counts. Never decides what changed, and reads no instructions.
//!
//! # Definitions
//!
//! A **function** is known by its source: a name, declared at one line of one file. A `static inline` function of a
//! header is one function, however many units compiled it. Two static functions of one name in two files are two
//! functions. Assembly has no functions here.
//!
//! An **out-of-line copy** is a `DW_TAG_subprogram` that has an address in a section of code. A clone (`f.constprop.0`,
//! `f.part.0`) and each unit's own copy of a header's function are copies of one function.
//!
//! An **inlined copy** is a `DW_TAG_inlined_subroutine`, at any depth, in an out-of-line copy, which is its **holder**.
//! An inlined copy counts even if none of its instructions is left, because a probe misses that call as well. But
//! compilers mostly omit such an entry, and then nobody can count the copy: a small function whose instructions were
//! merged with the code around them may be inlined at more places than the DWARF tells.
//!
//! A **call site** is a place in the source (file, line, column) from which at least one inlined copy came. If a loop
//! was unrolled or a caller was itself inlined, one call site has several copies.
//!
//! A function is **half-inlined** if the file has an out-of-line copy and an inlined copy of it, anywhere. Counted
//! [unit by unit](Summary::by_unit), the function has both copies from one unit's definition. A header's function that
//! is out of line in one unit and inlined only in other units is half-inlined, but not by unit.
//!
//! An inlined copy is **across files** if the unit that defines the function is not the holder's unit: only LTO makes
//! such copies. Copies that came along inside a function from a different unit are also across files.
//!
//! **always_inline** functions can't be told apart. Clang writes `DW_INL_inlined` for every function. GCC marks
//! functions that are declared `inline`, which include `always_inline` functions. Nearly all `always_inline` functions
//! are [only inlined](Summary::only_inlined), which are counted separately.

mod compare;
mod count;
mod merge;
pub mod paths;
mod places;
mod scan;
mod scanned;
mod steps;
mod texts;
mod units;

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use klpx_diagnosis::{Diagnosis, Result, codes};
use klpx_normalize::arch::Arch;
use klpx_normalize::elf::{Elf, SectionId};
use object::elf::ET_REL;

pub use compare::{CopyState, StateChange, compare};
pub use count::{Linkage, Summary, Tally};

use crate::lines::Lines;
use crate::reach::Unreachable;
use crate::sections::DebugSections;
use places::Places;
use scan::Trouble;
use texts::Texts;

/// Index of a function in [`Survey::functions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionId(u32);

impl FunctionId {
    /// As an index.
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

/// Index of a text that several objects share: a function's name, a symbol's name, or a file's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TextId(u32);

/// A function: see the [definitions](self).
#[derive(Clone, Debug)]
pub struct Function {
    /// The function's name in the source.
    pub name: TextId,
    /// The file that declares the function; its unit's own file if the DWARF names none.
    pub file: TextId,
    /// The line in the file, from 1; 0 if the DWARF names none.
    pub line: u32,
    /// True if other units can see the function.
    pub external: bool,
    /// True if the file that declares the function is not a unit's own file, but a header or another included file.
    pub included: bool,
    /// True if the function is declared `inline`. Only GCC tells.
    pub declared_inline: bool,
    copies: Range<u32>,
    inlined: Range<u32>,
    /// True if the function has both kinds of copies from one unit's definition.
    by_unit: bool,
}

/// An out-of-line copy of a function.
#[derive(Clone, Debug)]
pub struct OutOfLine {
    /// The function that this is a copy of.
    pub function: FunctionId,
    /// The file of the unit that compiled the copy.
    pub unit: TextId,
    /// The symbol at the copy's first byte; the function's name if there is no symbol.
    pub symbol: TextId,
    /// True if there is a symbol. GNU ld keeps the code of a weak definition whose name another definition took;
    /// nothing refers to this code.
    pub named: bool,
    /// The section's name.
    pub section: TextId,
    /// The section.
    pub section_id: SectionId,
    /// The start of the copy: an address in a linked image, an offset in the section in an object.
    pub address: u64,
    /// The copy's length in bytes; 0 unless the survey was [measured](Survey::measured).
    pub bytes: u32,
    /// Whether ftrace reaches the copy.
    pub reach: Reach,
}

/// Whether ftrace can reach an out-of-line copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The copy has a trace site, this many bytes from its entry.
    Site(i64),
    /// The copy has no trace site.
    No(Unreachable),
    /// The file does not tell: a linked image without the symbols that bound its trace sites.
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

/// An inlined copy: a call of a function that was inlined.
#[derive(Clone, Debug)]
pub struct Inlined {
    /// The inlined function.
    pub function: FunctionId,
    /// The out-of-line copy that holds the inlined copy.
    pub holder: CopyId,
    /// The inlined copy around this copy; `None` if it lies directly in its holder.
    pub parent: Option<InlinedId>,
    /// The file of the call; `None` if the DWARF names none.
    pub file: Option<TextId>,
    /// The line of the call, from 1; 0 if the DWARF names none.
    pub line: u32,
    /// The column of the call, from 1; 0 if the DWARF names none.
    pub column: u32,
    /// True if the unit that defines the function is not the holder's unit.
    pub across: bool,
    /// The file of the unit that defines the function.
    pub home: TextId,
    /// The bytes of code that are left of the copy, including calls inlined into it; 0 unless the survey was
    /// [measured](Survey::measured).
    pub bytes: u32,
}

/// The facts about inlining in a file's DWARF.
pub struct Survey {
    /// The architecture of the file.
    pub arch: Arch,
    /// The compilers of the file, with their numbers of units, the most frequent first.
    pub producers: Vec<(String, usize)>,
    /// The DWARF versions, ascending.
    pub versions: Vec<u16>,
    /// The number of units from a compiler.
    pub units: usize,
    /// True for a linked image, whose addresses are those of the running kernel without KASLR.
    pub linked: bool,
    /// The folder from which files are named, with a `/` at its end: the place of the source tree. Empty if there is
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

/// The parts of a file to read.
#[derive(Default)]
struct WantedParts<'a> {
    /// The folder from which paths are given; determined from the file if absent.
    tree: Option<&'a Path>,
    /// The line programs of the units to read, along with the units that these refer to; all units if absent.
    programs: Option<HashSet<usize>>,
    /// True to measure the size of each copy.
    sizes: bool,
}

impl Survey {
    /// Reads a file's DWARF. Paths are given from the folder that holds nearly all files.
    ///
    /// # Errors
    /// `klpx::no-dwarf`, `klpx::split-dwarf`, `klpx::supplementary-dwarf`, `klpx::bad-dwarf`, `klpx::unknown-machine`.
    pub fn read(elf: &Elf<'_>) -> Result<Survey> {
        Survey::read_parts(&DebugSections::read(elf)?, WantedParts::default())
    }

    /// Reads a file's DWARF. Paths are given from the folder `tree`.
    ///
    /// # Errors
    /// The same as for [`Survey::read`].
    pub fn read_in(elf: &Elf<'_>, tree: &Path) -> Result<Survey> {
        Survey::read_parts(
            &DebugSections::read(elf)?,
            WantedParts { tree: Some(tree), ..WantedParts::default() },
        )
    }

    /// Reads an object's DWARF, but only the units that have code at these places (section, offset), and the units that
    /// these refer to.
    ///
    /// # Errors
    /// The same as for [`Survey::read`].
    pub fn read_units(elf: &Elf<'_>, tree: &Path, places: &[(SectionId, u64)]) -> Result<Survey> {
        let sections = DebugSections::read(elf)?;
        let lines = Lines::read(&sections);
        let programs = places.iter().filter_map(|&(section, offset)| lines.program_start(section, offset));
        let programs = Some(programs.collect());
        Survey::read_parts(&sections, WantedParts { tree: Some(tree), programs, sizes: false })
    }

    /// Reads a file's DWARF with the size of each copy, which takes longer.
    ///
    /// # Errors
    /// The same as for [`Survey::read`].
    pub fn measured(elf: &Elf<'_>) -> Result<Survey> {
        Survey::read_parts(&DebugSections::read(elf)?, WantedParts { sizes: true, ..WantedParts::default() })
    }

    fn read_parts(sections: &DebugSections<'_>, wanted: WantedParts<'_>) -> Result<Survey> {
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

    /// Returns every function that has a copy of either kind.
    pub fn functions(&self) -> impl ExactSizeIterator<Item = (FunctionId, &Function)> {
        self.functions.iter().enumerate().map(|(n, function)| (FunctionId(n as u32), function))
    }

    /// Returns the functions of a name that a file declares.
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

    /// Returns every out-of-line copy.
    pub fn out_of_line(&self) -> impl ExactSizeIterator<Item = (CopyId, &OutOfLine)> {
        self.copies.iter().enumerate().map(|(n, copy)| (CopyId(n as u32), copy))
    }

    /// Returns a function.
    pub fn function(&self, id: FunctionId) -> &Function {
        &self.functions[id.0 as usize]
    }

    /// Returns an out-of-line copy.
    pub fn copy(&self, id: CopyId) -> &OutOfLine {
        &self.copies[id.0 as usize]
    }

    /// Returns an inlined copy.
    pub fn inlined_copy(&self, id: InlinedId) -> &Inlined {
        &self.inlined[id.0 as usize]
    }

    /// Returns a function's out-of-line copies, by address.
    pub fn copies(&self, function: &Function) -> &[OutOfLine] {
        &self.copies[function.copies.start as usize..function.copies.end as usize]
    }

    /// Returns a function's inlined copies, by holder.
    pub fn inlined(&self, function: &Function) -> &[Inlined] {
        &self.inlined[function.inlined.start as usize..function.inlined.end as usize]
    }

    /// Returns the numbers of a function's inlined copies, by holder.
    pub fn inlined_ids(&self, function: &Function) -> impl Iterator<Item = InlinedId> + use<> {
        function.inlined.clone().map(InlinedId)
    }

    /// Returns true if a function has an out-of-line copy and an inlined copy.
    pub fn is_half_inlined(&self, function: &Function) -> bool {
        !function.copies.is_empty() && !function.inlined.is_empty()
    }

    /// Returns the files of all units, by name.
    pub fn unit_files(&self) -> &[TextId] {
        &self.unit_files
    }

    /// Returns the number of places in the source (file, line, column) from which a function's inlined copies came.
    pub fn call_sites(&self, function: &Function) -> usize {
        let place = |call: &Inlined| (call.file, call.line, call.column);
        let mut places: Vec<_> = self.inlined(function).iter().map(place).collect();
        places.sort_unstable();
        places.dedup();
        places.len()
    }

    /// Returns the out-of-line copies that hold inlined copies of a function.
    pub fn holders(&self, function: &Function) -> Vec<CopyId> {
        let mut holders: Vec<CopyId> = self.inlined(function).iter().map(|call| call.holder).collect();
        holders.dedup();
        holders
    }

    /// Returns the inlined copies around an inlined copy, from the holder's own call inwards; empty if the copy lies
    /// directly in its holder.
    pub fn chain(&self, call: &Inlined) -> Vec<&Inlined> {
        let around = std::iter::successors(call.parent, |&id| self.inlined_copy(id).parent);
        let mut chain: Vec<&Inlined> = around.map(|id| self.inlined_copy(id)).collect();
        chain.reverse();
        chain
    }

    /// Returns a text.
    pub fn text(&self, id: TextId) -> &str {
        self.texts.get(id)
    }
}

fn refusal(trouble: Trouble) -> Diagnosis {
    match trouble {
        Trouble::Broken(error, at) => Diagnosis::new(
            &codes::BAD_DWARF,
            "the debug information can't be read",
            format!("unit at {at:#x} of .debug_info: {error}"),
            "build the file again; if it came from a package, check its integrity",
        ),
        Trouble::Split(file) => Diagnosis::new(
            &codes::SPLIT_DWARF,
            "the debug information lies in other files",
            match file.as_str() {
                "" => "the file has only the skeleton of split DWARF".to_owned(),
                file => format!("a unit leads to {file}"),
            },
            "build without CONFIG_DEBUG_INFO_SPLIT (-gsplit-dwarf)",
        ),
        Trouble::Supplementary => Diagnosis::new(
            &codes::SUPPLEMENTARY_DWARF,
            "part of the debug information lies in another file",
            "dwz moved what several files share into a supplementary file",
            "take the file from before dwz: the kernel's own build tree has it",
        ),
    }
}
