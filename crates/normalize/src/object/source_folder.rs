//! Paths of the source in strings. The compiler writes a path as given on its command line, so the path depends on
//! where the kernel was built. Such paths lie in the locations of the undefined-behaviour sanitizer (`struct
//! source_location`, lib/ubsan.h), and in `__FILE__` where no `-fmacro-prefix-map` removes the folder (modules outside
//! the kernel's tree, before Linux 6.13).

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::elf::SectionId;
use crate::object::{Object, Role};

/// The mark that GCC puts in the section name of a sanitizer's location, with `-fdata-sections`.
const LOCATION: &[u8] = b"..Lubsan_data";

/// The bytes of line and column in a sanitizer's location (`struct source_location`, lib/ubsan.h).
pub const LINE_AND_COLUMN: std::ops::Range<u64> = 8..16;

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

    /// Returns true for the section of a sanitizer's location, which holds file, line and column of a check.
    pub fn is_check_location(&self, section: SectionId) -> bool {
        let name = self.elf.section_name(section);
        let at = name.windows(LOCATION.len()).position(|part| part == LOCATION);
        at.is_some_and(|at| name[at + LOCATION.len()..].iter().all(u8::is_ascii_digit))
    }
}
