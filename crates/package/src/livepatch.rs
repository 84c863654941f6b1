//! A finished livepatch, as read from its file.

use std::path::Path;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};
use klpx_normalize::arch::Arch;
use klpx_normalize::elf::ElfFile;
use klpx_verify::inspect::{self, Module};

/// Longest release in bytes: the kernel's `__NEW_UTS_LEN` (include/uapi/linux/utsname.h).
const RELEASE: usize = 64;

/// A livepatch that is to be packaged.
#[derive(Clone, Debug)]
pub struct PackagedLivepatch {
    /// The kernel's name of the livepatch: letters, digits and underscores.
    pub name: String,
    /// The kernel release that the livepatch is for, as `uname -r` prints it.
    pub release: String,
    /// The build ID of the kernel, in hexadecimal.
    pub build_id: String,
    /// The architecture of the livepatch.
    pub arch: Arch,
    /// The contents of the module, as modinfo shows them.
    pub module: Module,
    /// The bytes of the file.
    pub bytes: Vec<u8>,
    /// The report of the build, if there is one.
    pub report: Option<serde_json::Value>,
}

impl PackagedLivepatch {
    /// Reads a module.
    ///
    /// # Errors
    /// `klpx::not-packaged` if the module lacks a fact that a package needs, or is not cumulative.
    pub fn open(path: &Path) -> Result<PackagedLivepatch> {
        let file = ElfFile::open(path)?;
        let module = inspect::inspect(&file)?;
        let place = || DiagnosisPlace::file(path.display().to_string(), None);
        let refused = |why: &str, remedy: &str| {
            let what = "the module can't be packaged";
            Diagnosis::new(&codes::NOT_PACKAGED, what, why, remedy).place(place())
        };
        let lacks = |why: &str| refused(why, "name a livepatch that klpx build made");
        if module.objects.is_empty() {
            return Err(lacks("it is no livepatch").into());
        }
        let word = |text: &&str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        let name = module.info("name").filter(word).ok_or_else(|| lacks("its modinfo has no name"))?;
        let release = module.info("vermagic").and_then(|vermagic| vermagic.split(' ').next());
        let release = release.filter(|release| is_release(release));
        let release = release.ok_or_else(|| lacks("its vermagic names no kernel release"))?;
        let build_id = module.info("kernel_build_id").filter(|id| is_build_id(id));
        let build_id = build_id.ok_or_else(|| {
            lacks("its modinfo has no kernel_build_id, and another build of the kernel may have the same release")
        })?;
        if module.replace != Some(true) {
            let why = "it is not cumulative: it would not take the place of the livepatch before it";
            return Err(refused(why, "build it without --no-replace, from all patches of the kernel").into());
        }
        Ok(PackagedLivepatch {
            name: name.to_owned(),
            release: release.to_owned(),
            build_id: build_id.to_owned(),
            arch: Arch::of_machine(file.parse()?.machine())?,
            bytes: file.bytes().to_vec(),
            report: None,
            module,
        })
    }

    /// The folder of the package's files.
    pub(crate) fn folder(&self) -> String {
        format!("/usr/lib/modules/{}/livepatch", self.release)
    }

    /// The path of the module in the package.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}.ko", self.folder(), self.name)
    }
}

/// Returns true for a valid release. Releases become parts of paths, package names and scripts.
fn is_release(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-+~_".contains(&byte);
    (1..=RELEASE).contains(&text.len())
        && text.as_bytes()[0].is_ascii_alphanumeric()
        && text.bytes().all(plain)
}

/// Returns true for a build ID as linkers write it: 8 to 32 bytes.
fn is_build_id(text: &str) -> bool {
    (16..=64).contains(&text.len())
        && text.len().is_multiple_of(2)
        && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_and_build_ids_are_words_of_paths_and_scripts() {
        for good in ["6.12.117+deb12-cloud-amd64", "5.14.0-611.el9.x86_64", "7.2.0-rc1_custom~1"] {
            assert!(is_release(good), "{good}");
        }
        for bad in ["", "..", "-6.1", "6.1/../..", "6.1 x", "6.1'x", "6.1$x", &"6".repeat(65)] {
            assert!(!is_release(bad), "{bad}");
        }
        assert!(is_build_id(&"0a".repeat(20)));
        for bad in ["", "0a", "0g0g0g0g0g0g0g0g", &"a".repeat(41), &"a".repeat(66)] {
            assert!(!is_build_id(bad), "{bad}");
        }
    }
}
