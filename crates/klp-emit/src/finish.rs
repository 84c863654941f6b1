//! Turns the linked module into the loadable one: livepatch relocations and symbols get their final form.
//!
//! Owns the last rewriting: `.klpx.` references become `.klp.rela.*` and `.klp.sym.*`; aliases and everything that is
//! not loaded are dropped. The same input always gives the same bytes.
//!
//! The format, with a dump: `docs/formats/livepatch-module.md`.

use std::collections::BTreeMap;

use klpx_diagnosis::{Diagnosis, Result, codes};
use klpx_normalize::elf::ElfFile;
use object::elf;

use crate::plan::{ALIAS, PENDING};
use crate::writer::{
    KLP_RELA_FLAGS, OutputSection, RelaTable, Relocatable, SymbolIndex, SymbolPlace, klp_rela_name,
};

/// Finishes a linked module.
///
/// # Errors
/// Fails if the file is not a module that was linked with a closure object.
pub fn finish(linked: &ElfFile) -> Result<Vec<u8>> {
    let mut module = Relocatable::read(&linked.parse()?)?;
    module.retain_sections(is_loaded)?;
    for section in &mut module.sections {
        // A linker that merges strings with other constants keeps the strings' flags.
        section.flags &= !(elf::SHF_MERGE.0 | elf::SHF_STRINGS.0);
        section.entsize = 0;
    }
    resolve_aliases(&mut module)?;
    livepatch_relocations(&mut module)?;
    drop_names(&mut module)?;
    Ok(with_own_build_id(&mut module))
}

/// The linker's build ID covers debug information, and so the paths of the machine. This build ID covers only the
/// file's contents: it is the first bytes of the hash of the file with zeros in place of the ID.
fn with_own_build_id(module: &mut Relocatable) -> Vec<u8> {
    // Elf64_Nhdr: name size, description size, type, "GNU\0", then the ID
    const HEADER: usize = 16;
    let Some(at) = module.sections.iter().position(|section| section.name == b".note.gnu.build-id") else {
        return module.write();
    };
    if let Some(id) = module.sections[at].data.get_mut(HEADER..) {
        id.fill(0);
    }
    let hash = blake3::hash(&module.write());
    if let Some(id) = module.sections[at].data.get_mut(HEADER..) {
        for (to, from) in id.iter_mut().zip(hash.as_bytes()) {
            *to = *from;
        }
    }
    module.write()
}

/// Returns true for sections that the kernel needs. Debug information names paths of the build machine; the `.BTF` of
/// another kernel makes the load fail.
fn is_loaded(section: &OutputSection) -> bool {
    let dropped = [&b".BTF"[..], b".BTF.base", b".BTF_ids", b".llvm_addrsig", b".note.GNU-stack"];
    section.flags & elf::SHF_ALLOC.0 != 0 && !dropped.contains(&&section.name[..])
}

/// Replaces the global aliases by which the glue refers to new functions; the module keeps the kernel's own names.
fn resolve_aliases(module: &mut Relocatable) -> Result<()> {
    let mut real: BTreeMap<SymbolIndex, SymbolIndex> = BTreeMap::new();
    for (n, alias) in module.symbols.iter().enumerate() {
        if !alias.name.starts_with(ALIAS.as_bytes()) {
            continue;
        }
        let target = module.symbols.iter().position(|symbol| {
            symbol.place == alias.place
                && symbol.value == alias.value
                && symbol.kind == elf::STT_FUNC.0
                && !symbol.name.starts_with(ALIAS.as_bytes())
                && matches!(symbol.place, SymbolPlace::In(_))
        });
        let Some(target) = target else {
            let name = String::from_utf8_lossy(&alias.name).into_owned();
            return Err(Diagnosis::new(
                &codes::LINK,
                format!("the linked module has no function for {name}"),
                "the glue was linked without its closure object, or with another one",
                klpx_diagnosis::REPORT,
            )
            .into());
        };
        real.insert(SymbolIndex(n), SymbolIndex(target));
    }
    for relocation in relocations(module) {
        if let Some(target) = relocation.symbol.and_then(|symbol| real.get(&symbol)) {
            relocation.symbol = Some(*target);
        }
    }
    module.retain_symbols(|_, symbol| !symbol.name.starts_with(ALIAS.as_bytes()))
}

