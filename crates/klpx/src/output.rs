//! Files that a command writes at its end. The command finds out at its beginning whether it can write them, and a
//! half-written file is never visible.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};
use tempfile::NamedTempFile;

/// A file that will be written.
pub(crate) struct OutputFile {
    path: PathBuf,
    to: To,
}

enum To {
    /// A new file in the same folder, with these permissions, that is renamed to the final path. It is created only
    /// when it is written, so a command that is killed leaves nothing behind.
    New(u32),
    /// The existing file: a device or a pipe, or a file in a folder that allows no new one.
    There(File),
}

impl OutputFile {
    /// Checks that a file can be written, without touching an existing one. The umask applies to `mode`.
    ///
    /// # Errors
    /// Fails if the path is a folder, if the file's folder is missing, or if the system refuses.
    pub(crate) fn claim(path: &Path, mode: u32) -> Result<OutputFile> {
        let place = || DiagnosisPlace::file(path.display().to_string(), None);
        if path.is_dir() {
            return Err(Diagnosis::new(
                &codes::OUTPUT_IS_FOLDER,
                "a folder is where a file is to go",
                "the output is one file",
                "name a file that is not there, or remove the folder",
            )
            .place(place())
            .into());
        }
        // A symbolic link stays, and its target is written.
        let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let folder = folder_of(&target);
        if !folder.is_dir() {
            return Err(Diagnosis::new(
                &codes::NO_SUCH_FOLDER,
                "the output folder does not exist",
                "klpx makes no folder for an output file",
                "make the folder, or correct the path",
            )
            .place(DiagnosisPlace::file(folder.display().to_string(), None))
            .into());
        }
        let failed = |e: &std::io::Error| Diagnosis::io("write", path, e);
        let there = target.metadata().ok();
        let new = there.as_ref().is_none_or(std::fs::Metadata::is_file);
        let to = match beside(folder, mode) {
            Ok(_) if new => To::New(mode),
            Err(error) if there.is_none() => return Err(failed(&error).into()),
            _ => To::There(File::options().write(true).open(&target).map_err(|e| failed(&e))?),
        };
        Ok(OutputFile { path: target, to })
    }

    /// Refuses to write over a file that the command reads.
    ///
    /// # Errors
    /// `klpx::output-is-input`.
    pub(crate) fn is_none_of<'p>(&self, inputs: impl IntoIterator<Item = &'p Path>) -> Result<()> {
        let id = |path: &Path| path.metadata().ok().map(|meta| (meta.dev(), meta.ino()));
        let Some(own) = id(&self.path) else { return Ok(()) };
        match inputs.into_iter().find(|input| id(input) == Some(own)) {
            None => Ok(()),
            Some(input) => {
                let what = format!("{} is read, and would be written over", input.display());
                Err(Diagnosis::new(
                    &codes::OUTPUT_IS_INPUT,
                    what,
                    "the input would be lost",
                    "name another file for the output",
                )
                .into())
            }
        }
    }

    /// Writes the file, replacing an existing one.
    pub(crate) fn write(self, bytes: &[u8]) -> Result<()> {
        let failed = |e: &std::io::Error| Diagnosis::io("write", &self.path, e);
        match self.to {
            To::New(mode) => {
                let mut file = beside(folder_of(&self.path), mode).map_err(|e| failed(&e))?;
                file.write_all(bytes).map_err(|e| failed(&e))?;
                file.persist(&self.path).map_err(|e| failed(&e.error))?;
            }
            To::There(mut file) => {
                // A device can't be truncated.
                let _ = file.set_len(0);
                file.write_all(bytes).map_err(|e| failed(&e))?;
            }
        }
        Ok(())
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A new file in a folder, deleted unless it is given a name.
fn beside(folder: &Path, mode: u32) -> std::io::Result<NamedTempFile> {
    let permissions = Permissions::from_mode(mode);
    tempfile::Builder::new().prefix(".klpx-").permissions(permissions).tempfile_in(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(result: Result<impl Sized>) -> &'static str {
        let failure = result.map(|_| ()).expect_err("refused");
        failure.diagnoses().next().expect("one").code
    }

    #[test]
    fn a_claim_leaves_nothing_in_the_folder() {
        let dir = tempfile::tempdir().expect("dir");
        let output = OutputFile::claim(&dir.path().join("file"), 0o644).expect("a claim");
        assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 0);
        output.write(b"text").expect("written");
        let names: Vec<_> = std::fs::read_dir(dir.path()).expect("a folder").flatten().collect();
        assert_eq!(names.iter().map(|entry| entry.file_name()).collect::<Vec<_>>(), ["file"]);
    }

    #[test]
    fn what_can_not_be_written_is_known_before() {
        let dir = tempfile::tempdir().expect("dir");
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("folder")).expect("mkdir");
        assert_eq!(code(OutputFile::claim(&at("folder"), 0o644)), "klpx::output-is-folder");
        assert_eq!(code(OutputFile::claim(&at("none/file"), 0o644)), "klpx::no-such-folder");
        assert_eq!(code(OutputFile::claim(Path::new("/proc/klpx"), 0o644)), "klpx::io");
    }

    #[test]
    fn nothing_is_there_before_it_is_whole_and_links_stay() {
        let dir = tempfile::tempdir().expect("dir");
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::os::unix::fs::symlink("file", &link).expect("link");
        let output = OutputFile::claim(&file, 0o644).expect("claimed");
        assert!(!file.exists());
        output.write(b"text").expect("written");
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 2);
        OutputFile::claim(&link, 0o644).expect("claimed").write(b"more").expect("written");
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_to_string(&file).expect("read"), "more");
        drop(OutputFile::claim(&file, 0o644).expect("claimed"));
        assert_eq!(std::fs::read_to_string(&file).expect("read"), "more", "given up");
        OutputFile::claim(Path::new("/dev/null"), 0o644).expect("claimed").write(b"x").expect("a device");
    }

    #[test]
    fn an_input_is_not_written_over() {
        let dir = tempfile::tempdir().expect("dir");
        let (patch, link) = (dir.path().join("a.patch"), dir.path().join("link"));
        std::fs::write(&patch, "text").expect("write");
        std::os::unix::fs::symlink(&patch, &link).expect("link");
        let inputs = || [Path::new("/nonexistent"), patch.as_path()];
        let output = OutputFile::claim(&link, 0o644).expect("claimed");
        assert_eq!(code(output.is_none_of(inputs())), "klpx::output-is-input");
        OutputFile::claim(&dir.path().join("new"), 0o644)
            .expect("claimed")
            .is_none_of(inputs())
            .expect("another");
    }
}
