//! A kernel image's description of itself: `linux_banner` (init/version-timestamp.c), with release and compiler.

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};
use klpx_normalize::elf::{Definition, Elf};
use object::endian::LittleEndian as LE;

use crate::image::TargetKernel;

/// A length that exceeds any banner's.
const LIMIT: usize = 1024;

/// The banner: `Linux version RELEASE (who) (COMPILER, LINKER) #1 ...`, without its newline. Searches the symbols one
/// by one, without an index, because it is called only once and before anything else.
fn banner(elf: &Elf<'_>) -> Option<String> {
    let id = elf.symbol_ids().find(|&id| elf.symbol_name(id) == b"linux_banner")?;
    let Definition::Section(section) = elf.definition(id) else { return None };
    let offset = elf.symbol_value(id).checked_sub(elf.section(section).sh_addr.get(LE))?;
    let bytes = elf.section_bytes(section).get(usize::try_from(offset).ok()?..)?;
    let end = bytes.iter().take(LIMIT).position(|&b| b == 0 || b == b'\n')?;
    String::from_utf8(bytes[..end].to_vec()).ok().filter(|text| text.starts_with("Linux version "))
}

/// Checks that the kernel to be patched has the machine, release and compiler with which klpx builds.
///
/// # Errors
/// `klpx::bad-elf`, `klpx::machine-mismatch`, `klpx::release-mismatch` and `klpx::compiler-mismatch`. An image without
/// a banner is accepted, because every function is compared later.
pub fn check(kernel: &TargetKernel, machine: u16, release: &str, compiler: &str) -> Result<()> {
    let file = kernel.vmlinux();
    let elf = file.parse()?;
    let place = DiagnosisPlace::file(file.path().display().to_string(), None);
    if elf.machine() != machine {
        let what = "the kernel to be patched is of another architecture";
        return Err(Diagnosis::new(
            &codes::MACHINE_MISMATCH,
            what,
            format!("its ELF machine is {}, the configuration's {machine}", elf.machine()),
            "name the vmlinux and the configuration of one kernel",
        )
        .place(place)
        .into());
    }
    let Some(banner) = banner(&elf) else { return Ok(()) };
    let theirs = banner.split_whitespace().nth(2).unwrap_or("");
    if theirs != release {
        return Err(Diagnosis::new(
            &codes::RELEASE_MISMATCH,
            "the kernel to be patched is another release",
            format!("it is {theirs}, the source and configuration make {release}"),
            "give klpx the source tree and configuration that the kernel was built from",
        )
        .place(place)
        .into());
    }
    // The first word is the program's name, which may be `gcc-12` or have a prefix on another machine.
    let version = compiler.split_once(' ').map_or(compiler, |(_, rest)| rest);
    if !banner.contains(version) {
        return Err(Diagnosis::new(
            &codes::COMPILER_MISMATCH,
            "the kernel to be patched was built with another compiler",
            format!("it says {:?}; this machine has {compiler:?}", compiler_of(&banner)),
            "install the compiler that the kernel was built with, or build in the distribution's \
             own build image",
        )
        .place(place)
        .into());
    }
    Ok(())
}

/// The text in the second pair of parentheses, which may contain parentheses itself.
fn compiler_of(banner: &str) -> &str {
    let Some(start) = banner.match_indices(" (").nth(1).map(|(n, _)| n + 2) else { return banner };
    let end = banner[start..].rfind(") #").map_or(banner.len(), |n| start + n);
    &banner[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_is_found_between_parentheses() {
        let banner =
            "Linux version 7.2.13 (a@b) (Debian clang version 22.1.8 (1~deb12u1), Debian LLD 22.1.8) #1 SMP";
        assert_eq!(compiler_of(banner), "Debian clang version 22.1.8 (1~deb12u1), Debian LLD 22.1.8");
        assert_eq!(compiler_of("Linux version"), "Linux version");
    }
}