fn relocations(module: &mut Relocatable) -> impl Iterator<Item = &mut crate::writer::Relocation> {
    module.sections.iter_mut().flat_map(|section| &mut section.relas).flat_map(|table| &mut table.relocations)
}

/// Moves references to `.klpx.` symbols into livepatch relocation sections.
fn livepatch_relocations(module: &mut Relocatable) -> Result<()> {
    let mut section_object: Vec<Option<String>> = vec![None; module.symbols.len()];
    for (n, symbol) in module.symbols.iter_mut().enumerate() {
        let Some(rest) = symbol.name.strip_prefix(PENDING.as_bytes()) else { continue };
        let Some(split) =
            rest.iter().position(|&b| b == b'!').filter(|_| symbol.place == SymbolPlace::Undefined)
        else {
            let name = String::from_utf8_lossy(&symbol.name).into_owned();
            return Err(Diagnosis::new(
                &codes::LINK,
                format!("{name} is no livepatch reference"),
                "its name has no separator, or the linked module defines it",
                klpx_diagnosis::REPORT,
            )
            .into());
        };
        section_object[n] = Some(String::from_utf8_lossy(&rest[..split]).into_owned());
        symbol.name = rest[split + 1..].to_vec();
        symbol.place = SymbolPlace::Livepatch;
    }
    for section in &mut module.sections {
        let mut tables: BTreeMap<Vec<u8>, RelaTable> = BTreeMap::new();
        for table in &mut section.relas {
            table.relocations.retain(|relocation| {
                let object = relocation.symbol.and_then(|symbol| section_object[symbol.0].as_ref());
                let Some(object) = object else { return true };
                let name = klp_rela_name(object, &section.name);
                let fresh =
                    || RelaTable { name: name.clone(), flags: KLP_RELA_FLAGS, relocations: Vec::new() };
                tables.entry(name.clone()).or_insert_with(fresh).relocations.push(*relocation);
                false
            });
        }
        section.relas.retain(|table| !table.relocations.is_empty());
        section.relas.extend(tables.into_values());
    }
    Ok(())
}

