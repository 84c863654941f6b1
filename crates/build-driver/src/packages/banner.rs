//! A kernel's banner: release, builder, compiler and version text. Reads the text that init/version.c makes, from
//! vmlinux or from the generated headers behind it. Knows nothing of code.

use std::path::Path;

use klpx_diagnosis::{Diagnosis, Result};
use klpx_input::MappedFile;
use object::read::elf::ElfFile64;
use object::{LittleEndian, Object, ObjectSection, ObjectSymbolTable};

/// More bytes than any banner has.
const LIMIT: usize = 1024;
/// The beginning of every banner.
const START: &[u8] = b"Linux version ";

/// The parts of `Linux version RELEASE (BUILDER) (COMPILER) VERSION`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Banner {
    /// UTS_RELEASE: what `uname -r` prints.
    pub(super) release: String,
    /// The builder, `user@host`.
    pub(super) builder: String,
    /// The compiler and the linker. Empty if unknown.
    pub(super) compiler: String,
    /// UTS_VERSION, beginning with `#`: the output of `uname -v`.
    pub(super) version: String,
}

impl Banner {
    /// Parses a banner. `None` if the text is no banner, or is a pattern (`linux_proc_banner`).
    pub(super) fn parse(text: &str) -> Option<Banner> {
        let rest = text.strip_prefix("Linux version ")?;
        let (release, rest) = rest.split_once(' ')?;
        let (builder, rest) = rest.strip_prefix('(')?.split_once(") (")?;
        let (compiler, version) = rest.rsplit_once(") #")?;
        // init/version.c is compiled before the build number is known. Its copy of the banner has no number after the
        // `#`.
        if release.contains('%') || version.starts_with(' ') {
            return None;
        }
        Some(Banner {
            release: release.to_owned(),
            builder: builder.to_owned(),
            compiler: compiler.to_owned(),
            version: format!("#{version}"),
        })
    }

    /// The banner from the generated headers of a build tree or headers package. `None` without a release.
    pub(super) fn of_headers(folder: &Path) -> Option<Banner> {
        let read =
            |name: &str| klpx_input::text(&folder.join("include/generated").join(name)).unwrap_or_default();
        let release = defined(&read("utsrelease.h"), "UTS_RELEASE")?;
        // Before 6.2, UTS_VERSION is in compile.h.
        let (compile, version) = (read("compile.h"), read("utsversion.h"));
        let value = |name: &str| defined(&compile, name).unwrap_or_default();
        let builder = format!("{}@{}", value("LINUX_COMPILE_BY"), value("LINUX_COMPILE_HOST"));
        let version = defined(&version, "UTS_VERSION").unwrap_or_else(|| value("UTS_VERSION"));
        Some(Banner { release, builder, compiler: value("LINUX_COMPILER"), version })
    }
}

/// The string value of a macro in a header.
fn defined(header: &str, name: &str) -> Option<String> {
    let value = header.lines().find_map(|line| {
        let rest = line.strip_prefix("#define")?.trim_start().strip_prefix(name)?;
        rest.starts_with(char::is_whitespace).then(|| rest.trim())
    })?;
    let text = value.strip_prefix('"')?.strip_suffix('"')?;
    (!text.is_empty()).then(|| text.to_owned())
}

/// The kind of a file named vmlinux.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum VmlinuxKind {
    /// A kernel with code and symbols.
    Kernel(Option<Banner>),
    /// Not usable, with the reason.
    Unusable(&'static str),
}

/// Examines a vmlinux: its section headers, and the banner in its read-only data.
///
/// # Errors
/// If the file can't be read.
pub(super) fn look(path: &Path) -> Result<VmlinuxKind> {
    let io = |e: &std::io::Error| Diagnosis::io("read", path, e);
    let file = klpx_input::open(path).map_err(|e| io(&e))?;
    if file.metadata().map_err(|e| io(&e))?.len() == 0 {
        return Ok(VmlinuxKind::Unusable("it is empty"));
    }
    let map = MappedFile::new(&file, path).map_err(|e| io(&e))?;
    Ok(of_bytes(&map))
}

fn of_bytes(bytes: &[u8]) -> VmlinuxKind {
    let Ok(elf) = ElfFile64::<LittleEndian, _>::parse(bytes) else {
        return VmlinuxKind::Unusable("it is no 64-bit ELF file");
    };
    let Some(text) = elf.section_by_name(".text") else {
        // make modules_prepare for a kernel with BTF only needs the types in vmlinux.
        return VmlinuxKind::Unusable("it holds type information only, no code");
    };
    if text.file_range().is_none() {
        return VmlinuxKind::Unusable("it holds debug information only, its code is in another file");
    }
    if elf.symbol_table().is_none_or(|table| table.symbols().next().is_none()) {
        return VmlinuxKind::Unusable("its symbols were stripped");
    }
    let data = elf.sections().filter(|section| section.name_bytes().is_ok_and(|n| n.starts_with(b".rodata")));
    let banner = data.filter_map(|section| section.data().ok()).find_map(find_banner);
    VmlinuxKind::Kernel(banner)
}

/// The first complete banner in the bytes.
fn find_banner(bytes: &[u8]) -> Option<Banner> {
    memchr::memmem::find_iter(bytes, START).find_map(|at| {
        let text = &bytes[at..];
        let end = text.iter().take(LIMIT).position(|&b| b == 0 || b == b'\n')?;
        Banner::parse(std::str::from_utf8(&text[..end]).ok()?)
    })
}
