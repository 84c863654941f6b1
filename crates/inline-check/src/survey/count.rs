//! Counts over a survey, by the linkage of functions and by where they are declared.

use super::{Function, Survey};

/// The linkage of a function, and the kind of file that declares it.
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
    /// Every kind, in the order in which counts are shown.
    pub const ALL: [Linkage; 3] = [Linkage::Static, Linkage::StaticIncluded, Linkage::Global];

    /// Returns the kind in a few words.
    pub fn name(self) -> &'static str {
        match self {
            Linkage::Static => "static",
            Linkage::StaticIncluded => "static in a header",
            Linkage::Global => "global",
        }
    }
}

impl Function {
    /// Returns the function's linkage and the kind of file that declares it.
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
    /// Out-of-line functions that are also inlined.
    pub half_inlined: usize,
    /// Half-inlined functions with an inlined copy across files.
    pub half_inlined_across: usize,
    /// Inlined copies of half-inlined functions.
    pub inlined: usize,
    /// Inlined copies of half-inlined functions that are across files.
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

/// The counts of a whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Counts in the order of [`Linkage::ALL`].
    pub by_linkage: [Tally; 3],
    /// Half-inlined functions that have both kinds of copies from one unit's definition.
    pub by_unit: usize,
    /// Functions without an out-of-line copy: always_inline functions, and functions that the compiler inlined
    /// everywhere.
    pub only_inlined: usize,
    /// Functions without an out-of-line copy that are declared `inline`; 0 if the compiler does not tell (Clang).
    pub only_inlined_declared: usize,
    /// Inlined copies of the functions without an out-of-line copy.
    pub only_inlined_copies: usize,
    /// Half-inlined functions with an out-of-line copy that ftrace reaches.
    pub half_inlined_reached: usize,
}

impl Summary {
    /// Counts the functions and copies of a survey.
    pub fn count(survey: &Survey) -> Summary {
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

    /// Returns the sum over all kinds of linkage.
    pub fn all(&self) -> Tally {
        self.by_linkage.iter().fold(Tally::default(), Tally::plus)
    }
}
