//! Makes the first inputs of the targets: small files of every kind that a target reads, made by the usual tools for
//! such files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use klpx_klp_emit::finish::finish;
use klpx_normalize::elf::ElfFile;
use klpx_testkit::kallsyms_tables;

use crate::packages::Need;
use crate::process;
use crate::workspace::CargoWorkspace;

/// The needs for making seeds.
pub(crate) const NEEDS: &[Need] = &[Need::Gcc, Need::Clang, Need::Source];

/// The kind of file that a target reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SeedKind {
    /// Objects and images with debug information.
    Objects,
    /// Finished livepatch modules, and objects.
    Modules,
    /// Linked images with tables of kallsyms, and objects.
    Images,
    /// One or two files of ThinLTO bitcode.
    Bitcode,
    /// LLVM's remarks and its IR.
    Remarks,
    /// Patches.
    Patches,
    /// Compressed files.
    Compressed,
    /// Configurations, exports, records, lists.
    Texts,
}

impl SeedKind {
    const ALL: [SeedKind; 8] = [
        SeedKind::Objects,
        SeedKind::Modules,
        SeedKind::Images,
        SeedKind::Bitcode,
        SeedKind::Remarks,
        SeedKind::Patches,
        SeedKind::Compressed,
        SeedKind::Texts,
    ];

    /// Returns the name of the seeds' folder.
    pub(crate) fn name(self) -> &'static str {
        match self {
            SeedKind::Objects => "objects",
            SeedKind::Modules => "modules",
            SeedKind::Images => "images",
            SeedKind::Bitcode => "bitcode",
            SeedKind::Remarks => "remarks",
            SeedKind::Patches => "patches",
            SeedKind::Compressed => "compressed",
            SeedKind::Texts => "texts",
        }
    }
}

/// A unit with types, statics, inlined calls and a switch.
const UNIT: &str = include_str!("unit.c");
/// A livepatch before `finish`.
const MODULE: &str = include_str!("module.c");

/// Texts of the kinds that the target `texts` reads.
const TEXTS: [(&str, &str); 4] = [
    ("config", "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"x\"\nCONFIG_D=0x10\n"),
    ("symvers", "0x1234\tprintk\tvmlinux\tEXPORT_SYMBOL\tNS\n0x0\tf\tdrivers/a\tEXPORT_SYMBOL_GPL\t\n"),
    ("record", "savedcmd_fs/a.o := clang -c -flto=thin -o fs/a.o fs/a.c ; objtool fs/a.o\n"),
    ("lists", "kept\t1\t20\t3\thelper\tfs/a.c\t12\tfs/a.c fs/b.c\n"),
];

const KERNEL_CODE: &[&str] =
    &["-O2", "-fno-pic", "-mcmodel=kernel", "-ffunction-sections", "-fdata-sections"];

/// Removes the old seeds and writes the seeds of all kinds.
pub(crate) fn write(workspace: &CargoWorkspace, home: &Path) -> Result<()> {
    let seeds = home.join("seeds");
    let _ = fs::remove_dir_all(&seeds);
    for kind in SeedKind::ALL {
        fs::create_dir_all(seeds.join(kind.name()))?;
    }
    let scratch = tempfile::tempdir()?;
    let maker = Maker { seeds, scratch: scratch.path().to_owned() };
    maker.put("unit.c", UNIT)?;
    maker.put("module.c", MODULE)?;
    maker.objects(&workspace.fixtures("objects/special.c"))?;
    maker.modules()?;
    maker.images()?;
    maker.bitcode()?;
    maker.remarks()?;
    maker.compressed()?;
    for (name, text) in TEXTS {
        fs::write(maker.seeds.join("texts").join(name), text)?;
    }
    maker.patches(&workspace.fixtures(""))
}

struct Maker {
    /// The folder that contains the folders of all kinds.
    seeds: PathBuf,
    /// The folder in which tools run.
    scratch: PathBuf,
}

impl Maker {
    fn put(&self, name: &str, contents: impl AsRef<[u8]>) -> Result<()> {
        Ok(fs::write(self.scratch.join(name), contents)?)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        process::output(Command::new(program).args(arguments).current_dir(&self.scratch))
    }

    /// Copies a file as a seed of some kinds.
    fn take(&self, name: &str, kinds: &[SeedKind]) -> Result<()> {
        for kind in kinds {
            let to = self.seeds.join(kind.name()).join(name);
            fs::copy(self.scratch.join(name), to).with_context(|| format!("there is no {name}"))?;
        }
        Ok(())
    }

