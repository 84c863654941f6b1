//! Guarded code may call nothing that can be traced or instrumented, so functions inlined into it have to stay inlined.

use klpx_normalize::elf::Elf;

use crate::survey::{CopyId, Survey};

/// The sections of guarded code, and the symbols that bound them where a linked image has them inside `.text`
/// (include/asm-generic/vmlinux.lds.h, arch/arm64/kernel/vmlinux.lds.S).
const SECTIONS: [(&str, &str, &str); 5] = [
    (".noinstr.text", "__noinstr_text_start", "__noinstr_text_end"),
    (".entry.text", "__entry_text_start", "__entry_text_end"),
    (".cpuidle.text", "__cpuidle_text_start", "__cpuidle_text_end"),
    (".hyp.text", "__hyp_text_start", "__hyp_text_end"),
    (".idmap.text", "__idmap_text_start", "__idmap_text_end"),
];

/// The places of guarded code in a file.
#[derive(Default)]
pub struct Guarded {
    /// Section name, first address, end.
    ranges: Vec<(&'static str, u64, u64)>,
}

impl Guarded {
    /// Finds the guarded code of a file.
    pub fn read(elf: &Elf<'_>) -> Guarded {
        let mut bounds = [[None; 2]; SECTIONS.len()];
        for id in elf.symbol_ids() {
            let name = elf.symbol_name(id);
            for ((_, start, end), found) in SECTIONS.iter().zip(&mut bounds) {
                for (bound, at) in [start, end].into_iter().zip(found) {
                    if name == bound.as_bytes() {
                        *at = Some(elf.symbol_value(id));
                    }
                }
            }
        }
        let range = |(section, bounds): (&(&'static str, _, _), &[Option<u64>; 2])| match bounds {
            [Some(start), Some(end)] => Some((section.0, *start, *end)),
            _ => None,
        };
        Guarded { ranges: SECTIONS.iter().zip(&bounds).filter_map(range).collect() }
    }

    /// Returns the guarded section that holds a copy, if there is one.
    pub(super) fn section(&self, survey: &Survey, copy: CopyId) -> Option<&'static str> {
        let copy = survey.copy(copy);
        let section = survey.text(copy.section);
        let named = SECTIONS.iter().map(|(name, ..)| *name).find(|name| section.starts_with(name));
        let inside = |&&(_, start, end): &&(&str, u64, u64)| (start..end).contains(&copy.address);
        named.or_else(|| self.ranges.iter().find(inside).filter(|_| survey.linked).map(|(name, ..)| *name))
    }
}
