//! A livepatch in a file: its modinfo, the functions that it replaces, and the file for the kernel.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use klpx_diagnosis::words::hexadecimal;
use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};
use klpx_normalize::{compressed, elf::ElfFile, notes};
use klpx_verify::inspect;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::host::{failed, is_name, is_release};

/// The largest file that klpx-host reads, in bytes.
const LIMIT: u64 = 256 << 20;

/// A replaced function, by its names in sysfs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct ReplacedFunction {
    /// `vmlinux` or a module.
    pub(crate) object: String,
    /// Name, a comma and the sympos. A unique name has 1.
    pub(crate) function: String,
}

/// The properties of a livepatch, from its file.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Livepatch {
    /// The kernel's name of the livepatch.
    pub(crate) name: String,
    /// The kernel release.
    pub(crate) release: String,
    /// The build ID of the kernel, in hexadecimal.
    pub(crate) kernel_build_id: Option<String>,
    /// The livepatch's own build ID, in hexadecimal.
    pub(crate) build_id: Option<String>,
    /// True if the file has a signature. The signature is not checked.
    pub(crate) signed: bool,
    /// True if the livepatch is cumulative, that is, replaces every other livepatch. `None` if the file does not say
    /// so.
    pub(crate) replace: Option<bool>,
    /// The replaced functions, sorted.
    pub(crate) functions: BTreeSet<ReplacedFunction>,
    /// modinfo's description.
    pub(crate) description: Option<String>,
    /// modinfo's version.
    pub(crate) version: Option<String>,
    /// Vulnerabilities that the livepatch fixes.
    pub(crate) cves: Vec<String>,
    /// The hash of the file as stored, in hexadecimal.
    pub(crate) sha256: String,
}

/// A livepatch file that was read.
pub(crate) struct Opened {
    pub(crate) path: PathBuf,
    pub(crate) livepatch: Livepatch,
    /// The open file. Its position is unspecified.
    pub(crate) file: File,
    /// The bytes of the file as stored.
    pub(crate) bytes: Vec<u8>,
    /// The decompressed module, if the file is compressed.
    pub(crate) unpacked: Option<Vec<u8>>,
}

/// Reads a livepatch.
///
/// # Errors
/// `klpx::not-a-livepatch`, or the reason why the file can't be read.
pub(crate) fn open(path: &Path) -> Result<Opened> {
    let io = |error: &std::io::Error| failed("read", path, error);
    let file = klpx_input::open(path).map_err(|error| io(&error))?;
    let mut bytes = Vec::new();
    (&file).take(LIMIT + 1).read_to_end(&mut bytes).map_err(|error| io(&error))?;
    if bytes.len() as u64 > LIMIT {
        return Err(none(path, &format!("it has more than {} MiB", LIMIT >> 20)).into());
    }
    let unpacked = compressed::unpack(path, &bytes)?;
    let elf = ElfFile::from_bytes(path, unpacked.clone().unwrap_or_else(|| bytes.clone()));
    let livepatch = read(&elf, hexadecimal(&Sha256::digest(&bytes)))?;
    Ok(Opened { path: path.to_owned(), livepatch, file, bytes, unpacked })
}

fn read(file: &ElfFile, sha256: String) -> Result<Livepatch> {
    let module = inspect::inspect(file)?;
    let none = |why: &str| none(file.path(), why);
    let text = |key: &str| module.info(key).map(str::to_owned);
    if module.info("livepatch").is_none() {
        return Err(none("its modinfo does not say that it is a livepatch").into());
    }
    let name = text("name").filter(|name| is_name(name)).ok_or_else(|| none("its modinfo has no name"))?;
    let release = module.info("vermagic").and_then(|vermagic| vermagic.split(' ').next());
    let release =
        release.filter(|name| is_release(name)).ok_or_else(|| none("its vermagic names no release"))?;
    let functions = module.objects.iter().flat_map(|object| {
        object.functions.iter().map(|function| ReplacedFunction {
            object: object.name.clone(),
            // The kernel shows a unique name with position 1 (klp_init_func, kernel/livepatch/core.c).
            function: format!("{},{}", function.old_name, function.sympos.max(1)),
        })
    });
    let cves = module.info.iter().filter(|(key, _)| key == "cve").map(|(_, value)| value.clone());
    // The order of modinfo's entries depends on the compiler, so they are sorted.
    let cves: BTreeSet<String> = cves.collect();
    Ok(Livepatch {
        name,
        release: release.to_owned(),
        kernel_build_id: text("kernel_build_id").map(|id| id.to_ascii_lowercase()),
        build_id: notes::build_id(&file.parse()?).map(hexadecimal),
        signed: klpx_signature::split(file.bytes()).is_some(),
        replace: module.replace,
        functions: functions.collect(),
        description: text("description"),
        version: text("version"),
        cves: cves.into_iter().collect(),
        sha256,
    })
}

fn none(path: &Path, why: &str) -> Diagnosis {
    Diagnosis::new(
        &codes::NOT_A_LIVEPATCH,
        "the file is no livepatch",
        why,
        "name a module that klpx build made",
    )
    .place(DiagnosisPlace::file(path.display().to_string(), None))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A livepatch for the kernel of the test machine.
    pub(crate) fn livepatch(name: &str, functions: &[&str]) -> Livepatch {
        let function =
            |name: &&str| ReplacedFunction { object: "vmlinux".into(), function: format!("{name},1") };
        Livepatch {
            name: name.to_owned(),
            release: "6.12.1+test".to_owned(),
            kernel_build_id: Some("0102030405060708".to_owned()),
            build_id: Some("aa".to_owned()),
            signed: false,
            replace: Some(true),
            functions: functions.iter().map(function).collect(),
            description: Some("a fix".to_owned()),
            version: None,
            cves: vec!["CVE-2026-0001".to_owned()],
            sha256: format!("{name}'s hash"),
        }
    }

    #[test]
    fn what_is_no_livepatch_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.ko");
        for bytes in [&b""[..], b"text", b"\x7fELF", &[0x28, 0xb5, 0x2f, 0xfd]] {
            std::fs::write(&file, bytes).unwrap();
            assert!(open(&file).is_err(), "{bytes:?}");
        }
        assert!(open(folder.path()).is_err());
        assert!(open(Path::new("/dev/zero")).is_err());
    }
}
