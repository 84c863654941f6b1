//! The position by which a livepatch refers to a symbol. This is the only computation of `sympos`.

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Failure, Result, codes};
use klpx_normalize::elf::{Definition, SymbolId};
use object::elf;

use super::kernel_object::Image;
use crate::kallsyms::{self, table::Kallsyms};

/// The name and position by which a livepatch must refer to a symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymbolPosition {
    /// The name with which the running kernel compares.
    pub name: String,
    /// 0 for a name that is unique in its object, otherwise the position from 1.
    pub sympos: u32,
}

impl Image<'_> {
    /// The name and position by which a livepatch must refer to a symbol.
    ///
    /// Positions count in the order of kallsyms for vmlinux, and in the order of the symbol table for a module
    /// (kernel/livepatch/core.c, klp_find_object_symbol).
    ///
    /// # Errors
    /// `klpx::not-in-kallsyms` if the running kernel has no such name; `klpx::moving-symbol` if a module's position
    /// changes after its init.
    pub fn position(&self, symbol: SymbolId) -> Result<SymbolPosition> {
        if self.linked { self.position_in_kallsyms(symbol) } else { self.position_in_module(symbol) }
    }

    /// The kernel's symbols in the form that it searches.
    fn kallsyms(&self) -> Result<&Kallsyms> {
        let table = self.kallsyms.get_or_init(|| kallsyms::read(self));
        table.as_ref().map_err(Failure::clone)
    }

    fn position_in_kallsyms(&self, symbol: SymbolId) -> Result<SymbolPosition> {
        let kallsyms = self.kallsyms()?;
        let name = kallsyms.seen_name(self.elf.symbol_name(symbol));
        let address = self.address(symbol).filter(|&address| address != 0);
        let all: Vec<u64> = kallsyms.addresses(name).collect();
        let n = all.iter().position(|&a| Some(a) == address).ok_or_else(|| not_in_kallsyms(self, symbol))?;
        let sympos = if all.len() == 1 { 0 } else { n as u32 + 1 };
        Ok(SymbolPosition { name: String::from_utf8_lossy(name).into_owned(), sympos })
    }

    fn position_in_module(&self, symbol: SymbolId) -> Result<SymbolPosition> {
        let name = self.elf.symbol_name(symbol);
        // FILE symbols also count: the kernel compares only names.
        let files = self.files.iter().copied().filter(|&id| self.elf.symbol_name(id) == name);
        let mut all: Vec<SymbolId> = (self.named(name).chain(files))
            .filter(|&id| self.elf.definition(id) != Definition::Undefined)
            .collect();
        all.sort_unstable();
        let kept: Vec<SymbolId> = all.iter().copied().filter(|&id| self.stays_after_init(id)).collect();
        let place = |list: &[SymbolId]| list.iter().position(|&id| id == symbol).map(|n| n as u32 + 1);
        let name = self.name(symbol);
        match (place(&all), place(&kept)) {
            (Some(_), Some(_)) if all.len() == 1 => Ok(SymbolPosition { name, sympos: 0 }),
            (Some(before), Some(after)) if before == after => Ok(SymbolPosition { name, sympos: before }),
            (Some(before), Some(after)) => Err(moving(self, &name, before, after).into()),
            _ => Err(not_in_kallsyms(self, symbol).into()),
        }
    }

    /// The address of the symbol to which a livepatch refers by this name and position.
    pub(crate) fn placed(&self, name: &str, sympos: u32) -> Option<u64> {
        let n = sympos.saturating_sub(1) as usize;
        if self.linked {
            return self.kallsyms().ok()?.addresses(name.as_bytes()).nth(n);
        }
        let mut all: Vec<SymbolId> =
            self.named(name.as_bytes()).filter(|&id| self.address(id).is_some()).collect();
        all.sort_unstable();
        self.address(*all.get(n)?)
    }

    /// Whether a module keeps a symbol after its init (kernel/module/kallsyms.c, is_core_symbol).
    fn stays_after_init(&self, id: SymbolId) -> bool {
        let Definition::Section(section) = self.elf.definition(id) else { return false };
        let alloc = self.elf.section_flags(section) & elf::SHF_ALLOC.0 != 0;
        alloc && !self.elf.section_name(section).starts_with(b".init")
    }
}

fn not_in_kallsyms(image: &Image<'_>, symbol: SymbolId) -> Diagnosis {
    Diagnosis::new(
        &codes::NOT_IN_KALLSYMS,
        "the running kernel can't find this symbol",
        format!("the symbol table that {} keeps at run time does not hold it", image.object),
        "check that the kernel has CONFIG_KALLSYMS_ALL; change the patch so that it does not \
         need this symbol",
    )
    .place(DiagnosisPlace::symbol(image.name(symbol)))
}

fn moving(image: &Image<'_>, name: &str, before: u32, after: u32) -> Diagnosis {
    Diagnosis::new(
        &codes::MOVING_SYMBOL,
        "a symbol's position changes after init",
        format!(
            "while {} is loading it is number {before} of its name, after init has been freed it \
             is number {after}",
            image.object
        ),
        "the name is also used in an .init section; change the patch so that it does not \
         need this symbol",
    )
    .place(DiagnosisPlace::symbol(name))
}