/// Drops symbols that only named a file or a path of the build, and undefined symbols without a reference.
fn drop_names(module: &mut Relocatable) -> Result<()> {
    let mut used = vec![false; module.symbols.len()];
    for relocation in relocations(module) {
        if let Some(symbol) = relocation.symbol {
            used[symbol.0] = true;
        }
    }
    module.retain_symbols(|n, symbol| match symbol.place {
        SymbolPlace::Undefined | SymbolPlace::Livepatch => used[n],
        SymbolPlace::Absolute => symbol.kind != elf::STT_FILE.0,
        SymbolPlace::In(_) => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use klpx_normalize::elf::Elf;
    use klpx_testkit::fixture::Fixture;

    /// A linked module: a function with an alias for the glue, a livepatch reference, and sections that are not loaded.
    fn linked(more: &str) -> Fixture {
        let f = Fixture::new();
        let text = format!(
            ".file \"a.c\"\n.text\n.local label\n.globl klpx_new_0\n.type klpx_new_0,@function\n.type f,@function\n.type label,@notype\n\
             label: klpx_new_0: f: call \".klpx.vmlinux!.klp.sym.vmlinux.g,0\"\ncall \".klpx.raid1!.klp.sym.raid1.h,2\"\n\
             call kfree\nret\n.size f,.-f\n.globl unused\n\
             .section .rodata.str,\"aMS\",@progbits,1\n.asciz \"text\"\n\
             .section .BTF,\"a\"\n.long 1\n.section .comment2\n.long 1\n.data\n.quad klpx_new_0\n\
             .section .note.gnu.build-id,\"a\"\n.long 4,20,3\n.asciz \"GNU\"\n.fill 20,1,7\n{more}"
        );
        f.assemble("linked", &text);
        f
    }

    fn finished(f: &Fixture) -> ElfFile {
        ElfFile::from_bytes("livepatch.ko", finish(&f.open("linked.o")).expect("a module"))
    }

    fn names(elf: &Elf<'_>) -> Vec<String> {
        let names = elf.symbol_ids().map(|id| String::from_utf8_lossy(elf.symbol_name(id)).into_owned());
        names.filter(|name| !name.is_empty()).collect()
    }

    #[test]
    fn a_module_has_what_the_kernel_loads_and_nothing_else() {
        let file = finished(&linked(""));
        let elf = file.parse().expect("a module");
        let sections: Vec<_> =
            elf.section_ids().map(|id| String::from_utf8_lossy(elf.section_name(id)).into_owned()).collect();
        for gone in [".BTF", ".comment2"] {
            assert!(!sections.iter().any(|name| name == gone), "{sections:?}");
        }
        let texts = elf.section_by_name(b".rodata.str").expect("texts");
        assert_eq!(elf.section_flags(texts), elf::SHF_ALLOC.0);
        assert_eq!(names(&elf), ["label", "f", ".klp.sym.vmlinux.g,0", ".klp.sym.raid1.h,2", "kfree"]);
    }

    #[test]
    fn aliases_lead_to_the_function_and_livepatch_references_stand_apart() {
        let file = finished(&linked(""));
        let elf = file.parse().expect("a module");
        let mut tables = Vec::new();
        for id in elf.section_ids().filter(|&id| elf.section_type(id) == elf::SHT_RELA.0) {
            let symbols = elf.rela_table(id).iter().filter_map(|rela| elf.rela_symbol(rela));
            let symbols: Vec<_> =
                symbols.map(|id| String::from_utf8_lossy(elf.symbol_name(id)).into_owned()).collect();
            let name = String::from_utf8_lossy(elf.section_name(id)).into_owned();
            let livepatch = elf.section_flags(id) & KLP_RELA_FLAGS == KLP_RELA_FLAGS;
            tables.push(format!("{name} {livepatch} {}", symbols.join(" ")));
        }
        tables.sort();
        assert_eq!(
            tables,
            [
                ".klp.rela.raid1..text true .klp.sym.raid1.h,2",
                ".klp.rela.vmlinux..text true .klp.sym.vmlinux.g,0",
                ".rela.data false f",
                ".rela.text false kfree",
            ]
        );
    }

    #[test]
    fn the_build_id_is_of_what_the_file_holds() {
        let id = |more: &str, first: u8| {
            let f = linked(more);
            let file = f.changed("linked.o", |bytes| {
                let at = bytes.windows(20).position(|part| part == [7; 20]).expect("the linker's ID");
                bytes[at] = first;
            });
            let file = ElfFile::from_bytes("livepatch.ko", finish(&file).expect("a module"));
            let elf = file.parse().expect("a module");
            elf.section_bytes(elf.section_by_name(b".note.gnu.build-id").expect("an ID"))[16..].to_vec()
        };
        assert_eq!(id("", 7), id("", 8), "the linker's own ID counts for nothing");
        assert_ne!(id("", 7), id(".data\n.long 5\n", 7));
        assert_ne!(id("", 7), vec![7; 20]);
    }

    #[test]
    fn an_alias_without_its_function_is_an_error() {
        let f = Fixture::new();
        f.assemble("linked", ".data\n.quad klpx_new_7\n");
        let failure = finish(&f.open("linked.o")).expect_err("no function");
        assert!(failure.to_string().contains("klpx_new_7"), "{failure}");
    }
}
