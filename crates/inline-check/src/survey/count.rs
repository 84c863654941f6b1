//! Counts over a survey, by who can see a function and where it is declared.

use super::{Function, Survey};

/// Who can see a function, and where it is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linkage {
    /// Static, in a unit's own file.
    Static,
    /// Static, in a header or another file that units include.
    StaticIncluded,
    /// Global.
    Global,
}

impl Linkage {
    /// Every kind, in the order that counts are shown in.
    pub const ALL: [Linkage; 3] = [Linkage::Static, Linkage::StaticIncluded, Linkage::Global];

    /// In a word or three.
    pub fn name(self) -> &'static str {
        match self {
            Linkage::Static => "static",
            Linkage::StaticIncluded => "static in a header",
            Linkage::Global => "global",
        }
    }
}

impl Function {
    /// Who can see it, and where it is declared.
    pub fn linkage(&self) -> Linkage {
        match (self.external, self.included) {
            (true, _) => Linkage::Global,
            (false, false) => Linkage::Static,
            (false, true) => Linkage::StaticIncluded,
        }
    }
}

/// Counts of the functions that exist out of line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Functions that exist out of line.
    pub out_of_line: usize,
    /// Those of them that are inlined too.
    pub half_inlined: usize,
    /// Those of these with an inlined copy across files.
    pub half_inlined_across: usize,
    /// Inlined copies of half-inlined functions.
    pub inlined: usize,
    /// Those of them that are across files.
    pub inlined_across: usize,
}

impl Tally {
    fn add(&mut self, survey: &Survey, function: &Function) {
        self.out_of_line += 1;
        if !survey.is_half_inlined(function) {
            return;
        }
        let inlined = survey.inlined(function);
        let across = inlined.iter().filter(|call| call.across).count();
        self.half_inlined += 1;
        self.half_inlined_across += usize::from(across > 0);
        self.inlined += inlined.len();
        self.inlined_across += across;
    }

    fn plus(mut self, other: &Tally) -> Tally {
        self.out_of_line += other.out_of_line;
        self.half_inlined += other.half_inlined;
        self.half_inlined_across += other.half_inlined_across;
        self.inlined += other.inlined;
        self.inlined_across += other.inlined_across;
        self
    }
}

/// What is counted of a whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// In the order of [`Linkage::ALL`].
    pub by_linkage: [Tally; 3],
    /// Half-inlined functions that have both kinds of copies in one unit's definition of them.
    pub by_unit: usize,
    /// Functions without an out-of-line copy: always_inline ones, and those that the compiler inlined everywhere.
    pub only_inlined: usize,
    /// Of these, those that are declared `inline`; 0 when the compiler does not say (Clang).
    pub only_inlined_declared: usize,
    /// Their inlined copies.
    pub only_inlined_copies: usize,
    /// Half-inlined functions of which ftrace reaches an out-of-line copy.
    pub half_inlined_reached: usize,
}

impl Summary {
    /// Counts.
    pub fn of(survey: &Survey) -> Summary {
        let mut summary = Summary::default();
        for (_, function) in survey.functions() {
            let copies = survey.copies(function);
            if copies.is_empty() {
                summary.only_inlined += 1;
                summary.only_inlined_declared += usize::from(function.declared_inline);
                summary.only_inlined_copies += survey.inlined(function).len();
                continue;
            }
            summary.by_linkage[function.linkage() as usize].add(survey, function);
            if survey.is_half_inlined(function) {
                summary.by_unit += usize::from(function.by_unit);
                let reached = copies.iter().any(|copy| matches!(copy.reach, super::Reach::Site(_)));
                summary.half_inlined_reached += usize::from(reached);
            }
        }
        summary
    }

    /// All kinds together.
    pub fn all(&self) -> Tally {
        self.by_linkage.iter().fold(Tally::default(), Tally::plus)
    }
}
