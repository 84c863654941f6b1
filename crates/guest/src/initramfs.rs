//! A guest's initial file system: busybox, an init, kernel modules, livepatches and scripts in a newc archive.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use cpio::{NewcBuilder, newc::ModeFileType};
use klpx_diagnosis::Diagnosis;

type ArchiveResult<T> = std::result::Result<T, Diagnosis>;

/// The entries of the archive, in the order of addition.
pub(crate) struct Initramfs {
    entries: Vec<ArchiveEntry>,
}

struct ArchiveEntry {
    path: String,
    mode: u32,
    kind: ModeFileType,
    data: Vec<u8>,
}

impl Initramfs {
    /// The directories of a small system, a static busybox, and `init` as process 1.
    pub(crate) fn new(init: &str, busybox: &Path) -> ArchiveResult<Initramfs> {
        let mut archive = Initramfs { entries: Vec::new() };
        for directory in ["bin", "dev", "lib", "proc", "run", "sys", "tmp"] {
            archive.push(directory, 0o755, ModeFileType::Directory, Vec::new());
        }
        archive.push("bin/busybox", 0o755, ModeFileType::Regular, read(busybox)?);
        archive.push("bin/sh", 0o777, ModeFileType::Symlink, b"busybox".to_vec());
        archive.push("init", 0o755, ModeFileType::Regular, init.as_bytes().to_vec());
        Ok(archive)
    }

    /// Adds a file of the host, with its parent directories.
    pub(crate) fn file(&mut self, path: &str, host: &Path, mode: u32) -> ArchiveResult<()> {
        let data = read(host)?;
        self.bytes(path, data, mode);
        Ok(())
    }

    /// Adds a file from memory, with its parent directories.
    pub(crate) fn bytes(&mut self, path: &str, data: Vec<u8>, mode: u32) {
        let path = path.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            if !self.entries.iter().any(|entry| entry.path == path[..at]) {
                self.push(&path[..at], 0o755, ModeFileType::Directory, Vec::new());
            }
        }
        self.push(path, mode, ModeFileType::Regular, data);
    }

    fn push(&mut self, path: &str, mode: u32, kind: ModeFileType, data: Vec<u8>) {
        self.entries.push(ArchiveEntry { path: path.to_owned(), mode, kind, data });
    }

    /// Writes the archive.
    pub(crate) fn write(self, output: &Path) -> ArchiveResult<()> {
        let failed = |error: std::io::Error| Diagnosis::io("write", output, &error);
        let file = fs::File::create(output).map_err(failed)?;
        let inputs = self.entries.into_iter().map(|entry| {
            let links = if matches!(entry.kind, ModeFileType::Directory) { 2 } else { 1 };
            let builder =
                NewcBuilder::new(&entry.path).mode(entry.mode).set_mode_file_type(entry.kind).nlink(links);
            (builder, Cursor::new(entry.data))
        });
        cpio::write_cpio(inputs, std::io::BufWriter::new(file)).map_err(failed)?;
        Ok(())
    }
}

fn read(path: &Path) -> ArchiveResult<Vec<u8>> {
    fs::read(path).map_err(|error| Diagnosis::io("read", path, &error))
}
