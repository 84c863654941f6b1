//! Packages for dpkg, made by dpkg-deb.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use klpx_diagnosis::{Diagnosis, Result, codes};

use crate::files;
use crate::package::{Format, Package, folded};
use crate::scripts::{self, DEBIAN};

/// The bytes of a package. No other process uses the folder `scratch`.
///
/// # Errors
/// `klpx::missing-tool` without dpkg-deb, `klpx::package-tool` with the messages of dpkg-deb.
pub(crate) fn make(package: &Package, scratch: &Path) -> Result<Vec<u8>> {
    let root = scratch.join(&package.name);
    let mut size = 0;
    for file in files::list(package, Format::Deb)? {
        size += file.bytes.len().div_ceil(1024);
        write(&root, &file.path, &file.bytes, 0o644)?;
    }
    let livepatch = &package.livepatch;
    for (name, when, argument) in DEBIAN {
        let script = scripts::debian(livepatch, when, argument);
        write(&root, &format!("/DEBIAN/{name}"), script.as_bytes(), 0o755)?;
    }
    write(&root, "/DEBIAN/control", control(package, size).as_bytes(), 0o644)?;
    let output = scratch.join(package.file_name(Format::Deb));
    let mut command = Command::new("dpkg-deb");
    command.args(["--root-owner-group", "-Zxz", "--build"]).arg(&root).arg(&output);
    // SOURCE_DATE_EPOCH is the only way to tell dpkg-deb the time of the packed files.
    command.env("SOURCE_DATE_EPOCH", package.about.date.to_string()).env("LC_ALL", "C");
    let dpkg_output = command.output().map_err(|error| {
        Diagnosis::new(
            &codes::MISSING_TOOL,
            "dpkg-deb can't be started",
            error.to_string(),
            "install the package dpkg",
        )
    })?;
    if !dpkg_output.status.success() {
        let lines =
            String::from_utf8_lossy(&dpkg_output.stderr).lines().map(str::to_owned).collect::<Vec<_>>();
        let remedy =
            "read the messages of dpkg-deb, and check the free space of the folder for temporary files";
        return Err(Diagnosis::new(
            &codes::PACKAGE_TOOL,
            "the package can't be made",
            "dpkg-deb fails",
            remedy,
        )
        .detail(lines)
        .into());
    }
    Ok(fs::read(&output).map_err(|error| Diagnosis::io("read", &output, &error))?)
}

fn write(root: &Path, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let file = root.join(path.trim_start_matches('/'));
    let mut folder = root.to_owned();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    // Folders have the usual mode of a system's folders, whatever the umask.
    for part in std::iter::once("").chain(parts[..parts.len() - 1].iter().copied()) {
        folder.push(part);
        if !folder.is_dir() {
            let made = fs::create_dir_all(&folder);
            made.map_err(|error| Diagnosis::io("make the folder", &folder, &error))?;
        }
        set(&folder, 0o755)?;
    }
    fs::write(&file, bytes).map_err(|error| Diagnosis::io("write", &file, &error))?;
    set(&file, mode)
}

fn set(path: &Path, mode: u32) -> Result<()> {
    let done = fs::set_permissions(path, Permissions::from_mode(mode));
    Ok(done.map_err(|error| Diagnosis::io("set the mode of", path, &error))?)
}

/// The control file, deb-control(5). `size` is in KiB.
fn control(package: &Package, size: usize) -> String {
    let Package { name, version, about, .. } = package;
    let mut text = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: {}\nMaintainer: {}\nInstalled-Size: {size}\n\
         Depends: klpx-host | kpatch\nEnhances: linux-image-{}\nSection: kernel\nPriority: optional\nDescription: {}\n",
        package.architecture(Format::Deb),
        about.maintainer,
        name.trim_start_matches("livepatch-"),
        package.summary(),
    );
    let paragraphs: Vec<String> =
        package.description().iter().map(|paragraph| folded(paragraph, " ")).collect();
    text.push_str(&paragraphs.join(" .\n"));
    text
}

#[cfg(test)]
mod tests {
    use klpx_testkit as tools;

    use super::*;
    use crate::plan::tests::{about, livepatch};

    fn package(scratch: &Path) -> (Package, std::path::PathBuf, Vec<u8>) {
        let package = Package::plan(vec![livepatch("livepatch_a", "6.1-x")], &about(None)).unwrap().remove(0);
        tools::need("dpkg-deb");
        let bytes = package.make(Format::Deb, scratch).unwrap();
        let file = scratch.join("package.deb");
        fs::write(&file, &bytes).unwrap();
        (package, file, bytes)
    }

    #[test]
    fn dpkg_reads_what_it_holds() {
        let scratch = tempfile::tempdir().unwrap();
        let (_, file, _) = package(scratch.path());
        let said = |arguments: &[&str]| tools::said(tools::command("dpkg-deb").args(arguments).arg(&file));
        let control = said(&["--field"]);
        for line in [
            "Package: livepatch-6.1-x",
            "Version: 3",
            "Architecture: amd64",
            " It mends CVE-2026-1, CVE-2026-2.",
        ] {
            assert!(control.lines().any(|one| one == line), "{line}\n{control}");
        }
        let contents = said(&["--contents"]);
        let module =
            contents.lines().find(|line| line.ends_with("./usr/lib/modules/6.1-x/livepatch/livepatch_a.ko"));
        assert!(module.is_some_and(|line| line.starts_with("-rw-r--r-- root/root")), "{contents}");
        assert!(
            contents.lines().all(|line| !line.starts_with('d') || line.starts_with("drwxr-xr-x")),
            "{contents}"
        );
    }

    #[test]
    fn the_same_inputs_give_the_same_bytes() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [first, second] = folders.each_ref().map(|folder| package(folder.path()).2);
        assert!(first == second);
    }
}
