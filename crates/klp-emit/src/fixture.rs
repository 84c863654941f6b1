//! Small kernels for tests: C compiled and linked when a test runs. Test code only.

use std::path::{Path, PathBuf};
use std::process::Command;

use klpx_normalize::elf::ElfFile;

/// A directory with sources, objects and images.
pub(crate) struct Fixture {
    directory: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        Fixture { directory: tempfile::tempdir().expect("a temporary directory") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let done = Command::new(program).args(arguments).current_dir(self.directory.path()).output();
        let done = done.expect("a C compiler and binutils");
        assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// Compiles `name`.c to `object`, as a kernel is compiled.
    pub(crate) fn compile(&self, name: &str, source: &str, object: &str, flags: &[&str]) {
        let file = format!("{name}.c");
        std::fs::write(self.path(&file), source).expect("a writable directory");
        let mut arguments = vec!["-O2", "-mcmodel=kernel", "-fno-pic", "-fno-pie", "-fcf-protection=none"];
        arguments.extend([
            "-fno-asynchronous-unwind-tables",
            "-fno-stack-protector",
            "-fno-toplevel-reorder",
        ]);
        arguments.extend(flags);
        arguments.extend(["-c", "-o", object, &file]);
        self.run("gcc", &arguments);
    }

    /// Assembles `text` to `name`.o.
    pub(crate) fn assemble(&self, name: &str, text: &str) {
        let (source, object) = (format!("{name}.s"), format!("{name}.o"));
        std::fs::write(self.path(&source), text).expect("a writable directory");
        self.run("as", &["--64", "-o", &object, &source]);
    }

    /// Links objects to an image at kernel addresses.
    pub(crate) fn link(&self, objects: &[&str], image: &str) {
        let mut arguments = vec!["-static", "-e", "0", "-Ttext=0xffffffff81000000", "-o", image];
        arguments.extend(objects);
        self.run("ld", &arguments);
    }

    /// Links objects to a relocatable one.
    pub(crate) fn combine(&self, objects: &[&str], object: &str) {
        let mut arguments = vec!["-r", "-o", object];
        arguments.extend(objects);
        self.run("ld", &arguments);
    }

    pub(crate) fn open(&self, name: &str) -> ElfFile {
        ElfFile::open(&self.path(name)).expect("a file that was just made")
    }

    /// A copy of a file in memory, changed.
    pub(crate) fn changed(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> ElfFile {
        let mut bytes = std::fs::read(self.path(name)).expect("a file that was just made");
        change(&mut bytes);
        ElfFile::from_bytes(Path::new(name), bytes)
    }
}
