//! Small roots with unpacked packages, for tests.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use object::write::{Object, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

use super::WantedKernel;

/// A folder that stands for `/`.
pub(super) struct Root(tempfile::TempDir);

impl Root {
    pub(super) fn new() -> Root {
        Root(tempfile::tempdir().expect("dir"))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> &Root {
        let path = self.at(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
        std::fs::write(path, contents).expect("write");
        self
    }

    pub(super) fn link(&self, name: &str, target: &str) -> &Root {
        let path = self.at(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
        symlink(target, path).expect("link");
        self
    }

    /// A headers folder as kbuild leaves it. `version` is the version of the source.
    pub(super) fn headers(&self, folder: &str, banner: &str, version: &str) -> &Root {
        let parts = super::banner::Banner::parse(banner).expect("a banner");
        let (by, host) = parts.builder.split_once('@').expect("user@host");
        let config = format!(
            "#\n# Automatically generated file; DO NOT EDIT.\n# Linux/x86 {version} Kernel Configuration\n#\n\
             CONFIG_X86_64=y\nCONFIG_MODULES=y\nCONFIG_LIVEPATCH=y\nCONFIG_KALLSYMS=y\n"
        );
        let file = |name: &str| format!("{folder}/{name}");
        self.write(&file(".config"), &config);
        self.write(&file("include/config/auto.conf"), &config);
        self.write(&file("include/generated/autoconf.h"), "#define CONFIG_X86_64 1\n");
        let release = format!("#define UTS_RELEASE \"{}\"\n", parts.release);
        self.write(&file("include/generated/utsrelease.h"), release);
        let compile = format!(
            "#define LINUX_COMPILE_BY\t\"{by}\"\n#define LINUX_COMPILE_HOST\t\"{host}\"\n\
             #define LINUX_COMPILER\t\t\"{}\"\n",
            parts.compiler
        );
        self.write(&file("include/generated/compile.h"), compile);
        let version = format!("#define UTS_VERSION \"{}\"\n", parts.version);
        self.write(&file("include/generated/utsversion.h"), version);
        self.write(&file("Module.symvers"), "0x12345678\tprintk\tvmlinux\tEXPORT_SYMBOL\t\n")
    }

    /// A source tree.
    pub(super) fn source(&self, folder: &str, version: &str) -> &Root {
        let version = crate::tree::Version::parse(version).expect("a version");
        let makefile = format!(
            "VERSION = {}\nPATCHLEVEL = {}\nSUBLEVEL = {}\nEXTRAVERSION = {}\n",
            version.major, version.minor, version.patch, version.extra
        );
        for name in ["Kconfig", "scripts/Kbuild.include", "init/main.c", "include/linux/kernel.h"] {
            self.write(&format!("{folder}/{name}"), "");
        }
        self.write(&format!("{folder}/Makefile"), makefile)
    }

    /// A changelog, as an unpacked Debian package of this version has it.
    pub(super) fn changelog(&self, package: &str, version: &str) -> &Root {
        use std::io::Write;
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        write!(writer, "linux ({version}) unstable; urgency=medium\n\n  * Text.\n").expect("written");
        let name = format!("usr/share/doc/{package}/changelog.Debian.gz");
        self.write(&name, writer.finish().expect("finished"))
    }

    pub(super) fn wanted(&self) -> WantedKernel {
        WantedKernel { sysroots: vec![self.path().to_owned()], ..WantedKernel::default() }
    }
}

/// The contents of a test's vmlinux.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Whole,
    /// As in headers packages, for BTF.
    TypesOnly,
    /// As in a debug package that is split from the image.
    DebugOnly,
    Stripped,
}

/// A file with the sections and symbols of a vmlinux.
pub(super) fn vmlinux(banner: &str, kind: Kind) -> Vec<u8> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let add = |object: &mut Object<'_>, name: &str, kind, data: &[u8]| {
        let id = object.add_section(Vec::new(), name.into(), kind);
        object.append_section_data(id, data, 1);
        id
    };
    if kind == Kind::TypesOnly {
        add(&mut object, ".BTF", SectionKind::ReadOnlyData, b"types");
    } else if kind == Kind::DebugOnly {
        let id = object.add_section(Vec::new(), b".text".to_vec(), SectionKind::UninitializedData);
        object.append_section_bss(id, 16, 1);
    } else {
        add(&mut object, ".text", SectionKind::Text, b"\xc3");
        // linux_proc_banner is a pattern. init/version.o has a banner without a number.
        let unfinished = banner.replacen(" #1 ", " # ", 1);
        let text = format!("Linux version %s (a@b) (c) %s\n\0{unfinished}\n\0{banner}\n\0");
        add(&mut object, ".rodata", SectionKind::ReadOnlyData, text.as_bytes());
    }
    if kind != Kind::Stripped {
        object.add_symbol(Symbol {
            name: b"start_kernel".to_vec(),
            value: 0,
            size: 1,
            kind: SymbolKind::Text,
            scope: SymbolScope::Linkage,
            weak: false,
            section: SymbolSection::Absolute,
            flags: SymbolFlags::None,
        });
    }
    object.write().expect("an object")
}
