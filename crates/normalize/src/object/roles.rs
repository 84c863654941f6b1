//! What each section is for.

use klpx_diagnosis::Result;
use object::elf;
use object::endian::LittleEndian as LE;

use super::{Object, Role, TableId};
use crate::elf::SectionId;
use crate::special::{SpecialTable, TableKind};

impl Object<'_> {
    pub(super) fn read_roles(&mut self) -> Result<()> {
        self.roles.reserve(self.elf.section_count());
        for id in self.elf.section_ids() {
            let role = match TableKind::of(self.arch, self.elf.section_name(id)) {
                Some(kind) if self.elf.section_flags(id) & elf::SHF_ALLOC.0 != 0 => {
                    self.tables.push(SpecialTable::read(&self.elf, id, kind)?);
                    Role::Table(TableId((self.tables.len() - 1) as u32))
                }
                _ => self.role_of(id),
            };
            self.roles.push(role);
        }
        Ok(())
    }

    fn role_of(&self, id: SectionId) -> Role {
        let section = self.elf.section(id);
        let flags = self.elf.section_flags(id);
        let kind = self.elf.section_type(id);
        if flags & elf::SHF_ALLOC.0 == 0 || kind == elf::SHT_NOTE.0 {
            return Role::Unloaded;
        }
        let name = self.elf.section_name(id);
        if name.starts_with(b".discard")
            || BUILD_ONLY.contains(&name)
            || TableKind::is_companion(self.arch, name)
        {
            return Role::BuildOnly;
        }
        if REGISTRIES.iter().any(|start| name.starts_with(start)) {
            return Role::Registry;
        }
        if flags & elf::SHF_EXECINSTR.0 != 0 {
            return Role::Code;
        }
        let merged = flags & elf::SHF_MERGE.0 != 0;
        match section.sh_entsize.get(LE) {
            _ if merged && flags & elf::SHF_STRINGS.0 != 0 => Role::Strings,
            size @ 1..=4096 if merged => Role::Constants(size as u32),
            _ => Role::Data,
        }
    }
}

/// Sections that matter only while the kernel is built, or that are read with another table.
const BUILD_ONLY: [&[u8]; 6] = [
    b".export_symbol",
    b".llvm_addrsig",
    b".orc_header",
    b".no_trim_symbol",
    b".eh_frame",
    b".static_call_tramp_key",
];

/// Tables that the kernel reads once, when it boots or when it loads a module (include/asm-generic/vmlinux.lds.h,
/// include/linux/init.h; kernel/module/main.c, find_module_sections, and the notifiers of kernel/rcu/srcutree.c,
/// kernel/tracepoint.c, kernel/trace/bpf_trace.c, lib/codetag.c, lib/kunit/test.c).
const REGISTRIES: [&[u8]; 23] = [
    b".initcall",
    b".con_initcall",
    b".init.setup",
    b"__param",
    b"__modver",
    b".modinfo",
    b"__ksymtab",
    b"___ksymtab",
    b"__kcrctab",
    b"___kcrctab",
    b"__tracepoints_ptrs",
    b"__tracepoints_strings",
    b"_ftrace_events",
    b"_ftrace_eval_map",
    b"___srcu_struct_ptrs",
    b"__bpf_raw_tp_map",
    b"__dyndbg_classes",
    b"__tracepoints",
    b".kunit_",
    b".init_array",
    b".fini_array",
    b".ctors",
    b".dtors",
];