    fn objects(&self, special: &Path) -> Result<()> {
        let special = special.display().to_string();
        let compilations: [(&str, &str, &[&str], &str); 5] = [
            ("gcc-4.o", "gcc", &["-gdwarf-4"], "unit.c"),
            ("gcc-5.o", "gcc", &["-gdwarf-5"], "unit.c"),
            ("clang.o", "clang-22", &["-g"], "unit.c"),
            ("special.o", "gcc", &["-g"], &special),
            ("arm64.o", "clang-22", &["-g", "--target=aarch64-linux-gnu", "-mcmodel=small"], "unit.c"),
        ];
        for (name, compiler, flags, source) in compilations {
            let arguments = [KERNEL_CODE, flags, &["-c", "-o", name, source]].concat();
            self.run(compiler, &arguments)?;
            self.take(name, &[SeedKind::Objects, SeedKind::Modules, SeedKind::Images])?;
        }
        // The same types, as BTF.
        self.run("gcc", &["-O2", "-gbtf", "-c", "-o", "types.o", "unit.c"])?;
        self.run("objcopy", &["--dump-section", ".BTF=types", "types.o"])?;
        self.run("objcopy", &["--add-section", ".BTF=types", "gcc-5.o", "btf.o"])?;
        self.take("btf.o", &[SeedKind::Objects])?;
        let link = ["-n", "-e", "0", "--unresolved-symbols=ignore-all", "-o", "linked", "gcc-5.o"];
        self.run("ld", &link)?;
        self.take("linked", &[SeedKind::Objects, SeedKind::Images])
    }

    fn modules(&self) -> Result<()> {
        let arguments = [KERNEL_CODE, &["-c", "-o", "module.o", "module.c"]].concat();
        self.run("gcc", &arguments)?;
        let finished = finish(&ElfFile::open(&self.scratch.join("module.o"))?)?;
        self.put("livepatch.ko", finished)?;
        self.take("livepatch.ko", &[SeedKind::Modules])
    }

    /// Links twice, because kallsyms contains addresses of the image that it is a part of.
    fn images(&self) -> Result<()> {
        self.put("text.s", ".text\n.globl _text\n_text: .skip 16\n")?;
        self.run("gcc", &["-c", "text.s"])?;
        self.run("gcc", &[KERNEL_CODE, &["-c", "-o", "plain.o", "unit.c"]].concat())?;
        let addresses = "-n -e 0 -Ttext=0xffffffff81000000 -Tdata=0xffffffff81002000 -Tbss=0xffffffff81003000 \
             --section-start=.kallsyms=0xffffffff81004000 --defsym=outside=_text text.o plain.o";
        let link = |output: &str, tables: &[&str]| {
            let words: Vec<&str> = addresses.split_whitespace().chain(["-o", output]).collect();
            self.run("ld", &[&words, tables].concat())
        };
        link("bare", &[])?;
        let bare = ElfFile::open(&self.scratch.join("bare"))?;
        self.put("kallsyms.s", kallsyms_tables::source(&bare, false))?;
        self.run("gcc", &["-c", "kallsyms.s"])?;
        link("vmlinux", &["kallsyms.o"])?;
        self.take("bare", &[SeedKind::Images])?;
        self.take("vmlinux", &[SeedKind::Images, SeedKind::Modules])
    }

    fn bitcode(&self) -> Result<()> {
        self.put("other.c", UNIT.replace("outside(1)", "elsewhere(1)"))?;
        let mut both = Vec::new();
        for (source, name) in [("unit.c", "unit.bc"), ("other.c", "other.bc")] {
            self.run("clang-22", &["-O2", "-flto=thin", "-c", "-o", name, source])?;
            both.extend(fs::read(self.scratch.join(name))?);
        }
        self.put("both.bc", both)?;
        self.run("clang-22", &["-O2", "-c", "-o", "native.o", "unit.c"])?;
        ["unit.bc", "both.bc", "native.o"].iter().try_for_each(|name| self.take(name, &[SeedKind::Bitcode]))
    }

    fn remarks(&self) -> Result<()> {
        self.run("clang-22", &["-O2", "-S", "-emit-llvm", "-o", "unit.ll", "unit.c"])?;
        let file = ["-fsave-optimization-record", "-foptimization-record-passes=inline"];
        let written = ["-foptimization-record-file=remarks.yaml", "-O2", "-c", "-o", "remarks.o", "unit.c"];
        self.run("clang-22", &[&file[..], &written].concat())?;
        let printed =
            "a.c:2:2: remark: 'leaf' inlined into 'f' with (cost=-30) at callsite mid:1:8 @ f:5:2; [-R]\n";
        self.put("printed", printed)?;
        ["unit.ll", "remarks.yaml", "printed"]
            .iter()
            .try_for_each(|name| self.take(name, &[SeedKind::Remarks]))
    }

    fn compressed(&self) -> Result<()> {
        for (program, flags, ending) in
            [("xz", &["--check=crc32"][..], "xz"), ("zstd", &["-q"], "zst"), ("gzip", &[], "gz")]
        {
            self.run(program, &[flags, &["--keep", "--force", "native.o"]].concat())?;
            self.take(&format!("native.o.{ending}"), &[SeedKind::Compressed])?;
        }
        Ok(())
    }

    /// Copies the small patches of the fixtures.
    fn patches(&self, fixtures: &Path) -> Result<()> {
        let patches = walkdir::WalkDir::new(fixtures).sort_by_file_name();
        for (n, entry) in patches.into_iter().enumerate() {
            let entry = entry?;
            let small = entry.metadata()?.len() <= 4096;
            if small && entry.path().extension().is_some_and(|ending| ending == "patch") {
                let to = self.seeds.join("patches").join(format!("{n}.patch"));
                fs::copy(entry.path(), to)?;
            }
        }
        Ok(())
    }
}
