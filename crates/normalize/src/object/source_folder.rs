//! Paths of the source in strings. The compiler writes a path as given on its command line, so the path depends on
//! where the kernel was built. Such paths lie in the locations of the undefined-behaviour sanitizer (`struct
//! source_location`, lib/ubsan.h), and in `__FILE__` where no `-fmacro-prefix-map` removes the folder (modules outside
//! the kernel's tree, before Linux 6.13).

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::elf::SectionId;
use crate::object::{Object, Role};

impl<'d> Object<'d> {
    /// Returns the object with the folders in which its source was compiled.
    #[must_use]
    pub fn compiled_in(mut self, folders: &[PathBuf]) -> Object<'d> {
        let bytes = |folder: &PathBuf| [folder.as_os_str().as_bytes(), b"/"].concat();
        self.source_folders = folders.iter().map(bytes).collect();
        self
    }

    /// Returns a literal's bytes without the folder of the source, if the literal is a string that begins with one.
    pub fn without_source_folder<'t>(&self, section: SectionId, bytes: &'t [u8]) -> &'t [u8] {
        let folders = self.source_folders.iter();
        let rest = || folders.filter_map(|folder| bytes.strip_prefix(&folder[..])).next();
        (self.role(section) == Role::Strings).then(rest).flatten().unwrap_or(bytes)
    }
}
