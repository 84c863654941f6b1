//! Small kernels for tests, compiled from C and linked at run time.

use std::path::{Path, PathBuf};

use crate::{command, run};
use klpx_normalize::elf::ElfFile;

/// The programs that make an architecture's kernels, with their fixed arguments.
pub struct Toolchain {
    compiler: &'static [&'static str],
    assembler: &'static [&'static str],
    /// The linker.
    pub linker: &'static str,
    /// Flags that give every function a trace site.
    pub traced: &'static [&'static str],
    /// The same flags for the glue.
    pub traced_glue: &'static [&'static str],
    /// False if the compiler leaves the list of trace sites to objtool.
    lists_sites: bool,
}

/// GCC for x86_64.
pub static X86_64: Toolchain = Toolchain {
    compiler: &["gcc", "-mcmodel=kernel", "-fno-pie", "-fcf-protection=none", "-fno-toplevel-reorder"],
    assembler: &["as", "--64"],
    linker: "ld",
    traced: &["-pg", "-mfentry", "-mrecord-mcount"],
    traced_glue: &[],
    lists_sites: true,
};

/// Clang for x86_64.
pub static X86_64_CLANG: Toolchain = Toolchain {
    compiler: &["clang-22", "-mcmodel=kernel", "-fno-pie", "-fcf-protection=none"],
    assembler: &["clang-22", "-c"],
    linker: "ld.lld-22",
    traced: &["-pg", "-mfentry"],
    traced_glue: &[],
    lists_sites: false,
};

/// A trace site with room for a pointer before each function (DYNAMIC_FTRACE_WITH_CALL_OPS).
const CALL_OPS: [&str; 2] = ["-fpatchable-function-entry=4,2", "-falign-functions=8"];

/// Clang for arm64, with call operations.
pub static ARM64_CLANG: Toolchain = Toolchain {
    compiler: &["clang-22", "--target=aarch64-linux-gnu", "-mcmodel=small", "-mgeneral-regs-only"],
    assembler: &["clang-22", "--target=aarch64-linux-gnu", "-c"],
    linker: "ld.lld-22",
    traced: &CALL_OPS,
    traced_glue: &CALL_OPS,
    lists_sites: true,
};

/// GCC for arm64, with call operations.
pub static ARM64_GCC: Toolchain = Toolchain {
    compiler: &[
        "aarch64-linux-gnu-gcc",
        "-mcmodel=small",
        "-mgeneral-regs-only",
        "-fno-pie",
        "-mno-outline-atomics",
    ],
    assembler: &["aarch64-linux-gnu-as"],
    linker: "aarch64-linux-gnu-ld",
    traced: &CALL_OPS,
    traced_glue: &CALL_OPS,
    lists_sites: true,
};

/// A trace site in assembly.
const SITE: &str = "\tcallq\t__fentry__\n";
/// A trace site with the entry that objtool adds for it.
const LISTED_SITE: &str =
    "77:\tcallq\t__fentry__\n\t.pushsection __mcount_loc,\"a\",@progbits\n\t.quad 77b\n\t.popsection\n";

/// A directory with sources, objects and images.
pub struct Fixture {
    directory: tempfile::TempDir,
    toolchain: &'static Toolchain,
}

impl Default for Fixture {
    fn default() -> Fixture {
        Fixture::of(&X86_64)
    }
}

impl Fixture {
    /// A directory for GCC on x86_64.
    pub fn new() -> Fixture {
        Fixture::default()
    }

    /// A directory for a toolchain.
    pub fn of(toolchain: &'static Toolchain) -> Fixture {
        Fixture { directory: tempfile::tempdir().expect("a temporary directory"), toolchain }
    }

    /// The path of a file of the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        run(command(program).args(arguments).current_dir(self.directory.path()));
    }

    /// Compiles `name`.c to `object` with a kernel's flags.
    pub fn compile(&self, name: &str, source: &str, object: &str, flags: &[&str]) {
        let file = format!("{name}.c");
        std::fs::write(self.path(&file), source).expect("a writable directory");
        let (compiler, always) = self.toolchain.compiler.split_first().expect("a program");
        let mut arguments = vec![
            "-O2",
            "-fno-pic",
            "-fno-stack-protector",
            "-fno-asynchronous-unwind-tables",
            "-fno-unwind-tables",
        ];
        arguments.extend(always);
        arguments.extend(flags);
        if self.toolchain.lists_sites {
            arguments.extend(["-c", "-o", object, &file]);
            return self.run(compiler, &arguments);
        }
        let assembly = format!("{name}.s");
        arguments.extend(["-S", "-o", &assembly, &file]);
        self.run(compiler, &arguments);
        let text = std::fs::read_to_string(self.path(&assembly)).expect("assembly");
        std::fs::write(self.path(&assembly), text.replace(SITE, LISTED_SITE)).expect("a writable directory");
        self.run(compiler, &["-c", "-o", object, &assembly]);
    }

    /// Assembles `text` to `name`.o.
    pub fn assemble(&self, name: &str, text: &str) {
        let (source, object) = (format!("{name}.s"), format!("{name}.o"));
        std::fs::write(self.path(&source), text).expect("a writable directory");
        let (assembler, always) = self.toolchain.assembler.split_first().expect("a program");
        self.run(assembler, &[always, &["-o", &object, &source]].concat());
    }

    /// Links objects to an image at kernel addresses.
    pub fn link(&self, objects: &[&str], image: &str) {
        let mut arguments = vec!["-static", "-e", "0", "-Ttext=0xffffffff81000000", "-o", image];
        arguments.extend(objects);
        self.run(self.toolchain.linker, &arguments);
    }

    /// Links objects to an image that fills in its own pointers when it starts, like a relocatable arm64 kernel.
    pub fn link_movable(&self, objects: &[&str], image: &str) {
        let mut arguments = vec![
            "-shared",
            "-Bsymbolic",
            "-z",
            "notext",
            "--no-apply-dynamic-relocs",
            "-e",
            "0",
            "-o",
            image,
        ];
        arguments.extend(objects);
        self.run(self.toolchain.linker, &arguments);
    }

    /// Links objects to one relocatable object.
    pub fn combine(&self, objects: &[&str], object: &str) {
        let mut arguments = vec!["-r", "-o", object];
        arguments.extend(objects);
        self.run(self.toolchain.linker, &arguments);
    }

    /// Links objects to one relocatable object, using a linker script.
    pub fn link_module(&self, script: &str, objects: &[&str], module: &str) {
        let arguments = [&["-r", "-T", script, "-o", module], objects].concat();
        self.run(self.toolchain.linker, &arguments);
    }

    /// Strips from an object what distributions strip from the modules that they ship: debug information, FILE symbols.
    pub fn strip(&self, object: &str, stripped: &str) {
        self.run("strip", &["--strip-debug", "-o", stripped, object]);
    }

    /// Opens a file of the directory.
    pub fn open(&self, name: &str) -> ElfFile {
        ElfFile::open(&self.path(name)).expect("a file that was just made")
    }

    /// A changed copy of a file, in memory.
    pub fn changed(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> ElfFile {
        let mut bytes = std::fs::read(self.path(name)).expect("a file that was just made");
        change(&mut bytes);
        ElfFile::from_bytes(Path::new(name), bytes)
    }
}
